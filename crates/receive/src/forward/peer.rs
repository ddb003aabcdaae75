//! One other receiver: a bounded queue, workers that send what has gathered in it, and backoff while the receiver is unavailable.
//!
//! A worker that is free takes what waits, up to [`CALL_BYTES`], into one call: an idle peer is sent a share at once, a busy one
//! many at a time. Receivers of ours are sent one call after the other: a request is answered once its quorum is there, the next one
//! of the same series follows at once, and must not overtake it on the way to the last receiver. Thanos's receivers know one request
//! a call, so there several are under way, and that can happen. A share that cannot be queued, or whose time is over before it is sent, fails; it never waits for room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_storeapi::{
    ClientOptions, ErrorKind, PeerClient, PeerForm, PeerShare, StoreError, WriteError, WriteReport,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::metrics::ForwardMetrics;

/// Shares of one call.
const CALL_BYTES: usize = 8 << 20;
const CALL_SHARES: usize = 256;
/// The first wait after a failure; Thanos's.
const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// How peers are talked to.
#[derive(Clone, Debug)]
pub(super) struct PeerOptions {
    pub(super) workers: usize,
    pub(super) timeout: Duration,
    pub(super) backoff_max: Duration,
    pub(super) queue_bytes_max: usize,
    pub(super) compress: bool,
}

/// Another receiver. Dropping it ends its workers once the queue is empty.
#[derive(Debug)]
pub(crate) struct Peer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: PeerClient,
    options: PeerOptions,
    queue: Mutex<Queue>,
    filled: Notify,
    /// Held during a call to a receiver of ours.
    order: tokio::sync::Mutex<()>,
    backoff: Mutex<Backoff>,
    metrics: ForwardMetrics,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    share: PeerShare,
    replicated_already: bool,
    since: Instant,
    done: oneshot::Sender<Result<WriteReport, WriteError>>,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    error: String,
}

/// A peer's state, for status pages.
#[derive(Clone, Debug)]
pub(super) struct PeerState {
    pub(super) form: PeerForm,
    /// How long it is left alone yet, and why.
    pub(super) backoff: Option<(Duration, String)>,
    pub(super) queue_shares: usize,
    pub(super) queue_bytes: usize,
    pub(super) queue_bytes_max: usize,
}

/// The answer to a share, when it comes.
pub(super) type Answer = oneshot::Receiver<Result<WriteReport, WriteError>>;

impl Peer {
    /// A peer at `address`; its workers start now. Must be called inside a tokio runtime.
    pub(super) fn new(
        address: &str,
        options: PeerOptions,
        metrics: ForwardMetrics,
    ) -> Result<Self, StoreError> {
        // Over loopback, compressing costs more than it saves.
        let compress = options.compress && !is_loopback(address);
        let client = PeerClient::new(address, &ClientOptions::default(), compress, options.timeout)?;
        let shared = Arc::new(Shared {
            client,
            options,
            queue: Mutex::default(),
            filled: Notify::new(),
            order: tokio::sync::Mutex::default(),
            backoff: Mutex::default(),
            metrics,
        });
        for _ in 0..shared.options.workers.max(1) {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move { shared.work().await });
        }
        Ok(Peer { shared })
    }

    /// Where it is.
    pub(super) fn address(&self) -> &str {
        self.shared.client.address()
    }

    /// It is known to read whole batches whatever their replica numbers.
    pub(super) fn is_own(&self) -> bool {
        self.shared.client.form() == PeerForm::Own
    }

    /// Queues a share. The error says at once that it is not sent: the peer is left alone, or its queue is full.
    pub(super) fn send(&self, share: PeerShare, replicated_already: bool) -> Result<Answer, StoreError> {
        if let Some((wait, error)) = self.shared.backoff_left() {
            let text = format!("{}: not asked for {wait:?} after: {error}", self.address());
            self.shared.metrics.forwarded(false, replicated_already);
            return Err(StoreError::unavailable(text));
        }
        self.send_anyway(share, replicated_already)
    }

    /// As [`Peer::send`], also while the peer is left alone; whoever calls it paces itself.
    pub(super) fn send_anyway(
        &self,
        share: PeerShare,
        replicated_already: bool,
    ) -> Result<Answer, StoreError> {
        let bytes = share.batch.len();
        let (done, answer) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            // One share of any size is taken: it must go through some time.
            if queue.bytes > 0 && queue.bytes + bytes > self.shared.options.queue_bytes_max {
                drop(queue);
                self.shared.metrics.queue_refused.inc();
                self.shared.metrics.forwarded(false, replicated_already);
                return Err(StoreError::unavailable(format!("{}: its queue is full", self.address())));
            }
            queue.bytes += bytes;
            queue.jobs.push_back(Job { share, replicated_already, since: Instant::now(), done });
        }
        self.shared.filled.notify_one();
        Ok(answer)
    }

    /// Sends shares past the queue, for what has waited long: one caller at a time.
    pub(crate) async fn send_now(&self, shares: &[PeerShare]) -> Vec<Result<WriteReport, WriteError>> {
        let results = self.shared.client.write(shares).await;
        self.shared.note(&results);
        results
    }

    /// It is being left alone.
    pub(super) fn is_backing_off(&self) -> bool {
        self.shared.backoff_left().is_some()
    }

    pub(super) fn state(&self) -> PeerState {
        let (queue_shares, queue_bytes) = {
            let queue = self.shared.queue.lock();
            (queue.jobs.len(), queue.bytes)
        };
        PeerState {
            form: self.shared.client.form(),
            backoff: self.shared.backoff_left(),
            queue_shares,
            queue_bytes,
            queue_bytes_max: self.shared.options.queue_bytes_max,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        // As many permits as workers: `notify_waiters` would miss those that are busy.
        for _ in 0..self.shared.options.workers.max(1) {
            self.shared.filled.notify_one();
        }
        self.shared.filled.notify_waiters();
    }
}

impl Shared {
    async fn work(&self) {
        loop {
            let turn = self.order.lock().await;
            let Some(mut jobs) = self.next_jobs().await else { return };
            let turn = (self.client.form() != PeerForm::Thanos).then_some(turn);
            let now = Instant::now();
            for job in &jobs {
                self.metrics.delay.observe(now.duration_since(job.since).as_secs_f64());
            }
            let shares: Vec<PeerShare> = jobs.iter().map(|job| job.share.clone()).collect();
            let results = self.client.write(&shares).await;
            drop(turn);
            self.note(&results);
            for (job, result) in jobs.drain(..).zip(results) {
                // A conflict is the sender's fault, as in Thanos.
                let conflict = result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Conflict);
                if !conflict {
                    self.metrics.forwarded(result.is_ok(), job.replicated_already);
                }
                // The request may have gone away.
                let _ = job.done.send(result);
            }
        }
    }

    /// Waits for work; `None` when the peer was dropped.
    async fn next_jobs(&self) -> Option<Vec<Job>> {
        loop {
            let filled = self.filled.notified();
            {
                let mut queue = self.queue.lock();
                let mut jobs = Vec::new();
                let mut bytes = 0;
                while let Some(job) = queue.jobs.front() {
                    let len = job.share.batch.len();
                    if jobs.len() == CALL_SHARES || (bytes > 0 && bytes + len > CALL_BYTES) {
                        // The rest is for another worker.
                        self.filled.notify_one();
                        break;
                    }
                    bytes += len;
                    queue.bytes -= len;
                    let job = queue.jobs.pop_front().expect("there is a front");
                    if job.since.elapsed() < self.options.timeout {
                        jobs.push(job);
                    } else {
                        let text = format!("{}: waited too long to be sent", self.client.address());
                        let _ = job.done.send(Err(StoreError::timeout(text)));
                    }
                }
                if !jobs.is_empty() {
                    return Some(jobs);
                }
                if queue.closed {
                    return None;
                }
            }
            filled.await;
        }
    }

    fn backoff_left(&self) -> Option<(Duration, String)> {
        let backoff = self.backoff.lock();
        let left = backoff.until?.checked_duration_since(Instant::now())?;
        Some((left, backoff.error.clone()))
    }

    /// A receiver that cannot be reached, or does not answer, is left alone for a while, longer each time.
    fn note(&self, results: &[Result<WriteReport, WriteError>]) {
        let gone = results.iter().find_map(|r| {
            let error = r.as_ref().err()?;
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout).then(|| error.chain())
        });
        let mut backoff = self.backoff.lock();
        let Some(error) = gone else {
            if backoff.failures > 0 {
                tracing::info!(peer = self.client.address(), "peer answers again");
            }
            *backoff = Backoff::default();
            return;
        };
        let now = Instant::now();
        if backoff.until.is_some_and(|until| until > now) {
            return; // Calls that were under way together are one failure.
        }
        if backoff.failures == 0 {
            tracing::warn!(peer = self.client.address(), err = %error, "peer is unavailable");
        }
        backoff.failures += 1;
        let full =
            BACKOFF_MIN.saturating_mul(1 << (backoff.failures - 1).min(16)).min(self.options.backoff_max);
        backoff.until = Some(now + full.mul_f64(jitter()));
        backoff.error = error;
    }
}

/// From 0.75 to 1: receivers that lost the same peer come back at different times.
fn jitter() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    0.75 + 0.25 * (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
