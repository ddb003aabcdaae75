//! Reading a head.

use std::collections::BTreeSet;
use std::sync::Arc;

use chronolith_chunk::Chunk;
use chronolith_model::{Labels, Matcher, TimeRange};

use super::section::Fingerprint;
use super::{Head, Slot};
use crate::postings::resolve_matchers;

/// A series with its chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSeries {
    /// Labels.
    pub labels: Labels,
    /// Chunks that overlap the range asked for, sorted by their first sample; they overlap each other where samples
    /// came out of order. Not cut to the range.
    pub chunks: Vec<Chunk>,
}

struct Found {
    labels: Labels,
    shard: u32,
    slot: Slot,
    /// The slot may have been given to another series meanwhile.
    fp: Fingerprint,
}

/// The series that a selection found, ascending by labels. Chunks are fetched one series at a time, so a series shows
/// what it holds when the iterator comes to it.
pub struct HeadSelect {
    head: Arc<Head>,
    found: std::vec::IntoIter<Found>,
    range: TimeRange,
    skip_chunks: bool,
}

impl Iterator for HeadSelect {
    type Item = HeadSeries;

    fn next(&mut self) -> Option<HeadSeries> {
        loop {
            let found = self.found.next()?;
            if self.skip_chunks {
                return Some(HeadSeries { labels: found.labels, chunks: Vec::new() });
            }
            let mut chunks = Vec::new();
            {
                let shard = self.head.shards[found.shard as usize].lock();
                if let Some(series) = shard.live_series(found.slot).filter(|s| s.fp == found.fp) {
                    shard.chunks(found.slot, series, self.range, &mut chunks);
                }
            }
            if !chunks.is_empty() {
                return Some(HeadSeries { labels: found.labels, chunks });
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.found.len()))
    }
}

impl Head {
    /// The series that satisfy all matchers and have a sample inside `range`, ascending by labels.
    pub fn select(self: &Arc<Self>, matchers: &[Matcher], range: TimeRange, skip_chunks: bool) -> HeadSelect {
        let mut found = self.find(matchers, range);
        found.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        HeadSelect { head: Arc::clone(self), found: found.into_iter(), range, skip_chunks }
    }

    /// References of the series that satisfy all matchers.
    fn resolve(&self, matchers: &[Matcher]) -> Vec<u32> {
        let index = self.index.read();
        let Ok(refs) = resolve_matchers(&*index, matchers);
        refs
    }

    fn find(&self, matchers: &[Matcher], range: TimeRange) -> Vec<Found> {
        if self.time_range().is_none_or(|r| !r.overlaps(&range)) {
            return Vec::new();
        }
        let refs = self.resolve(matchers);
        let mut found = Vec::with_capacity(refs.len());
        self.visit(&refs, range, |index, shard_index, shard, slot, series| {
            found.push(Found {
                labels: shard.labels(series, &index.symbols),
                shard: shard_index as u32,
                slot,
                fp: series.fp,
            });
        });
        found
    }

    /// Calls `visit` for those of `refs` that live and have samples inside `range`, shard by shard.
    fn visit(
        &self,
        refs: &[u32],
        range: TimeRange,
        mut visit: impl FnMut(&super::HeadIndex, usize, &super::Shard, Slot, &super::series::Series),
    ) {
        for (shard_index, shard) in self.shards.iter().enumerate() {
            let mut of_shard = refs.iter().filter(|r| self.place(**r).0 == shard_index).peekable();
            if of_shard.peek().is_none() {
                continue;
            }
            let shard = shard.lock();
            let index = self.index.read();
            for r in of_shard {
                let (_, slot) = self.place(*r);
                if let Some(series) = shard.live_series(slot)
                    && shard.overlaps(slot, series, range)
                {
                    visit(&index, shard_index, &shard, slot, series);
                }
            }
        }
    }

    /// Names of the labels of the matching series that have samples inside `range`, sorted.
    pub fn label_names(&self, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let mut names = BTreeSet::new();
        if self.covers(range) && matchers.is_empty() {
            let index = self.index.read();
            index.for_each_name(|name, _| {
                names.insert(name.to_owned());
            });
            return names.into_iter().collect();
        }
        let refs = self.resolve(matchers);
        let mut symbols = BTreeSet::new();
        self.visit(&refs, range, |index, _, shard, _, series| {
            for (name, _) in shard.symbols(series) {
                if symbols.insert(name) {
                    names.insert(index.symbols.text(name).to_owned());
                }
            }
        });
        names.into_iter().collect()
    }

    /// Values of the label `name` of the matching series that have samples inside `range`, sorted.
    pub fn label_values(&self, name: &str, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let mut values: Vec<String>;
        if self.covers(range) && matchers.is_empty() {
            let index = self.index.read();
            values = index.values_of(name).map(|(v, _)| v.to_owned()).collect();
        } else {
            let refs = self.resolve(matchers);
            let mut symbols = hashbrown::HashSet::<u32, rustc_hash::FxBuildHasher>::default();
            values = Vec::new();
            self.visit(&refs, range, |index, _, shard, _, series| {
                let Some(wanted) = index.symbols.find(name) else { return };
                let value = shard.symbols(series).find(|(n, _)| *n == wanted).map(|(_, v)| v);
                if let Some(value) = value
                    && symbols.insert(value)
                {
                    values.push(index.symbols.text(value).to_owned());
                }
            });
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    /// True when every sample of the head lies inside `range`.
    fn covers(&self, range: TimeRange) -> bool {
        self.time_range().is_some_and(|r| range.mint <= r.mint && r.maxt <= range.maxt)
    }
}

impl std::fmt::Debug for HeadSelect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeadSelect").field("left", &self.found.len()).finish_non_exhaustive()
    }
}
