//! `rate`, `increase` and `delta` of floats, for series that were sampled at the same times.
//!
//! Which samples a window holds, and how much of the window they cover, depends on the times alone, and series of one
//! target have the same ones: what follows from them is worked out once, in a [`Schedule`], and kept for the series that
//! come after. What is left for each series and step are its first and last value, the resets between them and a
//! multiplication. The numbers are those of `rate::extrapolated`, to the bit.

use crate::exec::Grid;
use crate::exec::batch::RowMut;
use crate::exec::counts::WindowTotals;
use crate::exec::samples::{Samples, Windows, advance};
use crate::functions::rate::{RateKind, Resets, Span};

/// What the times of a series say about all windows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// The times that this is about.
    times: Vec<i64>,
    /// By step; zeros where the window has no value.
    windows: Vec<Extent>,
    /// A bit for each step whose window has a value.
    present: Vec<u64>,
    totals: WindowTotals,
    made: bool,
}

/// A window's samples, and what they cover.
#[derive(Clone, Copy, Debug, Default)]
struct Extent {
    /// Index of the first sample.
    first: u32,
    /// Index of the last sample.
    last: u32,
    /// Seconds from the first to the last.
    sampled: f64,
    /// Seconds by which the window reaches out to the left, where the counter was not zero before.
    to_start: f64,
    /// What the change is multiplied with if it is so.
    factor: f64,
    start: i64,
    end: i64,
}

/// So much must a counter's zero lie before the window's reach for a product to tell it without a division.
const SURELY: f64 = 1.0 + 1e-6;
/// Products below may have lost their last bits.
const SURE_FROM: f64 = 1e-280;

impl Schedule {
    /// Makes this the schedule of `samples`, unless it is that already. The windows, the grid and the function are always
    /// the same.
    pub(crate) fn follow(
        &mut self,
        samples: &Samples,
        windows: &Windows,
        grid: &Grid,
        kind: RateKind,
        stored: bool,
    ) {
        if self.made && self.times == samples.ft {
            return;
        }
        self.made = true;
        self.times.clone_from(&samples.ft);
        self.windows.clear();
        self.windows.resize(grid.count, Extent::default());
        self.present.clear();
        self.present.resize(grid.count.div_ceil(64), 0);
        self.totals = WindowTotals::default();
        let fixed = windows.at.is_some();
        let (mut lo, mut hi) = (0, 0);
        for step in 0..grid.count {
            let end = windows.end(grid, step);
            let start = end - windows.range_ms;
            let seen = hi;
            hi = advance(&self.times, hi, end);
            lo = advance(&self.times, lo, start);
            if lo == hi {
                continue;
            }
            let new = if stored && !(fixed && step > 0) { hi - lo.max(seen).min(hi) } else { 0 };
            self.totals.add(hi - lo, new);
            if hi - lo < 2 {
                continue;
            }
            let span = Span {
                first_t: self.times[lo],
                last_t: self.times[hi - 1],
                gaps: hi - lo - 1,
                range_start: start,
                range_end: end,
                first_st: 0,
            };
            self.windows[step] = Extent {
                first: lo as u32,
                last: (hi - 1) as u32,
                sampled: span.sampled_s(),
                to_start: span.reach_to_start_s(),
                factor: span.factor(kind, windows.range_ms, |_| None),
                start,
                end,
            };
            self.present[step / 64] |= 1 << (step % 64);
        }
    }

    /// What the windows of a series count for.
    pub(crate) fn totals(&self) -> WindowTotals {
        self.totals
    }

    /// Writes the row of the series that the schedule was made for. True when it has a point.
    pub(crate) fn write(
        &self,
        samples: &Samples,
        resets: &mut Resets,
        kind: RateKind,
        range_ms: i64,
        row: &mut RowMut<'_>,
    ) -> bool {
        let values = row.fill(&self.present);
        let v = samples.fv.as_slice();
        let calm = !kind.is_counter || resets.is_empty();
        for (to, w) in values.iter_mut().zip(&self.windows) {
            let (Some(&first), Some(&last)) = (v.get(w.first as usize), v.get(w.last as usize)) else {
                continue;
            };
            let mut change = last - first;
            if !calm {
                change = resets.add_to(change, v, w.first as usize, w.last as usize);
            }
            let mut factor = w.factor;
            if kind.is_counter && change > 0.0 && first >= 0.0 {
                // A counter is not extrapolated to below zero: had it been zero inside the window's reach?
                let before = first * w.sampled;
                let surely_not = before > w.to_start * change * SURELY && before > SURE_FROM;
                if !surely_not && w.last > w.first {
                    factor = self.factor_to_zero(w, kind, range_ms, first, change);
                }
            }
            *to = change * factor;
        }
        self.present.iter().any(|w| *w != 0)
    }

    #[cold]
    fn factor_to_zero(&self, w: &Extent, kind: RateKind, range_ms: i64, first: f64, change: f64) -> f64 {
        let span = Span {
            first_t: self.times[w.first as usize],
            last_t: self.times[w.last as usize],
            gaps: (w.last - w.first) as usize,
            range_start: w.start,
            range_end: w.end,
            first_st: 0,
        };
        span.factor(kind, range_ms, |sampled| Some(sampled * (first / change)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Batch;
    use crate::exec::samples::Window;
    use crate::functions::rate;
    use chronolith_model::Labels;

    /// Series with resets, zeros, gaps, negative and odd values.
    fn series(n: usize, seed: u64) -> Samples {
        let mut r = seed;
        let mut random = move |below: u64| {
            r = r.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (r >> 33) % below
        };
        let mut s = Samples::default();
        let (mut t, mut v) = (1_000_000, if seed.is_multiple_of(3) { 0.0 } else { random(1000) as f64 });
        for _ in 0..n {
            t += if random(15) == 0 { 900_000 } else { 15_000 + random(40) as i64 };
            v = match random(40) {
                0 => 0.0,
                1 if seed.is_multiple_of(5) => f64::NAN,
                2 if seed.is_multiple_of(7) => -3.0,
                3 if seed.is_multiple_of(11) => f64::INFINITY,
                4 if seed.is_multiple_of(13) => 1e-310,
                _ => v + random(100) as f64 / 8.0,
            };
            s.ft.push(t);
            s.fv.push(v);
        }
        s
    }

    #[test]
    fn rows_are_those_of_single_windows_to_the_bit() {
        let grid = Grid::new(1_000_000, 4_600_000, 17_000);
        for seed in 1..80_u64 {
            let at = (seed.is_multiple_of(10)).then_some(3_000_000);
            let windows = Windows { range_ms: 300_000, offset_ms: 7, at, before_ms: 0, after_ms: 0 };
            let (mut schedule, mut resets) = (Schedule::default(), Resets::default());
            for n in [0, 1, 2, 200] {
                let s = series(n, seed);
                for is_counter in [true, false] {
                    let kind = RateKind { is_counter, is_rate: seed.is_multiple_of(2) };
                    schedule.made = false;
                    schedule.follow(&s, &windows, &grid, kind, true);
                    resets.find(&s, is_counter);
                    let mut batch = Batch::new(grid.count);
                    let mut any = false;
                    batch.push(Labels::empty, false, |row| {
                        any = schedule.write(&s, &mut resets, kind, 300_000, row);
                    });
                    let mut want = Vec::new();
                    for step in 0..grid.count {
                        let end = windows.end(&grid, step);
                        let start = end - 300_000;
                        let (lo, hi) = (advance(&s.ft, 0, start), advance(&s.ft, 0, end));
                        if lo == hi {
                            continue;
                        }
                        let w = Window {
                            ft: &s.ft[lo..hi],
                            fv: &s.fv[lo..hi],
                            fst: &[],
                            ht: &[],
                            hv: &[],
                            hst: &[],
                            fc: &[],
                            hc: &[],
                            first: lo,
                            start,
                            end,
                        };
                        let mut resets = Resets::default();
                        resets.find(&s, is_counter);
                        if let Some(v) = rate::extrapolated(&w, &mut resets, &s, kind, 300_000) {
                            want.push((step, v.to_bits()));
                        }
                    }
                    assert_eq!(any, !want.is_empty());
                    let mut got = Vec::new();
                    if any {
                        batch.row(0).each(|i, v, _| got.push((i, v.to_bits())));
                    }
                    assert_eq!(got, want, "seed {seed}, {n} samples, {kind:?}");
                }
            }
        }
    }
}
