//! The work directory: one process's own, bounded, empty when nothing runs.
//!
//! ```text
//! <data-dir>/compact/lock  worker  <group>/<ULID>/…
//! ```
//!
//! Nothing in it is worth keeping over a restart, so what a crash left is removed at the start and before each job. The lock
//! keeps a second process out; it goes with the process that held it, however that ended. Since the lock proves that the last process with this
//! directory is dead, its successor takes its name over, and with it its leases.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// Why the directory cannot be used, or not now.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The file system refused.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another process works there.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The job does not fit.
    #[error("{needed} bytes of disk are needed, {available} may be used")]
    NoSpace {
        /// For downloads and results.
        needed: u64,
        /// Free, or left of the limit.
        available: u64,
    },
}

impl WorkError {
    fn io(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WorkError {
        let path = path.to_owned();
        move |source| WorkError::Io { op, path, source }
    }
}

/// The directory, locked as long as this lives.
#[derive(Clone, Debug)]
pub struct WorkDir(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    worker: String,
    bytes_max: u64,
    reserved: Mutex<u64>,
    _lock: File,
}

/// Space that a job may fill. Given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    work: WorkDir,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.work.0.reserved.lock() -= self.bytes;
    }
}

const LOCK: &str = "lock";
const WORKER: &str = "worker";
/// Left free for whoever else uses the disk: the share of one in so many.
const SPARE_SHARE: u64 = 50;

impl WorkDir {
    /// Makes, locks and empties the work directory below `data_dir`. `bytes_max` bounds it; 0 does not.
    pub fn claim(data_dir: &Path, bytes_max: u64) -> Result<Self, WorkError> {
        let root = data_dir.join("compact");
        std::fs::create_dir_all(&root).map_err(WorkError::io("create", &root))?;
        let path = root.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(WorkError::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkError::InUse(root)),
            Err(TryLockError::Error(e)) => return Err(WorkError::io("lock", &path)(e)),
        }
        let path = root.join(WORKER);
        let known = std::fs::read_to_string(&path).ok().map(|name| name.trim().to_owned());
        let worker = match known.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => {
                let name = format!("{:032x}", rand::random::<u128>());
                std::fs::write(&path, &name).map_err(WorkError::io("write", &path))?;
                name
            }
        };
        let inner = Inner { root, worker, bytes_max, reserved: Mutex::new(0), _lock: lock };
        let work = WorkDir(Arc::new(inner));
        work.remove_leftovers()?;
        Ok(work)
    }

    /// The name that this directory gives its process.
    pub fn worker(&self) -> &str {
        &self.0.worker
    }

    fn remove_leftovers(&self) -> Result<(), WorkError> {
        let root = &self.0.root;
        for entry in std::fs::read_dir(root).map_err(WorkError::io("list", root))? {
            let path = entry.map_err(WorkError::io("list", root))?.path();
            if path.is_dir() {
                tracing::info!(role = "compact", dir = %path.display(), "leftover of an earlier run removed");
                std::fs::remove_dir_all(&path).map_err(WorkError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// An empty directory for a job, which is removed when dropped.
    pub fn job_dir(&self, name: &str) -> Result<JobDir, WorkError> {
        let path = self.0.root.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(WorkError::io("remove", &path)(e));
            }
            _ => {}
        }
        std::fs::create_dir_all(&path).map_err(WorkError::io("create", &path))?;
        Ok(JobDir(path))
    }

    /// Sets `needed` bytes aside, unless the limit or the disk has not so many. What running jobs have set aside counts even
    /// where it is written already, so the sum errs on the safe side.
    pub fn reserve(&self, needed: u64) -> Result<Reservation, WorkError> {
        let mut reserved = self.0.reserved.lock();
        let free = free_bytes(&self.0.root)?;
        let limit = if self.0.bytes_max > 0 { self.0.bytes_max.min(free) } else { free };
        let available = limit.saturating_sub(*reserved);
        if needed > available {
            return Err(WorkError::NoSpace { needed, available });
        }
        *reserved += needed;
        Ok(Reservation { work: self.clone(), bytes: needed })
    }
}

fn free_bytes(path: &Path) -> Result<u64, WorkError> {
    let stat = rustix::fs::statvfs(path).map_err(|e| WorkError::io("stat", path)(e.into()))?;
    let spare = (stat.f_blocks / SPARE_SHARE).saturating_mul(stat.f_frsize);
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(spare))
}

/// A job's directory.
#[derive(Debug)]
pub struct JobDir(PathBuf);

impl JobDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for JobDir {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(role = "compact", dir = %self.0.display(), %err, "work directory not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_a_directory_and_nothing_left_over() {
        let tmp = tempfile::tempdir().unwrap();
        let work = WorkDir::claim(tmp.path(), 0).unwrap();
        assert!(matches!(WorkDir::claim(tmp.path(), 0), Err(WorkError::InUse(_))));
        let job = work.job_dir("0@1").unwrap();
        std::fs::write(job.path().join("f"), "x").unwrap();
        std::mem::forget(job);
        let worker = work.worker().to_owned();
        drop(work);
        let work = WorkDir::claim(tmp.path(), 0).unwrap();
        assert_eq!(work.worker(), worker);
        let root = tmp.path().join("compact");
        assert!(!root.join("0@1").exists());
        drop(work.job_dir("0@2").unwrap());
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 2, "lock and name");
    }

    #[test]
    fn space_is_bounded() {
        let tmp = tempfile::tempdir().unwrap();
        let work = WorkDir::claim(tmp.path(), 1000).unwrap();
        let first = work.reserve(600).unwrap();
        assert!(matches!(work.reserve(600), Err(WorkError::NoSpace { needed: 600, available: 400 })));
        drop(first);
        work.reserve(1000).unwrap();
        assert!(WorkDir::claim(&tmp.path().join("b"), 0).unwrap().reserve(u64::MAX).is_err());
    }
}
