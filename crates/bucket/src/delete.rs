//! Deleting blocks, and when it is time to.
//!
//! meta.json goes first, so that nobody starts to read what is going away; the deletion mark goes last, so that an
//! interrupted deletion is found again. In between the block is a partial one with a mark.
//!
//! Everybody who deletes goes by [`Cleaning`]: marked blocks after a delay, and partial ones of which nothing was written for
//! so long that their upload has stopped. What is decided by an older listing is looked at again before anything goes. An upload
//! that goes on after all writes anew what is old ([`crate::upload_block`]), so only an upload and a deletion that begin in the
//! same moments can meet; the uploader looks for its files once more after meta.json, and writes what is missing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chronolith_model::BlockId;
use chronolith_objstore::{Bucket, ObjectInfo};
use futures::TryStreamExt;

use crate::{DeletionMark, Result, layout};

/// Age of the newest object at which an upload without meta.json counts as stopped; Thanos's.
pub const PARTIAL_UPLOAD_AGE: Duration = Duration::from_secs(48 * 3600);

/// Rules by which blocks are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleaning {
    /// Between the mark and the deletion of a block, milliseconds.
    pub delete_delay_ms: i64,
    /// Since the newest object of an upload without meta.json was written, milliseconds.
    pub partial_age_ms: i64,
}

impl Cleaning {
    /// The rules with this delay.
    pub fn after(delete_delay_ms: i64) -> Self {
        Cleaning { delete_delay_ms, partial_age_ms: PARTIAL_UPLOAD_AGE.as_millis() as i64 }
    }

    /// True when it is time for a marked block.
    pub fn is_due(&self, mark: &DeletionMark, now_ms: i64) -> bool {
        now_ms.saturating_sub(mark.deletion_time.saturating_mul(1000)) >= self.delete_delay_ms
    }

    /// True when an upload whose newest object is of `last_modified` has stopped.
    pub fn is_stopped(&self, last_modified: SystemTime, now_ms: i64) -> bool {
        let modified = last_modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_sub(modified_ms) > self.partial_age_ms
    }

    /// Deletes a block if its mark, read again, is due: one that was taken back in the meantime holds. True when it went.
    pub async fn delete_marked(&self, bucket: &Bucket, block: BlockId, now_ms: i64) -> Result<bool> {
        match DeletionMark::read(bucket, block).await? {
            Some(mark) if self.is_due(&mark, now_ms) => {
                delete_block(bucket, block).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Deletes what is left of an upload if it has still stopped: no meta.json, nothing new. True when it went.
    pub async fn delete_stopped(&self, bucket: &Bucket, block: BlockId, now_ms: i64) -> Result<bool> {
        let objects: Vec<ObjectInfo> = bucket.list(&block.to_string()).try_collect().await?;
        let whole = objects.iter().any(|o| o.key == layout::key(block, layout::META));
        if whole || objects.is_empty() || !objects.iter().all(|o| self.is_stopped(o.last_modified, now_ms)) {
            return Ok(false);
        }
        // What came since stays.
        delete_objects(bucket, block, &objects).await?;
        Ok(true)
    }
}

/// Deletes a block. One that is partly or wholly gone already is finished off.
pub async fn delete_block(bucket: &Bucket, block: BlockId) -> Result<()> {
    bucket.delete(&layout::key(block, layout::META)).await?;
    let objects: Vec<ObjectInfo> = bucket.list(&block.to_string()).try_collect().await?;
    delete_objects(bucket, block, &objects).await
}

/// Deletes these objects of a block, the deletion mark last.
async fn delete_objects(bucket: &Bucket, block: BlockId, objects: &[ObjectInfo]) -> Result<()> {
    let mark = layout::key(block, layout::DELETION_MARK);
    for object in objects.iter().filter(|o| o.key != mark) {
        bucket.delete(&object.key).await?;
    }
    bucket.delete(&mark).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopped_uploads_go_and_those_that_went_on_stay() {
        let bucket = Bucket::in_memory();
        let id: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let put = async |file| bucket.put(&layout::key(id, file), "x".into()).await.unwrap();
        put("chunks/000001").await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let rules = Cleaning::after(0);
        let hours = |n: i64| now + n * 3_600_000;
        assert!(!rules.delete_stopped(&bucket, id, hours(47)).await.unwrap(), "it may go on");
        put(layout::META).await;
        assert!(!rules.delete_stopped(&bucket, id, hours(49)).await.unwrap(), "it is whole");
        bucket.delete(&layout::key(id, layout::META)).await.unwrap();
        assert!(rules.delete_stopped(&bucket, id, hours(49)).await.unwrap());
        assert!(!rules.delete_stopped(&bucket, id, hours(49)).await.unwrap(), "nothing is there");
        assert!(!bucket.exists(&layout::key(id, "chunks/000001")).await.unwrap());
    }

    #[tokio::test]
    async fn marks_are_read_again() {
        let bucket = Bucket::in_memory();
        let id: BlockId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        bucket.put(&layout::key(id, layout::META), "x".into()).await.unwrap();
        let rules = Cleaning::after(1000);
        assert!(!rules.delete_marked(&bucket, id, 9000).await.unwrap(), "no mark");
        DeletionMark::write(&bucket, id, 5000, "").await.unwrap();
        assert!(!rules.delete_marked(&bucket, id, 5999).await.unwrap());
        assert!(rules.delete_marked(&bucket, id, 6000).await.unwrap());
        assert!(!bucket.exists(&layout::key(id, layout::META)).await.unwrap());
        assert!(!bucket.exists(&layout::key(id, layout::DELETION_MARK)).await.unwrap());
    }
}
