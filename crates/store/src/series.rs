//! A request for series over the chosen blocks.
//!
//! Each block reads in a task of its own, one batch ahead, and ends when nobody takes its batches any more. A block
//! that fails is a warning (or the end, where a partial answer is forbidden); a limit is the end in any case, as what
//! is missing then would not be the block's fault.

use std::collections::VecDeque;
use std::sync::Arc;

use chronolith_bucket::{
    BlockSeries, BucketBlock, Deletions, ErrorKind as BlockErrorKind, Mask, QueryStats, SelectRequest,
};
use chronolith_chunk::{AggrChunk as AggregateParts, Aggregate as Part, Chunk, Encoding};
use chronolith_model::{BlockId, Matcher, TimeRange};
use chronolith_storeapi::local::{SeriesPlan, empty_stream, pick_aggregates};
use chronolith_storeapi::{
    AggrChunk, Aggregate, AggregateSet, ErrorKind, MergeOptions, SeriesEvent, SeriesRequest, SeriesStream,
    Source, StoreError, merge,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::BucketStore;
use crate::report::Report;
use crate::source::Shared;

/// Bytes of chunks that a request reads for one batch of each of its blocks, over all blocks: it holds two batches a block, however many
/// blocks there are, beside what of them was not wanted.
const BATCHES_BYTES: u64 = 16 << 20;
/// Smaller batches would cost more requests than they save memory.
const BATCH_BYTES_MIN: u64 = 512 << 10;

/// The label by which a request may pick blocks.
const BLOCK_LABEL: &str = "__block_id";

/// An error of a block as one of the store.
pub(crate) fn store_error(err: &chronolith_bucket::Error) -> StoreError {
    let kind = match err.kind() {
        BlockErrorKind::LimitExceeded => ErrorKind::LimitExceeded,
        BlockErrorKind::Unavailable => ErrorKind::Unavailable,
        BlockErrorKind::Invalid => ErrorKind::Internal,
        // meta.json promised the object.
        BlockErrorKind::Corrupt | BlockErrorKind::NotFound => ErrorKind::Corrupt,
    };
    StoreError::new(kind, err.chain())
}

/// True when a request reads the block: what it says of blocks is matched by their names.
pub(crate) fn is_chosen(block: BlockId, matchers: &[Matcher]) -> bool {
    let id = block.to_string();
    matchers.iter().all(|m| m.matches(if m.name == BLOCK_LABEL { &id } else { "" }))
}

pub(crate) fn clip(range: TimeRange, to: TimeRange) -> TimeRange {
    TimeRange::new(range.mint.max(to.mint), range.maxt.min(to.maxt))
}

impl BucketStore {
    pub(crate) fn series_stream(
        &self,
        mut request: SeriesRequest,
        deletions: &Deletions,
    ) -> Result<SeriesStream, StoreError> {
        let snapshot = self.snapshot();
        request.range = clip(request.range, self.shared.served_range());
        let (limiter, stats) = (Arc::new(self.shared.limiter()), Arc::new(QueryStats::default()));
        let fatal: Fatal = Arc::default();
        let mut chosen = Vec::new();
        for set in &snapshot.sets {
            let Some(plan) = SeriesPlan::new(&request, &set.external)? else { continue };
            let matchers: Arc<[Matcher]> = plan.matchers.clone().into();
            let plan = Arc::new(plan);
            for block in set.choose(request.range, request.max_resolution_ms) {
                if is_chosen(block.id(), &request.block_matchers) {
                    chosen.push((plan.clone(), matchers.clone(), block));
                }
            }
        }
        let of_each = BATCHES_BYTES / chosen.len().max(1) as u64;
        let batch_bytes = of_each.clamp(BATCH_BYTES_MIN, SelectRequest::BATCH_BYTES_MAX);
        let (mut sources, mut queried) = (Vec::new(), Vec::new());
        for (plan, matchers, block) in chosen {
            let mask = deletions.mask_of(block.meta()).map(Arc::new);
            let wanted = Aggregate::ALL.map(|a| request.aggregates.contains(a));
            let select = SelectRequest {
                matchers,
                range: request.range,
                skip_chunks: request.skip_chunks,
                // What is masked is encoded again from all of them.
                aggregates: if mask.is_some() { [true; 5] } else { wanted },
                batch_bytes,
                mask: mask.clone(),
                limiter: limiter.clone(),
                stats: stats.clone(),
            };
            queried.push(block.id());
            let name = format!("block {}", block.id());
            let range = clip(request.range, block.meta().time_range());
            // Without chunks there is nothing to take it out of.
            let mask = mask.filter(|_| !request.skip_chunks);
            let shape = Shape { aggregates: request.aggregates, mask, range };
            sources.push(Source { name, stream: block_stream(block, select, &plan, shape, fatal.clone()) });
        }
        self.shared.metrics.queried(queried.len());
        let report = Report::new(queried, request.query_stats, stats.clone());
        let options = MergeOptions {
            partial_response: request.partial_response,
            limit: request.limit,
            batch_size: request.batch_size,
        };
        let counted = Counted { shared: self.shared.clone(), stats };
        let merged = if sources.is_empty() { empty_stream() } else { merge(sources, options) };
        Ok(stop_at_fatal(report.behind(merged), fatal, counted))
    }
}

/// A limit that some block hit.
type Fatal = Arc<Mutex<Option<StoreError>>>;

/// Adds a request's reading to the metrics when its stream ends, however it ends.
struct Counted {
    shared: Arc<Shared>,
    stats: Arc<QueryStats>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.fetched(self.stats.snapshot());
    }
}

/// Ends the stream with the fatal error as soon as there is one.
fn stop_at_fatal(stream: SeriesStream, fatal: Fatal, counted: Counted) -> SeriesStream {
    let state = (Some(stream), fatal, counted);
    futures::stream::unfold(state, |(stream, fatal, counted)| async move {
        let mut stream = stream?;
        let event = stream.next().await;
        let error = fatal.lock().take();
        match (error, event) {
            (Some(error), _) => Some((Err(error), (None, fatal, counted))),
            (None, Some(event)) => Some((event, (Some(stream), fatal, counted))),
            (None, None) => None,
        }
    })
    .fuse()
    .boxed()
}

/// One block's answer, read by a task of its own and shaped for the request.
fn block_stream(
    block: Arc<BucketBlock>,
    select: SelectRequest,
    plan: &SeriesPlan,
    shape: Shape,
    fatal: Fatal,
) -> SeriesStream {
    let mut shaper = plan.shaper();
    // One batch waits while another is taken apart; the next is read when it is taken.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut batches = block.select(select);
        loop {
            let Ok(place) = sender.reserve().await else { return };
            let batch = tokio::select! {
                batch = batches.try_next() => batch,
                () = sender.closed() => return,
            };
            let mut out = Vec::new();
            let mut last = false;
            match batch
                .map_err(|e| store_error(&e))
                .and_then(|b| b.map(|b| shape.convert(b, &block)).transpose())
            {
                Ok(Some(series)) => {
                    for (labels, chunks) in series {
                        shaper.push(labels, chunks, &mut out);
                    }
                    if shaper.is_full() {
                        shaper.finish(&mut out);
                        last = true;
                    }
                }
                Ok(None) => {
                    shaper.finish(&mut out);
                    last = true;
                }
                Err(error) => {
                    if error.kind() == ErrorKind::LimitExceeded {
                        *fatal.lock() = Some(StoreError::limit(error.message()));
                    }
                    // What was read before the damage is sound and goes out first.
                    shaper.finish(&mut out);
                    if out.is_empty() {
                        place.send(Err(error));
                    } else {
                        place.send(Ok(SeriesEvent::Batch(out)));
                        let _ = sender.send(Err(error)).await;
                    }
                    return;
                }
            }
            if !out.is_empty() {
                place.send(Ok(SeriesEvent::Batch(out)));
            }
            if last {
                return;
            }
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|event| (event, receiver))
    })
    .boxed()
}

type Series = VecDeque<(chronolith_model::Labels, Vec<AggrChunk>)>;

/// What becomes of a block's series on their way out.
struct Shape {
    aggregates: AggregateSet,
    /// What is deleted of the block and still in its chunks.
    mask: Option<Arc<Mask>>,
    /// What was asked of the block.
    range: TimeRange,
}

impl Shape {
    /// Raw chunks as they are, aggregates taken apart, what is deleted left out.
    fn convert(&self, batch: Vec<BlockSeries>, block: &BucketBlock) -> Result<Series, StoreError> {
        let mut out = Series::with_capacity(batch.len());
        for mut series in batch {
            let fail = |labels: &chronolith_model::Labels, err| {
                let text = format!("block {}: chunk of {labels}", block.id());
                StoreError::corrupt(text).with_source(err)
            };
            if let Some(mask) = &self.mask {
                let left = mask.apply(&series.labels, &mut series.chunks, self.range);
                if !left.map_err(|e| fail(&series.labels, e))? {
                    continue;
                }
            }
            let chunks = series.chunks.into_iter().filter_map(|c| take_apart(c, self.aggregates).transpose());
            let chunks = chunks.collect::<Result<Vec<_>, _>>().map_err(|e| fail(&series.labels, e))?;
            out.push_back((series.labels, chunks));
        }
        Ok(out)
    }
}

fn take_apart(chunk: Chunk, wanted: AggregateSet) -> Result<Option<AggrChunk>, chronolith_chunk::ChunkError> {
    if chunk.encoding != Encoding::Aggregate {
        return Ok(Some(AggrChunk::Raw(chunk)));
    }
    let (mint, maxt) = (chunk.mint, chunk.maxt);
    let parts = AggregateParts::parse(&chunk.data)?;
    Ok(pick_aggregates(mint, maxt, Part::ALL.map(|part| parts.get(part, mint, maxt)), wanted))
}
