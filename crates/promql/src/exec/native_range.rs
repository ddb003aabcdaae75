//! Range functions on windows that hold native histograms.

use std::sync::Arc;

use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, Labels};

use crate::annotations::{Annotations, HistogramOperation};
use crate::exec::Exec;
use crate::exec::range::{Point, RangeCall, rate_kind};
use crate::exec::samples::Window;
use crate::functions::rate::{self, RateKind, Span as RateSpan};
use crate::parser::{FunctionId, Span};

/// Where annotations about a window go, and what they are about.
pub(crate) struct About<'x> {
    pub(crate) annotations: &'x mut Annotations,
    pub(crate) metric: &'x str,
    pub(crate) span: Span,
}

impl About<'_> {
    /// Adds `other` to `sum`; `None` when they do not go together.
    pub(crate) fn add(&mut self, sum: &mut FloatHistogram, other: &FloatHistogram) -> Option<()> {
        let notes = sum.add(other);
        self.notes(notes, HistogramOperation::Add)
    }

    /// Subtracts `other` from `from`.
    pub(crate) fn sub(&mut self, from: &mut FloatHistogram, other: &FloatHistogram) -> Option<()> {
        let notes = from.sub(other);
        self.notes(notes, HistogramOperation::Sub)
    }

    fn notes(
        &mut self,
        notes: Result<chronolith_model::histogram::AddNotes, chronolith_model::histogram::HistogramError>,
        operation: HistogramOperation,
    ) -> Option<()> {
        match notes {
            Ok(notes) => {
                if notes.custom_bounds_reconciled {
                    self.annotations.mismatched_custom_buckets(operation, self.span);
                }
                Some(())
            }
            Err(_) => {
                self.annotations.mixed_exponential_custom(self.metric, self.span);
                None
            }
        }
    }
}

impl<'a> Exec<'a> {
    /// The function's value when it looks at histograms; `None` for one that looks at the floats only.
    pub(crate) fn native_range_point(
        &mut self,
        range: &RangeCall,
        labels: &Labels,
        w: &Window<'_>,
    ) -> Option<Point> {
        use FunctionId::*;
        let use_st = self.options.start_timestamps && matches!(range.id, Rate | Increase | Irate | Resets);
        let w = &if use_st { *w } else { Window { fst: &[], hst: &[], ..*w } };
        let mut about = About {
            annotations: &mut self.annotations,
            metric: labels.metric_name().unwrap_or_default(),
            span: range.span,
        };
        Some(match range.id {
            Rate | Increase | Delta | SumOverTime | AvgOverTime if w.is_mixed() => {
                about.annotations.mixed_floats_histograms(about.metric, about.span);
                Point::None
            }
            Rate | Increase | Delta if range.anchored || range.smoothed => {
                super::smooth::extended_rate(range, w, rate_kind(range.id), &mut about)
            }
            Rate | Increase | Delta if w.ht.is_empty() => return None,
            Rate | Increase | Delta => {
                histogram_rate(w, rate_kind(range.id), range.windows.range_ms, &mut about)
            }
            Irate | Idelta => instant(w, range.id == Irate, &mut about),
            SumOverTime => sum(w, &mut about),
            AvgOverTime if w.hc.is_empty() => mean(w, &mut about),
            AvgOverTime => match sum(w, &mut about) {
                Point::Histogram(mut sum) => {
                    Arc::make_mut(&mut sum).div(w.raw_count());
                    Point::Histogram(sum)
                }
                nothing => nothing,
            },
            FirstOverTime => match (w.ft.first(), w.ht.first()) {
                (Some(f), Some(h)) if f < h => Point::Float(w.fv[0]),
                (Some(_), None) => Point::Float(w.fv[0]),
                _ => Point::Histogram(Arc::clone(&w.hv[0])),
            },
            LastOverTime => match (w.ft.last(), w.ht.last()) {
                (Some(f), Some(h)) if h < f => Point::Float(w.fv[w.fv.len() - 1]),
                (Some(_), None) => Point::Float(w.fv[w.fv.len() - 1]),
                _ => Point::Histogram(Arc::clone(&w.hv[w.hv.len() - 1])),
            },
            TsOfFirstOverTime => {
                let first = w.ft.first().into_iter().chain(w.ht.first()).min().copied().unwrap_or(0);
                Point::Float(first as f64 / 1000.0)
            }
            TsOfLastOverTime => {
                let last = w.ft.last().into_iter().chain(w.ht.last()).max().copied().unwrap_or(0);
                Point::Float(last as f64 / 1000.0)
            }
            Changes => count_pairs(w, range.anchored, |a, b| match (a.value, b.value) {
                (Kind::Float(x), Kind::Float(y)) => x != y && !(x.is_nan() && y.is_nan()),
                (Kind::Histogram(x), Kind::Histogram(y)) => !y.equals(x),
                _ => true,
            }),
            Resets => count_pairs(w, range.anchored, |a, b| match (a.value, b.value) {
                (Kind::Float(x), Kind::Float(y)) => y < x || rate::is_start_reset(a.st, a.t, b.st, b.t),
                (Kind::Histogram(x), Kind::Histogram(y)) => {
                    rate::is_start_reset(a.st, a.t, b.st, b.t) || y.detect_reset(x)
                }
                _ => true,
            }),
            _ => return None,
        })
    }
}

#[derive(Clone, Copy)]
enum Kind<'w> {
    Float(f64),
    Histogram(&'w FloatHistogram),
}

#[derive(Clone, Copy)]
struct Item<'w> {
    t: i64,
    st: i64,
    value: Kind<'w>,
}

/// The window's samples of both kinds in time order.
fn in_order<'w>(w: &Window<'w>) -> Vec<Item<'w>> {
    let (mut f, mut h) = (0, 0);
    let mut out = Vec::with_capacity(w.ft.len() + w.ht.len());
    while f < w.ft.len() || h < w.ht.len() {
        if h >= w.ht.len() || (f < w.ft.len() && w.ft[f] < w.ht[h]) {
            let st = w.fst.get(f).copied().unwrap_or(0);
            out.push(Item { t: w.ft[f], st, value: Kind::Float(w.fv[f]) });
            f += 1;
        } else {
            let st = w.hst.get(h).copied().unwrap_or(0);
            out.push(Item { t: w.ht[h], st, value: Kind::Histogram(&w.hv[h]) });
            h += 1;
        }
    }
    out
}

/// Counts neighbours for which `counts` says yes. An anchored range starts with the last sample at or before its left
/// edge and is empty when there is none after it.
fn count_pairs(w: &Window<'_>, anchored: bool, counts: impl Fn(&Item<'_>, &Item<'_>) -> bool) -> Point {
    let items = in_order(w);
    let mut items = items.as_slice();
    if anchored {
        let after = items.partition_point(|i| i.t <= w.start);
        if after == items.len() {
            return Point::None;
        }
        items = &items[after.saturating_sub(1)..];
    }
    Point::Float(items.windows(2).filter(|p| counts(&p[0], &p[1])).count() as f64)
}

/// The extrapolated change of a window of histograms only.
fn histogram_rate(w: &Window<'_>, kind: RateKind, range_ms: i64, about: &mut About<'_>) -> Point {
    let n = w.hv.len();
    let mut change = if n > 1 { raw_change(w, kind, about) } else { None };
    if n > 1 && change.is_none() {
        return Point::None;
    }
    let span = RateSpan {
        first_t: w.ht[0],
        last_t: w.ht[n - 1],
        gaps: n - 1,
        range_start: w.start,
        range_end: w.end,
        first_st: w.hst.first().copied().unwrap_or(0),
    };
    if span.starts_inside(kind.is_counter) {
        match &mut change {
            None => change = Some((*w.hv[0]).clone()),
            Some(change) => {
                if about.add(change, &w.hv[0]).is_none() {
                    return Point::None;
                }
            }
        }
    }
    let Some(mut change) = change else { return Point::None };
    let factor = span.factor(kind, range_ms, |sampled| {
        (change.count > 0.0 && w.hv[0].count >= 0.0).then(|| sampled * (w.hv[0].count / change.count))
    });
    change.mul(factor);
    Point::Histogram(Arc::new(change))
}

/// Last less first, plus what was lost in resets.
fn raw_change(w: &Window<'_>, kind: RateKind, about: &mut About<'_>) -> Option<FloatHistogram> {
    let (first, last) = (&w.hv[0], &w.hv[w.hv.len() - 1]);
    let is_gauge = |h: &FloatHistogram| h.counter_reset == CounterReset::Gauge;
    if kind.is_counter && (is_gauge(first) || is_gauge(last)) {
        about.annotations.not_counter(about.metric, about.span);
    }
    let starts_anew =
        |i: usize| w.hst.len() > i && rate::is_start_reset(w.hst[i - 1], w.ht[i - 1], w.hst[i], w.ht[i]);
    // A first sample right before a reset adds nothing: its bucket layout must not matter.
    let nothing;
    let mut previous: &FloatHistogram = first;
    if kind.is_counter && (starts_anew(1) || w.hv[1].detect_reset(first)) {
        nothing = FloatHistogram {
            schema: w.hv[1].schema,
            custom_values: w.hv[1].custom_values.clone(),
            ..FloatHistogram::default()
        };
        previous = &nothing;
    }
    let custom = previous.uses_custom_buckets();
    if last.uses_custom_buckets() != custom {
        about.annotations.mixed_exponential_custom(about.metric, about.span);
        return None;
    }
    let mut schema = last.schema.min(previous.schema);
    if kind.is_counter {
        for h in &w.hv[1..w.hv.len() - 1] {
            if is_gauge(h) {
                about.annotations.not_counter(about.metric, about.span);
            }
            schema = schema.min(h.schema);
            if h.uses_custom_buckets() != custom {
                about.annotations.mixed_exponential_custom(about.metric, about.span);
                return None;
            }
        }
    }
    let mut change = last.copy_to_schema(schema).unwrap_or_else(|_| (**last).clone());
    about.sub(&mut change, previous)?;
    if kind.is_counter {
        let mut overlap = false;
        for i in 1..w.hv.len() {
            if !overlap && w.hst.len() > i && rate::starts_overlap(w.hst[i - 1], w.ht[i - 1], w.hst[i]) {
                about.annotations.start_time_overlap(about.metric, about.span);
                overlap = true;
            }
            if starts_anew(i) || w.hv[i].detect_reset(previous) {
                about.add(&mut change, previous)?;
            }
            previous = &w.hv[i];
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        about.annotations.not_gauge(about.metric, about.span);
    }
    change.counter_reset = CounterReset::Gauge;
    change.compact(0);
    Some(change)
}

/// The change between the last two samples of either kind.
fn instant(w: &Window<'_>, is_rate: bool, about: &mut About<'_>) -> Point {
    let items = in_order(w);
    let [.., a, b] = items.as_slice() else { return Point::None };
    let interval = b.t - a.t;
    if interval == 0 {
        return Point::None;
    }
    let seconds = interval as f64 / 1000.0;
    match (a.value, b.value) {
        (Kind::Float(x), Kind::Float(y)) => {
            let reset = is_rate && (y < x || rate::is_start_reset(a.st, a.t, b.st, b.t));
            let change = if reset { y } else { y - x };
            Point::Float(if is_rate { change / seconds } else { change })
        }
        (Kind::Histogram(x), Kind::Histogram(y)) => {
            let gauges = [x, y].map(|h| h.counter_reset == CounterReset::Gauge);
            if is_rate && (gauges[0] || gauges[1]) {
                about.annotations.not_counter(about.metric, about.span);
            }
            if !is_rate && gauges.contains(&false) {
                about.annotations.not_gauge(about.metric, about.span);
            }
            let mut change = y.clone();
            let reset = rate::is_start_reset(a.st, a.t, b.st, b.t) || y.detect_reset(x);
            if (!is_rate || !reset) && about.sub(&mut change, x).is_none() {
                return Point::None;
            }
            change.counter_reset = CounterReset::Gauge;
            change.compact(0);
            if is_rate {
                change.div(seconds);
            }
            Point::Histogram(Arc::new(change))
        }
        _ => {
            about.annotations.mixed_floats_histograms(about.metric, about.span);
            Point::None
        }
    }
}

/// Watches the hints of histograms that are added up.
fn check_hints(hv: &[Arc<FloatHistogram>], about: &mut About<'_>) {
    let seen = |hint| hv.iter().any(|h| h.counter_reset == hint);
    if seen(CounterReset::Reset) && seen(CounterReset::NotReset) {
        about.annotations.counter_reset_collision(HistogramOperation::Aggregation, about.span);
    }
}

fn sum(w: &Window<'_>, about: &mut About<'_>) -> Point {
    let mut sum = (*w.hv[0]).clone();
    let mut compensation = None;
    let mut reconciled = false;
    for h in &w.hv[1..] {
        match sum.kahan_add(h, &mut compensation) {
            Ok(notes) => reconciled |= notes.custom_bounds_reconciled,
            Err(_) => {
                about.annotations.mixed_exponential_custom(about.metric, about.span);
                return Point::None;
            }
        }
    }
    if let Some(c) = &compensation {
        reconciled |= sum.add(c).is_ok_and(|n| n.custom_bounds_reconciled);
    }
    check_hints(w.hv, about);
    if reconciled {
        about.annotations.mismatched_custom_buckets(HistogramOperation::Aggregation, about.span);
    }
    Point::Histogram(Arc::new(sum))
}

fn mean(w: &Window<'_>, about: &mut About<'_>) -> Point {
    let mut mean = crate::functions::native::Mean::new(&w.hv[0]);
    for h in &w.hv[1..] {
        if mean.add(h).is_err() {
            about.annotations.mixed_exponential_custom(about.metric, about.span);
            return Point::None;
        }
    }
    check_hints(w.hv, about);
    if mean.reconciled {
        about.annotations.mismatched_custom_buckets(HistogramOperation::Aggregation, about.span);
    }
    Point::Histogram(Arc::new(mean.finish()))
}
