//! `/api/v1/targets`, `/targets/metadata`, `/targets/relabel_steps`, `/scrape_pools`, `/scrape_pools/config`.
//!
//! A querier scrapes nothing itself, so there are no pools.

use axum::extract::Request;
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, Params, parse_int, success};
use chronolith_promql::parser::parse_selector;

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

pub(super) async fn targets() -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#);
    })
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
