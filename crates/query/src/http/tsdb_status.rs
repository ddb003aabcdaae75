//! `/api/v1/status/tsdb`: what the heads of all endpoints hold together; `/api/v1/status/tsdb/blocks`: what is on this process's
//! own disk.

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, ErrorKind, success};
use chronolith_model::Matcher;
use chronolith_storeapi::{Status as _, StatusRequest};

use super::Api;

/// The most entries that `/api/v1/status/tsdb` may be asked for; upstream's bound.
const TOP_MAX: usize = 10_000;
/// Entries asked of each head, so that what is large in all of them together is among the largest of each. A thousand tenants send
/// some 10 MB.
const ENTRIES_EACH: usize = 100;

/// What this process has on its own disk.
#[async_trait]
pub trait StatusSource: Send + Sync {
    /// The `meta.json` of each local block; of the tenants only whose external labels fit `tenant`, where there is one.
    async fn blocks(&self, tenant: Option<&Matcher>) -> Vec<String>;
}

pub(super) async fn tsdb(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
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
    let stores = (api.stores)(&options);
    if !stores.has_status() {
        let text = "no endpoint of this querier has heads to tell of";
        return Err(ApiError::new(ErrorKind::Unavailable, text));
    }
    let selectors = super::labels::selectors(&params).map_err(|e| ApiError::parameter("match[]", e))?;
    let request = StatusRequest {
        limit: top.max(ENTRIES_EACH),
        matchers: options.enforced(selectors.into_iter().flatten().collect()),
        partial_response: options.partial_response,
    };
    let answer = stores.tsdb_statistics(request).await.map_err(super::store_error)?;
    let annotations = Annotations {
        partial: !answer.warnings.is_empty(),
        warnings: answer.warnings.clone(),
        ..Default::default()
    };
    let mut status = answer.total();
    status.truncate(top);
    Ok(success(&annotations, |j| {
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
pub(super) async fn blocks(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (tenant, _) = api.params(request).await?;
    let blocks = match &api.status {
        Some(source) => source.blocks(tenant.as_ref()).await,
        None => Vec::new(),
    };
    Ok(success(&Annotations::default(), |j| {
        j.raw(r#"{"blocks":"#).array(&blocks, |j, meta| {
            j.raw(meta);
        });
        j.raw("}");
    }))
}
