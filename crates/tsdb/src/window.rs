//! A file read forward through a buffer, for whoever reads all of a large file once: memory stays at the buffer, where
//! a mapping would count every page that was touched.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::{Error, Result};

/// A buffered view of a finished file. Reads may go anywhere; forward ones are cheap.
#[derive(Debug)]
pub(crate) struct FileWindow {
    file: File,
    name: Arc<str>,
    path: std::path::PathBuf,
    len: u64,
    /// What lies in the file from `start` on.
    buf: Vec<u8>,
    start: u64,
    read_bytes: usize,
}

impl FileWindow {
    /// Opens a file; `read_bytes` are read at a time.
    pub(crate) fn open(path: &Path, read_bytes: usize) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Self::new(file, path, read_bytes)
    }

    /// The same over a file that is open, as long as it is now.
    pub(crate) fn new(file: File, path: &Path, read_bytes: usize) -> Result<Self> {
        let len = file.metadata().map_err(Error::io("stat", path))?.len();
        let name = path.display().to_string().into();
        Ok(FileWindow { file, name, path: path.to_owned(), len, buf: Vec::new(), start: 0, read_bytes })
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The file's name in errors.
    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Exactly `len` bytes from `offset` on.
    #[inline]
    pub(crate) fn get(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let bytes = self.up_to(offset, len)?;
        if bytes.len() < len {
            let what = format!("{len} bytes expected, {} left", bytes.len());
            return Err(Error::corrupt(&self.name, offset, what));
        }
        // Borrowed again, since the error above needs the name.
        let at = (offset - self.start) as usize;
        Ok(&self.buf[at..at + len])
    }

    /// The `len` bytes from `offset` on, or as many as the file has.
    #[inline]
    pub(crate) fn up_to(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let inside = offset
            .checked_sub(self.start)
            .is_some_and(|at| at.saturating_add(len as u64) <= self.buf.len() as u64);
        if !inside {
            self.fill(offset, len)?;
        }
        let at = (offset - self.start) as usize;
        let end = (at + len).min(self.buf.len());
        Ok(&self.buf[at.min(end)..end])
    }

    #[cold]
    fn fill(&mut self, offset: u64, len: usize) -> Result<()> {
        let known = match offset.checked_sub(self.start) {
            Some(at) if at <= self.buf.len() as u64 => {
                self.buf.drain(..at as usize);
                self.buf.len()
            }
            _ => {
                self.buf.clear();
                0
            }
        };
        self.start = offset;
        let left = self.len.saturating_sub(offset + known as u64);
        let want = (len.max(self.read_bytes).saturating_sub(known) as u64).min(left) as usize;
        self.buf.resize(known + want, 0);
        let read = self.file.read_exact_at(&mut self.buf[known..], offset + known as u64);
        read.map_err(|e| {
            self.buf.clear();
            Error::io("read", &self.path)(e)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &data).unwrap();
        let mut w = FileWindow::open(&path, 100).unwrap();
        for (offset, len) in
            [(0, 5), (3, 99), (90, 400), (100, 1), (9_990, 10), (50, 60), (5_000, 0), (5_001, 300)]
        {
            assert_eq!(w.get(offset as u64, len).unwrap(), &data[offset..offset + len], "{offset} {len}");
        }
        assert!(w.get(9_999, 2).unwrap_err().to_string().contains("2 bytes expected, 1 left"));
        assert_eq!(w.up_to(9_999, 2).unwrap(), &data[9_999..]);
        assert!(w.up_to(20_000, 2).unwrap().is_empty());
        assert_eq!(w.get(7, 3).unwrap(), &data[7..10]);
    }
}
