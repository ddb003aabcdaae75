//! What a shard takes from a snapshot and from the log.

use chronolith_chunk::XorState;
use chronolith_model::{TimeRange, WriteHistogram, is_stale_nan};

use super::append::stale_of;
use super::{PAGE, PAGE_SHIFT, Shard, Slot, Taken};
use crate::head::growing::Growing;
use crate::head::ooo::{OutOfOrder, floats, holds_histogram};
use crate::head::segments::{ChunkAt, Copies};
use crate::head::series::{GROWS_BESIDE, HAS_OUT_OF_ORDER, MAY_OVERLAP};

impl Shard {
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
}
