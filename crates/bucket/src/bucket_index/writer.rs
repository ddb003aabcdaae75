//! Writing the bucket index: when something changed, and from time to time so that readers see that somebody does.

use std::hash::{DefaultHasher, Hash, Hasher};

use chronolith_objstore::Bucket;
use parking_lot::Mutex;

use super::BucketIndex;
use crate::{FetchResult, Result};

/// An unchanged index is written again after so long: well before readers call it old, seldom enough to cost nothing.
const REWRITE_MS: i64 = 20 * 60_000;

/// Writes the index after listings. One a process; several processes may write the same bucket's.
#[derive(Debug)]
pub struct BucketIndexWriter {
    bucket: Bucket,
    last: Mutex<Option<(u64, i64)>>,
}

impl BucketIndexWriter {
    /// A writer that has written nothing yet.
    pub fn new(bucket: Bucket) -> Self {
        BucketIndexWriter { bucket, last: Mutex::default() }
    }

    /// Writes the index of what a fetch found that began at `listed_at_ms` and left nothing out, if it is due. The size
    /// in bytes when it was written.
    pub async fn update(&self, found: &FetchResult, listed_at_ms: i64) -> Result<Option<u64>> {
        let digest = digest(found);
        let due = self.last.lock().is_none_or(|(before, at)| {
            before != digest || listed_at_ms.saturating_sub(at) >= REWRITE_MS || listed_at_ms < at
        });
        if !due {
            return Ok(None);
        }
        let size = BucketIndex::from_found(found, listed_at_ms)?.write(&self.bucket).await?;
        *self.last.lock() = Some((digest, listed_at_ms));
        Ok(Some(size))
    }
}

/// Blocks never change, so their names and marks tell everything.
fn digest(found: &FetchResult) -> u64 {
    let mut hasher = DefaultHasher::new();
    for id in found.blocks.keys().chain(found.failed.keys()).chain(found.corrupt.keys()) {
        id.hash(&mut hasher);
        found.marks.get(id).map(|m| m.deletion_time).hash(&mut hasher);
        found.unsure.contains(id).hash(&mut hasher);
    }
    hasher.finish()
}
