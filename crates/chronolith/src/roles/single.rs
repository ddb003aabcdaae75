//! One role in a process of its own.

use std::sync::Arc;

use chronolith_query::Process;
use chronolith_query::http::{BuildInfo, SeriesDeletion, router};
use chronolith_receive::ReceiveError;
use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{Clock, Metrics, Probes, SystemClock};

use super::deletion::IntoBucket;
use super::{failure, open_bucket};
use crate::cli::{CompactArgs, QueryArgs, ReceiveArgs, StoreArgs};

/// Remote write in, blocks out.
pub(super) async fn receive(args: &ReceiveArgs, stop: CancellationToken) -> Result<(), Exit> {
    args.log.init();
    let config = args.config()?;
    let objstore = args.objstore.load()?;
    let metrics = Metrics::new();
    let bucket = objstore.map(|c| open_bucket(&c, &metrics)).transpose()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let parts = chronolith_receive::Parts { bucket, metrics, probes: Probes::new(), clock };
    let built = chronolith_receive::build(config, parts).await.map_err(|e| receive_exit(&e))?;
    let built = built.folding(chronolith_query::evaluate_over);
    chronolith_receive::run(built, stop).await.map_err(|e| receive_exit(&e))
}

/// A wrong setting is a usage error; everything else a failure.
pub(super) fn receive_exit(error: &ReceiveError) -> Exit {
    match error {
        ReceiveError::Config(_) | ReceiveError::File(_) | ReceiveError::Tls { .. } => {
            Exit::Usage(error_chain(error))
        }
        _ => failure(error),
    }
}

/// The bucket behind the StoreAPI.
pub(super) async fn store(args: &StoreArgs, stop: CancellationToken) -> Result<(), Exit> {
    args.log.init();
    let Some(objstore) = args.objstore.load()? else {
        return Err(Exit::Usage("a store needs a bucket: give --objstore.config-file".to_owned()));
    };
    let metrics = Metrics::new();
    let bucket = open_bucket(&objstore, &metrics)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let parts = chronolith_store::Parts { bucket, metrics, probes: Probes::new(), clock };
    let built = chronolith_store::build(args.config()?, parts).await.map_err(|e| failure(&e))?;
    let built = built.folding(chronolith_query::evaluate_over);
    chronolith_store::run(built, stop).await.map_err(|e| failure(e.as_ref()))
}

/// The blocks of a bucket, fewer and bigger.
pub(super) async fn compact(args: &CompactArgs, stop: CancellationToken) -> Result<(), Exit> {
    args.log.init();
    let config = args.config()?;
    let Some(objstore) = args.objstore.load()? else {
        return Err(Exit::Usage("a compactor needs a bucket: give --objstore.config-file".to_owned()));
    };
    let metrics = Metrics::new();
    let bucket = open_bucket(&objstore, &metrics)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let parts = chronolith_compact::Parts { bucket, metrics, probes: Probes::new(), clock };
    let built = chronolith_compact::build(config, parts).await.map_err(|e| failure(&e))?;
    chronolith_compact::run(built, stop).await.map_err(|e| failure(&e))
}

/// PromQL over endpoints.
pub(super) async fn query(
    args: &QueryArgs,
    flags: Vec<(String, String)>,
    stop: CancellationToken,
) -> Result<(), Exit> {
    args.log.init();
    let config = args.config();
    let (metrics, probes) = (Metrics::new(), Probes::new());
    let probe = probes.register("query");
    let bucket = args.objstore.load()?.map(|c| open_bucket(&c, &metrics)).transpose()?;
    let deletion = match (args.admin.enabled, bucket) {
        (true, Some(bucket)) => {
            Some(Arc::new(IntoBucket { bucket, readers: Vec::new() }) as Arc<dyn SeriesDeletion>)
        }
        (true, None) => {
            let text = "--web.enable-admin-api deletes in a bucket: give --objstore.config-file";
            return Err(Exit::Usage(text.to_owned()));
        }
        (false, _) => None,
    };
    let built = chronolith_query::build(&config, Vec::new()).await.map_err(|e| query_exit(&e))?;
    built.register(&metrics);
    let api = router(built.api(&config, process(flags, None, deletion, &metrics, &probes)));
    let app = args.web.prefixes().mount(chronolith_service::http::compress(api));
    let app = metrics.http().instrument(app.merge(metrics.router()).merge(probes.router()));
    if let Some(address) = built.http_addr() {
        tracing::info!(address = %address, "serving HTTP");
    }
    built.endpoints().refresh().await;
    probe.ready();
    chronolith_query::run(built, app, probes, stop).await.map_err(|e| failure(&e))
}

/// A wrong endpoint or file is a usage error; a failed bind is not.
pub(super) fn query_exit(error: &chronolith_query::BuildError) -> Exit {
    match error {
        chronolith_query::BuildError::Config(_) | chronolith_query::BuildError::Tls(_) => {
            Exit::Usage(error_chain(error))
        }
        chronolith_query::BuildError::Bind(_) => failure(error),
    }
}

/// What the API tells of this process.
pub(super) fn process(
    flags: Vec<(String, String)>,
    status: Option<Arc<dyn chronolith_query::http::StatusSource>>,
    deletion: Option<Arc<dyn SeriesDeletion>>,
    metrics: &Metrics,
    probes: &Probes,
) -> Process {
    let build = BuildInfo { version: env!("CARGO_PKG_VERSION"), revision: "" };
    Process {
        status,
        deletion,
        flags,
        build,
        started_ms: SystemClock.now_ms(),
        metrics: metrics.clone(),
        probes: Some(probes.clone()),
    }
}
