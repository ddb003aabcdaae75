//! Flags of the compact role.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::{Discovery, TimeBound};
use chronolith_compact::Config;
use chronolith_compact::retention::{Keep, Policy};
use chronolith_model::Relabeling;
use chronolith_service::config::{ByteSize, DurationMs, inline_or_file};
use chronolith_service::exit::{Exit, error_chain};
use chronolith_service::relabel::parse_relabeling;
use chronolith_tsdb::merge::Deduplication;
use clap::Args;

use super::common::{LogArgs, ObjstoreArgs, address, discovery};

/// Compact, deduplicate and downsample the blocks of a bucket, and delete what is superfluous. Any number of them may work on one bucket.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompactArgs {
    /// Where metrics and probes are served.
    #[arg(long = "http-address", default_value = "0.0.0.0:10912", value_parser = address, value_name = "HOST:PORT")]
    http_address: String,
    /// Directory of downloads and results under way; may be lost at any time. Each compactor needs one of its own.
    #[arg(long = "data-dir", default_value = "./data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Go on when everything is done, and wait for new blocks.
    #[arg(long = "wait", short = 'w')]
    wait: bool,
    /// Blocks that end before are left alone: RFC 3339, or a duration before now like -30d.
    #[arg(
        long = "min-time",
        default_value = "0000-01-01T00:00:00Z",
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    min_time: TimeBound,
    /// Blocks that begin after are left alone.
    #[arg(
        long = "max-time",
        default_value = "9999-12-31T23:59:59Z",
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    max_time: TimeBound,
    /// How blocks are found: recursive (one listing of everything) or concurrent (a look into each block).
    #[arg(long = "block-discovery-strategy", default_value = "recursive", value_parser = discovery, value_name = "NAME")]
    discovery: Discovery,
    /// meta.json files fetched at a time.
    #[arg(long = "block-meta-fetch-concurrency", default_value_t = 32, value_name = "N")]
    meta_fetch_concurrency: usize,
    /// Put checksums of files into meta.json: empty or SHA256.
    #[arg(
        long = "hash-func",
        default_value = "",
        value_parser = ["", "SHA256"],
        hide_possible_values = true,
        value_name = "NAME"
    )]
    hash: String,
    #[command(flatten)]
    pub(crate) compaction: CompactionArgs,
    #[command(flatten)]
    pub(crate) objstore: ObjstoreArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// How blocks are compacted, in a process of its own or beside other roles.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompactionArgs {
    /// How long raw samples are kept; 0d is for ever.
    #[arg(
        long = "retention.resolution-raw",
        default_value = "0d",
        value_name = "DURATION",
        help_heading = "Retention"
    )]
    retention_raw: DurationMs,
    /// How long five-minute aggregates are kept.
    #[arg(
        long = "retention.resolution-5m",
        default_value = "0d",
        value_name = "DURATION",
        help_heading = "Retention"
    )]
    retention_five_minutes: DurationMs,
    /// How long one-hour aggregates are kept.
    #[arg(
        long = "retention.resolution-1h",
        default_value = "0d",
        value_name = "DURATION",
        help_heading = "Retention"
    )]
    retention_one_hour: DurationMs,
    /// retention.yml: defaults, tenants, series. The flags come before its defaults.
    #[arg(long = "retention.config-file", value_name = "FILE", help_heading = "Retention")]
    retention_file: Option<PathBuf>,
    /// Between looks at the bucket.
    #[arg(
        long = "wait-interval",
        default_value = "5m",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    wait_interval: DurationMs,
    /// Between deletions of marked blocks while compactions run; 0s leaves them to the iterations.
    #[arg(
        long = "compact.cleanup-interval",
        default_value = "5m",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    cleanup_interval: DurationMs,
    /// Blocks younger than this are left alone, unless a compactor made them. Uploads that stopped are deleted after 48h.
    #[arg(
        long = "consistency-delay",
        default_value = "30m",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    consistency_delay: DurationMs,
    /// Between the mark and the deletion of a block.
    #[arg(
        long = "delete-delay",
        default_value = "48h",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    delete_delay: DurationMs,
    /// Groups compacted at a time.
    #[arg(long = "compact.concurrency", default_value_t = 1, value_name = "N", help_heading = "Compaction")]
    concurrency: usize,
    /// Blocks of one compaction downloaded at a time.
    #[arg(
        long = "compact.blocks-fetch-concurrency",
        default_value_t = 1,
        value_name = "N",
        help_heading = "Compaction"
    )]
    blocks_fetch_concurrency: usize,
    /// Files of one block downloaded at a time.
    #[arg(
        long = "block-files-concurrency",
        default_value_t = 1,
        value_name = "N",
        help_heading = "Compaction"
    )]
    files_concurrency: usize,
    /// Label that tells replicas apart: blocks that differ in nothing else are merged. Repeatable. What was merged cannot be
    /// parted again.
    #[arg(
        id = "merged_replica_labels",
        long = "deduplication.replica-label",
        value_name = "NAME",
        help_heading = "Compaction"
    )]
    replica_labels: Vec<String>,
    /// How overlapping samples are merged: each timestamp once (empty), or one replica followed until it has a gap (penalty).
    #[arg(
        long = "deduplication.func",
        default_value = "",
        value_parser = ["", "penalty"],
        hide_possible_values = true,
        value_name = "NAME",
        help_heading = "Compaction"
    )]
    deduplication: String,
    /// Overlaps are always merged; the flag is taken for compatibility.
    #[arg(long = "compact.enable-vertical-compaction", hide = true)]
    vertical: bool,
    /// Leave out blocks with out-of-order chunks instead of putting these in order.
    #[arg(long = "compact.skip-block-with-out-of-order-chunks", help_heading = "Compaction")]
    skip_out_of_order: bool,
    /// Largest index of a result; what would be larger is split.
    #[arg(
        long = "compact.block-max-index-size",
        default_value = "64GB",
        value_name = "SIZE",
        help_heading = "Compaction"
    )]
    index_bytes_max: ByteSize,
    /// Longest blocks made: 0 is 1h, then 2h, 8h, 2d, 14d.
    #[arg(long = "debug.max-compaction-level", default_value_t = 4, value_name = "N", hide = true)]
    level_max: usize,
    /// File with relabel rules over external labels and __block_id that choose the blocks this compactor takes.
    #[arg(long = "selector.relabel-config-file", value_name = "FILE", help_heading = "Compaction")]
    shard_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(
        long = "selector.relabel-config",
        value_name = "YAML",
        conflicts_with = "shard_file",
        help_heading = "Compaction"
    )]
    shard: Option<String>,
    /// Make no blocks of coarser resolutions.
    #[arg(long = "downsampling.disable", help_heading = "Compaction")]
    downsampling_disabled: bool,
    /// Blocks downsampled at a time.
    #[arg(
        long = "downsample.concurrency",
        default_value_t = 1,
        value_name = "N",
        help_heading = "Compaction"
    )]
    downsample_concurrency: usize,
    /// Age at which requests to delete series are applied to blocks that no compaction takes. Until then they can be revoked.
    #[arg(
        long = "delete-series.apply-after",
        default_value = "24h",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    deletion_grace: DurationMs,
    /// Blocks rewritten for such requests in one iteration; 0 leaves them to compactions and to tools bucket rewrite.
    #[arg(
        long = "delete-series.blocks-per-iteration",
        default_value_t = 16,
        value_name = "N",
        help_heading = "Compaction"
    )]
    deletion_rewrites_max: usize,
    /// Age at which a request that no block needs is removed: longer than any receiver may hold back samples that it could not
    /// upload. 0d keeps requests until they are revoked.
    #[arg(
        long = "delete-series.keep-requests",
        default_value = "14d",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    deletion_keep: DurationMs,
    /// Nobody else compacts this bucket: work without leases. For stores that ignore conditional writes.
    #[arg(long = "compact.single-worker", help_heading = "Compaction")]
    single_worker: bool,
    /// A worker that others did not hear of for so long, and half as long again, is taken for dead.
    #[arg(
        long = "compact.lease-duration",
        default_value = "60s",
        value_name = "DURATION",
        help_heading = "Compaction"
    )]
    lease_duration: DurationMs,
    /// Most disk that downloads and results may take; 0 leaves it at what is free.
    #[arg(
        long = "compact.disk-limit",
        default_value = "0",
        value_name = "SIZE",
        help_heading = "Compaction"
    )]
    disk_bytes_max: ByteSize,
    /// Progress is told at every pass; the flag is taken for compatibility.
    #[arg(long = "compact.progress-interval", hide = true)]
    progress_interval: Option<DurationMs>,
    /// Nothing halts a compactor; the flag is taken for compatibility.
    #[arg(long = "debug.halt-on-error", hide = true)]
    halt_on_error: bool,
}

impl CompactionArgs {
    /// The settings, with defaults for what the process decides.
    pub(crate) fn config(&self) -> Result<Config, Exit> {
        let duration = |d: DurationMs| Duration::from_millis(d.0.unsigned_abs());
        let retention = self.retention()?;
        Ok(Config {
            retention,
            wait_interval: duration(self.wait_interval),
            cleanup_interval: duration(self.cleanup_interval),
            consistency_delay: duration(self.consistency_delay),
            delete_delay: duration(self.delete_delay),
            concurrency: self.concurrency,
            blocks_fetch_concurrency: self.blocks_fetch_concurrency,
            files_concurrency: self.files_concurrency,
            replica_labels: self.replica_labels.clone(),
            deduplication: match self.deduplication.as_str() {
                "penalty" => Deduplication::Penalty,
                _ => Deduplication::OneToOne,
            },
            skip_out_of_order: self.skip_out_of_order,
            index_bytes_max: self.index_bytes_max.0,
            level_max: self.level_max,
            shard: self.shard()?,
            downsampling_disabled: self.downsampling_disabled,
            downsample_concurrency: self.downsample_concurrency,
            deletion_grace: duration(self.deletion_grace),
            deletion_rewrites_max: self.deletion_rewrites_max,
            deletion_keep: duration(self.deletion_keep),
            single_worker: self.single_worker,
            lease_duration: duration(self.lease_duration),
            disk_bytes_max: self.disk_bytes_max.0,
            ..Config::default()
        })
    }

    fn retention(&self) -> Result<Policy, Exit> {
        let flags = Keep {
            raw_ms: self.retention_raw.0,
            five_minutes_ms: self.retention_five_minutes.0,
            one_hour_ms: self.retention_one_hour.0,
        };
        let policy = match &self.retention_file {
            Some(path) => Policy::load(path, flags)?,
            None => Policy::new(flags),
        };
        if !self.downsampling_disabled {
            policy.defaults().check_with_downsampling().map_err(Exit::Usage)?;
        }
        Ok(policy)
    }

    fn shard(&self) -> Result<Relabeling, Exit> {
        let given =
            inline_or_file("selector.relabel-config", self.shard.as_deref(), self.shard_file.as_deref())?;
        let Some((origin, text)) = given else { return Ok(Relabeling::default()) };
        parse_relabeling(&origin, &text).map_err(|e| Exit::Usage(error_chain(&e)))
    }
}

impl CompactArgs {
    /// The role's settings.
    pub(crate) fn config(&self) -> Result<Config, Exit> {
        Ok(Config {
            data_dir: self.data_dir.clone(),
            http_address: Some(self.http_address.clone()),
            wait: self.wait,
            hash: self.hash == "SHA256",
            min_time: self.min_time,
            max_time: self.max_time,
            discovery: self.discovery,
            meta_fetch_concurrency: self.meta_fetch_concurrency,
            ..self.compaction.config()?
        })
    }
}
