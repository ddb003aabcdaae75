//! Operators. Each pushes batches of rows to the one above it: sources decode a series at a time and fill batches,
//! maps change them on the way, aggregations fold them, joins and sorts collect them.
//!
//! An operator is a method of [`Exec`] that takes the node, the grid of evaluation times and a sink. What is shared by
//! the whole query (storage, budget, annotations, statistics) lives in [`Exec`] and is handed through to the sinks.

mod aggregate;
mod aggregate_k;
mod batch;
mod call;
mod count_values;
pub(crate) mod counts;
mod current;
mod fold;
mod histogram_calls;
mod info;
mod join;
mod labels;
mod merge;
mod native_range;
pub(crate) mod ordered;
mod parallel;
pub(crate) mod profile;
mod push;
mod range;
mod result;
pub(crate) mod samples;
mod scalar;
mod schedule;
mod select;
mod sets;
mod slide;
mod smooth;
pub(crate) mod turns;
mod vector;

use std::sync::Arc;

pub(crate) use batch::{Batch, Budget, Grid, Held};
pub(crate) use result::run;

use crate::annotations::Annotations;
use crate::engine::{EngineError, EngineOptions};
use crate::exec::counts::Counts;
use crate::memory::MemoryUse;
use crate::parser::ExprId;
use crate::plan::Plan;
use crate::queryable::{QueryContext, Queryable, SelectRequest, Series, SeriesSet};
use crate::value::QueryStats;

pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// Receives batches. Series come in any order; rows are never without points.
pub(crate) type Sink<'s, 'a> = &'s mut dyn FnMut(&mut Exec<'a>, Batch) -> Result<()>;

/// Values in a batch before it is handed on: enough to amortise the call, small enough for the cache.
const BATCH_VALUES: usize = 32 * 1024;
/// Rows in a batch before it is handed on.
const BATCH_ROWS: usize = 1024;

/// Rows between two looks at the clock and the cancel flag.
const ROWS_BETWEEN_CHECKS: usize = 64;
/// Steps of which a row is so small that it need not be asked for.
const STEPS_PLAIN: usize = 64 * 1024;
/// Samples up to which what follows from a series' times is worked out ahead.
const SAMPLES_SCHEDULED: usize = 1 << 20;
/// What a step of a row takes while the row is computed: the value, its time and as much again as a scratch copy.
const ROW_STEP_BYTES: usize = 32;

/// Whether what follows from a series' times is worked out ahead and kept for the next one. It is where that takes some
/// megabytes at most, which no budget counts, and is done before a look at the clock is due.
fn is_scheduled(samples: usize, grid: &Grid) -> bool {
    samples <= SAMPLES_SCHEDULED && grid.count <= STEPS_PLAIN
}

/// The state of one query's evaluation.
pub(crate) struct Exec<'a> {
    pub(crate) plan: &'a Plan,
    /// The query's text.
    pub(crate) query: &'a str,
    pub(crate) queryable: &'a dyn Queryable,
    /// What to read from instead, while stores have folded the rest of what is being evaluated.
    pub(crate) rest: Option<Arc<dyn Queryable>>,
    pub(crate) cx: &'a QueryContext,
    pub(crate) options: &'a EngineOptions,
    pub(crate) annotations: Annotations,
    pub(crate) budget: Arc<Budget>,
    pub(crate) stats: QueryStats,
    /// Samples loaded by the part that is being evaluated.
    pub(crate) counts: Counts,
    /// Series of sources that several selectors use, once read.
    pub(crate) shared: Vec<Option<SharedSeries>>,
    /// Time that sorting the result took.
    pub(crate) sort_time: std::time::Duration,
    /// The node that is being evaluated, on whose behalf memory is taken. Only kept where operators are measured.
    pub(crate) node: u32,
}

/// Series that several selectors use, with the memory that they take.
#[derive(Clone, Debug)]
pub(crate) struct SharedSeries {
    pub(crate) series: Arc<Vec<Series>>,
    pub(crate) _held: Arc<Held>,
}

impl<'a> Exec<'a> {
    /// Evaluates an expression of type instant vector.
    pub(crate) fn vector(&mut self, id: ExprId, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        self.cx.check()?;
        self.check_grid(grid)?;
        if grid.count == 0 {
            return Ok(());
        }
        match self.budget.profile.clone() {
            None => self.vector_unmeasured(id, grid, sink),
            Some(profile) => self.measured_vector(profile, id, grid, sink),
        }
    }

    #[inline(always)]
    fn vector_unmeasured(&mut self, id: ExprId, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        if self.plan.once[id.index()] && grid.is_range() {
            return self.vector_once(id, grid, sink);
        }
        self.vector_node(id, grid, sink)
    }

    /// A value that is the same at all steps.
    fn vector_once(&mut self, id: ExprId, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let steps = grid.count;
        // What is above counts for itself.
        let mut around = std::mem::take(&mut self.counts);
        let result = self.vector_node(id, &grid.first(), &mut |exec, batch| {
            std::mem::swap(&mut exec.counts, &mut around);
            let result = exec.emit(batch.broadcast(steps), sink);
            std::mem::swap(&mut exec.counts, &mut around);
            result
        });
        let part = std::mem::replace(&mut self.counts, around);
        self.counts.append_once(&part, steps);
        result
    }

    /// Refuses a grid of which not even one full row fits the budget, before a row is allocated.
    pub(crate) fn check_grid(&self, grid: &Grid) -> Result<()> {
        if grid.count > self.options.samples_max {
            return Err(EngineError::TooManySamples);
        }
        if grid.count > STEPS_PLAIN {
            self.budget.memory.check(MemoryUse::Vectors, grid.count * ROW_STEP_BYTES)?;
        }
        Ok(())
    }

    /// Memory that the operator at work takes until it is dropped.
    pub(crate) fn held(&self, what: MemoryUse) -> Held {
        Held::new(&self.budget, what, self.node)
    }

    /// Collects an expression of type instant vector.
    pub(crate) fn collect(&mut self, id: ExprId, grid: &Grid) -> Result<Batch> {
        let mut all = Batch::new(grid.count);
        self.vector(id, grid, &mut |_, batch| {
            all.append(batch);
            Ok(())
        })?;
        Ok(all)
    }

    /// Starts a read.
    pub(crate) fn open(&self, request: &SelectRequest<'_>) -> Result<Box<dyn SeriesSet>> {
        let queryable = self.rest.as_deref().unwrap_or(self.queryable);
        Ok(queryable.select(request, self.cx)?)
    }

    /// Charges a batch and hands it on; an empty one is dropped.
    pub(crate) fn emit(&mut self, mut batch: Batch, sink: Sink<'_, 'a>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.charge(&self.budget, self.node)?;
        if batch.steps() > STEPS_PLAIN {
            // Each operator takes long with a row of so many.
            self.cx.check()?;
        }
        sink(self, batch)
    }

    /// For an operator that makes a large batch row by row: now and then, is the query still wanted, and may it hold
    /// what is in the batch by now?
    pub(crate) fn row_progress(&self, row: usize, out: &mut Batch) -> Result<()> {
        out.charge_grown(&self.budget, self.node)?;
        if row.is_multiple_of(ROWS_BETWEEN_CHECKS) {
            self.cx.check()?;
        }
        Ok(())
    }

    /// Hands a batch on when it is full and starts a new one.
    pub(crate) fn emit_full(&mut self, batch: &mut Batch, sink: Sink<'_, 'a>) -> Result<()> {
        if batch.len() * batch.steps() >= BATCH_VALUES || batch.len() >= BATCH_ROWS {
            let full = std::mem::replace(batch, Batch::new(batch.steps()));
            self.cx.check()?;
            return self.emit(full, sink);
        }
        Ok(())
    }

    /// Whether a node that changes the metric's meaning must take the name off now.
    pub(crate) fn drops_names_now(&self, id: ExprId) -> bool {
        !self.options.delayed_name_removal && !self.plan.name_unused[id.index()]
    }

    /// Whether taking names off the value of `input` may make two series equal.
    pub(crate) fn may_collide(&self, input: ExprId) -> bool {
        !self.options.delayed_name_removal && !self.plan.one_name[input.index()]
    }
}
