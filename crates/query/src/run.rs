//! The role: what it binds and offers, and how it runs.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use chronolith_promql::engine::Engine;
use chronolith_promql::{EngineOptions, Queryable};
use chronolith_service::config::ConfigError;
use chronolith_service::grpc::GrpcListener;
use chronolith_service::http::{BindError, HttpListener};
use chronolith_service::tls::{ServerTls, TlsError};
use chronolith_service::{Metrics, Probes, SystemClock};
use chronolith_storeapi::{EndpointSet, Fanout, FanoutOptions, ServerOptions, Services, Store, routes};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::fold::evaluate_over_fanout;
use crate::http::{Api, BuildInfo, EndpointStatus, ReadOptions, StatusSource, Subscribers};
use crate::{Config, EndpointPool, EndpointState, LocalStore, SelectOptions, StoreQueryable};

/// What the API tells of the process it is in.
pub struct Process {
    /// Statistics of the heads, where this process has heads.
    pub status: Option<Arc<dyn StatusSource>>,
    /// Deletes series, where the admin API is on.
    pub deletion: Option<Arc<dyn crate::http::SeriesDeletion>>,
    /// The command line, for `/api/v1/status/flags`.
    pub flags: Vec<(String, String)>,
    /// What this binary is.
    pub build: BuildInfo,
    /// When the process started, milliseconds since the epoch.
    pub started_ms: i64,
    /// The process's own metrics.
    pub metrics: Metrics,
    /// Whether the process is ready; without it the API answers from the start.
    pub probes: Option<Probes>,
}

impl From<&ReadOptions> for SelectOptions {
    fn from(options: &ReadOptions) -> Self {
        SelectOptions {
            dedup: options.dedup,
            replica_labels: options.replica_labels.clone(),
            partial_response: options.partial_response,
            max_resolution_ms: options.max_source_resolution_ms,
            store_matchers: options.store_matchers.clone(),
            shard: options.shard.clone(),
            tenant: options.tenant.clone(),
        }
    }
}

impl From<&EndpointState> for EndpointStatus {
    fn from(state: &EndpointState) -> Self {
        let store = state.info.as_ref().and_then(|info| info.store.as_ref());
        EndpointStatus {
            component: state.info.as_ref().map(|info| info.component.clone()).unwrap_or_default(),
            name: state.name.clone(),
            last_check_ms: state.last_check_ms,
            last_error: state.last_error.clone(),
            label_sets: store.map(|s| s.label_sets.clone()).unwrap_or_default(),
            mint: store.map_or(i64::MAX, |s| s.range.mint),
            maxt: store.map_or(i64::MIN, |s| s.range.maxt),
        }
    }
}

/// Why the role could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A flag or a file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS of the gRPC listener cannot be set up.
    #[error("--grpc-server-tls")]
    Tls(#[from] TlsError),
}

/// Why a running role ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("grpc server of the query role failed")]
pub struct RunError(#[from] tonic::transport::Error);

/// The role with its sockets bound, not serving yet.
pub struct Built {
    pool: Arc<EndpointPool>,
    fanout: Fanout,
    http: Option<HttpListener>,
    grpc: Option<GrpcListener>,
    runtime: Handle,
    admission: Arc<Admission>,
}

/// Reads the endpoints and binds the addresses that the configuration has. `local` are stores of this process, which are
/// asked besides the endpoints. Must be called inside a tokio runtime.
pub async fn build(config: &Config, local: Vec<LocalStore>) -> Result<Built, BuildError> {
    let pool = EndpointPool::new(config, local)?;
    let options = FanoutOptions { response_timeout: config.response_timeout };
    let fanout = Fanout::new(Arc::clone(&pool) as Arc<dyn EndpointSet>, options);
    let http = match &config.http_address {
        Some(address) => Some(HttpListener::bind(address).await?),
        None => None,
    };
    let grpc = match &config.grpc_address {
        Some(address) => {
            let tls = ServerTls::grpc(&config.grpc_tls)?;
            Some(GrpcListener::bind(address).await?.with_tls(tls))
        }
        None => None,
    };
    let admission = Arc::new(Admission::new(&config.admission)?);
    Ok(Built { pool, fanout, http, grpc, runtime: Handle::current(), admission })
}

impl Built {
    /// All endpoints as one store.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.fanout.clone())
    }

    /// The fan-out itself, which can be narrowed to some endpoints; [`chronolith_storeapi::Exemplars`] and
    /// [`chronolith_storeapi::Metadata`] too.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
    }

    /// The endpoints and their state.
    pub fn endpoints(&self) -> &Arc<EndpointPool> {
        &self.pool
    }

    /// Makes what the engine reads from, one for each request's options.
    pub fn queryables(&self) -> impl Fn(SelectOptions) -> Arc<dyn Queryable> + Send + Sync + 'static {
        let (fanout, runtime) = (self.fanout.clone(), self.runtime.clone());
        move |options| Arc::new(StoreQueryable::over_fanout(&fanout, options, runtime.clone()))
    }

    /// The HTTP API over all endpoints, for [`crate::http::router`].
    pub fn api(&self, config: &Config, process: Process) -> Api {
        let engine = Engine::new(config.features.apply(EngineOptions {
            lookback_ms: config.lookback_ms,
            samples_max: config.samples_max,
            threads_max: config.threads_max,
            timeout: config.timeout,
            subquery_step_ms: config.default_evaluation_interval_ms,
            ..EngineOptions::default()
        }));
        let (queryables, fanout) = (self.queryables(), self.fanout.clone());
        let pool = Arc::clone(&self.pool);
        Api {
            engine: Arc::new(engine),
            queryable: Arc::new(move |options: &ReadOptions| queryables(options.into())),
            stores: Arc::new(move |options: &ReadOptions| {
                fanout.with_store_matchers(options.store_matchers.clone())
            }),
            defaults: ReadOptions {
                dedup: true,
                replica_labels: config.replica_label_names(),
                partial_response: config.partial_response,
                max_source_resolution_ms: config.instant_max_source_resolution_ms,
                auto_downsampling: config.auto_downsampling,
                dynamic_lookback: config.dynamic_lookback,
                store_matchers: Vec::new(),
                shard: None,
                tenant: None,
            },
            settings: config.settings(),
            remote_read_gate: Arc::new(Semaphore::new(match config.remote_read.concurrency_max {
                0 => Semaphore::MAX_PERMITS,
                n => n.min(Semaphore::MAX_PERMITS),
            })),
            subscribers: Subscribers::default(),
            config_yaml: config.endpoints_yaml().into(),
            probes: process.probes,
            clock: Arc::new(SystemClock),
            admission: Arc::clone(&self.admission),
            status: process.status,
            deletion: process.deletion,
            endpoints: Some(Arc::new(move || pool.states().iter().map(EndpointStatus::from).collect())),
            flags: Arc::new(process.flags),
            build: process.build,
            started_ms: process.started_ms,
            metrics: process.metrics,
        }
    }

    /// Adds the role's metrics to the process's.
    pub fn register(&self, metrics: &Metrics) {
        self.admission.register(metrics);
    }

    /// The address of the HTTP listener.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpListener::local_addr)
    }

    /// The address of the gRPC listener.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(GrpcListener::local_addr)
    }
}

/// Keeps the endpoints up to date and serves: `app` over HTTP, the StoreAPI over gRPC, each where it was bound. Ends when
/// `shutdown` is cancelled and the calls under way are done.
pub async fn run(
    built: Built,
    app: Router,
    probes: Probes,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let Built { pool, fanout, http, grpc, runtime: _, admission: _ } = built;
    let fanout = Arc::new(fanout);
    let services = Services {
        store: Some(fanout.clone()),
        exemplars: Some(fanout.clone()),
        metadata: Some(fanout.clone()),
        rules: Some(fanout.clone()),
        targets: Some(fanout.clone()),
        fold: Some(evaluate_over_fanout(&fanout)),
        status: Some(fanout),
        ..Services::default()
    };
    let http = async {
        if let Some(listener) = http {
            listener.serve(app, shutdown.clone()).await;
        }
    };
    let grpc = async {
        let served = match grpc {
            Some(listener) => {
                listener.serve(routes(&services, &ServerOptions::default()), probes, shutdown.clone()).await
            }
            None => Ok(()),
        };
        if served.is_err() {
            // Half a role is worse than none: the process manager starts a whole one.
            shutdown.cancel();
        }
        served
    };
    let ((), (), served) = tokio::join!(pool.run(shutdown.clone()), http, grpc);
    Ok(served?)
}

#[cfg(test)]
mod tests {
    use chronolith_model::Labels;
    use chronolith_storeapi::contract::TestSeries;
    use chronolith_storeapi::{Apis, ClientOptions, MemoryStore, StoreClient};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::router;

    /// One request by hand: this crate has no HTTP client.
    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn the_role_serves_its_endpoints_as_one_store_and_stops() {
        let external = Labels::from_pairs([("cluster", "a")]).unwrap();
        let series = TestSeries::new(&[("__name__", "up")], 0, 10);
        let store =
            Arc::new(MemoryStore::new(external.clone(), vec![(series.labels.clone(), series.chunks())]));
        let config = Config {
            http_address: Some("127.0.0.1:0".to_owned()),
            grpc_address: Some("127.0.0.1:0".to_owned()),
            ..Config::default()
        };
        let built =
            build(&config, vec![LocalStore { name: "memory".to_owned(), store, apis: Apis::default() }])
                .await
                .unwrap();
        assert!(built.http_addr().is_some());
        let address = built.grpc_addr().unwrap().to_string();
        let http = built.http_addr().unwrap();
        let build = BuildInfo { version: "0", revision: "0" };
        let metrics = Metrics::new();
        let process = Process {
            status: None,
            deletion: None,
            flags: vec![],
            build,
            started_ms: 0,
            metrics,
            probes: None,
        };
        let api = built.api(&config, process);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(built, router(api), Probes::new(), shutdown.clone()));
        let t = series.samples[9].0 / 1000;
        let reply = get(http, &format!("/api/v1/query?query=count_over_time(up[10m])&time={t}")).await;
        assert!(
            reply.contains(r#""metric":{"cluster":"a"},"value""#) && reply.contains(r#""10"]"#),
            "{reply}"
        );
        let reply = get(http, "/api/v1/stores").await;
        assert!(reply.contains(r#""name":"memory""#), "{reply}");
        let client = StoreClient::new(&address, &ClientOptions::default()).unwrap();
        let info = client.info().await.unwrap();
        assert_eq!((info.component.as_str(), info.label_sets), ("query", vec![external]));
        drop(client);
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}
