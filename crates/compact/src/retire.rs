//! What is out of retention goes: blocks are marked, and those of which only some series go are rewritten.
//!
//! A rewrite works under the lease of the block's group. Blocks that were looked through without finding a series that goes, or that are
//! damaged, are remembered for as long as the process lives, so they are downloaded once a rule.

use std::sync::Arc;

use chronolith_bucket::{DeletionMark, Error};
use chronolith_tsdb::block::BlockMeta;

use crate::compactor::{Compactor, Outcome};
use crate::group::GroupKey;
use crate::job::{DELETION_MARK, JobError};
use crate::lease::Lease;
use crate::metrics::REASON_RETENTION;
use crate::replace::{Replaced, Why, replace};
use crate::retention::{Expired, Verdict};
use crate::rewrite::take_out;
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
            Verdict::Rewrite(expired) => match step(c, view, &meta, expired).await {
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
async fn step(
    c: &Compactor,
    view: &View,
    meta: &Arc<BlockMeta>,
    expired: Expired,
) -> Result<Outcome, JobError> {
    // With its replica labels.
    let Some(original) = view.found.blocks.get(&meta.ulid) else { return Ok(Outcome::Nothing) };
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
        done = work(c, &key, original, expired, &lease) => done,
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
    let why = Why {
        reason: REASON_RETENTION,
        some: "without series out of retention",
        all: "every series is out of retention",
    };
    let replaced =
        replace(c, key, meta, lease, why, move |input, parent, id| take_out(&expired, input, parent, id));
    Ok(replaced.await? != Replaced::Unchanged)
}
