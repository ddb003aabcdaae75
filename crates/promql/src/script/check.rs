//! Compares results with what a script expects.

use chronolith_model::{FloatHistogram, Labels};

use super::statement::{Description, Eval, Pattern, single};
use crate::functions::almost::almost_equal;
use crate::parser::SequenceValue;
use crate::value::{MatrixSeries, PointValue, QueryResult, Value, VectorSample};

/// Relative tolerance of values.
const EPSILON: f64 = 1e-6;

/// Compares the annotations.
pub(crate) fn annotations(eval: &Eval, result: &QueryResult) -> Result<(), String> {
    level("warning", &eval.warnings, eval.no_warn, &result.warnings)?;
    level("info", &eval.infos, eval.no_info, &result.infos)
}

fn level(name: &str, wanted: &[Pattern], none: bool, got: &[String]) -> Result<(), String> {
    if none && !got.is_empty() {
        return Err(format!("unexpected {name} annotations: {got:?}"));
    }
    for pattern in wanted {
        if !got.iter().any(|text| pattern.matches(text)) {
            return Err(format!("expected {name} annotation {pattern:?}, got {got:?}"));
        }
    }
    if !wanted.is_empty()
        && let Some(other) = got.iter().find(|text| !wanted.iter().any(|p| p.matches(text)))
    {
        return Err(format!("unexpected {name} annotation {other:?}"));
    }
    Ok(())
}

/// Compares the value of an instant query.
pub(crate) fn instant(eval: &Eval, value: &Value) -> Result<(), String> {
    match value {
        Value::String { s, .. } => match &eval.string {
            Some(want) if want == s.as_bytes() => Ok(()),
            want => Err(format!("expected {want:?}, got the string {s:?}")),
        },
        Value::Scalar { v, .. } => match eval.scalar {
            Some(want) if almost_equal(want, *v, EPSILON) => Ok(()),
            want => Err(format!("expected {want:?}, got the scalar {v}")),
        },
        Value::Vector(samples) => vector(eval, samples, eval.ordered),
        Value::Matrix(series) => match eval.range_vector {
            Some((start, end, step)) => matrix(&eval.series, series, start, end, step),
            None if series.is_empty() && eval.series.is_empty() => Ok(()),
            None => Err("got a matrix without `expect range vector`".to_owned()),
        },
    }
}

/// Compares a vector.
pub(crate) fn vector(eval: &Eval, got: &[VectorSample], ordered: bool) -> Result<(), String> {
    if let Some(want) = eval.scalar {
        return Err(format!("expected the scalar {want}, got a vector"));
    }
    for (i, sample) in got.iter().enumerate() {
        let Some(position) = eval.series.iter().position(|s| s.labels == sample.labels) else {
            return Err(format!("unexpected series {} with {:?}", sample.labels, sample.value));
        };
        if ordered && position != i {
            return Err(format!("{} is at position {}, expected {}", sample.labels, i + 1, position + 1));
        }
        point(&sample.labels, single(&eval.series[position]), &sample.value)?;
        if got[..i].iter().any(|s| s.labels == sample.labels) {
            return Err(format!("{} is there twice", sample.labels));
        }
    }
    match eval.series.iter().find(|s| !got.iter().any(|g| g.labels == s.labels)) {
        Some(missing) => Err(format!("expected series {} is missing", missing.labels)),
        None => Ok(()),
    }
}

/// Compares a matrix over the times from `start` by `step`.
pub(crate) fn matrix(
    want: &[Description],
    got: &[MatrixSeries],
    start: i64,
    end: i64,
    step: i64,
) -> Result<(), String> {
    if !got.is_sorted_by(|a, b| a.labels < b.labels) {
        return Err("the series are not sorted by labels".to_owned());
    }
    for series in got {
        let Some(d) = want.iter().find(|d| d.labels == series.labels) else {
            return Err(format!("unexpected series {} with {} points", series.labels, series.point_count()));
        };
        let mut points = 0;
        for (i, value) in d.values.iter().enumerate() {
            let t = start + step * i as i64;
            let found = series.at(t);
            if *value == SequenceValue::Omitted {
                if let Some(found) = found {
                    return Err(format!("{} has {found:?} at {t}, expected no point", d.labels));
                }
                continue;
            }
            if t > end {
                return Err(format!("{}: expected points go beyond the end", d.labels));
            }
            points += 1;
            let Some(found) = found else {
                return Err(format!("{} has no point at {t}, expected {value:?}", d.labels));
            };
            point(&d.labels, value, &found).map_err(|e| format!("at {t}: {e}"))?;
        }
        if series.point_count() != points {
            return Err(format!("{} has {} points, expected {points}", d.labels, series.point_count()));
        }
    }
    match want.iter().find(|d| {
        d.values.iter().any(|v| *v != SequenceValue::Omitted) && !got.iter().any(|g| g.labels == d.labels)
    }) {
        Some(missing) => Err(format!("expected series {} is missing", missing.labels)),
        None => Ok(()),
    }
}

fn point(labels: &Labels, want: &SequenceValue, got: &PointValue) -> Result<(), String> {
    match (want, got) {
        (SequenceValue::Float(want), PointValue::Float(got)) if almost_equal(*want, *got, EPSILON) => Ok(()),
        (SequenceValue::Histogram { histogram, hint_written }, PointValue::Histogram(got))
            if histograms_equal(histogram, got, *hint_written) =>
        {
            Ok(())
        }
        _ => Err(format!("{labels}: expected {want:?}, got {got:?}")),
    }
}

/// Compares histograms whatever their bucket layout.
fn histograms_equal(want: &FloatHistogram, got: &FloatHistogram, hint: bool) -> bool {
    let (mut a, mut b) = (want.clone(), got.clone());
    a.compact(0);
    b.compact(0);
    let near = |a: f64, b: f64| almost_equal(a, b, EPSILON);
    let all_near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b));
    let positive = a.positive_counts().map(|(i, _)| i).eq(b.positive_counts().map(|(i, _)| i));
    let negative = a.negative_counts().map(|(i, _)| i).eq(b.negative_counts().map(|(i, _)| i));
    a.schema == b.schema
        && near(a.count, b.count)
        && near(a.sum, b.sum)
        && near(a.zero_count, b.zero_count)
        && a.zero_threshold == b.zero_threshold
        && (!a.uses_custom_buckets() || a.custom_values == b.custom_values)
        && positive
        && negative
        && all_near(&a.positive_buckets, &b.positive_buckets)
        && all_near(&a.negative_buckets, &b.negative_buckets)
        && (!hint || want.counter_reset == got.counter_reset)
}
