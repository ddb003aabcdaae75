//! The head's part of a block cut.
//!
//! 1. [`Head::begin_cut`], with no write in flight: from now on older samples are taken out of order only, and what
//!    has come out of order so far is closed and counted.
//! 2. Series are streamed in label order ([`Head::cut_groups`], [`Head::cut_series`], [`Head::cut_chunks`]).
//! 3. [`Head::finish_cut`], once the blocks are durable: exactly what they hold is forgotten.

use std::sync::atomic::Ordering;

use chronolith_chunk::Chunk;
use chronolith_model::{Labels, TimeRange};

use super::segments::Copies;
use super::series::range_end;
use super::{CutBound, CutCounts, Head, Slot};

/// Samples out of order that a head holds before they become blocks out of turn: some 100 MB.
const LATE_SAMPLES_MAX: usize = 16 << 20;

/// What a cut takes from a head.
#[derive(Debug)]
pub(crate) struct CutPlan {
    /// Older samples go to blocks; `i64::MAX` when everything does that was there when the cut began.
    pub(crate) time: i64,
    /// For each shard, what the cut takes in order.
    bounds: Vec<CutBound>,
    /// For each shard, the out-of-order chunks that the cut takes.
    counts: Vec<CutCounts>,
    /// Oldest sample of the head.
    pub(crate) min_t: i64,
    /// The blocks to write: half-open ranges, ascending.
    pub(crate) ranges: Vec<(i64, i64)>,
}

/// Series that left their shards.
pub(crate) type DeadSeries = hashbrown::HashSet<u32, rustc_hash::FxBuildHasher>;

/// A series of a cut: its place, ordered by labels.
pub(crate) struct CutSeries {
    pub(crate) labels: Labels,
    shard: usize,
    slot: Slot,
}

impl Head {
    /// The time up to which the head can be cut: when it holds more than one and a half block ranges, all of them but the
    /// newest half range and what began with it.
    ///
    /// What came late from before the last cut waits for the next one, as in Prometheus: late data that trickles in makes
    /// one block more for each of its ranges, not one with every look. A flood of it does not wait.
    pub(crate) fn cut_due(&self) -> Option<i64> {
        let range = self.time_range()?;
        let block = self.options.block_range_ms;
        let barred = self.min_valid_time();
        let oldest = range.mint.max(barred);
        if range.maxt.saturating_sub(oldest) > block + block / 2 {
            let last = range.maxt.saturating_sub(block / 2 + 1);
            let mut end = range_end(last, block);
            // Around 1970 a range is twice as long.
            while end > last {
                end = end.saturating_sub(block);
            }
            return Some(end.max(range_end(oldest, block))).filter(|end| *end <= range.maxt);
        }
        let late = || self.shards.iter().map(|s| s.lock().late_samples).sum::<usize>();
        (range.mint < barred && late() > LATE_SAMPLES_MAX).then_some(barred)
    }

    /// Starts a cut of everything before `time`, or of everything with [`i64::MAX`]. The caller holds the gate alone.
    ///
    /// A cut of everything does not bar the times it takes: scrapes that are under way go on to be stored. It takes
    /// what lies in certain segments, and newer chunks lie in others.
    pub(crate) fn begin_cut(&self, time: i64) -> CutPlan {
        let everything = time == i64::MAX;
        if !everything {
            self.min_valid.fetch_max(time, Ordering::Relaxed);
        }
        let (mut counts, mut bounds) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let mut shard = shard.lock();
            counts.push(shard.close_out_of_order());
            bounds.push(if everything {
                CutBound::Segments(shard.complete_all())
            } else {
                CutBound::Before(time)
            });
        }
        let min_t = self.min_t.load(Ordering::Relaxed);
        CutPlan { time, bounds, counts, min_t, ranges: Vec::new() }
    }

    /// Finds the ranges of the blocks to write. Writes may go on.
    pub(crate) fn plan_ranges(&self, plan: &mut CutPlan) {
        let block = self.options.block_range_ms;
        let mut ends = std::collections::BTreeSet::new();
        for shard in &self.shards {
            shard.lock().range_ends_before(plan.time, block, &mut ends);
        }
        let mut from = i64::MIN;
        for end in ends {
            // Around 1970 a range is twice as long.
            plan.ranges.push((from.max(end.saturating_sub(block.saturating_mul(2))), end));
            from = end;
        }
    }

    /// The series that have samples in `range`, in groups that ascend by labels; a group's series share their first
    /// label pair (the metric, as a rule), so only one metric's labels need to be in memory at a time.
    pub(crate) fn cut_groups(&self, range: TimeRange) -> Vec<Vec<u32>> {
        let mut by_pair = hashbrown::HashMap::<(u32, u32), Vec<u32>, rustc_hash::FxBuildHasher>::default();
        for (index, shard) in self.shards.iter().enumerate() {
            let shard = shard.lock();
            for (slot, series) in shard.live_slots() {
                if shard.overlaps(slot, series, range)
                    && let Some(first) = shard.symbols(series).next()
                {
                    by_pair.entry(first).or_default().push(self.series_ref(index, slot));
                }
            }
        }
        let head_index = self.index.read();
        let mut groups: Vec<_> = by_pair.into_iter().collect();
        let text = |pair: &(u32, u32)| (head_index.symbols.text(pair.0), head_index.symbols.text(pair.1));
        groups.sort_unstable_by(|(a, _), (b, _)| text(a).cmp(&text(b)));
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// The series of a group, ascending by labels.
    pub(crate) fn cut_series(&self, group: &[u32]) -> Vec<CutSeries> {
        let mut all = Vec::with_capacity(group.len());
        for series in group {
            let (index, slot) = self.place(*series);
            let shard = self.shards[index].lock();
            if let Some(live) = shard.live_series(slot) {
                let labels = shard.labels(live, &self.index.read().symbols);
                all.push(CutSeries { labels, shard: index, slot });
            }
        }
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        all
    }

    /// The chunks of one series inside a cut's range, in order and without overlap.
    pub(crate) fn cut_chunks(&self, plan: &CutPlan, series: &CutSeries, range: TimeRange) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut late = Vec::new();
        {
            let shard = self.shards[series.shard].lock();
            let Some(live) = shard.live_series(series.slot) else { return chunks };
            let limit = match plan.bounds[series.shard] {
                CutBound::Before(_) => u32::MAX,
                CutBound::Segments(limit) => limit,
            };
            shard.bounded_chunks(series.slot, live, range, limit, &mut Copies::default(), &mut chunks);
            if let (Some(count), Some(o)) =
                (plan.counts[series.shard].get(&series.slot), shard.ooo.get(&series.slot))
            {
                let closed = o.closed.iter().take(*count);
                late.extend(closed.filter(|c| c.time_range().overlaps(&range)).cloned());
            }
        }
        if late.is_empty() && chunks.iter().all(|c| range.contains(c.mint) && range.contains(c.maxt)) {
            return chunks;
        }
        super::ooo::merge(&chunks, &late, range)
    }

    /// Forgets what the blocks of a cut hold. The caller then waits for the gate, so that no write is under way that
    /// has seen the series that went, and hands them to [`Head::forget_series`].
    pub(crate) fn finish_cut(&self, plan: &CutPlan) -> DeadSeries {
        let mut dead = DeadSeries::default();
        for (index, shard) in self.shards.iter().enumerate() {
            let gone = shard.lock().truncate(plan.bounds[index], &plan.counts[index], true);
            dead.extend(gone.into_iter().map(|slot| self.series_ref(index, slot)));
        }
        self.refresh_times();
        dead
    }

    /// Removes series that have left their shards from the index, and symbols that nobody uses any more. Then their
    /// slots may be used again.
    pub(crate) fn forget_series(&self, dead: &DeadSeries) {
        if dead.is_empty() {
            return;
        }
        self.series_count.fetch_sub(dead.len(), Ordering::Relaxed);
        {
            let mut index = self.index.write();
            index.remove(&|series| dead.contains(&series));
            index.symbols.begin_sweep();
        }
        for shard in &self.shards {
            let shard = shard.lock();
            let mut index = self.index.write();
            for (_, series) in shard.live_slots() {
                for (name, value) in shard.symbols(series) {
                    index.symbols.mark(name);
                    index.symbols.mark(value);
                }
            }
        }
        self.index.write().symbols.end_sweep();
        // Aliases of series that are gone are worth nothing; the others are soon learnt again.
        let mut aliases = self.aliases.write();
        aliases.clear();
        aliases.shrink_to_fit();
        self.has_aliases.store(false, Ordering::Release);
        drop(aliases);
        self.known.write().age();
        for shard in &self.shards {
            shard.lock().release();
        }
    }

    /// Oldest and newest time from what the shards hold. The newest does not fall while samples are held.
    pub(crate) fn refresh_times(&self) {
        let (mut min_t, mut max_t) = (i64::MAX, i64::MIN);
        // All shards at once, so that no append between two of them is lost from the bounds.
        let shards: Vec<_> = self.shards.iter().map(|s| s.lock()).collect();
        for shard in &shards {
            (min_t, max_t) = (min_t.min(shard.min_t), max_t.max(shard.max_t));
        }
        self.min_t.store(min_t, Ordering::Relaxed);
        self.max_t.store(max_t, Ordering::Relaxed);
    }

    /// After a replay: removes what a committed cut left empty, finds the free slots, builds the index.
    pub(crate) fn finish_replay(&self) {
        let mut shards: Vec<_> = self.shards.iter().map(|s| s.lock()).collect();
        for shard in &mut shards {
            shard.truncate(CutBound::Before(i64::MIN), &CutCounts::default(), true);
            shard.rebuild_free();
        }
        let mut index = self.index.write();
        index.symbols.finish_import();
        index.rebuild(|visit| {
            for slot in 0..shards.iter().map(|s| s.slots()).max().unwrap_or(0) {
                for (i, shard) in shards.iter().enumerate() {
                    let Some(series) = shard.live_series(slot) else { continue };
                    let reference = self.series_ref(i, slot);
                    for (at, pair) in shard.symbols(series).enumerate() {
                        visit(reference, at, pair);
                    }
                }
            }
        });
        self.series_count.store(shards.iter().map(|s| s.live).sum(), Ordering::Relaxed);
        for shard in shards.iter_mut().filter(|s| s.live == 0) {
            shard.release();
        }
        drop((index, shards));
        self.refresh_times();
    }
}
