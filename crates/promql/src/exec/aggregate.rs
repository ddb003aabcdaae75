//! Aggregations that fold: each batch is added to the groups' state and forgotten, so that memory is that of the groups.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, Labels};
use hashbrown::HashMap;

use crate::annotations::HistogramOperation;
use crate::exec::batch::label_bytes;
use crate::exec::fold::{BROKEN, FLOAT, Fold, HISTOGRAM, HistogramValue};
use crate::exec::labels::{group_key, group_labels};
use crate::exec::push::Folding;
use crate::exec::{Batch, Exec, Grid, Result, Sink};
use crate::parser::{Aggregate, AggregateOp, ExprId, Span};

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

impl<'a> Exec<'a> {
    /// An aggregation that folds.
    pub(crate) fn aggregate(
        &mut self,
        id: ExprId,
        a: &Aggregate,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        if let Some(out) = self.aggregate_pushed(id, a, grid)? {
            return self.emit(out, sink);
        }
        let quantiles = match a.param {
            Some(param) => self.scalar(self.plan.ast.unwrap_parens(param), grid)?,
            None => Vec::new(),
        };
        let span = self.plan.ast.span(self.plan.ast.unwrap_parens(a.expr));
        let mut folding = Folding::new(self, a, grid);
        let folded = self.fold_input(a, grid, &mut folding);
        self.budget.give_back(folding.kept);
        folded?;
        if let Some(param) = a.param {
            self.warn_of_quantiles(&quantiles, self.plan.ast.span(self.plan.ast.unwrap_parens(param)));
        }
        let order: Vec<usize> = (0..folding.groups.labels.len()).collect();
        let out = self.finish(folding.fold, &folding.groups, &order, &quantiles, grid, span)?;
        drop(folding.held);
        self.emit(out, sink)
    }

    /// Folds the rows of an aggregation's input.
    pub(super) fn fold_input(&mut self, a: &Aggregate, grid: &Grid, folding: &mut Folding) -> Result<()> {
        let input = self.plan.ast.unwrap_parens(a.expr);
        let span = self.plan.ast.span(input);
        self.vector(input, grid, &mut |exec, batch| {
            if a.op == AggregateOp::Quantile {
                // The values of `quantile` are kept; count them.
                let n = batch.weight();
                exec.budget.take(n)?;
                folding.kept += n;
                folding.held.more(n * std::mem::size_of::<f64>() * 2)?;
            }
            for row in batch.rows() {
                let group = folding.group(exec, row.labels, grid)?;
                let Folding { fold, held, .. } = &mut *folding;
                fold.drop_name[group] |= row.drop_name;
                let base = group * grid.count;
                if row.hists.is_none() {
                    fold.add_row(base, &row);
                } else {
                    row.each(|i, v, h| match h {
                        None => fold.add_beside(base + i, v),
                        Some(h) => exec.fold_histogram(fold, base + i, h, row.labels, span),
                    });
                    held.more(std::mem::take(&mut fold.histogram_bytes))?;
                }
            }
            Ok(())
        })
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

    /// The groups' rows, in this order.
    pub(super) fn finish(
        &mut self,
        mut fold: Fold,
        groups: &Groups,
        order: &[usize],
        q: &[f64],
        grid: &Grid,
        span: Span,
    ) -> Result<Batch> {
        let mut out = Batch::new(grid.count);
        for (row, &g) in order.iter().enumerate() {
            self.row_progress(row, &mut out)?;
            let labels = &groups.labels[g];
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
