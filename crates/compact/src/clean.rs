//! What goes: marked blocks after their delay, blocks that others cover, uploads that stopped. When that is, and how blocks are
//! deleted, are the rules of [`Cleaning`], which `tools bucket cleanup` goes by as well.
//!
//! Each step can be repeated, by this process or by another one, and a crash in it leaves what the next round finishes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use chronolith_bucket::{Cleaning, DeletionMark, Result, is_uploaded};
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_service::Clock;
use parking_lot::Mutex;

use crate::CompactMetrics;
use crate::metrics::REASON_COVERED;
use crate::sync::View;

/// Deletes and marks.
#[derive(Debug)]
pub struct Cleaner {
    pub(crate) bucket: Bucket,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: CompactMetrics,
    pub(crate) rules: Cleaning,
    /// Blocks that were seen whole in the bucket; nothing changes in a block.
    pub(crate) seen_whole: Mutex<BTreeSet<BlockId>>,
}

impl Cleaner {
    /// Deletes the blocks whose mark is old enough, partial ones as well. Gives their number.
    pub async fn delete_marked(&self, view: &View) -> usize {
        self.metrics.cleanups.inc();
        let mut deleted = 0;
        let now_ms = self.clock.now_ms();
        let due =
            view.found.marks.iter().filter(|(_, mark)| self.rules.is_due(mark, now_ms)).map(|(id, _)| *id);
        for id in due.collect::<Vec<BlockId>>() {
            match self.rules.delete_marked(&self.bucket, id, now_ms).await {
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

    /// True when some mark of the view is due.
    pub fn has_due(&self, view: &View) -> bool {
        let now_ms = self.clock.now_ms();
        view.found.marks.values().any(|mark| self.rules.is_due(mark, now_ms))
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
        let now_ms = self.clock.now_ms();
        for (id, partial) in &view.found.partial {
            let stopped = self.rules.is_stopped(partial.last_modified, now_ms);
            if partial.marked || !stopped || view.found.unsure.contains(id) {
                continue;
            }
            self.metrics.partial_deletions.inc();
            match self.rules.delete_stopped(&self.bucket, *id, now_ms).await {
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
}
