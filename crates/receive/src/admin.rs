//! `POST /api/v1/admin/tsdb/flush` and `GET /api/v1/status/tsdb`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chronolith_model::TenantId;
use chronolith_service::exit::error_chain;
use chronolith_tsdb::head::{HeadStats, NameValue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ReceiveError;
use crate::maintenance::Maintenance;
use crate::tenant::{TenantIdentity, TenantRefusal};
use crate::tenants::Tenants;

/// How long a flush goes on trying while the bucket fails.
const FLUSH_PATIENCE: Duration = Duration::from_secs(120);
/// Prometheus's default and bound of `limit`.
const STATUS_LIMIT: usize = 10;
const STATUS_LIMIT_MAX: usize = 10_000;

/// The flush, which answers when everything written before is in the bucket.
pub(crate) fn flush_router(maintenance: Arc<Maintenance>, enabled: bool) -> Router {
    let flush = move || {
        let maintenance = Arc::clone(&maintenance);
        async move { flush(&maintenance, enabled).await }
    };
    Router::new().route("/api/v1/admin/tsdb/flush", post(flush.clone()).put(flush))
}

async fn flush(maintenance: &Maintenance, enabled: bool) -> Response {
    if !enabled {
        return error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "admin APIs disabled");
    }
    match maintenance.flush(FLUSH_PATIENCE).await {
        Ok(report) => {
            reply(StatusCode::OK, &json!({"status": "success", "data": {"uploaded": report.uploaded}}))
        }
        Err(e @ ReceiveError::NoBucket) => error(StatusCode::BAD_REQUEST, "bad_data", &error_chain(&e)),
        Err(e @ (ReceiveError::Ship { .. } | ReceiveError::NotSeen { .. } | ReceiveError::Store(_))) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &error_chain(&e))
        }
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &error_chain(&e)),
    }
}

/// Which tenants are asked for, and how many entries.
#[derive(Debug, Deserialize)]
struct StatusParams {
    limit: Option<String>,
    all_tenants: Option<String>,
}

/// Cardinality by tenant, in Thanos's form: a list with an object a tenant.
pub(crate) fn status_router(tenants: Arc<Tenants>, identity: TenantIdentity) -> Router {
    let status = move |Query(params): Query<StatusParams>, request: Request| {
        let tenant = identity.of(request.headers(), request.extensions());
        let tenants = Arc::clone(&tenants);
        async move { status(tenants, tenant, &params).await }
    };
    Router::new().route("/api/v1/status/tsdb", get(status))
}

async fn status(
    tenants: Arc<Tenants>,
    tenant: Result<TenantId, TenantRefusal>,
    params: &StatusParams,
) -> Response {
    let limit = match params.limit.as_deref().map(str::parse::<usize>) {
        None => STATUS_LIMIT,
        Some(Ok(limit)) if (1..=STATUS_LIMIT_MAX).contains(&limit) => limit,
        Some(_) => {
            return error(StatusCode::BAD_REQUEST, "bad_data", "limit must be a number from 1 to 10000");
        }
    };
    let all = params.all_tenants.as_deref() == Some("true");
    let tenant = match tenant {
        Ok(tenant) => tenant,
        Err(e) => return error(StatusCode::BAD_REQUEST, "bad_data", &e.to_string()),
    };
    let work = move || head_stats(&tenants, (!all).then_some(&tenant), limit);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(stats)) => {
            let data: Vec<Value> = stats.iter().map(|(tenant, stats)| tenant_json(tenant, stats)).collect();
            reply(StatusCode::OK, &json!({"status": "success", "data": data}))
        }
        Ok(Err(e)) => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &error_chain(&e)),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal", &e.to_string()),
    }
}

/// Cardinality of one tenant's head or of all.
pub fn head_stats(
    tenants: &Tenants,
    only: Option<&TenantId>,
    limit: usize,
) -> Result<Vec<(TenantId, HeadStats)>, ReceiveError> {
    let db = tenants.db()?;
    let ids = match only {
        Some(tenant) => vec![tenant.clone()],
        None => db.tenants(),
    };
    Ok(ids.into_iter().filter_map(|id| Some((id.clone(), db.head(&id)?.stats(limit)))).collect())
}

fn tenant_json(tenant: &TenantId, stats: &HeadStats) -> Value {
    let list = |list: &[NameValue]| -> Vec<Value> {
        list.iter().map(|e| json!({"name": e.name, "value": e.value})).collect()
    };
    json!({
        "tenant": tenant.as_str(),
        "headStats": {
            "numSeries": stats.series_count,
            "numLabelPairs": stats.label_pair_count,
            "chunkCount": stats.chunk_count,
            "minTime": stats.min_time,
            "maxTime": stats.max_time,
        },
        "seriesCountByMetricName": list(&stats.series_count_by_metric_name),
        "labelValueCountByLabelName": list(&stats.label_value_count_by_label_name),
        "memoryInBytesByLabelName": list(&stats.memory_in_bytes_by_label_name),
        "seriesCountByLabelValuePair": list(&stats.series_count_by_label_value_pair),
    })
}

fn error(status: StatusCode, kind: &str, text: &str) -> Response {
    reply(status, &json!({"status": "error", "errorType": kind, "error": text}))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
