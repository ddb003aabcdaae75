//! Aggregations that stores fold themselves: what such a store is asked, and what it answers.
//!
//! A store is given the whole query and the place of one aggregation in it, plans the query as the querier did and evaluates that
//! one node over its own series. So rewrites, hints, ranges of time and the positions of annotations are those of the querier, and
//! nothing but the groups' columns crosses the wire. Which aggregations there are: `plan/push`. Whether a store may be asked is for
//! the [`crate::Queryable`] to know: no series of it may have samples in another store that takes part.

use chronolith_model::Labels;

use crate::engine::EngineOptions;
use crate::memory::MemoryHold;
use crate::parser::Span;
use crate::queryable::Queryable;
use crate::value::StepSamples;

/// What a part says must be what the querier's own engine would say, to the last bit and to the place of an annotation. Whatever
/// changes that comes with a release, so this is the release's number; a store of another one is read as ever.
pub const FOLD_VERSION: u32 = number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
    + number(env!("CARGO_PKG_VERSION_MINOR")) * 1_000
    + number(env!("CARGO_PKG_VERSION_PATCH"));

const fn number(digits: &str) -> u32 {
    let (digits, mut i, mut n) = (digits.as_bytes(), 0, 0);
    while i < digits.len() {
        n = n * 10 + (digits[i] - b'0') as u32;
        i += 1;
    }
    n
}

/// One aggregation of a query, to be folded over the series of one store.
#[derive(Clone, Debug)]
pub struct FoldRequest {
    /// The whole query.
    pub query: String,
    /// Where the aggregation is in it.
    pub node: Span,
    /// First evaluation time of the query, milliseconds.
    pub start: i64,
    /// Last one.
    pub end: i64,
    /// Between evaluations; 0 for a query at one time.
    pub step_ms: i64,
    /// The times at which the aggregation itself is evaluated.
    pub steps: FoldSteps,
    /// Count samples by step.
    pub step_stats: bool,
    /// The settings of the querier's engine: lookback, step of subqueries, most samples, parts of the language.
    pub options: EngineOptions,
}

/// Times from `start`, `step_ms` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoldSteps {
    /// The first.
    pub start: i64,
    /// Where the range ends, on a time or after the last one.
    pub end: i64,
    /// Between two.
    pub step_ms: i64,
    /// How many.
    pub count: usize,
}

/// What a store folded.
#[derive(Debug, Default)]
pub struct Folded {
    /// The groups.
    pub groups: Vec<FoldedGroup>,
    /// Annotations, of the store's storage and of PromQL.
    pub notes: Vec<FoldedNote>,
    /// Series read.
    pub series_read: u64,
    /// Samples loaded, as [`crate::QueryStats::samples_total`].
    pub samples_total: u64,
    /// Samples read, as [`crate::QueryStats::samples_read`].
    pub samples_read: u64,
    /// The same by step, where asked for.
    pub by_step: Option<StepSamples>,
    /// The memory of the groups, where it is counted.
    pub held: Option<MemoryHold>,
}

/// A group's column.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedGroup {
    /// The group's labels.
    pub labels: Labels,
    /// The labels of its first series: groups come in the order of their first series.
    pub first: Labels,
    /// The metric name is to be removed at the end.
    pub drop_name: bool,
    /// A bit for each step that has a value.
    pub present: Vec<u64>,
    /// The values by step; 0 where there is none.
    pub values: Vec<f64>,
}

impl FoldedGroup {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let labels = self.labels.encoded_len() + self.first.encoded_len();
        std::mem::size_of::<Self>() + labels + (self.values.len() + self.present.len()) * 8
    }
}

/// An annotation with its place in the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldedNote {
    /// The text.
    pub text: String,
    /// An info rather than a warning.
    pub info: bool,
    /// The place; none where the storage says it.
    pub span: Option<Span>,
}

/// What a [`Queryable`] had stores fold.
pub struct Pushed {
    /// The stores' answers.
    pub parts: Vec<Folded>,
    /// The stores that are left, to be read as ever; `None` when there are none.
    pub rest: Option<Box<dyn Queryable>>,
    /// Stores that are missing from the answer.
    pub warnings: Vec<String>,
}
