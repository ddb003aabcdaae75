//! `/api/v1/targets`, `/targets/metadata`, `/targets/relabel_steps`, `/scrape_pools`, `/scrape_pools/config`.
//!
//! A querier scrapes nothing itself, so there are no pools; targets are those of the endpoints that have some.

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, JsonBuf, Params, parse_int, success, write_labels};
use chronolith_promql::parser::parse_selector;
use chronolith_storeapi::{ActiveTarget, Targets as _, TargetsRequest};

use super::process::rfc3339;
use super::{Api, store_error};

pub(super) async fn pools() -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"scrapePools":[]}"#);
    })
}

pub(super) async fn pool_config(request: Request) -> Result<Response, ApiError> {
    Err(no_pool(&Params::read(request).await?))
}

pub(super) async fn relabel_steps(request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    if !params.get("scrapePool").is_empty() && params.get("labels").is_empty() {
        return Err(ApiError::bad_data("no labels parameter provided"));
    }
    Err(no_pool(&params))
}

fn no_pool(params: &Params) -> ApiError {
    match params.get("scrapePool") {
        "" => ApiError::bad_data("no scrapePool parameter provided"),
        pool => ApiError::bad_data(format!("error retrieving scrape config: scrape pool {pool:?} not found")),
    }
}
/// What the Prometheus servers behind the endpoints scrape.
pub(super) async fn targets(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    let state = params.get("state").to_lowercase();
    let any = state.is_empty() || state == "any";
    let request = TargetsRequest {
        active: any || state == "active",
        dropped: any || state == "dropped",
        partial_response: options.partial_response,
        without_replica_labels: options.without_replica_labels(),
    };
    let answer = (api.stores)(&options).targets(request).await.map_err(store_error)?;
    let pool = params.get("scrapePool");
    let active = answer.active.iter().filter(|t| pool.is_empty() || t.scrape_pool == pool);
    let partial = !answer.warnings.is_empty();
    let annotations = Annotations { warnings: answer.warnings.clone(), partial, ..Annotations::default() };
    Ok(success(&annotations, |j| {
        j.raw(r#"{"activeTargets":"#).array(active, write_target);
        j.raw(r#","droppedTargets":"#).array(&answer.dropped, |j, labels| {
            j.raw(r#"{"discoveredLabels":"#);
            write_labels(j, labels);
            j.raw("}");
        });
        j.raw(r#","droppedTargetCounts":{}}"#);
    }))
}

fn write_target(j: &mut JsonBuf, target: &ActiveTarget) {
    j.raw(r#"{"discoveredLabels":"#);
    write_labels(j, &target.discovered_labels);
    j.raw(r#","labels":"#);
    write_labels(j, &target.labels);
    for (key, text) in [
        ("scrapePool", target.scrape_pool.as_str()),
        ("scrapeUrl", &target.scrape_url),
        ("globalUrl", &target.global_url),
        ("lastError", &target.last_error),
        ("lastScrape", &rfc3339(target.last_scrape_ms)),
        ("health", target.health.as_str()),
        ("scrapeInterval", target.discovered_labels.get("__scrape_interval__").unwrap_or("")),
        ("scrapeTimeout", target.discovered_labels.get("__scrape_timeout__").unwrap_or("")),
    ] {
        j.raw(",").string(key).raw(":").string(text);
    }
    let seconds = if target.last_scrape_s.is_finite() { target.last_scrape_s } else { 0.0 };
    j.raw(r#","lastScrapeDuration":"#).raw(&seconds.to_string()).raw("}");
}

pub(super) async fn target_metadata(request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let limit = params.get("limit");
    if !limit.is_empty() && parse_int(limit).is_err() {
        return Err(ApiError::bad_data("limit must be a number"));
    }
    let target = params.get("match_target");
    if !target.is_empty() {
        parse_selector(target).map_err(|e| ApiError::parameter("match_target", e))?;
    }
    Ok(success(&Annotations::default(), |j| {
        j.raw("[]");
    }))
}
