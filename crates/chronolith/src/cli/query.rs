//! Flags of the query role, shared by `query` and `server`.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_query::http::{RemoteReadLimits, Tenancy};
use chronolith_query::{AdmissionConfig, Config, Features};
use chronolith_service::config::{ByteSize, DurationMs};
use chronolith_service::tls::{ClientTlsConfig, TlsVersion};
use chronolith_storeapi::PartialResponse;
use clap::Args;

use super::common::{GrpcServerTlsArgs, LogArgs, ObjstoreArgs, address, given};
use super::web::WebArgs;

/// What changes data.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// Serve /api/v1/admin/tsdb/delete_series: requests go into the bucket of --objstore.config-file.
    #[arg(long = "web.enable-admin-api", help_heading = "Web")]
    pub(crate) enabled: bool,
}

/// Answer PromQL over any number of StoreAPI endpoints.
#[derive(Args, Clone, Debug)]
pub(crate) struct QueryArgs {
    /// Where the HTTP API is served.
    #[arg(long = "http-address", default_value = "0.0.0.0:10902", value_parser = address, value_name = "HOST:PORT")]
    http_address: String,
    /// Where the StoreAPI over all endpoints is served.
    #[arg(long = "grpc-address", default_value = "0.0.0.0:10901", value_parser = address, value_name = "HOST:PORT")]
    grpc_address: String,
    #[command(flatten)]
    tls: GrpcServerTlsArgs,
    #[command(flatten)]
    client_tls: GrpcClientTlsArgs,
    #[command(flatten)]
    endpoints: EndpointArgs,
    #[command(flatten)]
    evaluation: EvaluationArgs,
    #[command(flatten)]
    pub(crate) web: WebArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// TLS of the connections to endpoints. The ids tell these flags from those of the listener, which stand beside them.
#[derive(Args, Clone, Debug)]
pub(crate) struct GrpcClientTlsArgs {
    /// Call endpoints by TLS, unless the endpoint file says otherwise.
    #[arg(long = "grpc-client-tls-secure", help_heading = "TLS")]
    secure: bool,
    /// Believe any certificate.
    #[arg(long = "grpc-client-tls-skip-verify", help_heading = "TLS")]
    skip_verify: bool,
    /// Certificate to show to endpoints.
    #[arg(
        id = "grpc-client-tls-cert",
        long = "grpc-client-tls-cert",
        value_name = "FILE",
        help_heading = "TLS"
    )]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(
        id = "grpc-client-tls-key",
        long = "grpc-client-tls-key",
        value_name = "FILE",
        help_heading = "TLS"
    )]
    key: Option<PathBuf>,
    /// Authorities to trust; without it those of the system.
    #[arg(id = "grpc-client-tls-ca", long = "grpc-client-tls-ca", value_name = "FILE", help_heading = "TLS")]
    ca: Option<PathBuf>,
    /// Name that the endpoints' certificates must carry, instead of the one they are called by.
    #[arg(long = "grpc-client-server-name", default_value = "", value_name = "NAME", help_heading = "TLS")]
    server_name: String,
    /// Oldest protocol: 1.2 or 1.3.
    #[arg(
        id = "grpc-client-tls-min-version",
        long = "grpc-client-tls-min-version",
        default_value = "1.3",
        value_name = "VERSION",
        help_heading = "TLS"
    )]
    min_version: TlsVersion,
}

impl GrpcClientTlsArgs {
    fn config(&self) -> Option<ClientTlsConfig> {
        self.secure.then(|| ClientTlsConfig {
            ca_file: given(&self.ca),
            cert_file: given(&self.cert),
            key_file: given(&self.key),
            server_name: Some(self.server_name.clone()).filter(|name| !name.is_empty()),
            skip_verify: self.skip_verify,
            min_version: self.min_version,
        })
    }
}

/// Whom to ask.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndpointArgs {
    /// A StoreAPI endpoint, HOST:PORT or dns+HOST:PORT; may be repeated.
    #[arg(long = "endpoint", value_name = "ENDPOINT", help_heading = "Endpoints")]
    endpoints: Vec<String>,
    /// An endpoint that is always asked: when it is down, answers carry a warning or fail; may be repeated.
    #[arg(long = "endpoint-strict", value_name = "ENDPOINT", help_heading = "Endpoints")]
    endpoints_strict: Vec<String>,
    /// A name that stands for several equal servers, of which one is asked; may be repeated.
    #[arg(long = "endpoint-group", value_name = "ENDPOINT", help_heading = "Endpoints")]
    endpoint_groups: Vec<String>,
    /// File with endpoints, Thanos's endpoint configuration.
    #[arg(long = "endpoint.sd-config-file", value_name = "FILE", help_heading = "Endpoints")]
    sd_config_file: Option<PathBuf>,
    /// How often that file is read again.
    #[arg(
        long = "endpoint.sd-config-reload-interval",
        default_value = "5m",
        value_name = "DURATION",
        help_heading = "Endpoints"
    )]
    sd_reload_interval: DurationMs,
    /// How long an endpoint may take to say what it holds.
    #[arg(
        long = "endpoint.info-timeout",
        default_value = "5s",
        value_name = "DURATION",
        help_heading = "Endpoints"
    )]
    info_timeout: DurationMs,
    /// How often names are resolved again.
    #[arg(
        long = "store.sd-dns-interval",
        default_value = "30s",
        value_name = "DURATION",
        help_heading = "Endpoints"
    )]
    dns_interval: DurationMs,
    /// How long an endpoint may be silent within an answer; 0 waits as long as the query may run.
    #[arg(
        long = "store.response-timeout",
        default_value = "0s",
        value_name = "DURATION",
        help_heading = "Endpoints"
    )]
    response_timeout: DurationMs,
}

/// How to evaluate; what `server` takes, too.
#[derive(Args, Clone, Debug)]
pub(crate) struct EvaluationArgs {
    /// Label that tells replicas apart; several by repeating the flag or by commas.
    #[arg(long = "query.replica-label", value_name = "NAME", help_heading = "Query")]
    replica_labels: Vec<String>,
    /// Answer with a warning rather than fail when a store does not answer.
    #[arg(long = "query.partial-response", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Query")]
    partial_response: bool,
    /// Choose the resolution of downsampled data by the step.
    #[arg(long = "query.auto-downsampling", help_heading = "Query")]
    auto_downsampling: bool,
    /// The coarsest resolution of downsampled data that instant queries read which name none; 0s is raw data only.
    #[arg(
        long = "query.instant.default.max_source_resolution",
        default_value = "0s",
        value_name = "DURATION",
        help_heading = "Query"
    )]
    instant_max_source_resolution: DurationMs,
    /// Look back further than `--query.lookback-delta` where downsampled data may answer, whose samples are further apart.
    #[arg(long = "query.dynamic-lookback-delta", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL", help_heading = "Query")]
    dynamic_lookback: bool,
    /// Longest that a query may run.
    #[arg(long = "query.timeout", default_value = "2m", value_name = "DURATION", help_heading = "Query")]
    timeout: DurationMs,
    /// Queries that run at once; others wait, and take turns by tenant or client address.
    #[arg(long = "query.max-concurrent", default_value_t = 20, value_name = "N", help_heading = "Query")]
    concurrency_max: usize,
    /// Queries that wait at once; more are refused with 429.
    #[arg(long = "query.max-queue", default_value_t = 1000, value_name = "N", help_heading = "Query")]
    queue_max: usize,
    /// Most memory that a query may hold: samples, vectors, groups, join tables, result and reply; 0 is no bound.
    #[arg(long = "query.max-memory", default_value = "2GiB", value_name = "SIZE", help_heading = "Query")]
    memory_max: ByteSize,
    /// Most memory that all queries together may hold; 0 is half of what the process may use.
    #[arg(long = "query.max-memory-total", default_value = "0", value_name = "SIZE", help_heading = "Query")]
    memory_total_max: ByteSize,
    /// Directory of the file `queries.active`, which tells after a crash which queries were in flight.
    #[arg(long = "query.active-query-path", value_name = "DIR", help_heading = "Query")]
    active_query_path: Option<PathBuf>,
    /// File that every query is written to, as lines of JSON.
    #[arg(long = "query.log-file", value_name = "FILE", help_heading = "Query")]
    query_log_file: Option<PathBuf>,
    /// Queries slower than this are logged; 0 logs none.
    #[arg(
        long = "query.log-queries-longer-than",
        default_value = "0s",
        value_name = "DURATION",
        help_heading = "Query"
    )]
    log_longer_than: DurationMs,
    /// Features to switch on, Prometheus's names; several by repeating the flag or by commas:
    /// promql-experimental-functions, promql-extended-range-selectors, promql-binop-fill-modifiers,
    /// promql-delayed-name-removal, promql-per-step-stats, type-and-unit-labels, use-start-timestamps; in `server` also
    /// st-storage, otlp-native-delta-ingestion, otlp-deltatocumulative.
    #[arg(long = "enable-feature", value_name = "NAME", help_heading = "Query")]
    pub(crate) features: Vec<String>,
    /// Most samples that a query may hold.
    #[arg(
        long = "query.max-samples",
        default_value_t = 50_000_000,
        value_name = "N",
        help_heading = "Query"
    )]
    samples_max: usize,
    /// Threads that one query may use while cores are free; 0 is as many as there are cores. As many queries as there are
    /// cores compute at once in any case.
    #[arg(long = "query.max-threads", default_value_t = 0, value_name = "N", help_heading = "Query")]
    threads_max: usize,
    /// How old a sample may be to count as current.
    #[arg(
        long = "query.lookback-delta",
        default_value = "5m",
        value_name = "DURATION",
        help_heading = "Query"
    )]
    lookback: DurationMs,
    /// Step of subqueries that name none.
    #[arg(
        long = "query.default-evaluation-interval",
        default_value = "1m",
        value_name = "DURATION",
        help_heading = "Query"
    )]
    default_evaluation_interval: DurationMs,
    /// Least step of range queries that name none: they get this or a 250th of their range.
    #[arg(
        long = "query.default-step",
        default_value = "1s",
        value_name = "DURATION",
        help_heading = "Query"
    )]
    default_step: DurationMs,
    /// How far back label and series calls look that name no time; 0 is all of time.
    #[arg(
        long = "query.metadata.default-time-range",
        default_value = "0s",
        value_name = "DURATION",
        help_heading = "Query"
    )]
    metadata_range: DurationMs,
    /// Keep every request to what its tenant wrote: its header becomes a matcher of every selector.
    #[arg(long = "query.enforce-tenancy", help_heading = "Query")]
    enforce_tenancy: bool,
    /// Header that names a request's tenant.
    #[arg(
        long = "query.tenant-header",
        default_value = "THANOS-TENANT",
        value_name = "HEADER",
        help_heading = "Query"
    )]
    query_tenant_header: String,
    /// Tenant of requests without that header.
    #[arg(
        long = "query.default-tenant-id",
        default_value = "default-tenant",
        value_name = "TENANT",
        help_heading = "Query"
    )]
    query_default_tenant: String,
    /// Label that holds the tenant.
    #[arg(
        long = "query.tenant-label-name",
        default_value = "tenant_id",
        value_name = "LABEL",
        help_heading = "Query"
    )]
    query_tenant_label: String,
    /// Most samples of one query of a sampled remote read; 0 is no bound.
    #[arg(
        long = "storage.remote.read-sample-limit",
        default_value_t = 50_000_000,
        value_name = "N",
        help_heading = "Remote read"
    )]
    remote_read_samples_max: usize,
    /// Remote reads that run at once, others wait; 0 is no bound.
    #[arg(
        long = "storage.remote.read-concurrent-limit",
        default_value_t = 10,
        value_name = "N",
        help_heading = "Remote read"
    )]
    remote_read_concurrency_max: usize,
    /// Most bytes of a frame of a streamed remote read, give or take a chunk.
    #[arg(
        long = "storage.remote.read-max-bytes-in-frame",
        default_value_t = 1_048_576,
        value_name = "BYTES",
        help_heading = "Remote read"
    )]
    remote_read_frame_bytes_max: usize,
    /// Largest limit of a search (--enable-feature=search-api); 0 is no bound.
    #[arg(long = "web.search.max-limit", default_value_t = 10_000, value_name = "N", help_heading = "Web")]
    search_limit_max: usize,
}

impl QueryArgs {
    /// The role's settings.
    pub(crate) fn config(&self) -> Config {
        let e = &self.endpoints;
        Config {
            http_address: Some(self.http_address.clone()),
            grpc_address: Some(self.grpc_address.clone()),
            grpc_tls: self.tls.config(),
            client_tls: self.client_tls.config(),
            endpoints: e.endpoints.clone(),
            endpoints_strict: e.endpoints_strict.clone(),
            endpoint_groups: e.endpoint_groups.clone(),
            sd_config_file: e.sd_config_file.clone(),
            sd_reload_interval: duration(e.sd_reload_interval),
            info_timeout: duration(e.info_timeout),
            dns_interval: duration(e.dns_interval),
            response_timeout: Some(duration(e.response_timeout)).filter(|d| !d.is_zero()),
            cross_origin: self.web.cross_origin(),
            ..self.evaluation.config()
        }
    }
}

impl EvaluationArgs {
    /// The settings of a querier without endpoints of its own.
    pub(crate) fn config(&self) -> Config {
        let partial = if self.partial_response { PartialResponse::Warn } else { PartialResponse::Abort };
        Config {
            replica_labels: self.replica_labels.clone(),
            partial_response: partial,
            auto_downsampling: self.auto_downsampling,
            instant_max_source_resolution_ms: self.instant_max_source_resolution.0,
            dynamic_lookback: self.dynamic_lookback,
            timeout: duration(self.timeout),
            admission: AdmissionConfig {
                concurrency_max: self.concurrency_max,
                queue_max: self.queue_max,
                memory_max_bytes: self.memory_max.0,
                memory_total_max_bytes: self.memory_total_max.0,
                active_query_path: self.active_query_path.clone(),
                log_file: self.query_log_file.clone(),
                slow: duration(self.log_longer_than),
                tenant_header: self.query_tenant_header.clone(),
            },
            features: Features::from_flags(&self.features),
            samples_max: self.samples_max,
            threads_max: self.threads_max,
            lookback_ms: self.lookback.0,
            default_evaluation_interval_ms: self.default_evaluation_interval.0,
            default_step_ms: self.default_step.0.max(1),
            metadata_range_ms: self.metadata_range.0,
            tenancy: self.enforce_tenancy.then(|| Tenancy {
                header: self.query_tenant_header.clone(),
                default_tenant: self.query_default_tenant.clone(),
                label: self.query_tenant_label.clone(),
            }),
            remote_read: RemoteReadLimits {
                samples_max: self.remote_read_samples_max,
                concurrency_max: self.remote_read_concurrency_max,
                frame_bytes_max: self.remote_read_frame_bytes_max,
            },
            search_limit_max: self.search_limit_max,
            ..Config::default()
        }
    }
}

fn duration(d: DurationMs) -> Duration {
    Duration::from_millis(d.0.unsigned_abs())
}
