//! The store over a bucket, and its view of the blocks.
//!
//! A sync replaces the snapshot as a whole; requests keep the one that they started with. A block that the bucket
//! gives no answer about stays as it was; a listing that fails leaves everything as it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronolith_bucket::{
    BlockFilter, BlockFinder, BucketBlock, DeletionWatch, FetchOptions, FinderOptions, HeaderSource,
    IndexUse, Limiter, Limits, ReadBudget,
};
use chronolith_cache::CacheError;
use chronolith_model::TimeRange;
use chronolith_objstore::Bucket;
use chronolith_service::{Clock, Metrics};
use chronolith_storeapi::StoreError;
use futures::StreamExt;
use parking_lot::RwLock;

use crate::Config;
use crate::blocks::Snapshot;
use crate::caches::Caches;
use crate::metrics::StoreMetrics;

/// Samples that Thanos counts for a chunk.
const SAMPLES_PER_CHUNK: u64 = 120;

/// All blocks of a bucket as one store.
pub struct BucketStore {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    bucket: Bucket,
    config: Config,
    clock: Arc<dyn Clock>,
    finder: BlockFinder,
    caches: Caches,
    budget: Arc<ReadBudget>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// A look at the bucket has worked: before that, no blocks known does not mean that there are none.
    synced: AtomicBool,
    /// What is masked until a rewrite takes it out.
    pub(crate) deletions: DeletionWatch,
    pub(crate) metrics: StoreMetrics,
}

/// What a sync changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Blocks served now.
    pub loaded: usize,
    /// Of these, new.
    pub added: usize,
    /// No longer served.
    pub dropped: usize,
    /// Whether the bucket index told, or a listing; `None` before the first sync.
    pub index: Option<IndexUse>,
}

impl BucketStore {
    /// A store that knows no blocks yet. Call inside of a runtime. Errors: a cache's directory or settings.
    pub fn new(
        bucket: Bucket,
        config: Config,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, CacheError> {
        let options = FetchOptions {
            discovery: config.discovery,
            concurrency: config.meta_fetch_concurrency,
            cache_dir: Some(config.data_dir.clone()),
            filter: BlockFilter::default(),
            compaction_marks: false,
        };
        let caches = Caches::open(&config, metrics)?;
        let store_metrics = metrics.register(StoreMetrics::register);
        let budget = Arc::new(ReadBudget::new(config.read_budget_bytes));
        let age_max = config.bucket_index_age_max;
        let index_age_max = (!age_max.is_zero()).then_some(age_max);
        let finder = BlockFinder::new(bucket.clone(), FinderOptions { fetch: options, index_age_max });
        let (snapshot, deletions) = (RwLock::default(), DeletionWatch::new(Some(bucket.clone())));
        let (metrics, synced) = (store_metrics, AtomicBool::new(false));
        let shared =
            Shared { bucket, config, clock, finder, caches, budget, snapshot, synced, deletions, metrics };
        Ok(BucketStore { shared: Arc::new(shared) })
    }

    /// Looks at the bucket and takes over what it finds. Index headers are not made here.
    pub async fn sync(&self) -> Result<SyncReport, chronolith_bucket::Error> {
        let s = &self.shared;
        s.metrics.syncs.inc();
        let now_ms = s.clock.now_ms();
        let delay_ms = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        let filter = BlockFilter {
            range: s.served_range(),
            shard: s.config.shard.clone(),
            consistency_delay_ms: delay_ms(s.config.consistency_delay),
            hide_marked_after_ms: Some(delay_ms(s.config.ignore_deletion_marks_delay)),
            ..BlockFilter::default()
        };
        let (found, how) = s.finder.find(&filter, now_ms).await.inspect_err(|_| {
            s.metrics.sync_failures.inc();
        })?;
        s.metrics.synced(&found, how);
        for (block, err) in &found.corrupt {
            tracing::warn!(%block, err, "block left out, its meta.json is damaged");
        }
        for (block, err) in &found.failed {
            tracing::warn!(%block, err, "block's meta.json not readable now, tried again at the next sync");
        }
        let before = self.snapshot();
        let mut by_id = BTreeMap::new();
        let mut report = SyncReport::default();
        for (id, meta) in found.blocks {
            if let Some(block) = before.by_id.get(&id) {
                by_id.insert(id, block.clone());
                continue;
            }
            s.metrics.block_loads.inc();
            match BucketBlock::new(s.bucket.clone(), meta, &s.config.data_dir) {
                Ok(block) => {
                    report.added += 1;
                    by_id.insert(id, Arc::new(s.caches.put_before(block)));
                }
                Err(err) => {
                    s.metrics.block_load_failures.inc();
                    tracing::warn!(block = %id, err = err.chain(), "block left out");
                }
            }
        }
        for id in found.failed.keys() {
            if let Some(block) = before.by_id.get(id) {
                by_id.insert(*id, block.clone());
            }
        }
        report.index = Some(how);
        report.loaded = by_id.len();
        let dropped: Vec<_> =
            before.by_id.values().filter(|b| !by_id.contains_key(&b.id())).cloned().collect();
        report.dropped = dropped.len();
        *s.snapshot.write() = Arc::new(Snapshot::new(by_id));
        s.synced.store(true, Ordering::SeqCst);
        s.metrics.blocks_loaded.set(report.loaded as i64);
        s.metrics.block_drops.inc_by(dropped.len() as u64);
        for block in dropped {
            if let Err(err) = block.header_source().remove().await {
                tracing::warn!(block = %block.id(), err = err.chain(), "index header of a dropped block stays");
            }
        }
        Ok(report)
    }

    /// Makes the index headers that are not there yet, unless they are to be made lazily. Until then a query makes the
    /// one that it needs.
    pub async fn prepare_headers(&self) {
        let s = &self.shared;
        if s.config.lazy_header_download {
            return;
        }
        let snapshot = self.snapshot();
        let unmade = snapshot.by_id.values().filter(|b| !b.header_source().is_made());
        let mut blocks: Vec<_> = unmade.cloned().collect();
        // After a restart most are there: one task for all of them, as one for each would make hundreds of threads.
        let look = move || {
            blocks.retain(|b| !b.header_source().look());
            blocks
        };
        let Ok(blocks) = tokio::task::spawn_blocking(look).await else { return };
        futures::stream::iter(blocks)
            .for_each_concurrent(s.config.block_sync_concurrency.max(1), |block| async move {
                if let Err(err) = block.header_source().prepare().await {
                    s.metrics.block_load_failures.inc();
                    tracing::warn!(block = %block.id(), err = err.chain(), "index header could not be made");
                }
            })
            .await;
    }

    /// Removes what earlier runs left of blocks that are not served.
    pub async fn remove_leftovers(&self) {
        let snapshot = self.snapshot();
        let dir: PathBuf = self.shared.config.data_dir.clone();
        let removed = HeaderSource::remove_others(&dir, move |id| snapshot.by_id.contains_key(&id)).await;
        match removed {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "index headers of former blocks removed"),
            Err(err) => tracing::warn!(err = err.chain(), "index headers of former blocks stay"),
        }
    }

    /// Closes index headers that nobody uses.
    pub fn close_idle_headers(&self) -> usize {
        let idle = self.shared.config.header_idle;
        let closed = self.snapshot().by_id.values().filter(|b| b.close_if_idle(idle)).count();
        self.shared.metrics.headers_closed.inc_by(closed as u64);
        closed
    }

    /// What is masked until a rewrite takes it out.
    pub fn deletions(&self) -> &DeletionWatch {
        &self.shared.deletions
    }

    /// Number of blocks served.
    pub fn block_count(&self) -> usize {
        self.snapshot().by_id.len()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.shared.synced.load(Ordering::SeqCst)
    }

    /// Fails before the first sync: an empty answer would be taken for a complete one.
    pub(crate) fn check_synced(&self) -> Result<(), StoreError> {
        match self.is_synced() {
            true => Ok(()),
            false => Err(StoreError::unavailable("the bucket was not looked through yet")),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.read().clone()
    }
}

impl Shared {
    /// The time that is served at all.
    pub(crate) fn served_range(&self) -> TimeRange {
        let now_ms = self.clock.now_ms();
        TimeRange::new(self.config.min_time.at_ms(now_ms), self.config.max_time.at_ms(now_ms))
    }

    pub(crate) fn limiter(&self) -> Limiter {
        Limiter::new(Limits {
            series_max: self.config.request_series_max,
            chunks_max: self.config.request_samples_max.div_ceil(SAMPLES_PER_CHUNK),
            bytes_max: self.config.downloaded_bytes_max,
        })
        .with_budget(self.budget.clone())
    }
}
