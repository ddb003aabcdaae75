//! What happens to every request around its handler: CORS, readiness, unknown paths and methods.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use chronolith_model::GoRegex;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::Api;

/// Who may call from a browser page of another origin.
#[derive(Clone, Debug, Default)]
pub enum CrossOrigin {
    /// Everyone: Prometheus's and Thanos's default.
    #[default]
    All,
    /// Origins that match (`--web.cors.origin`).
    Matching(GoRegex),
    /// No one: there are no CORS headers (`--web.disable-cors`).
    Off,
}

impl CrossOrigin {
    fn set_headers(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        const ALWAYS: [(header::HeaderName, &str); 3] = [
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        ];
        let allowed = match self {
            CrossOrigin::Off => return,
            CrossOrigin::All => Some(HeaderValue::from_static("*")),
            CrossOrigin::Matching(regex) => {
                headers.append(header::VARY, HeaderValue::from_static("Origin"));
                let Some(origin) = origin else { return };
                origin.to_str().is_ok_and(|o| regex.is_match(o)).then(|| origin.clone())
            }
        };
        for (name, value) in ALWAYS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(origin) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }
}

/// The CORS headers on every answer of the API; upstream answers every `OPTIONS` below it with 204.
pub(super) async fn cross_origin(State(api): State<Api>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS && request.uri().path().starts_with("/api/v1/");
    let mut response =
        if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    api.settings.cross_origin.set_headers(origin.as_ref(), response.headers_mut());
    response
}

/// 503 while the process starts or stops: an answer from half of the data would look like a whole one.
pub(super) async fn when_ready(State(api): State<Api>, request: Request, next: Next) -> Response {
    match &api.probes {
        Some(probes) if !probes.is_ready() => {
            let stopping = [("x-prometheus-stopping", "false")];
            (StatusCode::SERVICE_UNAVAILABLE, stopping, "Service Unavailable").into_response()
        }
        _ => next.run(request).await,
    }
}

pub(super) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// 405 rather than 404: Grafana falls back from POST to GET on it.
pub(super) async fn method_not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n").into_response()
}
