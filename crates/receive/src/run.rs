//! The role: [`build`] binds and wires, [`run`] serves until it is told to stop.
//!
//! ```text
//! build   bind listeners, wire sink, store, shipper                 the addresses are known
//! run     serve (not ready) ─ open the database ─ ready ─ cut and ship in the background
//! stop    refuse writes ─ finish those in flight ─ [drain: cut all, ship] ─ stop reads ─ close the database (snapshot)
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use chronolith_bucket::DeletionWatch;
use chronolith_objstore::Bucket;
use chronolith_service::grpc::GrpcListener;
use chronolith_service::http::HttpListener;
use chronolith_service::metrics::Registry;
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::tls::ServerTls;
use chronolith_service::watched::WatchedFile;
use chronolith_service::{Clock, Metrics, Probe, Probes, SystemClock};
use chronolith_storeapi::{Apis, EvaluateOver, ServerOptions, Services, Store, StoreError, WriteSink};
use chronolith_tsdb::block::ThanosMeta;
use chronolith_tsdb::db::{Db, DbOptions};
use tokio::task::JoinSet;

use crate::admin;
use crate::closable::ClosableSink;
use crate::config::{Config, LimitsSource};
use crate::error::ReceiveError;
use crate::forward::{self, ForwardOptions, HashringWatch, RingSink, RingWrites};
use crate::handoff::{Handoff, Replay};
use crate::ingest::LocalSink;
use crate::limits::{self, Limits, LimitsConfig};
use crate::maintenance::Maintenance;
use crate::remote_write::{BatchPool, RemoteWrite, RemoteWriteOptions, ReplicaHeader};
use crate::ship::{ShipOptions, Shipper, blocking};
use crate::store::TenantsStore;
use crate::tenants::{RingLabels, Tenants};

/// What the role is given beside its settings.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where blocks go; without one they stay here.
    pub bucket: Option<Bucket>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's probes.
    pub probes: Probes,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Parts {
    fn default() -> Self {
        Parts { bucket: None, metrics: Metrics::new(), probes: Probes::new(), clock: Arc::new(SystemClock) }
    }
}

/// The hashring's parts.
struct Ring {
    sink: Arc<RingSink>,
    watch: HashringWatch,
    replay: Option<Arc<Replay>>,
}

/// A receiver that is wired and bound but does not serve yet.
pub struct Receive {
    config: Config,
    db_options: DbOptions,
    tenants: Arc<Tenants>,
    maintenance: Arc<Maintenance>,
    remote_write: Arc<RemoteWrite>,
    sink: Arc<ClosableSink>,
    local: Option<Arc<ClosableSink>>,
    ring: Option<Ring>,
    store: Arc<TenantsStore>,
    parts: Parts,
    probe: Probe,
    admin: Router,
    remote_write_listener: Option<HttpListener>,
    http_listener: Option<HttpListener>,
    limits_file: Option<WatchedFile>,
    grpc_listener: Option<GrpcListener>,
    evaluate: Option<EvaluateOver>,
}

impl Receive {
    /// Lets queriers have aggregations folded here.
    pub fn folding(mut self, evaluate: EvaluateOver) -> Self {
        self.evaluate = Some(evaluate);
        self
    }

    /// The StoreAPI over live data and local blocks.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Exemplars, metadata and statistics of live data.
    pub fn apis(&self) -> Apis {
        let store = &self.store;
        Apis {
            exemplars: Some(store.clone()),
            metadata: Some(store.clone()),
            status: Some(store.clone()),
            ..Apis::default()
        }
    }

    /// Where writes go: the hashring, or the local heads.
    pub fn sink(&self) -> Arc<dyn WriteSink> {
        self.sink.clone()
    }

    /// The tenants, for status pages.
    pub fn tenants(&self) -> Arc<Tenants> {
        Arc::clone(&self.tenants)
    }

    /// The bucket's requests to delete series, as reads here know them.
    pub fn deletions(&self) -> &DeletionWatch {
        self.store.deletions()
    }

    /// Cutting, shipping, flushing.
    pub fn maintenance(&self) -> Arc<Maintenance> {
        Arc::clone(&self.maintenance)
    }

    /// Remote write and the flush, for a process with one port for everything.
    pub fn router(&self) -> Router {
        let flush = admin::flush_router(Arc::clone(&self.maintenance), self.config.enable_admin_api);
        self.remote_write.router().merge(flush)
    }

    /// Where remote write is taken.
    pub fn remote_write_addr(&self) -> Option<SocketAddr> {
        self.remote_write_listener.as_ref().map(HttpListener::local_addr)
    }

    /// Where metrics and probes are served.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_listener.as_ref().map(HttpListener::local_addr)
    }

    /// Where gRPC is served.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc_listener.as_ref().map(GrpcListener::local_addr)
    }
}

impl std::fmt::Debug for Receive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receive").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Checks the settings, binds the listeners and wires the role.
pub async fn build(config: Config, parts: Parts) -> Result<Receive, ReceiveError> {
    let checked = config.check()?;
    let probe = parts.probes.register("receive");
    let (limits_config, limits_file) = load_limits(&config)?;
    let limits = parts.metrics.register(|registry| Limits::new(limits_config, Arc::default(), registry));
    let limits = Arc::new(limits);
    let tenants = Tenants::new(checked.external, &config.tenant_label).with_limits(Arc::clone(&limits));
    let tenants = Arc::new(tenants);
    let pool = Arc::new(BatchPool::default());
    let store = Arc::new(
        TenantsStore::new(Arc::clone(&tenants)).with_deletions(DeletionWatch::new(parts.bucket.clone())),
    );
    let is_router = config.forward.as_ref().is_some_and(|f| f.local_endpoint.is_none());
    // Only who routes and keeps asks which replica a request is: elsewhere Thanos treats it as not replicated.
    let replica = config.forward.as_ref().filter(|_| !is_router).map(|f| ReplicaHeader {
        name: checked.replica_header.clone(),
        replication_factor: f.replication_factor,
    });
    let write_options = RemoteWriteOptions {
        identity: checked.identity.clone(),
        limits: Arc::clone(&limits),
        relabeling: config.relabeling.clone(),
        split_tenant_label: config.split_tenant_label.clone(),
        replica,
        conflict: if config.forward.is_some() { StatusCode::CONFLICT } else { StatusCode::BAD_REQUEST },
        body_bytes_max: config.request_bytes_max,
        decode_bytes_max: config.inflight_bytes_max,
        otlp: config.otlp_settings()?,
        ..RemoteWriteOptions::default()
    };
    let ship_options = ShipOptions { retention_ms: config.retention_ms, hash: config.hash };
    let built = parts.metrics.register(|registry| {
        crate::metrics::register(registry, Arc::clone(&tenants));
        let local = ClosableSink::new(Arc::new(LocalSink::new(
            Arc::clone(&tenants),
            Arc::clone(&pool),
            config.tenants_max,
            Some(probe.clone()),
            registry,
        )));
        let local = (!is_router).then_some(local);
        let ring = match &config.forward {
            Some(options) => {
                let handoff = open_handoff(&config, options, &parts.clock, registry)?;
                let here = local.clone().map(|local| local as Arc<dyn WriteSink>);
                let sink = RingSink::new(options.clone(), here, handoff.clone(), registry);
                let watch = HashringWatch::start(Arc::clone(&sink), registry)
                    .map_err(|e| ReceiveError::Config(format!("hashring: {e}")))?;
                let replay = handoff.map(|handoff| Replay::new(handoff, Arc::clone(&sink)));
                Some(Ring { sink, watch, replay })
            }
            None => None,
        };
        let sink = match (&ring, &local) {
            (Some(ring), _) => ClosableSink::new(Arc::new(RingWrites(Arc::clone(&ring.sink)))),
            (None, Some(local)) => Arc::clone(local),
            (None, None) => unreachable!("a router has a hashring"),
        };
        let remote_write = RemoteWrite::new(sink.clone(), Arc::clone(&pool), write_options, registry);
        let (bucket, clock) = (parts.bucket.clone(), Arc::clone(&parts.clock));
        let shipper = Shipper::new(Arc::clone(&tenants), bucket, clock, ship_options, registry);
        Ok::<_, ReceiveError>((sink, local, ring, remote_write, shipper))
    });
    let (sink, local, ring, remote_write, shipper) = built?;
    let interval = Duration::from_millis(config.maintenance_interval_ms.unsigned_abs());
    let maintenance = Arc::new(Maintenance::new(Arc::clone(&tenants), shipper, interval));
    let admin = admin::flush_router(Arc::clone(&maintenance), config.enable_admin_api)
        .merge(admin::status_router(Arc::clone(&tenants), checked.identity));
    let admin = match &ring {
        Some(ring) => admin.merge(forward::status_router(Arc::clone(&ring.sink))),
        None => admin,
    };
    let tls = |flags, source| ReceiveError::Tls { flags, source };
    let write_tls =
        ServerTls::http(&config.remote_write_tls).map_err(|e| tls("--remote-write.server-tls", e))?;
    let grpc_tls = ServerTls::grpc(&config.grpc_tls).map_err(|e| tls("--grpc-server-tls", e))?;
    let grpc_listener = match &config.grpc_address {
        Some(address) => Some(GrpcListener::bind(address).await?.with_tls(grpc_tls)),
        None => None,
    };
    Ok(Receive {
        db_options: {
            let mut options = config.db_options(Arc::clone(&parts.clock), Arc::clone(&limits));
            // Labels of its own rather than our `tenants`, which holds the database.
            let labels = Tenants::new(tenants.external().clone(), &config.tenant_label).with_limits(limits);
            if let Some(ring) = &ring {
                let sink = Arc::downgrade(&ring.sink);
                let of = RingLabels(Arc::new(move |tenant| sink.upgrade()?.external_labels(tenant.as_str())));
                tenants.set_ring_labels(of.clone());
                labels.set_ring_labels(of);
            }
            options.block_thanos =
                Some(Arc::new(move |tenant| ThanosMeta::new(&labels.external_of(tenant), "receive")));
            options
        },
        remote_write_listener: bind_http(config.remote_write_address.as_deref(), write_tls).await?,
        limits_file,
        http_listener: bind_http(config.http_address.as_deref(), None).await?,
        grpc_listener,
        evaluate: None,
        tenants,
        maintenance,
        remote_write,
        sink,
        local,
        ring,
        store,
        parts,
        probe,
        admin,
        config,
    })
}

/// The hints that wait for other receivers, unless they are turned off.
fn open_handoff(
    config: &Config,
    forward: &ForwardOptions,
    clock: &Arc<dyn Clock>,
    registry: &mut Registry,
) -> Result<Option<Arc<Handoff>>, ReceiveError> {
    let mut options = forward.handoff.clone();
    if options.bytes_max == 0 {
        return Ok(None);
    }
    if options.dir.as_os_str().is_empty() {
        options.dir = config.tsdb_path.join("handoff");
    }
    match Handoff::open(&options, Arc::clone(clock), registry) {
        Ok(handoff) => Ok(Some(handoff)),
        Err(e) => Err(ReceiveError::Config(format!("hints in {}: {e}", options.dir.display()))),
    }
}

/// The limits, and the file to watch.
fn load_limits(config: &Config) -> Result<(LimitsConfig, Option<WatchedFile>), ReceiveError> {
    let parse = |origin: &str, text: &str| LimitsConfig::parse(origin, text, &config.tenant_label);
    match &config.limits_config {
        LimitsSource::None => Ok((LimitsConfig::default(), None)),
        LimitsSource::Inline(text) => Ok((parse("--receive.limits-config", text)?, None)),
        LimitsSource::File(path) => {
            let interval = Duration::from_millis(config.limits_reload_interval_ms.unsigned_abs());
            let (file, text) = WatchedFile::open(path, interval)?;
            Ok((parse(&path.display().to_string(), &text)?, Some(file)))
        }
    }
}

async fn bind_http(
    address: Option<&str>,
    tls: Option<Arc<ServerTls>>,
) -> Result<Option<HttpListener>, ReceiveError> {
    match address {
        Some(address) => Ok(Some(HttpListener::bind(address).await?.with_tls(tls))),
        None => Ok(None),
    }
}

/// Serves until `shutdown`, then drains. `Err` when the role cannot start, a listener ends, or a drain fails.
pub async fn run(receive: Receive, shutdown: CancellationToken) -> Result<(), ReceiveError> {
    let Receive {
        config,
        db_options,
        tenants,
        maintenance,
        remote_write,
        sink,
        local,
        ring,
        store,
        parts,
        probe,
        admin,
        ..
    } = receive;
    let keeps = local.is_some();
    let (stop_writes, stop_reads, stop_work) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let mut writes = JoinSet::new();
    let mut reads: JoinSet<Result<(), StoreError>> = JoinSet::new();
    let instrument = |router| parts.metrics.http().instrument(router);
    if let Some(listener) = receive.remote_write_listener {
        tracing::info!(address = %listener.local_addr(), "taking remote write");
        // Thanos has the status page on this port.
        let app = instrument(remote_write.router().merge(admin.clone()));
        writes.spawn(listener.serve(app, stop_writes.clone()));
    }
    if let Some(listener) = receive.http_listener {
        tracing::info!(address = %listener.local_addr(), "serving HTTP");
        let app = instrument(parts.metrics.router().merge(parts.probes.router()).merge(admin));
        let stop = stop_reads.clone();
        reads.spawn(async move {
            listener.serve(app, stop).await;
            Ok(())
        });
    }
    if let Some(listener) = receive.grpc_listener {
        tracing::info!(address = %listener.local_addr(), "serving gRPC");
        // A router has nothing to be asked for.
        let store = keeps.then_some(store);
        let services = Services {
            fold: receive.evaluate.zip(store.clone()).map(|(over, store)| over(store)),
            store: store.clone().map(|s| s as Arc<dyn Store>),
            exemplars: store.clone().map(|s| s as _),
            metadata: store.clone().map(|s| s as _),
            status: store.map(|s| s as _),
            write: Some(sink.clone()),
            write_local: local.clone().map(|local| local as _),
            ..Services::default()
        };
        let routes = chronolith_storeapi::routes(&services, &ServerOptions::default());
        let (probes, stop) = (parts.probes.clone(), stop_reads.clone());
        reads.spawn(async move {
            let served = listener.serve(routes, probes, stop).await;
            served.map_err(|e| StoreError::unavailable("gRPC listener").with_source(e))
        });
    }

    let mut work = JoinSet::new();
    let mut db = None;
    if keeps {
        probe.not_ready("replaying the write-ahead log");
        let opened = open(db_options).await?;
        tenants.set_db(Arc::clone(&opened));
        db = Some(opened);
        work.spawn(Arc::clone(&maintenance).cut_loop(stop_work.clone()));
        work.spawn(Arc::clone(&maintenance).ship_loop(stop_work.clone()));
    }
    probe.ready();
    let (ring, hints) = match ring {
        Some(Ring { sink, watch, replay }) => {
            work.spawn(watch.run(stop_work.clone()));
            if let Some(replay) = &replay {
                work.spawn(Arc::clone(replay).run(stop_work.clone()));
            }
            (Some(sink), replay)
        }
        None => (None, None),
    };
    if let Some(file) = receive.limits_file {
        let (limits, label) = (Arc::clone(tenants.limits()), config.tenant_label.clone());
        let (writes, db) = (Arc::clone(&remote_write), db.clone());
        let taken = move || {
            writes.limits_changed();
            if let Some(db) = &db {
                db.refresh_tenant_options();
            }
        };
        work.spawn(limits::watch(limits, file, label, taken, stop_work.clone()));
    }

    let mut outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = reads.join_next() => ended_early(ended),
    };
    probe.not_ready("shutting down");
    // Whoever is connected is served until the listener is done: a restart shows no sender an error.
    stop_writes.cancel();
    while writes.join_next().await.is_some() {}
    remote_write.close();
    // What others still distribute through this receiver goes elsewhere; what they send to keep here is taken until the end.
    sink.close().await;
    if let Some(ring) = &ring {
        ring.finish(2 * ring.options().timeout).await;
    }
    let patience = Duration::from_millis(config.drain_timeout_ms.unsigned_abs());
    let patience_ends = Instant::now() + patience;
    let mut drained = Ok(());
    if config.drain
        && let Some(hints) = &hints
    {
        // While the hashring is still watched: what waits for a receiver that left is given to others. A receiver that stays away
        // leaves time for what is in the heads.
        drained = hints.delivered(patience / 2).await.map_err(|peers| ReceiveError::HintsLeft { peers });
    }
    stop_work.cancel();
    while work.join_next().await.is_some() {}
    if let Some(local) = &local {
        local.close().await;
    }
    if config.drain && keeps {
        let flushed = maintenance.flush(patience_ends.saturating_duration_since(Instant::now())).await;
        drained = drained.and(flushed.map(|report| {
            tracing::info!(blocks = report.uploaded, "drained: what was in the heads is in the bucket");
        }));
    }
    if let Err(error) = drained {
        tracing::error!(err = &error as &dyn std::error::Error, "drain failed, data stays on this machine");
        outcome = outcome.and(Err(error));
    }
    stop_reads.cancel();
    while reads.join_next().await.is_some() {}
    if let Some(db) = db {
        blocking(move || db.close().map_err(ReceiveError::from)).await?;
        tracing::info!("database closed");
    }
    outcome
}

async fn open(options: DbOptions) -> Result<Arc<Db>, ReceiveError> {
    let started = Instant::now();
    let (db, report) = blocking(move || Db::open(options).map_err(ReceiveError::from)).await?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(seconds, tenants = db.tenants().len(), report = ?report, "database open");
    Ok(db)
}

fn ended_early(ended: Result<Result<(), StoreError>, tokio::task::JoinError>) -> Result<(), ReceiveError> {
    match ended {
        Ok(Ok(())) => Err(ReceiveError::Panicked("a listener ended".to_owned())),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ReceiveError::Panicked(error.to_string())),
    }
}
