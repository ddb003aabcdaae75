//! Addition with Kahan-Neumaier compensation: what rounding loses is kept in a second histogram.

use super::arith::{outside_zero, zip_sides};
use super::custom::{combine_mismatched, intersect_bounds};
use super::layout::{Rebuild, Walk, index_in};
use super::{AddNotes, FloatHistogram, HistogramError, Span};

/// Adds `inc` to `sum`, collecting in `term` what rounding loses.
#[inline]
pub(super) fn kahan_inc(inc: f64, sum: &mut f64, term: &mut f64) {
    let t = *sum + inc;
    if t.is_infinite() {
        *term = 0.0;
    } else if sum.abs() >= inc.abs() {
        *term += (*sum - t) + inc;
    } else {
        *term += (inc - t) + *sum;
    }
    *sum = t;
}

/// A bucket's count and its compensation term.
type Compensated = (f64, f64);

impl FloatHistogram {
    /// Adds `other`, keeping the lost low-order parts in `compensation`, which starts as `None` and is, in the end,
    /// added to `self`. Both keep the same bucket layout.
    pub fn kahan_add(
        &mut self,
        other: &FloatHistogram,
        compensation: &mut Option<FloatHistogram>,
    ) -> Result<AddNotes, HistogramError> {
        let mut notes = self.begin_combine(other)?;
        let c = compensation.get_or_insert_with(|| self.empty_compensation());
        if !self.uses_custom_buckets() {
            let other_zero_count = self.reconcile_zero_buckets(other, Some(&mut *c));
            kahan_inc(other_zero_count, &mut self.zero_count, &mut c.zero_count);
        }
        kahan_inc(other.count, &mut self.count, &mut c.count);
        kahan_inc(other.sum, &mut self.sum, &mut c.sum);
        if self.uses_custom_buckets() && self.custom_values != other.custom_values {
            notes.custom_bounds_reconciled = true;
            let bounds = intersect_bounds(&self.custom_values, &other.custom_values);
            let side = combine_mismatched(self, other, 1.0, Some(&c.positive_buckets), &bounds);
            (self.positive_spans, self.positive_buckets) = (side.spans, side.buckets);
            c.positive_buckets = side.terms;
            c.positive_spans.clone_from(&self.positive_spans);
            c.custom_values.clone_from(&bounds);
            self.custom_values = bounds;
            return Ok(notes);
        }
        let schema = self.schema.min(other.schema);
        let threshold = (!self.uses_custom_buckets()).then_some(self.zero_threshold);
        let side = Sides { from: self.schema, other_from: other.schema, to: schema, threshold };
        side.add(
            &mut self.positive_spans,
            &mut self.positive_buckets,
            &mut c.positive_buckets,
            &other.positive_spans,
            &other.positive_buckets,
        );
        side.add(
            &mut self.negative_spans,
            &mut self.negative_buckets,
            &mut c.negative_buckets,
            &other.negative_spans,
            &other.negative_buckets,
        );
        self.schema = schema;
        c.schema = schema;
        c.zero_threshold = self.zero_threshold;
        c.positive_spans.clone_from(&self.positive_spans);
        c.negative_spans.clone_from(&self.negative_spans);
        Ok(notes)
    }

    /// Terms of zero in the layout of `self`.
    fn empty_compensation(&self) -> FloatHistogram {
        FloatHistogram {
            zero_count: 0.0,
            count: 0.0,
            sum: 0.0,
            positive_buckets: vec![0.0; self.positive_buckets.len()],
            negative_buckets: vec![0.0; self.negative_buckets.len()],
            ..self.clone()
        }
    }
}

/// How both sides of a histogram are added.
struct Sides {
    from: i32,
    other_from: i32,
    to: i32,
    threshold: Option<f64>,
}

impl Sides {
    fn add(
        &self,
        spans: &mut Vec<Span>,
        buckets: &mut Vec<f64>,
        terms: &mut Vec<f64>,
        other_spans: &[Span],
        other_buckets: &[f64],
    ) {
        let own: Vec<Compensated> =
            buckets.iter().copied().zip(terms.iter().copied().chain(std::iter::repeat(0.0))).collect();
        let (own_spans, own) = self.reduced(spans, &own, self.from);
        let other: Vec<Compensated> = other_buckets.iter().map(|b| (*b, 0.0)).collect();
        let (other_spans, other) = self.reduced(other_spans, &other, self.other_from);
        let mut out = Rebuild::default();
        buckets.clear();
        terms.clear();
        let other = outside_zero(Walk::new(&other_spans, &other), self.to, self.threshold);
        for (index, a, b) in zip_sides(Walk::new(&own_spans, &own), other) {
            let (mut sum, mut term) = a.or(b).unwrap_or_default();
            if let (Some(_), Some((count, lost))) = (a, b) {
                kahan_inc(count, &mut sum, &mut term);
                if lost != 0.0 {
                    kahan_inc(lost, &mut sum, &mut term);
                }
            }
            out.push(index);
            buckets.push(sum);
            terms.push(term);
        }
        *spans = out.spans;
    }

    /// Merges buckets into the common schema.
    fn reduced(&self, spans: &[Span], buckets: &[Compensated], from: i32) -> (Vec<Span>, Vec<Compensated>) {
        if from == self.to {
            return (spans.to_vec(), buckets.to_vec());
        }
        let mut out = Rebuild::default();
        let mut sums: Vec<Compensated> = Vec::with_capacity(buckets.len());
        let mut last = None;
        for (index, (count, lost)) in Walk::new(spans, buckets) {
            let index = index_in(index, from, self.to);
            match sums.last_mut() {
                Some((sum, term)) if last == Some(index) => {
                    kahan_inc(count, sum, term);
                    kahan_inc(lost, sum, term);
                }
                _ => {
                    out.push(index);
                    sums.push((count, lost));
                    last = Some(index);
                }
            }
        }
        (out.spans, sums)
    }
}
