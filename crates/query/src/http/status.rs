//! `/api/v1/status/*`, `/api/v1/stores`, `/api/v1/metadata`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, ErrorKind, JsonBuf, Params, success, write_labels};

use super::{Api, EndpointStatus};

/// The most entries that `/api/v1/status/tsdb` may be asked for; upstream's bound.
const TOP_MAX: usize = 10_000;

/// What this binary is.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// Version of the release.
    pub version: &'static str,
    /// Commit, where known.
    pub revision: &'static str,
}

/// One row of a cardinality table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopEntry {
    /// Metric name, label name, or `name=value`.
    pub name: String,
    /// Count, or bytes.
    pub value: u64,
}

/// Statistics of the heads of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TsdbStatus {
    /// Active series.
    pub series: u64,
    /// Distinct label pairs.
    pub label_pairs: u64,
    /// Chunks in memory.
    pub chunks: u64,
    /// First time in the heads; `i64::MAX` when empty.
    pub mint: i64,
    /// Last time in the heads; `i64::MIN` when empty.
    pub maxt: i64,
    /// Series by metric name, largest first.
    pub series_by_metric: Vec<TopEntry>,
    /// Values by label name, largest first.
    pub values_by_label: Vec<TopEntry>,
    /// Bytes of values by label name, largest first.
    pub bytes_by_label: Vec<TopEntry>,
    /// Series by label pair, largest first.
    pub series_by_pair: Vec<TopEntry>,
}

/// What a writer said of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricMetadata {
    /// `counter`, `gauge`, ...
    pub kind: String,
    /// Help text.
    pub help: String,
    /// Unit.
    pub unit: String,
}

/// A process that has heads.
#[async_trait]
pub trait StatusSource: Send + Sync {
    /// Statistics of all tenants together, tables cut to `top` rows.
    async fn tsdb_status(&self, top: usize) -> TsdbStatus;

    /// Kind, help and unit by metric name, where writers sent them.
    async fn metadata(&self) -> BTreeMap<String, Vec<MetricMetadata>>;
}

pub(super) async fn build_info(State(api): State<Api>) -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"version":"#).string(api.build.version).raw(r#","revision":"#).string(api.build.revision);
        j.raw(r#","branch":"","buildUser":"","buildDate":"","goVersion":""}"#);
    })
}

pub(super) async fn runtime_info(State(api): State<Api>) -> Response {
    let started = rfc3339(api.started_ms);
    let directory = std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default();
    success(&Annotations::default(), |j| {
        j.raw(r#"{"startTime":"#).string(&started).raw(r#","CWD":"#).string(&directory);
        j.raw(r#","reloadConfigSuccess":true,"storageRetention":""}"#);
    })
}

pub(super) async fn flags(State(api): State<Api>) -> Response {
    success(&Annotations::default(), |j| {
        j.raw("{");
        for (i, (name, value)) in api.flags.iter().enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(name).raw(":").string(value);
        }
        j.raw("}");
    })
}

pub(super) async fn tsdb(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let top = match params.get("limit") {
        "" => 10,
        text => text.parse::<usize>().ok().filter(|n| (1..=TOP_MAX).contains(n)).ok_or_else(|| {
            ApiError::parameter("limit", format!("limit must be a number from 1 to {TOP_MAX}"))
        })?,
    };
    let Some(source) = &api.status else {
        let text = "this querier has no head of its own; ask a receiver's /api/v1/status/tsdb";
        return Err(ApiError::new(ErrorKind::Unavailable, text));
    };
    let status = source.tsdb_status(top).await;
    Ok(success(&Annotations::default(), |j| {
        j.raw(r#"{"headStats":{"numSeries":"#).int(status.series as i64);
        j.raw(r#","numLabelPairs":"#).int(status.label_pairs as i64);
        j.raw(r#","chunkCount":"#).int(status.chunks as i64);
        j.raw(r#","minTime":"#).int(status.mint).raw(r#","maxTime":"#).int(status.maxt).raw("}");
        for (key, entries) in [
            ("seriesCountByMetricName", &status.series_by_metric),
            ("labelValueCountByLabelName", &status.values_by_label),
            ("memoryInBytesByLabelName", &status.bytes_by_label),
            ("seriesCountByLabelValuePair", &status.series_by_pair),
        ] {
            j.raw(",").string(key).raw(":").array(entries, |j, e| {
                j.raw(r#"{"name":"#).string(&e.name).raw(r#","value":"#).int(e.value as i64).raw("}");
            });
        }
        j.raw("}");
    }))
}

/// What writers said of their metrics. A querier without heads of its own knows nothing of it.
pub(super) async fn metadata(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let number = |name: &str| match params.get(name) {
        "" => Ok(-1),
        text => text
            .parse::<i64>()
            .map_err(|_| ApiError::new(ErrorKind::BadData, format!("{name} must be a number"))),
    };
    let (limit, per_metric) = (number("limit")?, number("limit_per_metric")?);
    let metric = params.get("metric");
    let all = match &api.status {
        Some(source) => source.metadata().await,
        None => BTreeMap::new(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let per_metric = usize::try_from(per_metric).ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
    let shown = all.iter().filter(|(name, _)| metric.is_empty() || *name == metric).take(limit);
    Ok(success(&Annotations::default(), |j| {
        j.raw("{");
        for (i, (name, entries)) in shown.enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(name).raw(":").array(
                entries.iter().take(per_metric),
                |j, m| {
                    j.raw(r#"{"type":"#).string(&m.kind).raw(r#","help":"#).string(&m.help);
                    j.raw(r#","unit":"#).string(&m.unit).raw("}");
                },
            );
        }
        j.raw("}");
    }))
}

/// Thanos's `/api/v1/stores`: component to its endpoints.
pub(super) async fn stores(State(api): State<Api>) -> Response {
    let mut by_component: BTreeMap<String, Vec<EndpointStatus>> = BTreeMap::new();
    for endpoint in api.endpoints.iter().flat_map(|list| list()) {
        by_component.entry(endpoint.component.clone()).or_default().push(endpoint);
    }
    success(&Annotations::default(), |j| {
        j.raw("{");
        for (i, (component, endpoints)) in by_component.iter().enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(component).raw(":").array(endpoints, write_endpoint);
        }
        j.raw("}");
    })
}

fn write_endpoint(j: &mut JsonBuf, endpoint: &EndpointStatus) {
    j.raw(r#"{"name":"#)
        .string(&endpoint.name)
        .raw(r#","lastCheck":"#)
        .string(&rfc3339(endpoint.last_check_ms));
    j.raw(r#","lastError":"#);
    match &endpoint.last_error {
        Some(text) => j.string(text),
        None => j.raw("null"),
    };
    j.raw(r#","labelSets":"#).array(&endpoint.label_sets, write_labels);
    j.raw(r#","minTime":"#).int(endpoint.mint).raw(r#","maxTime":"#).int(endpoint.maxt).raw("}");
}

fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|t| t.to_string()).unwrap_or_default()
}
