//! The [`WriteSink`] over a hashring: each series to its receivers, of which this may be one.
//!
//! ```text
//! batch ─ place ─┬─ local share ── LocalSink                    ┐
//!                └─ peers' shares ─ encoded once ─ queues ─ gRPC ┴─ tally ─ quorum per series ─ answer
//!                                                                     └─ the rest goes on behind the answer ─ hints
//! ```
//!
//! Placing, encoding, queueing and the local append happen in the first poll, which the remote-write handler makes on a worker
//! thread. What becomes of the answers is [`Fanout`]'s business.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use chronolith_model::{Labels, TenantId, WriteBatch};
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{
    PeerShare, StoreError, WriteError, WriteInFlight, WriteReport, WriteSink, WriteWay, decode_batch,
    encode_batch,
};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::fanout::Fanout;
use super::metrics::{ForwardMetrics, RingCollector};
use super::peer::{Peer, PeerOptions};
use super::place::{Placed, place};
use super::tally::{Failure, Tally, quorum};
use crate::handoff::{Handoff, HandoffOptions, LogStats};
use crate::hashring::{Algorithm, HashringConfig, HashringError, Hashrings};

/// Settings of forwarding; Thanos's flags where it has them.
#[derive(Clone, Debug)]
pub struct ForwardOptions {
    /// `--receive.hashrings-file`.
    pub file: Option<PathBuf>,
    /// `--receive.hashrings`, where there is no file.
    pub inline: Option<String>,
    /// `--receive.hashrings-algorithm`.
    pub algorithm: Algorithm,
    /// `--receive.hashrings-file-refresh-interval`.
    pub refresh_interval: Duration,
    /// `--receive.local-endpoint`: which endpoint this receiver is; `None` for one that keeps nothing.
    pub local_endpoint: Option<String>,
    /// `--receive.replication-factor`.
    pub replication_factor: usize,
    /// `--receive-forward-timeout`.
    pub timeout: Duration,
    /// `--receive-forward-max-backoff`.
    pub backoff_max: Duration,
    /// `--receive.forward.async-workers` of each peer.
    pub workers: usize,
    /// `--receive.grpc-compression` is snappy.
    pub compress: bool,
    /// `--receive.forward.queue-bytes-max` (ours) of each peer.
    pub queue_bytes_max: usize,
    /// What is kept for unavailable receivers.
    pub handoff: HandoffOptions,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        ForwardOptions {
            file: None,
            inline: None,
            algorithm: Algorithm::Hashmod,
            refresh_interval: Duration::from_secs(300),
            local_endpoint: None,
            replication_factor: 1,
            timeout: Duration::from_secs(5),
            backoff_max: Duration::from_secs(5),
            workers: 5,
            compress: true,
            queue_bytes_max: 64 << 20,
            handoff: HandoffOptions::default(),
        }
    }
}

/// Writes to the receivers of a hashring.
pub(crate) struct RingSink {
    pub(super) options: ForwardOptions,
    local: Option<Arc<dyn WriteSink>>,
    state: ArcSwapOption<State>,
    /// Peers by address: they outlive a reload.
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    pub(super) handoff: Option<Arc<Handoff>>,
    pub(super) metrics: ForwardMetrics,
    /// Acknowledged requests some of whose receivers have not answered yet.
    pub(super) unfinished: TaskTracker,
}

/// The rings with who is who.
#[derive(Debug)]
struct State {
    rings: Hashrings,
    targets: Vec<Target>,
}

#[derive(Clone, Debug)]
enum Target {
    Local,
    Peer(Arc<Peer>),
}

impl RingSink {
    /// A sink without rings yet. `local` keeps what the local endpoint gets.
    pub(crate) fn new(
        options: ForwardOptions,
        local: Option<Arc<dyn WriteSink>>,
        handoff: Option<Arc<Handoff>>,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let metrics = ForwardMetrics::register(registry, options.replication_factor);
        let sink = Arc::new(RingSink {
            options,
            local,
            state: ArcSwapOption::empty(),
            peers: Mutex::default(),
            handoff,
            metrics,
            unfinished: TaskTracker::new(),
        });
        registry.register_collector(Box::new(RingCollector(Arc::clone(&sink))));
        sink
    }

    /// The settings.
    pub(crate) fn options(&self) -> &ForwardOptions {
        &self.options
    }

    /// From now on these are the rings. Requests under way keep the old ones; nothing is flushed. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// What [`Hashrings::new`] refuses, and peers whose address is none; the old rings then stay.
    pub(crate) fn set_rings(&self, configs: Vec<HashringConfig>) -> Result<(), HashringError> {
        let rings = Hashrings::new(configs, self.options.algorithm, self.options.replication_factor)?;
        let mut peers = self.peers.lock();
        let mut next: HashMap<String, Arc<Peer>> = HashMap::new();
        let mut targets = Vec::with_capacity(rings.endpoints().len());
        for endpoint in rings.endpoints() {
            if self.local.is_some() && self.options.local_endpoint.as_ref().is_some_and(|l| endpoint.is_at(l))
            {
                targets.push(Target::Local);
                continue;
            }
            let peer = match peers.get(&endpoint.address) {
                Some(peer) => Arc::clone(peer),
                None => Arc::new(self.new_peer(&endpoint.address)?),
            };
            next.insert(endpoint.address.clone(), Arc::clone(&peer));
            targets.push(Target::Peer(peer));
        }
        if self.local.is_some() && !targets.iter().any(|t| matches!(t, Target::Local)) {
            tracing::warn!(
                local = self.options.local_endpoint.as_deref().unwrap_or(""),
                "no hashring has the local endpoint: this receiver only forwards"
            );
        }
        *peers = next;
        drop(peers);
        self.state.store(Some(Arc::new(State { rings, targets })));
        Ok(())
    }

    fn new_peer(&self, address: &str) -> Result<Peer, HashringError> {
        let options = PeerOptions {
            workers: self.options.workers,
            timeout: self.options.timeout,
            backoff_max: self.options.backoff_max,
            queue_bytes_max: self.options.queue_bytes_max,
            compress: self.options.compress,
        };
        Peer::new(address, options, self.metrics.clone())
            .map_err(|e| HashringError::of_endpoint(address, &e.chain()))
    }

    /// The rings, once there are some.
    pub(super) fn rings(&self) -> Option<impl std::ops::Deref<Target = Hashrings> + use<>> {
        struct Rings(Arc<State>);
        impl std::ops::Deref for Rings {
            type Target = Hashrings;
            fn deref(&self) -> &Hashrings {
                &self.0.rings
            }
        }
        self.state.load_full().map(Rings)
    }

    /// The peers, by address.
    pub(super) fn peers(&self) -> Vec<Arc<Peer>> {
        let mut peers: Vec<_> = self.peers.lock().values().cloned().collect();
        peers.sort_by(|a, b| a.address().cmp(b.address()));
        peers
    }

    /// Whether an endpoint of the rings is this receiver.
    pub(super) fn is_local(&self, address: &str) -> bool {
        self.local.is_some() && self.options.local_endpoint.as_deref() == Some(address)
    }

    /// The peer at an address of the rings.
    pub(crate) fn peer(&self, address: &str) -> Option<Arc<Peer>> {
        self.peers.lock().get(address).cloned()
    }

    /// Whether a peer can be tried now; what is for one that left the rings can always be.
    pub(crate) fn may_ask(&self, address: &str) -> bool {
        self.state.load().is_some() && self.peer(address).is_none_or(|peer| !peer.is_backing_off())
    }

    /// Writes shares of a peer that left the rings to who keeps their series now. Ends with the first that must be sent again.
    pub(crate) async fn reroute(
        self: &Arc<Self>,
        shares: Vec<PeerShare>,
    ) -> Vec<Result<WriteReport, WriteError>> {
        let mut results = Vec::with_capacity(shares.len());
        for PeerShare { tenant, batch, .. } in shares {
            let sink = Arc::clone(self);
            let begin = move || sink.begin(&tenant, decode_batch(&batch)?, WriteWay::Late);
            let result = match tokio::task::spawn_blocking(begin).await {
                Ok(Ok(fanout)) => fanout.answer().await,
                Ok(Err(error)) => Err(error),
                Err(panicked) => Err(StoreError::internal(panicked.to_string())),
            };
            let again = Failure::of(&result).is_some_and(|failure| !failure.is_permanent());
            results.push(result);
            if again {
                break;
            }
        }
        results
    }

    /// Labels that the rings give a tenant.
    pub(crate) fn external_labels(&self, tenant: &str) -> Option<Labels> {
        self.rings()?.external_labels(tenant).cloned()
    }

    /// What waits for a peer on this machine's disk.
    pub(super) fn hints(&self, address: &str) -> LogStats {
        self.handoff.as_ref().map_or_else(LogStats::default, |h| h.stats(address))
    }

    /// Waits for what acknowledged requests have left under way, at most `patience`.
    pub(crate) async fn finish(&self, patience: Duration) {
        self.unfinished.close();
        if tokio::time::timeout(patience, self.unfinished.wait()).await.is_err() {
            tracing::warn!("some receivers had not answered to acknowledged writes at shutdown");
        }
    }

    fn begin(
        self: &Arc<Self>,
        tenant: &TenantId,
        batch: WriteBatch,
        way: WriteWay,
    ) -> Result<Fanout, WriteError> {
        let (replica, late) = match way {
            WriteWay::Fresh => (None, false),
            WriteWay::Replica(n) => (Some(n), false),
            WriteWay::Late => (None, true),
        };
        let state = self.state.load_full();
        let state = state.ok_or_else(|| StoreError::unavailable("not ready: there is no hashring yet"))?;
        let knows_numbers = |t: &Target| matches!(t, Target::Peer(peer) if !peer.is_own());
        let numbers = state.targets.iter().any(knows_numbers);
        let placed = place(&state.rings, tenant.as_str(), &batch, replica, numbers)
            .map_err(|e| StoreError::internal(e.to_string()))?;
        let whole = placed.is_whole();
        let Placed { shares, replicas } = placed;
        let units = if whole { 1 } else { batch.series_count() };
        let needed = if replica.is_some() { 1 } else { quorum(replicas) };
        let stored = WriteReport {
            written: batch.sample_count(),
            histograms_written: batch.iter().map(|s| s.histograms.len()).sum(),
            exemplars_written: batch.exemplar_count(),
            ..WriteReport::default()
        };
        let mut fanout = Fanout::new(Arc::clone(self), Tally::new(units, replicas, needed), stored, way);
        let mut encoded_whole: Option<Bytes> = None;
        let mut local = None;
        for share in shares {
            let units = if units == 1 { None } else { share.series };
            let Target::Peer(peer) = &state.targets[usize::from(share.endpoint)] else {
                local = Some(fanout.keep_here(units));
                continue;
            };
            let encoded = match &units {
                None => encoded_whole.get_or_insert_with(|| encode_batch(&batch, None)).clone(),
                Some(series) => encode_batch(&batch, Some(series)),
            };
            let replicas = share.replicas.map(Bytes::from);
            let share = PeerShare { tenant: tenant.clone(), batch: encoded, replicas, late };
            fanout.send(Arc::clone(peer), share, units);
        }
        if let (Some(i), Some(sink)) = (local, &self.local) {
            // Last, so that the peers work meanwhile.
            let batch = match fanout.units(i) {
                None => batch,
                Some(series) => batch.select(series),
            };
            let way = if late { WriteWay::Late } else { WriteWay::Fresh };
            fanout.await_answer(i, WriteInFlight::begin(Arc::clone(sink), tenant.clone(), batch, way));
        }
        Ok(fanout)
    }
}

impl std::fmt::Debug for RingSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingSink").field("options", &self.options).finish_non_exhaustive()
    }
}

/// [`RingSink`] as a [`WriteSink`].
#[derive(Clone, Debug)]
pub(crate) struct RingWrites(pub(crate) Arc<RingSink>);

#[async_trait]
impl WriteSink for RingWrites {
    /// Placement and peers want sections.
    fn knows_keys(&self) -> bool {
        false
    }

    async fn write_by(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        way: WriteWay,
    ) -> Result<WriteReport, WriteError> {
        let fanout = self.0.begin(tenant, batch, way)?;
        fanout.answer().await
    }
}
