//! `/api/v1/rules`, `/api/v1/alerts`, `/api/v1/alertmanagers`.

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, Params, success};

use super::Api;

/// A querier sends no alerts.
pub(super) async fn alertmanagers() -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#);
    })
}

pub(super) async fn rules(State(_api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let _ = super::labels::selectors(&params).map_err(ApiError::bad_data)?;
    Ok(success(&Annotations::default(), |j| {
        j.raw(r#"{"groups":[]}"#);
    }))
}

pub(super) async fn alerts() -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"alerts":[]}"#);
    })
}
