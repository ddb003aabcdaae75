//! How a query gets from its parameters to a reply: the queue, its budgets, the engine on a blocking thread (or, where
//! it is [`small`], right here), what is written down about it.
//!
//! When the client goes away, the handler's future is dropped: that leaves the queue, or cancels the query on its
//! thread, which looks at the flag every few milliseconds.

use std::time::{Duration, Instant};

use axum::response::Response;
use chronolith_httpapi::{
    Annotations, ApiError, ErrorKind, JsonBuf, Params, StepTimes, parse_duration, success, try_success,
    value_bytes, write_analysis, write_explanation, write_stats, write_value_while,
};
use chronolith_promql::{EngineError, EngineErrorKind, MemoryUse, QueryContext, QueryResult, Value};

use super::samples::CancelOnDrop;
use super::{Api, ReadOptions, small};
use crate::admission::{Admitted, Origin, QueryRecord, Refusal};

/// What is to be evaluated when.
#[derive(Clone, Copy, Debug)]
pub(super) enum Evaluation {
    Instant { t: i64 },
    Range { start: i64, end: i64, step_ms: i64 },
}

impl Evaluation {
    /// Start, end and step; the step is 0 for one time.
    fn times(self) -> (i64, i64, i64) {
        match self {
            Evaluation::Instant { t } => (t, t, 0),
            Evaluation::Range { start, end, step_ms } => (start, end, step_ms),
        }
    }
}

/// A call of the query API.
pub(super) struct Call {
    pub(super) origin: Origin,
    pub(super) options: ReadOptions,
    pub(super) params: Params,
    pub(super) limit: Option<usize>,
    pub(super) evaluation: Evaluation,
}

impl Call {
    /// Deadline, lookback and what is to be measured.
    fn context(&self, api: &Api) -> Result<QueryContext, ApiError> {
        let now = Instant::now();
        let mut cx = QueryContext::new().with_deadline(now + api.engine.options().timeout);
        if let Some(timeout_ms) = self.params.duration("timeout")? {
            let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
            // A timeout that a clock cannot hold is none.
            if let Some(deadline) = now.checked_add(timeout) {
                cx = cx.with_deadline(deadline);
            }
        }
        cx.lookback_ms = match self.params.get("lookback_delta") {
            "" => Some(self.options.lookback_ms(api.engine.options().lookback_ms)),
            text => {
                let parsed = parse_duration(text);
                let refuse = |e| ApiError::bad_data(format!("error parsing lookback delta duration: {e}"));
                Some(parsed.map_err(refuse)?).filter(|l| *l > 0)
            }
        };
        cx.downsampled = self.options.max_source_resolution_ms > 0;
        cx.analyze = matches!(self.params.get("analyze"), "true" | "1");
        cx.step_stats = self.params.get("stats") == "all";
        Ok(cx)
    }
}

/// Answers `/api/v1/query` and `/api/v1/query_range`.
pub(super) async fn evaluate(api: Api, call: Call) -> Result<Response, ApiError> {
    let started = Instant::now();
    let cx = call.context(&api)?;
    if let Evaluation::Range { start, end, .. } = call.evaluation {
        api.admission.metrics.timespan_seconds.observe((end.saturating_sub(start)) as f64 / 1000.0);
    }
    let deadline = cx.deadline.unwrap_or(started + api.engine.options().timeout);
    let admitted = api.admission.enter(&call.origin, call.params.get("query"), deadline).await;
    let admitted = admitted.map_err(refused)?;
    let cx = cx.with_memory(admitted.memory.clone());
    let guard = CancelOnDrop(cx.clone());
    let small = is_small(&api, &call, &cx);
    let cx = if small { cx } else { cx.taking_turns() };
    let run = move || run(&api, &call, &cx, admitted, started);
    if small {
        let reply = run();
        drop(guard);
        return reply;
    }
    let reply = tokio::task::spawn_blocking(run).await;
    drop(guard);
    reply.map_err(|e| ApiError::new(ErrorKind::Internal, format!("query panicked: {e}")))?
}

/// True when the query may be evaluated right here: see [`small`].
fn is_small(api: &Api, call: &Call, cx: &QueryContext) -> bool {
    let (start, end, step_ms) = call.evaluation.times();
    let lookback_ms = cx.lookback_ms.unwrap_or(api.engine.options().lookback_ms);
    let times = small::Times { start, end, step_ms, lookback_ms };
    let queryable = (api.queryable)(&call.options);
    small::is_small(queryable.as_ref(), &api.engine.options().parse, call.params.get("query"), times)
}

/// Answers `/api/v1/query_explain` and `/api/v1/query_range_explain`.
pub(super) fn explain(api: &Api, call: &Call) -> Result<Response, ApiError> {
    let cx = call.context(api)?;
    let (start, end, step_ms) = call.evaluation.times();
    let plan =
        api.engine.explain(call.params.get("query"), start, end, step_ms, &cx).map_err(engine_error)?;
    Ok(success(&Annotations::default(), |j| write_explanation(j, &plan)))
}

/// Why a query was not let in, as the API says it.
pub(super) fn refused(refusal: Refusal) -> ApiError {
    let kind = match &refusal {
        Refusal::Full(_) => ErrorKind::TooManyRequests,
        Refusal::TimedOut => ErrorKind::Timeout,
    };
    ApiError::new(kind, refusal.to_string())
}

/// Evaluates and writes the reply, on a blocking thread.
fn run(
    api: &Api,
    call: &Call,
    cx: &QueryContext,
    admitted: Admitted,
    started: Instant,
) -> Result<Response, ApiError> {
    let queryable = (api.queryable)(&call.options);
    let query = call.params.get("query");
    let (start_ms, end_ms, step_ms) = call.evaluation.times();
    let result = match call.evaluation {
        Evaluation::Instant { t } => api.engine.instant(queryable.as_ref(), query, t, cx),
        Evaluation::Range { start, end, step_ms } => {
            api.engine.range(queryable.as_ref(), query, start, end, step_ms, cx)
        }
    };
    let mut record = QueryRecord {
        query,
        start_ms,
        end_ms,
        step_ms,
        origin: &call.origin,
        error: None,
        stats: Default::default(),
        timings: Default::default(),
        queued_s: admitted.queued_s,
        total_s: 0.0,
        result_series: 0,
        memory_peak_bytes: 0,
    };
    let reply = result.and_then(|result| {
        record.stats = result.stats;
        record.timings = result.timings;
        record.result_series = match &result.value {
            Value::Matrix(series) => series.len(),
            Value::Vector(samples) => samples.len(),
            Value::Scalar { .. } | Value::String { .. } => 1,
        };
        render(result, call, cx, admitted.queued_s)
    });
    let reply = reply.map_err(engine_error);
    if let Err(error) = &reply {
        record.error = Some((&error.message, error.kind.as_str()));
    }
    record.total_s = started.elapsed().as_secs_f64();
    record.memory_peak_bytes = cx.memory.peak();
    api.admission.ended(&record);
    drop(admitted);
    reply
}

fn render(
    mut result: QueryResult,
    call: &Call,
    cx: &QueryContext,
    queued_s: f64,
) -> Result<Response, EngineError> {
    if call.limit.is_some_and(|n| truncate(&mut result.value, n)) {
        result.warnings.push("results truncated due to limit".to_owned());
    }
    let partial = result.warnings.iter().any(|w| !w.starts_with("PromQL warning: "));
    let stats = call.params.get("stats");
    if !matches!(stats, "" | "true" | "all") {
        result.warnings.push(format!(
            "value {stats:?} for parameter \"stats\" is deprecated and will be rejected in the next major release, \
             use \"true\" or \"all\""
        ));
    }
    let annotations = Annotations {
        partial,
        warnings: std::mem::take(&mut result.warnings),
        infos: std::mem::take(&mut result.infos),
    };
    try_success(&annotations, |j| {
        let bytes = value_bytes(&result.value);
        let mut held = cx.memory.hold(MemoryUse::Reply, bytes)?;
        j.bytes.reserve(bytes);
        j.raw("{");
        write_value_while(j, &result.value, &mut || Ok::<(), EngineError>(cx.check()?))?;
        write_cost(j, &result, call, queued_s);
        j.raw("}");
        held.resize(j.bytes.capacity())?;
        Ok(held)
    })
}

/// `stats` and `analysis`, where the call asks for them.
fn write_cost(j: &mut JsonBuf, result: &QueryResult, call: &Call, queued_s: f64) {
    if !call.params.get("stats").is_empty() {
        let (start_ms, _, step_ms) = call.evaluation.times();
        let times = StepTimes { start_ms, step_ms };
        j.raw(r#","stats":"#);
        let steps = result.steps.as_ref().map(|steps| (steps, times));
        write_stats(j, &result.timings, queued_s, &result.stats, steps);
    }
    if let Some(analysis) = &result.analysis {
        j.raw(r#","analysis":"#);
        write_analysis(j, analysis);
    }
}

fn truncate(value: &mut Value, n: usize) -> bool {
    match value {
        Value::Matrix(series) if series.len() > n => series.truncate(n),
        Value::Vector(samples) if samples.len() > n => samples.truncate(n),
        _ => return false,
    }
    true
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
