//! From a syntax tree to a plan: the same tree with everything resolved that is known before data is read, and side
//! tables by node.
//!
//! Each rewrite has a file of its own. All of them are loops over the arena (children have smaller ids than their
//! parents), so that a query of any depth is planned in constant stack.

mod fold;
mod invariant;
mod names;
mod projection;
mod propagate;
mod push;
mod reads;
mod statistics;

pub(crate) use invariant::depends_on_time;
pub(crate) use names::drops_metric_name;
pub(crate) use reads::{SelectorRead, Source};

use crate::engine::EngineError;
use crate::parser::{Ast, At, ExprId, NodeKind, ValueType};

/// The times that a query is evaluated at, and what they are looked up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanTimes {
    /// First evaluation time.
    pub(crate) start: i64,
    /// Last evaluation time is the last multiple of `step_ms` from `start` up to here.
    pub(crate) end: i64,
    /// Between evaluations; 0 for an instant query.
    pub(crate) step_ms: i64,
    /// How old a sample may be.
    pub(crate) lookback_ms: i64,
    /// Step of subqueries that name none.
    pub(crate) subquery_step_ms: i64,
    /// What storage answers depends on the function around a selector: selectors of different ones share no read.
    pub(crate) by_function: bool,
}

/// A plan.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The tree; `offset_ms`, `timestamp_ms`, ranges and steps are resolved.
    pub(crate) ast: Ast,
    /// The times.
    pub(crate) times: PlanTimes,
    /// By node: evaluate once, the value is the same at all steps.
    pub(crate) once: Vec<bool>,
    /// By node: all series of the value carry the same metric name or none.
    pub(crate) one_name: Vec<bool>,
    /// By node: the parent does not look at metric names, so a call need not remove them.
    pub(crate) name_unused: Vec<bool>,
    /// By node: of a selector's histograms only count and sum are looked at.
    pub(crate) statistics_only: Vec<bool>,
    /// By node: how a vector selector is read.
    pub(crate) reads: Vec<Option<SelectorRead>>,
    /// By node: the selector of an aggregation that stores may fold.
    pub(crate) pushed: Vec<Option<ExprId>>,
    /// What is read from storage; several selectors may share one.
    pub(crate) sources: Vec<Source>,
}

impl Plan {
    /// Plans a query.
    pub(crate) fn new(mut ast: Ast, times: PlanTimes) -> Result<Plan, EngineError> {
        fold::query_context_functions(&mut ast, &times);
        ast.resolve_durations(times.step_ms, times.end - times.start).map_err(EngineError::Invalid)?;
        resolve_at(&mut ast, &times);
        fold::constants(&mut ast);
        let once = invariant::find(&ast);
        let (one_name, name_unused) = names::find(&ast);
        let statistics_only = statistics::find(&ast);
        let carried = propagate::find(&ast, &one_name);
        let mut kept = projection::find(&ast, &one_name);
        let (reads, sources) = reads::find(&ast, &times, &carried, &mut kept);
        let pushed = push::find(&ast, &one_name, &reads, &sources);
        Ok(Plan { ast, times, once, one_name, name_unused, statistics_only, reads, pushed, sources })
    }

    /// The node's kind below parentheses.
    pub(crate) fn unwrapped(&self, id: ExprId) -> (ExprId, &NodeKind) {
        let id = self.ast.unwrap_parens(id);
        (id, self.ast.kind(id))
    }

    /// The type of a node's value.
    pub(crate) fn value_type(&self, id: ExprId) -> ValueType {
        self.ast.value_type(id)
    }
}

/// Times further from the epoch than this are taken as this, so that offsets, ranges and the lookback can be added
/// without overflow: some 70 million years.
const TIME_MAX: i64 = i64::MAX / 4;

/// A time that offsets and ranges can be added to.
pub(crate) fn bounded_time(t: i64) -> i64 {
    t.clamp(-TIME_MAX, TIME_MAX)
}

/// Gives `@ start()` and `@ end()` their timestamps, and selectors the offsets that are in force.
fn resolve_at(ast: &mut Ast, times: &PlanTimes) {
    for id in ast.ids() {
        match &mut ast.node_mut(id).kind {
            NodeKind::VectorSelector(s) => s.timestamp_ms = resolved(s.at, times),
            NodeKind::Subquery(s) => s.timestamp_ms = resolved(s.at, times),
            _ => {}
        }
    }
}

fn resolved(at: Option<At>, times: &PlanTimes) -> Option<i64> {
    match at {
        Some(At::Timestamp(t)) => Some(bounded_time(t)),
        Some(At::Start) => Some(times.start),
        Some(At::End) => Some(times.end),
        None => None,
    }
}

#[cfg(test)]
mod tests;
