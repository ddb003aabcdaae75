//! Flags of reading blocks from a bucket, of `store` and of `server`: caches, limits, index headers.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_service::config::{ByteSize, DurationMs, inline_or_file};
use chronolith_service::exit::Exit;
use chronolith_store::{ChunkCacheConfig, Config, IndexCacheConfig};
use clap::Args;

/// How blocks are read.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReadingArgs {
    /// Memory for postings and series.
    #[arg(long = "index-cache-size", default_value = "250MB", value_name = "SIZE")]
    index_cache_size: ByteSize,
    /// File that says where postings and series are cached instead, Thanos's YAML (type IN-MEMORY, MEMCACHED, REDIS or DISK).
    #[arg(long = "index-cache.config-file", value_name = "FILE")]
    index_cache_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "index-cache.config", value_name = "YAML", conflicts_with = "index_cache_file")]
    index_cache: Option<String>,
    /// Memory for chunks that queries have read; 0 keeps none.
    #[arg(long = "chunk-cache-size", default_value = "128MB", value_name = "SIZE")]
    chunk_cache_size: ByteSize,
    /// File that says where pieces of chunk segments are cached, Thanos's YAML of the caching bucket.
    #[arg(long = "store.caching-bucket.config-file", value_name = "FILE")]
    chunk_cache_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "store.caching-bucket.config", value_name = "YAML", conflicts_with = "chunk_cache_file")]
    chunk_cache: Option<String>,
    /// Most bytes from the bucket that all requests together hold at a time; 0 sets no bound.
    #[arg(long = "chunk-pool-size", default_value = "2GB", value_name = "SIZE")]
    read_budget: ByteSize,
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
    /// How old the bucket index that a compactor writes may be; without a good one the bucket is listed. 0s never asks for it.
    #[arg(long = "store.bucket-index.max-stale-period", default_value = "1h", value_name = "DURATION")]
    bucket_index_age_max: DurationMs,
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
}

fn parsed<T>(
    text: Option<(String, String)>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Exit> {
    let Some((origin, text)) = text else { return Ok(None) };
    parse(&text).map(Some).map_err(|e| Exit::Usage(format!("{origin}: {e}")))
}

impl ReadingArgs {
    /// The settings with these put in. Errors: a file that cannot be read or is none.
    pub(crate) fn apply(&self, config: Config) -> Result<Config, Exit> {
        let (index, chunks) = (self.index_cache.as_deref(), self.chunk_cache.as_deref());
        let index_cache = parsed(
            inline_or_file("index-cache.config", index, self.index_cache_file.as_deref())?,
            IndexCacheConfig::parse,
        )?;
        let chunk_cache = parsed(
            inline_or_file("store.caching-bucket.config", chunks, self.chunk_cache_file.as_deref())?,
            ChunkCacheConfig::parse,
        )?;
        let duration = |d: DurationMs| Duration::from_millis(d.0.unsigned_abs());
        Ok(Config {
            index_cache_bytes_max: self.index_cache_size.0,
            run_cache_bytes_max: self.chunk_cache_size.0,
            index_cache,
            chunk_cache,
            read_budget_bytes: self.read_budget.0,
            request_series_max: self.request_series_max,
            request_samples_max: self.request_samples_max,
            downloaded_bytes_max: self.downloaded_bytes_max.0,
            bucket_index_age_max: duration(self.bucket_index_age_max),
            ignore_deletion_marks_delay: duration(self.ignore_deletion_marks_delay),
            lazy_header_download: self.header_download == "lazy",
            header_idle: duration(self.header_idle),
            ..config
        })
    }
}
