//! A configuration file that is read again when it changes.
//!
//! The file is looked at every interval, and at SIGHUP. Looking (rather than being told by the kernel) also sees
//! files that are replaced through symbolic links, as Kubernetes does, and files on network mounts. Only another content
//! counts as a change; SIGHUP always does.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{ConfigError, read_file};

/// What tells whether a file may have another content: inode, length, times of content and of inode.
type Stamp = (u64, u64, (i64, i64), (i64, i64));

/// A file that is watched.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    interval: Duration,
    stamp: Option<Stamp>,
    /// The content that was read last; `None` when it could not be read.
    content: Option<String>,
    hangups: Option<Signal>,
}

impl WatchedFile {
    /// Reads the file a first time. Must be called inside a tokio runtime.
    ///
    /// Errors: the file cannot be read.
    pub fn open(path: &Path, interval: Duration) -> Result<(Self, String), ConfigError> {
        let stamp = stamp(path);
        let content = read_file(path)?;
        let hangups = signal(SignalKind::hangup()).ok();
        let watched =
            WatchedFile { path: path.to_owned(), interval, stamp, content: Some(content.clone()), hangups };
        Ok((watched, content))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for another content, or for SIGHUP, and returns the content.
    ///
    /// Errors: the file cannot be read; said once until that changes.
    pub async fn changed(&mut self) -> Result<String, ConfigError> {
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(self.interval) => false,
                () = hangup(&mut self.hangups) => true,
            };
            let path = self.path.clone();
            let before = self.stamp;
            let look = move || {
                let now = stamp(&path);
                (now != before || asked).then(|| (now, read_file(&path)))
            };
            let Ok(Some((now, read))) = tokio::task::spawn_blocking(look).await else { continue };
            self.stamp = now;
            match read {
                Ok(content) if asked || self.content.as_ref() != Some(&content) => {
                    self.content = Some(content.clone());
                    return Ok(content);
                }
                Ok(_) => {}
                Err(error) if asked || self.content.is_some() => {
                    self.content = None;
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }
}

async fn hangup(signals: &mut Option<Signal>) {
    if let Some(signals) = signals
        && signals.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    let (content, inode) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some((meta.ino(), meta.len(), content, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_content_counts_and_so_does_a_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("f"), dir.path().join("g"));
        assert!(WatchedFile::open(&path, Duration::from_millis(5)).is_err());
        std::fs::write(&path, "one").unwrap();
        let (mut file, first) = WatchedFile::open(&path, Duration::from_millis(5)).unwrap();
        assert_eq!(first, "one");
        // Touched, but the same; then replaced as a whole.
        std::fs::write(&path, "one").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), file.changed()).await.is_err());
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(file.changed().await.unwrap(), "two");
        std::fs::remove_file(&path).unwrap();
        assert!(file.changed().await.unwrap_err().to_string().contains("cannot read"));
        assert!(tokio::time::timeout(Duration::from_millis(50), file.changed()).await.is_err(), "said once");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.changed().await.unwrap(), "two", "it is back");
    }
}
