//! `rate`, `increase`, `delta`: the change over a range, extrapolated to its edges; `irate`, `idelta`: the change between
//! the last two samples. Floats only; histograms are in `native_rate`.

use crate::exec::samples::{Samples, Window};

/// Which of the three.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateKind {
    /// Decreases are resets.
    pub(crate) is_counter: bool,
    /// Per second.
    pub(crate) is_rate: bool,
}

/// What is known of a whole series before its windows are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resets {
    /// Indices of floats before which the counter was reset.
    at: Vec<usize>,
    /// Indices of floats whose start timestamp overlaps with the sample before.
    overlaps: Vec<usize>,
    /// The first of `at` that may be inside the current window.
    cursor: usize,
}

impl Resets {
    /// Looks a series through.
    pub(crate) fn find(&mut self, samples: &Samples, is_counter: bool) {
        self.at.clear();
        self.overlaps.clear();
        self.cursor = 0;
        if !is_counter {
            return;
        }
        let v = &samples.fv;
        if samples.fst.is_empty() {
            // Most have none, which is seen many values at a time.
            if v.windows(2).fold(false, |any, pair| any | (pair[1] < pair[0])) {
                self.at.extend((1..v.len()).filter(|&i| v[i] < v[i - 1]));
            }
            return;
        }
        let (t, st) = (&samples.ft, &samples.fst);
        for i in 1..v.len() {
            if v[i] < v[i - 1] || is_start_reset(st[i - 1], t[i - 1], st[i], t[i]) {
                self.at.push(i);
            }
            if starts_overlap(st[i - 1], t[i - 1], st[i]) {
                self.overlaps.push(i);
            }
        }
    }

    /// True when the counter was never reset.
    pub(crate) fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// A change from the value at `first` to that at `last`, with what was lost in resets between them. Windows must be
    /// asked for in their order.
    #[inline]
    pub(crate) fn add_to(&mut self, mut change: f64, values: &[f64], first: usize, last: usize) -> f64 {
        while self.cursor < self.at.len() && self.at[self.cursor] <= first {
            self.cursor += 1;
        }
        for &i in &self.at[self.cursor..] {
            if i > last {
                break;
            }
            change += values[i - 1];
        }
        change
    }

    /// True when two samples of the window overlap.
    pub(crate) fn overlap_in(&self, w: &Window<'_>) -> bool {
        self.overlaps.iter().any(|&i| i > w.first && i < w.first + w.fv.len())
    }
}

/// True when a counter started anew between two samples, by their start timestamps.
pub(crate) fn is_start_reset(previous_st: i64, previous_t: i64, st: i64, t: i64) -> bool {
    if st == 0 || st >= t || st < previous_t {
        return false;
    }
    // A start at the very time of the sample before is a delta, unless that sample's own start is unknown.
    st > previous_t || (previous_st != 0 && previous_st < previous_t)
}

/// True when a sample says that it started before the sample before it was taken.
pub(crate) fn starts_overlap(previous_st: i64, previous_t: i64, st: i64) -> bool {
    st != 0 && st < previous_t && st != previous_st
}

/// The times that an extrapolation starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) first_t: i64,
    pub(crate) last_t: i64,
    /// Samples less one.
    pub(crate) gaps: usize,
    pub(crate) range_start: i64,
    pub(crate) range_end: i64,
    /// The start timestamp of the first sample, 0 when unknown.
    pub(crate) first_st: i64,
}

impl Span {
    /// True when the counter is known to have started from zero inside the range.
    pub(crate) fn starts_inside(&self, is_counter: bool) -> bool {
        is_counter && self.first_st != 0 && self.first_st > self.range_start && self.first_st < self.first_t
    }

    /// Seconds from the first sample to the last.
    pub(crate) fn sampled_s(&self) -> f64 {
        (self.last_t - self.first_t) as f64 / 1000.0
    }

    /// Samples further apart than this from an edge do not reach it, in seconds, and the average distance of samples.
    fn threshold_s(&self) -> (f64, f64) {
        let average = if self.gaps > 0 { self.sampled_s() / self.gaps as f64 } else { 0.0 };
        (average * 1.1, average)
    }

    /// Seconds from the left end of the extrapolation to the first sample, whatever the value is.
    pub(crate) fn reach_to_start_s(&self) -> f64 {
        let to_start = (self.first_t - self.range_start) as f64 / 1000.0;
        let (threshold, average) = self.threshold_s();
        if to_start >= threshold { average / 2.0 } else { to_start }
    }

    /// What the sampled change is multiplied with to cover the range. `first` and `change` are the counter's first
    /// value and its change, to find where it was zero.
    pub(crate) fn factor(
        &self,
        kind: RateKind,
        range_ms: i64,
        zero_point: impl FnOnce(f64) -> Option<f64>,
    ) -> f64 {
        let mut sampled = self.sampled_s();
        let mut to_start = 0.0;
        let mut to_end = (self.range_end - self.last_t) as f64 / 1000.0;
        let (threshold, average) = self.threshold_s();
        if self.starts_inside(kind.is_counter) {
            sampled = (self.last_t - self.first_st) as f64 / 1000.0;
        } else {
            to_start = self.reach_to_start_s();
            if kind.is_counter {
                // A counter is not extrapolated to below zero.
                let to_zero = zero_point(sampled).unwrap_or(to_start);
                if to_zero < to_start {
                    to_start = to_zero;
                }
            }
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let mut factor = 1.0;
        if sampled != 0.0 {
            factor = (sampled + to_start + to_end) / sampled;
        }
        if kind.is_rate {
            factor /= range_ms as f64 / 1000.0;
        }
        factor
    }
}

/// The extrapolated change of a window of floats.
#[inline(always)]
pub(crate) fn extrapolated(
    w: &Window<'_>,
    resets: &mut Resets,
    samples: &Samples,
    kind: RateKind,
    range_ms: i64,
) -> Option<f64> {
    let n = w.fv.len();
    let (first, last) = (w.fv[0], w.fv[n - 1]);
    let mut change = last - first;
    if kind.is_counter && !resets.is_empty() {
        change = resets.add_to(change, &samples.fv, w.first, w.first + n - 1);
    }
    let span = Span {
        first_t: w.ft[0],
        last_t: w.ft[n - 1],
        gaps: n - 1,
        range_start: w.start,
        range_end: w.end,
        first_st: w.fst.first().copied().unwrap_or(0),
    };
    if span.starts_inside(kind.is_counter) {
        change += first;
    } else if n < 2 {
        return None;
    }
    let factor = span
        .factor(kind, range_ms, |sampled| (change > 0.0 && first >= 0.0).then(|| sampled * (first / change)));
    Some(change * factor)
}

/// The change between the last two floats, per second for a counter.
#[inline(always)]
pub(crate) fn instant(w: &Window<'_>, is_rate: bool) -> Option<f64> {
    let n = w.fv.len();
    if n < 2 {
        return None;
    }
    let interval = w.ft[n - 1] - w.ft[n - 2];
    if interval == 0 {
        return None;
    }
    let (previous, last) = (w.fv[n - 2], w.fv[n - 1]);
    let st_reset = w.fst.len() == n && is_start_reset(w.fst[n - 2], w.ft[n - 2], w.fst[n - 1], w.ft[n - 1]);
    let change = if is_rate && (last < previous || st_reset) { last } else { last - previous };
    Some(if is_rate { change / (interval as f64 / 1000.0) } else { change })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window<'a>(s: &'a Samples, start: i64, end: i64) -> Window<'a> {
        Window {
            ft: &s.ft,
            fv: &s.fv,
            fst: &s.fst,
            ht: &[],
            hv: &[],
            hst: &[],
            fc: &[],
            hc: &[],
            first: 0,
            start,
            end,
        }
    }

    #[test]
    fn resets_add_up_and_edges_extrapolate() {
        let s = Samples {
            ft: vec![10_000, 20_000, 30_000, 40_000],
            fv: vec![0.0, 10.0, 5.0, 15.0],
            ..Samples::default()
        };
        let mut resets = Resets::default();
        resets.find(&s, true);
        let kind = RateKind { is_counter: true, is_rate: false };
        let w = window(&s, 5_000, 45_000);
        // 25 over 30 s; extrapolated to the right edge only, as the counter was zero at its first sample.
        let got = extrapolated(&w, &mut resets, &s, kind, 40_000).unwrap();
        assert!((got - 25.0 * 35.0 / 30.0).abs() < 1e-9, "{got}");
        assert_eq!(instant(&w, true), Some(1.0));
        assert_eq!(instant(&w, false), Some(10.0));
    }

    #[test]
    fn start_timestamps_tell_resets() {
        assert!(!is_start_reset(0, 10, 0, 20));
        assert!(is_start_reset(0, 10, 15, 20));
        assert!(is_start_reset(5, 10, 10, 20));
        assert!(!is_start_reset(0, 10, 10, 20));
        assert!(!is_start_reset(5, 10, 5, 20));
        assert!(starts_overlap(5, 10, 7) && !starts_overlap(5, 10, 5) && !starts_overlap(5, 10, 10));
    }
}
