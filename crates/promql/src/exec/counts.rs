//! Samples that a query loads, counted as upstream counts them: a sample once for each step whose window holds it
//! ("total"), and once for each selector that reads it ("read").
//!
//! A part that is evaluated on times of its own (once for all steps, or in a subquery) counts into a fresh [`Counts`]
//! while it is at work; how that is added to the counts around it depends on what kind of part it is.

use crate::exec::batch::histogram_weight;
use crate::exec::samples::Samples;
use crate::exec::{Exec, Grid, Result};
use crate::parser::Subquery;
use crate::queryable::{QueryContext, QueryableError};
use crate::value::StepSamples;

/// Samples between two looks at the clock and the cancel flag within one series.
const SAMPLES_BETWEEN_CHECKS: u64 = 1 << 20;

/// Samples loaded so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) read: u64,
    /// The same by step, where that is wanted.
    pub(crate) steps: Option<Box<StepSamples>>,
}

impl Counts {
    /// Nothing counted yet; by step where `steps` says so many.
    pub(crate) fn new(steps: Option<usize>) -> Self {
        let steps = steps.map(|n| Box::new(StepSamples { total: vec![0; n], read: vec![0; n] }));
        Counts { total: 0, read: 0, steps }
    }

    /// Nothing counted yet, for work on the same steps.
    pub(crate) fn fork(&self) -> Self {
        Counts::new(self.steps.as_ref().map(|s| s.total.len()))
    }

    /// Adds what was counted on the same steps.
    pub(crate) fn append(&mut self, other: &Counts) {
        self.total += other.total;
        self.read += other.read;
        if let (Some(mine), Some(theirs)) = (&mut self.steps, &other.steps) {
            mine.total.iter_mut().zip(&theirs.total).for_each(|(a, b)| *a += b);
            mine.read.iter_mut().zip(&theirs.read).for_each(|(a, b)| *a += b);
        }
    }

    /// Counts at one step.
    #[inline(always)]
    pub(crate) fn add(&mut self, step: usize, total: u64, read: u64) {
        self.total += total;
        self.read += read;
        if let Some(steps) = &mut self.steps {
            steps.total[step] += total;
            steps.read[step] += read;
        }
    }

    /// Adds a part that was evaluated once for `steps` steps: loaded at each, read at the first.
    pub(crate) fn append_once(&mut self, part: &Counts, steps: usize) {
        self.add(0, 0, part.read);
        for step in 0..steps {
            self.add(step, part.total, 0);
        }
    }

    /// Adds the inner part of a subquery that a function looks at: what the function sees of it was counted as loaded
    /// already, so only what was read counts, at the first step that sees it, and not where no step does.
    pub(crate) fn append_subquery(&mut self, part: &Counts, inner: &Grid, subquery: &Subquery, grid: &Grid) {
        let Some(steps) = part.steps.as_ref().filter(|_| grid.count > 1) else {
            self.add(0, 0, part.read);
            return;
        };
        for (k, read) in steps.read.iter().enumerate().filter(|(_, read)| **read > 0) {
            let t = inner.t(k) + subquery.offset_ms;
            let step = if t > grid.start { (t - grid.start + grid.step - 1) / grid.step } else { 0 };
            let step = (step as usize).min(grid.count - 1);
            if t > grid.t(step) - subquery.range_ms {
                self.add(step, 0, *read);
            }
        }
    }

    /// Whether the inner part of a subquery must be counted by step.
    pub(crate) fn wants_subquery_steps(&self, subquery: &Subquery, grid: &Grid) -> bool {
        grid.count > 1 && (self.steps.is_some() || subquery.range_ms < grid.step)
    }
}

/// Counts while a window slides over a series.
pub(crate) struct WindowCounts<'c> {
    counts: &'c mut Counts,
    cx: &'c QueryContext,
    /// The series comes from storage rather than from a subquery.
    stored: bool,
    /// All steps look at the same window.
    fixed: bool,
    /// Weights of the histograms before each, where there are histograms.
    weights: Vec<u64>,
    unchecked: u64,
    /// Most samples in a window.
    pub(crate) widest: u64,
    /// Why it stopped before the last step.
    pub(crate) stopped: Option<QueryableError>,
}

/// What all windows over a series' floats count for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WindowTotals {
    total: u64,
    read: u64,
    widest: u64,
}

impl WindowTotals {
    /// Adds a window of so many samples, of which so many are read by it first.
    pub(crate) fn add(&mut self, samples: usize, new: usize) {
        self.total += samples as u64;
        self.read += new as u64;
        self.widest = self.widest.max(samples as u64);
    }
}

impl<'c> WindowCounts<'c> {
    /// Counts all windows at once.
    pub(crate) fn all(&mut self, totals: WindowTotals) {
        self.counts.total += totals.total;
        self.counts.read += totals.read;
        self.widest = self.widest.max(totals.widest);
    }

    /// Whether windows are to be counted by step.
    pub(crate) fn by_step(&self) -> bool {
        self.counts.steps.is_some()
    }

    pub(crate) fn new(
        counts: &'c mut Counts,
        cx: &'c QueryContext,
        samples: &Samples,
        stored: bool,
        fixed: bool,
    ) -> Self {
        let mut weights = Vec::new();
        if !samples.hv.is_empty() {
            let mut sum = 0;
            weights.push(0);
            weights.extend(samples.hv.iter().map(|h| {
                sum += histogram_weight(h) as u64;
                sum
            }));
        }
        WindowCounts { counts, cx, stored, fixed, weights, unchecked: 0, widest: 0, stopped: None }
    }

    /// Counts a step's window: floats and histograms of these indexes, of which those before `seen` were in earlier
    /// windows. False when the query is to stop.
    #[inline(always)]
    pub(crate) fn window(
        &mut self,
        step: usize,
        floats: std::ops::Range<usize>,
        histograms: std::ops::Range<usize>,
        seen: (usize, usize),
    ) -> bool {
        let weight = |from: usize, to: usize| match self.weights.get(to) {
            Some(until) if from < to => until - self.weights[from],
            _ => 0,
        };
        let total = (floats.end - floats.start) as u64 + weight(histograms.start, histograms.end);
        let read = if self.stored && !(self.fixed && step > 0) {
            let new = floats.end.saturating_sub(floats.start.max(seen.0)) as u64;
            new + weight(histograms.start.max(seen.1), histograms.end)
        } else {
            0
        };
        self.counts.add(step, total, read);
        self.widest = self.widest.max(total);
        self.unchecked += total;
        if self.unchecked > SAMPLES_BETWEEN_CHECKS {
            self.unchecked = 0;
            self.stopped = self.cx.check().err();
        }
        self.stopped.is_none()
    }
}

impl<'a> Exec<'a> {
    /// Ends counting a series' windows: the widest one was held.
    pub(crate) fn windows_counted(&self, widest: u64, stopped: Option<QueryableError>) -> Result<()> {
        if let Some(err) = stopped {
            return Err(err.into());
        }
        self.budget.take(widest as usize)?;
        self.budget.give_back(widest as usize);
        Ok(())
    }
}
