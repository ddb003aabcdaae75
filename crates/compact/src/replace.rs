//! One block of the bucket replaced by a rewritten one, or by nothing.
//!
//! ```text
//! reserve disk ─ download ─ rewrite ─ verify ─ is the lease in force, is the block still there? ─ upload ─ seen whole ─ mark the block
//! ```
//!
//! A crash before the upload's meta.json leaves a partial block, which cleaning removes. A crash after it leaves both blocks: the
//! next iteration merges them, as they overlap, and what was to go goes in that merge or in a rewrite after it. Two workers that do
//! the same make two blocks of equal sources, of which one is collected as a duplicate.

use std::path::Path;
use std::sync::Arc;

use chronolith_bucket::{DeletionMark, carry_marks};
use chronolith_model::BlockId;
use chronolith_tsdb::block::BlockMeta;
use chronolith_tsdb::merge::MergeError;

use crate::compactor::Compactor;
use crate::group::GroupKey;
use crate::job::{self, DELETION_MARK, JobError};
use crate::lease::Lease;
use crate::rewrite::Rewritten;

/// What the mark of the block says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    /// Label of the metric of marks.
    pub(crate) reason: &'static str,
    /// Behind "rewritten as …".
    pub(crate) some: &'static str,
    /// Where nothing is left.
    pub(crate) all: &'static str,
}

/// What became of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// Nothing of it had to go.
    Unchanged,
    /// It is marked, and what is left of it is in another block.
    Rewritten,
    /// It is marked, and nothing of it is left.
    Gone,
}

/// Replaces the block, which is given as it stands in the bucket, under the lease of its group. `rewrite` gets the block's
/// directory, the directory in which to make the new one, and its name.
pub(crate) async fn replace(
    c: &Compactor,
    key: &GroupKey,
    meta: &Arc<BlockMeta>,
    lease: &Lease,
    why: Why,
    rewrite: impl FnOnce(&Path, &Path, BlockId) -> Result<Rewritten, MergeError> + Send + 'static,
) -> Result<Replaced, JobError> {
    let inputs = [meta.clone()];
    job::still_valid(c, &inputs, lease).await?;
    let _space = job::reserve(c, &inputs).await?;
    let dir = c.work.job_dir(&format!("{}-{}", key.name(), meta.ulid))?;
    let input = job::download(c, &inputs, dir.path()).await?.remove(0);
    let (parent, id) = (dir.path().to_owned(), job::new_id(c.clock.now_ms(), [&meta.ulid]));
    let rewritten = job::blocking(move || {
        let rewritten = rewrite(&input, &parent, id).map_err(job::of_merge)?;
        if let Rewritten::Block(made) = &rewritten {
            let made = parent.join(made.ulid.to_string());
            chronolith_tsdb::block::verify_structure(&made).map_err(JobError::Result)?;
        }
        Ok(rewritten)
    })
    .await?;
    job::still_valid(c, &inputs, lease).await?;
    let (replaced, details) = match rewritten {
        Rewritten::Unchanged => return Ok(Replaced::Unchanged),
        Rewritten::Nothing => (Replaced::Gone, why.all.to_owned()),
        Rewritten::Block(made) => {
            carry_marks(&c.bucket, meta.ulid, made.ulid, c.clock.now_ms()).await?;
            let uploaded = job::upload(c, dir.path(), &made, lease).await?;
            if !c.cleaner.is_whole(uploaded.ulid).await? {
                return Err(JobError::Stale(format!("{} is not whole in the bucket", uploaded.ulid)));
            }
            (Replaced::Rewritten, format!("rewritten as {} {}", uploaded.ulid, why.some))
        }
    };
    if DeletionMark::write(&c.bucket, meta.ulid, c.clock.now_ms(), &details).await? {
        c.metrics.marked(DELETION_MARK, why.reason, 1);
    }
    tracing::info!(role = "compact", block = %meta.ulid, details, "block replaced");
    Ok(replaced)
}
