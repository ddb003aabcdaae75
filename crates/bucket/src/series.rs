//! Reading series of one block in a bucket.
//!
//! ```text
//! matchers ─ header: places of lists ─ postings (1 request) ─ series entries (1) ─ chunks (1) ─ batches
//! ```
//!
//! Neighbouring ranges are joined up to a gap, requests run concurrently, and everything is charged to the request's
//! [`Limiter`] before it is read. Batches come in label order; two are made ahead of the consumer, so memory is
//! bounded by a few batches whatever the selection. No whole index and no whole segment is ever read.

mod hidden;
mod limits;
mod postings;
mod ranges;
mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, Labels, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::upload::blocking;
use crate::{ChunkCache, Error, HeaderSource, IndexCache, IndexHeader, Mask, Result, RunCache, layout};
use limits::Held;
pub use limits::{Limiter, Limits, QueryStats, ReadBudget, StatsSnapshot};
use read::Reader;

/// Requests of one step of one block in flight.
const CONCURRENT_REQUESTS: usize = 8;
/// Joined ranges stop growing here, so that large reads run in parallel and within a request's timeout.
const RANGE_BYTES_MAX: u64 = 4 << 20;

/// A series of a block: its own labels, and the chunks that overlap the asked range, by time.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSeries {
    /// Labels without the block's external ones.
    pub labels: Labels,
    /// Chunks; of a downsampled block, aggregates.
    pub chunks: Vec<Chunk>,
}

/// What is asked of a block.
#[derive(Clone, Debug)]
pub struct SelectRequest {
    /// On the series' own labels. None select all series.
    pub matchers: Arc<[Matcher]>,
    /// Closed.
    pub range: TimeRange,
    /// Labels only.
    pub skip_chunks: bool,
    /// What is deleted of the block. Series of which nothing is left in the range are left out, and chunks of which nothing is
    /// left are not read; what is deleted inside of the others is for the reader to take out.
    pub mask: Option<Arc<Mask>>,
    /// The aggregates that are needed of downsampled data, by number; the others may be left out of the chunks.
    pub aggregates: [bool; 5],
    /// Bytes of chunks that are read for a batch. Whoever merges many blocks holds batches of all of them.
    pub batch_bytes: u64,
    /// Shared by the blocks of one request.
    pub limiter: Arc<Limiter>,
    /// Shared by the blocks of one request.
    pub stats: Arc<QueryStats>,
}

impl SelectRequest {
    /// Larger batches gain nothing.
    pub const BATCH_BYTES_MAX: u64 = 4 << 20;

    /// A request without limits.
    pub fn new(matchers: Vec<Matcher>, range: TimeRange) -> Self {
        let (limiter, stats) = (Arc::default(), Arc::default());
        SelectRequest {
            matchers: matchers.into(),
            range,
            skip_chunks: false,
            mask: None,
            aggregates: [true; 5],
            batch_bytes: Self::BATCH_BYTES_MAX,
            limiter,
            stats,
        }
    }
}

/// A block in a bucket, ready to be read.
pub struct BucketBlock {
    meta: Arc<BlockMeta>,
    external: Labels,
    bucket: Bucket,
    header: HeaderSource,
    cache: Option<Arc<IndexCache>>,
    chunk_cache: Option<Arc<ChunkCache>>,
    run_cache: Option<Arc<RunCache>>,
}

impl std::fmt::Debug for BucketBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BucketBlock({})", self.meta.ulid)
    }
}

impl BucketBlock {
    /// A block; nothing is read yet. Its header will lie below `data_dir`. Errors: external labels that are none.
    pub fn new(bucket: Bucket, meta: Arc<BlockMeta>, data_dir: &Path) -> Result<Self> {
        let thanos = meta.thanos.as_ref();
        let external = thanos.map(|t| t.external_labels()).transpose()?.unwrap_or_default();
        let index = thanos.and_then(|t| t.files.iter().find(|f| f.rel_path == layout::INDEX));
        let index_bytes = index.map(|f| f.size_bytes).filter(|n| *n > 0);
        let header = HeaderSource::new(bucket.clone(), meta.ulid, data_dir, index_bytes);
        Ok(BucketBlock { meta, external, bucket, header, cache: None, chunk_cache: None, run_cache: None })
    }

    /// The same block with a cache of postings and series.
    pub fn with_cache(mut self, cache: Arc<IndexCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The same block with a cache of pieces of its segments.
    pub fn with_chunk_cache(mut self, cache: Arc<ChunkCache>) -> Self {
        self.chunk_cache = Some(cache);
        self
    }

    /// The same block with a cache of the chunks that were read of series.
    pub fn with_run_cache(mut self, cache: Arc<RunCache>) -> Self {
        self.run_cache = Some(cache);
        self
    }

    /// The block's name.
    pub fn id(&self) -> BlockId {
        self.meta.ulid
    }

    /// The block's meta.json.
    pub fn meta(&self) -> &Arc<BlockMeta> {
        &self.meta
    }

    /// The producer's labels.
    pub fn external_labels(&self) -> &Labels {
        &self.external
    }

    /// The open index header.
    pub async fn header(&self) -> Result<Arc<IndexHeader>> {
        self.header.get().await
    }

    /// Its life on disk and in memory.
    pub fn header_source(&self) -> &HeaderSource {
        &self.header
    }

    /// Closes the header when it was not used for `idle`.
    pub fn close_if_idle(&self, idle: Duration) -> bool {
        self.header.close_if_idle(idle)
    }

    /// The series that match, in label order, in batches.
    pub fn select(self: &Arc<Self>, request: SelectRequest) -> BoxStream<'static, Result<Vec<BlockSeries>>> {
        let block = self.clone();
        let opened = async move {
            let header = block.header().await?;
            let found = block.find_series(&header, &request).await?;
            if !found.check_labels {
                request.limiter.series(block.meta.ulid, found.refs.len() as u64)?;
            }
            let (refs, check_labels, request) = (found.refs, found.check_labels, Arc::new(request));
            let reader = Reader { block, header, request, refs, check_labels, hidden: false };
            Ok::<_, Error>(reader.stream())
        };
        futures::stream::once(opened).try_flatten().boxed()
    }

    /// The names of the labels of series that match, sorted. Without matchers the header alone answers.
    pub async fn label_names(self: &Arc<Self>, request: SelectRequest) -> Result<Vec<String>> {
        if request.matchers.is_empty() {
            let names = self.header().await?.label_names();
            return self.names_left(names, request).await;
        }
        let mut names = std::collections::BTreeSet::new();
        let mut batches = self.select(SelectRequest { skip_chunks: true, ..request });
        while let Some(batch) = batches.try_next().await? {
            for (name, _) in batch.iter().flat_map(|s| &s.labels) {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The values of `name` in series that match, sorted. Where all matchers are on `name` itself the header alone
    /// answers.
    pub async fn label_values(self: &Arc<Self>, name: &str, request: SelectRequest) -> Result<Vec<String>> {
        if request.matchers.iter().all(|m| m.name == name) {
            let (header, of, matchers) = (self.header().await?, name.to_owned(), request.matchers.clone());
            let values = blocking(move || {
                header.label_values(&of, &mut |value| matchers.iter().all(|m| m.matches(value)))
            })
            .await?;
            return self.values_left(name, values, request).await;
        }
        let mut values = std::collections::BTreeSet::new();
        let mut batches = self.select(SelectRequest { skip_chunks: true, ..request });
        while let Some(batch) = batches.try_next().await? {
            for value in batch.iter().filter_map(|s| s.labels.get(name)) {
                if !values.contains(value) {
                    values.insert(value.to_owned());
                }
            }
        }
        Ok(values.into_iter().collect())
    }
}
