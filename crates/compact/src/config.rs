//! Settings of the role. The fields are Thanos's flags, where it has them.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::{Discovery, TimeBound};
use chronolith_model::Relabeling;
use chronolith_tsdb::merge::Deduplication;

use crate::retention::Policy;

/// Settings of a compactor.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--data-dir`: work directory and copies of metas; may be lost at any time.
    pub data_dir: PathBuf,
    /// `--http-address`; `None` where the process has a listener of its own.
    pub http_address: Option<String>,
    /// `--wait`: go on for ever instead of ending when there is nothing left to do.
    pub wait: bool,
    /// `--wait-interval`: between looks at the bucket.
    pub wait_interval: Duration,
    /// `--compact.cleanup-interval`: between deletions of marked blocks and stopped uploads while compactions run.
    pub cleanup_interval: Duration,
    /// `--consistency-delay`: blocks younger than this are left alone, unless a compactor made them.
    pub consistency_delay: Duration,
    /// `--delete-delay`: between the mark and the deletion of a block.
    pub delete_delay: Duration,
    /// `--compact.concurrency`: groups at a time.
    pub concurrency: usize,
    /// `--compact.blocks-fetch-concurrency`: blocks of one compaction that are downloaded at a time.
    pub blocks_fetch_concurrency: usize,
    /// `--block-files-concurrency`: files of one block that are downloaded at a time.
    pub files_concurrency: usize,
    /// `--block-meta-fetch-concurrency`.
    pub meta_fetch_concurrency: usize,
    /// `--block-discovery-strategy`.
    pub discovery: Discovery,
    /// `--deduplication.replica-label`.
    pub replica_labels: Vec<String>,
    /// `--deduplication.func`.
    pub deduplication: Deduplication,
    /// `--compact.skip-block-with-out-of-order-chunks`: mark such blocks instead of putting their chunks in order.
    pub skip_out_of_order: bool,
    /// `--compact.block-max-index-size`: a result with a larger index is split.
    pub index_bytes_max: u64,
    /// `--debug.max-compaction-level`.
    pub level_max: usize,
    /// `--hash-func=SHA256`: put checksums of files into meta.json.
    pub hash: bool,
    /// `--selector.relabel-config`: which blocks this compactor takes.
    pub shard: Relabeling,
    /// `--min-time`: blocks that end before are left alone.
    pub min_time: TimeBound,
    /// `--max-time`: blocks that begin after are left alone.
    pub max_time: TimeBound,
    /// `--downsampling.disable`.
    pub downsampling_disabled: bool,
    /// `--downsample.concurrency`: blocks downsampled at a time.
    pub downsample_concurrency: usize,
    /// `--retention.*`: how long what is kept.
    pub retention: Policy,
    /// `--delete-series.apply-after`: age at which a request to delete series is applied to blocks that no compaction takes.
    pub deletion_grace: Duration,
    /// `--delete-series.blocks-per-iteration`: blocks rewritten for such requests at most; 0 leaves them to compactions.
    pub deletion_rewrites_max: usize,
    /// `--delete-series.keep-requests`: age at which a request that no block needs is removed; zero keeps it.
    pub deletion_keep: Duration,
    /// `--compact.single-worker`: no leases; nobody else compacts this bucket.
    pub single_worker: bool,
    /// `--compact.lease-duration`: a worker that was not heard of for so long, and half as long again, is taken for dead.
    pub lease_duration: Duration,
    /// `--compact.disk-limit`: most bytes that the work directory is let grow to; 0 leaves it at what the disk has free.
    pub disk_bytes_max: u64,
}

impl Default for Config {
    /// Thanos's defaults, where it has them.
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("./data"),
            http_address: Some("0.0.0.0:10912".to_owned()),
            wait: false,
            wait_interval: Duration::from_secs(5 * 60),
            cleanup_interval: Duration::from_secs(5 * 60),
            consistency_delay: Duration::from_secs(30 * 60),
            delete_delay: Duration::from_secs(48 * 3600),
            concurrency: 1,
            blocks_fetch_concurrency: 1,
            files_concurrency: 1,
            meta_fetch_concurrency: 32,
            discovery: Discovery::Recursive,
            replica_labels: Vec::new(),
            deduplication: Deduplication::OneToOne,
            skip_out_of_order: false,
            index_bytes_max: 64 << 30,
            level_max: 4,
            hash: false,
            shard: Relabeling::default(),
            min_time: TimeBound::At(i64::MIN),
            max_time: TimeBound::At(i64::MAX),
            downsampling_disabled: false,
            downsample_concurrency: 1,
            retention: Policy::default(),
            // A day to think better of it, in which most small blocks are compacted anyway.
            deletion_grace: Duration::from_secs(24 * 3600),
            deletion_rewrites_max: 16,
            // Longer than receivers hold samples back that they could not upload.
            deletion_keep: Duration::from_secs(14 * 24 * 3600),
            single_worker: false,
            lease_duration: Duration::from_secs(60),
            disk_bytes_max: 0,
        }
    }
}

/// Milliseconds of a duration.
pub(crate) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
