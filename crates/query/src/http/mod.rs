//! Prometheus's HTTP API over a [`Store`]: routes, parameters, and the hand-over to the engine's blocking threads.
//!
//! A handler reads its parameters, calls the store (async) or the engine (on a blocking thread, behind the gate of
//! `--query.max-concurrent`), and writes the reply. When the client goes away the handler's future is dropped, and
//! that cancels the query.

mod labels;
mod options;
mod query;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, options as options_method};
use chronolith_httpapi::{ApiError, ErrorKind};
use chronolith_promql::Queryable;
use chronolith_promql::engine::Engine;
use chronolith_storeapi::{ErrorKind as StoreErrorKind, Store, StoreError};
use http::{HeaderValue, Request, StatusCode, header};
use tokio::sync::Semaphore;

pub use options::ReadOptions;
pub use status::{BuildInfo, MetricMetadata, StatusSource, TopEntry, TsdbStatus};

/// Makes the engine's view of the store for one request's [`ReadOptions`].
pub type QueryableFactory = Arc<dyn Fn(&ReadOptions) -> Arc<dyn Queryable> + Send + Sync>;

/// Chooses the stores that one request's [`ReadOptions`] ask.
pub type StoreFactory = Arc<dyn Fn(&ReadOptions) -> Arc<dyn Store> + Send + Sync>;

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    /// Evaluates PromQL.
    pub engine: Arc<Engine>,
    /// The engine's source of series.
    pub queryable: QueryableFactory,
    /// Where label and series calls go.
    pub stores: StoreFactory,
    /// Used where a request does not say otherwise.
    pub defaults: ReadOptions,
    /// `--query.default-evaluation-interval` in milliseconds: the least step of a range query that names none.
    pub default_step_ms: i64,
    /// Queries that run at once; others wait.
    pub gate: Arc<Semaphore>,
    /// Statistics of the heads, where this process has heads.
    pub status: Option<Arc<dyn StatusSource>>,
    /// The endpoints and their state, for `/api/v1/stores`.
    pub endpoints: Option<Arc<dyn Fn() -> Vec<EndpointStatus> + Send + Sync>>,
    /// The command line, for `/api/v1/status/flags`.
    pub flags: Arc<Vec<(String, String)>>,
    /// What this binary is.
    pub build: BuildInfo,
    /// When the process started, milliseconds since the epoch.
    pub started_ms: i64,
}

/// One line of `/api/v1/stores`.
#[derive(Clone, Debug, Default)]
pub struct EndpointStatus {
    /// Component type (`receive`, `store`, ...).
    pub component: String,
    /// Address.
    pub name: String,
    /// Last check, milliseconds since the epoch.
    pub last_check_ms: i64,
    /// The error of the last check.
    pub last_error: Option<String>,
    /// External label sets.
    pub label_sets: Vec<chronolith_model::Labels>,
    /// First time it has data for.
    pub mint: i64,
    /// Last time it has data for.
    pub maxt: i64,
}

/// The routes of the API.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values))
        .route("/api/v1/metadata", get(status::metadata))
        .route("/api/v1/stores", get(status::stores))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/api/v1/{*rest}", options_method(preflight))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::middleware::map_response(cross_origin))
        .with_state(api)
}

/// CORS pre-flight: upstream answers every `OPTIONS` with 204.
async fn preflight() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// 405 rather than 404: Grafana falls back from POST to GET on it.
async fn method_not_allowed(request: Request<axum::body::Body>) -> Response {
    if request.method() == http::Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let text = format!("method {} is not allowed on {}", request.method(), request.uri().path());
    ApiError::new(ErrorKind::MethodNotAllowed, text).into_response()
}

/// The CORS headers that Prometheus sends (`--web.cors.origin` `.*`).
async fn cross_origin(mut response: Response) -> Response {
    const HEADERS: [(header::HeaderName, &str); 4] = [
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Authorization, Content-Type, Origin"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A failed store call as the API reports it: label and series calls fail with `execution`, as upstream's do.
fn store_error(error: StoreError) -> ApiError {
    let kind = match error.kind() {
        StoreErrorKind::Invalid => ErrorKind::BadData,
        StoreErrorKind::Timeout => ErrorKind::Timeout,
        StoreErrorKind::Cancelled => ErrorKind::Canceled,
        StoreErrorKind::Internal | StoreErrorKind::Unavailable => ErrorKind::Internal,
        _ => ErrorKind::Execution,
    };
    ApiError::new(kind, error.chain())
}
