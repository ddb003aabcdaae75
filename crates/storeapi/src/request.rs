//! What is asked of a store.

use chronolith_model::{Matcher, TimeRange};

use crate::Projection;

/// What to do when one of several stores fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PartialResponse {
    /// Answer with what there is, and a warning.
    #[default]
    Warn,
    /// Fail the whole call.
    Abort,
}

/// One aggregate of a downsampled chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Aggregate {
    /// Number of samples.
    Count = 1,
    /// Their sum.
    Sum = 2,
    /// The smallest.
    Min = 3,
    /// The largest.
    Max = 4,
    /// The counter with resets taken out.
    Counter = 5,
}

impl Aggregate {
    /// All of them, in the order of their numbers.
    pub const ALL: [Aggregate; 5] =
        [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Counter];
}

/// The aggregates wanted of downsampled data. Raw data is always sent raw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AggregateSet(u8);

impl AggregateSet {
    /// None: raw data only.
    pub const RAW: AggregateSet = AggregateSet(0);
    /// Count and sum, from which the average follows.
    pub const AVERAGE: AggregateSet = AggregateSet(1 << 1 | 1 << 2);

    /// The set with `aggregate` added.
    #[must_use]
    pub const fn with(self, aggregate: Aggregate) -> Self {
        AggregateSet(self.0 | 1 << aggregate as u8)
    }

    /// True when `aggregate` is wanted.
    pub const fn contains(self, aggregate: Aggregate) -> bool {
        self.0 & (1 << aggregate as u8) != 0
    }

    /// True when only raw data is wanted.
    pub const fn is_raw(self) -> bool {
        self.0 == 0
    }

    /// The wanted ones in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Aggregate> {
        Aggregate::ALL.into_iter().filter(move |a| self.contains(*a))
    }
}

/// Keeps the series whose hash of the chosen labels falls into shard `index` of `count`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardInfo {
    /// The shard, from 0.
    pub index: u64,
    /// Number of shards, at least 1.
    pub count: u64,
    /// True: hash the listed labels. False: hash all others.
    pub by: bool,
    /// Label names.
    pub labels: Vec<String>,
}

/// What the query around a selector looks like. A store may use it to do less; it changes no answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueryHints {
    /// Step of the query.
    pub step_ms: i64,
    /// The function or aggregation around the selector.
    pub func: Option<String>,
    /// True for `by (…)`, false for `without (…)`.
    pub by: bool,
    /// The labels of that clause.
    pub grouping: Vec<String>,
    /// Range of a range selector.
    pub range_ms: i64,
}

/// A request for series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesRequest {
    /// The time asked for. Chunks may reach beyond it.
    pub range: TimeRange,
    /// All must match. Matchers on external labels are evaluated and taken away by the store itself.
    pub matchers: Vec<Matcher>,
    /// Milliseconds between samples of the coarsest downsampling level that will do; 0 means raw only.
    pub max_resolution_ms: i64,
    /// Aggregates wanted of downsampled data.
    pub aggregates: AggregateSet,
    /// What to do when one of several stores fails.
    pub partial_response: PartialResponse,
    /// Labels only, no chunks.
    pub skip_chunks: bool,
    /// Of each series only the newest sample inside the range matters; chunks without the others will do. Not sent to other
    /// processes.
    pub newest_only: bool,
    /// Only blocks whose id (as the label `__block_id`) matches.
    pub block_matchers: Vec<Matcher>,
    /// Tell in the hints what was read ([`crate::SeriesStats`]).
    pub query_stats: bool,
    /// What the query looks like.
    pub hints: QueryHints,
    /// One shard of the series only.
    pub shard: Option<ShardInfo>,
    /// Labels that are taken away before the series are sorted.
    pub without_replica_labels: Vec<String>,
    /// Labels that are left in the series, after all of the above looked at them.
    pub projection: Option<Projection>,
    /// At most so many series; 0 means all.
    pub limit: usize,
    /// Series per [`crate::SeriesEvent::Batch`]; 0 leaves it to the store. A hint: batches may be smaller.
    pub batch_size: usize,
}

impl SeriesRequest {
    /// A request for all raw chunks of matching series in a time range.
    pub fn new(range: TimeRange, matchers: Vec<Matcher>) -> Self {
        SeriesRequest {
            range,
            matchers,
            max_resolution_ms: 0,
            aggregates: AggregateSet::RAW,
            partial_response: PartialResponse::Warn,
            skip_chunks: false,
            newest_only: false,
            block_matchers: Vec::new(),
            query_stats: false,
            hints: QueryHints::default(),
            shard: None,
            without_replica_labels: Vec::new(),
            projection: None,
            limit: 0,
            batch_size: 0,
        }
    }
}

/// A request for label names.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelNamesRequest {
    /// The time asked for.
    pub range: TimeRange,
    /// Only names of series that match all; none means all series.
    pub matchers: Vec<Matcher>,
    /// As in [`SeriesRequest`].
    pub block_matchers: Vec<Matcher>,
    /// What to do when one of several stores fails.
    pub partial_response: PartialResponse,
    /// Names that are left out.
    pub without_replica_labels: Vec<String>,
    /// At most so many names; 0 means all.
    pub limit: usize,
}

impl LabelNamesRequest {
    /// A request for all names in a time range.
    pub fn new(range: TimeRange, matchers: Vec<Matcher>) -> Self {
        LabelNamesRequest {
            range,
            matchers,
            block_matchers: Vec::new(),
            partial_response: PartialResponse::Warn,
            without_replica_labels: Vec::new(),
            limit: 0,
        }
    }
}

/// A request for the values of one label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelValuesRequest {
    /// The label's name.
    pub label: String,
    /// The time asked for.
    pub range: TimeRange,
    /// Only values of series that match all; none means all series.
    pub matchers: Vec<Matcher>,
    /// As in [`SeriesRequest`].
    pub block_matchers: Vec<Matcher>,
    /// What to do when one of several stores fails.
    pub partial_response: PartialResponse,
    /// A label in this list has no values.
    pub without_replica_labels: Vec<String>,
    /// At most so many values; 0 means all.
    pub limit: usize,
}

impl LabelValuesRequest {
    /// A request for all values of `label` in a time range.
    pub fn new(label: &str, range: TimeRange, matchers: Vec<Matcher>) -> Self {
        LabelValuesRequest {
            label: label.to_owned(),
            range,
            matchers,
            block_matchers: Vec::new(),
            partial_response: PartialResponse::Warn,
            without_replica_labels: Vec::new(),
            limit: 0,
        }
    }
}
