//! Histograms as they come: what is refused, and when two are the same.

use chronolith_model::histogram::{
    CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MAX_RESERVED, HistogramError,
};
use chronolith_model::{SampleValue, WriteHistogram, is_stale_nan};

/// Checks a histogram as it came. Schemas of the reserve are brought to the finest that is stored.
pub(crate) fn check(h: &WriteHistogram, buckets_max: usize) -> Result<Option<WriteHistogram>, String> {
    let (schema, buckets, bounds) = match h {
        WriteHistogram::Integer(h) => {
            (h.schema, h.positive_buckets.len() + h.negative_buckets.len(), h.custom_values.len())
        }
        WriteHistogram::Float(h) => {
            (h.schema, h.positive_buckets.len() + h.negative_buckets.len(), h.custom_values.len())
        }
    };
    let size = buckets.max(bounds);
    if size > buckets_max {
        return Err(format!("{size} buckets, more than {buckets_max}"));
    }
    let text = |e: HistogramError| e.to_string();
    if schema != CUSTOM_BUCKETS_SCHEMA
        && (EXPONENTIAL_SCHEMA_MAX + 1..=EXPONENTIAL_SCHEMA_MAX_RESERVED).contains(&schema)
    {
        let mut reduced = h.clone();
        // Reducing takes what it finds, so the rest is checked before.
        match &mut reduced {
            WriteHistogram::Integer(h) => {
                h.schema = EXPONENTIAL_SCHEMA_MAX;
                h.validate().map_err(text)?;
                h.schema = schema;
                h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).map_err(text)?;
            }
            WriteHistogram::Float(h) => {
                h.schema = EXPONENTIAL_SCHEMA_MAX;
                h.validate().map_err(text)?;
                h.schema = schema;
                h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).map_err(text)?;
            }
        }
        return Ok(Some(reduced));
    }
    match h {
        WriteHistogram::Integer(h) => h.validate().map_err(text)?,
        WriteHistogram::Float(h) => h.validate().map_err(text)?,
    }
    Ok(None)
}

/// True when a stored sample is this histogram, whatever is known of resets and however its empty buckets are laid out.
pub(crate) fn is_same(stored: &SampleValue, h: &WriteHistogram) -> bool {
    match (stored, h) {
        (SampleValue::Histogram(a), WriteHistogram::Integer(b)) => {
            if is_stale_nan(a.sum) || is_stale_nan(b.sum) {
                return is_stale_nan(a.sum) && is_stale_nan(b.sum);
            }
            let (mut a, mut b) = ((**a).clone(), (**b).clone());
            a.compact(0).equals(b.compact(0))
        }
        (SampleValue::FloatHistogram(a), WriteHistogram::Float(b)) => {
            if is_stale_nan(a.sum) || is_stale_nan(b.sum) {
                return is_stale_nan(a.sum) && is_stale_nan(b.sum);
            }
            let (mut a, mut b) = ((**a).clone(), (**b).clone());
            a.compact(0).equals(b.compact(0))
        }
        _ => false,
    }
}

/// The same histogram as a decoded sample.
pub(crate) fn to_value(h: &WriteHistogram) -> SampleValue {
    match h {
        WriteHistogram::Integer(h) => SampleValue::Histogram(std::sync::Arc::new((**h).clone())),
        WriteHistogram::Float(h) => SampleValue::FloatHistogram(std::sync::Arc::new((**h).clone())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chronolith_model::histogram::{CounterReset, Span};
    use chronolith_model::{FloatHistogram, Histogram};

    use super::*;

    pub(crate) fn histogram(n: i64) -> Histogram {
        Histogram {
            count: 3 * n as u64,
            sum: n as f64 * 1.5,
            zero_threshold: 1e-128,
            zero_count: n as u64,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![n, 0],
            ..Histogram::default()
        }
    }

    pub(crate) fn integer(n: i64) -> WriteHistogram {
        WriteHistogram::Integer(Box::new(histogram(n)))
    }

    pub(crate) fn float(n: i64) -> WriteHistogram {
        WriteHistogram::Float(Box::new(histogram(n).to_float()))
    }

    #[test]
    fn bad_histograms_are_named_and_fine_ones_reduced() {
        let mut bad = histogram(1);
        bad.count = 17;
        let text = check(&WriteHistogram::Integer(Box::new(bad)), 100).unwrap_err();
        assert!(text.contains("observations found in buckets"), "{text}");
        assert!(check(&integer(1), 1).unwrap_err().contains("more than 1"));
        assert_eq!(check(&float(1), 100), Ok(None));
        let fine = Histogram { schema: 10, counter_reset: CounterReset::Gauge, ..histogram(1) };
        let reduced = check(&WriteHistogram::Integer(Box::new(fine)), 100).unwrap().unwrap();
        let WriteHistogram::Integer(reduced) = reduced else { panic!("stays integer") };
        assert_eq!((reduced.schema, reduced.count, reduced.counter_reset), (8, 3, CounterReset::Gauge));
        let unknown = FloatHistogram { schema: 53, ..histogram(1).to_float() };
        assert!(check(&WriteHistogram::Float(Box::new(unknown)), 100).unwrap_err().contains("schema"));
    }
}
