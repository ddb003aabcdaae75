//! Query results as JSON, written straight from the columns.

use chronolith_model::{FloatHistogram, Labels};
use chronolith_promql::value::{MatrixSeries, PointValue, Value};

use crate::JsonBuf;

/// Writes `"resultType":…,"result":…` (without braces, so that a caller can add `stats`).
pub fn write_value(j: &mut JsonBuf, value: &Value) {
    j.raw(r#""resultType":"#).string(value.type_name()).raw(r#","result":"#);
    match value {
        Value::Matrix(series) => {
            j.array(series, write_series);
        }
        Value::Vector(samples) => {
            j.array(samples, |j, s| {
                j.raw(r#"{"metric":"#);
                write_labels(j, &s.labels);
                match &s.value {
                    PointValue::Float(v) => {
                        j.raw(r#","value":["#).timestamp(s.t).raw(",").value(*v).raw("]}");
                    }
                    PointValue::Histogram(h) => {
                        j.raw(r#","histogram":["#).timestamp(s.t).raw(",");
                        write_histogram(j, h);
                        j.raw("]}");
                    }
                }
            });
        }
        Value::Scalar { t, v } => {
            j.raw("[").timestamp(*t).raw(",").value(*v).raw("]");
        }
        Value::String { t, s } => {
            j.raw("[").timestamp(*t).raw(",").string(s).raw("]");
        }
    }
}

fn write_series(j: &mut JsonBuf, series: &MatrixSeries) {
    j.raw(r#"{"metric":"#);
    write_labels(j, &series.labels);
    if !series.timestamps.is_empty() {
        j.raw(r#","values":"#).array(series.timestamps.iter().zip(&series.values), |j, (t, v)| {
            j.raw("[").timestamp(*t).raw(",").value(*v).raw("]");
        });
    }
    if !series.histograms.is_empty() {
        j.raw(r#","histograms":"#).array(&series.histograms, |j, (t, h)| {
            j.raw("[").timestamp(*t).raw(",");
            write_histogram(j, h);
            j.raw("]");
        });
    }
    j.raw("}");
}

/// Writes a label set as an object in name order.
pub fn write_labels(j: &mut JsonBuf, labels: &Labels) {
    j.raw("{");
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            j.raw(",");
        }
        j.string(name).raw(":").string(value);
    }
    j.raw("}");
}

/// Writes `{"count":…,"sum":…,"buckets":[[rule,"lower","upper","count"],…]}`; empty buckets are left out. Rules:
/// 0 (lower,upper], 1 [lower,upper), 2 (lower,upper), 3 [lower,upper].
fn write_histogram(j: &mut JsonBuf, h: &FloatHistogram) {
    j.raw(r#"{"count":"#).value(h.count).raw(r#","sum":"#).value(h.sum);
    let mut any = false;
    for bucket in h.all_buckets() {
        if bucket.count == 0.0 {
            continue;
        }
        j.raw(if any { "," } else { r#","buckets":["# });
        any = true;
        let rule = match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => "0",
            (true, false) => "1",
            (false, false) => "2",
            (true, true) => "3",
        };
        j.raw("[").raw(rule).raw(",").value(bucket.lower).raw(",").value(bucket.upper).raw(",");
        j.value(bucket.count).raw("]");
    }
    j.raw(if any { "]}" } else { "}" });
}

#[cfg(test)]
mod tests {
    use chronolith_promql::value::VectorSample;

    use super::*;

    fn json(value: &Value) -> String {
        let mut j = JsonBuf::new();
        j.raw("{");
        write_value(&mut j, value);
        j.raw("}");
        String::from_utf8(j.bytes).unwrap()
    }

    #[test]
    fn every_result_type() {
        let labels = Labels::from_pairs([("a", "x\"y"), ("__name__", "up")]).unwrap();
        let vector = Value::Vector(vec![VectorSample {
            labels: labels.clone(),
            t: 1500,
            value: PointValue::Float(0.5),
        }]);
        assert_eq!(
            json(&vector),
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"up","a":"x\"y"},"value":[1.500,"0.5"]}]}"#
        );
        let matrix = Value::Matrix(vec![MatrixSeries {
            labels: Labels::empty(),
            timestamps: vec![0, 1000],
            values: vec![f64::NAN, 1e21],
            histograms: vec![],
        }]);
        assert_eq!(
            json(&matrix),
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[0,"NaN"],[1,"1e+21"]]}]}"#
        );
        assert_eq!(json(&Value::Scalar { t: 0, v: 2.0 }), r#"{"resultType":"scalar","result":[0,"2"]}"#);
        assert_eq!(json(&Value::Vector(vec![])), r#"{"resultType":"vector","result":[]}"#);
        assert_eq!(
            json(&Value::String { t: 0, s: "x".into() }),
            r#"{"resultType":"string","result":[0,"x"]}"#
        );
    }
}
