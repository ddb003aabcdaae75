//! Keeps a [`RingSink`]'s hashrings what the file says. A file that cannot be read, or is wrong, leaves the old rings and is told
//! by a metric and one log line.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chronolith_service::metrics::Registry;
use chronolith_service::shutdown::CancellationToken;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use sha2::{Digest as _, Sha256};

use super::sink::RingSink;
use crate::hashring::{FILE_BYTES_MAX, HashringError, parse};

/// How often the file's date and size are looked at. Cheap, and knows no missed event, unlike watching the directory.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Follows the file.
pub(crate) struct HashringWatch {
    sink: Arc<RingSink>,
    loaded: Option<String>,
    stamp: Option<(SystemTime, u64, u64)>,
    failed: Option<String>,
    metrics: WatchMetrics,
}

struct WatchMetrics {
    hash: Gauge<f64, std::sync::atomic::AtomicU64>,
    successful: Gauge,
    success_time: Gauge<f64, std::sync::atomic::AtomicU64>,
    changes: Counter,
    errors: Counter,
    refreshes: Counter,
}

impl WatchMetrics {
    fn register(registry: &mut Registry) -> Self {
        let m = WatchMetrics {
            hash: Gauge::default(),
            successful: Gauge::default(),
            success_time: Gauge::default(),
            changes: Counter::default(),
            errors: Counter::default(),
            refreshes: Counter::default(),
        };
        registry.register("thanos_receive_config_hash", "Hash of the hashring configuration", m.hash.clone());
        let help = "1 when the hashring configuration was right when it was last read";
        registry.register("thanos_receive_config_last_reload_successful", help, m.successful.clone());
        let help = "When a hashring configuration was last taken over";
        let name = "thanos_receive_config_last_reload_success_timestamp_seconds";
        registry.register(name, help, m.success_time.clone());
        let help = "Changes of the hashring configuration";
        registry.register("thanos_receive_hashrings_file_changes", help, m.changes.clone());
        let help = "Times that the hashring file could not be read or was wrong";
        registry.register("thanos_receive_hashrings_file_errors", help, m.errors.clone());
        let help = "Times that the hashring file was read";
        registry.register("thanos_receive_hashrings_file_refreshes", help, m.refreshes.clone());
        m
    }
}

impl HashringWatch {
    /// Reads the rings for the first time: a wrong file ends the start. Must be called inside a tokio runtime.
    pub(crate) fn start(sink: Arc<RingSink>, registry: &mut Registry) -> Result<Self, HashringError> {
        let metrics = WatchMetrics::register(registry);
        let mut watch = HashringWatch { sink, loaded: None, stamp: None, failed: None, metrics };
        watch.refresh()?;
        Ok(watch)
    }

    /// Follows the file until `stop`. An inline configuration does not change.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let Some(file) = self.sink.options().file.clone() else {
            stop.cancelled().await;
            return;
        };
        let mut read_at = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            let due = read_at.elapsed() >= self.sink.options().refresh_interval;
            if !due && stamp(&file) == self.stamp {
                continue;
            }
            read_at = tokio::time::Instant::now();
            match self.refresh() {
                Ok(()) => self.failed = None,
                Err(error) => {
                    let text = error.to_string();
                    if self.failed.as_ref() != Some(&text) {
                        tracing::error!(file = %file.display(), err = %text, "hashring file refused, the old one stays");
                    }
                    self.failed = Some(text);
                }
            }
        }
    }

    fn refresh(&mut self) -> Result<(), HashringError> {
        self.metrics.refreshes.inc();
        let result = self.reload();
        self.metrics.successful.set(i64::from(result.is_ok()));
        if result.is_err() {
            self.metrics.errors.inc();
        }
        result
    }

    fn reload(&mut self) -> Result<(), HashringError> {
        let options = self.sink.options();
        let text = match (&options.file, &options.inline) {
            (Some(file), _) => {
                // Before reading: a change in between is seen next time.
                self.stamp = stamp(file);
                read(file)?
            }
            (None, Some(text)) => text.clone(),
            (None, None) => return Err(HashringError::new("there is no hashring configuration")),
        };
        if self.loaded.as_ref() == Some(&text) {
            return Ok(());
        }
        self.sink.set_rings(parse(&text)?)?;
        if self.loaded.is_some() {
            tracing::info!("hashrings changed");
        }
        self.metrics.changes.inc();
        let sum = Sha256::digest(text.as_bytes());
        // Thanos's: 48 bits, which a float holds.
        let bits = u64::from_le_bytes([sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], 0, 0]);
        self.metrics.hash.set(bits as f64);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.success_time.set(now.as_secs_f64());
        self.loaded = Some(text);
        Ok(())
    }
}

fn read(file: &Path) -> Result<String, HashringError> {
    let failed = |e: std::io::Error| HashringError::new(format!("{}: {e}", file.display()));
    if std::fs::metadata(file).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(HashringError::new(format!("{}: larger than {FILE_BYTES_MAX} bytes", file.display())));
    }
    std::fs::read_to_string(file).map_err(failed)
}

/// Changes when the file does, also where a link is turned to another file, as Kubernetes does.
fn stamp(file: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}
