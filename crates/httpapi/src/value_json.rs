//! Query results as JSON, written straight from the columns.

use chronolith_model::{FloatHistogram, Labels};
use chronolith_promql::value::{MatrixSeries, PointValue, Value, VectorSample};

use crate::JsonBuf;

/// Writes `"resultType":…,"result":…` (without braces, so that a caller can add `stats`).
pub fn write_value(j: &mut JsonBuf, value: &Value) {
    let written = write_value_while(j, value, &mut || Ok::<(), std::convert::Infallible>(()));
    match written {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// As [`write_value`]; `go_on` is asked between series, and its error ends the writing.
pub fn write_value_while<E>(
    j: &mut JsonBuf,
    value: &Value,
    go_on: &mut dyn FnMut() -> Result<(), E>,
) -> Result<(), E> {
    j.raw(r#""resultType":"#).string(value.type_name()).raw(r#","result":"#);
    match value {
        Value::Matrix(series) => {
            let times = TimeTexts::of(series);
            write_list(j, series, go_on, |j, series| write_series(j, series, &times))?;
        }
        Value::Vector(samples) => write_list(j, samples, go_on, write_sample)?,
        Value::Scalar { t, v } => {
            j.raw("[").timestamp(*t).raw(",").value(*v).raw("]");
        }
        Value::String { t, s } => {
            j.raw("[").timestamp(*t).raw(",").string(s).raw("]");
        }
    }
    Ok(())
}

/// Bytes that a value takes as JSON, roughly, to ask for memory before it is written.
pub fn value_bytes(value: &Value) -> usize {
    // `[1700000000,"12345.678"],` and the names around it.
    const POINT: usize = 28;
    const SERIES: usize = 48;
    let labels = |labels: &Labels| labels.encoded_len() + labels.len() * 6;
    let histogram = |h: &FloatHistogram| 64 + 48 * (h.positive_buckets.len() + h.negative_buckets.len());
    match value {
        Value::Matrix(series) => series
            .iter()
            .map(|s| {
                let histograms: usize = s.histograms.iter().map(|(_, h)| POINT + histogram(h)).sum();
                SERIES + labels(&s.labels) + s.timestamps.len() * POINT + histograms
            })
            .sum(),
        Value::Vector(samples) => samples
            .iter()
            .map(|s| {
                let value = match &s.value {
                    PointValue::Float(_) => 0,
                    PointValue::Histogram(h) => histogram(h),
                };
                SERIES + labels(&s.labels) + POINT + value
            })
            .sum(),
        Value::Scalar { .. } => POINT,
        Value::String { s, .. } => POINT + s.len(),
    }
}

/// Items between two questions whether to go on.
const ITEMS_BETWEEN_QUESTIONS: usize = 64;

fn write_list<T, E>(
    j: &mut JsonBuf,
    items: &[T],
    go_on: &mut dyn FnMut() -> Result<(), E>,
    mut write: impl FnMut(&mut JsonBuf, &T),
) -> Result<(), E> {
    j.raw("[");
    for (i, item) in items.iter().enumerate() {
        if i.is_multiple_of(ITEMS_BETWEEN_QUESTIONS) {
            go_on()?;
        }
        if i > 0 {
            j.raw(",");
        }
        write(j, item);
    }
    j.raw("]");
    Ok(())
}

fn write_sample(j: &mut JsonBuf, s: &VectorSample) {
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
}

/// The texts of the times of the longest series, with the punctuation before and after them: the series of a range query
/// have the same times, or a part of them.
struct TimeTexts<'a> {
    times: &'a [i64],
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl<'a> TimeTexts<'a> {
    fn of(series: &'a [MatrixSeries]) -> Self {
        let times = series.iter().map(|s| s.timestamps.as_slice()).max_by_key(|t| t.len()).unwrap_or(&[]);
        // A time is written once at least; for a single series there is nothing to win.
        let times = if series.len() > 1 { times } else { &[] };
        let mut j = JsonBuf::new();
        let mut ends = Vec::with_capacity(times.len());
        for t in times {
            j.raw("[").timestamp(*t).raw(",");
            ends.push(j.bytes.len() as u32);
        }
        TimeTexts { times, text: j.bytes, ends }
    }

    /// Writes `[time,`. `at` is where the series' last time was found.
    #[inline]
    fn write(&self, j: &mut JsonBuf, t: i64, at: &mut usize) {
        while self.times.get(*at).is_some_and(|known| *known < t) {
            *at += 1;
        }
        if self.times.get(*at) == Some(&t) {
            let from = if *at == 0 { 0 } else { self.ends[*at - 1] as usize };
            j.bytes.extend_from_slice(&self.text[from..self.ends[*at] as usize]);
        } else {
            j.raw("[").timestamp(t).raw(",");
        }
    }
}

fn write_series(j: &mut JsonBuf, series: &MatrixSeries, times: &TimeTexts<'_>) {
    j.raw(r#"{"metric":"#);
    write_labels(j, &series.labels);
    if !series.timestamps.is_empty() {
        let mut at = 0;
        j.raw(r#","values":"#).array(series.timestamps.iter().zip(&series.values), |j, (t, v)| {
            times.write(j, *t, &mut at);
            j.value(*v).raw("]");
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
/// 0 `(lower,upper]`, 1 `[lower,upper)`, 2 `(lower,upper)`, 3 `[lower,upper]`.
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
    use super::*;

    fn json(value: &Value) -> String {
        let mut j = JsonBuf::new();
        j.raw("{");
        write_value(&mut j, value);
        j.raw("}");
        String::from_utf8(j.bytes).unwrap()
    }

    #[test]
    fn series_with_some_or_other_times_than_the_longest() {
        let series = |timestamps: Vec<i64>| MatrixSeries {
            labels: Labels::empty(),
            values: vec![1.0; timestamps.len()],
            timestamps,
            histograms: vec![],
        };
        let times = [vec![1000, 3000], vec![1000, 2000, 3000], vec![500, 2500, 9000], vec![3000]];
        let shown = times.map(|times| {
            let texts = times.iter().map(|t| {
                let mut j = JsonBuf::new();
                j.raw("[").timestamp(*t).raw(r#","1"]"#);
                String::from_utf8(j.bytes).unwrap()
            });
            (format!(r#"{{"metric":{{}},"values":[{}]}}"#, texts.collect::<Vec<_>>().join(",")), times)
        });
        let value = Value::Matrix(shown.iter().map(|(_, times)| series(times.clone())).collect());
        let expected: Vec<&str> = shown.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(json(&value), format!(r#"{{"resultType":"matrix","result":[{}]}}"#, expected.join(",")));
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
