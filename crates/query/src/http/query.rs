//! `/api/v1/query`, `/api/v1/query_range`, and Thanos's `/api/v1/query_explain`, `/api/v1/query_range_explain`.

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{ApiError, ErrorKind};

use super::evaluate::{Call, Evaluation, evaluate, explain};
use super::{Api, ReadOptions};

/// Upstream's bound on points per series.
const POINTS_MAX: i64 = 11_000;

pub(super) async fn instant(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let call = instant_call(&api, request).await?;
    evaluate(api, call).await
}

pub(super) async fn range(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let call = range_call(&api, request).await?;
    evaluate(api, call).await
}

pub(super) async fn explain_instant(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    explain(&api, &instant_call(&api, request).await?)
}

pub(super) async fn explain_range(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    explain(&api, &range_call(&api, request).await?)
}

async fn instant_call(api: &Api, request: Request) -> Result<Call, ApiError> {
    let origin = api.admission.origin(&request);
    let (options, params) = api.read(request).await?;
    let limit = params.limit()?;
    let t = params.time("time", api.clock.now_ms())?;
    Ok(Call { origin, options, params, limit, evaluation: Evaluation::Instant { t } })
}

async fn range_call(api: &Api, request: Request) -> Result<Call, ApiError> {
    let origin = api.admission.origin(&request);
    let (tenant, params) = api.params(request).await?;
    let limit = params.limit()?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let span = end.checked_sub(start).ok_or_else(|| ApiError::parameter("end", "the range is too long"))?;
    let step_ms = match params.duration("step")? {
        Some(step) => step,
        // Thanos's default for a missing step.
        None => (span / 250).max(api.settings.default_step_ms),
    };
    if step_ms <= 0 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", text));
    }
    if span / step_ms > POINTS_MAX {
        let text = "exceeded maximum resolution of 11,000 points per timeseries. \
                    Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::new(ErrorKind::BadData, text));
    }
    let options = ReadOptions { tenant, ..api.defaults.with_params(&params, step_ms)? };
    Ok(Call { origin, options, params, limit, evaluation: Evaluation::Range { start, end, step_ms } })
}
