//! Metrics of the role; where Thanos has one, the name and meaning are its.

use chronolith_bucket::Excluded;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::sync::View;

/// Label of what is counted by resolution in milliseconds.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct ResolutionLabels {
    resolution: i64,
}

/// What a block was marked with, and why.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct MarkLabels {
    marker: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// A counter by resolution.
pub(crate) type ByResolution = Family<ResolutionLabels, Counter>;
/// Durations by resolution.
type DurationByResolution = Family<ResolutionLabels, Histogram, fn() -> Histogram>;

/// The role's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CompactMetrics {
    pub(crate) halted: Gauge,
    pub(crate) retries: Counter,
    pub(crate) iterations: Counter,
    pub(crate) cleanups: Counter,
    pub(crate) partial_deletions: Counter,
    pub(crate) blocks_cleaned: Counter,
    pub(crate) cleanup_failures: Counter,
    pub(crate) garbage_collected: Counter,
    pub(crate) garbage_collections: Counter,
    pub(crate) garbage_collection_failures: Counter,
    pub(crate) garbage_collection_duration: Histogram,
    blocks_marked: Family<MarkLabels, Counter>,
    pub(crate) compactions: ByResolution,
    pub(crate) vertical_compactions: ByResolution,
    pub(crate) runs_started: ByResolution,
    pub(crate) runs_completed: ByResolution,
    pub(crate) failures: ByResolution,
    pub(crate) downsamples: ByResolution,
    pub(crate) downsample_failures: ByResolution,
    pub(crate) downsample_duration: DurationByResolution,
    pub(crate) todo_compactions: Gauge,
    pub(crate) todo_blocks: Gauge,
    pub(crate) todo_downsamples: Gauge,
    pub(crate) todo_deletions: Gauge,
    pub(crate) remaining_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(crate) syncs: Counter,
    pub(crate) sync_failures: Counter,
    pub(crate) sync_duration: Histogram,
    metas: Family<StateLabels, Gauge>,
    pub(crate) samples: Counter,
    pub(crate) duration: Histogram,
    pub(crate) leases_busy: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) groups_isolated: Gauge,
    pub(crate) deletion_requests: Gauge,
    pub(crate) deletion_blocks: Gauge,
    pub(crate) deletion_rewrites: Counter,
    pub(crate) deletion_requests_retired: Counter,
}

/// Label of a counter by resolution.
pub(crate) fn by(resolution_ms: i64) -> ResolutionLabels {
    ResolutionLabels { resolution: resolution_ms }
}

/// Seconds of one compaction: from a group of small blocks to fourteen days of a large one.
const DURATION_BUCKETS: [f64; 10] = [1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0];
/// Seconds, as Thanos has them.
const DOWNSAMPLE_BUCKETS: [f64; 7] = [60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0];
const GARBAGE_COLLECTION_BUCKETS: [f64; 16] =
    [0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0, 360.0, 720.0];
const SYNC_BUCKETS: [f64; 7] = [0.01, 1.0, 10.0, 100.0, 300.0, 600.0, 1000.0];

impl CompactMetrics {
    /// Makes the metrics and puts them on `registry`. What a store gateway has as well is put there only if this role is
    /// `alone` in its process.
    pub fn register(registry: &mut Registry, delete_delay_seconds: f64, alone: bool) -> Self {
        let m = CompactMetrics {
            halted: Gauge::default(),
            retries: Counter::default(),
            iterations: Counter::default(),
            cleanups: Counter::default(),
            partial_deletions: Counter::default(),
            blocks_cleaned: Counter::default(),
            cleanup_failures: Counter::default(),
            garbage_collected: Counter::default(),
            garbage_collections: Counter::default(),
            garbage_collection_failures: Counter::default(),
            garbage_collection_duration: Histogram::new(GARBAGE_COLLECTION_BUCKETS),
            blocks_marked: Family::default(),
            compactions: Family::default(),
            vertical_compactions: Family::default(),
            runs_started: Family::default(),
            runs_completed: Family::default(),
            failures: Family::default(),
            downsamples: Family::default(),
            downsample_failures: Family::default(),
            downsample_duration: Family::new_with_constructor(|| Histogram::new(DOWNSAMPLE_BUCKETS)),
            todo_compactions: Gauge::default(),
            todo_blocks: Gauge::default(),
            todo_downsamples: Gauge::default(),
            todo_deletions: Gauge::default(),
            remaining_seconds: Gauge::default(),
            syncs: Counter::default(),
            sync_failures: Counter::default(),
            sync_duration: Histogram::new(SYNC_BUCKETS),
            metas: Family::default(),
            samples: Counter::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            leases_busy: Counter::default(),
            leases_lost: Counter::default(),
            groups_isolated: Gauge::default(),
            deletion_requests: Gauge::default(),
            deletion_blocks: Gauge::default(),
            deletion_rewrites: Counter::default(),
            deletion_requests_retired: Counter::default(),
        };
        let delay = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        delay.set(delete_delay_seconds);
        let r = registry;
        r.register("thanos_delete_delay_seconds", "Between the mark and the deletion of a block", delay);
        r.register(
            "thanos_compact_halted",
            "Always 0: a bad block or group is left out, the rest goes on",
            m.halted.clone(),
        );
        r.register(
            "thanos_compact_retries",
            "Work that failed and is tried again at the next iteration",
            m.retries.clone(),
        );
        r.register("thanos_compact_iterations", "Iterations that went through", m.iterations.clone());
        r.register("thanos_compact_block_cleanup_loops", "Rounds of deletion", m.cleanups.clone());
        r.register(
            "thanos_compact_aborted_partial_uploads_deletion_attempts",
            "Uploads that stopped long ago and were set out to be deleted",
            m.partial_deletions.clone(),
        );
        r.register("thanos_compact_blocks_cleaned", "Blocks deleted", m.blocks_cleaned.clone());
        r.register(
            "thanos_compact_block_cleanup_failures",
            "Deletions that failed",
            m.cleanup_failures.clone(),
        );
        r.register(
            "thanos_compact_garbage_collected_blocks",
            "Blocks marked because another one has all of their sources",
            m.garbage_collected.clone(),
        );
        r.register(
            "thanos_compact_garbage_collection",
            "Looks for such blocks",
            m.garbage_collections.clone(),
        );
        r.register(
            "thanos_compact_garbage_collection_failures",
            "Those that failed",
            m.garbage_collection_failures.clone(),
        );
        r.register(
            "thanos_compact_garbage_collection_duration_seconds",
            "Time of such a look",
            m.garbage_collection_duration.clone(),
        );
        r.register("thanos_compact_blocks_marked", "Blocks marked", m.blocks_marked.clone());
        r.register(
            "thanos_compact_group_compactions",
            "Compactions that made a block",
            m.compactions.clone(),
        );
        r.register(
            "thanos_compact_group_vertical_compactions",
            "Those of overlapping blocks",
            m.vertical_compactions.clone(),
        );
        r.register(
            "thanos_compact_group_compaction_runs_started",
            "Looks at a group",
            m.runs_started.clone(),
        );
        r.register(
            "thanos_compact_group_compaction_runs_completed",
            "Those that went well, with or without something to do",
            m.runs_completed.clone(),
        );
        r.register(
            "thanos_compact_group_compactions_failures",
            "Compactions that failed",
            m.failures.clone(),
        );
        r.register("thanos_compact_downsample", "Blocks downsampled", m.downsamples.clone());
        r.register(
            "thanos_compact_downsample_failures",
            "Attempts that failed",
            m.downsample_failures.clone(),
        );
        r.register(
            "thanos_compact_downsample_duration_seconds",
            "Time of downsampling a block, without moving it from and to the bucket",
            m.downsample_duration.clone(),
        );
        r.register("thanos_compact_todo_compactions", "Compactions to be done", m.todo_compactions.clone());
        r.register("thanos_compact_todo_compaction_blocks", "Blocks that they read", m.todo_blocks.clone());
        r.register(
            "thanos_compact_todo_downsample_blocks",
            "Blocks to be downsampled",
            m.todo_downsamples.clone(),
        );
        r.register(
            "thanos_compact_todo_deletion_blocks",
            "Blocks out of retention that are not marked yet",
            m.todo_deletions.clone(),
        );
        r.register(
            "chronolith_compact_todo_remaining_seconds",
            "Estimated time until nothing is left to do, by the speed so far; 0 when nothing is, or nothing was done yet",
            m.remaining_seconds.clone(),
        );
        if alone {
            r.register("thanos_blocks_meta_syncs", "Looks at the bucket for blocks", m.syncs.clone());
            r.register("thanos_blocks_meta_sync_failures", "Those that failed", m.sync_failures.clone());
            r.register(
                "thanos_blocks_meta_sync_duration_seconds",
                "Time of such a look",
                m.sync_duration.clone(),
            );
            r.register("thanos_blocks_meta_synced", "Blocks found, by what became of them", m.metas.clone());
        }
        r.register(
            "chronolith_compact_samples",
            "Samples of the blocks that compactions made",
            m.samples.clone(),
        );
        r.register("chronolith_compact_duration_seconds", "Time of a compaction", m.duration.clone());
        r.register("chronolith_compact_leases_busy", "Groups left to another worker", m.leases_busy.clone());
        r.register(
            "chronolith_compact_leases_lost",
            "Jobs given up because their lease was lost",
            m.leases_lost.clone(),
        );
        r.register(
            "chronolith_compact_groups_isolated",
            "Groups in which something failed in the last iteration; the others went on",
            m.groups_isolated.clone(),
        );
        r.register(
            "chronolith_compact_deletion_requests",
            "Requests to delete series in force",
            m.deletion_requests.clone(),
        );
        r.register(
            "chronolith_compact_deletion_blocks",
            "Blocks that may hold something of them and were neither rewritten nor looked through",
            m.deletion_blocks.clone(),
        );
        r.register(
            "chronolith_compact_deletion_rewrites",
            "Blocks rewritten for no other reason than such a request",
            m.deletion_rewrites.clone(),
        );
        r.register(
            "chronolith_compact_deletion_requests_retired",
            "Requests removed since no block needs them any more",
            m.deletion_requests_retired.clone(),
        );
        for reason in [REASON_COMPACTED, REASON_COVERED, REASON_RETENTION, REASON_DELETED] {
            m.marked("deletion-mark.json", reason, 0);
        }
        m
    }

    pub(crate) fn marked(&self, marker: &'static str, reason: &'static str, count: u64) {
        self.blocks_marked.get_or_create(&MarkLabels { marker, reason }).inc_by(count);
    }

    /// All marks so far.
    pub fn marks(&self, marker: &'static str, reason: &'static str) -> u64 {
        self.blocks_marked.get_or_create(&MarkLabels { marker, reason }).get()
    }

    pub(crate) fn synced(&self, view: &View) {
        let found = &view.found;
        let count = |why| view.excluded.values().filter(|w| **w == why).count();
        for (state, n) in [
            ("loaded", view.blocks.len()),
            ("no-meta-json", found.partial.len()),
            ("corrupted-meta-json", found.corrupt.len()),
            ("failed", found.failed.len()),
            ("time-excluded", count(Excluded::Time)),
            ("label-excluded", count(Excluded::Labels)),
            ("too-fresh", count(Excluded::TooFresh)),
            ("marked-for-deletion", count(Excluded::MarkedForDeletion)),
            ("duplicate", view.covers.len()),
            ("marked-for-no-compact", found.no_compact.len()),
            ("marked-for-no-downsample", found.no_downsample.len()),
        ] {
            self.metas.get_or_create(&StateLabels { state }).set(n as i64);
        }
    }
}

/// Why the sources of a compaction are marked.
pub(crate) const REASON_COMPACTED: &str = "source-of-compacted-block";
/// Why duplicates are marked.
pub(crate) const REASON_COVERED: &str = "outdated-block";
/// A block, or series of it, that is out of retention.
pub(crate) const REASON_RETENTION: &str = "retention";
/// A block that was rewritten without series that requests delete.
pub(crate) const REASON_DELETED: &str = "delete-series";
