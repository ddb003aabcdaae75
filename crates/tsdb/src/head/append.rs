//! The write path of one head.
//!
//! A request is hashed as a whole, grouped by shard, and each shard is locked once. Inside a shard the series are
//! looked up first, for many at a time, so that the cache misses of independent look-ups overlap; only then are the
//! samples appended. What is not found is parsed, checked and either entered as a new series or, when the sender's
//! encoding was not the canonical one, remembered as an alias and taken through the same path once more.
//!
//! Here is the way of a request. Which series it means is found in [`sought`], new ones are entered in [`enter`], and what
//! becomes of their samples is in [`samples`].

mod enter;
mod samples;
mod scratch;
mod sought;

use std::sync::atomic::Ordering;

use chronolith_model::{WriteBatch, WriteSeries};

use super::Head;
use super::known::Place;
use super::outcome::{Appended, RejectReason};
use super::shard::{Bounds, Shard, Slot};
use crate::db::Limits;
use crate::wal::{RecordKind, Wal, frame_begin, frame_end, put_groups, put_series};
pub(crate) use scratch::Scratch;
use scratch::{Groups, NewSeries};

/// Series that are looked up before their samples are appended: enough to overlap misses, few enough that their
/// lines stay in the first-level cache.
const LOOKUP_BATCH: usize = 64;

/// Times beyond are out of bounds: the HTTP API writes times as JSON numbers, which are exact up to 2^53, and nothing that
/// adds a range to a time overflows.
const TIME_MAX_MS: i64 = 1 << 53;
const TIME_MIN_MS: i64 = -TIME_MAX_MS;

/// Time of a batch's first sample.
fn first_time(batch: &WriteBatch) -> Option<i64> {
    let times = |s: WriteSeries<'_>| s.samples.first().map(|s| s.t).or(s.histograms.first().map(|h| h.0));
    batch.iter().find_map(times)
}

/// What the appending of one request needs beside the scratch.
struct Request<'a> {
    head: &'a Head,
    batch: &'a WriteBatch,
    wal: Option<&'a Wal>,
    bounds: Bounds,
    limits: Limits,
    /// Newest time that is taken.
    max_valid: i64,
    /// Start timestamps are kept.
    start_ts: bool,
}

impl Head {
    /// Appends the batch. The scratch then holds the framed records of the samples taken, to be logged by the
    /// caller; series records have been logged.
    pub(crate) fn append(
        &self,
        batch: &WriteBatch,
        late: bool,
        wal: Option<&Wal>,
        scratch: &mut Scratch,
    ) -> Appended {
        let mut out = Appended::default();
        scratch.start();
        let now = (self.options.clock)();
        self.last_write_ms.store(now, Ordering::Relaxed);
        let max_valid = now.saturating_add(self.options.future_max_ms).min(TIME_MAX_MS);
        let mut request = Request {
            head: self,
            batch,
            wal,
            bounds: self.bounds(|| first_time(batch).map(|t| t.min(max_valid))),
            limits: self.tenant_options().limits,
            max_valid,
            start_ts: self.options.start_timestamps && batch.has_start_ts(),
        };
        if late {
            let min = self.max_t.load(Ordering::Relaxed).saturating_sub(self.options.late_window_ms);
            request.bounds.out_of_order_min = request.bounds.out_of_order_min.min(min);
        }
        let s = &mut *scratch;
        match batch.keys() {
            Some(keys) => request.seek_keys(keys, s),
            None => request.seek_sections(s),
        }
        // A counting sort by shard keeps the order of the request inside each shard.
        let shards = self.shards.len();
        s.starts.clear();
        s.starts.resize(shards + 1, 0);
        for sought in &s.sought {
            s.starts[self.shard_of(sought.fp) + 1] += 1;
        }
        for i in 0..shards {
            s.starts[i + 1] += s.starts[i];
        }
        s.order.clear();
        s.order.resize(s.sought.len(), 0);
        let mut next = s.starts.clone();
        for (i, sought) in s.sought.iter().enumerate() {
            let at = &mut next[self.shard_of(sought.fp)];
            s.order[*at as usize] = i as u32;
            *at += 1;
        }
        for shard in 0..shards {
            let range = s.starts[shard] as usize..s.starts[shard + 1] as usize;
            if !range.is_empty() {
                request.append_shard(shard, range, s, &mut out);
            }
        }
        if !s.respelled.is_empty() {
            request.append_respelled(s, &mut out);
        }
        if !s.learnt.is_empty() {
            self.known.write().enter(s.learnt.drain(..), self.series_count());
        }
        self.index_entered(&mut s.series);
        for record in s.records_mut().into_iter().filter(|r| !r.is_empty()) {
            frame_end(record, 0);
        }
        out
    }

    /// Moves to disk what the request has filled. The scratch's records have been handed to the log.
    pub(crate) fn spill_filled(&self, scratch: &mut Scratch) {
        for shard in scratch.filled.drain(..) {
            self.spill(shard);
        }
    }

    /// The window lies behind the newest sample; in an empty head behind `first`, the first one that comes.
    fn bounds(&self, first: impl FnOnce() -> Option<i64>) -> Bounds {
        let window = self.tenant_options().out_of_order_window_ms;
        let out_of_order_min = match self.max_t.load(Ordering::Relaxed) {
            _ if window == 0 => i64::MAX,
            i64::MIN => first().map_or(i64::MAX, |t| t.saturating_sub(window)),
            max_t => max_t.saturating_sub(window),
        };
        Bounds {
            min_valid: self.min_valid.load(Ordering::Relaxed).max(TIME_MIN_MS),
            out_of_order_min,
            range: self.options.block_range_ms,
        }
    }
}

impl Request<'_> {
    fn append_shard(&self, index: usize, range: std::ops::Range<usize>, s: &mut Scratch, out: &mut Appended) {
        let mut slots = [None; LOOKUP_BATCH];
        let mut shard = self.head.shards[index].lock();
        for start in range.clone().step_by(LOOKUP_BATCH) {
            let batch = &s.order[start..range.end.min(start + LOOKUP_BATCH)];
            for (slot, i) in slots.iter_mut().zip(batch) {
                *slot = s.sought[*i as usize].find(&shard);
            }
            let batch_len = batch.len();
            for (k, found) in slots[..batch_len].iter().enumerate() {
                let i = s.order[start + k] as usize;
                let slot = match *found {
                    Some(slot) => Ok(slot),
                    None => self.enter(&mut shard, index, i, s),
                };
                match slot {
                    Ok(slot) => {
                        if found.is_none() || s.sought[i].is_new_to_us() {
                            self.learn(&shard, i, slot, s);
                        }
                        self.append_samples(&mut shard, slot, i, &mut s.groups, out);
                    }
                    Err(None) => {}
                    Err(Some(reason)) => self.reject_series(i, reason, out),
                }
            }
        }
        self.finish_shard(&mut shard, index, s, out);
    }

    /// Notes by which key the series at `slot` goes, where it has one.
    #[inline]
    fn learn(&self, shard: &Shard, i: usize, slot: Slot, s: &mut Scratch) {
        if let Some(keys) = self.batch.keys() {
            s.learnt.push((keys[i], Place::new(shard.series(slot).fp, slot)));
        }
    }

    /// Once more, for the series whose canonical encoding lies in another shard than the one they came in.
    fn append_respelled(&self, s: &mut Scratch, out: &mut Appended) {
        let mut respelled = std::mem::take(&mut s.respelled);
        respelled.sort_by_key(|(_, fp, _)| self.head.shard_of(*fp));
        let sections = std::mem::take(&mut s.sections);
        for group in respelled.chunk_by(|a, b| self.head.shard_of(a.1) == self.head.shard_of(b.1)) {
            let index = self.head.shard_of(group[0].1);
            let mut shard = self.head.shards[index].lock();
            for (i, fp, range) in group {
                let slot = match shard.find(*fp) {
                    Some(slot) => Ok(slot),
                    None => self.insert(&mut shard, *fp, &sections[range.clone()], &mut s.series),
                };
                match slot {
                    Ok(slot) => {
                        let i = *i as usize;
                        self.learn(&shard, i, slot, s);
                        self.append_samples(&mut shard, slot, i, &mut s.groups, out);
                    }
                    Err(reason) => self.reject_series(*i as usize, reason, out),
                }
            }
            self.finish_shard(&mut shard, index, s, out);
        }
        s.respelled = respelled;
        s.sections = sections;
    }

    /// Logs the shard's new series, while nobody else can see them, and encodes the samples taken.
    fn finish_shard(&self, shard: &mut Shard, index: usize, s: &mut Scratch, out: &mut Appended) {
        if s.series.count > 0 {
            let NewSeries { list, count, record, .. } = &mut s.series;
            if let Some(wal) = self.wal {
                record.clear();
                let at = frame_begin(record);
                put_series(record, self.head.number, index, *count, list);
                frame_end(record, at);
                if let Err(err) = wal.append(record) {
                    out.log_error = Some(err);
                }
            }
            list.clear();
            *count = 0;
        }
        if shard.segments.take_full() {
            s.filled.push(index);
        }
        self.head.max_t.fetch_max(shard.max_t, Ordering::Relaxed);
        self.head.min_t.fetch_min(shard.min_t, Ordering::Relaxed);
        let (in_order, late) = match self.start_ts {
            false => (RecordKind::Samples, RecordKind::OutOfOrder),
            true => (RecordKind::StartedSamples, RecordKind::StartedOutOfOrder),
        };
        for (group, record, kind) in
            [(&mut s.groups.in_order, &mut s.samples, in_order), (&mut s.groups.late, &mut s.ooo, late)]
        {
            if group.is_empty() {
                continue;
            }
            if self.wal.is_some() {
                begin(record, kind, self.head.number);
                group.encode(index, self.start_ts, record);
            }
            group.clear();
        }
        self.finish_others(index, s);
    }

    /// As [`Request::finish_shard`], for what few requests have.
    fn finish_others(&self, index: usize, s: &mut Scratch) {
        let Groups { histograms, exemplars, .. } = &mut s.groups;
        if !histograms.is_empty() {
            if self.wal.is_some() {
                begin(&mut s.histograms, RecordKind::Histograms, self.head.number);
                histograms.encode(index, &mut s.histograms);
            }
            histograms.clear();
        }
        if !exemplars.is_empty() {
            if self.wal.is_some() {
                begin(&mut s.exemplars, RecordKind::Exemplars, self.head.number);
                exemplars.encode(index, &mut s.exemplars);
            }
            exemplars.clear();
        }
    }

    fn reject_series(&self, i: usize, reason: RejectReason, out: &mut Appended) {
        let series = self.batch.series(i);
        let t = series.samples.first().map(|s| s.t).or(series.histograms.first().map(|h| h.0)).unwrap_or(0);
        out.reject((self.batch, i), t, series.samples.len() + series.histograms.len(), reason);
    }
}

/// Begins a record of groups, unless it has begun.
#[inline]
fn begin(record: &mut Vec<u8>, kind: RecordKind, tenant: u32) {
    if record.is_empty() {
        frame_begin(record);
        put_groups(record, kind, tenant);
    }
}
