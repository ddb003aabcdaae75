//! Snapshots: what the log's segments below a number made of the heads, so that a restart need not replay them.
//!
//! A snapshot is a file of frames like a log segment (see [`crate::wal`]), named and headed by the number of the first
//! segment that it does not cover. It is written to `<number>.tmp`, synced and renamed. The newest two are kept, and
//! the log from the older one on: when the newest is damaged, the older one and the log take its place.
//!
//! ```text
//! tenant   1 ‖ number ‖ name
//! shard    2 ‖ number ‖ shard ‖ series ‖ floor ‖ oldest ‖ newest ‖ first segment ‖ segments
//! segment  3 ‖ number ‖ shard ‖ index ‖ newest ‖ bytes               a segment of complete chunks, as it lies in memory
//! series   4 ‖ number ‖ shard ‖ count × series
//! symbols  5 ‖ number ‖ count × (symbol ‖ length ‖ text)
//! end      6 ‖ frames before it
//! beside   7 ‖ number ‖ shard ‖ count × beside                      of series in the frames before
//! exempl.  8 ‖ number ‖ count × exemplar                            by the order of their arrival
//! metadata 9 ‖ number ‖ count × entry                               as in the log
//!
//! series:  slot ‖ fingerprint (16 bytes) ‖ count × (name, value symbol) ‖ newest complete chunk (segment + 1, offset)
//!          ‖ 0, or 1 ‖ encoder state (40 bytes) ‖ first time ‖ end ‖ length ‖ words of the growing chunk
//!          ‖ late chunks × (first, last, length, bytes) ‖ late samples × (time, value 8 bytes)
//! beside:  slot ‖ 0, or 1 ‖ growing chunk of histograms, or with start timestamps ‖ end ‖ 1 when the end is an estimate
//!          ‖ late chunks of these kinds × chunk ‖ late histograms × (time, histogram as in the log)
//! chunk:   encoding byte ‖ first, last ‖ length ‖ bytes
//! exemplar: series, a number inside the frame; for a new one its labels ‖ time ‖ value 8 bytes ‖ labels
//! ```
//!
//! Numbers are LEB128, times zigzag. A shard comes as its frame, its series, its frame once more (which then holds) and its
//! segments. Series are copied under the shard's lock, a frame at a time, and written outside of it; samples that came
//! meanwhile are in the snapshot and in the log, and replay tells them apart from new ones.
//!
//! Loading maps the file: segments stay where they are, also after the snapshot has been removed.

mod load;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding};

use crate::wal::{put_uvarint, take_uvarint, unzigzag, zigzag};
pub(crate) use load::load;
pub(crate) use write::write;

/// Snapshots that are kept.
const KEPT: usize = 2;
/// Numbers of the snapshots in `dir`, ascending.
pub(crate) fn list(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.len() >= 8 && name.bytes().all(|b| b.is_ascii_digit()) {
            ids.extend(name.parse::<u64>().ok());
        } else if name.ends_with(".tmp") {
            fs::remove_file(dir.join(name))?;
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:08}"))
}

/// Removes a snapshot that cannot be read.
pub(crate) fn remove(dir: &Path, id: u64) -> std::io::Result<()> {
    fs::remove_file(path(dir, id))
}

/// Removes all but the newest snapshots; the answer is the number of the oldest that stays, if as many are there as
/// are wanted.
pub(crate) fn prune(dir: &Path) -> std::io::Result<Option<u64>> {
    let ids = list(dir)?;
    let (old, kept) = ids.split_at(ids.len().saturating_sub(KEPT));
    for id in old {
        remove(dir, *id)?;
    }
    Ok(kept.first().copied().filter(|_| kept.len() == KEPT))
}

fn put_time(out: &mut Vec<u8>, t: i64) {
    put_uvarint(out, zigzag(t));
}

fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    out.push(chunk.encoding.as_u8());
    put_time(out, chunk.mint);
    put_time(out, chunk.maxt);
    put_uvarint(out, chunk.data.len() as u64);
    out.extend_from_slice(&chunk.data);
}

fn take_chunk(rest: &mut &[u8]) -> Option<Chunk> {
    let (&encoding, tail) = rest.split_first()?;
    *rest = tail;
    let encoding = Encoding::try_from(encoding).ok()?;
    let (mint, maxt) = (unzigzag(take_uvarint(rest)?), unzigzag(take_uvarint(rest)?));
    Some(Chunk { mint, maxt, encoding, data: Bytes::copy_from_slice(take_slice(rest)?) })
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, tail) = rest.split_first_chunk::<8>()?;
    *rest = tail;
    Some(u64::from_le_bytes(*bytes))
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_uvarint(rest)?).ok()?;
    let (slice, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(slice)
}
