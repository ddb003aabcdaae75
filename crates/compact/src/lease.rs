//! Leases: which of several compactors works on a group, or downsamples a block.
//!
//! ```text
//! chronolith/leases/compact/<group>/<token>     the highest token is the lease in force
//! ```
//!
//! A lease is claimed by creating the object with the next token, which only one of those who try can do. Its holder writes it
//! again, with a beat that counts up, three times in a lease's duration, and looks whether a higher token appeared. Who wants a lease that is held
//! watches: when the object did not change for one and a half durations *by the watcher's own monotonic clock*, its holder is
//! taken for dead, and the next token is created. No clock of another machine is ever compared, so wrong clocks do no harm.
//!
//! Only a create that fails when the object exists is needed of the store, which [`Leases::probe`] makes sure of; overwriting on a condition, which
//! directories cannot do, is not.
//!
//! Leases save work, correctness does not hang on them: two workers that do one job write two results with equal sources, of which
//! one is collected as a duplicate. The token is a fence all the same: before a result becomes visible its worker asks
//! [`Lease::in_force`]. Released leases stay as one small object a group, so that tokens never start anew. Blocks that are downsampled have leases
//! of their own (`block-<ULID>`), since these jobs do not touch each other; they go when the block is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronolith_objstore::{Bucket, BucketError, PutOutcome};
use futures::TryStreamExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where leases lie.
const PREFIX: &str = "chronolith/leases/compact";
/// The object with which the store is tried.
const PROBE: &str = "chronolith/leases/probe";
/// Renewals in a lease's duration: two may fail.
const RENEWALS: u32 = 3;
/// What a watcher believes of a duration that it reads; a mad one would block a group for ever.
const DURATION_MS_MAX: u64 = 3_600_000;

/// What a lease's object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Who holds it.
    worker: String,
    /// Drawn for each claim: two claims of one token never write the same bytes.
    nonce: u64,
    /// Counts renewals.
    beat: u64,
    duration_ms: u64,
    released: bool,
    /// What for, in words.
    job: String,
}

/// All leases of one process.
#[derive(Clone, Debug)]
pub struct Leases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    worker: String,
    duration: Duration,
    single: bool,
    /// Leases of others as they were when they last changed.
    seen: Mutex<HashMap<String, Seen>>,
    /// Groups whose lease this process holds.
    own: Mutex<HashSet<String>>,
}

#[derive(Clone, Debug)]
struct Seen {
    token: u64,
    bytes: bytes::Bytes,
    since: Instant,
}

/// What became of [`Leases::claim`].
#[derive(Debug)]
pub enum Claim {
    /// The lease is ours.
    Held(Lease),
    /// Somebody else holds it. `alive`: it changed while we watched.
    Busy {
        /// The holder was seen to renew it, or to take it, since the last look.
        alive: bool,
    },
}

impl Leases {
    /// Leases for `worker`, a name that is this process's own and that it keeps over restarts: a lease that it held when it
    /// died is taken over at once. `single` makes every claim succeed without a word to the bucket.
    pub fn new(bucket: Bucket, worker: String, duration: Duration, single: bool) -> Self {
        let (seen, own) = Default::default();
        Leases { inner: Arc::new(Inner { bucket, worker, duration, single, seen, own }) }
    }

    /// True when the store refuses to create what is there. Without that several workers cannot share a bucket.
    pub async fn probe(&self) -> Result<bool, BucketError> {
        // Several workers may start at once, so each has an object of its own.
        let key = format!("{PROBE}-{:032x}", rand::random::<u128>());
        if self.inner.single { Ok(true) } else { self.inner.bucket.honours_put_if_absent(&key).await }
    }

    /// How long a holder that shows no life must be watched.
    pub fn patience(&self) -> Duration {
        patience(self.inner.duration)
    }

    /// Claims the lease of a group; `job` says what for. Held leases are renewed until they are released or dropped.
    pub async fn claim(&self, group: &str, job: &str) -> Result<Claim, BucketError> {
        let inner = &self.inner;
        if inner.single {
            return Ok(Claim::Held(Lease { token: 0, lost: Arc::default(), held: None }));
        }
        if inner.own.lock().contains(group) {
            return Ok(Claim::Busy { alive: true });
        }
        let prefix = format!("{PREFIX}/{group}");
        let tokens = tokens(&inner.bucket, &prefix).await?;
        let highest = tokens.iter().max().copied();
        if let Some(token) = highest {
            let bytes = match inner.bucket.get(&key(&prefix, token)).await {
                Ok(bytes) => bytes,
                // The next token came between the two looks.
                Err(e) if e.is_not_found() => return Ok(Claim::Busy { alive: true }),
                Err(e) => return Err(e),
            };
            let record: Option<Record> = serde_json::from_slice(&bytes).ok();
            let free = record.as_ref().is_some_and(|r| r.released || r.worker == inner.worker);
            if !free {
                let duration = record
                    .map_or(inner.duration, |r| Duration::from_millis(r.duration_ms.min(DURATION_MS_MAX)));
                if let Some(alive) = self.watch(group, token, bytes, duration) {
                    return Ok(Claim::Busy { alive });
                }
            }
        }
        let token = highest.unwrap_or(0) + 1;
        let record = Record {
            version: 1,
            worker: inner.worker.clone(),
            nonce: rand::random(),
            beat: 0,
            duration_ms: inner.duration.as_millis() as u64,
            released: false,
            job: job.to_owned(),
        };
        let object = key(&prefix, token);
        // Renewals begin with the claim's own beginning: the time that the answer takes is the holder's loss.
        let since = Instant::now();
        if inner.bucket.put_if_absent(&object, bytes(&record)).await? == PutOutcome::Exists {
            return Ok(Claim::Busy { alive: true });
        }
        inner.seen.lock().remove(group);
        for old in tokens {
            // Best effort: an old token says nothing any more.
            let _ = inner.bucket.delete(&key(&prefix, old)).await;
        }
        tracing::debug!(role = "compact", group, token, "lease claimed");
        inner.own.lock().insert(group.to_owned());
        let lost = Arc::new(AtomicBool::new(false));
        let held = Held::start(inner, prefix, token, record, since, lost.clone());
        Ok(Claim::Held(Lease { token, lost, held: Some(held) }))
    }

    /// `None` when the holder showed no life for long enough; else whether it showed some since the last look.
    fn watch(&self, group: &str, token: u64, bytes: bytes::Bytes, duration: Duration) -> Option<bool> {
        let now = Instant::now();
        let mut seen = self.inner.seen.lock();
        match seen.get(group) {
            Some(before) if before.token == token && before.bytes == bytes => {
                (now - before.since < patience(duration)).then_some(false)
            }
            before => {
                let alive = before.is_some();
                seen.insert(group.to_owned(), Seen { token, bytes, since: now });
                Some(alive)
            }
        }
    }
}

fn patience(duration: Duration) -> Duration {
    duration + duration / 2
}

fn key(prefix: &str, token: u64) -> String {
    format!("{prefix}/{token:020}")
}

fn bytes(record: &Record) -> bytes::Bytes {
    serde_json::to_vec(record).expect("plain data").into()
}

async fn tokens(bucket: &Bucket, prefix: &str) -> Result<Vec<u64>, BucketError> {
    let objects: Vec<_> = bucket.list(prefix).try_collect().await?;
    Ok(objects.iter().filter_map(|o| o.key.rsplit('/').next()?.parse().ok()).collect())
}

/// A lease that is held. Dropping it stops the renewals, and others take it over later than after [`Lease::release`].
#[derive(Debug)]
pub struct Lease {
    token: u64,
    lost: Arc<AtomicBool>,
    held: Option<Held>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever still works for it stops.
        self.lost.store(true, Ordering::SeqCst);
    }
}

impl Lease {
    /// The fencing token; each holder of a group's lease has a higher one than those before.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Becomes true when the lease is lost or given up.
    pub fn lost(&self) -> Arc<AtomicBool> {
        self.lost.clone()
    }

    /// Returns when the lease is lost; never while it is held.
    pub async fn until_lost(&self) {
        match &self.held {
            Some(held) => held.lost_notice.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Asks the bucket whether this is still the highest token.
    pub async fn in_force(&self) -> Result<bool, BucketError> {
        let Some(held) = &self.held else { return Ok(true) };
        if self.lost.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let highest = tokens(&held.bucket, &held.prefix).await?.into_iter().max();
        // Nothing at all means that somebody cleaned up by hand; then nobody else claimed it either.
        Ok(highest.is_none_or(|token| token <= self.token))
    }

    /// Gives the lease of work that is done back; nobody will need it again, so that no object stays.
    pub async fn finish(mut self) {
        let Some(mut held) = self.held.take() else { return };
        held.stop().await;
        if !self.lost.load(Ordering::SeqCst) {
            // A leftover would be one small object.
            let _ = held.bucket.delete(&key(&held.prefix, self.token)).await;
        }
    }

    /// Gives the lease back, so that others need not wait.
    pub async fn release(mut self) {
        let Some(mut held) = self.held.take() else { return };
        let record = held.stop().await;
        if self.lost.load(Ordering::SeqCst) {
            return;
        }
        if let Some(record) = record {
            let record = Record { released: true, beat: record.beat + 1, ..record };
            let put = held.bucket.put(&key(&held.prefix, self.token), bytes(&record)).await;
            if let Err(err) = put {
                tracing::debug!(role = "compact", %err, "lease not released, it will run out");
            }
        }
    }
}

#[derive(Debug)]
struct Held {
    bucket: Bucket,
    prefix: String,
    lost_notice: CancellationToken,
    stop: CancellationToken,
    renewing: Option<tokio::task::JoinHandle<Record>>,
    inner: Arc<Inner>,
}

impl Held {
    fn start(
        inner: &Arc<Inner>,
        prefix: String,
        token: u64,
        record: Record,
        since: Instant,
        lost: Arc<AtomicBool>,
    ) -> Self {
        let stop = CancellationToken::new();
        let lost_notice = CancellationToken::new();
        let renewal = Renewal {
            bucket: inner.bucket.clone(),
            prefix: prefix.clone(),
            token,
            duration: inner.duration,
            record,
            since,
        };
        let (stopped, notice) = (stop.clone(), lost_notice.clone());
        let renewing = tokio::spawn(async move {
            let mut renewal = renewal;
            tokio::select! {
                () = renewal.until_lost() => {
                    tracing::warn!(role = "compact", lease = %renewal.prefix, token, "lease lost");
                    lost.store(true, Ordering::SeqCst);
                    notice.cancel();
                }
                () = stopped.cancelled() => {}
            }
            renewal.record
        });
        let (bucket, inner) = (inner.bucket.clone(), inner.clone());
        Held { bucket, prefix, lost_notice, stop, renewing: Some(renewing), inner }
    }

    /// Ends the renewals, the one under way included, so that none comes after what is written next.
    async fn stop(&mut self) -> Option<Record> {
        self.stop.cancel();
        self.renewing.take()?.await.ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(group) = self.prefix.strip_prefix(PREFIX) {
            self.inner.own.lock().remove(group.trim_start_matches('/'));
        }
        self.stop.cancel();
    }
}

struct Renewal {
    bucket: Bucket,
    prefix: String,
    token: u64,
    duration: Duration,
    record: Record,
    /// When the last renewal that worked began.
    since: Instant,
}

impl Renewal {
    /// Renews until the lease is lost.
    async fn until_lost(&mut self) {
        loop {
            tokio::time::sleep(self.duration / RENEWALS).await;
            let began = Instant::now();
            // What takes longer than the lease is worth nothing any more.
            let left = (self.since + self.duration).saturating_duration_since(began);
            match tokio::time::timeout(left, self.renew()).await {
                Ok(Ok(true)) => self.since = began,
                Ok(Ok(false)) => return,
                Ok(Err(err)) => {
                    tracing::warn!(role = "compact", lease = %self.prefix, %err, "lease not renewed")
                }
                Err(_) => return,
            }
            if self.since.elapsed() >= self.duration {
                return;
            }
        }
    }

    /// False when a higher token is there.
    async fn renew(&mut self) -> Result<bool, BucketError> {
        let highest = tokens(&self.bucket, &self.prefix).await?.into_iter().max();
        if highest.is_some_and(|token| token > self.token) {
            return Ok(false);
        }
        self.record.beat += 1;
        self.bucket.put(&key(&self.prefix, self.token), bytes(&self.record)).await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
