//! Hinted hand-off: what an unavailable receiver misses is written to this machine's disk and sent when it is back.
//!
//! ```text
//! forward (share of an unavailable peer) ─ HintLog: fsync ─ counts for the quorum, once a machine
//! replay: sealed segments, oldest first ─ the peer, marked late ─ segment removed
//!                                       └ through the hashring, when the peer has left it
//! ```
//!
//! A hint counts only once it is durable. It is removed only after its receiver has answered, so a crash repeats hints and never
//! loses one; a receiver that has a sample already does not mind it again. Fresh writes do not wait for hints: the receiver is sent
//! both, and takes what comes late out of order. `docs/design/2026-11-26-handoff.md` says what is promised.

mod log;
mod metrics;
mod record;
mod replay;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::TenantId;
use chronolith_service::Clock;
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{StoreError, compress_batch};

use log::HintLog;
pub(crate) use log::LogStats;
use metrics::{HandoffCollector, HandoffMetrics};
use record::Hint;
pub(crate) use replay::Replay;

/// Settings of the hand-off, all ours.
#[derive(Clone, Debug)]
pub struct HandoffOptions {
    /// `--receive.handoff.dir`; empty is `handoff` below `--tsdb.path`.
    pub dir: PathBuf,
    /// `--receive.handoff.max-bytes`: all hints together; 0 turns the hand-off off.
    pub bytes_max: u64,
    /// `--receive.handoff.max-age`, milliseconds: older hints are dropped, and a receiver takes hints that late out of order.
    pub age_max_ms: i64,
}

impl Default for HandoffOptions {
    fn default() -> Self {
        HandoffOptions { dir: PathBuf::new(), bytes_max: 4 << 30, age_max_ms: 6 * 3_600_000 }
    }
}

/// Keeps hints for peers.
#[derive(Debug)]
pub(crate) struct Handoff {
    log: Arc<HintLog>,
    metrics: HandoffMetrics,
    clock: Arc<dyn Clock>,
    age_max_ms: i64,
}

impl Handoff {
    /// Opens the log with what the last run left.
    pub(crate) fn open(
        options: &HandoffOptions,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> std::io::Result<Arc<Self>> {
        let log = HintLog::open(&options.dir, options.bytes_max)?;
        registry.register_collector(Box::new(HandoffCollector(Arc::clone(&log))));
        let metrics = HandoffMetrics::register(registry);
        Ok(Arc::new(Handoff { log, metrics, clock, age_max_ms: options.age_max_ms }))
    }

    /// Keeps a batch (as the peers' protocol has it) for a peer. `Ok` means that it is on disk.
    pub(crate) async fn keep(&self, peer: &str, tenant: &TenantId, batch: &Bytes) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        // Compressed: what waits may be much, and labels repeat.
        let hint = Hint { now_ms, tenant: tenant.clone(), batch: compress_batch(batch) };
        let kept = self.log.append(peer, hint.to_frame()).await;
        self.metrics.kept(&kept);
        kept.map_err(|e| StoreError::unavailable(format!("{peer}: no hint could be kept for it: {e}")))
    }

    /// Peers for which something waits.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.log.peers()
    }

    /// What waits for a peer.
    pub(crate) fn stats(&self, peer: &str) -> LogStats {
        self.log.stats(peer)
    }
}
