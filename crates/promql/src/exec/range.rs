//! Functions over ranges: a window slides over each series' decoded samples once.

use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::Labels;

use crate::engine::EngineError;
use crate::exec::batch::label_bytes;
use crate::exec::counts::{Counts, WindowCounts};
use crate::exec::labels::without_metadata;
use crate::exec::merge::same_labels;
use crate::exec::parallel::SeriesRows;
use crate::exec::samples::{Samples, Window, Windows};
use crate::exec::schedule::Schedule;
use crate::exec::slide::{SlideBuffers, slide};
use crate::exec::{Batch, Exec, Grid, Result, Sink, is_scheduled};
use crate::functions::blocks::Regression;
use crate::functions::rate::RateKind;
use crate::functions::{kahan, over_time, quantile, rate};
use crate::memory::MemoryUse;
use crate::parser::{Call, ExprId, FunctionId, NodeKind, Span, Subquery, ValueType, VectorSelector};

/// A range function's call, resolved for a grid.
#[derive(Clone)]
pub(crate) struct RangeCall {
    pub(crate) id: FunctionId,
    pub(crate) windows: Windows,
    pub(crate) anchored: bool,
    pub(crate) smoothed: bool,
    /// Values of the scalar arguments, by step.
    pub(crate) params: Vec<Vec<f64>>,
    /// The first argument, which annotations point at.
    pub(crate) span: Span,
    /// The argument comes from storage rather than from a subquery.
    stored: bool,
    drop_name: bool,
    strip: bool,
    scratch: Vec<f64>,
    pub(crate) slide: SlideBuffers,
    resets: rate::Resets,
    schedule: Schedule,
    samples: Samples,
    /// The name that the last counter check was about.
    checked_name: Option<(String, String)>,
}

/// What a function makes of a window.
#[derive(Debug)]
pub(crate) enum Point {
    None,
    Float(f64),
    Histogram(Arc<chronolith_model::FloatHistogram>),
}

impl From<f64> for Point {
    fn from(v: f64) -> Self {
        Point::Float(v)
    }
}

impl From<Option<f64>> for Point {
    fn from(v: Option<f64>) -> Self {
        v.map_or(Point::None, Point::Float)
    }
}

impl<'a> Exec<'a> {
    /// A call with a range argument.
    pub(crate) fn range_call(
        &mut self,
        id: ExprId,
        call: &Call,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let strip = self.drops_names_now(id);
        let (mut range, argument) = self.resolve_range_call(call, grid, strip)?;
        // `absent_over_time` only looks at what is there, not at names.
        if range.strip && range.id != FunctionId::AbsentOverTime && self.may_collide(argument) {
            let mut seen = hashbrown::HashSet::new();
            let mut held = self.held(MemoryUse::Vectors);
            return self.range_rows(&mut range, argument, grid, &mut |exec, batch| {
                for row in batch.rows() {
                    held.more(label_bytes(row.labels))?;
                    if !seen.insert(row.labels.clone()) {
                        return Err(same_labels());
                    }
                }
                sink(exec, batch)
            });
        }
        self.range_rows(&mut range, argument, grid, sink)
    }

    fn resolve_range_call(&mut self, call: &Call, grid: &Grid, strip: bool) -> Result<(RangeCall, ExprId)> {
        let plan = self.plan;
        let mut argument = None;
        let mut params = Vec::new();
        for &arg in &call.args {
            if plan.value_type(arg) == ValueType::Matrix {
                argument = Some(plan.ast.unwrap_parens(arg));
            } else {
                params.push(self.scalar(arg, grid)?);
            }
        }
        let Some(argument) = argument else { unreachable!("the function takes a range") };
        let (windows, selector) = match plan.ast.kind(argument) {
            NodeKind::MatrixSelector(m) => {
                let Some(s) = plan.ast.vector_selector(argument) else {
                    unreachable!("a range selector holds a vector selector")
                };
                (selector_windows(s, m.range_ms, plan.times.lookback_ms), Some(s))
            }
            NodeKind::Subquery(s) => (subquery_windows(s), None),
            _ => unreachable!("a range is a range selector or a subquery"),
        };
        let (anchored, smoothed) = selector.map_or((false, false), |s| (s.anchored, s.smoothed));
        check_modifiers(call, anchored, smoothed)?;
        let drop_name = !matches!(call.func.id, FunctionId::LastOverTime | FunctionId::FirstOverTime);
        // Upstream replaces a subquery by its value, which has no place in the text: annotations point at the start.
        let first = plan.ast.unwrap_parens(call.args[0]);
        let of_value = matches!(plan.ast.kind(first), NodeKind::Subquery(_));
        let span = if of_value { Span::default() } else { plan.ast.span(first) };
        let range = RangeCall {
            id: call.func.id,
            windows,
            anchored,
            smoothed,
            params,
            span,
            stored: selector.is_some(),
            drop_name,
            strip: strip && drop_name,
            scratch: Vec::new(),
            slide: SlideBuffers::default(),
            resets: rate::Resets::default(),
            schedule: Schedule::default(),
            samples: Samples::default(),
            checked_name: None,
        };
        Ok((range, argument))
    }

    fn range_rows(
        &mut self,
        range: &mut RangeCall,
        argument: ExprId,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let plan = self.plan;
        match plan.ast.kind(argument) {
            NodeKind::MatrixSelector(m) => {
                let rows = RangeRows { range: range.clone(), grid: *grid };
                self.series_rows(m.selector, rows, grid, sink)
            }
            NodeKind::Subquery(s) => {
                let mut out = Batch::new(grid.count);
                let inner = subquery_grid(s, grid, plan.times.subquery_step_ms);
                let by_step = self.counts.wants_subquery_steps(s, grid);
                if by_step {
                    self.check_grid(&inner)?;
                }
                let part = Counts::new(by_step.then_some(inner.count));
                let mut around = std::mem::replace(&mut self.counts, part);
                let result = self.vector(s.expr, &inner, &mut |exec, batch| {
                    std::mem::swap(&mut exec.counts, &mut around);
                    for row in batch.rows() {
                        range.samples.take_row(&row, &inner)?;
                        exec.range_row(range, row.labels, row.drop_name, grid, &mut out)?;
                    }
                    let result = exec.emit_full(&mut out, sink);
                    std::mem::swap(&mut exec.counts, &mut around);
                    result
                });
                let part = std::mem::replace(&mut self.counts, around);
                self.counts.append_subquery(&part, &inner, s, grid);
                result?;
                self.emit(out, sink)
            }
            _ => unreachable!("checked when the call was resolved"),
        }
    }

    /// Evaluates the function over one series' samples, which lie in `range.samples`.
    fn range_row(
        &mut self,
        range: &mut RangeCall,
        labels: &Labels,
        input_drop_name: bool,
        grid: &Grid,
        out: &mut Batch,
    ) -> Result<()> {
        let samples = std::mem::take(&mut range.samples);
        let mut failure = None;
        let mut tally = std::mem::take(&mut self.counts);
        let mut counts =
            WindowCounts::new(&mut tally, self.cx, &samples, range.stored, range.windows.at.is_some());
        let mut floats = false;
        let (strip, drop_name) = (range.strip, range.drop_name || input_drop_name);
        out.push(
            || if strip { without_metadata(labels) } else { labels.clone() },
            drop_name,
            |row| {
                let windows = range.windows;
                let mut set = |step: usize, point: Point| match point {
                    Point::None => {}
                    Point::Float(v) => {
                        floats = true;
                        row.set(step, v);
                    }
                    Point::Histogram(h) => row.set_histogram(step, h),
                };
                // The frequent functions get loops of their own; the rest goes through one dispatch per window.
                let plain = samples.ht.is_empty() && !range.anchored && !range.smoothed;
                let width = windows.range_ms;
                macro_rules! each {
                    (|$w:ident| $e:expr) => {
                        windows.slide(&samples, grid, &mut counts, |step, $w| set(step, Point::from($e)))
                    };
                }
                match range.id {
                    FunctionId::Rate | FunctionId::Increase | FunctionId::Delta if plain => {
                        let kind = rate_kind(range.id);
                        let mut st_free;
                        let samples = if self.options.start_timestamps || samples.fst.is_empty() {
                            &samples
                        } else {
                            st_free = Samples { fst: Vec::new(), ..Samples::default() };
                            st_free.ft.clone_from(&samples.ft);
                            st_free.fv.clone_from(&samples.fv);
                            &st_free
                        };
                        range.resets.find(samples, kind.is_counter);
                        if samples.fst.is_empty() && is_scheduled(samples.ft.len(), grid) && !counts.by_step()
                        {
                            let RangeCall { schedule, resets, stored, .. } = range;
                            schedule.follow(samples, &windows, grid, kind, *stored);
                            counts.all(schedule.totals());
                            floats = schedule.write(samples, resets, kind, width, row);
                            return;
                        }
                        let resets = &mut range.resets;
                        let (annotations, span) = (&mut self.annotations, range.span);
                        windows.slide(samples, grid, &mut counts, |step, w| {
                            if kind.is_counter && resets.overlap_in(w) {
                                annotations
                                    .start_time_overlap(labels.metric_name().unwrap_or_default(), span);
                            }
                            set(step, rate::extrapolated(w, resets, samples, kind, width).into());
                        })
                    }
                    FunctionId::CountOverTime => each!(|w| Some(w.raw_count())),
                    FunctionId::PresentOverTime | FunctionId::AbsentOverTime => each!(|_w| Some(1.0)),
                    _ => {
                        // Only `resets` looks at start timestamps.
                        let slides = plain
                            && !samples.are_sums()
                            && (samples.fst.is_empty() || range.id != FunctionId::Resets);
                        let annotations = &mut self.annotations;
                        let slid = slides
                            && slide(range, &samples, grid, &mut counts, annotations, |step, v| {
                                set(step, v.into());
                            });
                        if !slid {
                            windows.slide(&samples, grid, &mut counts, |step, w| {
                                match self.range_point(range, labels, step, grid.t(step), w) {
                                    Ok(point) => set(step, point),
                                    Err(err) => failure = Some(err),
                                }
                            });
                        }
                    }
                };
            },
        );
        range.samples = samples;
        let WindowCounts { widest, stopped, .. } = counts;
        self.counts = tally;
        self.windows_counted(widest, stopped)?;
        if floats && matches!(range.id, FunctionId::Rate | FunctionId::Increase) {
            self.check_counter_name(range, labels);
        }
        failure.map_or(Ok(()), Err)
    }

    /// One window of a function without a loop of its own.
    fn range_point(
        &mut self,
        range: &mut RangeCall,
        labels: &Labels,
        step: usize,
        t: i64,
        w: &Window<'_>,
    ) -> Result<Point> {
        use FunctionId::*;
        let param = |i: usize| range.params[i][step];
        if !w.ht.is_empty() || range.anchored || range.smoothed {
            if let Some(point) = self.native_range_point(range, labels, w) {
                return Ok(point);
            }
            if range.id == DoubleExponentialSmoothing {
                check_factors(param(0), param(1))?;
            }
            // What is left looks at the floats only.
            if w.ft.is_empty() {
                return Ok(Point::None);
            }
            self.annotations
                .histogram_ignored_in_mixed_range(labels.metric_name().unwrap_or_default(), range.span);
        }
        let n = w.fv.len();
        Ok(match range.id {
            Rate | Increase | Delta => {
                let mut resets = rate::Resets::default();
                let all = Samples {
                    ft: w.ft.to_vec(),
                    fv: w.fv.to_vec(),
                    fst: w.fst.to_vec(),
                    ..Samples::default()
                };
                let kind = rate_kind(range.id);
                resets.find(&all, kind.is_counter);
                let w = Window { first: 0, ..*w };
                rate::extrapolated(&w, &mut resets, &all, kind, range.windows.range_ms).into()
            }
            Irate => {
                let w = if self.options.start_timestamps { *w } else { Window { fst: &[], ..*w } };
                rate::instant(&w, true).into()
            }
            Idelta => rate::instant(w, false).into(),
            SumOverTime => Point::Float(kahan::kahan_sum(w.fv)),
            AvgOverTime if w.fc.is_empty() => Point::Float(kahan::kahan_mean(w.fv)),
            AvgOverTime => Point::Float(kahan::kahan_sum(w.fv) / w.raw_count()),
            MaxOverTime => Point::Float(over_time::best(w, |v, best| v > best).0),
            MinOverTime => Point::Float(over_time::best(w, |v, best| v < best).0),
            TsOfMaxOverTime => Point::Float(over_time::best(w, |v, best| v >= best).1 as f64 / 1000.0),
            TsOfMinOverTime => Point::Float(over_time::best(w, |v, best| v <= best).1 as f64 / 1000.0),
            TsOfFirstOverTime => Point::Float(w.ft[0] as f64 / 1000.0),
            TsOfLastOverTime => Point::Float(w.ft[n - 1] as f64 / 1000.0),
            FirstOverTime => Point::Float(w.fv[0]),
            LastOverTime => Point::Float(w.fv[n - 1]),
            StdvarOverTime => Point::Float(over_time::variance(w.fv)),
            StddevOverTime => Point::Float(over_time::variance(w.fv).sqrt()),
            MadOverTime => Point::Float(over_time::mad(w.fv, &mut range.scratch)),
            QuantileOverTime => {
                let q = param(0);
                if !(0.0..=1.0).contains(&q) {
                    self.annotations.invalid_quantile(q, range.span);
                }
                range.scratch.clear();
                range.scratch.extend_from_slice(w.fv);
                Point::Float(quantile::quantile(q, &mut range.scratch))
            }
            Changes => {
                let changed = |p: &[f64]| p[0] != p[1] && !(p[0].is_nan() && p[1].is_nan());
                Point::Float(w.fv.windows(2).filter(|p| changed(p)).count() as f64)
            }
            Resets => {
                let by_value = |i: usize| w.fv[i] < w.fv[i - 1];
                let by_start = |i: usize| {
                    self.options.start_timestamps
                        && w.fst.len() == n
                        && rate::is_start_reset(w.fst[i - 1], w.ft[i - 1], w.fst[i], w.ft[i])
                };
                Point::Float((1..n).filter(|&i| by_value(i) || by_start(i)).count() as f64)
            }
            Deriv if n >= 2 => Point::Float(Regression::from(w.ft, w.fv, w.ft[0]).line().0),
            PredictLinear if n >= 2 => {
                let (slope, intercept) = Regression::from(w.ft, w.fv, t).line();
                Point::Float(slope * param(0) + intercept)
            }
            DoubleExponentialSmoothing => {
                let (smoothing, trend) = (param(0), param(1));
                check_factors(smoothing, trend)?;
                if n < 2 {
                    return Ok(Point::None);
                }
                Point::Float(over_time::double_exponential_smoothing(w.fv, smoothing, trend))
            }
            _ => Point::None,
        })
    }

    /// Says so when `rate` or `increase` is used on what does not look like a counter.
    fn check_counter_name(&mut self, range: &mut RangeCall, labels: &Labels) {
        let Some(name) = labels.metric_name().filter(|n| !n.is_empty()) else { return };
        let type_label =
            if self.options.type_and_unit_labels { labels.get("__type__").unwrap_or_default() } else { "" };
        if range.checked_name.as_ref().is_some_and(|(n, t)| n == name && t == type_label) {
            return;
        }
        range.checked_name = Some((name.to_owned(), type_label.to_owned()));
        if self.options.type_and_unit_labels {
            if !matches!(type_label, "counter" | "histogram") {
                self.annotations.possible_non_counter_label(name, type_label, range.span);
            }
        } else if !["_total", "_sum", "_count", "_bucket"].iter().any(|s| name.ends_with(s)) {
            self.annotations.possible_non_counter(name, range.span);
        }
    }
}

/// Rows of a function over a range selector.
#[derive(Clone)]
struct RangeRows {
    range: RangeCall,
    grid: Grid,
}

impl SeriesRows for RangeRows {
    fn add(
        &mut self,
        exec: &mut Exec<'_>,
        labels: &Labels,
        columns: &mut SampleColumns,
        out: &mut Batch,
    ) -> Result<()> {
        self.range.samples.take(columns);
        exec.range_row(&mut self.range, labels, false, &self.grid, out)?;
        // The next series decodes into these buffers.
        std::mem::swap(&mut self.range.samples.ft, &mut columns.ts);
        std::mem::swap(&mut self.range.samples.fv, &mut columns.values);
        Ok(())
    }
}

pub(crate) fn rate_kind(id: FunctionId) -> RateKind {
    RateKind { is_counter: id != FunctionId::Delta, is_rate: id == FunctionId::Rate }
}

fn selector_windows(selector: &VectorSelector, range_ms: i64, lookback_ms: i64) -> Windows {
    Windows {
        range_ms,
        offset_ms: selector.offset_ms,
        at: selector.timestamp_ms,
        before_ms: if selector.anchored || selector.smoothed { lookback_ms } else { 0 },
        after_ms: if selector.smoothed { lookback_ms } else { 0 },
    }
}

fn subquery_windows(subquery: &Subquery) -> Windows {
    Windows {
        range_ms: subquery.range_ms,
        offset_ms: subquery.offset_ms,
        at: subquery.timestamp_ms,
        before_ms: 0,
        after_ms: 0,
    }
}

/// The times at which a subquery's expression is evaluated: multiples of its step inside all windows.
pub(crate) fn subquery_grid(subquery: &Subquery, grid: &Grid, default_step_ms: i64) -> Grid {
    let step = if subquery.step_ms == 0 { default_step_ms } else { subquery.step_ms };
    let (first, last) = match subquery.timestamp_ms {
        Some(t) => (t, t),
        None => (grid.start, grid.last()),
    };
    let edge = first.saturating_sub(subquery.offset_ms).saturating_sub(subquery.range_ms);
    let mut start = step * (edge / step);
    if start <= edge {
        start += step;
    }
    Grid::new(start, last.saturating_sub(subquery.offset_ms), step)
}

/// The factors of `double_exponential_smoothing`, which have to be right for any window that is not empty.
fn check_factors(smoothing: f64, trend: f64) -> Result<()> {
    for (what, short, v) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if v <= 0.0 || v >= 1.0 {
            let text = format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {v:.6}");
            return Err(EngineError::Execution(text));
        }
    }
    Ok(())
}

fn check_modifiers(call: &Call, anchored: bool, smoothed: bool) -> Result<()> {
    use FunctionId::*;
    let (modifier, allowed, ok) = if anchored {
        (
            "anchored",
            "changes, delta, increase, rate, resets",
            matches!(call.func.id, Changes | Delta | Increase | Rate | Resets),
        )
    } else if smoothed {
        ("smoothed", "delta, increase, rate", matches!(call.func.id, Delta | Increase | Rate))
    } else {
        return Ok(());
    };
    if ok {
        return Ok(());
    }
    Err(EngineError::Execution(format!(
        "{modifier} modifier can only be used with: {allowed} - not with {}",
        call.func.name
    )))
}
