//! A shard's chunks, as readers and cuts see them.

use chronolith_chunk::Chunk;
use chronolith_model::TimeRange;
use smallvec::SmallVec;

use super::{PAGE, PAGE_SHIFT, Shard, Slot};
use crate::head::segments::{ChunkAt, Copies, StoredChunk};
use crate::head::series::{GROWS_BESIDE, HAS_OUT_OF_ORDER, MAY_OVERLAP, Series};

impl Shard {
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
    pub(super) fn complete_chunks(&self, series: &Series) -> impl Iterator<Item = (ChunkAt, StoredChunk)> {
        let mut next = series.last_chunk;
        std::iter::from_fn(move || {
            let at = next;
            let stored = self.segments.stored(at).filter(|c| c.maxt >= self.floor)?;
            next = stored.previous;
            Some((at, stored))
        })
    }

    /// First and last sample of the growing chunk, of either kind.
    pub(crate) fn growing_range(&self, slot: Slot, series: &Series) -> Option<(i64, i64)> {
        match series.last() {
            Some((last, _)) => Some((series.mint, last)),
            None if series.flags & GROWS_BESIDE != 0 => self.growing.get(&slot).map(|g| (g.mint, g.last_t())),
            None => None,
        }
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
}
