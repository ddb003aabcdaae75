//! Requests to delete series: applied to blocks that no compaction will take, and removed when nothing needs them.
//!
//! ```text
//! requests ─ old enough? ─ blocks that may hold something ─ lease ─ look into the index ─┬─ nothing: noted beside the request
//!                                                                                      └─ rewrite, mark the block
//! request ─ old enough, and no block left that may hold something? ─ looked again ─ removed
//! ```
//!
//! Merges apply all requests to what they merge anyway ([`crate::rewrite::delete_from_inputs`]); this is for the others. An iteration
//! rewrites a bounded number of blocks, oldest first, and the next one goes on. Everything is written down in the bucket (what was
//! applied, in the blocks' meta.json; where nothing was found, in [`Looked`]), so a crash anywhere costs a repetition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chronolith_bucket::deletions::{Deletion, Looked};
use chronolith_bucket::{
    BucketBlock, DeletionRequest, Deletions, Error, ErrorKind, FetchResult, Mask, SelectRequest,
};
use chronolith_model::BlockId;
use chronolith_tsdb::block::BlockMeta;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::compactor::{Compactor, Outcome};
use crate::config::ms;
use crate::group::GroupKey;
use crate::job::{self, JobError, REASON_DAMAGED};
use crate::lease::Lease;
use crate::metrics::REASON_DELETED;
use crate::replace::{Replaced, Why, replace};
use crate::rewrite::{of_requests, rewrite_block};
use crate::sync::View;

/// Between looks at the requests where nothing was left to do: their ages are counted in days.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What is known of the requests from one iteration to the next.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// When nothing was left to do.
    idle_since: Mutex<Option<Instant>>,
    looked: Mutex<BTreeMap<BlockId, Looked>>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Blocks rewritten or marked.
    pub(crate) rewritten: usize,
    /// Requests removed.
    pub(crate) requests_retired: usize,
    pub(crate) failed: usize,
    /// Blocks whose groups other workers have.
    pub(crate) busy: usize,
    /// Of these, those whose workers may be dead.
    pub(crate) silent: usize,
}

/// Applies the requests that are due to what the last look found, and removes those that nothing needs.
pub(crate) async fn run(c: &Compactor, view: &View) -> Result<Done, Error> {
    let every = LOOK_EVERY.min(c.config.deletion_grace);
    if c.deletion.idle_since.lock().is_some_and(|at| at.elapsed() < every) {
        return Ok(Done::default());
    }
    let deletions = Deletions::read(&c.bucket).await?;
    c.metrics.deletion_requests.set(deletions.all.len() as i64);
    learn(c, &deletions).await?;
    let mut done = Done::default();
    let (left, blocks) = apply(c, view, &deletions, &mut done).await;
    c.metrics.deletion_blocks.set(blocks as i64);
    if c.stop.is_cancelled() {
        return Ok(done);
    }
    done.requests_retired = retire(c, view, &deletions).await?;
    *c.deletion.idle_since.lock() = (!left).then(Instant::now);
    Ok(done)
}

/// Reads what workers found out about requests that are new here, and forgets those that are gone.
async fn learn(c: &Compactor, deletions: &Deletions) -> Result<(), Error> {
    c.deletion.looked.lock().retain(|id, _| deletions.all.iter().any(|d| d.id == *id));
    for deletion in &deletions.all {
        if !c.deletion.looked.lock().contains_key(&deletion.id) {
            let looked = Looked::read(&c.bucket, deletion.id).await?;
            c.deletion.looked.lock().insert(deletion.id, looked);
        }
    }
    Ok(())
}

fn is_looked(c: &Compactor, request: BlockId, block: BlockId) -> bool {
    c.deletion.looked.lock().get(&request).is_some_and(|l| l.blocks.contains(&block))
}

/// True when the request may concern the block, for all that is known.
fn needs(c: &Compactor, deletion: &Deletion, meta: &BlockMeta) -> bool {
    !is_looked(c, deletion.id, meta.ulid) && deletion.concerns(meta)
}

/// Rewrites what is due. Gives whether something is left, and the number of blocks that wait for a request, due or not.
async fn apply(c: &Compactor, view: &View, deletions: &Deletions, done: &mut Done) -> (bool, usize) {
    let now_ms = c.clock.now_ms();
    let is_due = |d: &Deletion| now_ms.saturating_sub(d.request.created) >= ms(c.config.deletion_grace);
    // A run that ends does all there is; one that goes on lets compactions in between.
    let most = if c.config.wait { c.config.deletion_rewrites_max } else { usize::MAX };
    let (mut left, mut waiting) = (false, 0);
    // With their replica labels, which a request may name.
    let mut blocks: Vec<_> = view.blocks.keys().filter_map(|id| view.found.blocks.get(id)).collect();
    blocks.sort_by_key(|meta| (meta.min_time, meta.ulid));
    for meta in blocks {
        let of_block: Vec<Deletion> = deletions.all.iter().filter(|d| needs(c, d, meta)).cloned().collect();
        waiting += usize::from(!of_block.is_empty());
        let due = Deletions { all: of_block.into_iter().filter(is_due).collect() };
        let damaged = view.found.no_compact.get(&meta.ulid).is_some_and(|m| m.reason == REASON_DAMAGED);
        if due.is_empty() || damaged || c.config.deletion_rewrites_max == 0 || c.stop.is_cancelled() {
            continue;
        }
        if done.rewritten + done.failed >= most {
            left = true;
            continue;
        }
        let Some(known) = view.blocks.get(&meta.ulid) else { continue };
        match step(c, &GroupKey::of(known), meta, &due).await {
            Ok(Ok(Replaced::Unchanged)) => {}
            Ok(Ok(_)) => {
                c.metrics.deletion_rewrites.inc();
                done.rewritten += 1;
            }
            Ok(Err(busy)) => {
                done.busy += 1;
                done.silent += usize::from(busy == Outcome::Busy { alive: false });
                left = true;
            }
            // Another worker was at it.
            Err(JobError::Stale(_) | JobError::Lost) => left = true,
            Err(JobError::BadBlock { block, reason, source }) => {
                c.exclude(block, reason, source.as_ref()).await;
                done.failed += 1;
            }
            Err(err) => {
                let err = err.chain();
                tracing::error!(role = "compact", block = %meta.ulid, err, "deleted series stay in the block, masked");
                done.failed += 1;
                left = true;
            }
        }
    }
    (left, waiting)
}

/// Looks into a block and rewrites it where a request finds something; the inner error tells that another worker has its group.
async fn step(
    c: &Compactor,
    key: &GroupKey,
    meta: &Arc<BlockMeta>,
    due: &Deletions,
) -> Result<Result<Replaced, Outcome>, JobError> {
    let lease = match c.claim(&key.name(), &format!("delete series {}", meta.ulid)).await? {
        Ok(lease) => lease,
        Err(busy) => return Ok(Err(busy)),
    };
    let result = tokio::select! {
        done = work(c, key, meta, due, &lease) => done,
        () = c.stop.cancelled() => Err(JobError::Lost),
    };
    lease.release().await;
    if let Ok(Replaced::Unchanged) = result {
        note(c, meta.ulid, due).await?;
    }
    result.map(Ok)
}

async fn work(
    c: &Compactor,
    key: &GroupKey,
    meta: &Arc<BlockMeta>,
    due: &Deletions,
    lease: &Lease,
) -> Result<Replaced, JobError> {
    let Some(mask) = due.mask_of(meta) else { return Ok(Replaced::Unchanged) };
    job::still_valid(c, std::slice::from_ref(meta), lease).await?;
    if !finds(c, key, meta, &mask).await? {
        return Ok(Replaced::Unchanged);
    }
    let why =
        Why { reason: REASON_DELETED, some: "without deleted series", all: "all of its samples are deleted" };
    let due = due.clone();
    let rewrite = move |input: &std::path::Path, parent: &std::path::Path, id| {
        let deleted = |labels: &chronolith_model::Labels| mask.deleted(labels);
        rewrite_block(input, parent, id, &of_requests(&mask, &deleted, &due))
    };
    replace(c, key, meta, lease, why, rewrite).await
}

/// True when the index has a series that the mask takes something from. Reads ranges of the index, not the block.
async fn finds(c: &Compactor, key: &GroupKey, meta: &Arc<BlockMeta>, mask: &Mask) -> Result<bool, JobError> {
    let dir = c.work.job_dir(&format!("{}-{}-index", key.name(), meta.ulid))?;
    let of_block = |e: Error| match e.kind() {
        ErrorKind::Corrupt => {
            JobError::BadBlock { block: meta.ulid, reason: REASON_DAMAGED, source: Box::new(e) }
        }
        ErrorKind::NotFound => JobError::Stale(e.chain()),
        _ => e.into(),
    };
    let block = BucketBlock::new(c.bucket.clone(), meta.clone(), dir.path()).map_err(of_block)?;
    let block = Arc::new(block);
    for (selector, range) in mask.rules() {
        let select = SelectRequest { skip_chunks: true, ..SelectRequest::new(selector.to_vec(), range) };
        if block.select(select).try_next().await.map_err(of_block)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes that the requests find nothing in the block.
async fn note(c: &Compactor, block: BlockId, due: &Deletions) -> Result<(), JobError> {
    for deletion in &due.all {
        // What others noted since is read again.
        let mut looked = Looked::read(&c.bucket, deletion.id).await?;
        looked.blocks.insert(block);
        looked.write(&c.bucket, deletion.id).await?;
        c.deletion.looked.lock().insert(deletion.id, looked);
    }
    Ok(())
}

/// Removes the requests that are old and that no block needs. Gives their number.
async fn retire(c: &Compactor, view: &View, deletions: &Deletions) -> Result<usize, Error> {
    let (keep_ms, now_ms) = (ms(c.config.deletion_keep), c.clock.now_ms());
    let is_old = |d: &&Deletion| keep_ms > 0 && now_ms.saturating_sub(d.request.created) >= keep_ms;
    let unneeded = |found: &FetchResult, d: &Deletion| {
        // Nobody knows what an upload under way holds, nor a block whose meta.json cannot be read now. Marked blocks may
        // still be read.
        found.partial.is_empty()
            && found.failed.is_empty()
            && !found.blocks.values().any(|meta| needs(c, d, meta))
    };
    let over: Vec<&Deletion> =
        deletions.all.iter().filter(is_old).filter(|d| unneeded(&view.found, d)).collect();
    if over.is_empty() {
        return Ok(0);
    }
    // What came since the iteration began counts.
    let fresh = c.syncer.sync().await?;
    let mut retired = 0;
    for deletion in over.into_iter().filter(|d| unneeded(&fresh.found, d)) {
        if DeletionRequest::revoke(&c.bucket, deletion.id).await? {
            let selectors = deletion.request.selector_texts().join(" ");
            tracing::info!(role = "compact", request = %deletion.id, selectors, "request to delete series is done and removed");
            c.metrics.deletion_requests_retired.inc();
            retired += 1;
        }
    }
    Ok(retired)
}
