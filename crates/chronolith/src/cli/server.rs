//! Flags of `server`: everything in one process.

use std::path::PathBuf;

use chronolith_service::config::DurationMs;
use clap::Args;

use super::common::{LogArgs, ObjstoreArgs, address};
use super::compact::CompactionArgs;
use super::query::EvaluationArgs;
use super::reading::ReadingArgs;
use super::receive::IngestArgs;
use super::web::WebArgs;

/// Everything in one process.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Where everything HTTP is served: remote write, the query API, metrics, probes.
    #[arg(long = "http-address", default_value = "127.0.0.1:9090", value_parser = address, value_name = "HOST:PORT")]
    pub(crate) http_address: String,
    /// Where the StoreAPI is served.
    #[arg(long = "grpc-address", default_value = "127.0.0.1:10901", value_parser = address, value_name = "HOST:PORT")]
    pub(crate) grpc_address: String,
    /// Directory of everything local; without --objstore.config-file the bucket is its subdirectory `bucket`.
    #[arg(long = "data-dir", default_value = "./data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Write this process's own metrics into itself.
    #[arg(long = "self-monitoring", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) self_monitoring: bool,
    /// How often.
    #[arg(long = "self-monitoring.interval", default_value = "15s", value_name = "DURATION")]
    pub(crate) self_monitoring_interval: DurationMs,
    #[command(flatten)]
    pub(crate) ingest: IngestArgs,
    #[command(flatten)]
    pub(crate) evaluation: EvaluationArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    /// Compact the bucket in this process. Other compactors of the same bucket do no harm.
    #[arg(long = "compact", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) compact: bool,
    #[command(flatten)]
    pub(crate) compaction: CompactionArgs,
    #[command(flatten)]
    pub(crate) web: WebArgs,
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}
