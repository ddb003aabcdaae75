//! `/api/v1/query_exemplars` and `/api/v1/metadata`: what stores answer beside series.

use std::collections::BTreeSet;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use chronolith_httpapi::{Annotations, ApiError, TIME_MAX_MS, TIME_MIN_MS, parse_int, success, write_labels};
use chronolith_model::{METRIC_NAME, TimeRange};
use chronolith_promql::parser;
use chronolith_storeapi::{
    Exemplars as _, ExemplarsRequest, LabelValuesRequest, Metadata as _, MetadataRequest, Store as _,
};
use http::StatusCode;

use super::{Api, ReadOptions, store_error};

/// Exemplars of the series that a query's selectors match.
pub(super) async fn exemplars(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    let range = TimeRange::new(params.time("start", TIME_MIN_MS)?, params.time("end", TIME_MAX_MS)?);
    if range.is_empty() {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let ast = parser::parse(params.get("query"), &api.engine.options().parse)
        .map_err(|e| ApiError::bad_data(e.to_string()))?;
    let selectors: Vec<_> =
        ast.selectors(ast.root()).into_iter().map(|(_, s)| options.enforced(s.matchers.clone())).collect();
    if selectors.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let request = ExemplarsRequest {
        selectors,
        range,
        partial_response: options.partial_response,
        without_replica_labels: options.without_replica_labels(),
    };
    let answer = (api.stores)(&options).exemplars(request).await.map_err(store_error)?;
    let partial = !answer.warnings.is_empty();
    let annotations = Annotations { warnings: answer.warnings, partial, ..Annotations::default() };
    Ok(success(&annotations, |j| {
        j.array(&answer.series, |j, series| {
            j.raw(r#"{"seriesLabels":"#);
            write_labels(j, &series.labels);
            j.raw(r#","exemplars":"#).array(&series.exemplars, |j, exemplar| {
                j.raw(r#"{"labels":"#);
                write_labels(j, &exemplar.labels);
                j.raw(r#","value":"#).value(exemplar.value);
                j.raw(r#","timestamp":"#).timestamp(exemplar.t).raw("}");
            });
            j.raw("}");
        });
    }))
}

/// How far back a metric was written to be a tenant's own: receivers keep metadata about as long as their heads.
const OWN_METRICS_MS: i64 = 24 * 3_600_000;

/// The names of the metrics that the tenant has written lately.
async fn own_metrics(api: &Api, options: &ReadOptions) -> Result<BTreeSet<String>, ApiError> {
    let range = TimeRange::new(api.clock.now_ms().saturating_sub(OWN_METRICS_MS), TIME_MAX_MS);
    let mut read = LabelValuesRequest::new(METRIC_NAME, range, options.enforced(Vec::new()));
    read.partial_response = options.partial_response;
    let answer = (api.stores)(options).label_values(read).await.map_err(store_error)?;
    Ok(answer.values.into_iter().collect())
}

/// True when a series of the family is among the names: its own, or one that a family's parts are called by.
fn has_series(names: &BTreeSet<String>, family: &str) -> bool {
    let parts = ["", "_total", "_bucket", "_count", "_sum", "_info", "_created"];
    parts.iter().any(|part| names.contains(&format!("{family}{part}")))
}

/// What writers said of their metrics.
pub(super) async fn metadata(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    let number = |name: &str| match params.get(name) {
        "" => Ok(None),
        text => parse_int(text)
            .map(|n| usize::try_from(n).ok())
            .map_err(|_| ApiError::bad_data(format!("{name} must be a number"))),
    };
    let (limit, per_metric) = (number("limit")?, number("limit_per_metric")?);
    let per_metric = per_metric.filter(|n| *n > 0).unwrap_or(usize::MAX);
    let request = MetadataRequest {
        metric: Some(params.get("metric").to_owned()).filter(|m| !m.is_empty()),
        limit,
        partial_response: options.partial_response,
    };
    let stores = (api.stores)(&options);
    // Metadata knows no tenants. A tenant that is kept to its own hears of metrics that it has.
    let own = match &options.tenant {
        Some(_) => Some(own_metrics(&api, &options).await?),
        None => None,
    };
    let asked = match &own {
        // The limit counts what is shown.
        Some(_) => MetadataRequest { limit: None, ..request },
        None => request,
    };
    let mut answer = stores.metadata(asked).await.map_err(store_error)?;
    if let Some(own) = &own {
        answer.metrics.retain(|family, _| has_series(own, family));
    }
    let partial = !answer.warnings.is_empty();
    let annotations = Annotations { warnings: answer.warnings, partial, ..Annotations::default() };
    Ok(success(&annotations, |j| {
        j.raw("{");
        for (i, (name, entries)) in answer.metrics.iter().take(limit.unwrap_or(usize::MAX)).enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(name).raw(":").array(
                entries.iter().take(per_metric),
                |j, m| {
                    j.raw(r#"{"type":"#).string(m.kind.as_str()).raw(r#","help":"#).string(&m.help);
                    j.raw(r#","unit":"#).string(&m.unit).raw("}");
                },
            );
        }
        j.raw("}");
    }))
}
