//! Deleting a block.
//!
//! meta.json goes first, so that nobody starts to read what is going away; the deletion mark goes last, so that an
//! interrupted deletion is found again. In between the block is a partial one with a mark.

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use futures::TryStreamExt;

use crate::{Result, layout};

/// Deletes a block. One that is partly or wholly gone already is finished off.
pub async fn delete_block(bucket: &Bucket, block: BlockId) -> Result<()> {
    bucket.delete(&layout::key(block, layout::META)).await?;
    delete_partial_block(bucket, block).await
}

/// Deletes what is left of a block without meta.json: everything, the deletion mark last.
pub async fn delete_partial_block(bucket: &Bucket, block: BlockId) -> Result<()> {
    let mark = layout::key(block, layout::DELETION_MARK);
    let objects: Vec<_> = bucket.list(&block.to_string()).try_collect().await?;
    for object in objects.iter().filter(|o| o.key != mark) {
        bucket.delete(&object.key).await?;
    }
    bucket.delete(&mark).await?;
    Ok(())
}
