//! `/api/v1/status/self_metrics`: this process's own metrics as JSON, in the shape that ProtoJSON gives to
//! `io.prometheus.client.MetricFamily` (upstream's `docs/querying/api.md`, "Self Metrics").

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, JsonBuf, Params, success};
use chronolith_model::{METRIC_NAME, MatchOp, Matcher};
use chronolith_service::families::{Family, FamilySample, families};

use super::Api;

pub(super) async fn self_metrics(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let wanted = match params.get("metric_name_pattern") {
        "" => None,
        pattern => Some(
            Matcher::new(MatchOp::Regex, METRIC_NAME, pattern)
                .map_err(|e| ApiError::bad_data(format!("invalid metric_name_pattern: {e}")))?,
        ),
    };
    let mut all = families(&api.metrics.text());
    all.retain(|f| !f.samples.is_empty() && wanted.as_ref().is_none_or(|m| m.matches(&f.name)));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(success(&Annotations::default(), |j| {
        j.array(&all, write_family);
    }))
}

fn write_family(j: &mut JsonBuf, family: &Family) {
    j.raw(r#"{"name":"#).string(&family.name).raw(r#","help":"#).string(&family.help);
    j.raw(r#","type":"#).string(&family.kind.to_uppercase()).raw(r#","metric":"#);
    match family.kind.as_str() {
        "histogram" => {
            let alike = |a: &FamilySample, b: &FamilySample| own_labels(a).eq(own_labels(b));
            j.array(family.samples.chunk_by(alike), |j, samples| write_histogram(j, &family.name, samples));
        }
        kind => {
            let kind = if matches!(kind, "counter" | "gauge") { kind } else { "untyped" };
            j.array(&family.samples, |j, sample| {
                write_labels(j, sample);
                j.raw("\"").raw(kind).raw(r#"":{"value":"#);
                write_double(j, sample.value).raw("}}");
            });
        }
    }
    j.raw("}");
}

/// The labels that tell a histogram's series of one metric from those of the next.
fn own_labels(sample: &FamilySample) -> impl Iterator<Item = &(String, String)> {
    sample.labels.iter().filter(|(name, _)| name != "le")
}

fn write_histogram(j: &mut JsonBuf, name: &str, samples: &[FamilySample]) {
    write_labels(j, &samples[0]);
    j.raw(r#""histogram":{"#);
    let said = |suffix: &str| samples.iter().find(|s| s.name.strip_prefix(name) == Some(suffix));
    if let Some(count) = said("_count") {
        write_count(j.raw(r#""sampleCount":"#), count.value).raw(",");
    }
    if let Some(sum) = said("_sum") {
        write_double(j.raw(r#""sampleSum":"#), sum.value).raw(",");
    }
    let bounds = samples.iter().filter_map(|s| {
        let bound: f64 = s.labels.iter().find(|(n, _)| n == "le")?.1.replace("Inf", "inf").parse().ok()?;
        // The count of all is that of the last bucket; upstream's library leaves it out.
        bound.is_finite().then_some((bound, s.value))
    });
    j.raw(r#""bucket":"#).array(bounds, |j, (bound, count)| {
        write_count(j.raw(r#"{"cumulativeCount":"#), count).raw(r#","upperBound":"#);
        write_double(j, bound).raw("}");
    });
    j.raw("}}");
}

/// An empty list is left out, as ProtoJSON does.
fn write_labels(j: &mut JsonBuf, sample: &FamilySample) {
    j.raw("{");
    if own_labels(sample).next().is_some() {
        j.raw(r#""label":"#).array(own_labels(sample), |j, (name, value)| {
            j.raw(r#"{"name":"#).string(name).raw(r#","value":"#).string(value).raw("}");
        });
        j.raw(",");
    }
}

/// ProtoJSON's 64-bit numbers are strings.
fn write_count(j: &mut JsonBuf, count: f64) -> &mut JsonBuf {
    j.raw("\"").int(count as i64).raw("\"")
}

/// ProtoJSON's doubles are numbers, but for those that JSON does not know.
fn write_double(j: &mut JsonBuf, v: f64) -> &mut JsonBuf {
    match v {
        v if v.is_nan() => j.raw("\"NaN\""),
        f64::INFINITY => j.raw("\"Infinity\""),
        f64::NEG_INFINITY => j.raw("\"-Infinity\""),
        v => j.raw(&chronolith_httpapi::format_float(v)),
    }
}
