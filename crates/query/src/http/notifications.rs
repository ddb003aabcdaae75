//! `/api/v1/notifications` and `/api/v1/notifications/live`: what an operator should know now.
//!
//! Upstream notifies of failed reloads and of start and stop. Here: a role that is not ready, an endpoint that does not
//! answer. The live stream looks every [`LOOK_INTERVAL`] and sends what appeared and what went away.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chronolith_httpapi::{Annotations, JsonBuf, success};
use http::{StatusCode, header};
use tokio::sync::Semaphore;

use super::Api;
use super::process::rfc3339;

/// How often a live stream looks; endpoints are asked as often.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Live streams at a time; upstream's `--web.max-notifications-subscribers`.
const SUBSCRIBERS_MAX: usize = 16;

/// Places for live streams.
#[derive(Clone, Debug)]
pub struct Subscribers(Arc<Semaphore>);

impl Default for Subscribers {
    fn default() -> Self {
        Subscribers(Arc::new(Semaphore::new(SUBSCRIBERS_MAX)))
    }
}

/// Texts, and since when, in milliseconds.
fn current(api: &Api) -> BTreeMap<String, i64> {
    let now = api.clock.now_ms();
    let reasons = api.probes.iter().flat_map(|p| p.reasons()).map(|r| (format!("Not ready: {r}"), now));
    let silent = api.endpoints.iter().flat_map(|list| list()).filter_map(|endpoint| {
        let error = endpoint.last_error?;
        Some((format!("{} does not answer: {error}", endpoint.name), endpoint.last_check_ms))
    });
    reasons.chain(silent).collect()
}

fn write(j: &mut JsonBuf, text: &str, date_ms: i64, active: bool) {
    j.raw(r#"{"text":"#).string(text).raw(r#","date":"#).string(&rfc3339(date_ms));
    j.raw(if active { r#","active":true}"# } else { r#","active":false}"# });
}

pub(super) async fn list(State(api): State<Api>) -> Response {
    success(&Annotations::default(), |j| {
        j.array(current(&api), |j, (text, date)| write(j, &text, date, true));
    })
}

pub(super) async fn live(State(api): State<Api>) -> Response {
    let Ok(place) = api.subscribers.0.clone().try_acquire_owned() else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let stream = async_stream::stream! {
        let _place = place;
        let mut shown = BTreeMap::new();
        // A line at once, so that the client knows that it is connected.
        yield Ok::<_, Infallible>(Bytes::from_static(b":\n\n"));
        loop {
            let now = current(&api);
            for (text, json) in changes(&shown, &now, api.clock.now_ms()) {
                tracing::debug!(text, "notification");
                yield Ok(Bytes::from(json));
            }
            shown = now;
            tokio::time::sleep(LOOK_INTERVAL).await;
            yield Ok(Bytes::from_static(b":\n\n"));
        }
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(stream)).into_response()
}

/// Events for what is new, and for what is over.
fn changes(old: &BTreeMap<String, i64>, new: &BTreeMap<String, i64>, now_ms: i64) -> Vec<(String, String)> {
    let appeared = new.iter().filter(|(text, _)| !old.contains_key(*text)).map(|(t, d)| (t, *d, true));
    let over = old.keys().filter(|text| !new.contains_key(*text)).map(|t| (t, now_ms, false));
    let event = |(text, date, active): (&String, i64, bool)| {
        let mut j = JsonBuf::new();
        j.raw("data: ");
        write(&mut j, text, date, active);
        j.raw("\n\n");
        (text.clone(), String::from_utf8(j.bytes).expect("JSON is UTF-8"))
    };
    appeared.chain(over).map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_and_what_is_over_are_events() {
        let of = |texts: &[&str]| texts.iter().map(|t| ((*t).to_owned(), 1000)).collect();
        let (old, new) = (of(&["a", "b"]), of(&["b", "c"]));
        let events: Vec<String> = changes(&old, &new, 2000).into_iter().map(|(_, e)| e).collect();
        assert_eq!(
            events,
            [
                "data: {\"text\":\"c\",\"date\":\"1970-01-01T00:00:01Z\",\"active\":true}\n\n",
                "data: {\"text\":\"a\",\"date\":\"1970-01-01T00:00:02Z\",\"active\":false}\n\n",
            ]
        );
    }
}
