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

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding, XorState};
use chronolith_model::write::encode_labels;
use chronolith_model::{Exemplar, Labels, TenantId};
use crossbeam_channel::bounded;
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::head::{
    ChunkAt, Fingerprint, Growing, Head, LateFloat, LateHistogram, LazyShard, OutOfOrder, Segment, Segments,
    Shard, encode_late,
};
use crate::mmap::map_file;
use crate::wal::{
    FRAME_HEADER_BYTES, FrameReader, Heads, frame_begin, frame_end, put_exemplar_value, put_labels,
    put_metadata_entry, put_sample, put_uvarint, segment_header, sync_dir, take_exemplar_value, take_labels,
    take_metadata_entry, take_sample, take_uvarint, unzigzag, zigzag,
};

/// Snapshots that are kept.
const KEPT: usize = 2;
/// Bytes after which a frame of other things ends.
const BYTES_PER_FRAME: usize = 256 << 10;
/// Series in one frame.
const SERIES_PER_FRAME: u32 = 1024;
/// Segments up to this size are loaded into memory, larger ones stay in the snapshot's file, mapped.
const COPIED_BYTES_MAX: usize = 32 << 10;

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

struct Writer {
    out: BufWriter<File>,
    frame: Vec<u8>,
    frames: u64,
}

impl Writer {
    fn frame(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<()> {
        self.frame.clear();
        let at = frame_begin(&mut self.frame);
        fill(&mut self.frame);
        frame_end(&mut self.frame, at);
        self.frames += 1;
        self.out.write_all(&self.frame)
    }
}

fn put_time(out: &mut Vec<u8>, t: i64) {
    put_uvarint(out, zigzag(t));
}

/// Writes the snapshot `id` of these heads.
pub(crate) fn write<'a>(
    dir: &Path,
    id: u64,
    heads: impl Iterator<Item = (&'a TenantId, &'a Head)>,
) -> std::io::Result<()> {
    let tmp = dir.join(format!("{id:08}.tmp"));
    let mut w =
        Writer { out: BufWriter::with_capacity(1 << 20, File::create(&tmp)?), frame: Vec::new(), frames: 0 };
    w.out.write_all(&segment_header(id))?;
    for (tenant, head) in heads {
        let number = u64::from(head.number);
        w.frame(|out| {
            out.push(1);
            put_uvarint(out, number);
            out.extend_from_slice(tenant.as_str().as_bytes());
        })?;
        for index in 0..head.shards.len() {
            write_shard(&mut w, head, index)?;
        }
        // After the shards: every symbol that they name is there.
        write_symbols(&mut w, head)?;
        write_exemplars(&mut w, head)?;
        write_metadata(&mut w, head)?;
    }
    let frames = w.frames;
    w.frame(|out| {
        out.push(6);
        put_uvarint(out, frames);
    })?;
    let file = w.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&tmp, path(dir, id))?;
    sync_dir(dir)
}

/// A frame of series is copied while the shard is locked and written while it is not. Chunks that are completed meanwhile lie
/// in segments that are taken afterwards; no cut runs, so none goes.
fn write_shard(w: &mut Writer, head: &Head, index: usize) -> std::io::Result<()> {
    let number = u64::from(head.number);
    let (live, floor) = {
        let shard = head.shards[index].lock();
        (shard.live, shard.floor)
    };
    if live == 0 && floor == i64::MIN {
        return Ok(());
    }
    // First for the number of series, then again for what is known at the end.
    write_shard_frame(w, head, index, 0, &[])?;
    let mut next = 0;
    let (mut series, mut beside) = (Vec::new(), Vec::new());
    loop {
        series.clear();
        beside.clear();
        let more = {
            let shard = head.shards[index].lock();
            let end = shard.slots().min(next + SERIES_PER_FRAME);
            for slot in next..end {
                if shard.live_series(slot).is_some() {
                    put_series(&mut series, &shard, slot);
                    put_beside(&mut beside, &shard, slot);
                }
            }
            next = end;
            end < shard.slots()
        };
        for (kind, batch) in [(4, &series), (7, &beside)] {
            if batch.is_empty() {
                continue;
            }
            w.frame(|out| {
                out.push(kind);
                put_uvarint(out, number);
                put_uvarint(out, index as u64);
                out.extend_from_slice(batch);
            })?;
        }
        if !more {
            break;
        }
    }
    let (first, segments) = head.shards[index].lock().segments.export();
    write_shard_frame(w, head, index, first, &segments)?;
    for (i, segment) in segments.iter().enumerate() {
        let Some(segment) = segment else { continue };
        w.frame(|out| {
            out.push(3);
            for v in [number, index as u64, i as u64, zigzag(segment.maxt)] {
                put_uvarint(out, v);
            }
            out.extend_from_slice(&segment.bytes);
        })?;
    }
    Ok(())
}

/// What a series has of histograms, and of samples with start timestamps, outside the segments, if anything.
fn put_beside(out: &mut Vec<u8>, shard: &Shard, slot: u32) {
    let growing = shard.growing.get(&slot);
    let ooo = shard.ooo.get(&slot);
    let started = encode_late(ooo.iter().flat_map(|o| &o.open).filter(|s| s.start_ts != 0));
    let closed = ooo.iter().flat_map(|o| &o.closed).filter(|c| c.encoding != Encoding::Xor);
    let closed: Vec<&Chunk> = closed.chain(&started).collect();
    let open = ooo.map_or(&[][..], |o| &o.histograms);
    if growing.is_none() && closed.is_empty() && open.is_empty() {
        return;
    }
    put_uvarint(out, u64::from(slot));
    out.push(u8::from(growing.is_some()));
    if let Some(growing) = growing {
        put_chunk(out, &growing.chunk());
        put_time(out, growing.next_at);
        out.push(u8::from(growing.is_end_known));
    }
    put_uvarint(out, closed.len() as u64);
    closed.into_iter().for_each(|c| put_chunk(out, c));
    put_uvarint(out, open.len() as u64);
    for late in open {
        put_time(out, late.t);
        put_sample(out, (late.t, late.start_ts), 0, &late.histogram);
    }
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

fn write_exemplars(w: &mut Writer, head: &Head) -> std::io::Result<()> {
    let mut batches = vec![Vec::new()];
    {
        let ring = head.exemplars.lock();
        let mut numbers = HashMap::new();
        for (series, labels, exemplar) in ring.iter() {
            if batches.last().is_some_and(|b: &Vec<u8>| b.len() > BYTES_PER_FRAME) {
                batches.push(Vec::new());
                numbers.clear();
            }
            let batch = batches.last_mut().expect("one at least");
            let known = numbers.len();
            let number = *numbers.entry(series).or_insert(known);
            put_uvarint(batch, number as u64);
            if number == known {
                put_labels(batch, labels);
            }
            put_time(batch, exemplar.t);
            put_exemplar_value(batch, exemplar);
        }
    }
    write_batches(w, head, 8, batches)
}

fn write_metadata(w: &mut Writer, head: &Head) -> std::io::Result<()> {
    let mut batches = vec![Vec::new()];
    for (metric, says) in head.metadata.lock().iter() {
        if batches.last().is_some_and(|b: &Vec<u8>| b.len() > BYTES_PER_FRAME) {
            batches.push(Vec::new());
        }
        put_metadata_entry(batches.last_mut().expect("one at least"), metric, says);
    }
    write_batches(w, head, 9, batches)
}

fn write_batches(w: &mut Writer, head: &Head, kind: u8, batches: Vec<Vec<u8>>) -> std::io::Result<()> {
    for batch in batches.into_iter().filter(|b| !b.is_empty()) {
        w.frame(|out| {
            out.push(kind);
            put_uvarint(out, u64::from(head.number));
            out.extend_from_slice(&batch);
        })?;
    }
    Ok(())
}

fn write_shard_frame(
    w: &mut Writer,
    head: &Head,
    index: usize,
    first: u32,
    segments: &[Option<Segment>],
) -> std::io::Result<()> {
    let (live, floor, min_t, max_t) = {
        let shard = head.shards[index].lock();
        (shard.live as u64, shard.floor, shard.min_t, shard.max_t)
    };
    w.frame(|out| {
        out.push(2);
        for v in [u64::from(head.number), index as u64, live, zigzag(floor), zigzag(min_t), zigzag(max_t)] {
            put_uvarint(out, v);
        }
        put_uvarint(out, u64::from(first));
        put_uvarint(out, segments.len() as u64);
    })
}

fn put_series(out: &mut Vec<u8>, shard: &Shard, slot: u32) {
    let series = shard.series(slot);
    put_uvarint(out, u64::from(slot));
    out.extend_from_slice(&series.fp.low.to_le_bytes());
    out.extend_from_slice(&series.fp.high.to_le_bytes());
    let symbols = shard.symbols(series);
    put_uvarint(out, symbols.clone().count() as u64);
    for (name, value) in symbols {
        put_uvarint(out, u64::from(name));
        put_uvarint(out, u64::from(value));
    }
    // No chunk has the highest segment number, so one more fits.
    put_uvarint(out, u64::from(series.last_chunk.segment) + 1);
    put_uvarint(out, u64::from(series.last_chunk.offset));
    out.push(u8::from(series.last().is_some()));
    if series.last().is_some() {
        out.extend_from_slice(&series.xor.to_bytes());
        put_time(out, series.mint);
        put_time(out, series.next_at);
        let mut words = Vec::new();
        series.write_words(&shard.fragments, &mut words);
        put_uvarint(out, words.len() as u64);
        out.extend_from_slice(&words);
    }
    let ooo = shard.ooo.get(&slot);
    // Those of histograms and with start timestamps follow in a frame of their own.
    let closed = || ooo.iter().flat_map(|o| &o.closed).filter(|c| c.encoding == Encoding::Xor);
    put_uvarint(out, closed().count() as u64);
    for chunk in closed() {
        put_time(out, chunk.mint);
        put_time(out, chunk.maxt);
        put_uvarint(out, chunk.data.len() as u64);
        out.extend_from_slice(&chunk.data);
    }
    let open = || ooo.iter().flat_map(|o| &o.open).filter(|s| s.start_ts == 0);
    put_uvarint(out, open().count() as u64);
    for late in open() {
        put_time(out, late.t);
        out.extend_from_slice(&late.v.to_bits().to_le_bytes());
    }
}

fn write_symbols(w: &mut Writer, head: &Head) -> std::io::Result<()> {
    let mut next = Some(0);
    let mut batch = Vec::new();
    while let Some(from) = next.take() {
        batch.clear();
        // Numbers keep their meaning while no cut runs.
        for (symbol, text) in head.index.read().symbols.iter_from(from) {
            if batch.len() > BYTES_PER_FRAME {
                next = Some(symbol);
                break;
            }
            put_uvarint(&mut batch, u64::from(symbol));
            put_uvarint(&mut batch, text.len() as u64);
            batch.extend_from_slice(text.as_bytes());
        }
        w.frame(|out| {
            out.push(5);
            put_uvarint(out, u64::from(head.number));
            out.extend_from_slice(&batch);
        })?;
    }
    Ok(())
}

/// Loads a snapshot into heads that have just been made. On an error they hold some of it and must be thrown away.
pub(crate) fn load(dir: &Path, id: u64, heads: &mut dyn Heads, threads: usize) -> Result<(), String> {
    let file = File::open(path(dir, id)).map_err(|e| e.to_string())?;
    // Segments stay where they are: a snapshot is never changed, and removing it leaves the mapping.
    let map = map_file(&path(dir, id)).map_err(|e| e.to_string())?;
    let mut reader = FrameReader::open(Box::new(file), id).map_err(|e| e.to_string())?;
    let failed = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let threads = threads.max(1);
        let senders: Vec<_> = (0..threads)
            .map(|_| {
                let (sender, receiver) = bounded::<(Arc<Head>, Bytes)>(16);
                let failed = &failed;
                scope.spawn(move || {
                    let mut loading = Loading::default();
                    for (head, frame) in receiver {
                        if loading.frame(&head, &frame).is_none() {
                            failed.store(true, Ordering::Relaxed);
                        }
                    }
                    if loading.finish().is_none() {
                        failed.store(true, Ordering::Relaxed);
                    }
                });
                sender
            })
            .collect();
        let mut frames = 0u64;
        loop {
            let offset = reader.offset();
            let at = |what: &str| format!("{what} at offset {offset}");
            let frame = reader.next_body().map_err(|e| at(&e.to_string()))?;
            let Some(frame) = frame else { return Err(at("the end is missing")) };
            let parsed = (|| {
                let (&kind, mut rest) = frame.split_first()?;
                Some((kind, take_uvarint(&mut rest)?, rest))
            })();
            let (kind, number, mut rest) = parsed.ok_or_else(|| at("unreadable frame"))?;
            if kind == 6 {
                return if number == frames { Ok(()) } else { Err(at("frames are missing")) };
            }
            frames += 1;
            let number = u32::try_from(number).map_err(|_| at("impossible tenant number"))?;
            if kind == 1 {
                let name = std::str::from_utf8(rest).ok().and_then(|n| TenantId::new(n).ok());
                heads.define(number, name.ok_or_else(|| at("impossible tenant"))?);
                continue;
            }
            let (head, _) = heads.get(number).ok_or_else(|| at("unknown tenant"))?;
            // A shard's frames go to one thread, in order; symbols belong to no shard.
            let shard =
                if matches!(kind, 5 | 8 | 9) { 0 } else { take_uvarint(&mut rest).unwrap_or(0) as usize };
            let to = (number as usize).wrapping_add(shard) % threads;
            let frame = if kind == 3 {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(FRAME_HEADER_BYTES);
                let end = start.saturating_add(frame.len());
                if end > map.len() {
                    return Err(at("the file became shorter"));
                }
                map.slice(start..end)
            } else {
                frame.clone()
            };
            senders[to].send((head, frame)).map_err(|_| at("a worker ended"))?;
            if failed.load(Ordering::Relaxed) {
                return Err(at("unreadable frame"));
            }
        }
    });
    if result.is_ok() && failed.into_inner() {
        return Err("unreadable frame".to_owned());
    }
    result
}

/// What one thread gathers of its shards.
#[derive(Default)]
struct Loading {
    symbols: Vec<(u32, u32)>,
    /// By tenant and shard: the number of the first segment, and the segments.
    segments: HashMap<(u32, usize), LoadedSegments>,
}

type LoadedSegments = (Arc<Head>, u32, Vec<Option<Segment>>);

impl Loading {
    fn frame(&mut self, head: &Arc<Head>, frame: &Bytes) -> Option<()> {
        let (&kind, mut rest) = frame.split_first()?;
        take_uvarint(&mut rest)?;
        if kind == 5 {
            let mut index = head.index.write();
            while !rest.is_empty() {
                let symbol = u32::try_from(take_uvarint(&mut rest)?).ok()?;
                let text = take_slice(&mut rest)?;
                index.symbols.import(symbol, std::str::from_utf8(text).ok()?);
            }
            return Some(());
        }
        if kind == 8 {
            return load_exemplars(head, rest);
        }
        if kind == 9 {
            while !rest.is_empty() {
                let (metric, says) = take_metadata_entry(&mut rest)?;
                head.replay_metadata(&metric, &says);
            }
            return Some(());
        }
        let index = usize::try_from(take_uvarint(&mut rest)?).ok()?;
        let shard: &Mutex<LazyShard> = head.shards.get(index)?;
        match kind {
            2 => {
                let mut next = || take_uvarint(&mut rest);
                let (series, floor, min_t, max_t) =
                    (next()? as usize, unzigzag(next()?), unzigzag(next()?), unzigzag(next()?));
                let (first, count) = (u32::try_from(next()?).ok()?, usize::try_from(next()?).ok()?);
                let mut shard = shard.lock();
                let more = series.saturating_sub(shard.live);
                shard.reserve(more);
                (shard.floor, shard.min_t, shard.max_t) = (floor, min_t, max_t);
                let mut segments = Vec::new();
                segments.resize_with(count, || None);
                self.segments.insert((head.number, index), (Arc::clone(head), first, segments));
            }
            3 => {
                let at = usize::try_from(take_uvarint(&mut rest)?).ok()?;
                let maxt = unzigzag(take_uvarint(&mut rest)?);
                let (_, _, segments) = self.segments.get_mut(&(head.number, index))?;
                // A small one is copied: a tenant that goes idle with it would keep the snapshot from being removed.
                *segments.get_mut(at)? = Some(if rest.len() < COPIED_BYTES_MAX {
                    Segment::in_memory(Bytes::copy_from_slice(rest), maxt)
                } else {
                    Segment::in_file(frame.slice_ref(rest), maxt)
                });
            }
            4 => {
                let mut shard = shard.lock();
                while !rest.is_empty() {
                    self.series(&mut shard, &mut rest)?;
                }
            }
            7 => {
                let mut shard = shard.lock();
                while !rest.is_empty() {
                    load_beside(&mut shard, &mut rest)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn series(&mut self, shard: &mut Shard, rest: &mut &[u8]) -> Option<()> {
        let slot = u32::try_from(take_uvarint(rest)?).ok()?;
        let fp = Fingerprint { low: take_u64(rest)?, high: take_u64(rest)? };
        let count = usize::try_from(take_uvarint(rest)?).ok()?;
        self.symbols.clear();
        for _ in 0..count {
            let name = u32::try_from(take_uvarint(rest)?).ok()?;
            self.symbols.push((name, u32::try_from(take_uvarint(rest)?).ok()?));
        }
        let last_chunk = match take_uvarint(rest)?.checked_sub(1)? {
            segment if segment == u64::from(ChunkAt::NONE.segment) => {
                take_uvarint(rest)?;
                ChunkAt::NONE
            }
            segment => ChunkAt {
                segment: u32::try_from(segment).ok()?,
                offset: u32::try_from(take_uvarint(rest)?).ok()?,
            },
        };
        if shard.live_series(slot).is_some() {
            return None;
        }
        let (&grows, tail) = rest.split_first()?;
        *rest = tail;
        let mut growing = None;
        if grows == 1 {
            let (state, tail) = rest.split_first_chunk::<40>()?;
            *rest = tail;
            let (mint, next_at) = (unzigzag(take_uvarint(rest)?), unzigzag(take_uvarint(rest)?));
            growing = Some((XorState::from_bytes(state), take_slice(rest)?, mint, next_at));
        }
        let mut ooo = OutOfOrder::default();
        for _ in 0..take_uvarint(rest)? {
            let (mint, maxt) = (unzigzag(take_uvarint(rest)?), unzigzag(take_uvarint(rest)?));
            let data = Bytes::copy_from_slice(take_slice(rest)?);
            ooo.closed.push(Chunk { mint, maxt, encoding: Encoding::Xor, data });
        }
        for _ in 0..take_uvarint(rest)? {
            let t = unzigzag(take_uvarint(rest)?);
            ooo.open.push(LateFloat { t, v: f64::from_bits(take_u64(rest)?), start_ts: 0 });
        }
        shard.insert_at(slot, fp, &self.symbols);
        shard.restore(slot, last_chunk, growing, Some(ooo).filter(|o| !o.is_empty()));
        Some(())
    }

    fn finish(self) -> Option<()> {
        for ((_, index), (head, first, segments)) in self.segments {
            head.shards.get(index)?.lock().segments = Segments::import(first, segments);
        }
        Some(())
    }
}

fn load_beside(shard: &mut Shard, rest: &mut &[u8]) -> Option<()> {
    let slot = u32::try_from(take_uvarint(rest)?).ok()?;
    let (&grows, tail) = rest.split_first()?;
    *rest = tail;
    let mut growing = None;
    if grows == 1 {
        let chunk = take_chunk(rest)?;
        let next_at = unzigzag(take_uvarint(rest)?);
        let (&is_end_known, tail) = rest.split_first()?;
        *rest = tail;
        growing = Some(Growing::resume(&chunk, next_at, is_end_known == 1).ok()?);
    }
    let mut late = OutOfOrder::default();
    for _ in 0..take_uvarint(rest)? {
        late.closed.push(take_chunk(rest)?);
    }
    for _ in 0..take_uvarint(rest)? {
        let t = unzigzag(take_uvarint(rest)?);
        let (_, start_ts, histogram) = take_sample(rest, t)?;
        late.histograms.push(LateHistogram { t, start_ts, histogram });
    }
    shard.restore_beside(slot, growing, late)
}

fn load_exemplars(head: &Head, mut rest: &[u8]) -> Option<()> {
    let mut series: Vec<(Fingerprint, Labels)> = Vec::new();
    let mut section = Vec::new();
    let mut ring = head.exemplars.lock();
    while !rest.is_empty() {
        let number = usize::try_from(take_uvarint(&mut rest)?).ok()?;
        if number == series.len() {
            let labels = take_labels(&mut rest)?;
            section.clear();
            encode_labels(labels.iter(), &mut section);
            series.push((head.key().fingerprint(&section), labels));
        }
        let (fp, labels) = series.get(number)?;
        let t = unzigzag(take_uvarint(&mut rest)?);
        let (value, own) = take_exemplar_value(&mut rest)?;
        ring.add(*fp, || labels.clone(), &Exemplar { labels: own, value, t });
    }
    Some(())
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
