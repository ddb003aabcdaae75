//! The root of a query: from batches to a [`Value`].

use std::time::Instant;

use chronolith_chunk::SampleColumns;

use crate::exec::batch::{histogram_weight, label_bytes};
use crate::exec::counts::WindowCounts;
use crate::exec::labels::without_metadata;
use crate::exec::merge::merge_equal;
use crate::exec::range::subquery_grid;
use crate::exec::samples::{Samples, Windows};
use crate::exec::smooth::extend_range;
use crate::exec::{Batch, Exec, Grid, Result};
use crate::memory::{MemoryHold, MemoryUse};
use crate::parser::{ExprId, MatrixSelector, NodeKind, ValueType};
use crate::value::{MatrixSeries, PointValue, Value, VectorSample};

/// Evaluates the plan's root. The memory of the value is held until the hold is dropped.
pub(crate) fn run(exec: &mut Exec<'_>, instant: bool) -> Result<Counted> {
    let times = exec.plan.times;
    let grid = if instant {
        Grid::new(times.start, times.start, 1)
    } else {
        Grid::new(times.start, times.end, times.step_ms)
    };
    let root = exec.plan.ast.root();
    match exec.plan.value_type(root) {
        ValueType::Vector => {
            let batch = exec.final_batch(root, &grid)?;
            if instant {
                let held = exec.result_held(&batch, std::mem::size_of::<VectorSample>(), 0)?;
                return Ok((Value::Vector(vector(&batch, grid.start)), Some(held)));
            }
            let held = exec.result_held(&batch, std::mem::size_of::<MatrixSeries>(), POINT_BYTES)?;
            let series = exec.sorted(matrix(&batch, &grid));
            Ok((Value::Matrix(series), Some(held)))
        }
        ValueType::Scalar => {
            let values = exec.scalar(root, &grid)?;
            if instant {
                exec.budget.take(1)?;
                return Ok((Value::Scalar { t: grid.start, v: values[0] }, None));
            }
            exec.budget.take(values.len())?;
            let held = exec.budget.memory.hold(MemoryUse::Result, values.len() * POINT_BYTES)?;
            let timestamps = (0..grid.count).map(|i| grid.t(i)).collect();
            let series = MatrixSeries { timestamps, values, ..MatrixSeries::default() };
            Ok((Value::Matrix(vec![series]), Some(held)))
        }
        ValueType::String => Ok((Value::String { t: grid.start, s: exec.string(root) }, None)),
        ValueType::Matrix | ValueType::None => {
            let (id, kind) = exec.plan.unwrapped(root);
            match kind {
                NodeKind::MatrixSelector(m) => exec.range_selector(id, m, &grid),
                NodeKind::Subquery(s) => {
                    let inner = subquery_grid(s, &grid, times.subquery_step_ms);
                    let around = std::mem::take(&mut exec.counts);
                    let batch = exec.final_batch(s.expr, &inner);
                    let part = std::mem::replace(&mut exec.counts, around);
                    exec.counts.add(0, part.total, part.read);
                    let batch = batch?;
                    let held = exec.result_held(&batch, std::mem::size_of::<MatrixSeries>(), POINT_BYTES)?;
                    let series = exec.sorted(matrix(&batch, &inner));
                    Ok((Value::Matrix(series), Some(held)))
                }
                _ => unreachable!("a range is a range selector or a subquery"),
            }
        }
    }
}

impl<'a> Exec<'a> {
    /// A vector with the names taken off where that was delayed.
    fn final_batch(&mut self, id: ExprId, grid: &Grid) -> Result<Batch> {
        let mut batch = self.collect(id, grid)?;
        if self.options.delayed_name_removal {
            let mut dropped = false;
            for r in 0..batch.len() {
                if batch.drop_name(r) {
                    dropped = true;
                    let labels = without_metadata(batch.labels(r));
                    batch.set_labels(r, labels);
                }
            }
            if dropped {
                batch = merge_equal(batch)?;
                batch.charge(&self.budget, self.node)?;
            }
        }
        Ok(batch)
    }

    /// A range selector that stands alone: the samples as they are.
    fn range_selector(&mut self, id: ExprId, m: &MatrixSelector, grid: &Grid) -> Result<Counted> {
        let Some(selector) = self.plan.ast.vector_selector(id) else {
            unreachable!("a range selector holds a vector selector")
        };
        let lookback = self.plan.times.lookback_ms;
        let windows = Windows {
            range_ms: m.range_ms,
            offset_ms: selector.offset_ms,
            at: selector.timestamp_ms,
            before_ms: if selector.anchored || selector.smoothed { lookback } else { 0 },
            after_ms: if selector.smoothed { lookback } else { 0 },
        };
        let extended = selector.anchored || selector.smoothed;
        let mut out: Vec<MatrixSeries> = Vec::new();
        let mut samples = Samples::default();
        let mut held = self.budget.memory.hold(MemoryUse::Result, 0)?;
        self.each_series(m.selector, &mut |exec, labels, columns: &mut SampleColumns| {
            samples.take(columns);
            let mut series = MatrixSeries { labels: labels.clone(), ..MatrixSeries::default() };
            let mut failure = None;
            let mut tally = std::mem::take(&mut exec.counts);
            let mut counts = WindowCounts::new(&mut tally, exec.cx, &samples, true, false);
            windows.slide(&samples, grid, &mut counts, |_, w| {
                if extended {
                    match extend_range(w, selector.smoothed) {
                        Ok(points) => (series.timestamps, series.values) = points.into_iter().unzip(),
                        Err(err) => failure = Some(err),
                    }
                    return;
                }
                series.timestamps.extend_from_slice(w.ft);
                series.values.extend_from_slice(w.fv);
                series.histograms.extend(w.ht.iter().copied().zip(w.hv.iter().cloned()));
            });
            let WindowCounts { stopped, .. } = counts;
            exec.counts = tally;
            exec.windows_counted(0, stopped)?;
            if let Some(err) = failure {
                return Err(err);
            }
            let points = series.point_count();
            if points > 0 {
                let weights: usize = series.histograms.iter().map(|(_, h)| histogram_weight(h)).sum();
                exec.budget.take(series.timestamps.len() + weights)?;
                let histograms = weights * POINT_BYTES;
                let row = std::mem::size_of::<MatrixSeries>() + label_bytes(&series.labels);
                held.resize(held.bytes() + row + points * POINT_BYTES + histograms)?;
                out.push(series);
            }
            Ok(())
        })?;
        Ok((Value::Matrix(self.sorted(out)), Some(held)))
    }

    /// Series in the order of their labels.
    fn sorted(&mut self, mut series: Vec<MatrixSeries>) -> Vec<MatrixSeries> {
        let started = Instant::now();
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        self.sort_time += started.elapsed();
        series
    }

    /// The memory of a batch as a result: so much per series and per point, and the labels.
    fn result_held(&self, batch: &Batch, series_bytes: usize, point_bytes: usize) -> Result<MemoryHold> {
        self.cx.check()?;
        let bytes: usize = batch
            .rows()
            .map(|row| {
                let points = if point_bytes > 0 { row.point_count() * point_bytes } else { 0 };
                series_bytes + label_bytes(row.labels) + points
            })
            .sum();
        Ok(self.budget.memory.hold(MemoryUse::Result, bytes)?)
    }
}

/// A value with the memory that it takes.
type Counted = (Value, Option<MemoryHold>);

/// A point of a series: a time and a value.
const POINT_BYTES: usize = 16;

fn vector(batch: &Batch, t: i64) -> Vec<VectorSample> {
    let sample = |row: crate::exec::batch::Row<'_>| {
        let value = match row.histogram(0) {
            Some(h) => PointValue::Histogram(h.clone()),
            None => PointValue::Float(row.values[0]),
        };
        VectorSample { labels: row.labels.clone(), t, value }
    };
    batch.rows().map(sample).collect()
}

fn matrix(batch: &Batch, grid: &Grid) -> Vec<MatrixSeries> {
    batch
        .rows()
        .map(|row| {
            let points = row.point_count();
            let mut series = MatrixSeries {
                labels: row.labels.clone(),
                timestamps: Vec::with_capacity(points),
                values: Vec::with_capacity(points),
                histograms: Vec::new(),
            };
            row.each(|i, v, h| match h {
                Some(h) => series.histograms.push((grid.t(i), h.clone())),
                None => {
                    series.timestamps.push(grid.t(i));
                    series.values.push(v);
                }
            });
            series
        })
        .collect()
}
