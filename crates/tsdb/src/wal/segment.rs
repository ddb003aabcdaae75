//! Where the segments of the log lie.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A place for numbered, append-only segments.
pub trait SegmentStore: Send + Sync + 'static {
    /// Numbers of all segments, ascending.
    fn list(&self) -> io::Result<Vec<u64>>;
    /// Starts a segment. It must not exist yet, and it is durable (as an empty one) when this returns.
    fn create(&self, id: u64) -> io::Result<Box<dyn SegmentWriter>>;
    /// Reads a segment from its start.
    fn open(&self, id: u64) -> io::Result<Box<dyn Read + Send>>;
    /// Cuts a segment to its first `len` bytes.
    fn truncate(&self, id: u64, len: u64) -> io::Result<()>;
    /// Removes a segment.
    fn remove(&self, id: u64) -> io::Result<()>;
}

/// The open end of a segment.
pub trait SegmentWriter: Send {
    /// Appends bytes. They may be lost until [`SegmentWriter::sync`] has returned.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended so far survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
}

/// Segments as files of a directory, named by eight digits.
#[derive(Debug, Clone)]
pub struct DirStore {
    dir: PathBuf,
}

impl DirStore {
    /// Segments in `dir`, which is created when missing.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        Ok(DirStore { dir: dir.to_owned() })
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:08}"))
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // An empty path is the current directory.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

impl SegmentStore for DirStore {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.len() >= 8 && name.bytes().all(|b| b.is_ascii_digit()) {
                ids.extend(name.parse::<u64>().ok());
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn create(&self, id: u64) -> io::Result<Box<dyn SegmentWriter>> {
        let file = OpenOptions::new().append(true).create_new(true).open(self.path(id))?;
        sync_dir(&self.dir)?;
        Ok(Box::new(FileWriter(file)))
    }

    fn open(&self, id: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.path(id))?))
    }

    fn truncate(&self, id: u64, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(id))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn remove(&self, id: u64) -> io::Result<()> {
        fs::remove_file(self.path(id))
    }
}

struct FileWriter(File);

impl SegmentWriter for FileWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
