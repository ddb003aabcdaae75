//! Windows put together from parts: where windows overlap a lot, samples are summed up in blocks of 64 once per series, and a
//! window is the blocks inside it with what lies at its two ends.
//!
//! Sums of parts keep their compensation, so that they differ from sums sample by sample in the last bit at most. Short
//! windows are summed sample by sample, as upstream does it.

use super::kahan::{kahan_inc, kahan_mean};
use crate::exec::samples::{Samples, Window};

/// Samples in a block.
const BLOCK: usize = 64;

/// What is known of neighbouring samples.
pub(crate) trait Part: Copy {
    /// Of one or more samples.
    fn of(ts: &[i64], values: &[f64]) -> Self;

    /// Of these samples and those that follow them.
    fn then(self, next: Self) -> Self;
}

/// The blocks of a series.
#[derive(Debug)]
pub(crate) struct Blocks<P>(Vec<P>);

impl<P: Part> Blocks<P> {
    pub(crate) fn new(samples: &Samples) -> Self {
        let blocks = samples.ft.chunks(BLOCK).zip(samples.fv.chunks(BLOCK));
        Blocks(blocks.map(|(ts, values)| P::of(ts, values)).collect())
    }

    /// Of a window's floats, of which there is at least one.
    #[inline]
    pub(crate) fn window(&self, w: &Window<'_>) -> P {
        let (from, to) = (w.first, w.first + w.fv.len());
        let (first, last) = (from.div_ceil(BLOCK), to / BLOCK);
        if first >= last {
            return P::of(w.ft, w.fv);
        }
        let (head, tail) = (first * BLOCK - from, last * BLOCK - from);
        let mut part = self.0[first];
        if head > 0 {
            part = P::of(&w.ft[..head], &w.fv[..head]).then(part);
        }
        for block in &self.0[first + 1..last] {
            part = part.then(*block);
        }
        if tail < w.fv.len() {
            part = part.then(P::of(&w.ft[tail..], &w.fv[tail..]));
        }
        part
    }
}

/// True when blocks save at least half of the work on windows of so many samples, of which there are `windows`.
pub(crate) fn are_worth_it(samples: usize, window: usize, windows: usize) -> bool {
    let with_blocks = samples + windows * (window / BLOCK + BLOCK);
    windows * window > 2 * with_blocks
}

/// A compensated sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    sum: f64,
    c: f64,
}

impl Part for Sum {
    #[inline]
    fn of(_: &[i64], values: &[f64]) -> Self {
        let (mut sum, mut c) = (0.0, 0.0);
        for &v in values {
            (sum, c) = kahan_inc(v, sum, c);
        }
        Sum { sum, c }
    }

    #[inline(always)]
    fn then(self, next: Self) -> Self {
        let (sum, c) = kahan_inc(next.sum, self.sum, self.c);
        Sum { sum, c: c + next.c }
    }
}

impl Sum {
    pub(crate) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.c }
    }

    /// The mean of `values`, whose sum this is.
    pub(crate) fn mean(self, values: &[f64]) -> f64 {
        if self.sum.is_finite() {
            let n = values.len() as f64;
            return self.sum / n + self.c / n;
        }
        // The sum overflowed, or there is an infinity.
        kahan_mean(values)
    }
}

/// The largest value; NaN loses against any number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Max(pub(crate) f64);

impl Part for Max {
    #[inline]
    fn of(_: &[i64], values: &[f64]) -> Self {
        Max(max(values))
    }

    #[inline(always)]
    fn then(self, next: Self) -> Self {
        if next.0 > self.0 || self.0.is_nan() { next } else { self }
    }
}

/// The smallest value; NaN loses against any number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Min(pub(crate) f64);

impl Part for Min {
    #[inline]
    fn of(_: &[i64], values: &[f64]) -> Self {
        Min(min(values))
    }

    #[inline(always)]
    fn then(self, next: Self) -> Self {
        if next.0 < self.0 || self.0.is_nan() { next } else { self }
    }
}

/// The largest value of one or more.
#[inline]
pub(crate) fn max(values: &[f64]) -> f64 {
    extreme(values, |v, best| if v > best { v } else { best })
}

/// The smallest value of one or more.
#[inline]
pub(crate) fn min(values: &[f64]) -> f64 {
    extreme(values, |v, best| if v < best { v } else { best })
}

/// The value that `pick` leaves, which prefers its second argument to NaN.
#[inline(always)]
fn extreme(values: &[f64], pick: impl Fn(f64, f64) -> f64) -> f64 {
    // From the first number on no comparison with NaN is won.
    let Some(&first) = values.iter().find(|v| !v.is_nan()) else { return f64::NAN };
    let mut lanes = [first; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = pick(*v, *lane);
        }
    }
    lanes.iter().chain(rest).fold(first, |best, v| pick(*v, best))
}

/// Count, mean and squared deviations from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variance {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Part for Variance {
    #[inline]
    fn of(_: &[i64], values: &[f64]) -> Self {
        let mean = kahan_mean(values);
        let (mut squares, mut c) = (0.0, 0.0);
        for &v in values {
            let d = v - mean;
            (squares, c) = kahan_inc(d * d, squares, c);
        }
        Variance { count: values.len() as f64, mean, squares: squares + c }
    }

    #[inline(always)]
    fn then(self, next: Self) -> Self {
        let count = self.count + next.count;
        let delta = next.mean - self.mean;
        let share = next.count / count;
        Variance {
            count,
            mean: self.mean + delta * share,
            squares: self.squares + next.squares + delta * delta * self.count * share,
        }
    }
}

impl Variance {
    /// The population variance.
    pub(crate) fn of_population(self) -> f64 {
        self.squares / self.count
    }
}

/// The sums of a linear regression, times in seconds from `origin_ms`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regression {
    origin_ms: i64,
    n: f64,
    /// Sums of x, y, xy and x², each with its compensation.
    sums: [Sum; 4],
    /// The first value, and whether all others are the same.
    first: f64,
    constant: bool,
}

impl Part for Regression {
    #[inline]
    fn of(ts: &[i64], values: &[f64]) -> Self {
        Regression::from(ts, values, ts[0])
    }

    #[inline]
    fn then(self, next: Self) -> Self {
        let next = next.seen_from(self.origin_ms);
        let mut sums = self.sums;
        for (sum, more) in sums.iter_mut().zip(next.sums) {
            *sum = sum.then(more);
        }
        Regression {
            origin_ms: self.origin_ms,
            n: self.n + next.n,
            sums,
            first: self.first,
            constant: self.constant && next.constant && next.first == self.first,
        }
    }
}

impl Regression {
    /// Of one or more samples.
    #[inline]
    pub(crate) fn from(ts: &[i64], values: &[f64], origin_ms: i64) -> Self {
        let mut sums = [Sum { sum: 0.0, c: 0.0 }; 4];
        let first = values[0];
        let mut constant = true;
        for (i, (&t, &y)) in ts.iter().zip(values).enumerate() {
            constant &= i == 0 || y == first;
            let x = (t - origin_ms) as f64 / 1e3;
            for (s, v) in sums.iter_mut().zip([x, y, x * y, x * x]) {
                (s.sum, s.c) = kahan_inc(v, s.sum, s.c);
            }
        }
        Regression { origin_ms, n: values.len() as f64, sums, first, constant }
    }

    /// The same samples with times from another origin.
    pub(crate) fn seen_from(self, origin_ms: i64) -> Self {
        let d = (self.origin_ms - origin_ms) as f64 / 1e3;
        let [x, y, xy, x2] = self.sums;
        let plus = |to: Sum, by: f64, of: Sum| to.then(Sum { sum: by * of.sum, c: by * of.c });
        let count = Sum { sum: self.n, c: 0.0 };
        let sums = [plus(x, d, count), y, plus(xy, d, y), plus(plus(x2, 2.0 * d, x), d * d, count)];
        Regression { origin_ms, sums, ..self }
    }

    /// Slope per second and value at the origin of the least-squares line.
    pub(crate) fn line(self) -> (f64, f64) {
        if self.constant {
            return if self.first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, self.first) };
        }
        let n = self.n;
        let [x, y, xy, x2] = self.sums.map(|s| s.sum + s.c);
        let slope = (xy - x * y / n) / (x2 - x * x / n);
        (slope, y / n - slope * x / n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::kahan::kahan_sum;
    use crate::functions::over_time;

    fn series(f: impl Fn(usize) -> f64) -> Samples {
        Samples {
            ft: (0..1000).map(|i| i * 15_000 + i % 7).collect(),
            fv: (0..1000).map(f).collect(),
            ..Samples::default()
        }
    }

    fn windows(s: &Samples, mut check: impl FnMut(&Window<'_>)) {
        for (from, to) in [(0, 1000), (0, 1), (63, 65), (64, 128), (1, 700), (5, 60), (200, 999), (128, 129)]
        {
            check(&Window {
                ft: &s.ft[from..to],
                fv: &s.fv[from..to],
                fst: &[],
                ht: &[],
                hv: &[],
                hst: &[],
                fc: &[],
                hc: &[],
                first: from,
                start: 0,
                end: 0,
            });
        }
    }

    fn near(a: f64, b: f64) -> bool {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
    }

    #[test]
    fn parts_make_what_samples_make() {
        let odd = |i: usize| match i {
            100 => f64::NAN,
            _ => ((i * 7919) % 1013) as f64 * 1e3 + 0.1,
        };
        for s in [
            series(odd),
            series(|i| ((i * 7919) % 1013) as f64 * if i % 2 == 0 { 1e9 } else { 1e-9 }),
            series(|_| 42.5),
            series(|i| if i == 300 { f64::INFINITY } else { i as f64 }),
            series(|_| f64::NAN),
            series(|_| 1e308),
        ] {
            let sums = Blocks::<Sum>::new(&s);
            let (maxima, minima) = (Blocks::<Max>::new(&s), Blocks::<Min>::new(&s));
            let variances = Blocks::<Variance>::new(&s);
            let regressions = Blocks::<Regression>::new(&s);
            windows(&s, |w| {
                let n = w.fv.len();
                let (a, b) = (sums.window(w).total(), kahan_sum(w.fv));
                assert!(near(a, b), "sum {a} {b} of {n}");
                let (a, b) = (sums.window(w).mean(w.fv), kahan_mean(w.fv));
                assert!(near(a, b), "mean {a} {b} of {n}");
                let (a, b) = (maxima.window(w).0, over_time::best(w, |v, b| v > b).0);
                assert!(near(a, b), "max {a} {b} of {n}");
                let (a, b) = (minima.window(w).0, over_time::best(w, |v, b| v < b).0);
                assert!(near(a, b), "min {a} {b} of {n}");
                if w.fv.iter().all(|v| v.abs() < 1e300) {
                    let (a, b) = (variances.window(w).of_population(), over_time::variance(w.fv));
                    assert!(near(a, b), "variance {a} {b} of {n}");
                    let a = regressions.window(w).seen_from(9_000_000).line();
                    let b = Regression::from(w.ft, w.fv, 9_000_000).line();
                    if n > 2 {
                        assert!(near(a.0, b.0) && near(a.1, b.1), "line {a:?} {b:?} of {n}");
                    }
                }
            });
        }
    }

    #[test]
    fn short_or_few_windows_are_not_worth_it() {
        assert!(!are_worth_it(240, 20, 60));
        assert!(!are_worth_it(40_320, 1_440, 1));
        assert!(are_worth_it(40_320, 1_440, 168));
        assert!(are_worth_it(5_760, 5_760, 1_000));
    }
}
