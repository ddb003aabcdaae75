//! Buckets with their bounds, and the orders in which a histogram shows them.

use std::fmt;

use super::bounds::bucket_bound;
use super::layout::{Walk, WalkBack};
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, format_g};

/// A bucket: an interval and the observations in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// The lower bound itself belongs to the bucket.
    pub lower_inclusive: bool,
    /// The upper bound itself belongs to the bucket.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
    /// Index within the schema and side; meaningless for the zero bucket.
    pub index: i32,
}

impl Bucket {
    fn new(index: i32, count: f64, schema: i32, positive: bool, custom_values: &[f64]) -> Self {
        let outer = bucket_bound(index, schema, custom_values);
        let inner = bucket_bound(index.wrapping_sub(1), schema, custom_values);
        let (lower, upper) = if positive { (inner, outer) } else { (-outer, -inner) };
        let (lower_inclusive, upper_inclusive) =
            if schema == CUSTOM_BUCKETS_SCHEMA { (index == 0, true) } else { (lower < 0.0, upper > 0.0) };
        Bucket { lower, upper, lower_inclusive, upper_inclusive, count, index }
    }

    /// The part of the bucket, 0 to 1, at or below `v`, which must lie strictly inside finite bounds. Observations are
    /// taken as evenly spread over the bucket (`linear`, as for custom buckets and the zero bucket) or over the
    /// logarithm of it.
    pub fn fraction_below(&self, v: f64, linear: bool) -> f64 {
        if linear {
            return (v - self.lower) / (self.upper - self.lower);
        }
        let [lower, upper, v_log] = [self.lower, self.upper, v].map(|x| x.abs().log2());
        if v > 0.0 { (v_log - lower) / (upper - lower) } else { 1.0 - (v_log - upper) / (lower - upper) }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.lower_inclusive { "[" } else { "(" })?;
        write!(f, "{},{}", format_g(self.lower), format_g(self.upper))?;
        f.write_str(if self.upper_inclusive { "]" } else { ")" })?;
        write!(f, ":{}", format_g(self.count))
    }
}

impl FloatHistogram {
    /// True for explicit bounds.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// The zero bucket, empty or not; histograms with custom buckets have an empty one of no width.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
            index: 0,
        }
    }

    /// Positive buckets, ascending: from the zero bucket upwards.
    pub fn positive_buckets_iter(&self) -> impl Iterator<Item = Bucket> + Clone + '_ {
        Walk::new(&self.positive_spans, &self.positive_buckets).map(self.positive())
    }

    /// Positive buckets, descending: towards the zero bucket.
    pub fn positive_buckets_rev(&self) -> impl Iterator<Item = Bucket> + Clone + '_ {
        WalkBack::new(&self.positive_spans, &self.positive_buckets).map(self.positive())
    }

    /// Negative buckets, descending: from the zero bucket downwards.
    pub fn negative_buckets_iter(&self) -> impl Iterator<Item = Bucket> + Clone + '_ {
        Walk::new(&self.negative_spans, &self.negative_buckets).map(self.negative())
    }

    /// Negative buckets, ascending: towards the zero bucket.
    pub fn negative_buckets_rev(&self) -> impl Iterator<Item = Bucket> + Clone + '_ {
        WalkBack::new(&self.negative_spans, &self.negative_buckets).map(self.negative())
    }

    /// All buckets, ascending, the zero bucket only when it is populated; buckets that reach into the zero bucket end
    /// at its threshold.
    pub fn all_buckets(&self) -> impl Iterator<Item = Bucket> + Clone + '_ {
        let clip = |b| self.clipped(b);
        self.negative_buckets_rev()
            .map(clip)
            .chain(self.populated_zero())
            .chain(self.positive_buckets_iter().map(clip))
    }

    /// All buckets, descending; see [`FloatHistogram::all_buckets`].
    pub fn all_buckets_rev(&self) -> impl Iterator<Item = Bucket> + Clone + '_ {
        let clip = |b| self.clipped(b);
        self.positive_buckets_rev()
            .map(clip)
            .chain(self.populated_zero())
            .chain(self.negative_buckets_iter().map(clip))
    }

    fn populated_zero(&self) -> Option<Bucket> {
        (self.zero_count > 0.0).then(|| self.zero_bucket())
    }

    fn positive(&self) -> impl Fn((i32, f64)) -> Bucket + Clone + '_ {
        |(index, count)| Bucket::new(index, count, self.schema, true, &self.custom_values)
    }

    fn negative(&self) -> impl Fn((i32, f64)) -> Bucket + Clone + '_ {
        |(index, count)| Bucket::new(index, count, self.schema, false, &[])
    }

    fn clipped(&self, mut b: Bucket) -> Bucket {
        if b.upper < 0.0 && b.upper > -self.zero_threshold {
            b.upper = -self.zero_threshold;
        } else if b.lower > 0.0 && b.lower < self.zero_threshold {
            b.lower = self.zero_threshold;
        }
        b
    }
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    fn sample() -> FloatHistogram {
        FloatHistogram {
            zero_threshold: 0.6,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![1.0, 3.0],
            negative_spans: vec![Span { offset: 1, length: 1 }, Span { offset: 1, length: 1 }],
            negative_buckets: vec![4.0, 5.0],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn all_buckets_in_both_orders() {
        let h = sample();
        let forward: Vec<_> = h.all_buckets().map(|b| b.to_string()).collect();
        assert_eq!(forward, ["[-8,-4):5", "[-2,-1):4", "[-0.6,0.6]:2", "(0.6,1]:1", "(1,2]:3"]);
        let mut back: Vec<_> = h.all_buckets_rev().map(|b| b.to_string()).collect();
        back.reverse();
        assert_eq!(back, forward);
    }

    #[test]
    fn custom_buckets() {
        let h = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: vec![1.0, 2.0],
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 0.0, 2.0],
            ..FloatHistogram::default()
        };
        let all: Vec<_> = h.all_buckets().map(|b| b.to_string()).collect();
        assert_eq!(all, ["[-Inf,1]:1", "(1,2]:0", "(2,+Inf]:2"]);
    }
}
