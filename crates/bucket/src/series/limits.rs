//! What a request may read, and what it has read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chronolith_model::BlockId;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Error, Result};

/// Bounds of one request over all its blocks; 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Series.
    pub series_max: u64,
    /// Chunks.
    pub chunks_max: u64,
    /// Bytes fetched from the bucket, index and chunks together.
    pub bytes_max: u64,
}

/// Counts a request's reading against its [`Limits`], always *before* it reads.
#[derive(Debug, Default)]
pub struct Limiter {
    limits: Limits,
    series: AtomicU64,
    chunks: AtomicU64,
    bytes: AtomicU64,
    budget: Option<Arc<ReadBudget>>,
}

/// Bytes that all requests of a process may hold at once of what they read from the bucket, and ranges of chunks that may be under way.
#[derive(Debug)]
pub struct ReadBudget {
    bytes_max: u64,
    used: AtomicU64,
    under_way: Semaphore,
}

/// Bytes of chunk ranges that are read at a time and not yet cut down to what is wanted of them: more than a fast link has in
/// flight, and what a store takes beside its caches and answers.
const UNDER_WAY_BYTES_MAX: u32 = 64 << 20;

impl ReadBudget {
    /// A budget of `bytes_max`; 0 for any.
    pub fn new(bytes_max: u64) -> Self {
        let under_way = Semaphore::new(UNDER_WAY_BYTES_MAX as usize);
        ReadBudget { bytes_max, used: AtomicU64::new(0), under_way }
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held(Option<(Arc<ReadBudget>, u64)>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = &self.0 {
            budget.used.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

impl Limiter {
    /// A limiter for one request.
    pub fn new(limits: Limits) -> Self {
        Limiter { limits, ..Limiter::default() }
    }

    /// The same limiter, whose request shares a budget with others.
    pub fn with_budget(mut self, budget: Arc<ReadBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Takes bytes out of the budget for as long as what is returned lives. Nobody waits for others to give back: two
    /// requests that hold a part each could wait for each other for good.
    pub(super) fn hold(&self, block: BlockId, bytes: u64) -> Result<Held> {
        let Some(budget) = &self.budget else { return Ok(Held(None)) };
        let held = Held(Some((budget.clone(), bytes)));
        let before = budget.used.fetch_add(bytes, Ordering::Relaxed);
        if budget.bytes_max > 0 && before.saturating_add(bytes) > budget.bytes_max {
            let what = "bytes of all requests together (--chunk-pool-size)";
            return Err(Error::Limit { block, what, max: budget.bytes_max });
        }
        Ok(held)
    }

    /// Waits until a range of so many bytes may be read; others wait as long as what is returned lives. Who has it must wait for
    /// nothing but the bucket, so that it always comes back.
    pub(super) async fn under_way(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(bytes).map_or(UNDER_WAY_BYTES_MAX, |bytes| bytes.min(UNDER_WAY_BYTES_MAX));
        // It is never closed.
        self.budget.as_ref()?.under_way.acquire_many(bytes).await.ok()
    }

    pub(super) fn series(&self, block: BlockId, n: u64) -> Result<()> {
        reserve(&self.series, n, self.limits.series_max, block, "series")
    }

    pub(super) fn chunks(&self, block: BlockId, n: u64) -> Result<()> {
        reserve(&self.chunks, n, self.limits.chunks_max, block, "chunks")
    }

    pub(super) fn bytes(&self, block: BlockId, n: u64) -> Result<()> {
        reserve(&self.bytes, n, self.limits.bytes_max, block, "bytes from the bucket")
    }
}

fn reserve(counter: &AtomicU64, n: u64, max: u64, block: BlockId, what: &'static str) -> Result<()> {
    let before = counter.fetch_add(n, Ordering::Relaxed);
    if max > 0 && before.saturating_add(n) > max {
        return Err(Error::Limit { block, what, max });
    }
    Ok(())
}

/// What a request has read. Shared by its blocks.
#[derive(Debug, Default)]
pub struct QueryStats {
    pub(super) postings: Counter,
    pub(super) series: Counter,
    pub(super) chunks: Counter,
    pub(super) series_touched: AtomicU64,
    pub(super) chunks_touched: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Counter {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    pub(super) fn add(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A reading of [`QueryStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "requests to the bucket, bytes from it, things looked at")]
pub struct StatsSnapshot {
    pub postings_requests: u64,
    pub postings_bytes: u64,
    pub series_requests: u64,
    pub series_bytes: u64,
    pub chunk_requests: u64,
    pub chunk_bytes: u64,
    pub series_touched: u64,
    pub chunks_touched: u64,
}

impl StatsSnapshot {
    /// All requests to the bucket.
    pub fn requests(&self) -> u64 {
        self.postings_requests + self.series_requests + self.chunk_requests
    }

    /// All bytes from the bucket.
    pub fn bytes(&self) -> u64 {
        self.postings_bytes + self.series_bytes + self.chunk_bytes
    }
}

impl QueryStats {
    /// The counts so far.
    pub fn snapshot(&self) -> StatsSnapshot {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        StatsSnapshot {
            postings_requests: of(&self.postings.requests),
            postings_bytes: of(&self.postings.bytes),
            series_requests: of(&self.series.requests),
            series_bytes: of(&self.series.bytes),
            chunk_requests: of(&self.chunks.requests),
            chunk_bytes: of(&self.chunks.bytes),
            series_touched: of(&self.series_touched),
            chunks_touched: of(&self.chunks_touched),
        }
    }
}
