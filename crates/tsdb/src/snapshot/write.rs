//! Writing a snapshot, while writes go on.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use chronolith_chunk::{Chunk, Encoding};
use chronolith_model::TenantId;
use hashbrown::HashMap;

use super::{path, put_chunk, put_time};
use crate::head::{Head, Segment, Shard, encode_late};
use crate::wal::{
    frame_begin, frame_end, put_exemplar_value, put_labels, put_metadata_entry, put_sample, put_uvarint,
    segment_header, sync_dir, zigzag,
};

/// Bytes after which a frame of other things ends.
const BYTES_PER_FRAME: usize = 256 << 10;
/// Series in one frame.
const SERIES_PER_FRAME: u32 = 1024;

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
