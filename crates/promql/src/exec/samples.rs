//! The samples of one series for range functions: floats and histograms apart, stale markers gone.

use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::{FloatHistogram, is_stale_nan};

use crate::exec::batch::Row;
use crate::exec::counts::WindowCounts;
use crate::exec::{Grid, Result};

/// Samples of one series, each kind ascending in time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// Times of the floats.
    pub(crate) ft: Vec<i64>,
    /// The floats.
    pub(crate) fv: Vec<f64>,
    /// Start timestamps of the floats; empty when none is known.
    pub(crate) fst: Vec<i64>,
    /// Times of the histograms.
    pub(crate) ht: Vec<i64>,
    /// The histograms.
    pub(crate) hv: Vec<Arc<FloatHistogram>>,
    /// Start timestamps of the histograms; empty when none is known.
    pub(crate) hst: Vec<i64>,
    /// How many raw samples each float is the sum of; empty when each stands for itself.
    pub(crate) fc: Vec<f64>,
    /// The same of the histograms.
    pub(crate) hc: Vec<f64>,
}

impl Samples {
    pub(crate) fn clear(&mut self) {
        self.ft.clear();
        self.fv.clear();
        self.fst.clear();
        self.ht.clear();
        self.hv.clear();
        self.hst.clear();
        self.fc.clear();
        self.hc.clear();
    }

    /// True when samples are sums of downsampled data, which only averages and counts know how to read.
    pub(crate) fn are_sums(&self) -> bool {
        !self.fc.is_empty() || !self.hc.is_empty()
    }

    /// Takes over decoded columns; `columns` is left with the old buffers, cleared.
    pub(crate) fn take(&mut self, columns: &mut SampleColumns) {
        self.clear();
        if columns.has_histograms() {
            for i in 0..columns.len() {
                if is_stale_nan(columns.values[i]) {
                    continue;
                }
                let st = columns.start_ts.get(i).copied();
                let count = columns.counts.get(i).copied();
                match columns.histogram(i) {
                    Some(h) => {
                        self.ht.push(columns.ts[i]);
                        self.hv.push(Arc::clone(h));
                        self.hst.extend(st);
                        self.hc.extend(count);
                    }
                    None => {
                        self.ft.push(columns.ts[i]);
                        self.fv.push(columns.values[i]);
                        self.fst.extend(st);
                        self.fc.extend(count);
                    }
                }
            }
        } else {
            std::mem::swap(&mut self.ft, &mut columns.ts);
            std::mem::swap(&mut self.fv, &mut columns.values);
            std::mem::swap(&mut self.fst, &mut columns.start_ts);
            std::mem::swap(&mut self.fc, &mut columns.counts);
            if self.fv.iter().any(|v| is_stale_nan(*v)) {
                self.remove_stale_floats();
            }
        }
        columns.clear();
    }

    fn remove_stale_floats(&mut self) {
        let mut to = 0;
        for from in 0..self.fv.len() {
            if is_stale_nan(self.fv[from]) {
                continue;
            }
            self.fv[to] = self.fv[from];
            self.ft[to] = self.ft[from];
            if !self.fst.is_empty() {
                self.fst[to] = self.fst[from];
            }
            if !self.fc.is_empty() {
                self.fc[to] = self.fc[from];
            }
            to += 1;
        }
        self.fv.truncate(to);
        self.ft.truncate(to);
        self.fst.truncate(to);
        self.fc.truncate(to);
    }

    /// Takes the points of a subquery's row.
    pub(crate) fn take_row(&mut self, row: &Row<'_>, grid: &Grid) -> Result<()> {
        use chronolith_model::histogram::CounterReset;
        self.clear();
        row.each(|i, v, h| match h {
            Some(h) => {
                self.ht.push(grid.t(i));
                // Hints between neighbours in storage say nothing about neighbours in a subquery.
                if matches!(h.counter_reset, CounterReset::Reset | CounterReset::NotReset) {
                    let unknown = FloatHistogram { counter_reset: CounterReset::Unknown, ..(**h).clone() };
                    self.hv.push(Arc::new(unknown));
                } else {
                    self.hv.push(Arc::clone(h));
                }
            }
            None => {
                self.ft.push(grid.t(i));
                self.fv.push(v);
            }
        });
        Ok(())
    }
}

/// What a range function sees at one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) ft: &'a [i64],
    pub(crate) fv: &'a [f64],
    pub(crate) fst: &'a [i64],
    pub(crate) ht: &'a [i64],
    pub(crate) hv: &'a [Arc<FloatHistogram>],
    pub(crate) hst: &'a [i64],
    pub(crate) fc: &'a [f64],
    pub(crate) hc: &'a [f64],
    /// Index of the window's first float among the series' floats.
    pub(crate) first: usize,
    /// The range's left edge, not included.
    pub(crate) start: i64,
    /// The range's right edge, included.
    pub(crate) end: i64,
}

impl Window<'_> {
    pub(crate) fn is_mixed(&self) -> bool {
        !self.ft.is_empty() && !self.ht.is_empty()
    }

    /// How many raw samples the window stands for.
    pub(crate) fn raw_count(&self) -> f64 {
        let of = |counts: &[f64], samples: usize| {
            if counts.is_empty() { samples as f64 } else { counts.iter().sum() }
        };
        of(self.fc, self.fv.len()) + of(self.hc, self.hv.len())
    }
}

/// The windows of a range selector over a grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) range_ms: i64,
    pub(crate) offset_ms: i64,
    pub(crate) at: Option<i64>,
    /// Samples from before the range that the function also sees (`anchored`, `smoothed`).
    pub(crate) before_ms: i64,
    /// Samples from after the range that the function also sees (`smoothed`).
    pub(crate) after_ms: i64,
}

impl Windows {
    /// The right edge at a step.
    #[inline(always)]
    pub(crate) fn end(&self, grid: &Grid, step: usize) -> i64 {
        self.at.unwrap_or_else(|| grid.t(step)) - self.offset_ms
    }

    /// Calls `f` with each step's window that holds a sample, and counts it.
    #[inline(always)]
    pub(crate) fn slide<'s>(
        &self,
        samples: &'s Samples,
        grid: &Grid,
        counts: &mut WindowCounts<'_>,
        mut f: impl FnMut(usize, &Window<'s>),
    ) {
        let (mut flo, mut fhi, mut hlo, mut hhi) = (0, 0, 0, 0);
        let has_st = !samples.fst.is_empty();
        for step in 0..grid.count {
            let end = self.end(grid, step);
            let start = end - self.range_ms;
            let (from, to) = (start - self.before_ms, end + self.after_ms);
            let seen = (fhi, hhi);
            fhi = advance(&samples.ft, fhi, to);
            flo = advance(&samples.ft, flo, from);
            let mut window = Window {
                ft: &samples.ft[flo..fhi],
                fv: &samples.fv[flo..fhi],
                fst: if has_st { &samples.fst[flo..fhi] } else { &[] },
                ht: &[],
                hv: &[],
                hst: &[],
                fc: if samples.fc.is_empty() { &[] } else { &samples.fc[flo..fhi] },
                hc: &[],
                first: flo,
                start,
                end,
            };
            if !samples.ht.is_empty() {
                hhi = advance(&samples.ht, hhi, to);
                hlo = advance(&samples.ht, hlo, from);
                window.ht = &samples.ht[hlo..hhi];
                window.hv = &samples.hv[hlo..hhi];
                window.hst = if samples.hst.is_empty() { &[] } else { &samples.hst[hlo..hhi] };
                window.hc = if samples.hc.is_empty() { &[] } else { &samples.hc[hlo..hhi] };
            }
            if flo < fhi || hlo < hhi {
                if !counts.window(step, flo..fhi, hlo..hhi, seen) {
                    return;
                }
                f(step, &window);
            }
        }
    }
}

/// The first index from `i` on whose time is after `t`.
#[inline(always)]
pub(crate) fn advance(ts: &[i64], mut i: usize, t: i64) -> usize {
    while i < ts.len() && ts[i] <= t {
        i += 1;
    }
    i
}
