//! Consistency of histograms that come from outside.

use super::layout::absolute;
use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, HistogramError, Span, is_exponential_schema};

impl Histogram {
    /// Checks spans against buckets, counts against buckets, and fields against the schema.
    ///
    /// NaN observations are in the count and in no bucket; so with a NaN sum the count may be larger.
    pub fn validate(&self) -> Result<(), HistogramError> {
        Fields {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            custom_values: &self.custom_values,
        }
        .check()?;
        check_counts("negative side:", absolute(&self.negative_buckets).map(|c| c as f64))?;
        check_counts("positive side:", absolute(&self.positive_buckets).map(|c| c as f64))?;
        let buckets = absolute(&self.negative_buckets)
            .chain(absolute(&self.positive_buckets))
            .fold(self.zero_count, |sum, c| sum.wrapping_add(c as u64));
        let count = self.count;
        if self.sum.is_nan() {
            if buckets > count {
                return Err(HistogramError::CountNotBigEnough { buckets, count });
            }
        } else if buckets != count {
            return Err(HistogramError::CountMismatch { buckets, count });
        }
        Ok(())
    }
}

impl FloatHistogram {
    /// Checks spans against buckets, signs of counts, and fields against the schema. The count is not compared with
    /// the buckets: rounding would refuse good histograms.
    pub fn validate(&self) -> Result<(), HistogramError> {
        Fields {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count,
            positive: (&self.positive_spans, self.positive_buckets.len()),
            negative: (&self.negative_spans, self.negative_buckets.len()),
            custom_values: &self.custom_values,
        }
        .check()?;
        check_counts("negative side:", self.negative_buckets.iter().copied())?;
        check_counts("zero", std::iter::once(self.zero_count))?;
        if self.count < 0.0 {
            return Err(HistogramError::NegativeCount(self.count));
        }
        check_counts("positive side:", self.positive_buckets.iter().copied())
    }
}

fn check_counts(side: &'static str, counts: impl Iterator<Item = f64>) -> Result<(), HistogramError> {
    for (i, count) in counts.enumerate() {
        if count < 0.0 {
            return Err(HistogramError::NegativeBucketCount { side, bucket: i + 1, count });
        }
    }
    Ok(())
}

/// What both kinds of histogram are checked for alike.
struct Fields<'a> {
    schema: i32,
    zero_threshold: f64,
    zero_count: f64,
    positive: (&'a [Span], usize),
    negative: (&'a [Span], usize),
    custom_values: &'a [f64],
}

impl Fields<'_> {
    fn check(&self) -> Result<(), HistogramError> {
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            check_bounds(self.custom_values)?;
            check_spans("custom buckets", self.positive.0, self.positive.1)?;
            let need = self.positive.0.iter().map(|s| i64::from(s.length) + i64::from(s.offset)).sum::<i64>();
            let first = self.positive.0.first().filter(|s| s.offset < 0);
            if let Some(span) = first {
                return Err(HistogramError::SpanNegativeOffset {
                    side: "custom buckets",
                    span: 1,
                    offset: span.offset,
                });
            }
            if self.custom_values.len() as i64 + 1 < need {
                return Err(HistogramError::CustomBoundsTooFew { bounds: self.custom_values.len(), need });
            }
            let field = if self.zero_count != 0.0 {
                "have zero count of 0"
            } else if self.zero_threshold != 0.0 {
                "have zero threshold of 0"
            } else if !self.negative.0.is_empty() {
                "not have negative spans"
            } else if self.negative.1 > 0 {
                "not have negative buckets"
            } else {
                return Ok(());
            };
            return Err(HistogramError::CustomBucketsField(field));
        }
        if !is_exponential_schema(self.schema) {
            return Err(HistogramError::InvalidSchema(self.schema));
        }
        check_spans("positive side", self.positive.0, self.positive.1)?;
        check_spans("negative side", self.negative.0, self.negative.1)?;
        if self.custom_values.is_empty() { Ok(()) } else { Err(HistogramError::ExponentialWithCustomBounds) }
    }
}

fn check_spans(side: &'static str, spans: &[Span], have: usize) -> Result<(), HistogramError> {
    for (i, s) in spans.iter().enumerate().skip(1) {
        if s.offset < 0 {
            return Err(HistogramError::SpanNegativeOffset { side, span: i + 1, offset: s.offset });
        }
    }
    let need = spans.iter().map(|s| u64::from(s.length)).sum::<u64>();
    if need == have as u64 { Ok(()) } else { Err(HistogramError::SpansBucketsMismatch { side, need, have }) }
}

fn check_bounds(bounds: &[f64]) -> Result<(), HistogramError> {
    let mut prev = f64::NEG_INFINITY;
    for (i, &bound) in bounds.iter().enumerate() {
        if bound.is_nan() {
            return Err(HistogramError::CustomBoundsNan);
        }
        if i > 0 && bound <= prev {
            return Err(HistogramError::CustomBoundsNotAscending { prev, bound });
        }
        prev = bound;
    }
    if prev == f64::INFINITY { Err(HistogramError::CustomBoundsInfinite) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let good = Histogram {
            count: 10,
            zero_count: 2,
            positive_spans: vec![Span { offset: -1, length: 2 }, Span { offset: 0, length: 1 }],
            positive_buckets: vec![1, 1, -1],
            negative_spans: vec![Span { offset: 0, length: 1 }],
            negative_buckets: vec![4],
            ..Histogram::default()
        };
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(good.to_float().validate(), Ok(()));
        type Change = fn(&mut Histogram);
        let bad: [(&str, Change); 9] = [
            ("count", |h| h.count = 11),
            ("nan sum", |h| (h.count, h.sum) = (9, f64::NAN)),
            ("negative bucket", |h| h.positive_buckets[1] = -2),
            ("offset", |h| h.positive_spans[1].offset = -1),
            ("length", |h| h.positive_spans[1].length = u32::MAX),
            ("buckets", |h| h.negative_buckets.push(0)),
            ("schema", |h| h.schema = 9),
            ("bounds", |h| h.custom_values = vec![1.0]),
            ("custom", |h| h.schema = CUSTOM_BUCKETS_SCHEMA),
        ];
        for (name, change) in bad {
            let mut h = good.clone();
            change(&mut h);
            assert!(h.validate().is_err(), "{name}");
        }
        let mut nan = good.clone();
        (nan.count, nan.sum) = (11, f64::NAN);
        assert_eq!(nan.validate(), Ok(()));
    }

    #[test]
    fn custom() {
        let good = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_values: vec![1.0, 2.0],
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_buckets: vec![1.0, 2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(good.validate(), Ok(()));
        for bounds in [vec![1.0], vec![2.0, 1.0], vec![1.0, f64::NAN], vec![1.0, f64::INFINITY]] {
            assert!(FloatHistogram { custom_values: bounds, ..good.clone() }.validate().is_err());
        }
    }
}
