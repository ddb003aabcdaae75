//! `POST|PUT /api/v1/admin/tsdb/delete_series`: records a request to delete series.
//!
//! What is recorded is for the process to say ([`SeriesDeletion`]): this crate knows stores, not buckets. Kept to a tenant, a
//! request reaches that tenant's series only, whatever its selectors say.

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use chronolith_httpapi::{ApiError, ErrorKind};
use chronolith_model::{Matcher, TimeRange};
use http::StatusCode;

use super::labels::selectors;
use super::{Api, enforce};

/// Deletes series of what the process serves.
#[async_trait]
pub trait SeriesDeletion: Send + Sync {
    /// Deletes the samples in `range` of the series that one of the selectors selects. `tenant` is empty where tenants are not
    /// told apart. `Err` says why nothing was recorded.
    async fn delete(
        &self,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        tenant: &str,
    ) -> Result<(), String>;
}

pub(super) async fn delete_series(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let Some(deletion) = &api.deletion else {
        return Err(ApiError::new(ErrorKind::Unavailable, "admin APIs disabled"));
    };
    let (tenant, params) = api.params(request).await?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let range = TimeRange::new(params.time("start", i64::MIN)?, params.time("end", i64::MAX)?);
    if range.is_empty() {
        return Err(ApiError::bad_data("end timestamp must not be before start time"));
    }
    let mut selectors = selectors(&params).map_err(|e| ApiError::parameter("match[]", e))?;
    if let Some(tenant) = &tenant {
        selectors.iter_mut().for_each(|matchers| enforce(tenant, matchers));
    }
    let name = tenant.as_ref().map_or("", |t| t.value.as_str());
    deletion.delete(selectors, range, name).await.map_err(|e| ApiError::new(ErrorKind::Internal, e))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
