//! Multiplication, division, addition and subtraction of float histograms.
//!
//! Addition and subtraction reconcile what differs: the coarser schema, a zero bucket wide enough for both, the common
//! custom bounds. The result may hold empty buckets; [`FloatHistogram::compact`] removes them.

use std::borrow::Cow;

use super::bounds::exponential_bound;
use super::custom::{combine_mismatched, intersect_bounds};
use super::layout::{Rebuild, Walk, reduce};
use super::{CounterReset, FloatHistogram, HistogramError, Span};

/// What a caller may have to warn about after an addition or subtraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddNotes {
    /// One histogram said "reset", the other "not reset".
    pub counter_reset_collision: bool,
    /// Custom bounds differed; the result has the common ones.
    pub custom_bounds_reconciled: bool,
}

impl FloatHistogram {
    /// Multiplies counts and sum; a negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) -> &mut Self {
        self.scale(|v| *v *= factor);
        if factor < 0.0 {
            self.counter_reset = CounterReset::Gauge;
        }
        self
    }

    /// Divides counts and sum; a negative divisor makes a gauge, division by zero removes the buckets.
    pub fn div(&mut self, divisor: f64) -> &mut Self {
        if divisor == 0.0 {
            for (spans, buckets) in [
                (&mut self.positive_spans, &mut self.positive_buckets),
                (&mut self.negative_spans, &mut self.negative_buckets),
            ] {
                spans.clear();
                buckets.clear();
            }
        }
        self.scale(|v| *v /= divisor);
        if divisor < 0.0 {
            self.counter_reset = CounterReset::Gauge;
        }
        self
    }

    fn scale(&mut self, apply: impl Fn(&mut f64)) {
        for v in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            apply(v);
        }
        self.positive_buckets.iter_mut().for_each(&apply);
        self.negative_buckets.iter_mut().for_each(&apply);
    }

    /// Adds `other`. On an error `self` is unchanged.
    pub fn add(&mut self, other: &FloatHistogram) -> Result<AddNotes, HistogramError> {
        self.combine(other, 1.0)
    }

    /// Subtracts `other`. The counter reset hint follows the rules of addition; for PromQL's `-` the caller makes the
    /// result a gauge.
    pub fn sub(&mut self, other: &FloatHistogram) -> Result<AddNotes, HistogramError> {
        self.combine(other, -1.0)
    }

    fn combine(&mut self, other: &FloatHistogram, sign: f64) -> Result<AddNotes, HistogramError> {
        let mut notes = self.begin_combine(other)?;
        if !self.uses_custom_buckets() {
            let other_zero_count = self.reconcile_zero_buckets(other, None);
            self.zero_count += sign * other_zero_count;
        }
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        if self.uses_custom_buckets() && self.custom_values != other.custom_values {
            notes.custom_bounds_reconciled = true;
            let bounds = intersect_bounds(&self.custom_values, &other.custom_values);
            let side = combine_mismatched(self, other, sign, None, &bounds);
            (self.positive_spans, self.positive_buckets) = (side.spans, side.buckets);
            self.custom_values = bounds;
            return Ok(notes);
        }
        self.lower_schema(other.schema);
        let threshold = (!self.uses_custom_buckets()).then_some(self.zero_threshold);
        for (spans, buckets, other_spans, other_buckets) in [
            (
                &mut self.positive_spans,
                &mut self.positive_buckets,
                &other.positive_spans,
                &other.positive_buckets,
            ),
            (
                &mut self.negative_spans,
                &mut self.negative_buckets,
                &other.negative_spans,
                &other.negative_buckets,
            ),
        ] {
            let (s, b) = in_schema(other_spans, other_buckets, other.schema, self.schema);
            add_side(spans, buckets, &s, &b, sign, self.schema, threshold);
        }
        Ok(notes)
    }

    /// Checks that the two go together and settles the counter reset hint.
    pub(super) fn begin_combine(&mut self, other: &FloatHistogram) -> Result<AddNotes, HistogramError> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(HistogramError::IncompatibleSchema);
        }
        use CounterReset::{Gauge, NotReset, Reset, Unknown};
        let (hint, counter_reset_collision) = match (self.counter_reset, other.counter_reset) {
            (a, b) if a == b => (a, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Reset, NotReset) | (NotReset, Reset) => (Unknown, true),
            _ => (Unknown, false),
        };
        self.counter_reset = hint;
        Ok(AddNotes { counter_reset_collision, custom_bounds_reconciled: false })
    }

    fn lower_schema(&mut self, schema: i32) {
        if schema < self.schema {
            (self.positive_spans, self.positive_buckets) =
                reduce(&self.positive_spans, &self.positive_buckets, self.schema, schema);
            (self.negative_spans, self.negative_buckets) =
                reduce(&self.negative_spans, &self.negative_buckets, self.schema, schema);
            self.schema = schema;
        }
    }
}

/// Buckets as they are, or merged into the coarser `target`.
fn in_schema<'a>(
    spans: &'a [Span],
    buckets: &'a [f64],
    schema: i32,
    target: i32,
) -> (Cow<'a, [Span]>, Cow<'a, [f64]>) {
    if schema > target {
        let (spans, buckets) = reduce(spans, buckets, schema, target);
        (spans.into(), buckets.into())
    } else {
        (spans.into(), buckets.into())
    }
}

/// Adds `sign · other` to one side. Leading buckets of `other` that lie within the zero bucket are left out: they are
/// in the zero count already.
fn add_side(
    spans: &mut Vec<Span>,
    buckets: &mut Vec<f64>,
    other_spans: &[Span],
    other_buckets: &[f64],
    sign: f64,
    schema: i32,
    threshold: Option<f64>,
) {
    let starts_outside = match (threshold, other_spans.first()) {
        (Some(threshold), Some(first)) => exponential_bound(first.offset, schema) > threshold,
        _ => true,
    };
    if *spans == other_spans && buckets.len() == other_buckets.len() && starts_outside {
        for (a, b) in buckets.iter_mut().zip(other_buckets) {
            *a += sign * b;
        }
        return;
    }
    let other = outside_zero(Walk::new(other_spans, other_buckets), schema, threshold);
    let mut out = Rebuild::default();
    let mut counts = Vec::with_capacity(buckets.len() + other_buckets.len());
    for (index, a, b) in zip_sides(Walk::new(spans, buckets), other) {
        out.push(index);
        counts.push(match (a, b) {
            (Some(a), Some(b)) => a + sign * b,
            (Some(a), None) => a,
            (None, b) => sign * b.unwrap_or(0.0),
        });
    }
    *spans = out.spans;
    *buckets = counts;
}

/// Skips the leading buckets whose bound does not pass the zero threshold.
pub(super) fn outside_zero<T>(
    walk: impl Iterator<Item = (i32, T)>,
    schema: i32,
    threshold: Option<f64>,
) -> impl Iterator<Item = (i32, T)> {
    walk.skip_while(move |(index, _)| threshold.is_some_and(|t| exponential_bound(*index, schema) <= t))
}

/// Walks two sides together, ascending by index.
pub(super) fn zip_sides<A: Copy, B: Copy>(
    a: impl Iterator<Item = (i32, A)>,
    b: impl Iterator<Item = (i32, B)>,
) -> impl Iterator<Item = (i32, Option<A>, Option<B>)> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || {
        let index = match (a.peek(), b.peek()) {
            (None, None) => return None,
            (Some(x), None) => x.0,
            (None, Some(y)) => y.0,
            (Some(x), Some(y)) => x.0.min(y.0),
        };
        Some((index, a.next_if(|x| x.0 == index).map(|x| x.1), b.next_if(|y| y.0 == index).map(|y| y.1)))
    })
}

#[cfg(test)]
mod tests;
