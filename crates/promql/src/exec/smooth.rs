//! `anchored` and `smoothed` selectors: values at the very edges of a range, picked or interpolated.

use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, Labels};

use crate::engine::EngineError;
use crate::exec::native_range::About;
use crate::exec::range::{Point, RangeCall};
use crate::exec::samples::{Samples, Window, advance};
use crate::exec::{Batch, Exec, Grid, Result, Sink};
use crate::functions::rate::RateKind;
use crate::parser::{ExprId, VectorSelector};

/// The value at `t` on the line between two points; a counter that fell started from zero.
fn interpolate(a: (i64, f64), b: (i64, f64), t: i64, is_counter: bool) -> f64 {
    let from = if is_counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * (t - a.0) as f64 / (b.0 - a.0) as f64
}

/// As [`interpolate`] for histograms; `None` when they do not go together.
fn interpolate_histograms(
    a: (i64, &FloatHistogram),
    b: (i64, &FloatHistogram),
    t: i64,
    is_counter: bool,
    about: &mut About<'_>,
) -> Option<FloatHistogram> {
    if t == a.0 {
        return Some(a.1.clone());
    }
    if t == b.0 {
        return Some(b.1.clone());
    }
    let fraction = (t - a.0) as f64 / (b.0 - a.0) as f64;
    let mut result = b.1.clone();
    if is_counter && b.1.detect_reset(a.1) {
        result.mul(fraction);
        return Some(result);
    }
    about.sub(&mut result, a.1)?;
    result.mul(fraction);
    about.add(&mut result, a.1)?;
    Some(result)
}

/// Indices of the samples at or around the edges of a window's range; `None` when the range has nothing to measure.
fn edges(ts: &[i64], w: &Window<'_>, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = ts.len().checked_sub(1)?;
    let first = ts[..last].partition_point(|t| *t <= w.start).saturating_sub(1);
    if smoothed {
        last = ts[..last].partition_point(|t| *t < w.end);
    }
    if ts[last] <= w.start || (smoothed && ts[first] > w.end) {
        return None;
    }
    Some((first, last))
}

/// Floats of a window at its range's edges.
fn float_edges(w: &Window<'_>, first: usize, last: usize, smoothed: bool, counter: bool) -> (f64, f64) {
    let at = |i: usize| (w.ft[i], w.fv[i]);
    let left = if smoothed && w.ft[first] < w.start {
        interpolate(at(first), at(first + 1), w.start, counter)
    } else {
        w.fv[first]
    };
    let right = if smoothed && last > 0 && w.ft[last] > w.end {
        interpolate(at(last - 1), at(last), w.end, counter)
    } else {
        w.fv[last]
    };
    (left, right)
}

/// `rate`, `increase`, `delta` of an anchored or smoothed range that holds samples of one kind.
pub(crate) fn extended_rate(
    range: &RangeCall,
    w: &Window<'_>,
    kind: RateKind,
    about: &mut About<'_>,
) -> Point {
    let seconds = range.windows.range_ms as f64 / 1000.0;
    if !w.ht.is_empty() {
        return extended_histogram_rate(range.smoothed, seconds, w, kind, about)
            .map_or(Point::None, |h| Point::Histogram(Arc::new(h)));
    }
    let Some((first, last)) = edges(w.ft, w, range.smoothed) else { return Point::None };
    let (left, right) = float_edges(w, first, last, range.smoothed, kind.is_counter);
    let mut change = right - left;
    if kind.is_counter {
        let from = if w.ft[first] <= w.start { first + 1 } else { first };
        let to = if w.ft[last] >= w.end { last } else { last + 1 };
        let mut previous = left;
        for &v in w.fv.get(from..to).unwrap_or_default().iter().chain([&right]) {
            if v < previous {
                change += previous;
            }
            previous = v;
        }
    }
    Point::Float(if kind.is_rate { change / seconds } else { change })
}

fn extended_histogram_rate(
    smoothed: bool,
    seconds: f64,
    w: &Window<'_>,
    kind: RateKind,
    about: &mut About<'_>,
) -> Option<FloatHistogram> {
    let (first, last) = edges(w.ht, w, smoothed)?;
    let custom = w.hv[first].uses_custom_buckets();
    for h in &w.hv[first..=last] {
        if h.uses_custom_buckets() != custom {
            about.annotations.mixed_exponential_custom(about.metric, about.span);
            return None;
        }
        if kind.is_counter && h.counter_reset == CounterReset::Gauge {
            about.annotations.not_counter(about.metric, about.span);
        }
    }
    let at = |i: usize| (w.ht[i], &*w.hv[i]);
    let left = if smoothed && w.ht[first] < w.start {
        interpolate_histograms(at(first), at(first + 1), w.start, kind.is_counter, about)?
    } else {
        (*w.hv[first]).clone()
    };
    let right = if smoothed && last > 0 && w.ht[last] > w.end {
        interpolate_histograms(at(last - 1), at(last), w.end, kind.is_counter, about)?
    } else {
        (*w.hv[last]).clone()
    };
    let gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    if !kind.is_counter && [&left, &right].into_iter().any(|h| !gauge(h)) {
        about.annotations.not_gauge(about.metric, about.span);
    }
    let mut change = right.clone();
    about.sub(&mut change, &left)?;
    if kind.is_counter
        && let Some(correction) = histogram_correction(w, first, last, &left, &right, smoothed, about)?
    {
        about.add(&mut change, &correction)?;
    }
    if kind.is_rate {
        change.div(seconds);
    }
    change.counter_reset = CounterReset::Gauge;
    change.compact(0);
    Some(change)
}

/// What resets between the edges took away. The outer `None`: histograms that do not go together.
fn histogram_correction(
    w: &Window<'_>,
    first: usize,
    last: usize,
    left: &FloatHistogram,
    right: &FloatHistogram,
    smoothed: bool,
    about: &mut About<'_>,
) -> Option<Option<FloatHistogram>> {
    let mut from = first + 1;
    let mut previous = left;
    if smoothed && w.ht[first] < w.start && w.hv[first + 1].detect_reset(&w.hv[first]) {
        // The interpolation at the left edge went over this reset already.
        previous = &w.hv[first + 1];
        from += 1;
    }
    if from > last {
        return Some(None);
    }
    let mut correction: Option<FloatHistogram> = None;
    let mut add = |h: &FloatHistogram| match &mut correction {
        None => {
            correction = Some(h.clone());
            Some(())
        }
        Some(sum) => about.add(sum, h),
    };
    for h in &w.hv[from..last] {
        if h.detect_reset(previous) {
            add(previous)?;
        }
        previous = h;
    }
    if right.detect_reset(previous) {
        add(previous)?;
    }
    Some(correction)
}

/// The samples of an anchored or smoothed range selector that stands alone: the inner ones and one at each edge.
pub(crate) fn extend_range(w: &Window<'_>, smoothed: bool) -> Result<Vec<(i64, f64)>> {
    if !w.ht.is_empty() {
        let modifier = if smoothed { "smoothed" } else { "anchored" };
        return Err(EngineError::Execution(format!("{modifier} modifier is not supported with histograms")));
    }
    let mut last = w.ft.len() - 1;
    let first = w.ft[..last].partition_point(|t| *t <= w.start).saturating_sub(1);
    if smoothed {
        last = w.ft[..last].partition_point(|t| *t < w.end);
    }
    if w.ft[last] <= w.start {
        return Ok(Vec::new());
    }
    let (left, right) = float_edges(w, first, last, smoothed, false);
    let from = if w.ft[first] <= w.start { first + 1 } else { first };
    let to = if w.ft[last] >= w.end { last } else { last + 1 };
    let mut out = vec![(w.start, left)];
    for i in from..to {
        out.push((w.ft[i], w.fv[i]));
    }
    out.push((w.end, right));
    Ok(out)
}

impl<'a> Exec<'a> {
    /// An instant selector with `smoothed`: the value at each step, interpolated between its neighbours.
    pub(crate) fn select_smoothed(
        &mut self,
        id: ExprId,
        selector: &VectorSelector,
        grid: &Grid,
        sink: Sink<'_, 'a>,
    ) -> Result<()> {
        let mut out = Batch::new(grid.count);
        let mut samples = Samples::default();
        self.each_series(id, &mut |exec, labels, columns: &mut SampleColumns| {
            samples.take(columns);
            exec.smoothed_row(id, selector, labels, &samples, grid, &mut out);
            exec.emit_full(&mut out, sink)
        })?;
        self.emit(out, sink)
    }

    fn smoothed_row(
        &mut self,
        id: ExprId,
        selector: &VectorSelector,
        labels: &Labels,
        samples: &Samples,
        grid: &Grid,
        out: &mut Batch,
    ) {
        let lookback = self.plan.times.lookback_ms;
        let counts = &mut self.counts;
        let mut about = About {
            annotations: &mut self.annotations,
            metric: labels.metric_name().unwrap_or_default(),
            span: self.plan.ast.span(id),
        };
        out.push(
            || labels.clone(),
            false,
            |row| {
                for step in 0..grid.count {
                    let t = selector.timestamp_ms.unwrap_or_else(|| grid.t(step)) - selector.offset_ms;
                    let part = |ts: &[i64]| {
                        let from = advance(ts, ts.partition_point(|x| *x <= t - lookback), t - lookback);
                        (from, ts.partition_point(|x| *x <= t + lookback))
                    };
                    let (f, h) = (part(&samples.ft), part(&samples.ht));
                    let n = (f.1.saturating_sub(f.0) + h.1.saturating_sub(h.0)) as u64;
                    counts.add(step, n, n);
                    match (f.0 < f.1, h.0 < h.1) {
                        (false, false) => {}
                        (true, true) => about.annotations.mixed_floats_histograms(about.metric, about.span),
                        (true, false) => {
                            let (ts, vs) = (&samples.ft[f.0..f.1], &samples.fv[f.0..f.1]);
                            let i = ts.partition_point(|x| *x < t);
                            if i < ts.len() && ts[i] == t {
                                row.set(step, vs[i]);
                            } else if i > 0 && i < ts.len() {
                                row.set(step, interpolate((ts[i - 1], vs[i - 1]), (ts[i], vs[i]), t, false));
                            } else if i > 0 {
                                row.set(step, vs[i - 1]);
                            }
                        }
                        (false, true) => {
                            let (ts, hs) = (&samples.ht[h.0..h.1], &samples.hv[h.0..h.1]);
                            if let Some(h) = smoothed_histogram(ts, hs, t, &mut about) {
                                row.set_histogram(step, h);
                            }
                        }
                    }
                }
            },
        );
    }
}

fn smoothed_histogram(
    ts: &[i64],
    hs: &[Arc<FloatHistogram>],
    t: i64,
    about: &mut About<'_>,
) -> Option<Arc<FloatHistogram>> {
    let i = ts.partition_point(|x| *x < t);
    if i < ts.len() && ts[i] == t {
        return Some(Arc::clone(&hs[i]));
    }
    if i == 0 {
        return None;
    }
    let previous = &hs[i - 1];
    if i == ts.len() {
        let unknown = FloatHistogram { counter_reset: CounterReset::Unknown, ..(**previous).clone() };
        return Some(Arc::new(unknown));
    }
    let next = &hs[i];
    if previous.uses_custom_buckets() != next.uses_custom_buckets() {
        about.annotations.mixed_exponential_custom(about.metric, about.span);
        return None;
    }
    let gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    let is_counter = !(gauge(previous) && gauge(next));
    interpolate_histograms((ts[i - 1], previous), (ts[i], next), t, is_counter, about).map(Arc::new)
}
