//! Files mapped into memory, handed out as [`Bytes`] so that slices of them need no copy and no lifetime.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use memmap2::Mmap;

use crate::{Error, Result};

/// Maps a whole file, read only. The mapping lives as long as the last slice of it. An empty file gives no bytes.
///
/// Only for files that are finished: the index and chunk segments of a block, a written index header. They are
/// created under a temporary name, synced, renamed and from then on only ever unlinked, never cut or overwritten.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("stat", path))?.len();
    if len == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: `Mmap::map` is unsafe because another writer could change or cut the file below the mapping: changed
    // bytes would break `&[u8]`'s promise, a cut would raise SIGBUS. Block files and index headers are immutable
    // once they carry their final name (see above; [`crate::index::IndexWriter`] maps its own file only below the
    // position it has written and never rewrites that part), and unlinking keeps the mapped pages. The mapping is
    // private and read only, so nothing in this process can write through it. Someone else truncating block files
    // on disk while we run is outside what a process can defend against; Prometheus has the same exposure.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
    Ok(Bytes::from_owner(map))
}

/// Maps the first `len` bytes of a file that this process goes on to write with `pwrite`. Whoever calls gives out a slice of
/// the mapping only after those bytes were written, and never writes them again; the file is made by this process under a
/// name of its own (`create_new`), is as long as the mapping from the start, and is only ever unlinked.
pub(crate) fn map_part(file: &File, len: usize) -> std::io::Result<impl AsRef<[u8]> + Send + use<>> {
    // SAFETY: as in [`map_file`]. Bytes that a slice shows do not change: see above, and [`crate::head`]'s spill, the only
    // caller, which advances its position before every write and never goes back. Nobody reads the part that is still
    // being written. Writes through the mapping are impossible, it is read only; the file is never cut.
    unsafe { memmap2::MmapOptions::new().len(len).map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_outlive_the_file_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"hello world").unwrap();
        let part = map_file(&path).unwrap().slice(6..);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&part[..], b"world");
        std::fs::write(&path, b"").unwrap();
        assert!(map_file(&path).unwrap().is_empty());
        assert_eq!(map_file(&dir.path().join("x")).unwrap_err().kind(), crate::ErrorKind::NotFound);
    }
}
