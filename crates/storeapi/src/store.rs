//! The trait that every source of series implements: heads, blocks, a bucket, a remote endpoint, a fan-out.
//!
//! All implementations behave the same; `contract` is the suite that holds them to it:
//!
//! - series come sorted by labels, *after* `without_replica_labels` were taken away and `projection` was applied; one series' parts follow each
//!   other, and a series that was left does not come back;
//! - external labels win over a series' own; matchers on them are evaluated by the store, and a mismatch is an
//!   empty answer;
//! - chunks of a series may overlap and may reach beyond the asked range; they come by ascending `mint`;
//! - warnings and hints may stand anywhere in the stream; an error ends it.

use std::time::Duration;

use async_trait::async_trait;
use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, Labels, Matcher, TimeRange};
use futures::stream::BoxStream;

use crate::{Aggregate, LabelNamesRequest, LabelValuesRequest, SeriesRequest, StoreError};

/// A source of series.
#[async_trait]
pub trait Store: Send + Sync {
    /// Series by matchers and time.
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError>;

    /// Names of labels, external ones included, sorted and unique.
    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError>;

    /// Values of one label, external ones included, sorted and unique.
    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError>;

    /// What this store holds and can do.
    async fn info(&self) -> Result<StoreInfo, StoreError>;

    /// How many series an answer has at most, where it comes from this process's memory at once; `None` where it would wait
    /// for a disk, a network or another process, or where this is not known. Lets a caller answer small questions on the
    /// thread that it is on. Cheap, whatever is asked.
    fn series_at_once(&self, _matchers: &[Matcher], _range: TimeRange) -> Option<usize> {
        None
    }

    /// As [`Store::series_at_once`], for the values of one label.
    fn values_at_once(&self, _label: &str, _matchers: &[Matcher], _range: TimeRange) -> Option<usize> {
        None
    }
}

/// The answer to [`Store::series`].
pub type SeriesStream = BoxStream<'static, Result<SeriesEvent, StoreError>>;

/// One element of a [`SeriesStream`].
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesEvent {
    /// Some series, in order.
    Batch(Vec<StoreSeries>),
    /// Something is missing from the answer.
    Warning(String),
    /// What was done for it.
    Hints(SeriesHints),
}

/// What a store did for an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesHints {
    /// The blocks that were read.
    pub queried_blocks: Vec<BlockId>,
    /// What that took, where it was asked for.
    pub stats: Option<SeriesStats>,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "requests to the bucket, bytes from it, things looked at")]
pub struct SeriesStats {
    /// Blocks that were read.
    pub blocks: u64,
    /// Series and chunks of the answer.
    pub merged_series: u64,
    pub merged_chunks: u64,
    pub postings_requests: u64,
    pub postings_bytes: u64,
    pub series_touched: u64,
    pub series_requests: u64,
    pub series_bytes: u64,
    pub chunks_touched: u64,
    pub chunk_requests: u64,
    pub chunk_bytes: u64,
    /// From the request to its first series.
    pub until_first: Duration,
    /// From there to the end.
    pub after_first: Duration,
}

/// A series, or a part of one, as a store sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreSeries {
    /// The labels, external ones included.
    pub labels: Labels,
    /// Chunks by ascending `mint`; empty when none were asked for.
    pub chunks: Vec<AggrChunk>,
}

/// Samples of one series: raw, or aggregates of a downsampled block.
#[derive(Clone, Debug, PartialEq)]
pub enum AggrChunk {
    /// Samples as they came.
    Raw(Chunk),
    /// Aggregates, those that were asked for.
    Downsampled(Box<DownsampledChunk>),
}

/// Aggregates of one stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct DownsampledChunk {
    /// First time, in milliseconds.
    pub mint: i64,
    /// Last time, included.
    pub maxt: i64,
    /// The aggregates, by [`Aggregate`] number minus one.
    pub parts: [Option<Chunk>; 5],
}

impl DownsampledChunk {
    /// The chunk of one aggregate.
    pub fn part(&self, aggregate: Aggregate) -> Option<&Chunk> {
        self.parts[aggregate as usize - 1].as_ref()
    }

    /// Sets the chunk of one aggregate.
    pub fn set_part(&mut self, aggregate: Aggregate, chunk: Chunk) {
        self.parts[aggregate as usize - 1] = Some(chunk);
    }
}

impl AggrChunk {
    /// First time, in milliseconds.
    pub fn mint(&self) -> i64 {
        match self {
            AggrChunk::Raw(chunk) => chunk.mint,
            AggrChunk::Downsampled(chunk) => chunk.mint,
        }
    }

    /// Last time, in milliseconds, included.
    pub fn maxt(&self) -> i64 {
        match self {
            AggrChunk::Raw(chunk) => chunk.maxt,
            AggrChunk::Downsampled(chunk) => chunk.maxt,
        }
    }

    /// The raw chunk, where it is one.
    pub fn raw(&self) -> Option<&Chunk> {
        match self {
            AggrChunk::Raw(chunk) => Some(chunk),
            AggrChunk::Downsampled(_) => None,
        }
    }

    /// Bytes of sample data.
    pub fn bytes_len(&self) -> usize {
        match self {
            AggrChunk::Raw(chunk) => chunk.data.len(),
            AggrChunk::Downsampled(chunk) => chunk.parts.iter().flatten().map(|c| c.data.len()).sum(),
        }
    }
}

impl From<Chunk> for AggrChunk {
    fn from(chunk: Chunk) -> Self {
        AggrChunk::Raw(chunk)
    }
}

/// The answer to [`Store::label_names`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelNames {
    /// Sorted, unique.
    pub names: Vec<String>,
    /// What is missing.
    pub warnings: Vec<String>,
    /// The blocks that were read.
    pub queried_blocks: Vec<BlockId>,
}

/// The answer to [`Store::label_values`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelValues {
    /// Sorted, unique.
    pub values: Vec<String>,
    /// What is missing.
    pub warnings: Vec<String>,
    /// The blocks that were read.
    pub queried_blocks: Vec<BlockId>,
}

/// One TSDB inside a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsdbInfo {
    /// Its external labels.
    pub labels: Labels,
    /// Its time.
    pub range: TimeRange,
}

/// What a store holds and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// `receive`, `store`, `query`, `rule`, `sidecar`, or what a foreign endpoint calls itself.
    pub component: String,
    /// External label sets of its producers. None: it has none, and every matcher may fit.
    pub label_sets: Vec<Labels>,
    /// The time it has data for. Empty when it has none.
    pub range: TimeRange,
    /// It applies [`SeriesRequest::shard`].
    pub supports_sharding: bool,
    /// It applies [`SeriesRequest::without_replica_labels`].
    pub supports_without_replica_labels: bool,
    /// It applies [`SeriesRequest::projection`], by our hash.
    pub supports_projection: bool,
    /// Its TSDBs, where it tells them apart.
    pub tsdbs: Vec<TsdbInfo>,
}

impl StoreInfo {
    /// A store of this component with all abilities, and without labels and time so far.
    pub fn new(component: &str) -> Self {
        StoreInfo {
            component: component.to_owned(),
            label_sets: Vec::new(),
            range: TimeRange::new(i64::MAX, i64::MIN),
            supports_sharding: true,
            supports_without_replica_labels: true,
            supports_projection: true,
            tsdbs: Vec::new(),
        }
    }
}
