//! A part of a head with a lock of its own: series by fingerprint, and the memory of their chunks.

use chronolith_chunk::{Chunk, XorState};
use chronolith_model::histogram::CounterReset;
use chronolith_model::{Labels, SampleValue, TimeRange, WriteHistogram, is_stale_nan};
use hashbrown::{HashMap, HashTable};
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::fragments::Fragments;
use super::growing::{Growing, Grows};
use super::histogram::is_same;
use super::ooo::{Insert, OutOfOrder, floats, holds_histogram, times};
use super::section::Fingerprint;
use super::segments::{ChunkAt, Copies, Segments, StoredChunk};
use super::series::{GROWS_BESIDE, HAS_OUT_OF_ORDER, MAY_OVERLAP, Series, range_end};
use super::symbols::Symbols;

/// Series on a page: 32 KiB.
const PAGE_SHIFT: u32 = 8;
const PAGE: usize = 1 << PAGE_SHIFT;

/// A series' number inside its shard.
pub(crate) type Slot = u32;

/// For each series with samples out of order, how many of its closed chunks a cut takes.
pub(crate) type CutCounts = HashMap<Slot, usize, FxBuildHasher>;

/// What a cut takes of the samples in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutBound {
    /// Everything before this time.
    Before(i64),
    /// The chunks in the segments below this number.
    Segments(u32),
}

/// Bounds of time for one request.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Older samples lie in blocks already; the head takes none in order.
    pub(crate) min_valid: i64,
    /// Oldest sample taken out of order; `i64::MAX` when none is.
    pub(crate) out_of_order_min: i64,
    pub(crate) range: i64,
}

impl Bounds {
    /// Why a late sample is refused.
    fn refusal(&self, t: i64) -> Refusal {
        match (t < self.min_valid, self.out_of_order_min == i64::MAX) {
            (_, false) => Refusal::TooOld,
            (true, true) => Refusal::OutOfBounds,
            (false, true) => Refusal::OutOfOrder,
        }
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    InOrder,
    OutOfOrder,
    /// It was there already.
    Duplicate,
    Refused(Refusal),
}

/// Why a sample was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    OutOfOrder,
    TooOld,
    OutOfBounds,
    DuplicateTimestamp,
    /// A histogram that cannot be encoded.
    InvalidHistogram,
}

pub(crate) struct Shard {
    table: HashTable<Slot>,
    pages: Vec<Vec<Series>>,
    /// Slots handed out so far.
    slots: u32,
    /// Slots to use again, the lowest last.
    free: Vec<Slot>,
    /// Slots of removed series that records on their way to the log may still name.
    quarantine: Vec<Slot>,
    pub(crate) live: usize,
    pub(crate) fragments: Fragments,
    pub(crate) segments: Segments,
    /// Label symbols: count, then name and value alternately, as varints.
    labels: Vec<u8>,
    pub(crate) ooo: HashMap<Slot, Box<OutOfOrder>, FxBuildHasher>,
    /// Samples that came out of order since they last left.
    pub(crate) late_samples: usize,
    /// The growing chunks that series have no room for.
    pub(crate) growing: HashMap<Slot, Box<Growing>, FxBuildHasher>,
    /// Chunks that end before this time are forgotten, even where they share a segment with younger ones.
    pub(crate) floor: i64,
    /// Oldest and newest sample.
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
}

impl Default for Shard {
    fn default() -> Self {
        Shard {
            table: HashTable::new(),
            pages: Vec::new(),
            slots: 0,
            free: Vec::new(),
            quarantine: Vec::new(),
            live: 0,
            fragments: Fragments::default(),
            segments: Segments::default(),
            labels: Vec::new(),
            ooo: HashMap::default(),
            late_samples: 0,
            growing: HashMap::default(),
            floor: i64::MIN,
            min_t: i64::MAX,
            max_t: i64::MIN,
        }
    }
}

impl Shard {
    #[inline]
    pub(crate) fn series(&self, slot: Slot) -> &Series {
        &self.pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE]
    }

    #[inline]
    pub(crate) fn series_mut(&mut self, slot: Slot) -> &mut Series {
        &mut self.pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE]
    }

    /// The series at `slot`, if there is one.
    pub(crate) fn live_series(&self, slot: Slot) -> Option<&Series> {
        let page = self.pages.get((slot >> PAGE_SHIFT) as usize)?;
        page.get(slot as usize % PAGE).filter(|s| s.is_live())
    }

    #[inline]
    pub(crate) fn find(&self, fp: Fingerprint) -> Option<Slot> {
        self.table.find(fp.low, |&slot| self.series(slot).fp == fp).copied()
    }

    /// Slots handed out so far, dead ones included.
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// All live series.
    pub(crate) fn live_slots(&self) -> impl Iterator<Item = (Slot, &Series)> {
        let all = self.pages.iter().enumerate().flat_map(|(p, page)| {
            page.iter().enumerate().map(move |(i, s)| (((p << PAGE_SHIFT) + i) as Slot, s))
        });
        all.filter(|(_, s)| s.is_live())
    }

    /// Enters a new series under the next free slot.
    pub(crate) fn insert(&mut self, fp: Fingerprint, symbols: &[(u32, u32)]) -> Slot {
        let slot = self.free.pop().unwrap_or(self.slots);
        self.insert_at(slot, fp, symbols);
        slot
    }

    /// Enters a series under a slot that the log or a snapshot names. Slots skipped are dead until
    /// [`Shard::rebuild_free`].
    pub(crate) fn insert_at(&mut self, slot: Slot, fp: Fingerprint, symbols: &[(u32, u32)]) {
        let labels = u32::try_from(self.labels.len()).expect("4 GiB of label references in a shard");
        put_varint(&mut self.labels, symbols.len() as u32);
        for (name, value) in symbols {
            put_varint(&mut self.labels, *name);
            put_varint(&mut self.labels, *value);
        }
        let page = (slot >> PAGE_SHIFT) as usize;
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, Vec::new);
        }
        let at = slot as usize % PAGE;
        let in_page = &mut self.pages[page];
        if page > 0 && in_page.capacity() == 0 {
            // Small tenants have one page, which grows with them; further pages will be filled.
            in_page.reserve_exact(PAGE);
        }
        if at >= in_page.len() {
            in_page.resize_with(at + 1, Series::dead);
        }
        debug_assert!(!in_page[at].is_live(), "a slot has one series");
        in_page[at] = Series::new(fp, labels);
        self.slots = self.slots.max(slot + 1);
        let pages = &self.pages;
        self.table
            .insert_unique(fp.low, slot, |&s| pages[(s >> PAGE_SHIFT) as usize][s as usize % PAGE].fp.low);
        self.live += 1;
    }

    /// Room for as many more series, so that loading does not rehash.
    pub(crate) fn reserve(&mut self, series: usize) {
        let pages = &self.pages;
        self.table.reserve(series, |&s| pages[(s >> PAGE_SHIFT) as usize][s as usize % PAGE].fp.low);
    }

    /// Takes up the growing chunk beside the series and the late samples that a snapshot holds of it.
    pub(crate) fn restore_beside(
        &mut self,
        slot: Slot,
        growing: Option<Growing>,
        late: OutOfOrder,
    ) -> Option<()> {
        self.live_series(slot)?;
        if let Some(growing) = growing {
            self.growing.insert(slot, Box::new(growing));
            self.series_mut(slot).flags |= GROWS_BESIDE;
        }
        if !late.is_empty() {
            let held = self.ooo.entry(slot).or_default();
            held.closed.extend(late.closed);
            held.histograms.extend(late.histograms);
            self.series_mut(slot).flags |= HAS_OUT_OF_ORDER;
        }
        Some(())
    }

    /// Takes up what a snapshot holds of a series beyond its labels: the newest complete chunk, the growing one (with
    /// its words, first time and end), and samples out of order.
    pub(crate) fn restore(
        &mut self,
        slot: Slot,
        last_chunk: ChunkAt,
        growing: Option<(XorState, &[u8], i64, i64)>,
        ooo: Option<OutOfOrder>,
    ) {
        let Shard { pages, fragments, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        series.last_chunk = last_chunk;
        series.flags |= MAY_OVERLAP;
        if let Some((xor, words, mint, next_at)) = growing {
            series.resume(xor, words, mint, next_at, fragments);
        }
        if let Some(ooo) = ooo {
            series.flags |= HAS_OUT_OF_ORDER;
            self.ooo.insert(slot, Box::new(ooo));
        }
    }

    /// Finds the free slots after a replay.
    pub(crate) fn rebuild_free(&mut self) {
        self.quarantine.clear();
        self.free = (0..self.slots).rev().filter(|s| self.live_series(*s).is_none()).collect();
    }

    /// Label symbols of a series.
    pub(crate) fn symbols(&self, series: &Series) -> impl Iterator<Item = (u32, u32)> + Clone + '_ {
        let mut rest = &self.labels[series.labels as usize..];
        let count = take_varint(&mut rest);
        (0..count).map(move |_| (take_varint(&mut rest), take_varint(&mut rest)))
    }

    /// Labels of a series.
    pub(crate) fn labels(&self, series: &Series, symbols: &Symbols) -> Labels {
        Labels::from_sorted(self.symbols(series).map(|(n, v)| (symbols.text(n), symbols.text(v))))
    }

    /// Takes a float sample of the series at `slot`.
    #[inline]
    pub(crate) fn append(&mut self, slot: Slot, t: i64, v: f64, bounds: &Bounds) -> Taken {
        let Shard { pages, fragments, segments, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        match series.last() {
            Some((last, _)) if t > last && t >= bounds.min_valid => {}
            None if t >= bounds.min_valid && series.flags & GROWS_BESIDE == 0 => {}
            last => return self.append_late(slot, (t, v, 0), last, bounds),
        }
        if series.append(t, v, bounds.range, fragments, segments) {
            self.min_t = self.min_t.min(t);
        }
        self.max_t = self.max_t.max(t);
        Taken::InOrder
    }

    /// As [`Shard::append`], of a sample with a start timestamp.
    pub(crate) fn append_started(
        &mut self,
        slot: Slot,
        t: i64,
        v: f64,
        start_ts: i64,
        bounds: &Bounds,
    ) -> Taken {
        let series = self.series(slot);
        let newest = self.growing_range(slot, series).is_none_or(|(_, last)| t > last);
        if newest && t >= bounds.min_valid {
            self.push_float(slot, t, v, start_ts, bounds.range);
            return Taken::InOrder;
        }
        let last = series.last();
        self.append_late(slot, (t, v, start_ts), last, bounds)
    }

    #[cold]
    fn append_late(
        &mut self,
        slot: Slot,
        (t, v, start_ts): (i64, f64, i64),
        last: Option<(i64, f64)>,
        bounds: &Bounds,
    ) -> Taken {
        if let Some((last_t, last_v)) = last
            && last_t == t
        {
            let same = last_v.to_bits() == v.to_bits();
            return if same { Taken::Duplicate } else { Taken::Refused(Refusal::DuplicateTimestamp) };
        }
        if self.series(slot).flags & GROWS_BESIDE != 0
            && let Some(taken) = self.append_beside(slot, (t, v, start_ts), bounds)
        {
            return taken;
        }
        if t >= bounds.out_of_order_min {
            return self.insert_out_of_order(slot, t, v, start_ts);
        }
        Taken::Refused(bounds.refusal(t))
    }

    /// Takes a float sample of a series whose chunk grows beside it; `None` when it is a late one. A stale marker becomes
    /// one of the histograms, as in Prometheus.
    fn append_beside(
        &mut self,
        slot: Slot,
        (t, v, start_ts): (i64, f64, i64),
        bounds: &Bounds,
    ) -> Option<Taken> {
        let growing = self.growing.get(&slot)?;
        let last_t = growing.last_t();
        if t == last_t {
            let same = match (stale_of(growing), growing.last()) {
                (Some(stale), Some(last)) => is_stale_nan(v) && is_same(&last, &stale),
                (None, Some(SampleValue::Float(last))) => last.to_bits() == v.to_bits(),
                _ => false,
            };
            return Some(if same { Taken::Duplicate } else { Taken::Refused(Refusal::DuplicateTimestamp) });
        }
        if t < last_t || t < bounds.min_valid {
            return None;
        }
        self.push_float(slot, t, v, start_ts, bounds.range);
        Some(Taken::InOrder)
    }

    /// Appends a float that is newer than all, into whichever chunk it belongs.
    fn push_float(&mut self, slot: Slot, t: i64, v: f64, start_ts: i64, range: i64) {
        self.max_t = self.max_t.max(t);
        if let Some(growing) = self.growing.get_mut(&slot) {
            if growing.append_float(t, start_ts, v) {
                return;
            }
            if let Some(stale) = stale_of(growing).filter(|_| is_stale_nan(v)) {
                self.push_histogram(slot, t, start_ts, &stale, range);
                return;
            }
            self.complete_beside(slot);
        }
        self.min_t = self.min_t.min(t);
        let Shard { pages, fragments, segments, growing, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        let started = if start_ts == 0 { None } else { Growing::first_started(t, start_ts, v, range).ok() };
        match started {
            Some(first) => {
                series.complete(fragments, segments);
                growing.insert(slot, Box::new(first));
                series.flags |= GROWS_BESIDE;
            }
            None => {
                series.append(t, v, range, fragments, segments);
            }
        }
    }

    /// Takes a histogram of the series at `slot`. It has been checked.
    pub(crate) fn append_histogram(
        &mut self,
        slot: Slot,
        t: i64,
        start_ts: i64,
        h: &WriteHistogram,
        bounds: &Bounds,
    ) -> Taken {
        match self.growing_range(slot, self.series(slot)) {
            Some((_, last)) if t == last => {
                let growing = self.growing.get(&slot);
                let same = growing.and_then(|g| g.last()).is_some_and(|last| is_same(&last, h));
                return if same { Taken::Duplicate } else { Taken::Refused(Refusal::DuplicateTimestamp) };
            }
            Some((_, last)) if t < last => {}
            _ if t < bounds.min_valid => {}
            _ => {
                return match self.push_histogram(slot, t, start_ts, h, bounds.range) {
                    true => Taken::InOrder,
                    false => Taken::Refused(Refusal::InvalidHistogram),
                };
            }
        }
        if t >= bounds.out_of_order_min {
            return self.insert_histogram_out_of_order(slot, t, h.clone(), start_ts);
        }
        Taken::Refused(bounds.refusal(t))
    }

    /// Appends a histogram that is newer than all. False when it cannot be encoded.
    fn push_histogram(&mut self, slot: Slot, t: i64, start_ts: i64, h: &WriteHistogram, range: i64) -> bool {
        if self.growing.get(&slot).is_some_and(|g| g.kind() == Grows::Floats) {
            self.complete_beside(slot);
        }
        let Shard { pages, fragments, segments, growing, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        match growing.get_mut(&slot) {
            Some(growing) => match growing.append(t, start_ts, h, range) {
                Ok(None) => {}
                Ok(Some(chunk)) => series.store(&chunk, segments),
                Err(_) => return false,
            },
            None => {
                let Ok(first) = Growing::first(t, start_ts, h, range) else { return false };
                series.complete(fragments, segments);
                growing.insert(slot, Box::new(first));
                series.flags |= GROWS_BESIDE;
            }
        }
        self.min_t = self.min_t.min(t);
        self.max_t = self.max_t.max(t);
        true
    }

    /// Moves the growing chunk beside the series into the segments.
    fn complete_beside(&mut self, slot: Slot) {
        if let Some(growing) = self.growing.remove(&slot) {
            let Shard { pages, segments, .. } = self;
            let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
            series.store(&growing.chunk(), segments);
            series.flags &= !GROWS_BESIDE;
        }
    }

    pub(crate) fn insert_histogram_out_of_order(
        &mut self,
        slot: Slot,
        t: i64,
        h: WriteHistogram,
        start_ts: i64,
    ) -> Taken {
        let insert = self.ooo.entry(slot).or_default().insert_histogram(t, h, start_ts);
        self.inserted(slot, t, insert)
    }

    /// First and last sample of the growing chunk, of either kind.
    pub(crate) fn growing_range(&self, slot: Slot, series: &Series) -> Option<(i64, i64)> {
        match series.last() {
            Some((last, _)) => Some((series.mint, last)),
            None if series.flags & GROWS_BESIDE != 0 => self.growing.get(&slot).map(|g| (g.mint, g.last_t())),
            None => None,
        }
    }

    pub(crate) fn insert_out_of_order(&mut self, slot: Slot, t: i64, v: f64, start_ts: i64) -> Taken {
        let insert = self.ooo.entry(slot).or_default().insert(t, v, start_ts);
        self.inserted(slot, t, insert)
    }

    fn inserted(&mut self, slot: Slot, t: i64, insert: Insert) -> Taken {
        match insert {
            Insert::Taken => {
                self.series_mut(slot).flags |= HAS_OUT_OF_ORDER;
                self.late_samples += 1;
                self.min_t = self.min_t.min(t);
                self.max_t = self.max_t.max(t);
                Taken::OutOfOrder
            }
            Insert::Duplicate => Taken::Duplicate,
            Insert::Conflict => Taken::Refused(Refusal::DuplicateTimestamp),
        }
    }

    /// Takes a sample that the log holds: it was accepted once, so it is never refused. What is there already (the
    /// snapshot was taken after it) is left out; what the log holds in another order than the shard saw it becomes
    /// a sample out of order.
    #[inline]
    pub(crate) fn replay(&mut self, slot: Slot, t: i64, v: f64, out_of_order: bool, range: i64) -> Taken {
        let Shard { pages, fragments, segments, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        let newest = series.last().is_none_or(|(last, _)| t > last);
        if newest && !out_of_order && series.flags & GROWS_BESIDE == 0 {
            if series.append(t, v, range, fragments, segments) {
                self.min_t = self.min_t.min(t);
            }
            self.max_t = self.max_t.max(t);
            return Taken::InOrder;
        }
        self.replay_late(slot, (t, v, 0), out_of_order, range)
    }

    /// As [`Shard::replay`], of a sample with a start timestamp.
    pub(crate) fn replay_started(
        &mut self,
        slot: Slot,
        t: i64,
        v: f64,
        start_ts: i64,
        out_of_order: bool,
        range: i64,
    ) -> Taken {
        self.replay_late(slot, (t, v, start_ts), out_of_order, range)
    }

    /// As [`Shard::replay`], of a histogram.
    pub(crate) fn replay_histogram(
        &mut self,
        slot: Slot,
        t: i64,
        start_ts: i64,
        h: WriteHistogram,
        out_of_order: bool,
        range: i64,
    ) -> Taken {
        let last = self.growing_range(slot, self.series(slot)).map(|(_, last)| last);
        let newest = !out_of_order && last.is_none_or(|last| t > last);
        if newest && self.push_histogram(slot, t, start_ts, &h, range) {
            return Taken::InOrder;
        }
        if self.contains_histogram(slot, t, &h) {
            return Taken::Duplicate;
        }
        self.insert_histogram_out_of_order(slot, t, h, start_ts)
    }

    fn contains_histogram(&self, slot: Slot, t: i64, h: &WriteHistogram) -> bool {
        if self.ooo.get(&slot).is_some_and(|o| o.contains_histogram(t, h)) {
            return true;
        }
        let mut chunks = Vec::new();
        let at = TimeRange::new(t, t);
        self.bounded_chunks(slot, self.series(slot), at, u32::MAX, &mut Copies::default(), &mut chunks);
        chunks.iter().any(|c| holds_histogram(c, t, h))
    }

    #[cold]
    fn replay_late(
        &mut self,
        slot: Slot,
        (t, v, start_ts): (i64, f64, i64),
        out_of_order: bool,
        range: i64,
    ) -> Taken {
        let last = self.growing_range(slot, self.series(slot)).map(|(_, last)| last);
        if !out_of_order && last.is_none_or(|last| t > last) {
            self.push_float(slot, t, v, start_ts, range);
            return Taken::InOrder;
        }
        let stale = self.growing.get(&slot).and_then(|g| stale_of(g)).filter(|_| is_stale_nan(v));
        if self.contains(slot, t, v) || stale.is_some_and(|h| self.contains_histogram(slot, t, &h)) {
            return Taken::Duplicate;
        }
        self.insert_out_of_order(slot, t, v, start_ts)
    }

    fn contains(&self, slot: Slot, t: i64, v: f64) -> bool {
        let series = self.series(slot);
        if series.last().is_some_and(|(lt, lv)| lt == t && lv.to_bits() == v.to_bits()) {
            return true;
        }
        if self.ooo.get(&slot).is_some_and(|o| o.contains(t, v)) {
            return true;
        }
        let mut chunks = Vec::new();
        self.bounded_chunks(
            slot,
            series,
            TimeRange::new(t, t),
            u32::MAX,
            &mut Copies::default(),
            &mut chunks,
        );
        chunks.iter().any(|c| floats(c).any(|s| s.0 == t && s.1.to_bits() == v.to_bits()))
    }

    /// Appends the chunks of a series that overlap `range`, sorted by their first sample. They overlap where samples
    /// came out of order.
    pub(crate) fn chunks(
        &self,
        slot: Slot,
        series: &Series,
        range: TimeRange,
        copies: &mut Copies,
        out: &mut Vec<Chunk>,
    ) {
        let start = out.len();
        self.bounded_chunks(slot, series, range, u32::MAX, copies, out);
        if series.flags & HAS_OUT_OF_ORDER != 0
            && let Some(ooo) = self.ooo.get(&slot)
        {
            out.extend(ooo.chunks().filter(|c| c.time_range().overlaps(&range)));
            out[start..].sort_by_key(|c| c.mint);
        }
    }

    /// Appends the chunks in order that overlap `range` and lie in segments below `limit`; the growing chunk counts as
    /// the highest segment.
    pub(crate) fn bounded_chunks(
        &self,
        slot: Slot,
        series: &Series,
        range: TimeRange,
        limit: u32,
        copies: &mut Copies,
        out: &mut Vec<Chunk>,
    ) {
        let start = out.len();
        if limit == u32::MAX
            && let Some((mint, maxt)) = self.growing_range(slot, series)
        {
            if TimeRange::new(mint, maxt).overlaps(&range) {
                match series.flags & GROWS_BESIDE {
                    0 => out.extend(series.growing(&self.fragments, copies)),
                    _ => out.extend(self.growing.get(&slot).map(|g| g.chunk())),
                }
            }
            if mint <= range.mint && series.flags & MAY_OVERLAP == 0 {
                // What is complete is older; its header need not be fetched from disk to learn that.
                return;
            }
        }
        for (at, stored) in self.complete_chunks(series).take_while(|(_, c)| c.maxt >= range.mint) {
            if stored.mint <= range.maxt && at.segment < limit {
                out.extend(self.segments.chunk(at, &stored, copies));
            }
        }
        out[start..].reverse();
    }

    /// Complete chunks of a series, the newest first.
    fn complete_chunks(&self, series: &Series) -> impl Iterator<Item = (ChunkAt, StoredChunk)> {
        let mut next = series.last_chunk;
        std::iter::from_fn(move || {
            let at = next;
            let stored = self.segments.stored(at).filter(|c| c.maxt >= self.floor)?;
            next = stored.previous;
            Some((at, stored))
        })
    }

    /// True when the series has a sample in order inside `range`.
    pub(crate) fn overlaps(&self, slot: Slot, series: &Series, range: TimeRange) -> bool {
        if self
            .growing_range(slot, series)
            .is_some_and(|(mint, maxt)| TimeRange::new(mint, maxt).overlaps(&range))
        {
            return true;
        }
        let mut complete = self.complete_chunks(series).take_while(|(_, c)| c.maxt >= range.mint);
        if complete.any(|(_, c)| c.mint <= range.maxt) {
            return true;
        }
        series.flags & HAS_OUT_OF_ORDER != 0
            && self.ooo.get(&slot).is_some_and(|o| o.chunks().any(|c| c.time_range().overlaps(&range)))
    }

    /// Complete and growing chunks of a series.
    pub(crate) fn chunk_count(&self, slot: Slot, series: &Series) -> usize {
        let growing = usize::from(self.growing_range(slot, series).is_some());
        let late = self.ooo.get(&slot).map_or(0, |o| o.chunk_count());
        growing + self.complete_chunks(series).count() + late
    }

    /// Completes all chunks: what is there now lies in the segments below the answer, what comes next does not.
    pub(crate) fn complete_all(&mut self) -> u32 {
        let Shard { pages, fragments, segments, .. } = self;
        for series in pages.iter_mut().flatten().filter(|s| s.last().is_some()) {
            series.complete(fragments, segments);
        }
        for slot in self.growing.keys().copied().collect::<Vec<_>>() {
            self.complete_beside(slot);
        }
        self.segments.close()
    }

    /// Adds the ends of the block ranges before `time` in which the shard has samples.
    pub(crate) fn range_ends_before(
        &self,
        time: i64,
        range: i64,
        ends: &mut std::collections::BTreeSet<i64>,
    ) {
        let mut add = |mint: i64, maxt: i64| {
            let mut t = mint;
            while t <= maxt && t < time {
                let end = range_end(t, range);
                ends.insert(end);
                t = end.max(t.saturating_add(1));
            }
        };
        for (slot, series) in self.live_slots() {
            if let Some((mint, last)) = self.growing_range(slot, series) {
                add(mint, last);
            }
            for (_, stored) in self.complete_chunks(series) {
                add(stored.mint, stored.maxt);
            }
        }
        for o in self.ooo.values() {
            for t in o.closed.iter().flat_map(times) {
                add(t, t);
            }
        }
    }

    /// Encodes what is open out of order and tells, for each series that has any, how many chunks there are.
    pub(crate) fn close_out_of_order(&mut self) -> CutCounts {
        let close = |(slot, o): (&Slot, &mut Box<OutOfOrder>)| {
            o.close();
            (*slot, o.closed.len())
        };
        self.ooo.iter_mut().map(close).collect()
    }

    /// Forgets the samples that `bound` takes, of those out of order the ones in the chunks that `cut` counts. Series
    /// without a sample go, if `remove_empty`; the answer names them. Their slots stay unused until [`Shard::release`].
    pub(crate) fn truncate(&mut self, bound: CutBound, cut: &CutCounts, remove_empty: bool) -> Vec<Slot> {
        // Of chunks that stay in a segment with younger ones, those before `mint` are forgotten too.
        let (mint, late_mint) = match bound {
            CutBound::Before(t) => (t, t),
            CutBound::Segments(_) => (i64::MIN, i64::MAX),
        };
        match bound {
            CutBound::Before(t) => self.segments.truncate(t),
            CutBound::Segments(limit) => self.segments.free_below(limit),
        }
        self.floor = self.floor.max(mint);
        let floor = self.floor;
        for (slot, count) in cut {
            if let Some(o) = self.ooo.get_mut(slot) {
                o.truncate(late_mint, *count);
            }
        }
        self.late_samples = self.ooo.values().map(|o| o.samples_max()).sum();
        let Shard { pages, fragments, segments, ooo, growing, table, .. } = self;
        let mut dead = Vec::new();
        let (mut min_t, mut max_t) = (i64::MAX, i64::MIN);
        for (p, page) in pages.iter_mut().enumerate() {
            for (i, series) in page.iter_mut().enumerate().filter(|(_, s)| s.is_live()) {
                let slot = ((p << PAGE_SHIFT) + i) as Slot;
                if series.last().is_some_and(|(last, _)| last < mint) {
                    series.drop_growing(fragments);
                }
                if series.flags & GROWS_BESIDE != 0 {
                    match growing.get(&slot) {
                        Some(growing) if growing.last_t() >= mint => {
                            (min_t, max_t) = (min_t.min(growing.mint), max_t.max(growing.last_t()));
                        }
                        _ => {
                            growing.remove(&slot);
                            series.flags &= !GROWS_BESIDE;
                        }
                    }
                }
                let mut at = series.last_chunk;
                if segments.stored(at).is_none_or(|c| c.maxt < floor) {
                    series.last_chunk = ChunkAt::NONE;
                }
                if series.flags & HAS_OUT_OF_ORDER != 0 {
                    match ooo.get(&slot) {
                        Some(o) if !o.is_empty() => {
                            for c in o.chunks() {
                                (min_t, max_t) = (min_t.min(c.mint), max_t.max(c.maxt));
                            }
                        }
                        _ => {
                            ooo.remove(&slot);
                            series.flags &= !HAS_OUT_OF_ORDER;
                        }
                    }
                }
                if let Some((last, _)) = series.last() {
                    (min_t, max_t) = (min_t.min(series.mint), max_t.max(last));
                }
                at = series.last_chunk;
                let mut newest = i64::MIN;
                while let Some(stored) = segments.stored(at) {
                    if stored.maxt < floor {
                        break;
                    }
                    min_t = min_t.min(stored.mint);
                    newest = newest.max(stored.maxt);
                    at = stored.previous;
                }
                max_t = max_t.max(newest);
                if series.last().is_some() && newest < series.mint {
                    series.flags &= !MAY_OVERLAP;
                }
                if remove_empty && series.holds_nothing() {
                    if let Ok(entry) = table.find_entry(series.fp.low, |&s| s == slot) {
                        entry.remove();
                    }
                    *series = Series::dead();
                    dead.push(slot);
                }
            }
        }
        (self.min_t, self.max_t) = (min_t, max_t);
        self.live -= dead.len();
        self.quarantine.extend_from_slice(&dead);
        if dead.len() > self.live / 4 {
            self.pack_labels();
            if self.table.len() * 4 < self.table.capacity() {
                let pages = &self.pages;
                self.table.shrink_to_fit(|&s| pages[(s >> PAGE_SHIFT) as usize][s as usize % PAGE].fp.low);
            }
        }
        dead
    }

    /// True when the series at `slot` has no sample.
    pub(crate) fn is_empty_series(&self, slot: Slot) -> bool {
        self.live_series(slot).is_none_or(Series::holds_nothing)
    }

    /// Removes one series with all it holds. Its complete chunks stay in their segments until those go.
    pub(crate) fn remove(&mut self, slot: Slot) {
        let Shard { pages, fragments, table, ooo, growing, .. } = self;
        let series = &mut pages[(slot >> PAGE_SHIFT) as usize][slot as usize % PAGE];
        series.drop_growing(fragments);
        growing.remove(&slot);
        if let Ok(entry) = table.find_entry(series.fp.low, |&s| s == slot) {
            entry.remove();
        }
        ooo.remove(&slot);
        *series = Series::dead();
        self.live -= 1;
    }

    /// Loads the lines of some series, independently of each other.
    #[inline]
    pub(crate) fn touch(&self, slots: &[Slot]) {
        let mut seen = 0u8;
        for slot in slots {
            if let Some(series) =
                self.pages.get((slot >> PAGE_SHIFT) as usize).and_then(|p| p.get(*slot as usize % PAGE))
            {
                seen |= series.flags ^ series.fp.low as u8;
            }
        }
        std::hint::black_box(seen);
    }

    /// Loads what the growing chunks of some series lie in. A chain of fragments is followed one miss after the other;
    /// here those of different series overlap.
    pub(crate) fn touch_growing(&self, slots: impl Iterator<Item = Slot>) {
        let mut chains: SmallVec<[(u32, u8); 64]> = SmallVec::new();
        for slot in slots {
            let series = self.live_series(slot).filter(|s| s.last().is_some() && s.fragments > 0);
            chains.extend(series.map(|s| (s.fragment, s.fragments)));
        }
        while !chains.is_empty() {
            chains.retain(|(fragment, left)| {
                *fragment = self.fragments.touch(*fragment);
                *left -= 1;
                *left > 0
            });
        }
    }

    /// Writes the labels anew without those of dead series.
    fn pack_labels(&mut self) {
        let mut packed = Vec::new();
        for series in self.pages.iter_mut().flatten().filter(|s| s.is_live()) {
            let bytes = &self.labels[series.labels as usize..];
            let mut rest = bytes;
            let count = take_varint(&mut rest);
            for _ in 0..2 * count {
                take_varint(&mut rest);
            }
            let len = bytes.len() - rest.len();
            series.labels = packed.len() as u32;
            packed.extend_from_slice(&bytes[..len]);
        }
        packed.shrink_to_fit();
        self.labels = packed;
    }

    /// Lets the slots of removed series be used again, and gives back the pages that hold none but dead ones. No
    /// record that names such a slot may be on its way to the log any more.
    pub(crate) fn release(&mut self) {
        self.free.append(&mut self.quarantine);
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        for page in &mut self.pages {
            if page.iter().all(|s| !s.is_live()) {
                *page = Vec::new();
            }
        }
    }

    /// Bytes that the shard holds, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let pages: usize = self.pages.iter().map(|p| p.capacity() * size_of::<Series>()).sum();
        pages
            + self.table.capacity() * 6
            + self.fragments.bytes()
            + self.segments.bytes()
            + self.labels.capacity()
            + self.growing.values().map(|g| g.bytes()).sum::<usize>()
            + self.ooo.values().map(|o| o.bytes()).sum::<usize>()
    }
}

/// What a stale marker becomes among the histograms of a chunk; `None` in a chunk of floats.
fn stale_of(growing: &Growing) -> Option<WriteHistogram> {
    match growing.kind() {
        Grows::Histograms => Some(crate::wal::stale(false, CounterReset::Unknown)),
        Grows::FloatHistograms => Some(crate::wal::stale(true, CounterReset::Unknown)),
        Grows::Floats => None,
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut v: u32) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Reads a varint of our own making.
fn take_varint(rest: &mut &[u8]) -> u32 {
    let mut v = 0;
    let mut shift = 0;
    while let [byte, tail @ ..] = *rest {
        *rest = tail;
        v |= u32::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    v
}
