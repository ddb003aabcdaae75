//! What the bucket holds, as the compactor sees it.
//!
//! A look is one listing of everything. An idle compactor first lists only the names of the blocks, a request for a thousand of
//! them, and keeps what it knows while these are the same; marks that others set show at the next full look, an hour later at the latest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chronolith_bucket::{
    BlockFilter, BucketIndexWriter, Error, Excluded, FetchOptions, FetchResult, Fetcher, Result, covers,
};
use chronolith_model::{BlockId, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_service::Clock;
use chronolith_tsdb::block::BlockMeta;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::ms;
use crate::group::{Groups, group};
use crate::{CompactMetrics, Config};

/// After so long a full listing is made, whatever the short one says.
const FULL_EVERY: Duration = Duration::from_secs(3600);

/// One look at the bucket.
#[derive(Clone, Debug)]
pub struct View {
    /// Everything that was found.
    pub found: Arc<FetchResult>,
    /// Blocks to work on, without replica labels.
    pub blocks: BTreeMap<BlockId, Arc<BlockMeta>>,
    /// Blocks left alone, and why. Duplicates are in `covers`.
    pub excluded: BTreeMap<BlockId, Excluded>,
    /// Blocks without a deletion mark whose sources are all in another such block, and in which.
    pub covers: BTreeMap<BlockId, BlockId>,
    /// Blocks that take no part in compaction: marked so, or of unknown marks.
    pub no_compact: BTreeSet<BlockId>,
}

impl View {
    /// The blocks by group.
    pub fn groups(&self) -> Groups {
        group(self.blocks.values())
    }

    /// The times and marks of `found`, judged at `now_ms`.
    pub fn new(found: Arc<FetchResult>, config: &Config, now_ms: i64) -> Self {
        let filter = BlockFilter {
            range: TimeRange { mint: config.min_time.at_ms(now_ms), maxt: config.max_time.at_ms(now_ms) },
            shard: config.shard.clone(),
            consistency_delay_ms: ms(config.consistency_delay),
            // Whoever marked a block wants it gone; what it holds must not come back in a compacted one.
            hide_marked_after_ms: Some(i64::MIN),
            replica_labels: config.replica_labels.clone(),
            hide_duplicates: false,
        };
        let mut blocks = found.blocks.clone();
        let excluded = filter.apply(&mut blocks, &found.marks, now_ms);
        // A cover counts even where this compactor leaves it alone, but not when it is going to be deleted.
        let mut all = found.blocks.clone();
        all.retain(|id, _| !found.marks.contains_key(id) && !found.unsure.contains(id));
        let labels_only =
            BlockFilter { replica_labels: config.replica_labels.clone(), ..BlockFilter::default() };
        BlockFilter { hide_duplicates: false, ..labels_only }.apply(&mut all, &found.marks, now_ms);
        let covers = covers(all.values());
        blocks.retain(|id, _| !covers.contains_key(id) && !found.unsure.contains(id));
        let mut no_compact: BTreeSet<BlockId> = found.no_compact.keys().copied().collect();
        no_compact.extend(&found.unsure);
        View { found, blocks, excluded, covers, no_compact }
    }
}

/// Looks at the bucket again and again.
#[derive(Debug)]
pub struct Syncer {
    bucket: Bucket,
    config: Config,
    clock: Arc<dyn Clock>,
    metrics: CompactMetrics,
    fetcher: Fetcher,
    index: BucketIndexWriter,
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    found: Arc<FetchResult>,
    names: BTreeSet<BlockId>,
    at: Instant,
}

impl Syncer {
    pub(crate) fn new(
        bucket: Bucket,
        config: Config,
        clock: Arc<dyn Clock>,
        metrics: CompactMetrics,
    ) -> Self {
        let options = FetchOptions {
            discovery: config.discovery,
            concurrency: config.meta_fetch_concurrency,
            cache_dir: Some(config.data_dir.clone()),
            filter: BlockFilter::default(),
            compaction_marks: true,
        };
        let fetcher = Fetcher::new(bucket.clone(), options);
        let index = BucketIndexWriter::new(bucket.clone());
        Syncer { bucket, config, clock, metrics, fetcher, index, last: Mutex::default() }
    }

    /// A full look.
    pub async fn sync(&self) -> Result<View> {
        self.metrics.syncs.inc();
        let began = Instant::now();
        let now_ms = self.clock.now_ms();
        let everything = BlockFilter { hide_duplicates: false, ..BlockFilter::default() };
        let found = self.fetcher.fetch_with(&everything, now_ms).await.inspect_err(|_| {
            self.metrics.sync_failures.inc();
        })?;
        for (block, err) in &found.corrupt {
            tracing::warn!(role = "compact", %block, err, "block left alone, its meta.json is damaged");
        }
        for (block, err) in &found.failed {
            tracing::warn!(role = "compact", %block, err, "block left alone, its meta.json is not readable now");
        }
        let names = found.blocks.keys().chain(found.partial.keys()).chain(found.corrupt.keys());
        let names = names.chain(found.failed.keys()).copied().collect();
        self.write_index(&found, now_ms).await;
        let found = Arc::new(found);
        *self.last.lock() = Some(Last { found: found.clone(), names, at: began });
        let view = View::new(found, &self.config, now_ms);
        self.metrics.synced(&view);
        self.metrics.sync_duration.observe(began.elapsed().as_secs_f64());
        Ok(view)
    }

    /// A short look, and a full one if that shows something new. The flag tells whether it was full.
    pub async fn sync_if_changed(&self) -> Result<(View, bool)> {
        let known = self.last.lock().as_ref().and_then(|last| {
            let f = &last.found;
            let settled = f.partial.is_empty() && f.failed.is_empty() && f.unsure.is_empty();
            (settled && last.at.elapsed() < FULL_EVERY).then(|| (f.clone(), last.names.clone()))
        });
        if let Some((found, names)) = known {
            let dirs = self.bucket.list_dirs("").await.map_err(Error::from)?;
            let listed: BTreeSet<BlockId> = dirs.iter().filter_map(|dir| dir.parse().ok()).collect();
            if listed == names {
                let now_ms = self.clock.now_ms();
                // The same blocks are there, so what is known of them may be called new.
                self.write_index(&found, now_ms).await;
                return Ok((View::new(found, &self.config, now_ms), false));
            }
        }
        Ok((self.sync().await?, true))
    }

    /// Tells readers what was found, if it is time. One that fails costs them a listing and is tried again at the next look.
    async fn write_index(&self, found: &FetchResult, listed_at_ms: i64) {
        match self.index.update(found, listed_at_ms).await {
            Ok(None) => {}
            Ok(Some(bytes)) => tracing::debug!(role = "compact", bytes, "bucket index written"),
            Err(err) => tracing::warn!(role = "compact", err = err.chain(), "bucket index not written"),
        }
    }

    /// Forgets what it knows, so that the next look is a full one.
    pub fn forget(&self) {
        *self.last.lock() = None;
    }

    /// What the last full look found, if it is not older than `age_max`.
    pub fn recent(&self, age_max: Duration) -> Option<View> {
        let found = self.last.lock().as_ref().filter(|l| l.at.elapsed() <= age_max)?.found.clone();
        Some(View::new(found, &self.config, self.clock.now_ms()))
    }
}
