//! A part of a head with a lock of its own: series by fingerprint, and the memory of their chunks.
//!
//! Here are the series themselves; what comes in is in [`append`] and [`replay`], what is read in [`chunks`], what goes in [`leave`].

mod append;
mod chunks;
mod leave;
mod replay;

use chronolith_model::Labels;
use hashbrown::{HashMap, HashTable};
use rustc_hash::FxBuildHasher;

use super::fragments::Fragments;
use super::growing::Growing;
use super::ooo::OutOfOrder;
use super::section::Fingerprint;
use super::segments::Segments;
use super::series::Series;
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
    /// Series whose labels are there still, though they are gone.
    labels_dead: usize,
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
            labels_dead: 0,
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
    #[inline]
    pub(crate) fn live_series(&self, slot: Slot) -> Option<&Series> {
        let page = self.pages.get((slot >> PAGE_SHIFT) as usize)?;
        page.get(slot as usize % PAGE).filter(|s| s.is_live())
    }

    #[inline]
    pub(crate) fn find(&self, fp: Fingerprint) -> Option<Slot> {
        self.table.find(fp.low, |&slot| self.series(slot).fp == fp).copied()
    }

    /// True when there is a series at `slot` whose fingerprint is meant.
    #[inline]
    pub(crate) fn is_at(&self, slot: Slot, is_meant: impl FnOnce(Fingerprint) -> bool) -> bool {
        self.live_series(slot).is_some_and(|series| is_meant(series.fp))
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
