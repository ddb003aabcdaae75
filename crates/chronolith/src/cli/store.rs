//! Flags of the store role.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::Discovery;
use chronolith_service::config::{DurationMs, inline_or_file};
use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::relabel::parse_relabeling;
use chronolith_store::{Config, TimeBound};
use clap::Args;

use super::common::{GrpcServerTlsArgs, LogArgs, ObjstoreArgs, address, discovery};
use super::reading::ReadingArgs;

/// Serve the blocks of a bucket through the StoreAPI.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// Where metrics and probes are served.
    #[arg(long = "http-address", default_value = "0.0.0.0:10902", value_parser = address, value_name = "HOST:PORT")]
    http_address: String,
    /// Where the StoreAPI is served.
    #[arg(long = "grpc-address", default_value = "0.0.0.0:10901", value_parser = address, value_name = "HOST:PORT")]
    grpc_address: String,
    #[command(flatten)]
    tls: GrpcServerTlsArgs,
    /// Directory of index headers and copies of meta.json; may be lost at any time.
    #[arg(long = "data-dir", default_value = "./data", value_name = "DIR")]
    data_dir: PathBuf,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Series requests that run at once [default: twice the processors, at least 4 and at most 20].
    #[arg(long = "store.grpc.series-max-concurrency", value_name = "N")]
    series_concurrency_max: Option<usize>,
    /// How often the bucket is looked at.
    #[arg(long = "sync-block-duration", default_value = "15m", value_name = "DURATION")]
    sync_interval: DurationMs,
    /// meta.json files fetched at a time.
    #[arg(long = "block-meta-fetch-concurrency", default_value_t = 32, value_name = "N")]
    meta_fetch_concurrency: usize,
    /// Index headers made at a time.
    #[arg(long = "block-sync-concurrency", default_value_t = 20, value_name = "N")]
    block_sync_concurrency: usize,
    /// How blocks are found: recursive (one listing of everything) or concurrent (a look into each block).
    #[arg(long = "block-discovery-strategy", default_value = "recursive", value_parser = discovery, value_name = "NAME")]
    discovery: Discovery,
    /// Blocks that end before are not served: RFC 3339, or a duration before now like -30d.
    #[arg(
        long = "min-time",
        default_value = "0000-01-01T00:00:00Z",
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    min_time: TimeBound,
    /// Blocks that begin after are not served.
    #[arg(
        long = "max-time",
        default_value = "9999-12-31T23:59:59Z",
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    max_time: TimeBound,
    /// File with relabel rules over external labels and __block_id that choose the blocks this store serves.
    #[arg(long = "selector.relabel-config-file", value_name = "FILE")]
    shard_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "selector.relabel-config", value_name = "YAML", conflicts_with = "shard_file")]
    shard: Option<String>,
    /// A block is served when it is so old.
    #[arg(long = "consistency-delay", default_value = "0s", value_name = "DURATION")]
    consistency_delay: DurationMs,
    /// Ignored: index headers are always opened at the first query that needs them.
    #[arg(
        long = "store.enable-index-header-lazy-reader",
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "true",
        value_name = "BOOL"
    )]
    _header_lazy_reader: bool,
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl StoreArgs {
    /// The role's settings. Errors: a file that cannot be read or is none.
    pub(crate) fn config(&self) -> Result<Config, Exit> {
        let rules =
            inline_or_file("selector.relabel-config", self.shard.as_deref(), self.shard_file.as_deref())?;
        let rules = rules.map(|(origin, text)| parse_relabeling(&origin, &text)).transpose();
        let shard = rules.map_err(|e| Exit::Usage(error_chain(&e)))?.unwrap_or_default();
        let duration = |d: DurationMs| Duration::from_millis(d.0.unsigned_abs());
        let config = Config {
            data_dir: self.data_dir.clone(),
            grpc_address: Some(self.grpc_address.clone()),
            grpc_tls: self.tls.config(),
            http_address: Some(self.http_address.clone()),
            series_concurrency_max: self.series_concurrency_max.unwrap_or_else(Config::series_concurrency),
            sync_interval: duration(self.sync_interval),
            meta_fetch_concurrency: self.meta_fetch_concurrency,
            block_sync_concurrency: self.block_sync_concurrency,
            discovery: self.discovery,
            min_time: self.min_time,
            max_time: self.max_time,
            shard,
            consistency_delay: duration(self.consistency_delay),
            ..Config::default()
        };
        self.reading.apply(config)
    }
}
