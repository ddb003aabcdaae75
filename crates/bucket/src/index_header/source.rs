//! A block's index header, opened when it is needed and closed when it is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use tokio::sync::Mutex;

use super::{IndexHeader, build::build};
use crate::upload::blocking;
use crate::{Error, ErrorKind, Result};

/// Name of the local file in the block's directory.
const FILE: &str = "index-header";

/// Makes, opens and closes one block's header. While closed it costs a path.
#[derive(Debug)]
pub struct HeaderSource {
    bucket: Bucket,
    block: BlockId,
    path: PathBuf,
    index_bytes: Option<u64>,
    /// The local file was there once: whoever looks at thousands of blocks every minute need not ask the disk again.
    made: AtomicBool,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    header: Arc<IndexHeader>,
    used: Instant,
}

impl HeaderSource {
    /// The header of `block`, kept at `<data_dir>/<block>/index-header`. `index_bytes` is the size of the index
    /// where it is known.
    pub fn new(bucket: Bucket, block: BlockId, data_dir: &Path, index_bytes: Option<u64>) -> Self {
        let path = data_dir.join(block.to_string()).join(FILE);
        HeaderSource {
            bucket,
            block,
            path,
            index_bytes,
            made: AtomicBool::new(false),
            open: Mutex::new(None),
        }
    }

    /// The open header: as it is, or from the local file, or made from the bucket. Callers at the same time share one
    /// attempt.
    pub async fn get(&self) -> Result<Arc<IndexHeader>> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_mut() {
            open.used = Instant::now();
            return Ok(open.header.clone());
        }
        let header = match self.open_local().await {
            Ok(header) => header,
            Err(err) => {
                if err.kind() != ErrorKind::NotFound {
                    tracing::warn!(block = %self.block, err = err.chain(), "index header not usable, made again");
                }
                build(&self.bucket, self.block, self.index_bytes, &self.path).await?;
                self.open_local().await?
            }
        };
        self.made.store(true, Ordering::Relaxed);
        let header = Arc::new(header);
        *open = Some(Open { header: header.clone(), used: Instant::now() });
        Ok(header)
    }

    async fn open_local(&self) -> Result<IndexHeader> {
        let (path, block) = (self.path.clone(), self.block);
        blocking(move || IndexHeader::open(&path, block)).await
    }

    /// True when the local file is known to have been there. Should somebody have removed it, [`HeaderSource::get`] makes it
    /// again.
    pub fn is_made(&self) -> bool {
        self.made.load(Ordering::Relaxed)
    }

    /// Looks whether the local file is there, on the calling thread.
    pub fn look(&self) -> bool {
        let made = self.path.exists();
        self.made.store(made, Ordering::Relaxed);
        made
    }

    /// Makes the local file if it is not there, without keeping it open.
    pub async fn prepare(&self) -> Result<()> {
        let open = self.open.lock().await;
        if open.is_none() && !tokio::fs::try_exists(&self.path).await.unwrap_or(false) {
            build(&self.bucket, self.block, self.index_bytes, &self.path).await?;
        }
        self.made.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Closes the header when nobody has asked for it for `idle`. Queries that hold it keep it. True when it was
    /// closed.
    pub fn close_if_idle(&self, idle: Duration) -> bool {
        // When the lock is taken somebody is using it.
        let Ok(mut open) = self.open.try_lock() else { return false };
        let is_idle = open.as_ref().is_some_and(|o| o.used.elapsed() >= idle);
        if is_idle {
            *open = None;
        }
        is_idle
    }

    /// Bytes of memory; 0 while closed.
    pub fn memory_bytes(&self) -> usize {
        self.open.try_lock().ok().and_then(|o| o.as_ref().map(|o| o.header.memory_bytes())).unwrap_or(0)
    }

    /// Removes the local file, and its directory when nothing else is in it, for blocks that are gone. A query that
    /// holds the header keeps its mapping.
    pub async fn remove(&self) -> Result<()> {
        *self.open.lock().await = None;
        self.made.store(false, Ordering::Relaxed);
        let path = self.path.clone();
        blocking(move || remove_local(&path)).await
    }

    /// Removes the headers below `data_dir` of blocks that `keep` does not know: what an earlier run left. Nothing
    /// but headers is touched.
    pub async fn remove_others(
        data_dir: &Path,
        keep: impl Fn(BlockId) -> bool + Send + 'static,
    ) -> Result<usize> {
        let dir = data_dir.to_owned();
        blocking(move || {
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
                Err(e) => return Err(Error::io("list", &dir)(e)),
            };
            let mut removed = 0;
            for entry in entries.flatten() {
                let id = entry.file_name().to_str().and_then(|name| name.parse::<BlockId>().ok());
                let path = entry.path().join(FILE);
                if id.is_some_and(|id| !keep(id)) && path.exists() {
                    remove_local(&path)?;
                    removed += 1;
                }
            }
            Ok(removed)
        })
        .await
    }
}

fn remove_local(path: &Path) -> Result<()> {
    for file in [path, &path.with_extension("tmp")] {
        match std::fs::remove_file(file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", file)(e)),
            _ => {}
        }
    }
    if let Some(dir) = path.parent() {
        // Fails where something else lies in it, which then stays.
        let _ = std::fs::remove_dir(dir);
    }
    Ok(())
}
