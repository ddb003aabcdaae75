//! `GET /federate`: the newest sample of each series, in an exposition format, for another Prometheus to scrape.
//!
//! A series counts while its newest sample is not older than the lookback delta and no stale marker. There is no place for a
//! warning in the formats, so a store that fails makes the scrape fail; see [`read_whole`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use chronolith_httpapi::{Exposition, ExpositionFormat};
use chronolith_model::{FloatHistogram, Labels, Matcher, SampleValue, TimeRange, is_stale_nan};
use chronolith_promql::parser::parse_selector;
use chronolith_promql::{
    MemoryUse, PointValue, QueryContext, Queryable, QueryableError, QueryableErrorKind, SelectHints,
    SelectRequest,
};
use http::{StatusCode, header};
use prometheus_client::metrics::counter::Counter;

use super::samples::{CancelOnDrop, for_each_sample, read_whole, status_of};
use super::{Api, Params, ReadOptions};

/// Series of one answer; a scrape of more is no federation.
const SERIES_MAX: usize = 5_000_000;

/// A value, its time and its place in the map and in the sorted list.
const POINT_BYTES: usize = 160;

pub(super) async fn federate(State(api): State<Api>, request: Request) -> Response {
    let origin = api.admission.origin(&request);
    let accept: Vec<&str> =
        request.headers().get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let format = ExpositionFormat::negotiate(&accept.join(","));
    let tenant = api.settings.tenancy.as_ref().map(|t| t.matcher(request.headers()));
    let params = Params::from_query(request.uri().query().unwrap_or(""));
    let refuse = |status: StatusCode, text: String| (status, format!("{text}\n")).into_response();
    let parsed = params.all("match[]").map(|s| parse_selector(s).map_err(|e| e.to_string()));
    let selectors: Vec<Vec<Matcher>> = match parsed.collect() {
        Ok(selectors) => selectors,
        Err(text) => return refuse(StatusCode::BAD_REQUEST, text),
    };
    let options = match read_whole(&api, &params) {
        Ok(options) => ReadOptions { tenant, ..options },
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.message),
    };
    let now = api.clock.now_ms();
    let engine = api.engine.options();
    let deadline = Instant::now() + engine.timeout;
    let admitted = match api
        .admission
        .enter(&origin, &params.all("match[]").collect::<Vec<_>>().join(" or "), deadline)
        .await
    {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let error = super::evaluate::refused(refusal);
            return refuse(error.kind.status(), error.message);
        }
    };
    let range = TimeRange::new(now - engine.lookback_ms, now);
    let cx = QueryContext::new().with_deadline(deadline).with_memory(admitted.memory.clone());
    let guard = CancelOnDrop(cx.clone());
    let queryable = (api.queryable)(&options);
    let warnings = api.admission.metrics.federation_warnings.clone();
    let work = tokio::task::spawn_blocking(move || {
        let _admitted = admitted;
        newest(queryable.as_ref(), &selectors, range, &cx, &warnings).map(|found| write(found, format))
    });
    let done = work.await;
    drop(guard);
    if !matches!(done, Ok(Ok(_))) {
        api.admission.metrics.federation_errors.inc();
    }
    match done {
        Ok(Ok(body)) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Ok(Err(error)) => refuse(status_of(&error), error.message),
        Err(panic) => refuse(StatusCode::INTERNAL_SERVER_ERROR, panic.to_string()),
    }
}

/// The newest sample by series.
fn newest(
    queryable: &dyn Queryable,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    cx: &QueryContext,
    warnings: &Counter,
) -> Result<BTreeMap<Labels, (i64, PointValue)>, QueryableError> {
    let hints =
        SelectHints { start: range.mint, end: range.maxt, newest_only: true, ..SelectHints::default() };
    let mut found = BTreeMap::new();
    let mut held = cx.memory.hold(MemoryUse::Result, 0)?;
    for matchers in selectors {
        let mut set = queryable.select(&SelectRequest { matchers, range, hints: &hints }, cx)?;
        while let Some(series) = set.next()? {
            let mut last = None;
            for_each_sample(&series.data, range, |t, value| {
                last = Some((t, value));
                Ok(())
            })?;
            let Some((t, value)) = last else { continue };
            let point = match value {
                SampleValue::Float(v) if is_stale_nan(v) => continue,
                SampleValue::Float(v) => PointValue::Float(v),
                SampleValue::Histogram(h) => PointValue::Histogram(Arc::new(h.to_float())),
                SampleValue::FloatHistogram(h) => PointValue::Histogram(h),
            };
            if matches!(&point, PointValue::Histogram(h) if is_stale_nan(h.sum)) {
                continue;
            }
            // Twice the labels: they are written out once more.
            held.resize(held.bytes() + 2 * series.labels.encoded_len() + POINT_BYTES)?;
            found.insert(series.labels, (t, point));
            if found.len() > SERIES_MAX {
                let text = format!("more than {SERIES_MAX} series match; narrow the selector");
                return Err(QueryableError::new(QueryableErrorKind::LimitExceeded, text));
            }
        }
        for warning in set.take_warnings() {
            warnings.inc();
            tracing::warn!(warning, "federation answered with less than everything, as its URL allows");
        }
    }
    Ok(found)
}

/// Families by name; within one, series by labels.
fn write(found: BTreeMap<Labels, (i64, PointValue)>, format: ExpositionFormat) -> Vec<u8> {
    // Series without a name have no place in an exposition.
    let mut sorted: Vec<(Labels, i64, PointValue)> =
        found.into_iter().filter(|(l, _)| l.metric_name().is_some()).map(|(l, (t, v))| (l, t, v)).collect();
    sorted.sort_by(|a, b| a.0.metric_name().cmp(&b.0.metric_name()));
    let mut out = Exposition::new(format);
    for (labels, t, value) in &sorted {
        // Upstream adds an empty instance, which keeps the scraping server from putting its own there.
        let extra: &[(&str, &str)] = if labels.get("instance").is_none() { &[("instance", "")] } else { &[] };
        match value {
            PointValue::Float(v) => out.float(labels, extra, *t, *v),
            PointValue::Histogram(h) => out.histogram(labels, extra, *t, h as &FloatHistogram),
        }
    }
    out.finish()
}
