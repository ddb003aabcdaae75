//! Flags of the store role.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::Discovery;
use chronolith_service::config::{ByteSize, DurationMs};
use chronolith_store::{Config, TimeBound};
use clap::Args;

use super::common::{GrpcServerTlsArgs, LogArgs, ObjstoreArgs, address, discovery};

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
    /// Memory for postings and series.
    #[arg(long = "index-cache-size", default_value = "250MB", value_name = "SIZE")]
    index_cache_size: ByteSize,
    /// Series requests that run at once.
    #[arg(long = "store.grpc.series-max-concurrency", default_value_t = 20, value_name = "N")]
    series_concurrency_max: usize,
    /// Most series of one request; 0 sets no bound.
    #[arg(long = "store.limits.request-series", default_value_t = 0, value_name = "N")]
    request_series_max: u64,
    /// Most samples of one request, 120 counted for each chunk; 0 sets no bound.
    #[arg(long = "store.limits.request-samples", default_value_t = 0, value_name = "N")]
    request_samples_max: u64,
    /// Most bytes that one request may fetch from the bucket; 0 sets no bound.
    #[arg(long = "store.grpc.downloaded-bytes-limit", default_value = "0", value_name = "SIZE")]
    downloaded_bytes_max: ByteSize,
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
    /// A block is served when it is so old.
    #[arg(long = "consistency-delay", default_value = "0s", value_name = "DURATION")]
    consistency_delay: DurationMs,
    /// Blocks that were marked for deletion so long ago are not served.
    #[arg(long = "ignore-deletion-marks-delay", default_value = "24h", value_name = "DURATION")]
    ignore_deletion_marks_delay: DurationMs,
    /// When index headers are made: eager (after the sync) or lazy (at the first query).
    #[arg(
        long = "store.index-header-lazy-download-strategy",
        default_value = "eager",
        value_parser = ["eager", "lazy"],
        value_name = "NAME"
    )]
    header_download: String,
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

impl StoreArgs {
    /// The role's settings.
    pub(crate) fn config(&self) -> Config {
        let duration = |d: DurationMs| Duration::from_millis(d.0.unsigned_abs());
        Config {
            data_dir: self.data_dir.clone(),
            grpc_address: Some(self.grpc_address.clone()),
            grpc_tls: self.tls.config(),
            http_address: Some(self.http_address.clone()),
            index_cache_bytes_max: self.index_cache_size.0,
            series_concurrency_max: self.series_concurrency_max,
            request_series_max: self.request_series_max,
            request_samples_max: self.request_samples_max,
            downloaded_bytes_max: self.downloaded_bytes_max.0,
            sync_interval: duration(self.sync_interval),
            meta_fetch_concurrency: self.meta_fetch_concurrency,
            block_sync_concurrency: self.block_sync_concurrency,
            discovery: self.discovery,
            min_time: self.min_time,
            max_time: self.max_time,
            consistency_delay: duration(self.consistency_delay),
            ignore_deletion_marks_delay: duration(self.ignore_deletion_marks_delay),
            lazy_header_download: self.header_download == "lazy",
            ..Config::default()
        }
    }
}
