//! Aggregations that fold: each batch is added to the groups' state and forgotten, so that memory is that of the groups.

use std::sync::Arc;

use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, Labels};
use hashbrown::HashMap;

use crate::annotations::HistogramOperation;
use crate::exec::batch::{histogram_weight, label_bytes};
use crate::exec::labels::{group_key, group_labels};
use crate::exec::{Batch, Exec, Grid, Result, Sink};
use crate::functions::kahan::kahan_inc;
use crate::functions::native::Mean;
use crate::functions::quantile::quantile;
use crate::memory::MemoryUse;
use crate::parser::{Aggregate, AggregateOp, Span};

/// Groups by their labels.
#[derive(Debug)]
pub(crate) struct Groups {
    names: Vec<String>,
    without: bool,
    index: HashMap<Box<[u8]>, usize>,
    key: Vec<u8>,
    pub(crate) labels: Vec<Labels>,
}

impl Groups {
    pub(crate) fn new(a: &Aggregate) -> Self {
        let mut names = a.grouping.clone();
        names.sort_unstable();
        names.dedup();
        Groups { names, without: a.without, index: HashMap::new(), key: Vec::new(), labels: Vec::new() }
    }

    /// The group of a series; a new one has the highest index so far.
    pub(crate) fn of(&mut self, labels: &Labels) -> usize {
        if !self.without && self.names.is_empty() {
            if self.labels.is_empty() {
                self.labels.push(Labels::empty());
            }
            return 0;
        }
        group_key(labels, &self.names, self.without, &mut self.key);
        if let Some(&group) = self.index.get(self.key.as_slice()) {
            return group;
        }
        self.index.insert(self.key.clone().into_boxed_slice(), self.labels.len());
        self.labels.push(group_labels(labels, &self.names, self.without));
        self.labels.len() - 1
    }

    /// Bytes of a group: its labels, its key and its entry.
    pub(crate) fn group_bytes(&self, group: usize) -> usize {
        label_bytes(&self.labels[group]) * 2 + ENTRY_BYTES
    }
}

/// A group's entry in the index.
const ENTRY_BYTES: usize = 48;

/// A float was seen.
const FLOAT: u8 = 1;
/// A histogram was seen.
const HISTOGRAM: u8 = 2;
/// `value` is an incremental mean.
const INCREMENTAL: u8 = 4;
/// Histograms that do not go together were seen: no result.
const BROKEN: u8 = 8;

/// State of all groups, by group and step.
#[derive(Debug)]
struct Fold {
    op: AggregateOp,
    steps: usize,
    flags: Vec<u8>,
    /// Sum, extreme, or squared deviations.
    value: Vec<f64>,
    /// Compensation of the sum, or the mean of the deviations.
    second: Vec<f64>,
    count: Vec<f64>,
    /// Values of `quantile`.
    sets: Vec<Vec<f64>>,
    /// Only where histograms were seen.
    histograms: HashMap<usize, HistogramState>,
    /// Memory of histograms that is not held yet.
    histogram_bytes: usize,
    drop_name: Vec<bool>,
}

#[derive(Debug)]
struct HistogramState {
    value: HistogramValue,
    reset: bool,
    not_reset: bool,
}

#[derive(Debug)]
enum HistogramValue {
    Sum(Box<(FloatHistogram, Option<FloatHistogram>)>),
    Mean(Box<Mean>),
}

impl Fold {
    fn new(op: AggregateOp, steps: usize) -> Self {
        Fold {
            op,
            steps,
            flags: Vec::new(),
            value: Vec::new(),
            second: Vec::new(),
            count: Vec::new(),
            sets: Vec::new(),
            histograms: HashMap::new(),
            histogram_bytes: 0,
            drop_name: Vec::new(),
        }
    }

    /// Bytes of a cell, what [`Fold::grow`] makes.
    fn cell_bytes(&self) -> usize {
        use AggregateOp::{Avg, Count, Quantile, Stddev, Stdvar, Sum};
        let second = matches!(self.op, Sum | Avg | Stddev | Stdvar);
        let count = matches!(self.op, Avg | Count | Stddev | Stdvar);
        let set = if self.op == Quantile { std::mem::size_of::<Vec<f64>>() } else { 0 };
        1 + 8 * (1 + usize::from(second) + usize::from(count)) + set
    }

    fn grow(&mut self, groups: usize) {
        use AggregateOp::{Avg, Count, Quantile, Stddev, Stdvar, Sum};
        let cells = groups * self.steps;
        self.flags.resize(cells, 0);
        self.drop_name.resize(groups, false);
        self.value.resize(cells, 0.0);
        if matches!(self.op, Sum | Avg | Stddev | Stdvar) {
            self.second.resize(cells, 0.0);
        }
        if matches!(self.op, Avg | Count | Stddev | Stdvar) {
            self.count.resize(cells, 0.0);
        }
        if self.op == Quantile {
            self.sets.resize_with(cells, Vec::new);
        }
    }

    /// Adds a float to a cell.
    #[inline(always)]
    fn add(&mut self, cell: usize, v: f64) {
        use AggregateOp::*;
        let first = self.flags[cell] & FLOAT == 0;
        self.flags[cell] |= FLOAT;
        match self.op {
            Sum => {
                (self.value[cell], self.second[cell]) = kahan_inc(v, self.value[cell], self.second[cell]);
            }
            Avg => self.add_to_mean(cell, v, first),
            Count => self.count[cell] += 1.0,
            Group => self.value[cell] = 1.0,
            Min if first || self.value[cell] > v || self.value[cell].is_nan() => self.value[cell] = v,
            Max if first || self.value[cell] < v || self.value[cell].is_nan() => self.value[cell] = v,
            Min | Max => {}
            Stddev | Stdvar => {
                self.count[cell] += 1.0;
                if first {
                    self.second[cell] = v;
                    self.value[cell] = if v.is_finite() { 0.0 } else { f64::NAN };
                } else {
                    let delta = v - self.second[cell];
                    self.second[cell] += delta / self.count[cell];
                    self.value[cell] += delta * (v - self.second[cell]);
                }
            }
            Quantile => self.sets[cell].push(v),
            Topk | Bottomk | CountValues | Limitk | LimitRatio => unreachable!("operators of their own"),
        }
    }

    #[inline(always)]
    fn add_to_mean(&mut self, cell: usize, v: f64, first: bool) {
        self.count[cell] += 1.0;
        if first {
            self.value[cell] = v;
            return;
        }
        let count = self.count[cell];
        if self.flags[cell] & INCREMENTAL == 0 {
            let (sum, c) = kahan_inc(v, self.value[cell], self.second[cell]);
            if !sum.is_infinite() {
                (self.value[cell], self.second[cell]) = (sum, c);
                return;
            }
            self.flags[cell] |= INCREMENTAL;
            self.value[cell] /= count - 1.0;
            self.second[cell] /= count - 1.0;
        }
        let q = (count - 1.0) / count;
        (self.value[cell], self.second[cell]) =
            kahan_inc(v / count, q * self.value[cell], q * self.second[cell]);
    }

    /// Adds a histogram to a cell of `sum` or `avg`; `Err` when it does not go with those before, `Ok(true)` when
    /// custom bounds differed.
    fn add_histogram(&mut self, cell: usize, h: &FloatHistogram) -> std::result::Result<bool, ()> {
        self.flags[cell] |= HISTOGRAM;
        let state = match self.histograms.get_mut(&cell) {
            None => {
                // The state, and as much again for the compensation.
                self.histogram_bytes += histogram_weight(h) * 32 + std::mem::size_of::<HistogramState>();
                let value = if self.op == AggregateOp::Sum {
                    HistogramValue::Sum(Box::new((h.clone(), None)))
                } else {
                    HistogramValue::Mean(Box::new(Mean::new(h)))
                };
                let state = HistogramState { value, reset: false, not_reset: false };
                let state = self.histograms.entry(cell).or_insert(state);
                state.reset = h.counter_reset == CounterReset::Reset;
                state.not_reset = h.counter_reset == CounterReset::NotReset;
                return Ok(false);
            }
            Some(state) => state,
        };
        state.reset |= h.counter_reset == CounterReset::Reset;
        state.not_reset |= h.counter_reset == CounterReset::NotReset;
        let reconciled = match &mut state.value {
            HistogramValue::Sum(parts) => {
                let (sum, c) = &mut **parts;
                sum.kahan_add(h, c).map(|n| n.custom_bounds_reconciled)
            }
            HistogramValue::Mean(mean) => mean.add(h).map(|()| mean.reconciled),
        };
        reconciled.map_err(|_| self.flags[cell] |= BROKEN)
    }

    fn float(&mut self, cell: usize, q: f64) -> f64 {
        use AggregateOp::*;
        match self.op {
            Sum => self.value[cell] + self.second[cell],
            Avg if self.flags[cell] & INCREMENTAL != 0 => self.value[cell] + self.second[cell],
            Avg => self.value[cell] / self.count[cell] + self.second[cell] / self.count[cell],
            Count => self.count[cell],
            Stdvar => self.value[cell] / self.count[cell],
            Stddev => (self.value[cell] / self.count[cell]).sqrt(),
            Quantile => quantile(q, &mut self.sets[cell]),
            _ => self.value[cell],
        }
    }
}

impl<'a> Exec<'a> {
    /// An aggregation that folds.
    pub(crate) fn aggregate(&mut self, a: &Aggregate, grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let quantiles = match a.param {
            Some(param) => self.scalar(self.plan.ast.unwrap_parens(param), grid)?,
            None => Vec::new(),
        };
        let input = self.plan.ast.unwrap_parens(a.expr);
        let span = self.plan.ast.span(input);
        let mut groups = Groups::new(a);
        let mut fold = Fold::new(a.op, grid.count);
        // The values of `quantile` are kept; count them.
        let mut kept = 0;
        let mut held = self.held(MemoryUse::Groups);
        let folded = self.vector(input, grid, &mut |exec, batch| {
            if a.op == AggregateOp::Quantile {
                let n = batch.weight();
                exec.budget.take(n)?;
                kept += n;
                held.more(n * std::mem::size_of::<f64>() * 2)?;
            }
            for row in batch.rows() {
                let group = groups.of(row.labels);
                let before = fold.drop_name.len();
                if group >= before {
                    exec.budget.take(grid.count)?;
                    kept += grid.count;
                    held.more(groups.group_bytes(group) + grid.count * fold.cell_bytes())?;
                    fold.grow(groups.labels.len());
                }
                fold.drop_name[group] |= row.drop_name;
                let base = group * grid.count;
                if row.hists.is_none() {
                    row.each(|i, v, _| fold.add(base + i, v));
                } else {
                    row.each(|i, v, h| match h {
                        None => fold.add_beside(base + i, v),
                        Some(h) => exec.fold_histogram(&mut fold, base + i, h, row.labels, span),
                    });
                    held.more(std::mem::take(&mut fold.histogram_bytes))?;
                }
            }
            Ok(())
        });
        self.budget.give_back(kept);
        folded?;
        if let Some(param) = a.param {
            self.warn_of_quantiles(&quantiles, self.plan.ast.span(self.plan.ast.unwrap_parens(param)));
        }
        let out = self.finish(fold, &groups, &quantiles, grid, span)?;
        drop(held);
        self.emit(out, sink)
    }

    fn fold_histogram(
        &mut self,
        fold: &mut Fold,
        cell: usize,
        h: &FloatHistogram,
        labels: &Labels,
        span: Span,
    ) {
        use AggregateOp::*;
        match fold.op {
            Sum | Avg => {
                if fold.flags[cell] & BROKEN != 0 {
                    return;
                }
                match fold.add_histogram(cell, h) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.annotations.mismatched_custom_buckets(HistogramOperation::Aggregation, span)
                    }
                    Err(()) => self
                        .annotations
                        .mixed_exponential_custom(labels.metric_name().unwrap_or_default(), span),
                }
            }
            Count | Group => fold.add(cell, 0.0),
            _ => self.annotations.histogram_ignored_in_aggregation(fold.op.as_str(), span),
        }
    }

    /// The warnings about the parameter of `quantile`. They come after those of the input: of equal texts the last one's
    /// position is shown, and that is the outer one's.
    fn warn_of_quantiles(&mut self, q: &[f64], span: Span) {
        if q.iter().any(|v| v.is_nan()) {
            self.annotations.invalid_quantile(f64::NAN, span);
        }
        let max = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = q.iter().copied().fold(f64::INFINITY, f64::min);
        if max > 1.0 {
            self.annotations.invalid_quantile(max, span);
        }
        if min < 0.0 {
            self.annotations.invalid_quantile(min, span);
        }
    }

    fn finish(
        &mut self,
        mut fold: Fold,
        groups: &Groups,
        q: &[f64],
        grid: &Grid,
        span: Span,
    ) -> Result<Batch> {
        let mut out = Batch::new(grid.count);
        for (g, labels) in groups.labels.iter().enumerate() {
            self.row_progress(g, &mut out)?;
            let drop_name = fold.drop_name[g];
            out.push(
                || labels.clone(),
                drop_name,
                |row| {
                    for i in 0..grid.count {
                        let cell = g * grid.count + i;
                        let flags = fold.flags[cell];
                        if flags & FLOAT != 0 && flags & HISTOGRAM != 0 {
                            self.annotations.mixed_floats_histograms_aggregation(span);
                        } else if flags & HISTOGRAM != 0 {
                            if let Some(h) = self.finish_histogram(&mut fold, cell, span) {
                                row.set_histogram(i, h);
                            }
                        } else if flags & FLOAT != 0 {
                            let q = q.get(i).copied().unwrap_or_default();
                            row.set(i, fold.float(cell, q));
                        }
                    }
                },
            );
        }
        Ok(out)
    }

    fn finish_histogram(&mut self, fold: &mut Fold, cell: usize, span: Span) -> Option<Arc<FloatHistogram>> {
        let state = fold.histograms.remove(&cell)?;
        if fold.flags[cell] & BROKEN != 0 {
            return None;
        }
        if state.reset && state.not_reset {
            self.annotations.counter_reset_collision(HistogramOperation::Aggregation, span);
        }
        let mut value = match state.value {
            HistogramValue::Mean(mean) => mean.finish(),
            HistogramValue::Sum(parts) => {
                let (mut sum, compensation) = *parts;
                if let Some(c) = compensation {
                    // Both have the same kind of buckets, so this cannot fail.
                    let _ = sum.add(&c);
                }
                sum
            }
        };
        value.compact(0);
        Some(Arc::new(value))
    }
}

impl Fold {
    /// Adds a float of a series that also has histograms.
    fn add_beside(&mut self, cell: usize, v: f64) {
        if self.flags[cell] & BROKEN == 0 {
            self.add(cell, v);
        }
    }
}
