//! One tenant: its head, its local blocks, and how far its head has been cut.
//!
//! ```text
//! tenants/<tenant>/<ULID>/     local blocks
//! tenants/<tenant>/cut.json    {"number": committed cuts, "time": samples before it lie in blocks}
//! tenants/<tenant>/plan.json   {"number": …, "blocks": […]}    while a cut writes its blocks
//! ```
//!
//! A cut is committed by the rename of `cut.json`. On opening, the blocks of a plan whose number is not committed are
//! removed: their samples are still in the log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_model::{BlockId, TenantId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::DbError;
use super::identity::write_durably;
use crate::block::{Block, list_blocks, remove_leftovers};
use crate::head::Head;
use crate::wal::sync_dir;

/// How far a head has been cut.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Committed {
    /// Cuts committed so far.
    pub(super) number: u64,
    /// Samples before this time lie in blocks.
    pub(super) time: i64,
}

impl Default for Committed {
    fn default() -> Self {
        Committed { number: 0, time: i64::MIN }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    number: u64,
    blocks: Vec<String>,
}

pub(super) struct Tenant {
    pub(super) head: Arc<Head>,
    pub(super) dir: PathBuf,
    pub(super) blocks: RwLock<Vec<Arc<Block>>>,
    pub(super) committed: Mutex<Committed>,
    /// Number of the last cut that was begun, committed or not.
    pub(super) begun: Mutex<u64>,
}

impl Tenant {
    pub(super) fn new(head: Arc<Head>, dir: PathBuf, committed: Committed) -> Self {
        head.min_valid.store(committed.time, std::sync::atomic::Ordering::Relaxed);
        Tenant {
            head,
            dir,
            blocks: RwLock::new(Vec::new()),
            committed: Mutex::new(committed),
            begun: Mutex::new(committed.number),
        }
    }

    pub(super) fn id(&self) -> &TenantId {
        self.head.tenant()
    }

    /// Keeps the names of the blocks that a cut is going to write.
    pub(super) fn write_plan(&self, number: u64, blocks: &[BlockId]) -> Result<(), DbError> {
        fs::create_dir_all(&self.dir).map_err(DbError::io("create", &self.dir))?;
        if let Some(parent) = self.dir.parent() {
            sync_dir(parent).map_err(DbError::io("sync", parent))?;
        }
        let plan = Plan { number, blocks: blocks.iter().map(ToString::to_string).collect() };
        self.write_json("plan.json", &plan)
    }

    /// Commits a cut.
    pub(super) fn commit(&self, committed: Committed) -> Result<(), DbError> {
        self.write_json("cut.json", &committed)?;
        *self.committed.lock() = committed;
        // The plan's number is committed now, so a plan that stays behind is harmless.
        let _ = fs::remove_file(self.dir.join("plan.json"));
        Ok(())
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), DbError> {
        let path = self.dir.join(name);
        let bytes = serde_json::to_vec(value).expect("plain structs serialise");
        write_durably(&path, &bytes)?;
        sync_dir(&self.dir).map_err(DbError::io("sync", &self.dir))
    }

    /// Opens the local blocks, after removing what an interrupted cut or deletion left.
    pub(super) fn open_blocks(&self) -> Result<Vec<BlockDamage>, DbError> {
        let mut damaged = Vec::new();
        let mut blocks = Vec::new();
        remove_uncommitted(&self.dir, self.committed.lock().number)?;
        remove_leftovers(&self.dir).map_err(|e| self.block_error(e))?;
        for (_, path) in list_blocks(&self.dir).map_err(|e| self.block_error(e))? {
            match Block::open(&path) {
                Ok(block) => blocks.push(Arc::new(block)),
                Err(err) => damaged.push(BlockDamage { path, reason: err.to_string() }),
            }
        }
        sort(&mut blocks);
        *self.blocks.write() = blocks;
        Ok(damaged)
    }

    pub(super) fn add_blocks(&self, new: Vec<Arc<Block>>) {
        let mut blocks = self.blocks.write();
        blocks.extend(new);
        sort(&mut blocks);
    }

    /// True when a block lies in the directory, or might: a damaged one too.
    pub(super) fn has_blocks(&self) -> bool {
        !self.blocks.read().is_empty() || list_blocks(&self.dir).map_or(self.dir.exists(), |b| !b.is_empty())
    }

    /// After opening: of a tenant without samples in the head, they came last when its newest block ends, or when something
    /// was done about it; of the others now, as far as is known.
    pub(super) fn guess_last_write(&self) {
        if self.head.time_range().is_some() {
            return;
        }
        let newest = self.blocks.read().iter().map(|b| b.meta().max_time).max();
        let changed = || {
            let modified = fs::metadata(&self.dir).and_then(|m| m.modified()).ok()?;
            let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
            i64::try_from(since.as_millis()).ok()
        };
        if let Some(guess) = newest.or_else(changed) {
            self.head.last_write_ms.fetch_min(guess, std::sync::atomic::Ordering::Relaxed);
        }
    }

    pub(super) fn block_error(&self, source: crate::Error) -> DbError {
        DbError::Block { tenant: self.id().clone(), source }
    }
}

/// A local block that cannot be opened. It is left where it is.
#[derive(Clone, Debug)]
pub struct BlockDamage {
    /// The block's directory.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// How far the head of the tenant in `dir` has been cut. A damaged file counts as none: then the log's samples are
/// replayed beside the blocks that hold them already, and readers merge the two.
pub(super) fn read_committed(dir: &Path) -> Committed {
    let bytes = fs::read(dir.join("cut.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn sort(blocks: &mut [Arc<Block>]) {
    blocks.sort_by_key(|b| (b.meta().min_time, b.id()));
}

fn remove_uncommitted(dir: &Path, committed: u64) -> Result<(), DbError> {
    let path = dir.join("plan.json");
    let Ok(bytes) = fs::read(&path) else { return Ok(()) };
    if let Ok(plan) = serde_json::from_slice::<Plan>(&bytes)
        && plan.number > committed
    {
        for block in plan.blocks.iter().filter(|b| b.parse::<BlockId>().is_ok()) {
            let block_dir = dir.join(block);
            if block_dir.exists() {
                fs::remove_dir_all(&block_dir).map_err(DbError::io("remove", &block_dir))?;
            }
        }
    }
    fs::remove_file(&path).map_err(DbError::io("remove", &path))
}
