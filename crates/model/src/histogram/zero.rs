//! The zero bucket of exponential histograms: widening it until two histograms agree.

use super::FloatHistogram;
use super::compact::compact_side;
use super::kahan::kahan_inc;

/// A zero bucket that a histogram would have.
struct Widened {
    threshold: f64,
    count: f64,
    term: f64,
}

impl FloatHistogram {
    /// The zero count and threshold after widening the zero bucket to `threshold`, or to the far bound of a populated
    /// bucket in which that would end.
    pub(super) fn zero_count_for(&self, threshold: f64) -> (f64, f64) {
        let w = self.widened(threshold, None);
        (w.count, w.threshold)
    }

    fn widened(&self, mut threshold: f64, terms: Option<&FloatHistogram>) -> Widened {
        let start = Widened { threshold, count: self.zero_count, term: terms.map_or(0.0, |c| c.zero_count) };
        if threshold == self.zero_threshold {
            return start;
        }
        'again: loop {
            let (mut count, mut term) = (start.count, start.term);
            let mut include = |bucket: f64, lost: Option<&f64>| {
                kahan_inc(bucket, &mut count, &mut term);
                if let Some(lost) = lost {
                    kahan_inc(*lost, &mut count, &mut term);
                }
            };
            for (i, b) in self.positive_buckets_iter().enumerate() {
                if b.lower >= threshold {
                    break;
                }
                include(b.count, terms.and_then(|c| c.positive_buckets.get(i)));
                if b.upper > threshold {
                    if b.count != 0.0 {
                        threshold = b.upper;
                    }
                    break;
                }
            }
            for (i, b) in self.negative_buckets_iter().enumerate() {
                if b.upper <= -threshold {
                    break;
                }
                include(b.count, terms.and_then(|c| c.negative_buckets.get(i)));
                if b.lower < -threshold {
                    if b.count != 0.0 {
                        // The positive side has to be judged again by the larger threshold.
                        threshold = -b.lower;
                        continue 'again;
                    }
                    break;
                }
            }
            return Widened { threshold, count, term };
        }
    }

    /// Widens the zero bucket of `self` until it covers both histograms' and ends inside no populated bucket of
    /// either. Returns the zero count that `other` would have.
    pub(super) fn reconcile_zero_buckets(
        &mut self,
        other: &FloatHistogram,
        mut terms: Option<&mut FloatHistogram>,
    ) -> f64 {
        let (mut other_count, mut other_threshold) = (other.zero_count, other.zero_threshold);
        // Thresholds only grow, each step by a bucket; NaN, which only a damaged histogram has, ends it.
        loop {
            let before = (self.zero_threshold, other_threshold);
            if self.zero_threshold > other_threshold {
                (other_count, other_threshold) = other.zero_count_for(self.zero_threshold);
            }
            if other_threshold > self.zero_threshold {
                let w = self.widened(other_threshold, terms.as_deref());
                (self.zero_count, self.zero_threshold) = (w.count, w.threshold);
                if let Some(c) = terms.as_deref_mut() {
                    c.zero_count = w.term;
                }
                self.trim_buckets_in_zero_bucket(terms.as_deref_mut());
            }
            if self.zero_threshold == other_threshold || before == (self.zero_threshold, other_threshold) {
                return other_count;
            }
            if self.zero_threshold.is_nan() || other_threshold.is_nan() {
                return other_count;
            }
        }
    }

    /// Removes the buckets whose counts are in the zero bucket now.
    fn trim_buckets_in_zero_bucket(&mut self, terms: Option<&mut FloatHistogram>) {
        let positive = self.positive_buckets_iter().take_while(|b| b.lower < self.zero_threshold).count();
        let negative = self.negative_buckets_iter().take_while(|b| b.upper > -self.zero_threshold).count();
        self.positive_buckets[..positive].fill(0.0);
        self.negative_buckets[..negative].fill(0.0);
        let (mut positive_terms, mut negative_terms) = (None, None);
        if let Some(c) = terms {
            c.positive_buckets[..positive].fill(0.0);
            c.negative_buckets[..negative].fill(0.0);
            positive_terms = Some(&mut c.positive_buckets);
            negative_terms = Some(&mut c.negative_buckets);
        }
        compact_side(&mut self.positive_spans, &mut self.positive_buckets, positive_terms, 0);
        compact_side(&mut self.negative_spans, &mut self.negative_buckets, negative_terms, 0);
    }
}
