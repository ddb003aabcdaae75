//! `topk`, `bottomk`, `limitk`, `limit_ratio`: aggregations that keep some of their input's samples as they are.

use std::sync::Arc;

use chronolith_model::{FloatHistogram, Labels};
use hashbrown::HashMap;

use crate::annotations::format_g;
use crate::engine::EngineError;
use crate::exec::aggregate::Groups;
use crate::exec::batch::label_bytes;
use crate::exec::{Batch, Exec, Grid, Result, Sink};
use crate::memory::MemoryUse;
use crate::parser::{Aggregate, AggregateOp, ExprId};

/// Smallest float that does not fit an `i64`.
const TOO_LARGE: f64 = 9_223_372_036_854_774_784.0;
/// Largest float that does not count as fitting an `i64`, as upstream has it.
const TOO_SMALL: f64 = -9_223_372_036_854_775_808.0;

/// A sample that is kept.
#[derive(Clone, Debug)]
struct Kept {
    value: f64,
    histogram: Option<Arc<FloatHistogram>>,
    series: u32,
}

/// Up to k samples; a binary heap with the first to go on top, so laid out that ties fall as upstream.
#[derive(Clone, Debug, Default)]
struct Heap(Vec<Kept>);

impl Heap {
    fn less(&self, bottom: bool, i: usize, j: usize) -> bool {
        let (a, b) = (self.0[i].value, self.0[j].value);
        a.is_nan() || if bottom { a > b } else { a < b }
    }

    fn push(&mut self, kept: Kept, bottom: bool) {
        self.0.push(kept);
        let mut j = self.0.len() - 1;
        while j > 0 {
            let i = (j - 1) / 2;
            if !self.less(bottom, j, i) {
                break;
            }
            self.0.swap(i, j);
            j = i;
        }
    }

    fn replace_top(&mut self, kept: Kept, bottom: bool) {
        self.0[0] = kept;
        let n = self.0.len();
        let mut i = 0;
        loop {
            let left = 2 * i + 1;
            if left >= n {
                break;
            }
            let right = left + 1;
            let j = if right < n && self.less(bottom, right, left) { right } else { left };
            if !self.less(bottom, j, i) {
                break;
            }
            self.0.swap(i, j);
            i = j;
        }
    }

    #[inline(always)]
    fn offer(&mut self, k: usize, value: f64, series: u32, bottom: bool) {
        let kept = Kept { value, histogram: None, series };
        if self.0.len() < k {
            self.push(kept, bottom);
            return;
        }
        let top = self.0[0].value;
        let wins = if bottom { top > value } else { top < value };
        if wins || (top.is_nan() && !value.is_nan()) {
            self.replace_top(kept, bottom);
        }
    }
}

impl<'a> Exec<'a> {
    /// An aggregation that selects.
    pub(crate) fn aggregate_k(
        &mut self,
        id: ExprId,
        a: &Aggregate,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let Some(param) = a.param else { unreachable!("the parser checks for the parameter") };
        let param = self.plan.ast.unwrap_parens(param);
        let params = self.scalar(param, grid)?;
        let selects = self.check_parameter(a.op, &params, param);
        if !matches!(selects, Ok(true)) {
            // Nothing is selected, but the input's errors and annotations stand.
            self.vector(self.plan.ast.unwrap_parens(a.expr), grid, &mut |_, _| Ok(()))?;
            return selects.map(drop);
        }
        if a.op == AggregateOp::LimitRatio {
            return self.limit_ratio(a, &params, grid, sink);
        }
        let ks: Vec<usize> = params.iter().map(|p| p.max(0.0) as usize).collect();
        let bottom = a.op == AggregateOp::Bottomk;
        let limit = a.op == AggregateOp::Limitk;
        let span = self.plan.ast.span(id);
        let mut groups = Groups::new(a);
        let mut heaps: Vec<Heap> = Vec::new();
        let mut series: Vec<(Labels, bool)> = Vec::new();
        let input = self.plan.ast.unwrap_parens(a.expr);
        // The kept samples count against the budget until they are rows.
        let mut kept = 0;
        let mut held = self.held(MemoryUse::Groups);
        let kept_all = self.vector(input, grid, &mut |exec, batch| {
            let (before, seen) = (kept, series.len());
            for row in batch.rows() {
                let known = groups.labels.len();
                let group = groups.of(row.labels);
                let base = group * grid.count;
                if group == known {
                    held.more(groups.group_bytes(group) + grid.count * std::mem::size_of::<Heap>())?;
                }
                heaps.resize_with(groups.labels.len() * grid.count, Heap::default);
                let n = series.len() as u32;
                series.push((row.labels.clone(), row.drop_name));
                row.each(|i, v, h| {
                    let (k, heap) = (ks[i], &mut heaps[base + i]);
                    match h {
                        _ if k == 0 => {}
                        h if limit => {
                            if heap.0.len() < k {
                                kept += 1;
                                heap.0.push(Kept { value: v, histogram: h.cloned(), series: n });
                            }
                        }
                        None => {
                            kept += usize::from(heap.0.len() < k);
                            heap.offer(k, v, n, bottom);
                        }
                        Some(_) => {
                            exec.annotations.histogram_ignored_in_aggregation(a.op.as_str(), span);
                        }
                    }
                });
            }
            let labels: usize = series[seen..].iter().map(|(l, _)| label_bytes(l)).sum();
            // A sample in its heap and, at the end, in the list of its series.
            held.more(labels + (kept - before) * std::mem::size_of::<Kept>() * 2)?;
            if let Err(err) = exec.budget.take(kept - before) {
                kept = before;
                return Err(err);
            }
            Ok(())
        });
        self.budget.give_back(kept);
        kept_all?;
        if !limit {
            for heap in &mut heaps {
                heap.0.sort_by(|x, y| {
                    let by =
                        if bottom { x.value.partial_cmp(&y.value) } else { y.value.partial_cmp(&x.value) };
                    by.unwrap_or_else(|| x.value.is_nan().cmp(&y.value.is_nan()))
                });
            }
        }
        let out = self.selected(&heaps, &series, grid)?;
        drop((heaps, held));
        self.emit(out, sink)
    }

    /// False when the parameter selects nothing at any step.
    fn check_parameter(&mut self, op: AggregateOp, params: &[f64], param: ExprId) -> Result<bool> {
        let fail = |text: String| Err(EngineError::Execution(text));
        let max = params.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let min = params.iter().copied().fold(f64::INFINITY, f64::min);
        let nan = params.iter().any(|p| p.is_nan());
        if op == AggregateOp::LimitRatio {
            if nan {
                return fail("Ratio value is NaN".to_owned());
            }
            let span = self.plan.ast.span(param);
            if max > 1.0 {
                self.annotations.invalid_ratio(max, 1.0, span);
            }
            if min < -1.0 {
                self.annotations.invalid_ratio(min, -1.0, span);
            }
            return Ok(max != 0.0 || min != 0.0);
        }
        if !nan && max < 1.0 {
            return Ok(false);
        }
        if nan {
            return fail("Parameter value is NaN".to_owned());
        }
        if min <= TOO_SMALL {
            return fail(format!("Scalar value {} underflows int64", format_g(min)));
        }
        if max >= TOO_LARGE {
            return fail(format!("Scalar value {} overflows int64", format_g(max)));
        }
        Ok(true)
    }

    fn limit_ratio(&mut self, a: &Aggregate, ratios: &[f64], grid: &Grid, sink: Sink<'_, 'a>) -> Result<()> {
        let input = self.plan.ast.unwrap_parens(a.expr);
        self.vector(input, grid, &mut |exec, batch| {
            let mut out = Batch::new(grid.count);
            for row in batch.rows() {
                let offset = row.labels.length_prefixed_hash() as f64 / u64::MAX as f64;
                let keeps = |r: f64| {
                    let r = r.clamp(-1.0, 1.0);
                    r != 0.0 && if r > 0.0 { offset < r } else { offset >= 1.0 + r }
                };
                out.push(
                    || row.labels.clone(),
                    row.drop_name,
                    |to| (0..grid.count).filter(|i| keeps(ratios[*i])).for_each(|i| to.copy(i, &row)),
                );
            }
            exec.emit(out, sink)
        })
    }

    /// The kept samples as rows, in the order in which the groups and their samples come up first.
    fn selected(&self, heaps: &[Heap], series: &[(Labels, bool)], grid: &Grid) -> Result<Batch> {
        let mut order: Vec<u32> = Vec::new();
        let mut points: HashMap<u32, Vec<(usize, Kept)>> = HashMap::new();
        for (cell, heap) in heaps.iter().enumerate() {
            for kept in &heap.0 {
                let list = points.entry(kept.series).or_insert_with(|| {
                    order.push(kept.series);
                    Vec::new()
                });
                list.push((cell % grid.count, kept.clone()));
            }
        }
        let mut out = Batch::new(grid.count);
        for (r, s) in order.into_iter().enumerate() {
            self.row_progress(r, &mut out)?;
            let (labels, drop_name) = &series[s as usize];
            out.push(
                || labels.clone(),
                *drop_name,
                |row| {
                    for (i, kept) in points.remove(&s).unwrap_or_default() {
                        match kept.histogram {
                            Some(h) => row.set_histogram(i, h),
                            None => row.set(i, kept.value),
                        }
                    }
                },
            );
        }
        Ok(out)
    }
}
