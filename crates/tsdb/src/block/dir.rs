//! Block directories: names, listing, deletion, leftovers of crashes.

use std::fs::File;
use std::path::{Path, PathBuf};

use chronolith_model::BlockId;

use super::{BlockFile, META_FILE};
use crate::{Error, Result};

/// Name of the index in a block.
pub(crate) const INDEX_FILE: &str = "index";
/// Name of the directory of chunk segments in a block.
pub(crate) const CHUNKS_DIR: &str = "chunks";
/// What is put behind the ULID while a block is being written.
pub(crate) const CREATION_SUFFIX: &str = ".tmp-for-creation";
/// What is put behind the ULID while a block is being deleted.
const DELETION_SUFFIX: &str = ".tmp-for-deletion";
/// What older versions of Prometheus leave behind.
const OLD_SUFFIX: &str = ".tmp";

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))
}

/// The blocks in `parent`, by id, which is by age. A directory that does not exist has none.
pub fn list_blocks(parent: &Path) -> Result<Vec<(BlockId, PathBuf)>> {
    let mut blocks = Vec::new();
    for (name, path) in entries(parent)? {
        if let Ok(id) = name.parse() {
            blocks.push((id, path));
        }
    }
    blocks.sort();
    Ok(blocks)
}

/// Removes what interrupted writes and deletions left in `parent`. Gives the number of directories removed.
pub fn remove_leftovers(parent: &Path) -> Result<usize> {
    let mut removed = 0;
    for (name, path) in entries(parent)? {
        let suffixes = [CREATION_SUFFIX, DELETION_SUFFIX, OLD_SUFFIX];
        let of_block = |s: &&str| name.strip_suffix(*s).is_some_and(|id| id.parse::<BlockId>().is_ok());
        if suffixes.iter().any(of_block) {
            std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Deletes a block so that a crash leaves it whole or as a leftover. Readers that have it open keep their data.
pub fn delete_block(dir: &Path) -> Result<()> {
    let mut tmp = dir.as_os_str().to_owned();
    tmp.push(DELETION_SUFFIX);
    let tmp = PathBuf::from(tmp);
    std::fs::rename(dir, &tmp).map_err(Error::io("rename", dir))?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    std::fs::remove_dir_all(&tmp).map_err(Error::io("remove", &tmp))
}

/// The files that Thanos lists in a block's meta.json: segments, index, and meta.json itself without a size.
pub fn block_files(dir: &Path) -> Result<Vec<BlockFile>> {
    let mut files = Vec::new();
    let mut add = |rel_path: String, path: &Path| {
        let size_bytes = std::fs::metadata(path).map_err(Error::io("stat", path))?.len();
        files.push(BlockFile { rel_path, size_bytes, ..BlockFile::default() });
        Ok::<_, Error>(())
    };
    for (name, path) in entries(&dir.join(CHUNKS_DIR))? {
        add(format!("{CHUNKS_DIR}/{name}"), &path)?;
    }
    add(INDEX_FILE.to_owned(), &dir.join(INDEX_FILE))?;
    files.push(BlockFile { rel_path: META_FILE.to_owned(), ..BlockFile::default() });
    files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    Ok(files)
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let list = match std::fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    let mut out = Vec::new();
    for entry in list {
        let entry = entry.map_err(Error::io("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            out.push((name, entry.path()));
        }
    }
    Ok(out)
}
