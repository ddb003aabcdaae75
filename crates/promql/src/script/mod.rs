//! Runs scripts in the language of Prometheus's `promqltest`: load these series, evaluate this, expect that.
//!
//! An instant evaluation is run as written, with `@` put on its selectors at several times, and each of these as a
//! range query too. See the page beside the upstream scripts for the grammar and the rules of comparison.

mod check;
pub mod corpus;
mod memory;
mod nhcb;
mod statement;
mod storage;

use std::sync::Arc;

use crate::engine::{Engine, EngineOptions};
use crate::parser::{Ast, At, FunctionId, NodeKind, ParseOptions, SequenceValue, parse};
use crate::queryable::{QueryContext, Queryable};
use crate::value::{PointValue, QueryResult, Value, VectorSample};

pub use memory::MemoryStorage;
use statement::{Description, Eval, StatementKind, When};
pub use storage::{LoadedSample, LoadedSeries, LoadedValue, ScriptStorage};

/// A failed evaluation.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Line of the statement, from 1.
    pub line: usize,
    /// The query text that was run.
    pub query: String,
    /// What was wrong.
    pub message: String,
}

/// The outcome of a script.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Evaluations in the script.
    pub evals: usize,
    /// Evaluations that failed, each once.
    pub failures: Vec<Failure>,
}

/// The settings of upstream's own run of its scripts.
pub fn script_options() -> EngineOptions {
    EngineOptions {
        samples_max: 10_000,
        timeout: std::time::Duration::from_secs(100),
        parse: ParseOptions::ALL,
        delayed_name_removal: true,
        start_timestamps: true,
        ..EngineOptions::default()
    }
}

/// Runs a script. `open` makes the empty storage that it starts with, and a new one at every `clear`. Errors: the script
/// itself is malformed, or a storage did not take what it was given.
pub fn run_script(
    text: &str,
    engine: &Engine,
    open: &dyn Fn() -> Box<dyn ScriptStorage>,
) -> Result<Report, String> {
    let statements = statement::parse_script(text)?;
    let mut report = Report::default();
    let mut storage = open();
    for statement in &statements {
        match &statement.kind {
            StatementKind::Clear => storage = open(),
            StatementKind::Load { step_ms, with_nhcb, series } => {
                let loaded = loaded(*step_ms, *with_nhcb, series);
                loaded
                    .and_then(|series| storage.load(&series))
                    .map_err(|e| format!("line {}: {e}", statement.line))?;
            }
            StatementKind::Eval(eval) => {
                report.evals += 1;
                let runner = Runner { engine, storage: storage.queryable(), eval };
                if let Err((query, message)) = runner.run() {
                    report.failures.push(Failure { line: statement.line, query, message });
                }
            }
        }
    }
    Ok(report)
}

/// Reads a script without running it. Errors: it is malformed, an expression in it is not PromQL, or a `load` cannot be
/// expanded.
pub fn check_script(text: &str) -> Result<(), String> {
    for statement in &statement::parse_script(text)? {
        let checked = match &statement.kind {
            StatementKind::Clear => Ok(()),
            StatementKind::Load { step_ms, with_nhcb, series } => {
                loaded(*step_ms, *with_nhcb, series).map(|_| ())
            }
            StatementKind::Eval(eval) => {
                parse(&eval.expr, &ParseOptions::ALL).map(|_| ()).map_err(|e| e.to_string())
            }
        };
        checked.map_err(|e| format!("line {}: {e}", statement.line))?;
    }
    Ok(())
}

/// Runs a script over series in memory.
pub fn run_in_memory(text: &str) -> Result<Report, String> {
    run_script(text, &Engine::new(script_options()), &|| Box::new(MemoryStorage::new()))
}

/// What a `load` brings, series by series.
fn loaded(step_ms: i64, with_nhcb: bool, series: &[Description]) -> Result<Vec<LoadedSeries>, String> {
    let at = |i: usize| {
        i64::try_from(i).ok().and_then(|i| step_ms.checked_mul(i)).ok_or("a sample lies beyond all times")
    };
    let mut out = Vec::with_capacity(series.len());
    for d in series {
        let mut samples = Vec::with_capacity(d.values.len());
        for (i, value) in d.values.iter().enumerate() {
            let value = match value {
                SequenceValue::Omitted => continue,
                SequenceValue::Float(v) => LoadedValue::Float(*v),
                SequenceValue::Histogram { histogram, .. } => {
                    LoadedValue::Histogram(Arc::new((**histogram).clone()))
                }
            };
            let t = at(i)?;
            let start_t = match d.start_offsets.get(i).copied().flatten() {
                Some(offset) => t.checked_add(offset).ok_or("a start lies beyond all times")?,
                None => 0,
            };
            samples.push(LoadedSample { t, start_t, value });
        }
        out.push(LoadedSeries { labels: d.labels.clone(), samples });
    }
    if with_nhcb {
        for (labels, histograms) in nhcb::convert(series)? {
            let mut samples = Vec::with_capacity(histograms.len());
            for (i, h) in histograms {
                samples.push(LoadedSample {
                    t: at(i)?,
                    start_t: 0,
                    value: LoadedValue::Histogram(Arc::new(h)),
                });
            }
            out.push(LoadedSeries { labels, samples });
        }
    }
    Ok(out)
}

/// Runs one evaluation; an error is the query that was run and what was wrong.
struct Runner<'r> {
    engine: &'r Engine,
    storage: &'r dyn Queryable,
    eval: &'r Eval,
}

type Outcome = Result<(), (String, String)>;

impl Runner<'_> {
    fn run(&self) -> Outcome {
        let cx = QueryContext::new();
        match self.eval.when {
            When::Range { start, end, step_ms } => {
                let expr = &self.eval.expr;
                let result = self.engine.range(self.storage, expr, start, end, step_ms, &cx);
                let error = |e: String| (format!("{expr} from {start} to {end} step {step_ms}"), e);
                let Some(result) = self.expected(result).map_err(error)? else { return Ok(()) };
                check::annotations(self.eval, &result).map_err(error)?;
                let Value::Matrix(series) = &result.value else {
                    return Err(error("a range query gave no matrix".to_owned()));
                };
                check::matrix(&self.eval.series, series, start, end, step_ms).map_err(error)
            }
            When::Instant(t) => {
                self.instant(&self.eval.expr, t)?;
                let ast = parse(&self.eval.expr, &ParseOptions::ALL)
                    .map_err(|e| (self.eval.expr.clone(), e.to_string()))?;
                for (expr, t) in at_variants(&ast, t) {
                    self.instant(&expr, t).map_err(|(q, e)| (format!("@-variant {q}"), e))?;
                }
                Ok(())
            }
        }
    }

    /// `None` when the query failed and was expected to.
    fn expected(
        &self,
        result: Result<QueryResult, crate::EngineError>,
    ) -> Result<Option<QueryResult>, String> {
        match (&self.eval.fail, result) {
            (None, Ok(result)) => Ok(Some(result)),
            (None, Err(err)) => Err(format!("failed: {err}")),
            (Some(pattern), Ok(_)) => Err(format!("expected to fail with {pattern:?}")),
            (Some(pattern), Err(err)) if pattern.matches(&err.to_string()) => Ok(None),
            (Some(pattern), Err(err)) => Err(format!("expected to fail with {pattern:?}, got: {err}")),
        }
    }

    fn instant(&self, expr: &str, t: i64) -> Outcome {
        let cx = QueryContext::new();
        let error = |e: String| (format!("{expr} at {t}"), e);
        let result = self.engine.instant(self.storage, expr, t, &cx);
        let Some(result) = self.expected(result).map_err(error)? else { return Ok(()) };
        check::annotations(self.eval, &result).map_err(error)?;
        check::instant(self.eval, &result.value).map_err(error)?;
        let depends_on_range = ["start()", "end()", "range()", "step()"].iter().any(|f| expr.contains(f));
        if self.eval.range_vector.is_some() || self.eval.string.is_some() || depends_on_range {
            return Ok(());
        }
        self.as_range(expr, t, matches!(result.value, Value::Scalar { .. }))
    }

    /// The same text as a range query around the time; only the points at the time count.
    fn as_range(&self, expr: &str, t: i64, scalar: bool) -> Outcome {
        const MINUTE: i64 = 60_000;
        let error = |e: String| (format!("{expr} as a range query around {t}"), e);
        let cx = QueryContext::new();
        let result = self
            .engine
            .range(self.storage, expr, t - MINUTE, t + MINUTE, MINUTE, &cx)
            .map_err(|e| error(format!("failed: {e}")))?;
        if self.eval.ordered {
            return Ok(());
        }
        let Value::Matrix(series) = result.value else {
            return Err(error("a range query gave no matrix".to_owned()));
        };
        if !series.is_sorted_by(|a, b| a.labels < b.labels) {
            return Err(error("the series are not sorted by labels".to_owned()));
        }
        let at_t: Vec<VectorSample> = series
            .iter()
            .filter_map(|s| s.at(t).map(|value| VectorSample { labels: s.labels.clone(), t, value }))
            .collect();
        let value = match at_t.first() {
            Some(VectorSample { value: PointValue::Float(v), .. }) if scalar => Value::Scalar { t, v: *v },
            _ => Value::Vector(at_t),
        };
        check::instant(self.eval, &value).map_err(error)
    }
}

/// The query with `@ t` on its outermost selectors and subqueries, and times at which it must give the same.
fn at_variants(ast: &Ast, t: i64) -> Vec<(String, i64)> {
    let mut ast = ast.clone();
    let mut unsafe_call = false;
    let mut targets = Vec::new();
    ast.walk(ast.root(), |id, _| match ast.kind(id) {
        NodeKind::Call(call) => {
            let id = call.func.id;
            unsafe_call |= crate::plan::depends_on_time(id);
            true
        }
        NodeKind::VectorSelector(s) => {
            if !matches!(s.at, Some(At::Timestamp(_))) {
                targets.push(id);
            }
            true
        }
        NodeKind::Subquery(s) => {
            if !matches!(s.at, Some(At::Timestamp(_))) {
                targets.push(id);
            }
            false
        }
        _ => true,
    });
    if unsafe_call || calls_below_subqueries(&ast) {
        return Vec::new();
    }
    for id in targets {
        match &mut ast.node_mut(id).kind {
            NodeKind::VectorSelector(s) => s.at = Some(At::Timestamp(t)),
            NodeKind::Subquery(s) => s.at = Some(At::Timestamp(t)),
            _ => {}
        }
    }
    let text = ast.to_string();
    let times = if t == 0 { vec![-1000, 0, 1000] } else { vec![-10 * t, 0, t / 5, t, 10 * t] };
    times.into_iter().map(|t| (text.clone(), t)).collect()
}

/// True when a function that depends on the evaluation time is called anywhere.
fn calls_below_subqueries(ast: &Ast) -> bool {
    ast.ids().any(|id| {
        matches!(ast.kind(id), NodeKind::Call(c)
            if crate::plan::depends_on_time(c.func.id) || c.func.id == FunctionId::Step)
    })
}

#[cfg(test)]
mod tests;
