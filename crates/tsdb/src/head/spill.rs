//! Complete chunks on disk: files that hold what would otherwise lie in memory until the next cut.
//!
//! ```text
//! shard ── a segment is full ── the writer that filled it, without a lock ── spill/00000007 ── mapped, segment freed
//! ```
//!
//! A spill file is a cache of what the log (and a snapshot) already hold: it is never synced and never read by another
//! process. Opening the database removes whatever files a crash has left, and replay spills anew. So nothing that happens to
//! a file's name or to the disk under it can lose an acknowledged sample.
//!
//! All tenants share the files: a file is made when a segment is full somewhere, and a tenant that never fills one costs no
//! file and no mapping. A file lives as long as one segment in it, or one reader's slice of a segment, and is removed
//! with the last.
//!
//! When a write fails (the disk is full), the segment stays in memory, which is where it was, and the next
//! [`SKIPPED_AFTER_FAILURE`] full segments stay there without an attempt; what stayed is written with the next segment that
//! can be.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::mmap::map_part;

/// Length of a file, reserved but not filled when it is made. A million series with three hours of samples fill 160: few
/// mappings (Linux allows 65,530), and a tenant that goes idle keeps no more than this from being removed. Smaller in tests,
/// so that they fill several.
const FILE_BYTES: u64 = if cfg!(test) { 2 << 20 } else { 16 << 20 };
/// Segments that stay in memory without an attempt after a failed one: 4 MiB.
const SKIPPED_AFTER_FAILURE: u32 = 16;

/// What a database has on disk instead of in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpillStats {
    /// Bytes of segments in files that still exist.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Segments that could not be written, each attempt counted.
    pub failures: u64,
}

#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    files: AtomicU64,
    failures: AtomicU64,
}

/// The spill files of a database.
pub(crate) struct Spill {
    dir: PathBuf,
    open: Mutex<Open>,
    /// Segments to leave alone before the next attempt.
    skip: AtomicU32,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Open {
    file: Option<SpillFile>,
    /// Number of the next file.
    next: u64,
}

/// A file that has room.
#[derive(Clone)]
struct SpillFile {
    file: Arc<File>,
    map: Bytes,
    /// Bytes in it that are written or being written.
    used: u64,
    held: Arc<AtomicU64>,
}

/// Removes the file once nobody looks at it any more.
struct Mapped<M> {
    map: M,
    path: PathBuf,
    held: Arc<AtomicU64>,
    counters: Arc<Counters>,
}

impl<M: AsRef<[u8]>> AsRef<[u8]> for Mapped<M> {
    fn as_ref(&self) -> &[u8] {
        self.map.as_ref()
    }
}

impl<M> Drop for Mapped<M> {
    fn drop(&mut self) {
        // It may be gone: then somebody else removed it, or the next start will.
        let _ = fs::remove_file(&self.path);
        self.counters.files.fetch_sub(1, Ordering::Relaxed);
        self.counters.bytes.fetch_sub(self.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Spill {
    /// Files in `dir`, which is made when the first is. What is there is removed: nobody knows any more what it holds.
    pub(crate) fn new(dir: &Path) -> Self {
        match fs::remove_dir_all(dir) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %err, "cannot remove spilled chunks of the last run");
            }
            _ => {}
        }
        Spill {
            dir: dir.to_owned(),
            open: Mutex::default(),
            skip: AtomicU32::new(0),
            counters: Arc::default(),
        }
    }

    /// What is on disk.
    pub(crate) fn stats(&self) -> SpillStats {
        SpillStats {
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            files: self.counters.files.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
        }
    }

    /// False for a while after a failure. To be asked once for each segment that has become full.
    pub(crate) fn is_due(&self) -> bool {
        self.skip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }

    /// Writes a segment and answers with the same bytes in a mapped file; `None` when that failed.
    pub(crate) fn write(&self, bytes: &[u8]) -> Option<Bytes> {
        match self.try_write(bytes) {
            Ok(mapped) => Some(mapped),
            Err(err) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                self.skip.store(SKIPPED_AFTER_FAILURE, Ordering::Relaxed);
                tracing::warn!(
                    dir = %self.dir.display(), %err,
                    "cannot write complete chunks to disk, they stay in memory"
                );
                None
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<Bytes> {
        let (to, at) = {
            let mut open = self.open.lock();
            let fits = open.file.as_ref().is_some_and(|f| f.used + bytes.len() as u64 <= f.map.len() as u64);
            if !fits {
                // First the old one: without segments in it, it is removed.
                open.file = None;
                let number = open.next;
                open.next += 1;
                open.file = Some(self.create(number, FILE_BYTES.max(bytes.len() as u64))?);
            }
            let file = open.file.as_mut().expect("it has just been made");
            let at = file.used;
            file.used += bytes.len() as u64;
            (file.clone(), at)
        };
        // A part that could not be written stays unused.
        to.file.write_all_at(bytes, at)?;
        let at = at as usize;
        let mapped = to.map.slice(at..at + bytes.len());
        // There are file systems (network ones) whose mappings do not show what was written a moment ago.
        if mapped != bytes {
            return Err(io::Error::other("the mapping does not show what was written"));
        }
        to.held.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(mapped)
    }

    fn create(&self, number: u64, len: u64) -> io::Result<SpillFile> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(format!("{number:08}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let map = file.set_len(len).and_then(|()| map_part(&file, len as usize)).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        self.counters.files.fetch_add(1, Ordering::Relaxed);
        let held = Arc::new(AtomicU64::new(0));
        let mapped = Mapped { map, path, held: Arc::clone(&held), counters: Arc::clone(&self.counters) };
        Ok(SpillFile { file: Arc::new(file), map: Bytes::from_owner(mapped), used: 0, held })
    }
}

impl std::fmt::Debug for Spill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spill").field("dir", &self.dir).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).map_or(0, Iterator::count)
    }

    fn segment(i: u8) -> Vec<u8> {
        vec![i; 128 << 10]
    }

    #[test]
    fn files_go_with_the_last_slice_of_them() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("spill");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("00000000"), b"left by a crash").unwrap();
        let spill = Spill::new(&dir);
        assert_eq!((files(&dir), spill.stats()), (0, SpillStats::default()));
        // Three files: 16 segments in each.
        let mut kept: Vec<Bytes> = (0..40).map(|i| spill.write(&segment(i)).unwrap()).collect();
        assert!(kept.iter().zip(0..).all(|(b, i)| *b == segment(i)[..]));
        assert_eq!((files(&dir), spill.stats().bytes), (3, 40 << 17));
        let reader = kept[3].slice(5..10);
        kept.drain(..16);
        assert_eq!(files(&dir), 3);
        assert_eq!(reader[..], [3; 5]);
        drop(reader);
        assert_eq!((files(&dir), spill.stats().bytes, spill.stats().files), (2, 24 << 17, 2));
        // Names taken away do no harm.
        fs::remove_dir_all(&dir).unwrap();
        assert!(kept.iter().zip(16..).all(|(b, i)| *b == segment(i)[..]));
        kept.extend((40..60).map(|i| spill.write(&segment(i)).unwrap()));
        assert!(kept.iter().zip(16..).all(|(b, i)| *b == segment(i)[..]));
        drop(kept);
        drop(spill);
        assert_eq!(files(&dir), 0);
    }

    #[test]
    fn a_full_disk_is_left_alone_for_a_while() {
        let root = tempfile::tempdir().unwrap();
        let spill = Spill::new(&root.path().join("spill"));
        // Every write to this device says that no space is left.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        spill.open.lock().file = Some(SpillFile {
            file: Arc::new(full),
            map: Bytes::from(vec![0; 4 << 20]),
            used: 0,
            held: Arc::default(),
        });
        assert!(spill.is_due());
        assert_eq!(spill.write(&segment(1)), None);
        for _ in 0..SKIPPED_AFTER_FAILURE {
            assert!(!spill.is_due());
        }
        assert!(spill.is_due());
        spill.open.lock().file = None;
        assert_eq!(spill.write(&segment(2)).unwrap(), segment(2));
        assert_eq!(spill.stats(), SpillStats { bytes: 128 << 10, files: 1, failures: 1 });
    }

    #[test]
    fn a_mapping_that_shows_other_bytes_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let spill = Spill::new(root.path());
        let file = tempfile::tempfile().unwrap();
        spill.open.lock().file = Some(SpillFile {
            file: Arc::new(file),
            map: Bytes::from(vec![0; 4 << 20]),
            used: 0,
            held: Arc::default(),
        });
        assert_eq!(spill.write(&segment(1)), None);
    }
}
