//! Everything in one process: receive, store, query and compact, wired by function calls; one HTTP port, one gRPC port.
//!
//! ```text
//! HTTP ─┬─ remote write, flush ─ receive ─ heads ─ blocks ─ bucket
//!       ├─ query API ─ fan-out ─┬─ receive's store (heads, local blocks)
//!       └─ metrics, probes      └─ the bucket's store
//! gRPC ─── StoreAPI over the fan-out
//! ```

use std::sync::Arc;
use std::time::Duration;

use chronolith_model::TenantId;
use chronolith_objstore::BucketConfig;
use chronolith_query::LocalStore;
use chronolith_query::http::{SeriesDeletion, StatusSource, router};
use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::http::HttpListener;
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{Clock, Metrics, Probes, SystemClock};
use chronolith_storeapi::Apis;
use tokio::task::JoinSet;

use super::deletion::IntoBucket;
use super::head_status::HeadStatus;
use super::single::{process, query_exit, receive_exit};
use super::{failure, open_bucket};
use crate::cli::ServerArgs;
use crate::self_monitoring::SelfMonitoring;

/// The bucket is this process's own, so a look at it is cheap, and new blocks should be seen soon.
const SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Runs all roles until `stop`.
pub(super) async fn run(
    args: &ServerArgs,
    flags: Vec<(String, String)>,
    stop: CancellationToken,
) -> Result<(), Exit> {
    args.log.init();
    let bucket_config = match args.objstore.load()? {
        Some(config) => config,
        None => BucketConfig::filesystem(&args.data_dir.join("bucket").to_string_lossy()),
    };
    let tenant = TenantId::new(args.ingest.default_tenant()).map_err(|e| Exit::Usage(e.to_string()))?;
    let (metrics, probes) = (Metrics::new(), Probes::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let bucket = open_bucket(&bucket_config, &metrics)?;

    // What concerns queries is read, and what is unknown named, by their settings.
    let (features, _) = chronolith_receive::StorageFeatures::from_flags(&args.evaluation.features);
    let receive_config = chronolith_receive::Config {
        tsdb_path: args.data_dir.join("tsdb"),
        features,
        ..args.ingest.config()?
    };
    let parts = chronolith_receive::Parts {
        bucket: Some(bucket.clone()),
        metrics: metrics.clone(),
        probes: probes.clone(),
        clock: Arc::clone(&clock),
    };
    let receive = chronolith_receive::build(receive_config, parts).await.map_err(|e| receive_exit(&e))?;

    let store_config = args.reading.apply(chronolith_store::Config {
        data_dir: args.data_dir.join("store"),
        grpc_address: None,
        http_address: None,
        sync_interval: SYNC_INTERVAL,
        ..chronolith_store::Config::default()
    })?;
    let parts = chronolith_store::Parts {
        bucket: bucket.clone(),
        metrics: metrics.clone(),
        probes: probes.clone(),
        clock: Arc::clone(&clock),
    };
    let store = chronolith_store::build(store_config, parts).await.map_err(|e| failure(&e))?;

    let compact = if args.compact {
        let config = chronolith_compact::Config {
            data_dir: args.data_dir.join("compact"),
            http_address: None,
            wait: true,
            hash: args.ingest.config()?.hash,
            ..args.compaction.config()?
        };
        let (metrics, probes) = (metrics.clone(), probes.clone());
        let parts =
            chronolith_compact::Parts { bucket: bucket.clone(), metrics, probes, clock: Arc::clone(&clock) };
        Some(chronolith_compact::build(config, parts).await.map_err(|e| failure(&e))?)
    } else {
        None
    };

    let mut query_config = chronolith_query::Config {
        http_address: None,
        grpc_address: Some(args.grpc_address.clone()),
        cross_origin: args.web.cross_origin(),
        ..args.evaluation.config()
    };
    let local = vec![
        LocalStore { name: "receive".to_owned(), store: receive.store(), apis: receive.apis() },
        LocalStore { name: "store".to_owned(), store: store.store(), apis: Apis::default() },
    ];
    // What was in flight when the last run ended is kept where everything local is.
    let active_queries = &mut query_config.admission.active_query_path;
    *active_queries = active_queries.take().or_else(|| Some(args.data_dir.join("query")));
    let query = chronolith_query::build(&query_config, local).await.map_err(|e| query_exit(&e))?;
    query.register(&metrics);
    let listener = HttpListener::bind(&args.http_address).await.map_err(|e| failure(&e))?;
    let address = listener.local_addr();

    let readers = vec![store.bucket_store().deletions().clone(), receive.deletions().clone()];
    let deletion = args
        .ingest
        .enable_admin_api
        .then(|| Arc::new(IntoBucket { bucket: bucket.clone(), readers }) as Arc<dyn SeriesDeletion>);
    let status: Arc<dyn StatusSource> = Arc::new(HeadStatus(receive.tenants()));
    let api = router(query.api(&query_config, process(flags, Some(status), deletion, &metrics, &probes)));
    let app = args
        .web
        .prefixes()
        .mount(chronolith_service::http::compress(api))
        .merge(receive.router())
        .merge(metrics.router())
        .merge(probes.router());
    let app = metrics.http().instrument(app);
    tracing::info!(address = %address, data_dir = %args.data_dir.display(), "serving HTTP");

    let monitoring = SelfMonitoring {
        metrics,
        sink: receive.sink(),
        tenant,
        instance: address.to_string(),
        interval: Duration::from_millis(args.self_monitoring_interval.0.unsigned_abs().max(1)),
    };
    // Data flows receive → store → query → listener; at the end they stop the other way round, so that a request that
    // was taken is finished.
    let (stop_listening, stop_roles) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks: JoinSet<Result<(), Exit>> = JoinSet::new();
    let token = stop_roles.clone();
    tasks.spawn(async move { chronolith_receive::run(receive, token).await.map_err(|e| receive_exit(&e)) });
    let token = stop_roles.clone();
    tasks.spawn(async move { chronolith_store::run(store, token).await.map_err(|e| failure(e.as_ref())) });
    if let Some(compact) = compact {
        let token = stop_roles.clone();
        let ended = token.clone();
        tasks.spawn(async move {
            // The others can do without; whoever runs a server on a bucket of that kind reads why.
            if let Err(err) = chronolith_compact::run(compact, token).await {
                tracing::error!(role = "compact", err = error_chain(&err), "the bucket is not compacted");
                ended.cancelled().await;
            }
            Ok(())
        });
    }
    let (token, ready) = (stop_listening.clone(), probes.clone());
    tasks.spawn(async move {
        chronolith_query::run(query, axum::Router::new(), ready, token).await.map_err(|e| failure(&e))
    });
    let token = stop_listening.clone();
    let mut serving = tokio::spawn(listener.serve(app, token));
    if args.self_monitoring {
        tokio::spawn(monitoring.run(probes, stop.clone()));
    }

    let mut outcome = Ok(());
    tokio::select! {
        () = stop.cancelled() => {}
        Some(ended) = tasks.join_next() => outcome = flatten(ended),
        _ = &mut serving => outcome = Err(Exit::Failure("the HTTP listener ended".to_owned())),
    }
    stop_listening.cancel();
    if !serving.is_finished() {
        let _ = serving.await;
    }
    stop_roles.cancel();
    while let Some(ended) = tasks.join_next().await {
        outcome = outcome.and(flatten(ended));
    }
    outcome
}

fn flatten(ended: Result<Result<(), Exit>, tokio::task::JoinError>) -> Result<(), Exit> {
    ended.unwrap_or_else(|e| Err(Exit::Failure(format!("a role panicked: {e}"))))
}
