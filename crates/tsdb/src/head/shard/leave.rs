//! How samples and series leave a shard: they lie in a block now.

use super::{CutBound, CutCounts, PAGE, PAGE_SHIFT, Shard, Slot, take_varint};
use crate::head::ooo::{OutOfOrder, times};
use crate::head::segments::ChunkAt;
use crate::head::series::{GROWS_BESIDE, HAS_OUT_OF_ORDER, MAY_OVERLAP, Series, range_end};

impl Shard {
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
        self.labels_dead += dead.len();
        if self.labels_dead > self.live / 4 {
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
        self.labels_dead += 1;
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
        self.labels_dead = 0;
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
}
