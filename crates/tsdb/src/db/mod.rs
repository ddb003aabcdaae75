//! All tenants' heads over one log, with their local blocks.
//!
//! ```text
//! <dir>/lock  key  key.copy          who has the directory; the key of its fingerprints
//!       wal/00000012                 the log's segments
//!       snapshot/00000012            what the log's segments below 12 made of the heads
//!       spill/00000012               complete chunks of the heads; worth nothing to another process
//!       tenants/<tenant>/            see `tenant`
//! ```
//!
//! Opening loads the newest whole snapshot and replays the log from there. Maintenance (cuts, snapshots, deletions)
//! runs one at a time; writes and reads go on meanwhile.

mod cut;
mod error;
mod forget;
mod identity;
mod options;
mod tenant;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chronolith_model::{TenantId, WriteBatch};
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

pub use crate::wal::{ReplayReport, WalSync};
pub use cut::CutBlock;
pub use error::DbError;
pub use options::{BlockThanos, Clock, DbOptions, Limits, TenantOptions, TenantOptionsOf};
pub use tenant::BlockDamage;

use crate::head::{Head, Key, Scratch, Spill, SpillStats, WriteOutcome};
use crate::snapshot;
use crate::wal::{
    Commit, DirStore, Heads, SegmentStore, Wal, WalError, WalOptions, frame_begin, frame_end, put_tenant,
    replay,
};
use tenant::{Tenant, read_committed};

/// All tenants' data on this machine.
pub struct Db {
    options: Arc<DbOptions>,
    key: Key,
    shards: usize,
    spill: Arc<Spill>,
    wal: Arc<Wal>,
    tenants: RwLock<Tenants>,
    /// Held by cuts, snapshots and deletions.
    maintenance: Mutex<()>,
    blocks_damaged: Mutex<Vec<BlockDamage>>,
    closed: AtomicBool,
    /// Released with the database.
    _lock: fs::File,
}

#[derive(Default)]
struct Tenants {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    by_number: HashMap<u32, Arc<Tenant>>,
    next: u32,
}

impl Tenants {
    fn add(&mut self, tenant: Arc<Tenant>) {
        let number = tenant.head.number;
        self.next = self.next.max(number + 1);
        self.by_number.insert(number, Arc::clone(&tenant));
        self.by_id.insert(tenant.id().clone(), tenant);
    }

    fn remove(&mut self, tenant: &Tenant) {
        self.by_number.remove(&tenant.head.number);
        self.by_id.remove(tenant.id());
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Db {
    /// Opens the database in `options.dir`, creating it when there is none.
    pub fn open(options: DbOptions) -> Result<(Arc<Db>, ReplayReport), DbError> {
        let wal_dir = options.dir.join("wal");
        fs::create_dir_all(&options.dir).map_err(DbError::io("create", &options.dir))?;
        let store = DirStore::open(&wal_dir).map_err(DbError::io("open", &wal_dir))?;
        Db::open_with(options, Arc::new(store))
    }

    /// As [`Db::open`], with the log's segments in `store`.
    pub fn open_with(
        options: DbOptions,
        store: Arc<dyn SegmentStore>,
    ) -> Result<(Arc<Db>, ReplayReport), DbError> {
        let started = Instant::now();
        options.check()?;
        let options = Arc::new(options);
        let dir = &options.dir;
        for sub in ["tenants", "snapshot"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(DbError::io("create", &path))?;
        }
        let lock = identity::lock(dir)?;
        let (key, shards) = identity::load_or_create(dir, options.shards)?;
        let mut report = ReplayReport::default();
        let threads = match options.replay_threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        };
        let wal_failed =
            |e: std::io::Error| DbError::Wal(WalError::Failed { segment: 0, source: Arc::new(e) });
        let spill = Arc::new(Spill::new(&dir.join("spill")));
        let mut registry = Registry::new(&options, &key, shards, &spill);
        let snapshots = dir.join("snapshot");
        for id in snapshot::list(&snapshots).map_err(DbError::io("list", &snapshots))?.into_iter().rev() {
            match snapshot::load(&snapshots, id, &mut registry, threads) {
                Ok(()) => {
                    report.snapshot = Some(id);
                    break;
                }
                Err(reason) => {
                    report.snapshots_refused.push(format!("snapshot {id:08}: {reason}"));
                    registry = Registry::new(&options, &key, shards, &spill);
                    snapshot::remove(&snapshots, id).map_err(DbError::io("remove", &snapshots))?;
                }
            }
        }
        let first = report.snapshot.unwrap_or(0);
        let next = replay(&*store, first, &mut registry, threads, &mut report).map_err(wal_failed)?;
        let mut blocks_damaged = Vec::new();
        for tenant in registry.tenants.by_id.values() {
            tenant.head.finish_replay();
            blocks_damaged.extend(tenant.open_blocks()?);
            tenant.guess_last_write();
        }
        let wal_options = WalOptions {
            sync: options.wal_sync,
            segment_bytes_max: options.wal_segment_bytes_max,
            buffer_bytes_max: options.wal_buffer_bytes_max,
        };
        let wal = Wal::start(store, next, wal_options)?;
        let db = Arc::new(Db {
            options: Arc::clone(&options),
            key,
            shards,
            spill,
            wal,
            tenants: RwLock::new(registry.tenants),
            maintenance: Mutex::new(()),
            blocks_damaged: Mutex::new(blocks_damaged),
            closed: AtomicBool::new(false),
            _lock: lock,
        });
        db.find_tenants()?;
        report.duration_ms = started.elapsed().as_millis() as u64;
        Ok((db, report))
    }

    /// Enters the tenants that have a directory but no place in the log.
    fn find_tenants(&self) -> Result<(), DbError> {
        let path = self.options.dir.join("tenants");
        for entry in fs::read_dir(&path).map_err(DbError::io("list", &path))? {
            let name = entry.map_err(DbError::io("list", &path))?.file_name();
            if let Some(id) = name.to_str().and_then(|n| TenantId::new(n).ok())
                && self.tenant(&id).is_none()
            {
                let tenant = self.tenant_or_create(&id)?;
                self.blocks_damaged.lock().extend(tenant.open_blocks()?);
                tenant.guess_last_write();
            }
        }
        Ok(())
    }

    /// Writes a batch. Its good part is readable when this returns, and durable when the outcome's commit resolves.
    pub fn write(&self, tenant: &TenantId, batch: &WriteBatch) -> WriteOutcome {
        self.write_in(tenant, batch, false)
    }

    /// As [`Db::write`], for a batch that an acknowledged request left waiting for this process: samples may be out of order by
    /// [`DbOptions::late_window_ms`], though the tenant's window may be smaller.
    pub fn write_late(&self, tenant: &TenantId, batch: &WriteBatch) -> WriteOutcome {
        self.write_in(tenant, batch, true)
    }

    fn write_in(&self, tenant: &TenantId, batch: &WriteBatch, late: bool) -> WriteOutcome {
        if self.closed.load(Ordering::Relaxed) {
            return failed(WalError::Closed);
        }
        // Before anything reaches memory: what is there must get into the log, which takes nothing now.
        if let Some(err) = self.wal.stalled() {
            return failed(err);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let outcome = match self.tenant_or_create(tenant) {
                    Ok(tenant) => self.write_to(&tenant, batch, late, scratch),
                    Err(err) => Some(failed(err)),
                };
                if let Some(outcome) = outcome {
                    return outcome;
                }
            }
        })
    }

    /// [`Db::write`]; `None` when the tenant went meanwhile.
    fn write_to(
        &self,
        tenant: &Tenant,
        batch: &WriteBatch,
        late: bool,
        scratch: &mut Scratch,
    ) -> Option<WriteOutcome> {
        let head = &tenant.head;
        let _gate = head.gate.read();
        if head.is_forgotten.load(Ordering::Relaxed) {
            return None;
        }
        let appended = head.append(batch, late, Some(&self.wal), scratch);
        let mut logged = appended.log_error.map_or(Ok(0), Err);
        for record in scratch.records() {
            if logged.is_ok() {
                logged = self.wal.append(record);
            }
        }
        let mut metadata_rejected = 0;
        if !batch.metadata().is_empty() && logged.is_ok() {
            let mut record = Vec::new();
            metadata_rejected = head.append_metadata(batch.metadata(), &mut record);
            if !record.is_empty() {
                logged = self.wal.append(&record);
            }
        }
        // The log's thread syncs meanwhile.
        head.spill_filled(scratch);
        let commit = match logged {
            Err(err) => Commit::failed(err),
            Ok(_) if !self.wal.waits() => Commit::done(),
            // What the request repeats may not be durable yet either: wait for all that has been logged.
            Ok(0) => Commit::at(Arc::clone(&self.wal), self.wal.position()),
            Ok(position) => Commit::at(Arc::clone(&self.wal), position),
        };
        Some(WriteOutcome {
            written: appended.written,
            histograms_written: appended.histograms_written,
            exemplars_written: appended.exemplars_written,
            exemplars_rejected: appended.exemplars_rejected,
            exemplars_out_of_order: appended.exemplars_out_of_order,
            metadata_rejected,
            rejected: appended.rejected,
            rejected_count: appended.rejected_count,
            rejected_by_kind: appended.rejected_by_kind,
            out_of_order_written: appended.out_of_order_written,
            commit,
        })
    }

    fn tenant(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants.read().by_id.get(id).cloned()
    }

    fn tenant_or_create(&self, id: &TenantId) -> Result<Arc<Tenant>, WalError> {
        if let Some(tenant) = self.tenant(id) {
            return Ok(tenant);
        }
        let mut tenants = self.tenants.write();
        if let Some(tenant) = tenants.by_id.get(id) {
            return Ok(Arc::clone(tenant));
        }
        let number = tenants.next;
        let mut record = Vec::new();
        let at = frame_begin(&mut record);
        put_tenant(&mut record, number, id.as_str());
        frame_end(&mut record, at);
        // The number must be in the log before any record that uses it.
        self.wal.append(&record)?;
        let tenant = new_tenant(id.clone(), number, &self.options, &self.key, self.shards, &self.spill);
        tenants.add(Arc::clone(&tenant));
        Ok(tenant)
    }

    /// All tenants, sorted.
    pub fn tenants(&self) -> Vec<TenantId> {
        let mut ids: Vec<TenantId> = self.tenants.read().by_id.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// A tenant's head.
    pub fn head(&self, tenant: &TenantId) -> Option<Arc<Head>> {
        self.tenant(tenant).map(|t| Arc::clone(&t.head))
    }

    /// Asks for all tenants' own options again, after they changed. What was written stays.
    pub fn refresh_tenant_options(&self) {
        let tenants: Vec<Arc<Tenant>> = self.tenants.read().by_id.values().cloned().collect();
        for tenant in tenants {
            tenant.head.set_tenant_options(self.options.tenant(tenant.id()));
        }
    }

    /// The settings.
    pub fn options(&self) -> &DbOptions {
        &self.options
    }

    /// Local blocks that could not be opened. They are left where they are.
    pub fn blocks_damaged(&self) -> Vec<BlockDamage> {
        self.blocks_damaged.lock().clone()
    }

    /// What the heads have on disk instead of in memory.
    pub fn spill_stats(&self) -> SpillStats {
        self.spill.stats()
    }

    /// True while the disk is full and writes are refused.
    pub fn is_stalled(&self) -> bool {
        self.wal.stalled().is_some()
    }

    /// Waits until everything written so far is durable, whatever the log's mode.
    pub fn sync(&self) -> Result<(), WalError> {
        self.wal.flush()
    }

    /// Takes a snapshot and ends the log. Writes fail from now on; reads go on.
    pub fn close(&self) -> Result<(), DbError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let _maintenance = self.maintenance.lock();
        let snapshot = self.snapshot_locked();
        self.wal.close()?;
        snapshot
    }
}

/// Snapshots.
impl Db {
    /// Writes down what the heads hold, so that a restart replays only what comes after.
    pub fn snapshot(&self) -> Result<(), DbError> {
        let _maintenance = self.maintenance.lock();
        self.snapshot_locked()
    }

    fn snapshot_locked(&self) -> Result<(), DbError> {
        let dir = self.options.dir.join("snapshot");
        let segment = self.wal.rotate()?;
        let tenants: Vec<Arc<Tenant>> = self.tenants.read().by_id.values().cloned().collect();
        snapshot::write(&dir, segment, tenants.iter().map(|t| (t.id(), &*t.head)))
            .map_err(DbError::io("write a snapshot in", &dir))?;
        // Segments go once two snapshots cover them, so that either may be damaged.
        if let Some(oldest) = snapshot::prune(&dir).map_err(DbError::io("remove from", &dir))? {
            self.wal
                .remove_before(oldest)
                .map_err(DbError::io("remove segments of", self.options.dir.join("wal")))?;
        }
        Ok(())
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // Without a snapshot: whoever wants one, or wants to know of an error, calls `close`.
        if !self.closed.load(Ordering::Acquire) {
            let _ = self.wal.close();
        }
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

fn failed(err: WalError) -> WriteOutcome {
    WriteOutcome {
        written: 0,
        histograms_written: 0,
        exemplars_written: 0,
        exemplars_rejected: 0,
        exemplars_out_of_order: 0,
        metadata_rejected: 0,
        rejected: Vec::new(),
        rejected_count: 0,
        rejected_by_kind: Vec::new(),
        out_of_order_written: 0,
        commit: Commit::failed(err),
    }
}

fn tenant_dir(options: &DbOptions, id: &TenantId) -> PathBuf {
    options.dir.join("tenants").join(id.as_str())
}

fn new_tenant(
    id: TenantId,
    number: u32,
    options: &Arc<DbOptions>,
    key: &Key,
    shards: usize,
    spill: &Arc<Spill>,
) -> Arc<Tenant> {
    let dir = tenant_dir(options, &id);
    let committed = read_committed(&dir);
    let head = Head::new(id, number, Arc::clone(options), key.clone(), shards, Arc::clone(spill));
    Arc::new(Tenant::new(Arc::new(head), dir, committed))
}

/// The heads that a replay fills.
struct Registry {
    tenants: Tenants,
    options: Arc<DbOptions>,
    key: Key,
    shards: usize,
    spill: Arc<Spill>,
}

impl Registry {
    fn new(options: &Arc<DbOptions>, key: &Key, shards: usize, spill: &Arc<Spill>) -> Self {
        Registry {
            tenants: Tenants::default(),
            options: Arc::clone(options),
            key: key.clone(),
            shards,
            spill: Arc::clone(spill),
        }
    }
}

impl Heads for Registry {
    fn define(&mut self, number: u32, id: TenantId) {
        if !self.tenants.by_id.contains_key(&id) && !self.tenants.by_number.contains_key(&number) {
            self.tenants.add(new_tenant(id, number, &self.options, &self.key, self.shards, &self.spill));
        }
    }

    fn forget(&mut self, number: u32) {
        if let Some(tenant) = self.tenants.by_number.get(&number).cloned() {
            self.tenants.remove(&tenant);
        }
    }

    fn get(&self, number: u32) -> Option<(Arc<Head>, u64)> {
        let tenant = self.tenants.by_number.get(&number)?;
        Some((Arc::clone(&tenant.head), tenant.committed.lock().number))
    }
}

#[cfg(test)]
mod forget_tests;
#[cfg(test)]
mod histogram_tests;
#[cfg(test)]
mod late_tests;
#[cfg(test)]
mod tests;
