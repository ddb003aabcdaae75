//! Cutting heads into blocks.
//!
//! ```text
//! gate ── cut record in the log ── plan.json ── blocks written, synced, verified ── cut.json (commit) ── head truncated
//! ```
//!
//! Up to the commit a crash leaves the old state: the blocks of the plan are removed on opening, and their samples are
//! replayed. From the commit on it leaves the new one: replay drops what the head held at the cut's record.

use std::sync::Arc;

use chronolith_model::{BlockId, TenantId, TimeRange};

use super::tenant::{Committed, Tenant};
use super::{Db, DbError};
use crate::block::{
    Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, Compaction, HINT_OUT_OF_ORDER,
    delete_block, verify,
};
use crate::head::CutPlan;
use crate::wal::{Commit, frame_begin, frame_end, put_cut};

/// A block that was cut.
#[derive(Clone, Debug)]
pub struct CutBlock {
    /// Whose.
    pub tenant: TenantId,
    /// Its meta.
    pub meta: BlockMeta,
}

/// Where a test may end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Logged,
    Planned,
    Block,
    Written,
    Committed,
    Truncated,
}

impl Db {
    /// Cuts every head that holds more than one and a half block ranges, and takes a snapshot if one was cut.
    ///
    /// A head that fails does not keep the others from being cut; the first error is returned.
    pub fn cut_due(&self) -> Result<Vec<CutBlock>, DbError> {
        let _maintenance = self.maintenance.lock();
        let tenants: Vec<Arc<Tenant>> = self.tenants.read().by_id.values().cloned().collect();
        let mut cut = Vec::new();
        let mut first_error = None;
        for tenant in tenants {
            while let Some(time) = tenant.head.cut_due() {
                match self.cut(&tenant, time, &mut |_| Ok(())) {
                    Ok(blocks) => cut.extend(blocks),
                    Err(err) => {
                        first_error = first_error.or(Some(err));
                        break;
                    }
                }
            }
        }
        if !cut.is_empty() {
            self.snapshot_locked()?;
        }
        first_error.map_or(Ok(cut), Err)
    }

    /// True when [`Db::cut_due`] would cut something.
    pub fn is_cut_due(&self) -> bool {
        self.tenants.read().by_id.values().any(|t| t.head.cut_due().is_some())
    }

    /// Cuts everything that a tenant's head holds, whatever its age. Writes go on, and times are not barred.
    pub fn cut_all(&self, tenant: &TenantId) -> Result<Vec<BlockMeta>, DbError> {
        let _maintenance = self.maintenance.lock();
        let tenant = self.tenant(tenant).ok_or_else(|| DbError::UnknownTenant(tenant.clone()))?;
        if tenant.head.time_range().is_none() {
            return Ok(Vec::new());
        }
        let blocks = self.cut(&tenant, i64::MAX, &mut |_| Ok(()))?;
        if !blocks.is_empty() {
            self.snapshot_locked()?;
        }
        Ok(blocks.into_iter().map(|b| b.meta).collect())
    }

    /// Cuts everything before `time`, or everything. The caller holds the maintenance lock.
    pub(super) fn cut(
        &self,
        tenant: &Tenant,
        time: i64,
        step: &mut dyn FnMut(Step) -> Result<(), DbError>,
    ) -> Result<Vec<CutBlock>, DbError> {
        let head = &tenant.head;
        let number = {
            let mut begun = tenant.begun.lock();
            *begun += 1;
            *begun
        };
        let mut plan = {
            // Nobody writes: what is in memory is what lies before the record in the log.
            let _gate = head.gate.write();
            let plan = head.begin_cut(time);
            let mut record = Vec::new();
            let at = frame_begin(&mut record);
            put_cut(&mut record, head.number, number, time);
            frame_end(&mut record, at);
            self.wal.append(&record)?;
            plan
        };
        Commit::at(Arc::clone(&self.wal), self.wal.position()).wait()?;
        step(Step::Logged)?;
        head.plan_ranges(&mut plan);
        let ids: Vec<BlockId> = plan.ranges.iter().map(|_| BlockId(ulid::Ulid::generate())).collect();
        tenant.write_plan(number, &ids)?;
        step(Step::Planned)?;
        let committed = *tenant.committed.lock();
        let mut blocks = Vec::new();
        for (id, range) in ids.iter().zip(&plan.ranges) {
            if let Some(meta) = self.write_block(tenant, &plan, *id, *range, committed.time)? {
                let dir = tenant.dir.join(id.to_string());
                verify(&dir).map_err(|e| tenant.block_error(e))?;
                let block = Block::open(&dir).map_err(|e| tenant.block_error(e))?;
                blocks.push((meta, Arc::new(block)));
            }
            step(Step::Block)?;
        }
        step(Step::Written)?;
        // A cut of everything does not bar times.
        let time = if time == i64::MAX { committed.time } else { committed.time.max(time) };
        tenant.commit(Committed { number, time })?;
        step(Step::Committed)?;
        let (metas, opened): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
        // First the blocks, then the truncation: a reader may see a sample twice, never not at all.
        tenant.add_blocks(opened);
        let dead = head.finish_cut(&plan);
        drop(head.gate.write());
        head.forget_series(&dead);
        step(Step::Truncated)?;
        Ok(metas.into_iter().map(|meta| CutBlock { tenant: tenant.id().clone(), meta }).collect())
    }

    fn write_block(
        &self,
        tenant: &Tenant,
        plan: &CutPlan,
        id: BlockId,
        (mint, end): (i64, i64),
        committed_time: i64,
    ) -> Result<Option<BlockMeta>, DbError> {
        let fail = |e| tenant.block_error(e);
        let head = &tenant.head;
        let range = TimeRange::new(mint, end.min(plan.time) - 1);
        let mut writer = BlockWriter::create(&tenant.dir, id, BlockWriterOptions::default()).map_err(fail)?;
        for group in head.cut_groups(range) {
            for series in head.cut_series(&group) {
                let chunks = head.cut_chunks(plan, &series, range);
                writer.add_series(&series.labels, &chunks).map_err(fail)?;
            }
        }
        let block = self.options.block_range_ms;
        // The grid's cells before 1970 are not of one length; there the samples' own times will do.
        let after_1970 = end > block || (end == block && plan.min_t >= 0);
        let times = (after_1970 && plan.time != i64::MAX).then_some((end - block, end));
        let mut compaction = Compaction::default();
        if end <= committed_time {
            compaction.hints.push(HINT_OUT_OF_ORDER.to_owned());
        }
        let thanos = self.options.block_thanos.as_ref().map(|of| of(tenant.id()));
        writer.finish(BlockParts { times, compaction, thanos }).map_err(fail)
    }
}

/// Local blocks.
impl Db {
    /// A tenant's local blocks, sorted by time.
    pub fn blocks(&self, tenant: &TenantId) -> Vec<Arc<Block>> {
        self.tenant(tenant).map(|t| t.blocks.read().clone()).unwrap_or_default()
    }

    /// Removes a local block. Readers that have it open go on.
    pub fn drop_block(&self, tenant: &TenantId, block: BlockId) -> Result<(), DbError> {
        let _maintenance = self.maintenance.lock();
        let t = self.tenant(tenant).ok_or_else(|| DbError::UnknownTenant(tenant.clone()))?;
        let dir = {
            let mut blocks = t.blocks.write();
            let at = blocks
                .iter()
                .position(|b| b.id() == block)
                .ok_or_else(|| DbError::UnknownBlock { tenant: tenant.clone(), block })?;
            blocks.remove(at).dir().to_owned()
        };
        delete_block(&dir).map_err(|e| t.block_error(e))
    }
}
