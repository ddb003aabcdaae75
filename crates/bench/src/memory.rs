//! Anonymous memory of a process, and its peak.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Anonymous memory of a process right now.
pub(crate) fn anonymous_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "RssAnon:")
}

/// Peak of all resident memory since the process began, page cache of mapped files included.
pub(crate) fn peak_resident_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Samples a process's anonymous memory every 20 ms: the kernel keeps a peak of all resident memory only, which
/// counts page cache of mapped files.
pub(crate) struct MemoryWatch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// What the process held when it was idle: set by the owner, zero before.
    pub(crate) idle: u64,
}

impl MemoryWatch {
    /// Watches a process from now on.
    pub(crate) fn start(pid: u32) -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (p, s) = (Arc::clone(&peak), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !s.load(Ordering::Relaxed) {
                let Some(bytes) = anonymous_bytes(pid) else { return };
                p.fetch_max(bytes, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        MemoryWatch { peak, stop, idle: 0 }
    }

    /// The peak since the start or the last [`MemoryWatch::forget`].
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Forgets the peak so far.
    pub(crate) fn forget(&self) {
        self.peak.store(0, Ordering::Relaxed);
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
