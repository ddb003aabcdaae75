//! Where the engine reads series from: one trait, implemented by the fan-out over stores, by heads, by blocks and by
//! the script runner's memory.
//!
//! The engine calls [`Queryable::select`] on a blocking thread and pulls series one by one. An implementation
//! checks [`QueryContext`] between pieces of work, so that a cancelled or timed-out query lets go of it soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chronolith_chunk::{Chunk, SampleColumns};
use chronolith_model::{Labels, Matcher, TimeRange};

use crate::exec::turns::give_way;
use crate::memory::{MemoryExceeded, QueryMemory};
use crate::push::{FoldRequest, Pushed};

/// What a selector is used for: lets a storage choose a resolution or push work down. Never changes the meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectHints {
    /// First millisecond that the query looks at.
    pub start: i64,
    /// Last millisecond that the query looks at, included.
    pub end: i64,
    /// Milliseconds between two evaluations; 0 for an instant query outside subqueries.
    pub step_ms: i64,
    /// Width of the range selector, 0 for an instant selector.
    pub range_ms: i64,
    /// The function or aggregation right around the selector.
    pub func: Option<String>,
    /// True when `grouping` is a `by` clause, false when it is a `without` clause or none.
    pub by: bool,
    /// Labels of the aggregation right around the selector.
    pub grouping: Vec<String>,
    /// Of each series only the newest sample inside the range is looked at.
    pub newest_only: bool,
    /// The query looks at these labels only, sorted: a storage may replace all others by one that keeps the series apart.
    pub keep_labels: Option<Vec<String>>,
}

/// One selector's read.
#[derive(Clone, Copy, Debug)]
pub struct SelectRequest<'a> {
    /// All must match.
    pub matchers: &'a [Matcher],
    /// Samples outside are not needed (but may be returned); both ends included.
    pub range: TimeRange,
    /// What the selector is used for.
    pub hints: &'a SelectHints,
}

/// The samples of one series.
#[derive(Clone, Debug)]
pub enum SeriesData {
    /// Encoded chunks, sorted by `mint`, not overlapping.
    Chunks(Vec<Chunk>),
    /// Decoded samples, sorted by time, times unique.
    Columns(SampleColumns),
}

/// One series as the storage hands it over.
#[derive(Clone, Debug)]
pub struct Series {
    /// Identity.
    pub labels: Labels,
    /// Samples.
    pub data: SeriesData,
}

/// Series sorted by labels, each label set once.
pub trait SeriesSet: Send {
    /// The next series, `None` at the end. After an error the set is not asked again.
    fn next(&mut self) -> Result<Option<Series>, QueryableError>;

    /// What went wrong without failing the read (a store that did not answer, ...). Asked once, at the end.
    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// A source of series.
pub trait Queryable: Send + Sync {
    /// Starts one selector's read.
    fn select(
        &self,
        request: &SelectRequest<'_>,
        cx: &QueryContext,
    ) -> Result<Box<dyn SeriesSet>, QueryableError>;

    /// Has stores fold an aggregation of the series that these matchers choose in this range, each those that it has; the engine
    /// combines what they answer. `None` where no store can, or where a series may lie in two of them: then it is read as ever.
    fn push(
        &self,
        _request: &FoldRequest,
        _matchers: &[Matcher],
        _range: TimeRange,
        _cx: &QueryContext,
    ) -> Result<Option<Pushed>, QueryableError> {
        Ok(None)
    }

    /// How many series a selection has at most, where they are in this process's memory and are read without waiting;
    /// `None` where it would wait, or where this is not known.
    fn series_at_once(&self, _matchers: &[Matcher], _range: TimeRange) -> Option<usize> {
        None
    }
}

/// What a caller of a failed read can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryableErrorKind {
    /// The storage failed; the same query may work later.
    Unavailable,
    /// The data is damaged.
    Corrupt,
    /// The request asks for what the storage does not answer, and never will.
    Invalid,
    /// A limit of the storage was exceeded.
    LimitExceeded,
    /// The query may not use so much memory.
    MemoryExceeded,
    /// The query was cancelled.
    Cancelled,
    /// The query ran out of time.
    Timeout,
    /// Anything else.
    Internal,
}

/// A failed read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryableError {
    /// What a caller can do.
    pub kind: QueryableErrorKind,
    /// Which store, block or object failed and how.
    pub message: String,
}

impl QueryableError {
    /// An error of this kind.
    pub fn new(kind: QueryableErrorKind, message: impl Into<String>) -> Self {
        QueryableError { kind, message: message.into() }
    }
}

impl From<MemoryExceeded> for QueryableError {
    fn from(err: MemoryExceeded) -> Self {
        QueryableError::new(QueryableErrorKind::MemoryExceeded, err.to_string())
    }
}

impl From<chronolith_chunk::ChunkError> for QueryableError {
    fn from(err: chronolith_chunk::ChunkError) -> Self {
        QueryableError::new(QueryableErrorKind::Corrupt, err.to_string())
    }
}

/// Deadline, cancellation and per-query settings. Cheap to clone; clones share the cancel flag.
#[derive(Clone, Debug, Default)]
pub struct QueryContext {
    /// The query fails with a timeout when this has passed.
    pub deadline: Option<Instant>,
    /// Overrides the engine's lookback delta.
    pub lookback_ms: Option<i64>,
    /// Measure each operator.
    pub analyze: bool,
    /// Count samples by step, where the engine is set to.
    pub step_stats: bool,
    /// Wait for a turn before the query computes, and give it away to others now and then.
    pub takes_turns: bool,
    /// Storage may answer with downsampled data, of which each function reads what is meant for it.
    pub downsampled: bool,
    /// What the query holds, and may hold.
    pub memory: Arc<QueryMemory>,
    cancelled: Arc<AtomicBool>,
}

impl QueryContext {
    /// No deadline, the engine's settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same context with a deadline; an earlier deadline that it already has stays.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |d| d.min(deadline)));
        self
    }

    /// The same context with a memory budget.
    pub fn with_memory(mut self, memory: Arc<QueryMemory>) -> Self {
        self.memory = memory;
        self
    }

    /// The same context, for a query whose operators are measured.
    pub fn analyzing(mut self) -> Self {
        self.analyze = true;
        self
    }

    /// The same context, for a query whose samples are counted by step.
    pub fn counting_steps(mut self) -> Self {
        self.step_stats = true;
        self
    }

    /// The same context, for a query that computes only while fewer others do than there are cores. It must be evaluated
    /// on a thread that may block.
    pub fn taking_turns(mut self) -> Self {
        self.takes_turns = true;
        self
    }

    /// Asks the query to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// True after [`QueryContext::cancel`].
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// To be called every few milliseconds of work: an error when the query was cancelled or its deadline has passed. May
    /// let other queries go first.
    pub fn check(&self) -> Result<(), QueryableError> {
        self.wanted()?;
        give_way(self)
    }

    /// An error when the query was cancelled or its deadline has passed.
    pub fn wanted(&self) -> Result<(), QueryableError> {
        if self.is_cancelled() {
            return Err(QueryableError::new(QueryableErrorKind::Cancelled, "query was canceled"));
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(QueryableError::new(QueryableErrorKind::Timeout, "query timed out"));
        }
        Ok(())
    }
}
