//! Which blocks are to be downsampled, and the job that does it.
//!
//! Raw blocks of 40 h and more get a block of five-minute aggregates, those of 10 d and more one of hours, once the sources of
//! a block are not all in blocks of the coarser resolution already. Each block has a lease of its own, so that several workers share a group.
//! Who compacts the block away meanwhile makes the job stale; the result has the block's sources, so a job done twice leaves a duplicate that is
//! collected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use chronolith_bucket::{Error, NoDownsampleMark};
use chronolith_model::{BlockId, Resolution};
use chronolith_tsdb::block::{Block, BlockMeta, BlockWriterOptions, verify_structure};
use futures::{FutureExt, StreamExt};

use crate::compactor::{Compactor, Outcome};
use crate::downsample::{downsample, next_resolution};
use crate::group::GroupKey;
use crate::job::{self, JobError, REASON_DAMAGED};
use crate::lease::Lease;
use crate::metrics::by;
use crate::rewrite::origins;
use crate::sync::View;

/// Shortest block that is downsampled, by its resolution; Thanos's.
const LENGTH_MIN_MS: [(Resolution, i64); 2] =
    [(Resolution::Raw, 40 * 3_600_000), (Resolution::FiveMinutes, 10 * 24 * 3_600_000)];

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) made: usize,
    pub(crate) failed: usize,
    pub(crate) busy: usize,
    pub(crate) silent: usize,
}

/// Downsamples what is due, raw blocks first. `view` becomes what the last look found.
pub(crate) async fn run(c: &Compactor, view: &mut View) -> Result<Done, Error> {
    let mut done = Done::default();
    for (resolution, length_min_ms) in LENGTH_MIN_MS {
        let due = due(view, resolution, length_min_ms);
        c.metrics.todo_downsamples.set(due.len() as i64);
        if due.is_empty() || c.stop.is_cancelled() {
            continue;
        }
        // Boxed: else the compiler cannot tell that the future may move between threads.
        let jobs = futures::stream::iter(due).map(|meta| async move { step(c, &meta).await }.boxed());
        let outcomes: Vec<Outcome> =
            jobs.buffer_unordered(c.config.downsample_concurrency.max(1)).collect().await;
        for outcome in outcomes {
            match outcome {
                Outcome::Changed { compacted } => done.made += usize::from(compacted),
                Outcome::Failed => done.failed += 1,
                Outcome::Busy { alive } => {
                    done.busy += 1;
                    done.silent += usize::from(!alive);
                }
                Outcome::Nothing | Outcome::Stale => {}
            }
        }
        *view = c.syncer.sync().await?;
    }
    c.metrics.todo_downsamples.set(0);
    Ok(done)
}

/// The blocks of a resolution that have no block of the next one.
fn due(view: &View, resolution: Resolution, length_min_ms: i64) -> Vec<Arc<BlockMeta>> {
    let Some(next) = next_resolution(resolution) else { return Vec::new() };
    let mut covered: BTreeMap<BTreeMap<String, String>, BTreeSet<BlockId>> = BTreeMap::new();
    for meta in view.blocks.values().filter(|m| m.resolution() == Some(next)) {
        let covered = covered.entry(GroupKey::of(meta).labels).or_default();
        covered.extend(&meta.compaction.sources);
        covered.extend(origins(meta));
    }
    let is_due = |m: &&Arc<BlockMeta>| {
        let covered = covered.get(&GroupKey::of(m).labels);
        m.resolution() == Some(resolution)
            && m.max_time - m.min_time >= length_min_ms
            && !view.found.no_downsample.contains_key(&m.ulid)
            && !covered.is_some_and(|covered| is_covered(m, covered))
    };
    view.blocks.values().filter(is_due).cloned().collect()
}

/// True when the data of all sources is downsampled, also where the block, or the coarser one, was rewritten since. A rewritten
/// block's sources have the times of those that they stand for.
fn is_covered(meta: &BlockMeta, covered: &BTreeSet<BlockId>) -> bool {
    let origins = origins(meta);
    let stands_for = |s: &BlockId| {
        let mut same_time = origins.iter().filter(|o| o.0.timestamp_ms() == s.0.timestamp_ms());
        same_time.any(|o| covered.contains(o))
    };
    meta.compaction.sources.iter().all(|s| covered.contains(s) || stands_for(s))
}

async fn step(c: &Compactor, meta: &Arc<BlockMeta>) -> Outcome {
    if c.stop.is_cancelled() {
        return Outcome::Nothing;
    }
    let key = GroupKey::of(meta);
    let resolution = by(key.resolution_ms);
    match try_step(c, &key, meta).await {
        Ok(outcome) => outcome,
        Err(JobError::Stale(why)) => {
            tracing::debug!(role = "compact", block = %meta.ulid, why, "not downsampled");
            Outcome::Stale
        }
        Err(JobError::Lost) => {
            c.metrics.leases_lost.inc();
            Outcome::Busy { alive: true }
        }
        Err(err) => {
            c.metrics.downsample_failures.get_or_create(&resolution).inc();
            let bad = matches!(err, JobError::BadBlock { .. });
            tracing::error!(role = "compact", block = %meta.ulid, err = err.chain(), "block not downsampled");
            if bad && mark(c, meta.ulid, &err.chain(), REASON_DAMAGED).await.is_ok() {
                return Outcome::Changed { compacted: false };
            }
            Outcome::Failed
        }
    }
}

async fn mark(c: &Compactor, block: BlockId, details: &str, reason: &'static str) -> Result<(), Error> {
    if NoDownsampleMark::write(&c.bucket, block, c.clock.now_ms(), details, reason).await? {
        c.metrics.marked("no-downsample-mark.json", reason, 1);
    }
    Ok(())
}

async fn try_step(c: &Compactor, key: &GroupKey, meta: &Arc<BlockMeta>) -> Result<Outcome, JobError> {
    let lease = match c.claim(&lease_name(meta.ulid), &format!("downsample {}", meta.ulid)).await? {
        Ok(lease) => lease,
        Err(outcome) => return Ok(outcome),
    };
    let result = tokio::select! {
        done = work(c, key, meta, &lease) => done,
        () = c.stop.cancelled() => Err(JobError::Lost),
    };
    match result {
        Ok(Outcome::Changed { .. }) => lease.finish().await,
        _ => lease.release().await,
    }
    result
}

/// The name of the lease of a block that is downsampled.
pub(crate) fn lease_name(block: BlockId) -> String {
    format!("block-{block}")
}

async fn work(
    c: &Compactor,
    key: &GroupKey,
    meta: &Arc<BlockMeta>,
    lease: &Lease,
) -> Result<Outcome, JobError> {
    let inputs = [meta.clone()];
    job::still_valid(c, &inputs, lease).await?;
    let began = Instant::now();
    let _space = job::reserve(c, &inputs).await?;
    let dir = c.work.job_dir(&format!("{}-{}", key.name(), meta.ulid))?;
    let input = job::download(c, &inputs, dir.path()).await?.remove(0);
    let (parent, lost, clock) = (dir.path().to_owned(), lease.lost(), c.clock.clone());
    let source = meta.ulid;
    let working = Instant::now();
    let made = job::blocking(move || {
        let wanted = || !lost.load(std::sync::atomic::Ordering::SeqCst);
        let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
        let made = Block::open(&input).and_then(|block| {
            downsample(&block, &parent, job::new_id(clock.now_ms(), [&source]), options, wanted)
        });
        if lost.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(JobError::Lost);
        }
        let made = made.map_err(|e| match e.kind() {
            chronolith_tsdb::ErrorKind::Unavailable => JobError::Result(e),
            _ => JobError::BadBlock { block: source, reason: REASON_DAMAGED, source: Box::new(e) },
        })?;
        if let Some(made) = &made {
            verify_structure(&parent.join(made.ulid.to_string())).map_err(JobError::Result)?;
        }
        Ok(made)
    })
    .await?;
    let took = working.elapsed().as_secs_f64();
    c.metrics.downsample_duration.get_or_create(&by(key.resolution_ms)).observe(took);
    let Some(mut made) = made else {
        mark(c, meta.ulid, "nothing is left to be downsampled", "empty").await?;
        return Ok(Outcome::Changed { compacted: false });
    };
    // Labels as the group has them, without replicas.
    if let Some(thanos) = &mut made.thanos {
        thanos.labels.clone_from(&key.labels);
    }
    job::still_valid(c, &inputs, lease).await?;
    job::upload(c, dir.path(), &made, lease).await?;
    if !c.cleaner.is_whole(made.ulid).await? {
        return Err(JobError::Stale(format!("the result {} is not whole in the bucket", made.ulid)));
    }
    c.metrics.downsamples.get_or_create(&by(key.resolution_ms)).inc();
    tracing::info!(role = "compact", block = %meta.ulid, made = %made.ulid, seconds = began.elapsed().as_secs_f64(), "block downsampled");
    Ok(Outcome::Changed { compacted: true })
}

#[cfg(test)]
mod tests {
    use chronolith_bucket::deletions::derived_source;
    use chronolith_tsdb::block::ThanosMeta;

    use super::*;

    #[test]
    fn a_block_that_was_rewritten_is_not_downsampled_again() {
        let source = BlockId(ulid::Ulid::from_parts(1_000, 1));
        let mut meta = BlockMeta::new(source, 0, 1);
        meta.compaction.sources = vec![derived_source(source, "retention x")];
        let (covered, other) =
            (BTreeSet::from([source]), BTreeSet::from([BlockId(ulid::Ulid::from_parts(2_000, 1))]));
        assert!(!is_covered(&meta, &covered), "nothing says what it stands for");
        let mut thanos = ThanosMeta::default();
        let rewrites = serde_json::json!([{"sources": [source.to_string()], "deletions_applied": []}]);
        thanos.unknown.insert("rewrites".to_owned(), rewrites);
        meta.thanos = Some(thanos);
        assert!(is_covered(&meta, &covered));
        assert!(!is_covered(&meta, &other));
        meta.compaction.sources.extend(&other);
        assert!(!is_covered(&meta, &covered), "one source is not downsampled yet");
    }
}
