//! What goes: marked blocks after their delay, blocks that others cover, uploads that stopped.
//!
//! Each step can be repeated, by this process or by another one, and a crash in it leaves what the next round finishes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chronolith_bucket::{DeletionMark, Result, delete_block, delete_partial_block, is_uploaded, layout};
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_service::Clock;
use futures::TryStreamExt;
use parking_lot::Mutex;

use crate::CompactMetrics;
use crate::metrics::REASON_COVERED;
use crate::sync::View;

/// Age at which an upload without meta.json counts as stopped; Thanos's.
pub const PARTIAL_UPLOAD_AGE: Duration = Duration::from_secs(48 * 3600);

/// Deletes and marks.
#[derive(Debug)]
pub struct Cleaner {
    pub(crate) bucket: Bucket,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: CompactMetrics,
    pub(crate) delete_delay_ms: i64,
    /// Blocks that were seen whole in the bucket; nothing changes in a block.
    pub(crate) seen_whole: Mutex<BTreeSet<BlockId>>,
}

impl Cleaner {
    /// Deletes the blocks whose mark is old enough, partial ones as well. Gives their number.
    pub async fn delete_marked(&self, view: &View) -> usize {
        self.metrics.cleanups.inc();
        let mut deleted = 0;
        let now_ms = self.clock.now_ms();
        let due = view.found.marks.iter().filter(|(_, mark)| self.is_due(mark, now_ms)).map(|(id, _)| *id);
        for id in due.collect::<Vec<BlockId>>() {
            match self.delete_if_due(id, now_ms).await {
                Ok(false) => {}
                Ok(true) => {
                    deleted += 1;
                    self.metrics.blocks_cleaned.inc();
                    tracing::info!(role = "compact", block = %id, "marked block deleted");
                }
                Err(err) => {
                    self.metrics.cleanup_failures.inc();
                    tracing::warn!(role = "compact", block = %id, err = err.chain(), "marked block not deleted");
                }
            }
        }
        deleted
    }

    async fn delete_if_due(&self, id: BlockId, now_ms: i64) -> Result<bool> {
        // Read again: a mark that was taken back in the meantime holds.
        let Some(mark) = DeletionMark::read(&self.bucket, id).await? else { return Ok(false) };
        if !self.is_due(&mark, now_ms) {
            return Ok(false);
        }
        delete_block(&self.bucket, id).await?;
        Ok(true)
    }

    fn is_due(&self, mark: &DeletionMark, now_ms: i64) -> bool {
        now_ms.saturating_sub(mark.deletion_time.saturating_mul(1000)) >= self.delete_delay_ms
    }

    /// True when some mark of the view is due.
    pub fn has_due(&self, view: &View) -> bool {
        let now_ms = self.clock.now_ms();
        view.found.marks.values().any(|mark| self.is_due(mark, now_ms))
    }

    /// Marks the blocks that others cover, after these others were seen whole. Gives the number of new marks.
    pub async fn collect_garbage(&self, view: &View) -> usize {
        self.metrics.garbage_collections.inc();
        let began = Instant::now();
        let mut marked = 0;
        for (block, cover) in &view.covers {
            match self.collect(*block, *cover).await {
                Ok(new) => marked += usize::from(new),
                Err(err) => {
                    self.metrics.garbage_collection_failures.inc();
                    tracing::warn!(role = "compact", %block, %cover, err = err.chain(), "duplicate not marked");
                }
            }
        }
        self.metrics.garbage_collection_duration.observe(began.elapsed().as_secs_f64());
        marked
    }

    async fn collect(&self, block: BlockId, cover: BlockId) -> Result<bool> {
        if !self.is_whole(cover).await? {
            tracing::warn!(role = "compact", %block, %cover, "duplicate kept: the block that covers it is not whole");
            return Ok(false);
        }
        let details = format!("all of its sources are in {cover}");
        let new = DeletionMark::write(&self.bucket, block, self.clock.now_ms(), &details).await?;
        if new {
            self.metrics.garbage_collected.inc();
            self.metrics.marked("deletion-mark.json", REASON_COVERED, 1);
            tracing::info!(role = "compact", %block, %cover, "duplicate marked for deletion");
        }
        Ok(new)
    }

    /// True when the block is in the bucket with all of its files.
    pub async fn is_whole(&self, block: BlockId) -> Result<bool> {
        if self.seen_whole.lock().contains(&block) {
            return Ok(true);
        }
        let whole = is_uploaded(&self.bucket, block).await?;
        if whole {
            self.seen_whole.lock().insert(block);
        }
        Ok(whole)
    }

    /// Deletes what uploads left that stopped long ago. Those with a deletion mark go the way of all marked blocks.
    pub async fn delete_partial(&self, view: &View) -> usize {
        let mut deleted = 0;
        for (id, partial) in &view.found.partial {
            if partial.marked || !self.is_stopped(partial.last_modified) || view.found.unsure.contains(id) {
                continue;
            }
            self.metrics.partial_deletions.inc();
            match self.delete_if_partial(*id).await {
                Ok(false) => {}
                Ok(true) => {
                    deleted += 1;
                    self.metrics.blocks_cleaned.inc();
                    tracing::info!(role = "compact", block = %id, "stopped upload deleted");
                }
                Err(err) => {
                    self.metrics.cleanup_failures.inc();
                    tracing::warn!(role = "compact", block = %id, err = err.chain(), "stopped upload not deleted");
                }
            }
        }
        deleted
    }

    /// True when nothing was written for so long that the upload counts as stopped.
    fn is_stopped(&self, last_modified: SystemTime) -> bool {
        let modified = last_modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let age_ms =
            self.clock.now_ms().saturating_sub(i64::try_from(modified.as_millis()).unwrap_or(i64::MAX));
        age_ms > crate::config::ms(PARTIAL_UPLOAD_AGE)
    }

    async fn delete_if_partial(&self, id: BlockId) -> Result<bool> {
        // Looked at again: an upload may have gone on.
        let objects: Vec<_> = self.bucket.list(&id.to_string()).try_collect().await?;
        let whole = objects.iter().any(|o| o.key == layout::key(id, layout::META));
        if whole || !objects.iter().all(|o| self.is_stopped(o.last_modified)) {
            return Ok(false);
        }
        delete_partial_block(&self.bucket, id).await?;
        Ok(true)
    }
}
