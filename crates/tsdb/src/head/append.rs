//! The write path of one head.
//!
//! A request is hashed as a whole, grouped by shard, and each shard is locked once. Inside a shard the series are
//! looked up first, for many at a time, so that the cache misses of independent look-ups overlap; only then are the
//! samples appended. What is not found is parsed, checked and either entered as a new series or, when the sender's
//! encoding was not the canonical one, remembered as an alias and taken through the same path once more.

use std::sync::atomic::Ordering;

use chronolith_model::{
    Exemplar, METRIC_NAME, MetricMetadata, Sample, WriteBatch, WriteMetadata, WriteSeries,
};

use super::Head;
use super::exemplars::ExemplarTaken;
use super::histogram::check as check_histogram;
use super::known::Lookup;
use super::metadata::MetadataTaken;
use super::outcome::{REJECTIONS_LISTED_MAX, RejectReason, Rejection};
use super::section::{Fingerprint, canonicalise, describe};
use super::shard::{Bounds, Refusal, Shard, Slot, Taken};
use crate::db::Limits;
use crate::wal::{
    ExemplarGroup, HistogramGroup, RecordKind, SampleGroup, Wal, WalError, frame_begin, frame_end,
    put_groups, put_metadata, put_metadata_entry, put_series, put_series_entry,
};

/// Series that are looked up before their samples are appended: enough to overlap misses, few enough that their
/// lines stay in the first-level cache.
const LOOKUP_BATCH: usize = 64;

/// Buffers of one request, kept by the thread so that a request allocates nothing.
#[derive(Default)]
pub(crate) struct Scratch {
    fingerprints: Vec<Fingerprint>,
    /// Series of the batch in the order of their shards.
    order: Vec<u32>,
    starts: Vec<u32>,
    groups: Groups,
    /// The request's records.
    samples: Vec<u8>,
    ooo: Vec<u8>,
    histograms: Vec<u8>,
    exemplars: Vec<u8>,
    series: NewSeries,
    /// Shards in which the request has filled a segment.
    filled: Vec<usize>,
    /// Canonical sections of series whose encoding was another, and which series of the batch they belong to.
    respelled: Vec<(u32, Fingerprint, std::ops::Range<usize>)>,
    sections: Vec<u8>,
    /// A section that has been rendered.
    rendered: Vec<u8>,
    /// Series of the batch whose keys nobody knows, and keys to be known from now on.
    unknown: Vec<u32>,
    learnt: Vec<(u128, Fingerprint)>,
}

/// What was taken in one shard, for the log.
#[derive(Default)]
struct Groups {
    in_order: SampleGroup,
    late: SampleGroup,
    histograms: HistogramGroup,
    exemplars: ExemplarGroup,
}

impl Scratch {
    /// The request's framed records; those of series have been logged.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Vec<u8>> {
        [&self.samples, &self.ooo, &self.histograms, &self.exemplars].into_iter().filter(|r| !r.is_empty())
    }

    fn records_mut(&mut self) -> [&mut Vec<u8>; 4] {
        [&mut self.samples, &mut self.ooo, &mut self.histograms, &mut self.exemplars]
    }
}

#[derive(Default)]
struct NewSeries {
    list: Vec<u8>,
    count: usize,
    record: Vec<u8>,
    /// Label symbols of the series entered, one series behind the other.
    symbols: Vec<(u32, u32)>,
    /// Series entered in their shards but not in the index yet, and where their symbols end.
    entered: Vec<(u32, std::ops::Range<usize>)>,
    one: Vec<(u32, u32)>,
    canonical: Vec<u8>,
}

/// What a request did, without the commit.
#[derive(Default, Debug)]
pub(crate) struct Appended {
    pub(crate) written: usize,
    pub(crate) histograms_written: usize,
    pub(crate) exemplars_written: usize,
    pub(crate) exemplars_rejected: usize,
    pub(crate) exemplars_out_of_order: usize,
    pub(crate) rejected: Vec<Rejection>,
    pub(crate) rejected_count: usize,
    pub(crate) rejected_by_kind: Vec<(&'static str, usize)>,
    pub(crate) out_of_order_written: usize,
    /// The log refused a series record: the request cannot be acknowledged.
    pub(crate) log_error: Option<WalError>,
}

impl Appended {
    fn reject(&mut self, (batch, i): (&WriteBatch, usize), t: i64, samples: usize, reason: RejectReason) {
        self.rejected_count += samples;
        let kind = reason.kind();
        match self.rejected_by_kind.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, count)) => *count += samples,
            None => self.rejected_by_kind.push((kind, samples)),
        }
        if self.rejected.len() < REJECTIONS_LISTED_MAX {
            let series = describe(batch.section(i, &mut Vec::new()));
            self.rejected.push(Rejection { series, reason, t });
        }
    }
}

impl From<Refusal> for RejectReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OutOfOrder => RejectReason::OutOfOrder,
            Refusal::TooOld => RejectReason::TooOld,
            Refusal::OutOfBounds => RejectReason::OutOfBounds,
            Refusal::DuplicateTimestamp => RejectReason::DuplicateTimestamp,
            Refusal::InvalidHistogram => RejectReason::InvalidHistogram("cannot be encoded".to_owned()),
        }
    }
}

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
        scratch.records_mut().into_iter().for_each(Vec::clear);
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
            Some(keys) => request.fingerprint_keys(keys, s),
            None => request.fingerprint_sections(s),
        }
        // A counting sort by shard keeps the order of the request inside each shard.
        let shards = self.shards.len();
        s.starts.clear();
        s.starts.resize(shards + 1, 0);
        for fp in &s.fingerprints {
            s.starts[self.shard_of(*fp) + 1] += 1;
        }
        for i in 0..shards {
            s.starts[i + 1] += s.starts[i];
        }
        s.order.clear();
        s.order.resize(s.fingerprints.len(), 0);
        let mut next = s.starts.clone();
        for (i, fp) in s.fingerprints.iter().enumerate() {
            let at = &mut next[self.shard_of(*fp)];
            s.order[*at as usize] = i as u32;
            *at += 1;
        }
        s.respelled.clear();
        s.sections.clear();
        for shard in 0..shards {
            let range = s.starts[shard] as usize..s.starts[shard + 1] as usize;
            if !range.is_empty() {
                request.append_shard(shard, range, s, &mut out);
            }
        }
        if !s.respelled.is_empty() {
            request.append_respelled(s, &mut out);
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
    /// Fingerprints of the series' sections, or of what is known to be another encoding of them.
    fn fingerprint_sections(&self, s: &mut Scratch) {
        let head = self.head;
        s.fingerprints.clear();
        s.fingerprints.extend(self.batch.iter().map(|series| head.key.fingerprint(series.labels)));
        if head.has_aliases.load(Ordering::Acquire) {
            let aliases = head.aliases.read();
            for fp in &mut s.fingerprints {
                if let Some(canonical) = aliases.get(&(fp.low, fp.high)) {
                    *fp = *canonical;
                }
            }
        }
    }

    /// Fingerprints by the decoder's keys; where a key is new, of the canonical section.
    fn fingerprint_keys(&self, keys: &[u128], s: &mut Scratch) {
        let Scratch { fingerprints, rendered, unknown, learnt, series: NewSeries { canonical, .. }, .. } = s;
        let head = self.head;
        fingerprints.clear();
        let known = head.known.read();
        for (i, key) in keys.iter().enumerate() {
            fingerprints.push(match known.find(*key) {
                Lookup::Found(fp) => fp,
                Lookup::Old(fp) => {
                    learnt.push((*key, fp));
                    fp
                }
                Lookup::Unknown => {
                    unknown.push(i as u32);
                    Fingerprint::default()
                }
            });
        }
        drop(known);
        for i in unknown.drain(..).map(|i| i as usize) {
            let section = self.batch.section(i, rendered);
            canonical.clear();
            fingerprints[i] = match canonicalise(section, &self.limits, canonical) {
                Ok(()) => {
                    let fp = head.key.fingerprint(canonical);
                    learnt.push((keys[i], fp));
                    fp
                }
                // Found nowhere, since only canonical sections are entered; then it is refused with its reason.
                Err(_) => head.key.fingerprint(section),
            };
        }
        if !learnt.is_empty() {
            head.known.write().enter(learnt.drain(..), head.series_count());
        }
    }

    fn append_shard(&self, index: usize, range: std::ops::Range<usize>, s: &mut Scratch, out: &mut Appended) {
        let mut slots = [None; LOOKUP_BATCH];
        let mut shard = self.head.shards[index].lock();
        for start in range.clone().step_by(LOOKUP_BATCH) {
            let batch = &s.order[start..range.end.min(start + LOOKUP_BATCH)];
            for (slot, i) in slots.iter_mut().zip(batch) {
                *slot = shard.find(s.fingerprints[*i as usize]);
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
                        self.append_samples(&mut shard, slot, i, &mut s.groups, out);
                    }
                    Err(None) => {}
                    Err(Some(reason)) => self.reject_series(i, reason, out),
                }
            }
        }
        self.finish_shard(&mut shard, index, s, out);
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

    #[inline]
    fn append_samples(
        &self,
        shard: &mut Shard,
        slot: Slot,
        i: usize,
        groups: &mut Groups,
        out: &mut Appended,
    ) {
        let series = self.batch.series(i);
        for (k, Sample { t, v }) in series.samples.iter().copied().enumerate() {
            if t > self.max_valid {
                out.reject((self.batch, i), t, 1, RejectReason::OutOfBounds);
                continue;
            }
            let start_ts = if self.start_ts { series.start_ts_of_sample(k) } else { 0 };
            let taken = match start_ts {
                0 => shard.append(slot, t, v, &self.bounds),
                _ => shard.append_started(slot, t, v, start_ts, &self.bounds),
            };
            let group = match taken {
                Taken::InOrder => Some(&mut groups.in_order),
                Taken::OutOfOrder => {
                    out.out_of_order_written += 1;
                    Some(&mut groups.late)
                }
                Taken::Duplicate => None,
                Taken::Refused(refusal) => {
                    out.reject((self.batch, i), t, 1, refusal.into());
                    continue;
                }
            };
            match group {
                Some(group) if start_ts == 0 => group.push(slot, t, v),
                Some(group) => group.push_started(slot, t, v, start_ts),
                None => {}
            }
            out.written += 1;
        }
        if !series.histograms.is_empty() {
            self.append_histograms(shard, slot, i, &mut groups.histograms, out);
        }
        if !series.exemplars.is_empty() && self.head.options.exemplars_max > 0 {
            for exemplar in series.exemplars {
                match self.head.add_exemplar(shard, slot, exemplar) {
                    ExemplarTaken::Taken => groups.exemplars.push(slot, exemplar),
                    ExemplarTaken::Duplicate => {}
                    refused @ (ExemplarTaken::OutOfOrder | ExemplarTaken::LabelsTooLong) => {
                        out.exemplars_rejected += 1;
                        out.exemplars_out_of_order += usize::from(refused == ExemplarTaken::OutOfOrder);
                        continue;
                    }
                }
                out.exemplars_written += 1;
            }
        }
    }

    fn append_histograms(
        &self,
        shard: &mut Shard,
        slot: Slot,
        i: usize,
        group: &mut HistogramGroup,
        out: &mut Appended,
    ) {
        let series = self.batch.series(i);
        for (k, (t, h)) in series.histograms.iter().enumerate() {
            let t = *t;
            let start_ts = if self.start_ts { series.start_ts_of_histogram(k) } else { 0 };
            if t > self.max_valid {
                out.reject((self.batch, i), t, 1, RejectReason::OutOfBounds);
                continue;
            }
            let reduced = match check_histogram(h, self.limits.histogram_buckets_max) {
                Ok(reduced) => reduced,
                Err(why) => {
                    out.reject((self.batch, i), t, 1, RejectReason::InvalidHistogram(why));
                    continue;
                }
            };
            let h = reduced.as_ref().unwrap_or(h);
            match shard.append_histogram(slot, t, start_ts, h, &self.bounds) {
                taken @ (Taken::InOrder | Taken::OutOfOrder) => {
                    let late = taken == Taken::OutOfOrder;
                    out.out_of_order_written += usize::from(late);
                    group.push(slot, t, start_ts, late, h);
                }
                Taken::Duplicate => {}
                Taken::Refused(refusal) => {
                    out.reject((self.batch, i), t, 1, refusal.into());
                    continue;
                }
            }
            out.written += 1;
            out.histograms_written += 1;
        }
    }

    fn reject_series(&self, i: usize, reason: RejectReason, out: &mut Appended) {
        let series = self.batch.series(i);
        let t = series.samples.first().map(|s| s.t).or(series.histograms.first().map(|h| h.0)).unwrap_or(0);
        out.reject((self.batch, i), t, series.samples.len() + series.histograms.len(), reason);
    }

    /// A section that no series of the shard has. `Err(None)` when it was put aside as another spelling.
    #[cold]
    fn enter(
        &self,
        shard: &mut Shard,
        index: usize,
        i: usize,
        s: &mut Scratch,
    ) -> Result<Slot, Option<RejectReason>> {
        let fp = s.fingerprints[i];
        // The series may be new and stand twice in the request.
        if let Some(slot) = shard.find(fp) {
            return Ok(slot);
        }
        let section = self.batch.section(i, &mut s.rendered);
        s.series.canonical.clear();
        canonicalise(section, &self.limits, &mut s.series.canonical).map_err(Some)?;
        // A series with a key is never entered but under the fingerprint of what was just rendered.
        if s.series.canonical == section
            && (self.batch.keys().is_none() || self.head.key.fingerprint(section) == fp)
        {
            let slot = self.insert(shard, fp, section, &mut s.series).map_err(Some)?;
            return Ok(slot);
        }
        let canonical = self.head.key.fingerprint(&s.series.canonical);
        if self.batch.keys().is_none() {
            self.head.remember_alias(self.head.key.fingerprint(section), canonical);
        }
        if self.head.shard_of(canonical) == index
            && let Some(slot) = shard.find(canonical)
        {
            return Ok(slot);
        }
        let start = s.sections.len();
        s.sections.extend_from_slice(&s.series.canonical);
        s.respelled.push((i as u32, canonical, start..s.sections.len()));
        Err(None)
    }

    /// Enters a new series with this canonical section.
    fn insert(
        &self,
        shard: &mut Shard,
        fp: Fingerprint,
        section: &[u8],
        new: &mut NewSeries,
    ) -> Result<Slot, RejectReason> {
        let max = self.limits.series_max;
        if max > 0 && self.head.series_count.load(Ordering::Relaxed) >= max {
            return Err(RejectReason::SeriesLimit(max));
        }
        let index = self.head.shard_of(fp);
        self.head.index.write().symbols.intern_section(section, &mut new.one);
        let slot = shard.insert(fp, &new.one);
        self.head.series_count.fetch_add(1, Ordering::Relaxed);
        let start = new.symbols.len();
        new.symbols.extend_from_slice(&new.one);
        new.entered.push((self.head.series_ref(index, slot), start..new.symbols.len()));
        put_series_entry(&mut new.list, slot, section);
        new.count += 1;
        Ok(slot)
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

impl Head {
    /// Takes an exemplar of the series at `slot`.
    pub(crate) fn add_exemplar(&self, shard: &Shard, slot: Slot, exemplar: &Exemplar) -> ExemplarTaken {
        let series = shard.series(slot);
        let labels = || shard.labels(series, &self.index.read().symbols);
        self.exemplars.lock().add(series.fp, labels, exemplar)
    }

    /// Hears what writers say of metrics. What is new is framed in `record`, to be logged by the caller; the answer is how
    /// many entries there was no room for.
    pub(crate) fn append_metadata(&self, entries: &[WriteMetadata], record: &mut Vec<u8>) -> usize {
        record.clear();
        let now_ms = (self.options.clock)();
        let mut table = self.metadata.lock();
        if table.is_short_of(entries) {
            table.sweep(|metric| self.has_metric(metric));
        }
        let mut refused = 0;
        for WriteMetadata { metric, says } in entries {
            match table.add(metric, says, now_ms) {
                MetadataTaken::Known => {}
                MetadataTaken::Refused => refused += 1,
                MetadataTaken::New => {
                    if record.is_empty() {
                        frame_begin(record);
                        put_metadata(record, self.number);
                    }
                    put_metadata_entry(record, metric, says);
                }
            }
        }
        if !record.is_empty() {
            frame_end(record, 0);
        }
        refused
    }

    /// Takes up what the log or a snapshot holds.
    pub(crate) fn replay_metadata(&self, metric: &str, says: &MetricMetadata) {
        self.metadata.lock().add(metric, says, (self.options.clock)());
    }

    /// True when a series belongs to this metric (family).
    fn has_metric(&self, metric: &str) -> bool {
        const SUFFIXES: [&str; 8] = ["", "_total", "_bucket", "_sum", "_count", "_info", "_created", "_gsum"];
        let index = self.index.read();
        SUFFIXES.iter().any(|suffix| index.has_pair(METRIC_NAME, &format!("{metric}{suffix}")))
    }

    /// Enters the request's new series in the index, all at once and in the order of their references: entered shard by
    /// shard, each would move the ends of the long lists that the one before has just moved.
    ///
    /// The caller holds the gate, so a cut that removes one of them meanwhile takes it out of the index afterwards.
    fn index_entered(&self, new: &mut NewSeries) {
        if new.entered.is_empty() {
            return;
        }
        new.entered.sort_unstable_by_key(|(series, _)| *series);
        let mut index = self.index.write();
        for (series, symbols) in new.entered.drain(..) {
            for (name, value) in &new.symbols[symbols] {
                index.insert(*name, *value, series);
            }
        }
        new.symbols.clear();
    }

    /// Enters a series that the log names under its slot. The index follows with [`Head::finish_replay`].
    pub(crate) fn replay_series(
        &self,
        shard: &mut Shard,
        slot: Slot,
        fp: Fingerprint,
        section: &[u8],
        symbols: &mut Vec<(u32, u32)>,
    ) {
        self.index.write().symbols.intern_section(section, symbols);
        shard.insert_at(slot, fp, symbols);
    }

    /// Keeps that `spelled` is another encoding of `canonical`.
    fn remember_alias(&self, spelled: Fingerprint, canonical: Fingerprint) {
        /// An alias costs 40 bytes. Beyond this the cache starts over: a sender that never spells a series twice the
        /// same way gains nothing from it.
        const ALIASES_MAX: usize = 1 << 18;
        let mut aliases = self.aliases.write();
        if aliases.len() >= ALIASES_MAX {
            aliases.clear();
        }
        aliases.insert((spelled.low, spelled.high), canonical);
        self.has_aliases.store(true, Ordering::Release);
    }
}
