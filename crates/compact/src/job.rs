//! One compaction: the blocks of a plan become one.
//!
//! ```text
//! reserve disk ─ download ─ merge ─ verify ─ is the lease in force, are the inputs still there? ─ upload ─ seen whole ─ mark inputs
//! ```
//!
//! A crash before the upload's meta.json leaves a partial block, which cleaning removes; after it, a block that covers its
//! inputs, which garbage collection marks. The inputs are marked only after the bucket showed the result whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_bucket::{
    DeletionMark, Deletions, ErrorKind, NoCompactMark, UploadOptions, download_block, layout, upload_block,
};
use chronolith_model::BlockId;
use chronolith_tsdb::block::{BlockMeta, ThanosMeta, verify_structure};
use chronolith_tsdb::merge::{IndexLimits, MergeError, MergeOptions, index_health, merge_blocks};
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::compactor::Compactor;
use crate::group::GroupKey;
use crate::lease::Lease;
use crate::metrics::REASON_COMPACTED;
use crate::parts::SplitPart;
use crate::plan::Plan;
use crate::work::WorkError;

/// Name of the file of a deletion mark, as a label.
pub(crate) const DELETION_MARK: &str = "deletion-mark.json";
/// The same of a no-compact mark.
pub(crate) const NO_COMPACT_MARK: &str = "no-compact-mark.json";

/// Reasons of no-compact marks; the first two are Thanos's.
pub(crate) const REASON_INDEX_SIZE: &str = "index-size-exceeding";
pub(crate) const REASON_OUT_OF_ORDER: &str = "block-index-out-of-order-chunk";
pub(crate) const REASON_DAMAGED: &str = "block-damaged";

/// What a result needs on disk beside its inputs' size once more: spills, and what is rounded up.
const SPARE_BYTES: u64 = 64 << 20;

/// Why a job did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The bucket is no longer as it was when the job was planned.
    #[error("the blocks changed meanwhile: {0}")]
    Stale(String),
    /// Another worker has the lease.
    #[error("the lease was lost")]
    Lost,
    /// One block is to blame, for good: it is to be left out from now on.
    #[error("block {block}")]
    BadBlock {
        /// The block.
        block: BlockId,
        /// The reason that its mark gets.
        reason: &'static str,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bucket failed; later it may work.
    #[error(transparent)]
    Bucket(#[from] chronolith_bucket::Error),
    /// The work directory failed or is too small.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// Anything else.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The result is not sound.
    #[error("the result")]
    Result(#[source] chronolith_tsdb::Error),
}

impl JobError {
    /// The text with all causes.
    pub fn chain(&self) -> String {
        chronolith_service::exit::error_chain(self)
    }
}

impl From<chronolith_objstore::BucketError> for JobError {
    fn from(e: chronolith_objstore::BucketError) -> Self {
        JobError::Bucket(e.into())
    }
}

/// What a job made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made {
    pub(crate) blocks: Vec<BlockMeta>,
    pub(crate) samples: u64,
}

/// Runs a plan under a lease.
pub(crate) async fn compact(
    c: &Compactor,
    key: &GroupKey,
    plan: &Plan,
    lease: &Lease,
) -> Result<Made, JobError> {
    let _space = reserve(c, &plan.blocks).await?;
    let dir = c.work.job_dir(&key.name())?;
    let inputs = download(c, &plan.blocks, dir.path()).await?;
    let deletions = deletions(c).await;
    let sources = crate::group::ids(&plan.blocks);
    let merged = merge(c, key, (inputs, sources), deletions, dir.path(), lease).await?;
    still_valid(c, &plan.blocks, lease).await?;
    let made = publish(c, merged, &plan.blocks, dir.path(), lease).await?;
    for meta in &made.blocks {
        if !c.cleaner.is_whole(meta.ulid).await? {
            return Err(JobError::Stale(format!("the result {} is not whole in the bucket", meta.ulid)));
        }
    }
    mark_sources(c, &crate::group::ids(&plan.blocks), &made.blocks).await?;
    Ok(made)
}

/// Twice what the inputs take, since the result is at most as large as all of them.
pub(crate) async fn reserve(
    c: &Compactor,
    blocks: &[Arc<BlockMeta>],
) -> Result<crate::work::Reservation, JobError> {
    let mut bytes = 0u64;
    for meta in blocks {
        let listed: u64 = meta.thanos.iter().flat_map(|t| &t.files).map(|f| f.size_bytes).sum();
        bytes += if listed > 0 {
            listed
        } else {
            let objects: Vec<_> = c.bucket.list(&meta.ulid.to_string()).try_collect().await?;
            objects.iter().map(|o| o.size).sum()
        };
    }
    Ok(c.work.reserve(bytes.saturating_mul(2).saturating_add(SPARE_BYTES))?)
}

/// Downloads blocks below `dir` and gives their directories.
pub(crate) async fn download(
    c: &Compactor,
    blocks: &[Arc<BlockMeta>],
    dir: &Path,
) -> Result<Vec<PathBuf>, JobError> {
    let downloads = futures::stream::iter(blocks.to_vec()).map(|meta| {
        async move {
            let to = dir.join(meta.ulid.to_string());
            match download_block(&c.bucket, &meta, &to, c.config.files_concurrency).await {
                Ok(_) => Ok(to),
                Err(e) if e.kind() == ErrorKind::NotFound => Err(JobError::Stale(e.chain())),
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    Err(JobError::BadBlock { block: meta.ulid, reason: REASON_DAMAGED, source: Box::new(e) })
                }
                Err(e) => Err(e.into()),
            }
        }
        .boxed()
    });
    downloads.buffered(c.config.blocks_fetch_concurrency.max(1)).try_collect().await
}

async fn merge(
    c: &Compactor,
    key: &GroupKey,
    (inputs, sources): (Vec<PathBuf>, Vec<BlockId>),
    deletions: Deletions,
    dir: &Path,
    lease: &Lease,
) -> Result<Vec<BlockMeta>, JobError> {
    let thanos = ThanosMeta {
        version: 1,
        labels: key.labels.clone(),
        downsample: chronolith_tsdb::block::Downsample { resolution: key.resolution_ms },
        source: "compactor".to_owned(),
        ..ThanosMeta::default()
    };
    let limits = IndexLimits {
        index_bytes_max: c.config.index_bytes_max.min(IndexLimits::default().index_bytes_max),
        ..IndexLimits::default()
    };
    let mut options = MergeOptions {
        deduplication: c.config.deduplication,
        limits,
        sync: false,
        thanos: Some(thanos),
        stop: lease.lost(),
        ..MergeOptions::default()
    };
    let (dir, skip, clock) = (dir.to_owned(), c.config.skip_out_of_order, c.clock.clone());
    let merged = blocking(move || {
        if skip {
            for input in &inputs {
                check_order(input)?;
            }
        }
        if let Some(thanos) = &mut options.thanos {
            crate::rewrite::delete_from_inputs(&inputs, &deletions, thanos).map_err(of_merge)?;
        }
        let mut new_id = || new_id(clock.now_ms(), &sources);
        let merged = merge_blocks(&inputs, &dir, &mut new_id, &options).map_err(of_merge)?;
        for meta in &merged {
            verify_structure(&dir.join(meta.ulid.to_string())).map_err(JobError::Result)?;
        }
        Ok(merged)
    })
    .await;
    // What a lost lease stopped failed for no other reason.
    if lease.lost().load(std::sync::atomic::Ordering::SeqCst) { Err(JobError::Lost) } else { merged }
}

/// The requests to delete series. Without them blocks are merged as they are, and readers go on to leave out what is deleted.
async fn deletions(c: &Compactor) -> Deletions {
    Deletions::read(&c.bucket).await.unwrap_or_else(|err| {
        tracing::warn!(
            role = "compact",
            err = err.chain(),
            "deletion requests not readable, not applied now"
        );
        Deletions::default()
    })
}

fn check_order(input: &Path) -> Result<(), JobError> {
    let meta = BlockMeta::read(input).map_err(JobError::Result)?;
    let bad = |reason, source: chronolith_tsdb::Error| JobError::BadBlock {
        block: meta.ulid,
        reason,
        source: Box::new(source),
    };
    let health = index_health(input).map_err(|e| bad(REASON_DAMAGED, e))?;
    if health.out_of_order_chunks > 0 {
        let what = format!("{} of {} chunks are out of order", health.out_of_order_chunks, health.chunks);
        return Err(bad(REASON_OUT_OF_ORDER, chronolith_tsdb::Error::Invalid(what)));
    }
    Ok(())
}

/// What is damaged or cannot be merged stays so; what the disk did to us does not.
pub(crate) fn of_merge(e: MergeError) -> JobError {
    use chronolith_tsdb::ErrorKind as K;
    match (e.block, e.source.kind()) {
        (Some(block), K::Corrupt | K::Invalid | K::NotFound) => {
            JobError::BadBlock { block, reason: REASON_DAMAGED, source: Box::new(e.source) }
        }
        _ => JobError::Merge(e),
    }
}

/// The name of a block that stands for others: no older than theirs, whatever our clock says. Readers list the newest blocks and take
/// older ones from the bucket index, so who sees that the sources went must see this one as well.
pub(crate) fn new_id<'a>(now_ms: i64, sources: impl IntoIterator<Item = &'a BlockId>) -> BlockId {
    let newest = sources.into_iter().map(|id| id.0.timestamp_ms()).max().unwrap_or(0);
    BlockId(ulid::Ulid::from_parts(now_ms.max(0).unsigned_abs().max(newest), rand::random()))
}

/// The last look before a result becomes visible: what was deleted or marked meanwhile must not come back in it.
pub(crate) async fn still_valid(
    c: &Compactor,
    inputs: &[Arc<BlockMeta>],
    lease: &Lease,
) -> Result<(), JobError> {
    for meta in inputs {
        if !c.bucket.exists(&layout::key(meta.ulid, layout::META)).await? {
            return Err(JobError::Stale(format!("{} is gone", meta.ulid)));
        }
        if DeletionMark::read(&c.bucket, meta.ulid).await?.is_some() {
            return Err(JobError::Stale(format!("{} is marked for deletion", meta.ulid)));
        }
    }
    if lease.in_force().await? { Ok(()) } else { Err(JobError::Lost) }
}

async fn publish(
    c: &Compactor,
    mut merged: Vec<BlockMeta>,
    inputs: &[Arc<BlockMeta>],
    dir: &Path,
    lease: &Lease,
) -> Result<Made, JobError> {
    let mut made = Made::default();
    let (parts, first) = (merged.len(), merged.first().map(|m| m.ulid.to_string()).unwrap_or_default());
    for (i, meta) in merged.iter_mut().enumerate() {
        if parts > 1 {
            SplitPart { first: first.clone(), part: i + 1, parts }.put(meta);
            // Before the block is visible: nobody may put the parts together again.
            let details = format!("part {} of {parts}", i + 1);
            let now_ms = c.clock.now_ms();
            NoCompactMark::write(&c.bucket, meta.ulid, now_ms, &details, REASON_INDEX_SIZE).await?;
            c.metrics.marked(NO_COMPACT_MARK, REASON_INDEX_SIZE, 1);
            if i > 0 {
                still_valid(c, inputs, lease).await?;
            }
        }
        let uploaded = upload(c, dir, meta, lease).await?;
        made.samples += uploaded.stats.num_samples;
        made.blocks.push(uploaded);
    }
    Ok(made)
}

/// Uploads a block of a job, unless the lease is lost on the way.
pub(crate) async fn upload(
    c: &Compactor,
    dir: &Path,
    meta: &BlockMeta,
    lease: &Lease,
) -> Result<BlockMeta, JobError> {
    let options = UploadOptions { hash: c.config.hash, allow_no_labels: true };
    let dir = dir.join(meta.ulid.to_string());
    let uploading = upload_block(&c.bucket, &dir, meta, options, c.clock.now_ms());
    tokio::select! {
        uploaded = uploading => Ok(uploaded?),
        () = lease.until_lost() => Err(JobError::Lost),
    }
}

/// Marks what a result stands for.
pub(crate) async fn mark_sources(
    c: &Compactor,
    sources: &[BlockId],
    made: &[BlockMeta],
) -> Result<(), JobError> {
    let details = match made {
        [] => "source of a compaction that left no sample".to_owned(),
        [one] => format!("source of compacted block {}", one.ulid),
        [first, ..] => format!("source of compacted blocks {} and others", first.ulid),
    };
    for source in sources {
        if DeletionMark::write(&c.bucket, *source, c.clock.now_ms(), &details).await? {
            c.metrics.marked(DELETION_MARK, REASON_COMPACTED, 1);
        }
    }
    Ok(())
}

/// Runs long work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JobError> + Send + 'static,
) -> Result<T, JobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(JobError::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_no_older_than_its_sources() {
        let of = |ms: u64| BlockId(ulid::Ulid::from_parts(ms, 1));
        let made = |now_ms, sources: &[BlockId]| new_id(now_ms, sources).0.timestamp_ms();
        assert_eq!(made(9_000, &[of(1_000), of(5_000)]), 9_000);
        assert_eq!(made(2_000, &[of(1_000), of(5_000)]), 5_000, "our clock is behind");
        assert_eq!(made(-1, &[]), 0);
    }
}
