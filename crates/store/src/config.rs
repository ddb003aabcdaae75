//! Settings of the role. The fields are Thanos's flags.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::Discovery;
use chronolith_model::Relabeling;
use chronolith_service::tls::ServerTlsConfig;

use crate::{ChunkCacheConfig, IndexCacheConfig, TimeBound};

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--data-dir`: index headers and copies of metas.
    pub data_dir: PathBuf,
    /// `--grpc-address`; `None` where the process serves the role's store itself.
    pub grpc_address: Option<String>,
    /// `--grpc-server-tls-*`.
    pub grpc_tls: ServerTlsConfig,
    /// `--http-address`; `None` where the process has a listener of its own.
    pub http_address: Option<String>,
    /// `--index-cache-size`: bytes of postings and series in memory.
    pub index_cache_bytes_max: u64,
    /// `--index-cache.config`: another cache than the one in memory alone.
    pub index_cache: Option<IndexCacheConfig>,
    /// `--chunk-cache-size`: bytes of series' chunks in memory, 0 for none.
    pub run_cache_bytes_max: u64,
    /// `--store.caching-bucket.config`: a cache of pieces of chunk segments.
    pub chunk_cache: Option<ChunkCacheConfig>,
    /// `--chunk-pool-size`: bytes from the bucket that all requests hold at a time, 0 for any.
    pub read_budget_bytes: u64,
    /// `--store.grpc.series-max-concurrency`; by default [`Config::series_concurrency`].
    pub series_concurrency_max: usize,
    /// `--store.limits.request-series`: series of one request, 0 for any.
    pub request_series_max: u64,
    /// `--store.limits.request-samples`: samples of one request, counted as 120 a chunk, 0 for any.
    pub request_samples_max: u64,
    /// `--store.grpc.downloaded-bytes-limit`: bytes of one request from the bucket, 0 for any.
    pub downloaded_bytes_max: u64,
    /// `--sync-block-duration`: between looks at the bucket.
    pub sync_interval: Duration,
    /// `--block-meta-fetch-concurrency`.
    pub meta_fetch_concurrency: usize,
    /// `--block-sync-concurrency`: index headers made at a time.
    pub block_sync_concurrency: usize,
    /// `--block-discovery-strategy`.
    pub discovery: Discovery,
    /// `--store.bucket-index.max-stale-period`: how old a bucket index is believed; zero never asks for one.
    pub bucket_index_age_max: Duration,
    /// `--min-time`: blocks that end before are not served.
    pub min_time: TimeBound,
    /// `--max-time`: blocks that begin after are not served.
    pub max_time: TimeBound,
    /// `--selector.relabel-config`: rules over external labels and `__block_id` that choose the blocks served.
    pub shard: Relabeling,
    /// `--consistency-delay`.
    pub consistency_delay: Duration,
    /// `--ignore-deletion-marks-delay`: blocks marked for longer are not served.
    pub ignore_deletion_marks_delay: Duration,
    /// `--store.index-header-lazy-download-strategy=lazy`: make index headers at the first query, not after the sync.
    pub lazy_header_download: bool,
    /// Index headers unused for this long are closed (they stay on disk).
    pub header_idle: Duration,
}

impl Config {
    /// Twice the processors, at least 4, at most Thanos's 20. More requests at a time than processors can work on are no sooner done, and each
    /// holds tens of MiB.
    pub fn series_concurrency() -> usize {
        std::thread::available_parallelism().map_or(2, usize::from).saturating_mul(2).clamp(4, 20)
    }
}

impl Default for Config {
    /// Thanos's defaults, where it has them.
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("./data"),
            grpc_address: Some("0.0.0.0:10901".to_owned()),
            grpc_tls: ServerTlsConfig::default(),
            http_address: Some("0.0.0.0:10902".to_owned()),
            index_cache_bytes_max: 250 << 20,
            index_cache: None,
            run_cache_bytes_max: 128 << 20,
            chunk_cache: None,
            read_budget_bytes: 2 << 30,
            series_concurrency_max: Config::series_concurrency(),
            request_series_max: 0,
            request_samples_max: 0,
            downloaded_bytes_max: 0,
            sync_interval: Duration::from_secs(15 * 60),
            meta_fetch_concurrency: 32,
            block_sync_concurrency: 20,
            discovery: Discovery::Recursive,
            bucket_index_age_max: Duration::from_secs(3600),
            min_time: TimeBound::At(i64::MIN),
            max_time: TimeBound::At(i64::MAX),
            shard: Relabeling::default(),
            consistency_delay: Duration::ZERO,
            ignore_deletion_marks_delay: Duration::from_secs(24 * 3600),
            lazy_header_download: false,
            header_idle: Duration::from_secs(5 * 60),
        }
    }
}
