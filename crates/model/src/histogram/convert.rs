//! Integer histograms as float histograms, and sizes.

use super::layout::absolute;
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram};

impl Histogram {
    /// True for explicit bounds.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// The float form, with absolute counts.
    pub fn to_float(&self) -> FloatHistogram {
        let floats = |deltas: &[i64]| absolute(deltas).map(|c| c as f64).collect();
        FloatHistogram {
            counter_reset: self.counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: floats(&self.positive_buckets),
            negative_buckets: floats(&self.negative_buckets),
            custom_values: self.custom_values.clone(),
        }
    }
}

impl FloatHistogram {
    /// Memory as Prometheus counts it (168 bytes and 8 a span, bucket and bound), on which its sample limits rest.
    pub fn size_bytes(&self) -> usize {
        let items = self.positive_spans.len()
            + self.negative_spans.len()
            + self.positive_buckets.len()
            + self.negative_buckets.len()
            + self.custom_values.len();
        168 + 8 * items
    }

    /// True when a field is infinite, which additions of finite histograms can lead to.
    pub fn has_overflow(&self) -> bool {
        let fields = [self.zero_count, self.count, self.sum];
        fields
            .iter()
            .chain(&self.positive_buckets)
            .chain(&self.negative_buckets)
            .chain(&self.custom_values)
            .any(|v| v.is_infinite())
    }
}
