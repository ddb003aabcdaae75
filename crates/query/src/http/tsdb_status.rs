//! `/api/v1/status/tsdb`, `/api/v1/status/tsdb/blocks`: what this process's heads know.

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, ErrorKind, Params, success};

use super::Api;

/// The most entries that `/api/v1/status/tsdb` may be asked for; upstream's bound.
const TOP_MAX: usize = 10_000;

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

/// A process that has heads.
#[async_trait]
pub trait StatusSource: Send + Sync {
    /// Statistics of all tenants together, tables cut to `top` rows.
    async fn tsdb_status(&self, top: usize) -> TsdbStatus;

    /// The meta.json of every local block of every tenant.
    async fn blocks(&self) -> Vec<String>;
}

pub(super) async fn tsdb(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let top = match params.get("limit") {
        "" => 10,
        text => match text.parse::<usize>() {
            Ok(n @ 1..=TOP_MAX) => n,
            Ok(n) if n > TOP_MAX => {
                return Err(ApiError::bad_data(format!("limit must not exceed {TOP_MAX}")));
            }
            _ => return Err(ApiError::bad_data("limit must be a positive number")),
        },
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

/// The blocks on this process's own disk; a querier by itself has none.
pub(super) async fn blocks(State(api): State<Api>) -> Response {
    let blocks = match &api.status {
        Some(source) => source.blocks().await,
        None => Vec::new(),
    };
    success(&Annotations::default(), |j| {
        j.raw(r#"{"blocks":"#).array(&blocks, |j, meta| {
            j.raw(meta);
        });
        j.raw("}");
    })
}
