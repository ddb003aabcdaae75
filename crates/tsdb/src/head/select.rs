//! Selecting series of a head with their chunks.

use std::sync::Arc;

use chronolith_chunk::Chunk;
use chronolith_model::{Labels, Matcher, TimeRange};

use super::Head;
use super::gather::{Gather, Sorted};
use super::segments::Copies;

/// A series with its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSeries {
    /// Labels.
    pub labels: Labels,
    /// Chunks that overlap the range asked for, sorted by their first sample; they overlap each other where samples
    /// came out of order. Not cut to the range.
    pub chunks: Vec<Chunk>,
}

/// Series of the first batch: who wants only the first pays for few.
const BATCH_MIN: usize = 32;
/// Series of the largest batch. Batches are read in the order of the shards' memory; a batch's chunks are a few MB.
const BATCH_MAX: usize = 4096;

/// Series whose memory is loaded before it is read: what they hold fits the second-level cache.
const TOUCHED: usize = 64;

/// The series that a selection found, ascending by labels. Chunks are fetched for a batch of series at a time, so a
/// series shows what it holds when the iterator comes near it.
pub struct HeadSelect {
    head: Arc<Head>,
    found: Sorted,
    next: usize,
    range: TimeRange,
    /// Chunks of the rows from `batch_start` on; `None` when none are wanted.
    batch: Option<Batch>,
}

struct Batch {
    /// Of each series the newest sample will do.
    newest_only: bool,
    start: usize,
    chunks: Vec<Vec<Chunk>>,
    /// Scratch: shard, slot and row of the batch's series.
    order: Vec<(u32, u32, u32)>,
    scratch: Vec<Chunk>,
    copies: Copies,
}

impl Iterator for HeadSelect {
    type Item = HeadSeries;

    fn next(&mut self) -> Option<HeadSeries> {
        loop {
            let row = self.next;
            if row == self.found.rows.len() {
                return None;
            }
            self.next += 1;
            let chunks = match &mut self.batch {
                None => Vec::new(),
                Some(batch) => {
                    if row == batch.start + batch.chunks.len() {
                        batch.fetch(&self.head, &self.found, row, self.range);
                    }
                    let chunks = std::mem::take(&mut batch.chunks[row - batch.start]);
                    if chunks.is_empty() {
                        // It went meanwhile.
                        continue;
                    }
                    chunks
                }
            };
            return Some(HeadSeries { labels: self.found.labels(row), chunks });
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.found.rows.len() - self.next;
        (if self.batch.is_none() { left } else { 0 }, Some(left))
    }
}

impl Batch {
    fn new(newest_only: bool) -> Self {
        Batch {
            newest_only,
            start: 0,
            chunks: Vec::new(),
            order: Vec::new(),
            scratch: Vec::new(),
            copies: Copies::in_pages(),
        }
    }

    /// Fetches the chunks of the series from row `start` on.
    fn fetch(&mut self, head: &Head, found: &Sorted, start: usize, range: TimeRange) {
        let size = (self.chunks.len() * 4).clamp(BATCH_MIN, BATCH_MAX).min(found.rows.len() - start);
        self.start = start;
        self.chunks.clear();
        self.chunks.resize_with(size, Vec::new);
        self.order.clear();
        self.order.extend(found.rows[start..start + size].iter().zip(0..).map(|(row, i)| {
            let (shard, slot) = head.place(row.series);
            (shard as u32, slot, i)
        }));
        self.order.sort_unstable();
        for group in self.order.chunk_by(|a, b| a.0 == b.0) {
            let shard = head.shards[group[0].0 as usize].lock();
            for some in group.chunks(TOUCHED) {
                if !self.newest_only {
                    shard.touch_growing(some.iter().map(|(_, slot, _)| *slot));
                }
                for (_, slot, i) in some {
                    let fp = found.rows[start + *i as usize].fp;
                    if let Some(series) = shard.live_series(*slot).filter(|s| s.fp == fp) {
                        let newest = if self.newest_only { series.newest(&mut self.copies) } else { None };
                        match newest.filter(|c| range.contains(c.maxt)) {
                            Some(newest) => self.scratch.push(newest),
                            None => shard.chunks(*slot, series, range, &mut self.copies, &mut self.scratch),
                        }
                        // Exactly as large as it must be: whoever reads may hold all series at once.
                        self.chunks[*i as usize] = self.scratch.drain(..).collect();
                    }
                }
            }
        }
    }
}

impl Head {
    /// The series that satisfy all matchers and have a sample inside `range`, ascending by labels.
    pub fn select(self: &Arc<Self>, matchers: &[Matcher], range: TimeRange, skip_chunks: bool) -> HeadSelect {
        self.select_with(matchers, range, (!skip_chunks).then(|| Batch::new(false)))
    }

    /// As [`Head::select`], for readers who look at nothing but each series' newest sample inside `range`: the others may
    /// be left out.
    pub fn select_newest(self: &Arc<Self>, matchers: &[Matcher], range: TimeRange) -> HeadSelect {
        self.select_with(matchers, range, Some(Batch::new(true)))
    }

    fn select_with(
        self: &Arc<Self>,
        matchers: &[Matcher],
        range: TimeRange,
        batch: Option<Batch>,
    ) -> HeadSelect {
        let found = self.find(matchers, range).finish();
        HeadSelect { head: Arc::clone(self), found, next: 0, range, batch }
    }

    fn find(&self, matchers: &[Matcher], range: TimeRange) -> Gather {
        if self.time_range().is_none_or(|r| !r.overlaps(&range)) {
            return Gather::default();
        }
        let refs = self.resolve(matchers);
        let mut gather = Gather::with_capacity(refs.len());
        self.visit(&refs, range, |index, shard, live| {
            gather.resume(&index.symbols);
            for (reference, series) in live {
                gather.push(reference, series.fp, shard.symbols(series), &index.symbols);
            }
        });
        gather
    }
}

impl std::fmt::Debug for HeadSelect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeadSelect")
            .field("left", &(self.found.rows.len() - self.next))
            .finish_non_exhaustive()
    }
}
