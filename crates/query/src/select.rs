//! The engine's [`Queryable`] over a [`Store`].
//!
//! The engine pulls series on a blocking thread, and the stream is polled on that very thread.
//! Series whose chunks do not overlap pass as they came, undecoded. Where chunks overlap (replicas, or out-of-order
//! data), they are decoded and merged: replicas by penalty, anything else sample by sample.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_chunk::{Chunk, ChunkError, SampleColumns};
use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_promql::{
    FoldRequest, MemoryHold, MemoryUse, Pushed, QueryContext, Queryable, QueryableError, QueryableErrorKind,
    SelectRequest, Series, SeriesData, SeriesSet, while_waiting,
};
use chronolith_storeapi::local::on_blocking_thread;
use chronolith_storeapi::{
    AggrChunk, ErrorKind, Fanout, PartialResponse, Projection, QueryHints, SeriesEvent, SeriesRequest,
    SeriesStream, ShardInfo, Store, StoreError, StoreSeries, sort_and_dedup,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::runtime::Handle;

use crate::aggregate::{View, decode, is_counter_function, max_resolution_ms};
use crate::http::enforce;

/// How long a thread waits before it looks whether its query was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(100);

/// How selectors are read.
#[derive(Clone, Debug, Default)]
pub struct SelectOptions {
    /// Remove replicas; has an effect only with replica labels.
    pub dedup: bool,
    /// Labels that tell replicas apart.
    pub replica_labels: Vec<String>,
    /// Answer with a warning, or fail, when a store fails.
    pub partial_response: PartialResponse,
    /// The coarsest downsampling that will do; 0 is raw only.
    pub max_resolution_ms: i64,
    /// Only stores that fit one of these selectors; empty means all.
    pub store_matchers: Vec<Vec<Matcher>>,
    /// One shard of the series only.
    pub shard: Option<ShardInfo>,
    /// Holds for every selector.
    pub tenant: Option<Matcher>,
}

/// Reads series for the engine.
#[derive(Clone)]
pub struct StoreQueryable {
    pub(crate) store: Arc<dyn Store>,
    /// The same, where it is a fan-out.
    pub(crate) fanout: Option<Fanout>,
    pub(crate) options: SelectOptions,
    pub(crate) runtime: Handle,
}

impl StoreQueryable {
    /// Over a store. `runtime` runs the store's calls; the engine's threads must not be its workers.
    pub fn new(store: Arc<dyn Store>, options: SelectOptions, runtime: Handle) -> Self {
        StoreQueryable { store, fanout: None, options, runtime }
    }

    /// Over the stores of a fan-out that the options choose.
    pub fn over_fanout(fanout: &Fanout, options: SelectOptions, runtime: Handle) -> Self {
        let chosen = fanout.with_store_matchers(options.store_matchers.clone());
        let store = Arc::new(chosen.clone());
        StoreQueryable { store, fanout: Some(chosen), options, runtime }
    }

    fn removes_replicas(&self) -> bool {
        self.options.dedup && !self.options.replica_labels.is_empty()
    }

    fn series_request(&self, request: &SelectRequest<'_>) -> SeriesRequest {
        let hints = request.hints;
        let func = hints.func.as_deref();
        let resolution_ms = max_resolution_ms(self.options.max_resolution_ms, hints.range_ms, func);
        let mut matchers = request.matchers.to_vec();
        if let Some(tenant) = &self.options.tenant {
            enforce(tenant, &mut matchers);
        }
        let mut series = SeriesRequest::new(request.range, matchers);
        series.shard = self.options.shard.clone();
        series.max_resolution_ms = resolution_ms;
        if resolution_ms > 0 {
            series.aggregates = View::for_function(func, hints.range_ms).aggregates();
        }
        // Which replica counts depends on the samples before.
        series.newest_only = hints.newest_only && !self.removes_replicas();
        series.partial_response = self.options.partial_response;
        series.hints = QueryHints {
            step_ms: hints.step_ms,
            func: hints.func.clone(),
            by: hints.by,
            grouping: hints.grouping.clone(),
            range_ms: hints.range_ms,
        };
        if self.removes_replicas() {
            series.without_replica_labels = self.options.replica_labels.clone();
        }
        if let (Some(keep), Some(fanout)) = (&hints.keep_labels, &self.fanout)
            && fanout.projects(&series.matchers, series.range)
        {
            series.projection = Projection::new(keep.clone());
        }
        series
    }
}

impl Queryable for StoreQueryable {
    fn series_at_once(&self, matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        self.store.series_at_once(matchers, range)
    }

    fn push(
        &self,
        request: &FoldRequest,
        matchers: &[Matcher],
        range: TimeRange,
        cx: &QueryContext,
    ) -> Result<Option<Pushed>, QueryableError> {
        self.push_to_stores(request, matchers, range, cx)
    }

    fn select(
        &self,
        request: &SelectRequest<'_>,
        cx: &QueryContext,
    ) -> Result<Box<dyn SeriesSet>, QueryableError> {
        cx.check()?;
        let func = request.hints.func.as_deref();
        let opened = wait(&self.runtime, cx, self.store.series(self.series_request(request)))?;
        Ok(Box::new(StoreSeriesSet {
            // Batches are asked for after the last one, too; not every store's stream bears that.
            stream: opened.map_err(query_error)?.fuse().boxed(),
            memory: cx.memory.hold(MemoryUse::Storage, 0)?,
            runtime: self.runtime.clone(),
            cx: cx.clone(),
            batch: Vec::new().into_iter(),
            held: None,
            warnings: Vec::new(),
            shape: Shape {
                range: request.range,
                view: View::for_function(func, request.hints.range_ms),
                penalty: self.removes_replicas(),
                counter: is_counter_function(func),
            },
        }))
    }
}

/// Waits for `future` on this thread, looking now and then whether the query was cancelled or its time is up. What a store
/// of this process does for an answer runs right here: handing it to another thread and back would cost more than a
/// small answer itself.
pub(crate) fn wait<F: Future + Unpin>(
    runtime: &Handle,
    cx: &QueryContext,
    mut future: F,
) -> Result<F::Output, QueryableError> {
    let _context = runtime.enter();
    on_blocking_thread(|| {
        cx.check()?;
        if let Some(done) = (&mut future).now_or_never() {
            return Ok(done);
        }
        // On a thread of the runtime itself only what needs no waiting is read; should it wait after all, the others take over
        // the thread's work.
        let block_on = |future: &mut F, patience| {
            tokio::task::block_in_place(|| {
                runtime.block_on(async { tokio::time::timeout(patience, future).await })
            })
        };
        // Meanwhile another query may have the core.
        while_waiting(cx, || {
            loop {
                let left = cx.deadline.map_or(CANCEL_CHECK, |d| d.saturating_duration_since(Instant::now()));
                let patience = left.min(CANCEL_CHECK).max(Duration::from_millis(1));
                match block_on(&mut future, patience) {
                    Ok(done) => return Ok(done),
                    Err(_elapsed) => cx.wanted()?,
                }
            }
        })?
    })
}

struct StoreSeriesSet {
    stream: SeriesStream,
    runtime: Handle,
    cx: QueryContext,
    batch: std::vec::IntoIter<StoreSeries>,
    /// The memory of the batch.
    memory: MemoryHold,
    /// The next series, of which further parts may follow.
    held: Option<StoreSeries>,
    warnings: Vec<String>,
    shape: Shape,
}

impl SeriesSet for StoreSeriesSet {
    fn next(&mut self) -> Result<Option<Series>, QueryableError> {
        loop {
            let Some(mut series) = self.next_part()? else { return Ok(None) };
            while let Some(part) = self.next_part()? {
                if part.labels != series.labels {
                    self.held = Some(part);
                    break;
                }
                series.chunks.extend(part.chunks);
            }
            let StoreSeries { labels, chunks } = series;
            let data = self.shape.apply(chunks).map_err(|e| damaged(&labels, &e))?;
            if let Some(data) = data {
                return Ok(Some(Series { labels, data }));
            }
        }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        let mut seen = HashSet::new();
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.retain(|w| seen.insert(w.clone()));
        warnings
    }
}

impl StoreSeriesSet {
    fn next_part(&mut self) -> Result<Option<StoreSeries>, QueryableError> {
        if let Some(series) = self.held.take() {
            return Ok(Some(series));
        }
        loop {
            if let Some(series) = self.batch.next() {
                return Ok(Some(series));
            }
            match self.receive()? {
                Some(SeriesEvent::Batch(batch)) => {
                    self.memory.resize(batch.iter().map(series_bytes).sum())?;
                    self.batch = batch.into_iter();
                }
                Some(SeriesEvent::Warning(text)) => self.warnings.push(text),
                Some(SeriesEvent::Hints(_)) => {}
                None => return Ok(None),
            }
        }
    }

    /// Waits for the next event, for the deadline, or for the query's cancellation.
    fn receive(&mut self) -> Result<Option<SeriesEvent>, QueryableError> {
        wait(&self.runtime, &self.cx, self.stream.next())?.transpose().map_err(query_error)
    }
}

/// Bytes of a series as a store hands it over.
fn series_bytes(series: &StoreSeries) -> usize {
    let chunk = |chunk: &Chunk| chunk.data.len() + std::mem::size_of::<Chunk>();
    let chunks = series.chunks.iter().map(|c| match c {
        AggrChunk::Raw(raw) => chunk(raw),
        AggrChunk::Downsampled(parts) => parts.parts.iter().flatten().map(chunk).sum(),
    });
    std::mem::size_of::<StoreSeries>() + series.labels.encoded_len() + chunks.sum::<usize>()
}

pub(crate) fn query_error(error: StoreError) -> QueryableError {
    let kind = match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Aborted | ErrorKind::NotFound => QueryableErrorKind::Unavailable,
        ErrorKind::Corrupt => QueryableErrorKind::Corrupt,
        ErrorKind::LimitExceeded => QueryableErrorKind::LimitExceeded,
        ErrorKind::Cancelled => QueryableErrorKind::Cancelled,
        ErrorKind::Timeout => QueryableErrorKind::Timeout,
        ErrorKind::Invalid => QueryableErrorKind::Invalid,
        ErrorKind::Conflict | ErrorKind::Internal => QueryableErrorKind::Internal,
    };
    QueryableError::new(kind, error.chain())
}

fn damaged(labels: &Labels, error: &ChunkError) -> QueryableError {
    QueryableError::new(QueryableErrorKind::Corrupt, format!("series {labels}: {error}"))
}

/// How one selector's chunks become samples.
#[derive(Clone, Copy, Debug)]
struct Shape {
    range: TimeRange,
    view: View,
    /// Overlapping chunks are replicas.
    penalty: bool,
    counter: bool,
}

impl Shape {
    /// `None` when nothing lies in the range.
    fn apply(&self, mut chunks: Vec<AggrChunk>) -> Result<Option<SeriesData>, ChunkError> {
        sort_and_dedup(&mut chunks);
        chunks.retain(|c| c.mint() <= self.range.maxt && c.maxt() >= self.range.mint);
        if chunks.is_empty() {
            return Ok(None);
        }
        let overlap = chunks.windows(2).any(|w| w[1].mint() <= w[0].maxt());
        let raw = chunks.iter().all(|c| c.raw().is_some());
        if raw && !overlap {
            return Ok(Some(SeriesData::Chunks(into_raw(chunks))));
        }
        let mut out = SampleColumns::default();
        if raw && !self.penalty {
            chronolith_dedup::merge_overlapping(into_raw(chunks), self.range, &mut out)?;
        } else {
            let lists = chronolith_dedup::split_overlaps(chunks, |c| TimeRange::new(c.mint(), c.maxt()));
            let mut replicas = Vec::with_capacity(lists.len());
            for list in &lists {
                let mut samples = SampleColumns::default();
                decode(list, self.view, self.range, &mut samples)?;
                replicas.push(samples);
            }
            if replicas.len() == 1 {
                out = replicas.swap_remove(0);
            } else if self.penalty && !raw {
                // The windows of all replicas end together, those of the last samples of a chunk nearly so.
                chronolith_dedup::penalty::dedup(&replicas, self.counter, &mut out);
            } else if self.penalty {
                chronolith_dedup::replicas::dedup(&replicas, self.counter, &mut out);
            } else {
                chronolith_dedup::chain::merge(&replicas, &mut out);
            }
        }
        Ok((!out.is_empty()).then_some(SeriesData::Columns(out)))
    }
}

fn into_raw(chunks: Vec<AggrChunk>) -> Vec<Chunk> {
    let raw = |chunk| match chunk {
        AggrChunk::Raw(chunk) => Some(chunk),
        AggrChunk::Downsampled(_) => None,
    };
    chunks.into_iter().filter_map(raw).collect()
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
