//! Histograms as text.

use std::fmt::{self, Write as _};

use super::{CounterReset, FloatHistogram, Histogram};

/// A float as Go prints it with `%g`: the shortest digits that read back, with an exponent below 1e-04 and
/// from 1e+06 on.
pub fn format_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    // The shortest digits are those of `{:e}`: `d.ddde-7`.
    let text = format!("{v:e}");
    let (mantissa, exp) = text.split_once('e').expect("`{:e}` has an exponent");
    let exp: i32 = exp.parse().expect("a whole exponent");
    if (-4..6).contains(&exp) {
        return format!("{v}");
    }
    format!("{mantissa}e{}{:02}", if exp < 0 { '-' } else { '+' }, exp.unsigned_abs())
}

impl fmt::Display for FloatHistogram {
    /// Prometheus's form: `{count:3, sum:5, [-2,-1):1, [-0.001,0.001]:1, (1,2]:1}`, populated buckets only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", format_g(self.count), format_g(self.sum))?;
        for b in self.negative_buckets_rev().filter(|b| b.count != 0.0) {
            write!(f, ", {b}")?;
        }
        if self.zero_count != 0.0 && !self.uses_custom_buckets() {
            write!(f, ", {}", self.zero_bucket())?;
        }
        for b in self.positive_buckets_iter().filter(|b| b.count != 0.0) {
            write!(f, ", {b}")?;
        }
        f.write_char('}')
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_float().fmt(f)
    }
}

impl FloatHistogram {
    /// The form that Prometheus's test scripts use: `{{schema:1 count:3 sum:5 buckets:[1 2]}}`.
    pub fn test_expression(&self) -> String {
        let mut h = self.clone();
        // One span a side.
        h.compact(i32::MAX);
        let mut parts = Vec::new();
        if h.schema != 0 {
            parts.push(format!("schema:{}", h.schema));
        }
        let numbers = [
            ("count", h.count),
            ("sum", h.sum),
            ("z_bucket", h.zero_count),
            ("z_bucket_w", h.zero_threshold),
        ];
        parts.extend(
            numbers.iter().filter(|(_, v)| *v != 0.0).map(|(name, v)| format!("{name}:{}", format_g(*v))),
        );
        if h.uses_custom_buckets() {
            parts.push(format!("custom_values:{}", list(&h.custom_values)));
        }
        match h.counter_reset {
            CounterReset::Unknown => {}
            CounterReset::Reset => parts.push("counter_reset_hint:reset".to_owned()),
            CounterReset::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
            CounterReset::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
        }
        for (buckets_key, offset_key, buckets, spans) in [
            ("buckets", "offset", &h.positive_buckets, &h.positive_spans),
            ("n_buckets", "n_offset", &h.negative_buckets, &h.negative_spans),
        ] {
            for span in spans.iter().filter(|s| s.offset != 0) {
                parts.push(format!("{offset_key}:{}", span.offset));
            }
            if !buckets.is_empty() {
                parts.push(format!("{buckets_key}:{}", list(buckets)));
            }
        }
        format!("{{{{{}}}}}", parts.join(" "))
    }
}

fn list(values: &[f64]) -> String {
    format!("[{}]", values.iter().map(|v| format_g(*v)).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::Span;
    use super::*;

    #[test]
    fn numbers_as_go_prints_them() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1234567.5, "1.2345675e+06"),
            (1e20, "1e+20"),
            (1e21, "1e+21"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (2.938735877055719e-39, "2.938735877055719e-39"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(format_g(v), text);
        }
    }

    #[test]
    fn texts() {
        let h = FloatHistogram {
            count: 12.5,
            sum: -3.0,
            zero_threshold: 0.001,
            zero_count: 2.0,
            positive_spans: vec![Span { offset: 1, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![1.0, 3.5],
            negative_spans: vec![Span { offset: 0, length: 3 }],
            negative_buckets: vec![4.0, 0.0, 2.0],
            ..FloatHistogram::default()
        };
        assert_eq!(
            h.to_string(),
            "{count:12.5, sum:-3, [-4,-2):2, [-1,-0.5):4, [-0.001,0.001]:2, (1,2]:1, (4,8]:3.5}"
        );
        assert_eq!(
            h.test_expression(),
            "{{count:12.5 sum:-3 z_bucket:2 z_bucket_w:0.001 offset:1 buckets:[1 0 3.5] n_buckets:[4 0 2]}}"
        );
    }
}
