//! The state of an aggregation that folds: a cell for each group and step.

use chronolith_model::FloatHistogram;
use chronolith_model::histogram::CounterReset;
use hashbrown::HashMap;

use crate::exec::batch::{Row, each_run, histogram_weight};
use crate::functions::kahan::kahan_inc;
use crate::functions::native::Mean;
use crate::functions::quantile::quantile;
use crate::parser::AggregateOp;

/// A float was seen.
pub(super) const FLOAT: u8 = 1;
/// A histogram was seen.
pub(super) const HISTOGRAM: u8 = 2;
/// `value` is an incremental mean.
pub(super) const INCREMENTAL: u8 = 4;
/// Histograms that do not go together were seen: no result.
pub(super) const BROKEN: u8 = 8;

/// State of all groups, by group and step.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) op: AggregateOp,
    steps: usize,
    pub(super) flags: Vec<u8>,
    /// Sum, extreme, or squared deviations.
    value: Vec<f64>,
    /// Compensation of the sum, or the mean of the deviations.
    second: Vec<f64>,
    count: Vec<f64>,
    /// Values of `quantile`.
    sets: Vec<Vec<f64>>,
    /// Only where histograms were seen.
    pub(super) histograms: HashMap<usize, HistogramState>,
    /// Memory of histograms that is not held yet.
    pub(super) histogram_bytes: usize,
    pub(super) drop_name: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct HistogramState {
    pub(super) value: HistogramValue,
    pub(super) reset: bool,
    pub(super) not_reset: bool,
}

#[derive(Debug)]
pub(super) enum HistogramValue {
    Sum(Box<(FloatHistogram, Option<FloatHistogram>)>),
    Mean(Box<Mean>),
}

/// The lesser one; `v` where there is no number yet.
#[inline(always)]
fn least(v: f64, best: f64) -> f64 {
    if best > v || best.is_nan() { v } else { best }
}

/// The greater one; `v` where there is no number yet.
#[inline(always)]
fn greatest(v: f64, best: f64) -> f64 {
    if best < v || best.is_nan() { v } else { best }
}

impl Fold {
    pub(super) fn new(op: AggregateOp, steps: usize) -> Self {
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
    pub(super) fn cell_bytes(&self) -> usize {
        use AggregateOp::{Avg, Count, Quantile, Stddev, Stdvar, Sum};
        let second = matches!(self.op, Sum | Avg | Stddev | Stdvar);
        let count = matches!(self.op, Avg | Count | Stddev | Stdvar);
        let set = if self.op == Quantile { std::mem::size_of::<Vec<f64>>() } else { 0 };
        1 + 8 * (1 + usize::from(second) + usize::from(count)) + set
    }

    pub(super) fn grow(&mut self, groups: usize) {
        use AggregateOp::{Avg, Count, Quantile, Stddev, Stdvar, Sum};
        let cells = groups * self.steps;
        self.flags.resize(cells, 0);
        self.drop_name.resize(groups, false);
        // Any number is better than none.
        let nothing = if matches!(self.op, AggregateOp::Min | AggregateOp::Max) { f64::NAN } else { 0.0 };
        self.value.resize(cells, nothing);
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

    /// Adds the points of a row of floats to the cells from `base` on. What is frequent is added many steps at a time.
    pub(super) fn add_row(&mut self, base: usize, row: &Row<'_>) {
        each_run(row.present, |from, to| self.add_run(base + from, &row.values[from..to]));
    }

    fn add_run(&mut self, base: usize, values: &[f64]) {
        use AggregateOp::{Avg, Count, Group, Max, Min, Sum};
        let cells = base..base + values.len();
        let means = self.op == Avg && {
            let kept = self.value[cells.clone()].iter().zip(values);
            let overflows = kept.fold(false, |any, (sum, v)| any | (sum + v).is_infinite());
            !overflows && self.flags[cells.clone()].iter().all(|f| f & (FLOAT | INCREMENTAL) == FLOAT)
        };
        let value = &mut self.value[cells.clone()];
        match self.op {
            Sum | Avg if self.op == Sum || means => {
                let cells_of_sums = value.iter_mut().zip(&mut self.second[cells.clone()]);
                for ((sum, c), v) in cells_of_sums.zip(values) {
                    (*sum, *c) = kahan_inc(*v, *sum, *c);
                }
                if means {
                    self.count[cells.clone()].iter_mut().for_each(|n| *n += 1.0);
                }
            }
            Count => self.count[cells.clone()].iter_mut().for_each(|n| *n += 1.0),
            Group => value.fill(1.0),
            Min => value.iter_mut().zip(values).for_each(|(best, v)| *best = least(*v, *best)),
            Max => value.iter_mut().zip(values).for_each(|(best, v)| *best = greatest(*v, *best)),
            _ => {
                for (cell, v) in cells.zip(values) {
                    self.add(cell, *v);
                }
                return;
            }
        }
        self.flags[cells].iter_mut().for_each(|f| *f |= FLOAT);
    }

    /// Adds a float to a cell.
    #[inline(always)]
    pub(super) fn add(&mut self, cell: usize, v: f64) {
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
            Min => self.value[cell] = least(v, self.value[cell]),
            Max => self.value[cell] = greatest(v, self.value[cell]),
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
    pub(super) fn add_histogram(&mut self, cell: usize, h: &FloatHistogram) -> std::result::Result<bool, ()> {
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

    pub(super) fn float(&mut self, cell: usize, q: f64) -> f64 {
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

    /// Adds what another fold of other series has in the same cell; false where the order of the series decides between the two.
    pub(super) fn combine(&mut self, cell: usize, v: f64) -> bool {
        use AggregateOp::{Count, Group, Max, Min};
        let first = self.flags[cell] & FLOAT == 0;
        let mine = self.value[cell];
        match self.op {
            Count => self.count[cell] += v,
            Group => self.value[cell] = 1.0,
            Min | Max if first => self.value[cell] = v,
            Min | Max if mine == v || mine.is_nan() && v.is_nan() => return mine.to_bits() == v.to_bits(),
            Min => self.value[cell] = least(v, mine),
            Max => self.value[cell] = greatest(v, mine),
            _ => return false,
        }
        self.flags[cell] |= FLOAT;
        true
    }

    /// Adds a float of a series that also has histograms.
    pub(super) fn add_beside(&mut self, cell: usize, v: f64) {
        if self.flags[cell] & BROKEN == 0 {
            self.add(cell, v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Batch;
    use chronolith_model::Labels;

    #[test]
    fn rows_add_up_to_what_their_points_do() {
        use AggregateOp::*;
        let mut r = 7_u64;
        let mut random = move |below: u64| {
            r = r.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (r >> 33) % below
        };
        let steps = 200;
        let mut batch = Batch::new(steps);
        for series in 0..40 {
            batch.push(Labels::empty, false, |row| {
                for i in 0..steps {
                    match random(60) {
                        0 if series > 2 => row.set(i, f64::NAN),
                        1 if series > 20 => row.set(i, f64::INFINITY),
                        2 if series > 10 => row.set(i, 1.7e308),
                        3 => {}
                        4 => row.set(i, -0.0),
                        _ => row.set(i, random(1 << 40) as f64 / 7.0 - 1e10),
                    }
                }
            });
        }
        for op in [Sum, Avg, Count, Group, Min, Max, Stddev, Quantile] {
            let (mut by_row, mut by_point) = (Fold::new(op, steps), Fold::new(op, steps));
            by_row.grow(2);
            by_point.grow(2);
            for row in batch.rows() {
                by_row.add_row(steps, &row);
                row.each(|i, v, _| by_point.add(steps + i, v));
            }
            assert_eq!(by_row.flags, by_point.flags, "{op:?}");
            for cell in 0..2 * steps {
                let (a, b) = (by_row.float(cell, 0.3), by_point.float(cell, 0.3));
                assert_eq!(a.to_bits(), b.to_bits(), "{op:?} {cell}");
            }
        }
    }

    #[test]
    fn parts_combine_to_the_whole_or_say_that_they_do_not() {
        use AggregateOp::*;
        let other_nan = f64::from_bits(f64::NAN.to_bits() | 7);
        let values = [0.0, -0.0, f64::NAN, other_nan, 1.0, -1.0, f64::INFINITY];
        let folded = |op, values: &[f64]| {
            let mut fold = Fold::new(op, 1);
            fold.grow(1);
            values.iter().for_each(|v| fold.add(0, *v));
            fold
        };
        let mut unclear = 0;
        for op in [Count, Group, Min, Max] {
            for code in 0..7_usize.pow(4) {
                let all: [f64; 4] = std::array::from_fn(|i| values[code / 7_usize.pow(i as u32) % 7]);
                let whole = folded(op, &all).float(0, 0.0);
                // The parts' series may come in any order among each other.
                for part in [[0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 0, 2]] {
                    let mut sorted = part;
                    sorted[..2].sort_unstable();
                    sorted[2..].sort_unstable();
                    let mut one = folded(op, &[all[sorted[0]], all[sorted[1]]]);
                    let two = folded(op, &[all[sorted[2]], all[sorted[3]]]).float(0, 0.0);
                    if one.combine(0, two) {
                        assert_eq!(one.float(0, 0.0).to_bits(), whole.to_bits(), "{op:?} {all:?} {part:?}");
                    } else {
                        unclear += 1;
                        assert!(
                            matches!(op, Min | Max) && (whole == 0.0 || whole.is_nan()),
                            "{op:?} {all:?}"
                        );
                    }
                }
            }
        }
        assert!(unclear > 0);
        let mut first = Fold::new(Min, 1);
        first.grow(1);
        assert!(first.combine(0, f64::NAN));
        assert_eq!((first.float(0, 0.0).to_bits(), first.flags[0]), (f64::NAN.to_bits(), FLOAT));
    }
}
