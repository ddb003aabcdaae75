//! The current sample of a series at every step.
//!
//! Which sample is current follows from the times, and series of one target have the same ones: it is worked out once and
//! kept for the series that come after, whose values are then only copied.

use std::ops::Range;
use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::{Labels, is_stale_nan};

use crate::exec::batch::{RowMut, histogram_weight};
use crate::exec::labels::without_metadata;
use crate::exec::parallel::SeriesRows;
use crate::exec::samples::advance;
use crate::exec::{Batch, Exec, Grid, Result, is_scheduled};
use crate::parser::VectorSelector;
use crate::queryable::{QueryContext, QueryableError};

/// What an instant selector yields at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Current {
    /// The sample.
    Value,
    /// The sample's own time in seconds.
    Timestamp,
    /// The sample's start timestamp in seconds.
    StartTimestamp,
}

/// Rows of an instant selector.
#[derive(Clone)]
pub(crate) struct CurrentRows<'p> {
    selector: &'p VectorSelector,
    what: Current,
    drop_name: bool,
    strip: bool,
    grid: Grid,
    schedule: Schedule,
}

/// The current sample by step, for series of the same times without stale markers.
#[derive(Clone, Debug, Default)]
struct Schedule {
    times: Vec<i64>,
    /// By step; 0 where no sample is current.
    current: Vec<u32>,
    present: Vec<u64>,
    points: u64,
}

/// Steps between two looks at the clock and the cancel flag within one series.
const STEPS_BETWEEN_CHECKS: usize = 1 << 20;

impl Schedule {
    fn follow(&mut self, times: &[i64], selector: &VectorSelector, lookback_ms: i64, grid: &Grid) {
        if !self.current.is_empty() && self.times == times {
            return;
        }
        self.times.clear();
        self.times.extend_from_slice(times);
        self.current.clear();
        self.current.resize(grid.count, 0);
        self.present.clear();
        self.present.resize(grid.count.div_ceil(64), 0);
        self.points = 0;
        each_recent(selector, lookback_ms, times, grid, 0..grid.count, &mut 0, |step, i| {
            self.current[step] = i as u32;
            self.present[step / 64] |= 1 << (step % 64);
            self.points += 1;
        });
    }

    fn write(&self, values: &[f64], row: &mut RowMut<'_>) {
        for (to, i) in row.fill(&self.present).iter_mut().zip(&self.current) {
            if let Some(v) = values.get(*i as usize) {
                *to = *v;
            }
        }
    }
}

impl<'p> CurrentRows<'p> {
    pub(crate) fn new(
        selector: &'p VectorSelector,
        what: Current,
        drop_name: bool,
        strip: bool,
        grid: Grid,
    ) -> Self {
        CurrentRows { selector, what, drop_name, strip, grid, schedule: Schedule::default() }
    }
}

impl SeriesRows for CurrentRows<'_> {
    fn add(
        &mut self,
        exec: &mut Exec<'_>,
        labels: &Labels,
        columns: &mut SampleColumns,
        out: &mut Batch,
    ) -> Result<()> {
        let (lookback, cx) = (exec.plan.times.lookback_ms, exec.cx);
        let counts = &mut exec.counts;
        let strip = self.strip;
        let labels = || if strip { without_metadata(labels) } else { labels.clone() };
        let plain = self.what == Current::Value && !columns.has_histograms() && counts.steps.is_none();
        // At one step there is nothing to keep.
        if plain
            && self.grid.count > 1
            && is_scheduled(columns.len(), &self.grid)
            && !columns.values.iter().fold(false, |any, v| any | is_stale_nan(*v))
        {
            self.schedule.follow(&columns.ts, self.selector, lookback, &self.grid);
            counts.total += self.schedule.points;
            counts.read += self.schedule.points;
            out.push(labels, self.drop_name, |row| self.schedule.write(&columns.values, row));
            return Ok(());
        }
        let mut done = Ok(());
        out.push(labels, self.drop_name, |row| {
            done = each_current(cx, self.selector, lookback, columns, &self.grid, |step, i| {
                let mut weight = 1;
                match self.what {
                    Current::Value => match columns.histogram(i) {
                        Some(h) => {
                            weight = histogram_weight(h) as u64;
                            row.set_histogram(step, Arc::clone(h));
                        }
                        None => row.set(step, columns.values[i]),
                    },
                    Current::Timestamp => row.set(step, columns.ts[i] as f64 / 1000.0),
                    Current::StartTimestamp => {
                        let st = columns.start_ts.get(i).copied().unwrap_or(0);
                        row.set(step, st as f64 / 1000.0);
                    }
                }
                counts.add(step, weight, weight);
            });
        });
        Ok(done?)
    }
}

/// Calls `f(step, i)` for each step at which sample `i` is current. Errors: the query is not wanted any more; `f` was not
/// called for all of them.
#[inline(always)]
pub(crate) fn each_current(
    cx: &QueryContext,
    selector: &VectorSelector,
    lookback_ms: i64,
    columns: &SampleColumns,
    grid: &Grid,
    mut f: impl FnMut(usize, usize),
) -> std::result::Result<(), QueryableError> {
    let mut next = 0;
    for from in (0..grid.count).step_by(STEPS_BETWEEN_CHECKS) {
        if from > 0 {
            cx.check()?;
        }
        let steps = from..grid.count.min(from + STEPS_BETWEEN_CHECKS);
        each_recent(selector, lookback_ms, &columns.ts, grid, steps, &mut next, |step, i| {
            if !is_stale_nan(columns.values[i]) {
                f(step, i);
            }
        });
    }
    Ok(())
}

/// Calls `f(step, i)` for each of some steps for which sample `i` is the newest one, and not too old. `next` is the first
/// sample that is newer, from 0 on.
#[inline(always)]
fn each_recent(
    selector: &VectorSelector,
    lookback_ms: i64,
    times: &[i64],
    grid: &Grid,
    steps: Range<usize>,
    next: &mut usize,
    mut f: impl FnMut(usize, usize),
) {
    for step in steps {
        let at = selector.timestamp_ms.unwrap_or_else(|| grid.t(step)) - selector.offset_ms;
        *next = advance(times, *next, at);
        let Some(i) = next.checked_sub(1) else { continue };
        if times[i] > at - lookback_ms {
            f(step, i);
        }
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::STALE_NAN;

    use super::*;
    use crate::parser::{NodeKind, ParseOptions, parse};
    use crate::queryable::QueryableErrorKind;

    #[test]
    fn what_is_kept_is_what_is_found() {
        let ast = parse("a offset 3s", &ParseOptions::ALL).unwrap();
        let NodeKind::VectorSelector(selector) = ast.kind(ast.root()) else { panic!("it is a selector") };
        let grid = Grid::new(0, 1_000_000, 7_000);
        let mut schedule = Schedule::default();
        for every in [1_000, 15_000, 15_000, 400_000] {
            let columns = SampleColumns::from_floats((1..100).map(|i| (i * every, i as f64)));
            schedule.follow(&columns.ts, selector, 60_000, &grid);
            let (mut got, mut want) = (Vec::new(), Vec::new());
            let mut batch = Batch::new(grid.count);
            batch.push(Labels::empty, false, |row| schedule.write(&columns.values, row));
            batch.rows().for_each(|row| row.each(|i, v, _| got.push((i, v))));
            let push = |step, i: usize| want.push((step, columns.values[i]));
            each_current(&QueryContext::new(), selector, 60_000, &columns, &grid, push).unwrap();
            assert_eq!(got, want);
            assert_eq!(schedule.points, want.len() as u64);
        }
        let stale = SampleColumns::from_floats([(0, 1.0), (10_000, STALE_NAN), (20_000, 2.0)]);
        let mut at = Vec::new();
        each_current(&QueryContext::new(), selector, 60_000, &stale, &grid, |_, i| at.push(i)).unwrap();
        assert!(at.contains(&0) && !at.contains(&1) && at.contains(&2));
    }

    #[test]
    fn a_long_row_ends_where_it_is_not_wanted_any_more() {
        let ast = parse("a", &ParseOptions::ALL).unwrap();
        let NodeKind::VectorSelector(selector) = ast.kind(ast.root()) else { panic!("it is a selector") };
        let grid = Grid::new(0, 3 * STEPS_BETWEEN_CHECKS as i64, 1);
        let columns = SampleColumns::from_floats([(0, 1.0), (STEPS_BETWEEN_CHECKS as i64 + 5, 2.0)]);
        let (cx, mut last) = (QueryContext::new(), 0);
        let all = |step: usize, i: usize| {
            if i > 0 {
                cx.cancel();
            }
            last = step;
        };
        let stopped = each_current(&cx, selector, i64::from(i32::MAX), &columns, &grid, all).unwrap_err();
        assert_eq!(stopped.kind, QueryableErrorKind::Cancelled);
        assert_eq!(last, 2 * STEPS_BETWEEN_CHECKS - 1, "two stretches of three");
    }
}
