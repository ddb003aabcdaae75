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
mod histogram_calls;
mod info;
mod join;
mod labels;
mod merge;
mod native_range;
mod range;
mod result;
pub(crate) mod samples;
mod scalar;
mod select;
mod sets;
mod smooth;
mod vector;

use std::sync::Arc;

pub(crate) use batch::{Batch, Budget, Grid};
pub(crate) use result::run;

use crate::annotations::Annotations;
use crate::engine::{EngineError, EngineOptions};
use crate::parser::ExprId;
use crate::plan::Plan;
use crate::queryable::{QueryContext, Queryable, Series};
use crate::value::QueryStats;

pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// Receives batches. Series come in any order; rows are never without points.
pub(crate) type Sink<'s, 'a> = &'s mut dyn FnMut(&mut Exec<'a>, Batch) -> Result<()>;

/// Values in a batch before it is handed on: enough to amortise the call, small enough for the cache.
const BATCH_VALUES: usize = 32 * 1024;
/// Rows in a batch before it is handed on.
const BATCH_ROWS: usize = 1024;

/// The state of one query's evaluation.
pub(crate) struct Exec<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) queryable: &'a dyn Queryable,
    pub(crate) cx: &'a QueryContext,
    pub(crate) options: &'a EngineOptions,
    pub(crate) annotations: Annotations,
    pub(crate) budget: Arc<Budget>,
    pub(crate) stats: QueryStats,
    /// Series of sources that several selectors use, once read.
    pub(crate) shared: Vec<Option<Arc<Vec<Series>>>>,
}

impl<'a> Exec<'a> {
    /// Evaluates an expression of type instant vector.
    pub(crate) fn vector(&mut self, id: ExprId, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        self.cx.check()?;
        self.check_grid(grid)?;
        if grid.count == 0 {
            return Ok(());
        }
        if self.plan.once[id.index()] && grid.count > 1 {
            let steps = grid.count;
            return self
                .vector_node(id, &grid.first(), &mut |exec, batch| exec.emit(batch.broadcast(steps), sink));
        }
        self.vector_node(id, grid, sink)
    }

    /// Refuses a grid of which not even one full row fits the budget, before a row is allocated.
    pub(crate) fn check_grid(&self, grid: &Grid) -> Result<()> {
        if grid.count > self.options.samples_max { Err(EngineError::TooManySamples) } else { Ok(()) }
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

    /// Charges a batch and hands it on; an empty one is dropped.
    pub(crate) fn emit(&mut self, mut batch: Batch, sink: Sink<'_, 'a>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.charge(&self.budget)?;
        sink(self, batch)
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
