//! Histograms with custom buckets whose bounds differ: both are mapped to the bounds that they have in common.

use super::kahan::kahan_inc;
use super::layout::{Rebuild, Walk};
use super::{FloatHistogram, Span};

/// The bounds that both have; both ascend.
pub(super) fn intersect_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            out.push(*x);
            i += 1;
            j += 1;
        } else if x < y {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

/// One side with its compensation terms.
pub(super) struct Side {
    pub(super) spans: Vec<Span>,
    pub(super) buckets: Vec<f64>,
    pub(super) terms: Vec<f64>,
}

/// `a + sign · b` over the common `bounds`; `a_terms` are compensation terms of `a`'s buckets. Empty buckets are left
/// out.
pub(super) fn combine_mismatched(
    a: &FloatHistogram,
    b: &FloatHistogram,
    sign: f64,
    a_terms: Option<&[f64]>,
    bounds: &[f64],
) -> Side {
    let mut sums = vec![(0.0, 0.0); bounds.len() + 1];
    let mut add = |h: &FloatHistogram, sign: f64, terms: Option<&[f64]>| {
        let mut walk = Walk::new(&h.positive_spans, &h.positive_buckets);
        while let Some((at, index, count)) = walk.next_at() {
            // A bucket goes to the first common bound that is not below its own; those above all go to +Inf.
            let target = match usize::try_from(index).ok().and_then(|i| h.custom_values.get(i)) {
                Some(own) => bounds.partition_point(|bound| bound < own),
                None => bounds.len(),
            };
            let (sum, term) = &mut sums[target];
            kahan_inc(sign * count, sum, term);
            if let Some(t) = terms.and_then(|t| t.get(at)) {
                kahan_inc(*t, sum, term);
            }
        }
    };
    add(a, 1.0, a_terms);
    add(b, sign, None);
    let mut out = Rebuild::default();
    let (mut buckets, mut terms) = (Vec::new(), Vec::new());
    for (i, (sum, term)) in sums.into_iter().enumerate() {
        if sum != 0.0 || term != 0.0 {
            out.push(i as i32);
            buckets.push(sum);
            terms.push(term);
        }
    }
    Side { spans: out.spans, buckets, terms }
}
