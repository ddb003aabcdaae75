//! Binding, iterating, serving metrics and probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chronolith_objstore::Bucket;
use chronolith_service::http::{BindError, HttpListener};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{Clock, Metrics, Probe, Probes};

use crate::compactor::{Compactor, Report};
use crate::work::{WorkDir, WorkError};
use crate::{CompactMetrics, Config};

/// Why a compactor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address is taken or none.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The work directory cannot be used.
    #[error("work directory")]
    Work(#[from] WorkError),
}

/// Why a compactor ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bucket cannot be shared.
    #[error(
        "the bucket accepts conditional writes and ignores them, so several compactors could not share it: \
         make sure that there is only this one and give --compact.single-worker"
    )]
    NotShareable,
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] chronolith_bucket::Error),
    /// A single run left something undone.
    #[error("compaction failed in {0} places, see the log")]
    Failed(usize),
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

/// A compactor that is bound and does not work yet.
pub struct Built {
    compactor: Arc<Compactor>,
    stop: CancellationToken,
    config: Config,
    parts: Parts,
    probe: Probe,
    http: Option<HttpListener>,
}

impl Built {
    /// Address of the HTTP listener.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpListener::local_addr)
    }
}

/// Binds the listener and takes the work directory. The bucket is not touched yet.
pub async fn build(config: Config, parts: Parts) -> Result<Built, BuildError> {
    let work = WorkDir::claim(&config.data_dir, config.disk_bytes_max)?;
    let http = match &config.http_address {
        Some(address) => Some(HttpListener::bind(address).await?),
        None => None,
    };
    let (delay, alone) = (config.delete_delay.as_secs_f64(), config.http_address.is_some());
    let metrics = parts.metrics.register(|registry| CompactMetrics::register(registry, delay, alone));
    let stop = CancellationToken::new();
    let (bucket, clock) = (parts.bucket.clone(), parts.clock.clone());
    let compactor = Compactor::new(config.clone(), bucket, clock, metrics, work, stop.clone());
    let probe = parts.probes.register("compact");
    Ok(Built { compactor: Arc::new(compactor), stop, config, parts, probe, http })
}

/// Works until there is nothing left to do, or with `wait` until `shutdown`. Jobs under way are given up at shutdown; what they
/// did is done again by the next run.
pub async fn run(built: Built, shutdown: CancellationToken) -> Result<(), RunError> {
    let Built { compactor, stop, config, parts, probe, http } = built;
    let serving = CancellationToken::new();
    let http = http.map(|listener| {
        tracing::info!(role = "compact", address = %listener.local_addr(), "HTTP listens");
        let app = parts.metrics.http().instrument(parts.metrics.router().merge(parts.probes.router()));
        tokio::spawn(listener.serve(app, serving.clone()))
    });
    let work = async {
        let worked = work(&compactor, &config, &probe, &shutdown).await;
        stop.cancel();
        worked
    };
    let cleaning = async {
        // Also while an iteration takes hours.
        while config.wait && !config.cleanup_interval.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(config.cleanup_interval) => compactor.clean().await,
                () = stop.cancelled() => return,
            }
        }
    };
    let stopping = async {
        tokio::select! {
            () = shutdown.cancelled() => stop.cancel(),
            () = stop.cancelled() => {}
        }
    };
    let (worked, (), ()) = tokio::join!(work, cleaning, stopping);
    if shutdown.is_cancelled() {
        probe.not_ready("shutting down");
    }
    serving.cancel();
    if let Some(http) = http {
        let _ = http.await;
    }
    worked
}

/// Between attempts while the bucket does not answer.
const RETRY: Duration = Duration::from_secs(10);

async fn work(
    compactor: &Compactor,
    config: &Config,
    probe: &Probe,
    shutdown: &CancellationToken,
) -> Result<(), RunError> {
    // A store that does not answer now is asked again, as long as we are to wait.
    loop {
        match compactor.leases().probe().await {
            Ok(true) => break,
            Ok(false) => return Err(RunError::NotShareable),
            Err(err) if config.wait => tracing::warn!(role = "compact", %err, "bucket does not answer"),
            Err(err) => return Err(RunError::Bucket(err.into())),
        }
        if pause(RETRY, shutdown).await {
            return Ok(());
        }
    }
    // An iteration may take hours; what there is to serve is served now.
    probe.ready();
    let mut first = true;
    loop {
        let report = compactor.iterate().await;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let wait = match report {
            Ok(report) => {
                log(&report, first);
                first = false;
                match (config.wait, report.silent) {
                    (true, _) => config.wait_interval,
                    // Somebody may have died over them: seen twice, or for long enough, and we know.
                    (false, 1..) => config.lease_duration / 2,
                    (false, 0) if report.failed > 0 => return Err(RunError::Failed(report.failed)),
                    (false, 0) => return Ok(()),
                }
            }
            Err(err) if config.wait => {
                compactor.metrics.retries.inc();
                tracing::warn!(role = "compact", err = err.chain(), "bucket not looked through, tried again");
                config.wait_interval.min(RETRY)
            }
            Err(err) => return Err(err.into()),
        };
        if pause(wait, shutdown).await {
            return Ok(());
        }
    }
}

fn log(report: &Report, first: bool) {
    let Report { compactions, downsamples, rewritten, deleted, failed, busy, .. } = *report;
    if first || compactions + downsamples + rewritten + deleted + failed > 0 {
        tracing::info!(
            role = "compact",
            compactions,
            downsamples,
            rewritten,
            deleted,
            failed,
            busy,
            "iteration done"
        );
    }
}

/// True when the shutdown came first.
async fn pause(duration: Duration, shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(duration) => false,
        () = shutdown.cancelled() => true,
    }
}
