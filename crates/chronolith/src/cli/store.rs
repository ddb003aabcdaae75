//! Flags of the store role.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::Discovery;
use chronolith_service::config::{ByteSize, DurationMs, inline_or_file};
use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::relabel::parse_relabeling;
use chronolith_store::{ChunkCacheConfig, Config, IndexCacheConfig, TimeBound};
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
    /// File that says where postings and series are cached instead, Thanos's YAML (type IN-MEMORY, MEMCACHED, REDIS or DISK).
    #[arg(long = "index-cache.config-file", value_name = "FILE")]
    index_cache_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "index-cache.config", value_name = "YAML", conflicts_with = "index_cache_file")]
    index_cache: Option<String>,
    /// File that says where pieces of chunk segments are cached, Thanos's YAML of the caching bucket.
    #[arg(long = "store.caching-bucket.config-file", value_name = "FILE")]
    chunk_cache_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "store.caching-bucket.config", value_name = "YAML", conflicts_with = "chunk_cache_file")]
    chunk_cache: Option<String>,
    /// Most bytes from the bucket that all requests together hold at a time; 0 sets no bound.
    #[arg(long = "chunk-pool-size", default_value = "2GB", value_name = "SIZE")]
    read_budget: ByteSize,
    /// Series requests that run at once.
    #[arg(long = "store.grpc.series-max-concurrency", default_value_t = 20, value_name = "N")]
    series_concurrency_max: usize,
    /// Most series of one request; 0 sets no bound.
    #[arg(
        long = "store.limits.request-series",
        alias = "store.grpc.touched-series-limit",
        default_value_t = 0,
        value_name = "N"
    )]
    request_series_max: u64,
    /// Most samples of one request, 120 counted for each chunk; 0 sets no bound.
    #[arg(
        long = "store.limits.request-samples",
        alias = "store.grpc.series-sample-limit",
        default_value_t = 0,
        value_name = "N"
    )]
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
    /// How old the bucket index that a compactor writes may be; without a good one the bucket is listed. 0s never asks for it.
    #[arg(long = "store.bucket-index.max-stale-period", default_value = "1h", value_name = "DURATION")]
    bucket_index_age_max: DurationMs,
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
    /// Index headers unused for this long are closed; their files stay.
    #[arg(
        long = "store.index-header-lazy-reader-idle-timeout",
        default_value = "5m",
        value_name = "DURATION"
    )]
    header_idle: DurationMs,
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

fn parsed<T>(
    text: Option<(String, String)>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Exit> {
    let Some((origin, text)) = text else { return Ok(None) };
    parse(&text).map(Some).map_err(|e| Exit::Usage(format!("{origin}: {e}")))
}

impl StoreArgs {
    /// The role's settings. Errors: a file that cannot be read or is none.
    pub(crate) fn config(&self) -> Result<Config, Exit> {
        let (index, chunks) = (self.index_cache.as_deref(), self.chunk_cache.as_deref());
        let index_cache = parsed(
            inline_or_file("index-cache.config", index, self.index_cache_file.as_deref())?,
            IndexCacheConfig::parse,
        )?;
        let chunk_cache = parsed(
            inline_or_file("store.caching-bucket.config", chunks, self.chunk_cache_file.as_deref())?,
            ChunkCacheConfig::parse,
        )?;
        let rules =
            inline_or_file("selector.relabel-config", self.shard.as_deref(), self.shard_file.as_deref())?;
        let rules = rules.map(|(origin, text)| parse_relabeling(&origin, &text)).transpose();
        let shard = rules.map_err(|e| Exit::Usage(error_chain(&e)))?.unwrap_or_default();
        let duration = |d: DurationMs| Duration::from_millis(d.0.unsigned_abs());
        Ok(Config {
            index_cache,
            chunk_cache,
            read_budget_bytes: self.read_budget.0,
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
            bucket_index_age_max: duration(self.bucket_index_age_max),
            min_time: self.min_time,
            max_time: self.max_time,
            shard,
            consistency_delay: duration(self.consistency_delay),
            ignore_deletion_marks_delay: duration(self.ignore_deletion_marks_delay),
            lazy_header_download: self.header_download == "lazy",
            header_idle: duration(self.header_idle),
        })
    }
}
