//! The engine: query text in, [`QueryResult`] out.
//!
//! Synchronous; call it on a thread that may block. A query whose text is long may nest deeply and is evaluated on a
//! thread of its own with a stack that is large enough for any expression of that length.

mod error;
mod options;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::{EngineError, EngineErrorKind};
pub use options::EngineOptions;

use crate::annotations::Annotations;
use crate::exec::counts::Counts;
use crate::exec::profile::{Profile, analysis};
use crate::exec::{Budget, Exec, Grid};
use crate::memory::MemoryUse;
use crate::parser::{Ast, NodeKind, ValueType, parse};
use crate::plan::{Plan, PlanTimes};
use crate::push::{FoldRequest, Folded, FoldedGroup};
use crate::queryable::{QueryContext, Queryable};
use crate::value::{Analysis, QueryResult, QueryStats, QueryTimings};

/// Texts up to here cannot nest deeper than the stack of an ordinary thread allows.
const PLAIN_QUERY_BYTES: usize = 512;
/// Stack per byte of query text: a level of nesting takes at least one byte, and a few nested calls of operators.
const STACK_PER_BYTE: usize = if cfg!(debug_assertions) { 24 * 1024 } else { 6 * 1024 };
/// Bounds of such a stack. It is address space; pages are used only as deep as the query nests.
const STACK_BYTES_MIN: usize = 32 << 20;
const STACK_BYTES_MAX: usize = 4 << 30;

/// Evaluates queries. Cheap to share: holds nothing but its settings.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    /// An engine with these settings.
    pub fn new(options: EngineOptions) -> Self {
        Engine { options }
    }

    /// The engine's settings.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates a query at one time.
    pub fn instant(
        &self,
        queryable: &dyn Queryable,
        query: &str,
        t: i64,
        cx: &QueryContext,
    ) -> Result<QueryResult, EngineError> {
        self.on_a_large_stack(query, || self.evaluate(queryable, query, t, t, 0, cx))
    }

    /// Evaluates a query at `start`, `start + step_ms`, … up to `end`.
    pub fn range(
        &self,
        queryable: &dyn Queryable,
        query: &str,
        start: i64,
        end: i64,
        step_ms: i64,
        cx: &QueryContext,
    ) -> Result<QueryResult, EngineError> {
        self.on_a_large_stack(query, || self.evaluate(queryable, query, start, end, step_ms.max(1), cx))
    }

    fn on_a_large_stack<T: Send>(&self, query: &str, run: impl FnOnce() -> T + Send) -> T {
        if query.len() <= PLAIN_QUERY_BYTES {
            return run();
        }
        let bytes = (query.len() * STACK_PER_BYTE).clamp(STACK_BYTES_MIN, STACK_BYTES_MAX);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("promql".to_owned()).stack_size(bytes);
            match thread.spawn_scoped(scope, run) {
                Ok(handle) => match handle.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                },
                Err(err) => panic!("a thread for a long query could not be started: {err}"),
            }
        })
    }

    /// The operators that would evaluate a query, without numbers. `step_ms` is 0 for a query at one time.
    pub fn explain(
        &self,
        query: &str,
        start: i64,
        end: i64,
        step_ms: i64,
        cx: &QueryContext,
    ) -> Result<Analysis, EngineError> {
        Ok(analysis(&self.plan(query, start, end, step_ms, cx)?, None))
    }

    fn plan(
        &self,
        query: &str,
        start: i64,
        end: i64,
        step_ms: i64,
        cx: &QueryContext,
    ) -> Result<Plan, EngineError> {
        let instant = step_ms == 0;
        let ast = parse(query, &self.options.parse)?;
        let root_type = ast.value_type(ast.root());
        if !instant && !matches!(root_type, ValueType::Vector | ValueType::Scalar) {
            return Err(EngineError::Invalid(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                root_type.documented()
            )));
        }
        check_depth(&ast)?;
        let times = PlanTimes {
            start: crate::plan::bounded_time(start),
            end: crate::plan::bounded_time(end),
            step_ms,
            lookback_ms: cx.lookback_ms.filter(|l| *l > 0).unwrap_or(self.options.lookback_ms),
            subquery_step_ms: self.options.subquery_step_ms,
            by_function: cx.downsampled,
        };
        Plan::new(ast, times)
    }

    fn evaluate(
        &self,
        queryable: &dyn Queryable,
        query: &str,
        start: i64,
        end: i64,
        step_ms: i64,
        cx: &QueryContext,
    ) -> Result<QueryResult, EngineError> {
        let started = Instant::now();
        let plan = self.plan(query, start, end, step_ms, cx)?;
        let prepared = started.elapsed();
        let instant = step_ms == 0;
        let steps = if instant { 1 } else { Grid::new(plan.times.start, plan.times.end, step_ms).count };
        let step_stats = self.options.step_stats && cx.step_stats && steps <= self.options.samples_max;
        // Waiting for a turn counts.
        let cx = cx.clone().with_deadline(Instant::now() + self.options.timeout);
        let _turn = crate::exec::turns::Turn::take(&cx)?;
        let profile = cx.analyze.then(|| Profile::new(plan.ast.len()));
        let budget = Budget::new(self.options.samples_max, Arc::clone(&cx.memory), profile.clone());
        let counts = Counts::new(step_stats.then_some(steps));
        let mut exec = self.exec(&plan, query, queryable, &cx, budget, counts);
        let (value, held) = crate::exec::run(&mut exec, instant)?;
        let (warnings, infos) = exec.annotations.render(query);
        let stats = QueryStats {
            samples_total: exec.counts.total,
            samples_read: exec.counts.read,
            samples_peak: exec.budget.peak() as u64,
            ..exec.stats
        };
        let timings = QueryTimings {
            prepare_s: prepared.as_secs_f64(),
            eval_s: started.elapsed().saturating_sub(prepared).saturating_sub(exec.sort_time).as_secs_f64(),
            sort_s: exec.sort_time.as_secs_f64(),
        };
        let steps = exec.counts.steps.take().map(|steps| *steps);
        let analysis = profile.map(|profile| analysis(&plan, Some(&profile)));
        Ok(QueryResult { value, warnings, infos, stats, steps, timings, analysis, held })
    }
}

impl Engine {
    /// Folds one aggregation of a query over the series of `queryable`, for a querier that combines such parts. The settings are
    /// the request's. An error of the kind [`EngineErrorKind::Invalid`] says that this engine sees no such aggregation there.
    pub fn fold(
        queryable: &dyn Queryable,
        request: &FoldRequest,
        cx: &QueryContext,
    ) -> Result<Folded, EngineError> {
        let engine = Engine::new(request.options.clone());
        engine.on_a_large_stack(&request.query, || engine.fold_here(queryable, request, cx))
    }

    fn fold_here(
        &self,
        queryable: &dyn Queryable,
        request: &FoldRequest,
        cx: &QueryContext,
    ) -> Result<Folded, EngineError> {
        let FoldRequest { query, node, start, end, step_ms, steps, .. } = request;
        let plan = self.plan(query, *start, *end, *step_ms, cx)?;
        let found = plan.ast.ids().find_map(|id| match plan.ast.kind(id) {
            NodeKind::Aggregate(a) if plan.ast.span(id) == *node && plan.pushed[id.index()].is_some() => {
                Some((id, a))
            }
            _ => None,
        });
        let Some((id, a)) = found else {
            return Err(EngineError::Invalid("no aggregation there that a store may fold".to_owned()));
        };
        let bounded = crate::plan::bounded_time;
        let grid = Grid::new(bounded(steps.start), bounded(steps.end), steps.step_ms);
        if grid.count != steps.count {
            return Err(EngineError::Invalid(format!(
                "{} steps where there are {}",
                steps.count, grid.count
            )));
        }
        if grid.count > self.options.samples_max {
            return Err(EngineError::TooManySamples);
        }
        let cx = cx.clone().with_deadline(Instant::now() + self.options.timeout);
        let _turn = crate::exec::turns::Turn::take(&cx)?;
        let budget = Budget::new(self.options.samples_max, Arc::clone(&cx.memory), None);
        let counts = Counts::new(request.step_stats.then_some(grid.count));
        let mut exec = self.exec(&plan, query, queryable, &cx, budget, counts);
        let groups = exec.fold_part(id, a, &grid)?;
        let held = cx.memory.hold(MemoryUse::Result, groups.iter().map(FoldedGroup::bytes).sum())?;
        Ok(Folded {
            groups,
            notes: exec.annotations.into_notes(),
            series_read: exec.stats.series_read,
            samples_total: exec.counts.total,
            samples_read: exec.counts.read,
            by_step: exec.counts.steps.take().map(|steps| *steps),
            held: Some(held),
        })
    }

    /// The state at the start of an evaluation.
    fn exec<'a>(
        &'a self,
        plan: &'a Plan,
        query: &'a str,
        queryable: &'a dyn Queryable,
        cx: &'a QueryContext,
        budget: Arc<Budget>,
        counts: Counts,
    ) -> Exec<'a> {
        Exec {
            plan,
            query,
            queryable,
            rest: None,
            cx,
            options: &self.options,
            annotations: Annotations::new(),
            budget,
            stats: QueryStats::default(),
            counts,
            sort_time: Duration::ZERO,
            shared: vec![None; plan.sources.len()],
            node: 0,
        }
    }
}

/// Deepest nesting that is evaluated: what the largest stack holds.
const DEPTH_MAX: usize = STACK_BYTES_MAX / STACK_PER_LEVEL;
/// Stack that a level of nesting may take: a vector operator with its sink.
const STACK_PER_LEVEL: usize = if cfg!(debug_assertions) { 24 * 1024 } else { 6 * 1024 };

/// Refuses what would overflow the largest stack.
fn check_depth(ast: &Ast) -> Result<(), EngineError> {
    let mut depths = vec![0_usize; ast.len()];
    for id in ast.ids() {
        let deepest = |ids: &mut dyn Iterator<Item = crate::parser::ExprId>| {
            ids.map(|i| depths[i.index()]).max().unwrap_or(0)
        };
        let below = match ast.kind(id) {
            NodeKind::Aggregate(a) => deepest(&mut [a.expr].into_iter().chain(a.param)),
            NodeKind::Binary(b) => deepest(&mut [b.lhs, b.rhs].into_iter()),
            NodeKind::Call(c) => deepest(&mut c.args.iter().copied()),
            NodeKind::MatrixSelector(m) => depths[m.selector.index()],
            NodeKind::Subquery(s) => depths[s.expr.index()],
            NodeKind::Paren(e) | NodeKind::Unary { expr: e, .. } => depths[e.index()],
            NodeKind::Number { .. } | NodeKind::String(_) | NodeKind::VectorSelector(_) => 0,
        };
        depths[id.index()] = below + 1;
    }
    match depths[ast.root().index()] {
        depth if depth <= DEPTH_MAX => Ok(()),
        depth => {
            Err(EngineError::Invalid(format!("expression nests {depth} levels deep, more than {DEPTH_MAX}")))
        }
    }
}

#[cfg(test)]
mod stats_tests;
#[cfg(test)]
mod tests;
