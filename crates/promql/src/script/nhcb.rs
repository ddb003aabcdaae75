//! `load_with_nhcb`: builds histograms with custom buckets from classic ones.

use std::collections::BTreeMap;

use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use chronolith_model::{FloatHistogram, Histogram, Labels, METRIC_NAME};

use super::statement::Description;
use crate::parser::SequenceValue;

/// What was collected for one time.
#[derive(Default)]
struct Parts {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// A base series with its histograms by position in the sequence.
pub(crate) type Converted = Vec<(Labels, BTreeMap<usize, FloatHistogram>)>;

/// Converts the classic histograms among loaded series.
pub(crate) fn convert(series: &[Description]) -> Result<Converted, String> {
    let mut bases: BTreeMap<Labels, BTreeMap<usize, Parts>> = BTreeMap::new();
    for d in series {
        let Some(name) = d.labels.metric_name() else { continue };
        let Some((base, suffix)) =
            ["_bucket", "_count", "_sum"].iter().find_map(|s| name.strip_suffix(s).map(|b| (b, *s)))
        else {
            continue;
        };
        let le = if suffix == "_bucket" {
            match d.labels.get("le").and_then(|le| le.parse::<f64>().ok()).filter(|le| !le.is_nan()) {
                Some(le) => le,
                None => continue,
            }
        } else {
            0.0
        };
        let labels = d.labels.with([(METRIC_NAME, base), ("le", "")]);
        let times = bases.entry(labels).or_default();
        for (i, value) in d.values.iter().enumerate() {
            let SequenceValue::Float(v) = value else { continue };
            let parts = times.entry(i).or_default();
            match suffix {
                "_bucket" => parts.buckets.push((le, *v)),
                "_count" => parts.count = Some(*v),
                _ => parts.sum = *v,
            }
        }
    }
    let mut out = Vec::new();
    for (labels, times) in bases {
        let mut histograms = BTreeMap::new();
        for (i, parts) in times {
            let h = build(parts).map_err(|e| format!("{labels}: {e}"))?;
            histograms.insert(i, h);
        }
        out.push((labels, histograms));
    }
    Ok(out)
}

fn build(mut parts: Parts) -> Result<FloatHistogram, String> {
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    parts.buckets.dedup_by(|b, a| a.0 == b.0);
    let mut last = 0.0;
    for (_, count) in &parts.buckets {
        if *count < last {
            return Err(format!("bucket counts are not cumulative: {count} after {last}"));
        }
        last = *count;
    }
    let count = parts.count.unwrap_or(last);
    if count < 0.0 {
        return Err(format!("negative count {count}"));
    }
    if parts.buckets.last().is_none_or(|(le, _)| *le != f64::INFINITY) {
        parts.buckets.push((f64::INFINITY, count));
    } else if last != count {
        return Err(format!("count {count} is not that of the last bucket, {last}"));
    }
    let custom_values: Vec<f64> = parts.buckets[..parts.buckets.len() - 1].iter().map(|b| b.0).collect();
    let mut previous = 0.0;
    let counts: Vec<f64> = parts
        .buckets
        .iter()
        .map(|(_, c)| {
            let own = c - previous;
            previous = *c;
            own
        })
        .collect();
    let spans = vec![Span { offset: 0, length: counts.len() as u32 }];
    if count.fract() == 0.0 && parts.buckets.iter().all(|(_, c)| c.fract() == 0.0) {
        let mut before = 0;
        let deltas = counts
            .iter()
            .map(|c| {
                let delta = *c as i64 - before;
                before = *c as i64;
                delta
            })
            .collect();
        let mut h = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: count as u64,
            sum: parts.sum,
            positive_spans: spans,
            positive_buckets: deltas,
            custom_values,
            ..Histogram::default()
        };
        h.compact(2);
        return Ok(h.to_float());
    }
    let mut h = FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count,
        sum: parts.sum,
        positive_spans: spans,
        positive_buckets: counts,
        custom_values,
        ..FloatHistogram::default()
    };
    h.compact(0);
    Ok(h)
}
