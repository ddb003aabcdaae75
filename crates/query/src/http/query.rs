//! `/api/v1/query` and `/api/v1/query_range`.

use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{
    Annotations, ApiError, ErrorKind, JsonBuf, Params, parse_duration, success, write_value,
};
use chronolith_promql::{EngineError, EngineErrorKind, QueryContext, QueryResult, Value};

use super::{Api, ReadOptions};

/// Upstream's bound on points per series.
const POINTS_MAX: i64 = 11_000;

/// What is to be evaluated when.
enum Evaluation {
    Instant { t: i64 },
    Range { start: i64, end: i64, step_ms: i64 },
}

pub(super) async fn instant(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    let limit = params.limit()?;
    let t = params.time("time", api.clock.now_ms())?;
    evaluate(api, options, params, limit, Evaluation::Instant { t }).await
}

pub(super) async fn range(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
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
    evaluate(api, options, params, limit, Evaluation::Range { start, end, step_ms }).await
}

async fn evaluate(
    api: Api,
    options: ReadOptions,
    params: Params,
    limit: Option<usize>,
    evaluation: Evaluation,
) -> Result<Response, ApiError> {
    let mut cx = QueryContext::new();
    if let Some(timeout_ms) = params.duration("timeout")? {
        let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        cx = cx.with_deadline(Instant::now() + timeout);
    }
    cx.lookback_ms = match params.get("lookback_delta") {
        "" => None,
        text => {
            let parsed = parse_duration(text);
            let refuse = |e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}"));
            Some(parsed.map_err(refuse)?).filter(|l| *l > 0)
        }
    };
    let stats = !params.get("stats").is_empty();
    let queued = Instant::now();
    let permit = api
        .gate
        .clone()
        .acquire_owned()
        .await
        .map_err(|_| ApiError::new(ErrorKind::Unavailable, "the server is shutting down"))?;
    let queue_s = queued.elapsed().as_secs_f64();
    // Dropping the handler's future (the client went away) cancels the query on its thread.
    let guard = CancelOnDrop(cx.clone());
    let reply = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let queryable = (api.queryable)(&options);
        let query = params.get("query");
        let started = Instant::now();
        let result = match evaluation {
            Evaluation::Instant { t } => api.engine.instant(queryable.as_ref(), query, t, &cx),
            Evaluation::Range { start, end, step_ms } => {
                api.engine.range(queryable.as_ref(), query, start, end, step_ms, &cx)
            }
        };
        let eval_s = started.elapsed().as_secs_f64();
        result.map(|r| render(r, limit, stats.then_some((queue_s, eval_s))))
    })
    .await
    .map_err(|e| ApiError::new(ErrorKind::Internal, format!("query panicked: {e}")))?;
    drop(guard);
    reply.map_err(engine_error)
}

struct CancelOnDrop(QueryContext);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn render(mut result: QueryResult, limit: Option<usize>, timings: Option<(f64, f64)>) -> Response {
    let cut = limit.is_some_and(|n| truncate(&mut result.value, n));
    if cut {
        result.warnings.push("results truncated due to limit".to_owned());
    }
    let annotations = Annotations {
        partial: result.warnings.iter().any(|w| !w.starts_with("PromQL warning: ")),
        warnings: result.warnings,
        infos: result.infos,
    };
    success(&annotations, |j| {
        j.raw("{");
        write_value(j, &result.value);
        if let Some((queue_s, eval_s)) = timings {
            write_stats(j, &result.stats, queue_s, eval_s);
        }
        j.raw("}");
    })
}

fn truncate(value: &mut Value, n: usize) -> bool {
    match value {
        Value::Matrix(series) if series.len() > n => series.truncate(n),
        Value::Vector(samples) if samples.len() > n => samples.truncate(n),
        _ => return false,
    }
    true
}

fn write_stats(j: &mut JsonBuf, stats: &chronolith_promql::QueryStats, queue_s: f64, eval_s: f64) {
    let number = |v: f64| format!("{v:.9}");
    j.raw(r#","stats":{"timings":{"evalTotalTime":"#).raw(&number(eval_s));
    j.raw(r#","resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":"#).raw(&number(eval_s));
    j.raw(r#","execQueueTime":"#).raw(&number(queue_s));
    j.raw(r#","execTotalTime":"#).raw(&number(queue_s + eval_s));
    j.raw(r#"},"samples":{"totalQueryableSamples":"#).int(stats.samples_total as i64);
    j.raw(r#","samplesRead":"#).int(stats.samples_read as i64);
    j.raw(r#","peakSamples":"#).int(stats.samples_peak as i64).raw("}}");
}

fn engine_error(error: EngineError) -> ApiError {
    match error.kind() {
        EngineErrorKind::Invalid => ApiError::parameter("query", error),
        EngineErrorKind::Execution => ApiError::new(ErrorKind::Execution, error.to_string()),
        EngineErrorKind::Timeout => ApiError::new(ErrorKind::Timeout, error.to_string()),
        EngineErrorKind::Cancelled => ApiError::new(ErrorKind::Canceled, error.to_string()),
        EngineErrorKind::Storage => ApiError::new(ErrorKind::Internal, error.to_string()),
    }
}
