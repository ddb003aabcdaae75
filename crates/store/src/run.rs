//! Binding, syncing, serving.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chronolith_bucket::IndexUse;
use chronolith_objstore::Bucket;
use chronolith_service::grpc::GrpcListener;
use chronolith_service::http::{BindError, HttpListener};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::tls::{ServerTls, TlsError};
use chronolith_service::{Clock, Metrics, Probe, Probes};
use chronolith_storeapi::{EvaluateOver, ServerOptions, Services, Store, routes};

use crate::{BucketStore, Config};

/// Why a store cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address is taken or none.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS of the gRPC listener cannot be set up.
    #[error("--grpc-server-tls")]
    Tls(#[from] TlsError),
    /// A cache's directory or settings.
    #[error("cache")]
    Cache(#[from] chronolith_cache::CacheError),
    /// The data directory cannot be made.
    #[error("data directory {}", path.display())]
    DataDir {
        /// The directory.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// What the process gives the role.
#[derive(Clone)]
pub struct Parts {
    /// The bucket.
    pub bucket: Bucket,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's probes.
    pub probes: Probes,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// A store that is bound and does not serve yet.
pub struct Built {
    store: Arc<BucketStore>,
    config: Config,
    parts: Parts,
    probe: Probe,
    grpc: Option<GrpcListener>,
    http: Option<HttpListener>,
    evaluate: Option<EvaluateOver>,
}

impl Built {
    /// Lets queriers have aggregations folded here.
    pub fn folding(mut self, evaluate: EvaluateOver) -> Self {
        self.evaluate = Some(evaluate);
        self
    }

    /// The store, for those in the same process.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The same with its own methods.
    pub fn bucket_store(&self) -> Arc<BucketStore> {
        self.store.clone()
    }

    /// Address of the gRPC listener.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(GrpcListener::local_addr)
    }

    /// Address of the HTTP listener.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpListener::local_addr)
    }
}

/// Binds the listeners. The bucket is not touched yet.
pub async fn build(config: Config, parts: Parts) -> Result<Built, BuildError> {
    tokio::fs::create_dir_all(&config.data_dir)
        .await
        .map_err(|source| BuildError::DataDir { path: config.data_dir.clone(), source })?;
    let grpc = match &config.grpc_address {
        Some(address) => {
            let tls = ServerTls::grpc(&config.grpc_tls)?;
            Some(GrpcListener::bind(address).await?.with_tls(tls))
        }
        None => None,
    };
    let http = match &config.http_address {
        Some(address) => Some(HttpListener::bind(address).await?),
        None => None,
    };
    let store = BucketStore::new(parts.bucket.clone(), config.clone(), parts.clock.clone(), &parts.metrics)?;
    let probe = parts.probes.register("store");
    Ok(Built { store: Arc::new(store), config, parts, probe, grpc, http, evaluate: None })
}

/// Syncs and serves until `shutdown`, then finishes open calls.
pub async fn run(
    built: Built,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Built { store, config, parts, probe, grpc, http, evaluate } = built;
    let syncing = sync_loop(store.clone(), config.clone(), probe, shutdown.clone());
    let grpc = async {
        let Some(listener) = grpc else { return Ok(()) };
        let fold = evaluate.map(|over| over(store.clone()));
        let services = Services { store: Some(store.clone()), fold, ..Services::default() };
        let options = ServerOptions {
            series_concurrency_max: config.series_concurrency_max,
            ..ServerOptions::default()
        };
        tracing::info!(role = "store", address = %listener.local_addr(), "gRPC listens");
        listener.serve(routes(&services, &options), parts.probes.clone(), shutdown.clone()).await
    };
    let http = async {
        let Some(listener) = http else { return };
        tracing::info!(role = "store", address = %listener.local_addr(), "HTTP listens");
        let app = parts.metrics.router().merge(parts.probes.router());
        listener.serve(app, shutdown.clone()).await;
    };
    let (grpc, (), ()) = tokio::join!(
        async {
            let served = grpc.await;
            if served.is_err() {
                // Without its API the role is of no use; let the others end.
                shutdown.cancel();
            }
            served
        },
        http,
        syncing
    );
    Ok(grpc?)
}

/// Between attempts until the first sync has worked.
const FIRST_SYNC_RETRY: Duration = Duration::from_secs(5);
/// Between looks for idle index headers.
const IDLE_CHECK: Duration = Duration::from_secs(30);

async fn sync_loop(store: Arc<BucketStore>, config: Config, probe: Probe, shutdown: CancellationToken) {
    let mut synced = false;
    let work = async {
        loop {
            match store.sync().await {
                Ok(report) => {
                    let changed = report.added + report.dropped > 0;
                    if !synced || changed {
                        let (loaded, added, dropped) = (report.loaded, report.added, report.dropped);
                        let index = report.index.map(IndexUse::as_str);
                        tracing::info!(role = "store", loaded, added, dropped, index, "blocks synced");
                    }
                    if !std::mem::replace(&mut synced, true) {
                        probe.ready();
                        store.remove_leftovers().await;
                    }
                    store.prepare_headers().await;
                }
                Err(err) => tracing::warn!(role = "store", err = err.chain(), "blocks not synced"),
            }
            let pause =
                if synced { config.sync_interval } else { config.sync_interval.min(FIRST_SYNC_RETRY) };
            tokio::time::sleep(pause).await;
        }
    };
    let idle = async {
        loop {
            tokio::time::sleep(IDLE_CHECK.min(config.header_idle.max(Duration::from_millis(100)))).await;
            store.close_idle_headers();
        }
    };
    tokio::select! {
        () = work => {}
        () = idle => {}
        () = shutdown.cancelled() => {}
    }
    probe.not_ready("shutting down");
}
