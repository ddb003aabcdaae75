//! Loading a snapshot, by several threads.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding, XorState};
use chronolith_model::write::encode_labels;
use chronolith_model::{Exemplar, Labels, TenantId};
use crossbeam_channel::bounded;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{path, take_chunk, take_slice, take_u64};
use crate::head::{
    ChunkAt, Fingerprint, Growing, Head, LateFloat, LateHistogram, LazyShard, OutOfOrder, Segment, Segments,
    Shard,
};
use crate::mmap::map_file;
use crate::wal::{
    FRAME_HEADER_BYTES, FrameReader, Heads, take_exemplar_value, take_labels, take_metadata_entry,
    take_sample, take_uvarint, unzigzag,
};

/// Segments up to this size are loaded into memory, larger ones stay in the snapshot's file, mapped.
const COPIED_BYTES_MAX: usize = 32 << 10;

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
