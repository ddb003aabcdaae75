//! Tenants that have stopped: their heads become blocks, and once their blocks are gone from this machine so are they.
//!
//! ```text
//! idle for a while ── cut_all ── (shipped, dropped after the retention) ── nothing left ── forget record ── directory removed
//! ```
//!
//! A forgotten tenant's number is free for another one. The record stands between the two in the log, so a replay that
//! begins before it does not give one's samples to the other. The directory goes when the record is durable: a crash before
//! leaves an empty tenant, which the next look forgets.
//!
//! A write that has found the tenant just before takes its gate after the forgetting, sees that, and enters it anew.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chronolith_model::TenantId;

use super::tenant::Tenant;
use super::{CutBlock, Db, DbError};
use crate::wal::{Commit, frame_begin, frame_end, put_forget};

impl Db {
    /// Cuts everything of the tenants that hold samples and got none for longer than `idle_ms`. A head that fails does not
    /// keep the others from being cut; the first error is returned.
    pub fn cut_idle(&self, idle_ms: i64) -> Result<Vec<CutBlock>, DbError> {
        self.cut_whole(&self.idle(idle_ms))
    }

    /// Cuts everything that the heads of all tenants hold, whatever its age, as [`Db::cut_all`] does for one.
    pub fn cut_every(&self) -> Result<Vec<CutBlock>, DbError> {
        self.cut_whole(&self.all())
    }

    /// There may be thousands: other maintenance gets its turn between two of them, and one snapshot covers all.
    fn cut_whole(&self, tenants: &[Arc<Tenant>]) -> Result<Vec<CutBlock>, DbError> {
        let (mut cut, mut first_error) = (Vec::new(), None);
        for tenant in tenants {
            let _maintenance = self.maintenance.lock();
            if tenant.head.time_range().is_some() && !tenant.head.is_forgotten.load(Ordering::Relaxed) {
                match self.cut(tenant, i64::MAX, &mut |_| Ok(())) {
                    Ok(blocks) => cut.extend(blocks),
                    Err(err) => first_error = first_error.or(Some(err)),
                }
            }
        }
        if !cut.is_empty() {
            self.snapshot()?;
        }
        first_error.map_or(Ok(cut), Err)
    }

    /// Forgets the tenants that have nothing here, neither samples nor blocks, and got no samples for longer than `idle_ms`.
    pub fn forget_idle(&self, idle_ms: i64) -> Result<Vec<TenantId>, DbError> {
        let _maintenance = self.maintenance.lock();
        let mut forgotten = Vec::new();
        for tenant in self.idle(idle_ms) {
            if self.forget(&tenant)? {
                forgotten.push(tenant.id().clone());
            }
        }
        if forgotten.is_empty() {
            return Ok(forgotten);
        }
        Commit::at(Arc::clone(&self.wal), self.wal.position()).wait()?;
        for id in &forgotten {
            // Whoever has come back meanwhile has a directory of the same name, still empty.
            let dir = super::tenant_dir(&self.options, id);
            if self.tenant(id).is_none() && dir.exists() {
                fs::remove_dir_all(&dir).map_err(DbError::io("remove", &dir))?;
            }
        }
        Ok(forgotten)
    }

    /// Tenants that got no samples for longer than this.
    fn idle(&self, idle_ms: i64) -> Vec<Arc<Tenant>> {
        let now = (self.options.clock)();
        let idle =
            |t: &Arc<Tenant>| now.saturating_sub(t.head.last_write_ms.load(Ordering::Relaxed)) > idle_ms;
        self.all().into_iter().filter(idle).collect()
    }

    fn all(&self) -> Vec<Arc<Tenant>> {
        self.tenants.read().by_id.values().cloned().collect()
    }

    /// Takes a tenant out, if nothing is left of it. The caller holds the maintenance lock, so its blocks stay as they are.
    fn forget(&self, tenant: &Tenant) -> Result<bool, DbError> {
        let mut tenants = self.tenants.write();
        // No write is under way, and none finds the tenant any more.
        let _gate = tenant.head.gate.write();
        if tenant.head.series_count() > 0 || tenant.has_blocks() {
            return Ok(false);
        }
        let mut record = Vec::new();
        let at = frame_begin(&mut record);
        put_forget(&mut record, tenant.head.number);
        frame_end(&mut record, at);
        self.wal.append(&record)?;
        tenant.head.is_forgotten.store(true, Ordering::Relaxed);
        tenants.remove(tenant);
        Ok(true)
    }
}
