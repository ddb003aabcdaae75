//! The [`WriteSink`] over a hashring: each series to its receivers, of which this may be one.
//!
//! ```text
//! batch ─ place ─┬─ local share ── LocalSink                    ┐
//!                └─ peers' shares ─ encoded once ─ queues ─ gRPC ┴─ tally ─ quorum per series ─ answer
//!                                                                     └─ the rest goes on behind the answer ─ hints
//! ```
//!
//! Placing, encoding, queueing and the local append happen in the first poll, which the remote-write handler makes on a worker
//! thread. A request is answered as soon as every series has its quorum, or can no longer have it; what is still under way then is
//! awaited by a task, so that a receiver which fails late gets its hint. Those tasks are bounded by the peers' queues and timeouts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use chronolith_model::{Labels, TenantId, WriteBatch};
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{
    ErrorKind, PeerShare, StoreError, WriteError, WriteInFlight, WriteReport, WriteSink, WriteWay,
    decode_batch, encode_batch,
};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::metrics::{ForwardMetrics, RingCollector};
use super::peer::{Peer, PeerOptions};
use super::place::{Placed, place};
use super::tally::{Failure, Here, Tally, Units, quorum};
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
    options: ForwardOptions,
    local: Option<Arc<dyn WriteSink>>,
    state: ArcSwapOption<State>,
    /// Peers by address: they outlive a reload.
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    handoff: Option<Arc<Handoff>>,
    metrics: ForwardMetrics,
    unfinished: TaskTracker,
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

    /// Writes shares of a peer that left the rings to who keeps their series now.
    pub(crate) async fn reroute(
        self: &Arc<Self>,
        shares: &[PeerShare],
    ) -> Vec<Result<WriteReport, WriteError>> {
        let mut results = Vec::with_capacity(shares.len());
        for share in shares {
            let fanout =
                decode_batch(&share.batch).and_then(|batch| self.begin(&share.tenant, batch, WriteWay::Late));
            results.push(match fanout {
                Ok(fanout) => fanout.answer().await,
                Err(error) => Err(error),
            });
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
        let mut fanout = Fanout {
            sink: Arc::clone(self),
            shares: Vec::with_capacity(shares.len()),
            tally: Tally::new(units, replicas, needed),
            here: Here::none(units),
            pending: FuturesUnordered::new(),
            failed: Vec::new(),
            said: Vec::new(),
            stored: WriteReport {
                written: batch.sample_count(),
                histograms_written: batch.iter().map(|s| s.histograms.len()).sum(),
                exemplars_written: batch.exemplar_count(),
                ..WriteReport::default()
            },
        };
        let mut encoded_whole: Option<Bytes> = None;
        let mut local = None;
        for (i, share) in shares.into_iter().enumerate() {
            let target = state.targets[usize::from(share.endpoint)].clone();
            let units = if units == 1 { None } else { share.series };
            let Target::Peer(peer) = target else {
                fanout.here.add_all(units.as_deref());
                fanout.shares.push(Sent { units, to: None });
                local = Some(i);
                continue;
            };
            let encoded = match &units {
                None => encoded_whole.get_or_insert_with(|| encode_batch(&batch, None)).clone(),
                Some(series) => encode_batch(&batch, Some(series)),
            };
            let replicas = share.replicas.map(Bytes::from);
            let share = PeerShare { tenant: tenant.clone(), batch: encoded, replicas, late };
            match peer.send(share.clone(), replica.is_some()) {
                Ok(answer) => fanout.pending.push(Box::pin(async move {
                    let lost = || Err(StoreError::unavailable("the peer left the hashring"));
                    (i, answer.await.unwrap_or_else(|_| lost()))
                })),
                Err(error) => fanout.pending.push(Box::pin(std::future::ready((i, Err(error))))),
            }
            fanout.shares.push(Sent { units, to: Some((peer, share)) });
        }
        if let (Some(i), Some(sink)) = (local, &self.local) {
            // Last, so that the peers work meanwhile.
            let batch = match &fanout.shares[i].units {
                None => batch,
                Some(series) => batch.select(series),
            };
            let way = if late { WriteWay::Late } else { WriteWay::Fresh };
            let write = WriteInFlight::begin(Arc::clone(sink), tenant.clone(), batch, way);
            fanout.pending.push(Box::pin(async move { (i, write.await) }));
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
    async fn write(&self, tenant: &TenantId, batch: WriteBatch) -> Result<WriteReport, WriteError> {
        self.write_by(tenant, batch, WriteWay::Fresh).await
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

/// How long a request that lacks its quorum asks unavailable receivers again before it is refused: longer than a receiver that
/// came back is left alone at first, shorter than writers wait.
const PATIENCE: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type PendingAnswer = Pin<Box<dyn Future<Output = (usize, Result<WriteReport, WriteError>)> + Send>>;

/// A share that was sent.
struct Sent {
    units: Option<Vec<u32>>,
    /// Whom; `None` for this receiver.
    to: Option<(Arc<Peer>, PeerShare)>,
}

/// A request on its way to its receivers.
struct Fanout {
    sink: Arc<RingSink>,
    shares: Vec<Sent>,
    tally: Tally,
    here: Here,
    pending: FuturesUnordered<PendingAnswer>,
    /// Shares whose receiver was unavailable.
    failed: Vec<usize>,
    /// What the first failure of each class said.
    said: Vec<(Failure, Result<WriteReport, WriteError>)>,
    /// What the answer says when all is stored.
    stored: WriteReport,
}

impl Fanout {
    /// Waits for the quorum or its impossibility.
    async fn answer(mut self) -> Result<WriteReport, WriteError> {
        let patient_until = Instant::now() + PATIENCE.min(self.sink.options.timeout);
        loop {
            while !self.tally.is_decided() {
                match self.pending.next().await {
                    Some((i, answer)) => self.count(i, answer),
                    None => break,
                }
            }
            self.hint_for_quorum().await;
            if self.tally.is_decided() || self.failed.is_empty() || Instant::now() >= patient_until {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            self.send_failed_again();
        }
        if let Some(failure) = self.tally.verdict() {
            return self.failure(failure);
        }
        let report = self.stored.clone();
        if !self.pending.is_empty() || !self.failed.is_empty() {
            let tracker = self.sink.unfinished.clone();
            self.sink.metrics.late_answers.inc();
            tracker.spawn(async move {
                while let Some((i, answer)) = self.pending.next().await {
                    self.count(i, answer);
                }
                for i in std::mem::take(&mut self.failed) {
                    // A failure is counted and the receiver misses the share: the quorum has it.
                    let _ = self.hint(i).await;
                }
                self.sink.metrics.late_answers.dec();
            });
        }
        Ok(report)
    }

    /// Asks the unavailable receivers once more, also those that are being left alone: in a rolling restart the one that has
    /// just come back is still left alone when the next one goes, and then there would be no quorum for a moment.
    fn send_failed_again(&mut self) {
        for i in std::mem::take(&mut self.failed) {
            let Some((peer, share)) = &self.shares[i].to else { continue };
            self.tally.take_back_unavailable(self.shares[i].units.as_deref());
            let answer = peer.send_anyway(share.clone());
            self.pending.push(Box::pin(async move { (i, answer.await) }));
        }
    }

    /// Where unavailable receivers are all that is missing, hints may take their place.
    async fn hint_for_quorum(&mut self) {
        if self.sink.handoff.is_none() || self.failed.is_empty() || self.tally.is_stored() {
            return;
        }
        let units: Vec<Units<'_>> = self.failed.iter().map(|i| self.shares[*i].units.as_deref()).collect();
        if !self.tally.would_be_stored_by(&units, &self.here) {
            return;
        }
        let failed = std::mem::take(&mut self.failed);
        let kept = futures::future::join_all(failed.iter().map(|i| self.hint(*i))).await;
        for (i, kept) in failed.into_iter().zip(kept) {
            match kept {
                Ok(()) => self.tally.replace_by_hint(self.shares[i].units.as_deref(), &mut self.here),
                Err(error) => self.said.insert(0, (Failure::Unavailable, Err(error))),
            }
        }
    }

    /// Keeps a hint for the receiver of a share.
    fn hint(&self, i: usize) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let to = self.shares[i].to.clone();
        let handoff = self.sink.handoff.clone();
        async move {
            match (handoff, to) {
                (Some(handoff), Some((peer, share))) => {
                    handoff.keep(peer.address(), &share.tenant, &share.batch).await
                }
                _ => Ok(()),
            }
        }
    }

    fn count(&mut self, i: usize, answer: Result<WriteReport, WriteError>) {
        let share = &self.shares[i];
        let failure = Failure::of(&answer);
        self.tally.add(share.units.as_deref(), failure);
        let Some(failure) = failure else { return };
        if failure == Failure::Unavailable && share.to.is_some() {
            self.failed.push(i);
        }
        if self.said.iter().all(|(said, _)| *said != failure) {
            self.said.push((failure, answer));
        }
    }

    /// The answer for a request that failed: what was said first in the verdict's class.
    fn failure(self, verdict: Failure) -> Result<WriteReport, WriteError> {
        let at = self.said.iter().position(|(said, _)| *said == verdict).unwrap_or(0);
        let answer = self.said.into_iter().nth(at).map(|(_, answer)| answer);
        let text = match &answer {
            Some(Err(error)) => error.chain(),
            Some(Ok(report)) => report.rejections.first().map(|r| r.reason.clone()).unwrap_or_default(),
            None => String::new(),
        };
        let kind = match verdict {
            Failure::Unavailable => ErrorKind::Unavailable,
            Failure::Internal => ErrorKind::Internal,
            // A receiver's own words: which samples, and why.
            _ => return answer.unwrap_or_else(|| Err(StoreError::internal("a failure without an answer"))),
        };
        Err(StoreError::new(kind, format!("too few receivers took the request: {text}")))
    }
}
