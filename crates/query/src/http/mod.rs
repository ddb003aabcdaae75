//! Prometheus's HTTP API over a [`Fanout`]: routes, parameters, and the hand-over to the engine's blocking threads.
//!
//! A handler reads its parameters, calls the store (async) or the engine (on a blocking thread, behind the
//! [`Admission`] queue), and writes the reply. When the client goes away the handler's future is dropped, and
//! that cancels the query.
//!
//! ```text
//! request ─ guard (CORS, ready?) ─ options (tenant, Thanos's parameters) ─┬─ query, labels, search, language
//!                                                                       ├─ remote_read, federate
//!                                                                       └─ process, tsdb_status, scrape, openapi, …
//! ```

mod admin;
mod evaluate;
mod exemplars;
mod federate;
mod guard;
mod index;
mod labels;
mod language;
mod notifications;
mod openapi;
mod options;
mod prefix;
mod process;
mod query;
mod remote_read;
mod rules;
mod samples;
mod scrape;
mod search;
mod search_score;
mod self_metrics;
mod small;
mod tsdb_status;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get, post};
use chronolith_httpapi::{ApiError, ErrorKind, Params};
use chronolith_model::Matcher;
use chronolith_promql::Queryable;
use chronolith_promql::engine::Engine;
use chronolith_service::{Clock, Metrics, Probes};
use chronolith_storeapi::{ErrorKind as StoreErrorKind, Fanout, StoreError};
use tokio::sync::Semaphore;

use crate::admission::Admission;

pub use admin::SeriesDeletion;
pub use guard::CrossOrigin;
pub use notifications::Subscribers;
pub(crate) use options::enforce;
pub use options::{ReadOptions, Tenancy};
pub use prefix::Prefixes;
pub use process::BuildInfo;
pub use remote_read::RemoteReadLimits;
pub use search::SearchSettings;
pub use tsdb_status::StatusSource;

/// Makes the engine's view of the store for one request's [`ReadOptions`].
pub type QueryableFactory = Arc<dyn Fn(&ReadOptions) -> Arc<dyn Queryable> + Send + Sync>;

/// Chooses the stores that one request's [`ReadOptions`] ask.
pub type StoreFactory = Arc<dyn Fn(&ReadOptions) -> Fanout + Send + Sync>;

/// What the flags say of the API.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--query.default-step` in milliseconds: the least step of a range query that names none.
    pub default_step_ms: i64,
    /// `--query.metadata.default-time-range` in milliseconds: how far label and series calls look back that name no
    /// time; 0 is all of time.
    pub metadata_range_ms: i64,
    /// Who may call from a browser page of another origin.
    pub cross_origin: CrossOrigin,
    /// Bounds of remote read.
    pub remote_read: RemoteReadLimits,
    /// Whether names are searched, and how many are shown.
    pub search: SearchSettings,
    /// Keeps requests to their tenant; `None` where everyone sees everything.
    pub tenancy: Option<Tenancy>,
}

/// What the handlers need.
#[derive(Clone)]
pub struct Api {
    /// Evaluates PromQL.
    pub engine: Arc<Engine>,
    /// The engine's source of series.
    pub queryable: QueryableFactory,
    /// Where label, series, exemplar and metadata calls go.
    pub stores: StoreFactory,
    /// Used where a request does not say otherwise.
    pub defaults: ReadOptions,
    /// What the flags say.
    pub settings: Settings,
    /// Who may evaluate when, with how much memory, and what is written down about it.
    pub admission: Arc<Admission>,
    /// Remote reads that run at once; others wait.
    pub remote_read_gate: Arc<Semaphore>,
    /// Places for live streams of notifications.
    pub subscribers: Subscribers,
    /// What this process has on its own disk, where it has a database.
    pub status: Option<Arc<dyn StatusSource>>,
    /// Deletes series (`--web.enable-admin-api`).
    pub deletion: Option<Arc<dyn SeriesDeletion>>,
    /// The endpoints and their state, for `/api/v1/stores`.
    pub endpoints: Option<Arc<dyn Fn() -> Vec<EndpointStatus> + Send + Sync>>,
    /// The command line, for `/api/v1/status/flags`.
    pub flags: Arc<Vec<(String, String)>>,
    /// What `/api/v1/status/config` shows.
    pub config_yaml: Arc<str>,
    /// What this binary is.
    pub build: BuildInfo,
    /// When the process started, milliseconds since the epoch.
    pub started_ms: i64,
    /// The process's own metrics, for `/api/v1/status/self_metrics`.
    pub metrics: Metrics,
    /// Whether the process is ready; without it the API answers from the start.
    pub probes: Option<Probes>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Api {
    /// A request's parameters, and the tenant that it is kept to.
    async fn params(&self, request: Request) -> Result<(Option<Matcher>, Params), ApiError> {
        let tenant = self.settings.tenancy.as_ref().map(|t| t.matcher(request.headers()));
        Ok((tenant, Params::read(request).await?))
    }

    /// A request's parameters, and how it wants the stores to be read.
    async fn read(&self, request: Request) -> Result<(ReadOptions, Params), ApiError> {
        let (tenant, params) = self.params(request).await?;
        let options = ReadOptions { tenant, ..self.defaults.with_params(&params, 0)? };
        Ok((options, params))
    }
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
    let guarded = Router::new()
        .route("/api/v1/query", get(query::instant).post(query::instant))
        .route("/api/v1/query_range", get(query::range).post(query::range))
        .route("/api/v1/query_explain", get(query::explain_instant).post(query::explain_instant))
        .route("/api/v1/query_range_explain", get(query::explain_range).post(query::explain_range))
        .route("/api/v1/query_exemplars", get(exemplars::exemplars).post(exemplars::exemplars))
        .route("/api/v1/format_query", get(language::format).post(language::format))
        .route("/api/v1/parse_query", get(language::parse).post(language::parse))
        .route("/api/v1/features", get(language::features))
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values))
        .route("/api/v1/search/metric_names", get(search::metric_names).post(search::metric_names))
        .route("/api/v1/search/label_names", get(search::label_names).post(search::label_names))
        .route("/api/v1/search/label_values", get(search::label_values).post(search::label_values))
        .route("/api/v1/read", post(remote_read::read))
        .route("/api/v1/metadata", get(exemplars::metadata))
        .route("/api/v1/scrape_pools", get(scrape::pools))
        .route("/api/v1/scrape_pools/config", get(scrape::pool_config))
        .route("/api/v1/targets", get(scrape::targets))
        .route("/api/v1/targets/metadata", get(scrape::target_metadata))
        .route("/api/v1/targets/relabel_steps", get(scrape::relabel_steps))
        .route("/api/v1/alertmanagers", get(rules::alertmanagers))
        .route("/api/v1/rules", get(rules::rules))
        .route("/api/v1/alerts", get(rules::alerts))
        .route("/api/v1/stores", get(process::stores))
        .route("/api/v1/status/config", get(process::config))
        .route("/api/v1/status/buildinfo", get(process::build_info))
        .route("/api/v1/status/runtimeinfo", get(process::runtime_info))
        .route("/api/v1/status/flags", get(process::flags))
        .route("/api/v1/status/self_metrics", get(self_metrics::self_metrics))
        .route("/api/v1/status/tsdb", get(tsdb_status::tsdb))
        .route("/api/v1/status/tsdb/blocks", get(tsdb_status::blocks))
        .route("/api/v1/admin/tsdb/delete_series", post(admin::delete_series).put(admin::delete_series))
        .route("/federate", get(federate::federate))
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::when_ready));
    // What tells of a process that is starting answers while it is.
    let open = Router::new()
        .route("/", get(index::index))
        .route("/api/v1/status/walreplay", get(process::wal_replay))
        .route("/api/v1/openapi.yaml", get(openapi::openapi))
        .route("/api/v1/notifications", get(notifications::list))
        .route("/api/v1/notifications/live", get(notifications::live))
        .route("/api/v1/{*rest}", any(guard::not_found));
    guarded
        .merge(open)
        .method_not_allowed_fallback(guard::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::cross_origin))
        .with_state(api)
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

#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
