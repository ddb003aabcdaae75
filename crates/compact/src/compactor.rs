//! One compactor: what it is made of, and an iteration over the bucket.
//!
//! ```text
//! sync ─ delete what is due ─ collect duplicates ─ passes over all groups until none changes ─ downsample ─ retention ─
//! requests to delete series ─ stopped uploads
//! ```
//!
//! In a pass each group makes at most one step, several groups at a time. What fails in a group is logged, counted, and left for the next iteration;
//! a block that is to blame for good gets a no-compact mark. Nothing ever stops the other groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use chronolith_bucket::{Cleaning, DeletionMark, Error, NoCompactMark};
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_service::Clock;
use chronolith_service::shutdown::CancellationToken;
use chronolith_tsdb::block::BlockMeta;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;

use crate::clean::Cleaner;
use crate::config::ms;
use crate::group::{GroupKey, ids};
use crate::job::{self, DELETION_MARK, JobError, NO_COMPACT_MARK};
use crate::lease::{Claim, Lease, Leases};
use crate::metrics::{REASON_COMPACTED, by};
use crate::parts::{Unfinished, unfinished};
use crate::plan::{Plan, Planner};
use crate::progress::{Speed, todo};
use crate::sync::{Syncer, View};
use crate::work::WorkDir;
use crate::{CompactMetrics, Config};

/// Passes in which nothing happened but that others were faster, before the iteration ends.
const STALE_PASSES_MAX: usize = 3;

/// Everything that works on one bucket in one process.
#[derive(Debug)]
pub struct Compactor {
    pub(crate) config: Config,
    pub(crate) bucket: Bucket,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: CompactMetrics,
    pub(crate) syncer: Syncer,
    pub(crate) leases: Leases,
    pub(crate) work: WorkDir,
    pub(crate) cleaner: Cleaner,
    pub(crate) deletion: crate::deletion::State,
    /// Blocks without a series that goes by the named rules.
    pub(crate) retained: Mutex<BTreeSet<(BlockId, String)>>,
    planner: Planner,
    speed: Speed,
    /// Jobs end soon after it goes down.
    pub(crate) stop: CancellationToken,
}

/// What an iteration did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blocks made.
    pub compactions: usize,
    /// Blocks downsampled.
    pub downsamples: usize,
    /// Blocks marked or rewritten since they, or series of them, are out of retention.
    pub retired: usize,
    /// Blocks rewritten since requests delete series of them.
    pub rewritten: usize,
    /// Requests to delete series that were removed, as no block needs them.
    pub requests_retired: usize,
    /// Blocks deleted.
    pub deleted: usize,
    /// Groups in which something failed.
    pub failed: usize,
    /// Groups left to other workers.
    pub busy: usize,
    /// Of these, those whose workers may be dead: they were not seen to do anything yet.
    pub silent: usize,
}

/// What a group's step was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was none.
    Nothing,
    /// A block was made, or marks.
    Changed { compacted: bool },
    /// Another worker was faster.
    Stale,
    /// Another worker is at it.
    Busy { alive: bool },
    /// See the log.
    Failed,
}

impl Compactor {
    /// A compactor that has not touched the bucket yet.
    pub fn new(
        config: Config,
        bucket: Bucket,
        clock: Arc<dyn Clock>,
        metrics: CompactMetrics,
        work: WorkDir,
        stop: CancellationToken,
    ) -> Self {
        let worker = work.worker().to_owned();
        let leases = Leases::new(bucket.clone(), worker, config.lease_duration, config.single_worker);
        Compactor {
            syncer: Syncer::new(bucket.clone(), config.clone(), clock.clone(), metrics.clone()),
            cleaner: Cleaner {
                bucket: bucket.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                rules: Cleaning::after(ms(config.delete_delay)),
                seen_whole: Mutex::default(),
            },
            planner: Planner::up_to_level(config.level_max),
            deletion: crate::deletion::State::default(),
            retained: Mutex::default(),
            speed: Speed::default(),
            config,
            bucket,
            clock,
            metrics,
            leases,
            work,
            stop,
        }
    }

    /// The leases, to try the store before the first iteration.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Does what there is to do. Errors only when the bucket cannot be listed; what fails in a group is in the report.
    pub async fn iterate(&self) -> Result<Report, Error> {
        let mut report = Report::default();
        let (mut view, _) = self.syncer.sync_if_changed().await?;
        if self.cleaner.has_due(&view) {
            report.deleted = self.cleaner.delete_marked(&view).await;
            self.syncer.forget();
        }
        self.collect_garbage(&view).await;
        let (mut stale_passes, mut failed) = (0, BTreeMap::new());
        while !self.stop.is_cancelled() {
            let outcomes = self.pass(&view, &mut failed).await;
            let count = |test: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| test(o)).count();
            report.compactions += count(&|o| *o == Outcome::Changed { compacted: true });
            report.busy = count(&|o| matches!(o, Outcome::Busy { .. }));
            report.silent = count(&|o| *o == Outcome::Busy { alive: false });
            let changed = count(&|o| matches!(o, Outcome::Changed { .. }));
            let stale = count(&|o| *o == Outcome::Stale);
            stale_passes = if changed > 0 { 0 } else { stale_passes + 1 };
            if changed + stale == 0 || stale_passes >= STALE_PASSES_MAX {
                break;
            }
            view = self.syncer.sync().await?;
            self.collect_garbage(&view).await;
        }
        if !self.config.downsampling_disabled && !self.stop.is_cancelled() {
            let done = crate::downsampling::run(self, &mut view).await?;
            report.downsamples = done.made;
            report.busy += done.busy;
            report.silent += done.silent;
            report.failed += done.failed;
        }
        // After downsampling, or samples would go before there are coarser ones.
        if !self.stop.is_cancelled() {
            let done = crate::retire::run(self, &view).await?;
            report.retired = done.changed;
            report.failed += done.failed;
            report.busy += done.busy;
            report.silent += done.silent;
            if done.changed > 0 {
                self.syncer.forget();
            }
        }
        if !self.stop.is_cancelled() {
            // Marks of this iteration are seen by the look of the next one; until then a marked block is stale, not rewritten.
            match crate::deletion::run(self, &view).await {
                Ok(done) => {
                    report.rewritten = done.rewritten;
                    report.requests_retired = done.requests_retired;
                    report.failed += done.failed;
                    report.busy += done.busy;
                    report.silent += done.silent;
                    if done.rewritten > 0 {
                        self.syncer.forget();
                    }
                }
                Err(err) => {
                    let err = err.chain();
                    tracing::error!(role = "compact", err, "requests to delete series not applied now");
                    report.failed += 1;
                }
            }
        }
        report.deleted += self.cleaner.delete_partial(&view).await;
        report.failed += failed.len();
        self.metrics.groups_isolated.set(failed.len() as i64);
        if !self.stop.is_cancelled() {
            self.metrics.iterations.inc();
        }
        Ok(report)
    }

    async fn collect_garbage(&self, view: &View) {
        if self.cleaner.collect_garbage(view).await > 0 {
            self.syncer.forget();
        }
    }

    /// One step of each group that has more than one block.
    async fn pass(&self, view: &View, failed: &mut BTreeMap<GroupKey, ()>) -> Vec<Outcome> {
        let groups = view.groups();
        let left = todo(&self.planner, &groups, &view.no_compact);
        self.metrics.todo_compactions.set(left.compactions as i64);
        self.metrics.todo_blocks.set(left.blocks as i64);
        let estimate = self.speed.estimate(left.samples, self.config.concurrency);
        self.metrics.remaining_seconds.set(estimate.map_or(0.0, |d| d.as_secs_f64()));
        if left.compactions > 0 {
            let estimate_seconds = estimate.map(|d| d.as_secs());
            tracing::info!(
                role = "compact",
                compactions = left.compactions,
                blocks = left.blocks,
                samples = left.samples,
                estimate_seconds,
                "work to do"
            );
        }
        let eligible =
            groups.into_iter().filter(|(key, blocks)| blocks.len() > 1 && !failed.contains_key(key));
        let eligible: Vec<_> = eligible.collect();
        // Boxed: else the compiler cannot tell that the future may move between threads.
        let steps = futures::stream::iter(eligible).map(|(key, blocks)| {
            async move {
                let outcome = self.step(&key, &blocks, view).await;
                (key, outcome)
            }
            .boxed()
        });
        let outcomes: Vec<(GroupKey, Outcome)> =
            steps.buffer_unordered(self.config.concurrency.max(1)).collect().await;
        failed
            .extend(outcomes.iter().filter(|(_, o)| *o == Outcome::Failed).map(|(key, _)| (key.clone(), ())));
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    async fn step(&self, key: &GroupKey, blocks: &[Arc<BlockMeta>], view: &View) -> Outcome {
        let resolution = by(key.resolution_ms);
        self.metrics.runs_started.get_or_create(&resolution).inc();
        let outcome = match self.try_step(key, blocks, view).await {
            Ok(outcome) => outcome,
            Err(JobError::Stale(why)) => {
                tracing::debug!(role = "compact", group = %key, why, "planned anew");
                Outcome::Stale
            }
            Err(JobError::Lost) => {
                self.metrics.leases_lost.inc();
                Outcome::Busy { alive: true }
            }
            Err(JobError::BadBlock { block, reason, source }) => {
                self.metrics.failures.get_or_create(&resolution).inc();
                self.exclude(block, reason, source.as_ref()).await
            }
            Err(err) => {
                self.metrics.failures.get_or_create(&resolution).inc();
                self.metrics.retries.inc();
                tracing::error!(role = "compact", group = %key, err = err.chain(), "compaction failed, the group is left for now");
                Outcome::Failed
            }
        };
        if outcome != Outcome::Failed {
            self.metrics.runs_completed.get_or_create(&resolution).inc();
        }
        outcome
    }

    async fn try_step(
        &self,
        key: &GroupKey,
        blocks: &[Arc<BlockMeta>],
        view: &View,
    ) -> Result<Outcome, JobError> {
        let plan = self.planner.plan(blocks, &view.no_compact);
        let split = unfinished(blocks) != Unfinished::default();
        if plan.is_none() && !split {
            return Ok(Outcome::Nothing);
        }
        let lease = match self.claim(&key.name(), &format!("compact {key}")).await? {
            Ok(lease) => lease,
            Err(outcome) => return Ok(outcome),
        };
        let result = match plan {
            _ if split => self.finish_split(key).await,
            Some(plan) => tokio::select! {
                done = self.compact(key, &plan, &lease) => done,
                () = self.stop.cancelled() => Err(JobError::Lost),
            },
            None => Ok(Outcome::Nothing),
        };
        lease.release().await;
        result
    }

    /// The lease of a group, or why it is not ours.
    pub(crate) async fn claim(&self, group: &str, job: &str) -> Result<Result<Lease, Outcome>, JobError> {
        Ok(match self.leases.claim(group, job).await? {
            Claim::Held(lease) => Ok(lease),
            Claim::Busy { alive } => {
                self.metrics.leases_busy.inc();
                tracing::debug!(role = "compact", group, alive, "another worker is at it");
                Err(Outcome::Busy { alive })
            }
        })
    }

    async fn compact(&self, key: &GroupKey, plan: &Plan, lease: &Lease) -> Result<Outcome, JobError> {
        // The plan is older than the lease: whoever had it before us may have done this very job.
        job::still_valid(self, &plan.blocks, lease).await?;
        let began = Instant::now();
        let blocks = ids(&plan.blocks);
        tracing::info!(role = "compact", group = %key, ?blocks, vertical = plan.vertical, "compaction begins");
        let made = job::compact(self, key, plan, lease).await?;
        let took = began.elapsed();
        self.metrics.compactions.get_or_create(&by(key.resolution_ms)).inc();
        if plan.vertical {
            self.metrics.vertical_compactions.get_or_create(&by(key.resolution_ms)).inc();
        }
        self.metrics.samples.inc_by(made.samples);
        self.metrics.duration.observe(took.as_secs_f64());
        self.speed.add(plan.blocks.iter().map(|m| m.stats.num_samples).sum(), took);
        let made_blocks: Vec<BlockId> = made.blocks.iter().map(|m| m.ulid).collect();
        tracing::info!(role = "compact", group = %key, blocks = ?made_blocks, samples = made.samples, seconds = took.as_secs_f64(), "compaction done");
        Ok(Outcome::Changed { compacted: true })
    }

    /// Brings to an end what a crash left of a split result. The lease is held, so nobody is still at it.
    async fn finish_split(&self, key: &GroupKey) -> Result<Outcome, JobError> {
        let view = self.syncer.sync().await?;
        let groups = view.groups();
        let left = groups.get(key).map(|blocks| unfinished(blocks)).unwrap_or_default();
        for (input, parts) in &left.inputs {
            let mut whole = true;
            for part in parts {
                whole &= self.cleaner.is_whole(*part).await?;
            }
            if whole {
                job::mark_sources(self, &[*input], &[]).await?;
            }
        }
        for part in &left.parts {
            let details = "part of a result that was never completed";
            if DeletionMark::write(&self.bucket, *part, self.clock.now_ms(), details).await? {
                self.metrics.marked(DELETION_MARK, REASON_COMPACTED, 1);
            }
        }
        Ok(Outcome::Changed { compacted: false })
    }

    /// Leaves a block out from now on.
    pub(crate) async fn exclude(
        &self,
        block: BlockId,
        reason: &'static str,
        why: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> Outcome {
        let why = chronolith_service::exit::error_chain(why);
        tracing::error!(role = "compact", %block, reason, err = why, "block left out of compaction from now on");
        match self.mark_no_compact(block, reason, &why).await {
            Ok(()) => Outcome::Changed { compacted: false },
            Err(err) => {
                tracing::error!(role = "compact", %block, err = err.chain(), "block not marked");
                Outcome::Failed
            }
        }
    }

    async fn mark_no_compact(
        &self,
        block: BlockId,
        reason: &'static str,
        details: &str,
    ) -> Result<(), Error> {
        if NoCompactMark::write(&self.bucket, block, self.clock.now_ms(), details, reason).await? {
            self.metrics.marked(NO_COMPACT_MARK, reason, 1);
        }
        Ok(())
    }

    /// Deletes what is due while compactions run, by a view that may be somewhat old.
    pub async fn clean(&self) {
        let age_max = 2 * self.config.cleanup_interval.max(self.config.wait_interval);
        let Some(view) = self.syncer.recent(age_max) else { return };
        if self.cleaner.has_due(&view) {
            self.cleaner.delete_marked(&view).await;
            self.syncer.forget();
        }
    }
}
