//! What is out of retention goes: blocks are marked, and those of which only some series go are rewritten.
//!
//! A rewrite works under the lease of the block's group. Blocks that were looked through without finding a series that goes, or that are
//! damaged, are remembered for as long as the process lives, so they are downloaded once a rule.

use std::sync::Arc;

use chronolith_bucket::{DeletionMark, Error, carry_marks};
use chronolith_tsdb::block::BlockMeta;

use crate::compactor::{Compactor, Outcome};
use crate::group::GroupKey;
use crate::job::{self, DELETION_MARK, JobError};
use crate::lease::Lease;
use crate::metrics::REASON_RETENTION;
use crate::retention::{Expired, Verdict};
use crate::rewrite::{Rewritten, take_out};
use crate::sync::View;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Blocks marked or rewritten.
    pub(crate) changed: usize,
    pub(crate) failed: usize,
    /// Blocks left to other workers.
    pub(crate) busy: usize,
    /// Of these, those whose workers may be dead.
    pub(crate) silent: usize,
}

/// Applies the retention to what the last look found.
pub(crate) async fn run(c: &Compactor, view: &View) -> Result<Done, Error> {
    let mut done = Done::default();
    if c.config.retention.keeps_all() {
        return Ok(done);
    }
    let now_ms = c.clock.now_ms();
    let plan = c.config.retention.plan(view.blocks.values(), now_ms);
    let marks = plan.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Mark { .. })).count();
    c.metrics.todo_deletions.set(marks as i64);
    for (meta, verdict) in plan {
        if c.stop.is_cancelled() {
            break;
        }
        match verdict {
            Verdict::Keep => {}
            Verdict::Mark { why } => {
                if DeletionMark::write(&c.bucket, meta.ulid, now_ms, &why).await? {
                    c.metrics.marked(DELETION_MARK, REASON_RETENTION, 1);
                    tracing::info!(role = "compact", block = %meta.ulid, why, "block marked for deletion");
                    done.changed += 1;
                }
                c.metrics.todo_deletions.dec();
            }
            Verdict::Rewrite(expired) => match step(c, &meta, expired).await {
                Ok(Outcome::Changed { .. }) => done.changed += 1,
                Ok(Outcome::Busy { alive }) => {
                    done.busy += 1;
                    done.silent += usize::from(!alive);
                }
                Ok(_) => {}
                Err(JobError::Stale(_) | JobError::Lost) => {}
                Err(err) => {
                    tracing::error!(role = "compact", block = %meta.ulid, err = err.chain(), "series out of retention stay");
                    done.failed += 1;
                }
            },
        }
    }
    Ok(done)
}

/// Rewrites a block without the series that go, unless there are none, or another worker is at it.
async fn step(c: &Compactor, meta: &Arc<BlockMeta>, expired: Expired) -> Result<Outcome, JobError> {
    let looked = (meta.ulid, expired.name.clone());
    if c.retained.lock().contains(&looked) {
        return Ok(Outcome::Nothing);
    }
    let key = GroupKey::of(meta);
    let lease = match c.claim(&key.name(), &format!("retention {}", meta.ulid)).await? {
        Ok(lease) => lease,
        Err(busy) => return Ok(busy),
    };
    let result = tokio::select! {
        done = work(c, &key, meta, expired, &lease) => done,
        () = c.stop.cancelled() => Err(JobError::Lost),
    };
    lease.release().await;
    // Nor is a damaged block downloaded at each iteration, to fail again.
    if matches!(result, Ok(false) | Err(JobError::BadBlock { .. })) {
        c.retained.lock().insert(looked);
    }
    result.map(|changed| if changed { Outcome::Changed { compacted: false } } else { Outcome::Nothing })
}

async fn work(
    c: &Compactor,
    key: &GroupKey,
    meta: &Arc<BlockMeta>,
    expired: Expired,
    lease: &Lease,
) -> Result<bool, JobError> {
    let inputs = [meta.clone()];
    job::still_valid(c, &inputs, lease).await?;
    let _space = job::reserve(c, &inputs).await?;
    let dir = c.work.job_dir(&format!("{}-{}", key.name(), meta.ulid))?;
    let input = job::download(c, &inputs, dir.path()).await?.remove(0);
    let (parent, id) = (dir.path().to_owned(), job::new_id(c.clock.now_ms(), [&meta.ulid]));
    let rewritten = job::blocking(move || {
        let rewritten = take_out(&expired, &input, &parent, id)?;
        if let Rewritten::Block(made) = &rewritten {
            let made = parent.join(made.ulid.to_string());
            chronolith_tsdb::block::verify_structure(&made).map_err(JobError::Result)?;
        }
        Ok(rewritten)
    })
    .await?;
    job::still_valid(c, &inputs, lease).await?;
    let made = match rewritten {
        Rewritten::Unchanged => return Ok(false),
        Rewritten::Nothing => Vec::new(),
        Rewritten::Block(made) => {
            carry_marks(&c.bucket, meta.ulid, made.ulid, c.clock.now_ms()).await?;
            let uploaded = job::upload(c, dir.path(), &made, lease).await?;
            if !c.cleaner.is_whole(uploaded.ulid).await? {
                return Err(JobError::Stale(format!("{} is not whole in the bucket", uploaded.ulid)));
            }
            vec![uploaded]
        }
    };
    let details = match made.first() {
        Some(made) => format!("rewritten as {} without series out of retention", made.ulid),
        None => "every series is out of retention".to_owned(),
    };
    if DeletionMark::write(&c.bucket, meta.ulid, c.clock.now_ms(), &details).await? {
        c.metrics.marked(DELETION_MARK, REASON_RETENTION, 1);
    }
    tracing::info!(role = "compact", block = %meta.ulid, details, "series out of retention taken out");
    Ok(true)
}
