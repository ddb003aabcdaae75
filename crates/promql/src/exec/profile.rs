//! What each operator costs, measured per batch where a query asks for it.
//!
//! The numbers of a node lie in a slot of their own and are added up without locks, so that several threads may work
//! for one operator; its time is then the sum of theirs. An operator's time, and the samples that it loads, are its own
//! and those of the operators below it; what is above it, to which it hands its batches, does not count. Its memory is
//! what it holds itself, with the vectors that it made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::exec::{Exec, Grid, Result, Sink};
use crate::parser::{Ast, ExprId, NodeKind};
use crate::plan::Plan;
use crate::value::{Analysis, OperatorAnalysis};

/// Numbers of all nodes.
#[derive(Debug)]
pub(crate) struct Profile(Box<[Slot]>);

/// Numbers of one node.
#[derive(Debug, Default)]
struct Slot {
    nanos: AtomicU64,
    series: AtomicU64,
    samples: AtomicU64,
    samples_total: AtomicU64,
    samples_held: Level,
    memory: Level,
    /// Stores that folded parts of it.
    stores: AtomicUsize,
}

/// What is held, and the most of it.
#[derive(Debug, Default)]
struct Level {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Level {
    fn add(&self, n: usize) {
        let now = self.now.fetch_add(n, Relaxed) + n;
        self.peak.fetch_max(now, Relaxed);
    }

    fn subtract(&self, n: usize) {
        self.now.fetch_sub(n, Relaxed);
    }
}

impl Profile {
    pub(crate) fn new(nodes: usize) -> Arc<Self> {
        Arc::new(Profile((0..nodes).map(|_| Slot::default()).collect()))
    }

    pub(crate) fn hold(&self, node: u32, bytes: usize) {
        self.0[node as usize].memory.add(bytes);
    }

    pub(crate) fn let_go(&self, node: u32, bytes: usize) {
        self.0[node as usize].memory.subtract(bytes);
    }

    /// So many stores folded parts of an aggregation.
    pub(crate) fn folded_by(&self, node: ExprId, stores: usize) {
        self.0[node.index()].stores.fetch_max(stores, Relaxed);
    }

    pub(crate) fn hold_samples(&self, node: u32, n: usize) {
        self.0[node as usize].samples_held.add(n);
    }

    pub(crate) fn let_go_samples(&self, node: u32, n: usize) {
        self.0[node as usize].samples_held.subtract(n);
    }

    /// Adds what one stretch of work of an operator took and gave.
    fn add(&self, node: ExprId, time: Duration, series: u64, samples: u64, samples_total: u64) {
        let slot = &self.0[node.index()];
        slot.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        slot.series.fetch_add(series, Relaxed);
        slot.samples.fetch_add(samples, Relaxed);
        slot.samples_total.fetch_add(samples_total, Relaxed);
    }
}

/// A stretch of work that is being measured, less what is above it.
struct Stretch {
    started: Instant,
    samples_total: u64,
    above: Duration,
    samples_above: u64,
}

impl Stretch {
    fn start(exec: &Exec<'_>) -> Self {
        Stretch {
            started: Instant::now(),
            samples_total: exec.counts.total,
            above: Duration::ZERO,
            samples_above: 0,
        }
    }

    /// Does work that belongs to the operator above.
    fn outside<'a, T>(&mut self, exec: &mut Exec<'a>, work: impl FnOnce(&mut Exec<'a>) -> T) -> T {
        let (started, samples) = (Instant::now(), exec.counts.total);
        let done = work(exec);
        self.above += started.elapsed();
        self.samples_above += exec.counts.total.saturating_sub(samples);
        done
    }

    fn end(&self, exec: &Exec<'_>) -> (Duration, u64) {
        let samples = exec.counts.total.saturating_sub(self.samples_total);
        (self.started.elapsed().saturating_sub(self.above), samples.saturating_sub(self.samples_above))
    }
}

impl<'a> Exec<'a> {
    /// [`Exec::vector`], measured.
    #[inline(never)]
    pub(super) fn measured_vector(
        &mut self,
        profile: Arc<Profile>,
        id: ExprId,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let above = std::mem::replace(&mut self.node, id.index() as u32);
        let (mut series, mut samples) = (0, 0);
        let mut stretch = Stretch::start(self);
        let result = self.vector_unmeasured(id, grid, &mut |exec, batch| {
            series += batch.len() as u64;
            samples += batch.rows().map(|row| row.point_count() as u64).sum::<u64>();
            let node = std::mem::replace(&mut exec.node, above);
            let result = stretch.outside(exec, |exec| sink(exec, batch));
            exec.node = node;
            result
        });
        let (time, total) = stretch.end(self);
        profile.add(id, time, series, samples, total);
        self.node = above;
        result
    }

    /// [`Exec::scalar`], measured.
    #[inline(never)]
    pub(super) fn measured_scalar(
        &mut self,
        profile: Arc<Profile>,
        id: ExprId,
        grid: &Grid,
    ) -> Result<Vec<f64>> {
        let above = std::mem::replace(&mut self.node, id.index() as u32);
        let stretch = Stretch::start(self);
        let result = self.scalar_unmeasured(id, grid);
        let (time, total) = stretch.end(self);
        profile.add(id, time, 0, grid.count as u64, total);
        self.node = above;
        result
    }

    /// [`Exec::each_series`], measured.
    #[inline(never)]
    pub(super) fn measured_series(
        &mut self,
        profile: Arc<Profile>,
        selector: ExprId,
        sink: super::select::SeriesSink<'_, 'a>,
    ) -> Result<()> {
        let (mut series, mut samples) = (0, 0);
        let mut stretch = Stretch::start(self);
        let result = self.each_series_unmeasured(selector, &mut |exec, labels, columns| {
            series += 1;
            samples += columns.len() as u64;
            stretch.outside(exec, |exec| sink(exec, labels, columns))
        });
        let (time, _) = stretch.end(self);
        // An instant selector is measured as the vector that it is.
        if self.node != selector.index() as u32 {
            profile.add(selector, time, series, samples, samples);
        }
        result
    }
}

/// The operators of a plan, with what a profile knows of them.
pub(crate) fn analysis(plan: &Plan, profile: Option<&Profile>) -> Analysis {
    let ast = &plan.ast;
    let mut operators: Vec<OperatorAnalysis> = Vec::new();
    // What is still to be listed, with its place among its parent's children; the last one first.
    let mut todo: Vec<(ExprId, Option<usize>)> = vec![(ast.root(), None)];
    while let Some((id, parent)) = todo.pop() {
        let id = ast.unwrap_parens(id);
        let at = operators.len();
        let mut operator = OperatorAnalysis { name: operator_name(plan, id), ..OperatorAnalysis::default() };
        // A range selector's numbers are those of the selector in it.
        let node = match ast.kind(id) {
            NodeKind::MatrixSelector(m) => m.selector,
            _ => id,
        };
        if let Some(slot) = profile.map(|p| &p.0[node.index()]) {
            operator.time = Duration::from_nanos(slot.nanos.load(Relaxed));
            operator.series = slot.series.load(Relaxed);
            operator.samples = slot.samples.load(Relaxed);
            operator.samples_total = slot.samples_total.load(Relaxed);
            operator.samples_peak = slot.samples_held.peak.load(Relaxed) as u64;
            operator.memory_peak_bytes = slot.memory.peak.load(Relaxed) as u64;
            match slot.stores.load(Relaxed) {
                0 => {}
                1 => operator.name.push_str(" (folded by 1 store)"),
                n => operator.name.push_str(&format!(" (folded by {n} stores)")),
            }
        } else if plan.pushed[id.index()].is_some() {
            operator.name.push_str(" (stores may fold it)");
        }
        operators.push(operator);
        if let Some(parent) = parent {
            operators[parent].children.push(at);
        }
        if !matches!(ast.kind(id), NodeKind::MatrixSelector(_)) {
            let first = todo.len();
            ast.kind(id).for_each_child(|child| todo.push((child, Some(at))));
            todo[first..].reverse();
        }
    }
    Analysis { operators }
}

fn operator_name(plan: &Plan, id: ExprId) -> String {
    let ast: &Ast = &plan.ast;
    let mut name = match ast.kind(id) {
        NodeKind::VectorSelector(_) => format!("[vectorSelector] {}", ast.to_text(id)),
        NodeKind::MatrixSelector(_) => format!("[matrixSelector] {}", ast.to_text(id)),
        NodeKind::Subquery(s) => format!("[subquery] {}", ast.subquery_suffix(s)),
        NodeKind::Call(call) => format!("[function] {}", call.func.name),
        NodeKind::Aggregate(a) => format!("[aggregate] {}", crate::parser::aggregate_text(a).trim_end()),
        NodeKind::Binary(b) => format!("[binary] {}", crate::parser::operator_text(b)),
        NodeKind::Unary { .. } => "[unary] -".to_owned(),
        NodeKind::Number { .. } => format!("[number] {}", ast.to_text(id)),
        NodeKind::String(_) => format!("[string] {}", ast.to_text(id)),
        NodeKind::Paren(_) => "[paren]".to_owned(),
    };
    if plan.once[id.index()] {
        name.push_str(" (once for all steps)");
    }
    let selector = match ast.kind(id) {
        NodeKind::MatrixSelector(m) => m.selector,
        _ => id,
    };
    if let Some(read) = &plan.reads[selector.index()]
        && plan.sources[read.source].uses > 1
    {
        name.push_str(" (read once for several)");
    }
    name
}
