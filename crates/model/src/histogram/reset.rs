//! Counter resets between two histograms of one series.

use super::arith::outside_zero;
use super::bounds::bucket_bound;
use super::layout::{Walk, merged};
use super::{CounterReset, FloatHistogram};

impl FloatHistogram {
    /// True when `self` cannot follow `previous` without a counter reset: a count or a bucket shrank or vanished, the
    /// resolution grew, the zero bucket shrank or now ends inside a populated bucket. Coarser schema and wider zero
    /// bucket alone are no reset. A hint that says "reset" or "not reset" decides; gauges are compared like counters.
    pub fn detect_reset(&self, previous: &FloatHistogram) -> bool {
        match self.counter_reset {
            CounterReset::Reset => return true,
            CounterReset::NotReset => return false,
            CounterReset::Unknown | CounterReset::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            if self.custom_values != previous.custom_values {
                return self.shrank_in_common_bounds(previous);
            }
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (previous_zero_count, threshold) = previous.zero_count_for(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < previous_zero_count {
            return true;
        }
        let threshold =
            (!self.uses_custom_buckets() && self.zero_threshold != 0.0).then_some(self.zero_threshold);
        [
            (
                &self.positive_spans,
                &self.positive_buckets,
                &previous.positive_spans,
                &previous.positive_buckets,
            ),
            (
                &self.negative_spans,
                &self.negative_buckets,
                &previous.negative_spans,
                &previous.negative_buckets,
            ),
        ]
        .into_iter()
        .any(|(spans, buckets, previous_spans, previous_buckets)| {
            let before = merged(Walk::new(previous_spans, previous_buckets), previous.schema, self.schema);
            shrank(
                outside_zero(Walk::new(spans, buckets), self.schema, threshold),
                outside_zero(before, self.schema, threshold),
            )
        })
    }

    /// Compares counts between common bounds.
    fn shrank_in_common_bounds(&self, previous: &FloatHistogram) -> bool {
        let common = super::custom::intersect_bounds(&self.custom_values, &previous.custom_values);
        let rolled_up = |h: &FloatHistogram| {
            let mut sums = vec![0.0; common.len() + 1];
            for (index, count) in h.positive_counts() {
                let upper = bucket_bound(index, h.schema, &h.custom_values);
                sums[common.partition_point(|bound| *bound < upper)] += count;
            }
            sums
        };
        rolled_up(self).iter().zip(rolled_up(previous)).any(|(now, before)| *now < before)
    }
}

/// True when a populated bucket of `previous` is missing or smaller in `current`.
fn shrank(current: impl Iterator<Item = (i32, f64)>, previous: impl Iterator<Item = (i32, f64)>) -> bool {
    let mut current = current.peekable();
    for (index, before) in previous {
        while current.next_if(|(i, _)| *i < index).is_some() {}
        let now = current.peek().filter(|(i, _)| *i == index).map(|(_, now)| *now);
        if now.map_or(before != 0.0, |now| now < before) {
            return true;
        }
    }
    false
}
