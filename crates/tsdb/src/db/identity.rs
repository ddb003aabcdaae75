//! What makes a directory one database: the lock, the key of its fingerprints, the number of its shards.
//!
//! Slots in the log are slots of shards, and shards are chosen by fingerprints, so key and number of shards live as
//! long as the data does. The file `key` and its copy `key.copy`:
//!
//! ```text
//! "CHRONKEY" ‖ version u32 = 1 ‖ shards u32 ‖ key (192 bytes) ‖ crc32c u32        little endian
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use rand::Rng;
use rustix::fs::{FlockOperation, flock};

use super::DbError;
use crate::crc32c;
use crate::head::{KEY_BYTES, Key};
use crate::wal::sync_dir;

const MAGIC: &[u8; 8] = b"CHRONKEY";
const FILE_BYTES: usize = 8 + 4 + 4 + KEY_BYTES + 4;

/// Takes the directory for this process.
pub(super) fn lock(dir: &Path) -> Result<File, DbError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(DbError::io("open", &path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| DbError::Locked(dir.to_owned()))?;
    Ok(file)
}

/// Key and number of shards of the database in `dir`; `shards` for a new one.
pub(super) fn load_or_create(dir: &Path, shards: usize) -> Result<(Key, usize), DbError> {
    let (path, copy) = (dir.join("key"), dir.join("key.copy"));
    let mut damaged = false;
    for file in [&path, &copy] {
        match fs::read(file) {
            Ok(bytes) => match parse(&bytes) {
                Some(found) => {
                    // Whichever of the two is missing or damaged is written again.
                    write(&path, &bytes)?;
                    write(&copy, &bytes)?;
                    sync_dir(dir).map_err(DbError::io("sync", dir))?;
                    return Ok(found);
                }
                None => damaged = true,
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(DbError::Io { op: "read", path: file.clone(), source: e }),
        }
    }
    let has_data = fs::read_dir(dir.join("wal")).is_ok_and(|mut d| d.next().is_some());
    if damaged && has_data {
        return Err(DbError::Damaged { path, what: "neither key nor key.copy can be read".to_owned() });
    }
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(shards as u32).to_le_bytes());
    let mut key = Box::new([0; KEY_BYTES]);
    rand::rng().fill_bytes(&mut key[..]);
    bytes.extend_from_slice(&key[..]);
    let crc = crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    write(&path, &bytes)?;
    write(&copy, &bytes)?;
    sync_dir(dir).map_err(DbError::io("sync", dir))?;
    Ok((Key(key), shards))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DbError> {
    if fs::read(path).is_ok_and(|now| now == bytes) {
        return Ok(());
    }
    write_durably(path, bytes)
}

/// Replaces a small file: temporary file, sync, rename. The caller syncs the directory.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), DbError> {
    let tmp = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(DbError::io("write", &tmp))?;
    fs::rename(&tmp, path).map_err(DbError::io("rename", &tmp))
}

fn parse(bytes: &[u8]) -> Option<(Key, usize)> {
    if bytes.len() != FILE_BYTES || !bytes.starts_with(MAGIC) || bytes[8..12] != 1u32.to_le_bytes() {
        return None;
    }
    let (head, crc) = bytes.split_at(FILE_BYTES - 4);
    if crc != crc32c(head).to_le_bytes() {
        return None;
    }
    let shards = u32::from_le_bytes(bytes[12..16].try_into().ok()?) as usize;
    let key: [u8; KEY_BYTES] = bytes[16..16 + KEY_BYTES].try_into().ok()?;
    (shards.is_power_of_two() && shards <= 256).then(|| (Key(Box::new(key)), shards))
}
