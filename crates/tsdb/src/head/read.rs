//! Reading a head: resolving matchers, visiting series, label names and values.

use std::collections::BTreeSet;

use chronolith_model::{Exemplar, Labels, MatchOp, Matcher, MetricMetadata, TimeRange};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use super::index::HeadIndex;
use super::series::Series;
use super::{ExemplarStats, Head, Shard};
use crate::postings::resolve_matchers;

/// Series that are visited while a shard stays locked: writers wait for less than a millisecond.
const VISIT_BATCH: usize = 2048;

/// The shortest of some lists that are intersected just to count: a few microseconds.
const RESOLVED_AT_ONCE: usize = 2048;

/// Series of a shard, with their references.
pub(super) type Live<'a> = &'a mut dyn Iterator<Item = (u32, &'a Series)>;

/// Symbols seen, while they mean the same.
#[derive(Default)]
struct Seen {
    symbols: HashSet<u32, FxBuildHasher>,
    sweeps: u64,
}

impl Seen {
    /// To be called whenever the index has been locked anew.
    fn resume(&mut self, index: &HeadIndex) {
        if self.sweeps != index.symbols.sweeps() {
            self.sweeps = index.symbols.sweeps();
            self.symbols.clear();
        }
    }
}

impl Head {
    /// References of the series that satisfy all matchers.
    pub(super) fn resolve(&self, matchers: &[Matcher]) -> Vec<u32> {
        let index = self.index.read();
        let Ok(refs) = resolve_matchers(&*index, matchers);
        refs
    }

    /// No more series than this satisfy all matchers. Quick, so it is exact only where a short list and matchers that are
    /// no patterns make it so.
    pub fn series_bound(&self, matchers: &[Matcher]) -> usize {
        let index = self.index.read();
        let lists = matchers.iter().filter(|m| m.op == MatchOp::Equal && !m.value.is_empty());
        let shortest = lists.map(|m| index.list_len(&m.name, &m.value)).min();
        let plain = matchers.iter().all(|m| matches!(m.op, MatchOp::Equal | MatchOp::NotEqual));
        match shortest {
            Some(n) if n > 1 && n <= RESOLVED_AT_ONCE && plain => {
                let Ok(refs) = resolve_matchers(&*index, matchers);
                refs.len()
            }
            Some(n) => n,
            None => self.series_count(),
        }
    }

    /// About how many label names and series [`Head::label_names`] has to look at.
    pub fn names_bound(&self, matchers: &[Matcher]) -> usize {
        let names = self.index.read().name_count();
        if matchers.is_empty() { names } else { names.saturating_add(self.series_bound(matchers)) }
    }

    /// No more values of a label, or series to find them by, have to be looked at for [`Head::label_values`].
    pub fn values_bound(&self, name: &str, matchers: &[Matcher]) -> usize {
        let values = self.index.read().value_count(name);
        if matchers.is_empty() { values } else { values.saturating_add(self.series_bound(matchers)) }
    }

    /// Calls `visit` with those of `refs` that live and have samples inside `range`, for some series of one shard at a
    /// time. Between two calls symbols may get another meaning.
    pub(super) fn visit(
        &self,
        refs: &[u32],
        range: TimeRange,
        mut visit: impl for<'a> FnMut(&'a HeadIndex, &'a Shard, Live<'a>),
    ) {
        if self.time_range().is_none_or(|r| !r.overlaps(&range)) {
            return;
        }
        let mut ends = vec![0usize; self.shards.len() + 1];
        for r in refs {
            ends[self.place(*r).0 + 1] += 1;
        }
        for i in 1..ends.len() {
            ends[i] += ends[i - 1];
        }
        let mut next = ends.clone();
        let mut by_shard = vec![0u32; refs.len()];
        for r in refs {
            let at = &mut next[self.place(*r).0];
            by_shard[*at] = *r;
            *at += 1;
        }
        for (shard, bounds) in self.shards.iter().zip(ends.windows(2)) {
            for batch in by_shard[bounds[0]..bounds[1]].chunks(VISIT_BATCH) {
                let shard = shard.lock();
                let index = self.index.read();
                let mut live = batch.iter().filter_map(|r| {
                    let slot = self.place(*r).1;
                    let series = shard.live_series(slot)?;
                    shard.overlaps(slot, series, range).then_some((*r, series))
                });
                visit(&index, &shard, &mut live);
            }
        }
    }

    /// Exemplars inside `range` of the series that satisfy all matchers of any list, ascending by labels and by time.
    pub fn exemplars(&self, selectors: &[Vec<Matcher>], range: TimeRange) -> Vec<(Labels, Vec<Exemplar>)> {
        self.exemplars.lock().select(selectors, range)
    }

    /// How many exemplars there are.
    pub fn exemplar_stats(&self) -> ExemplarStats {
        self.exemplars.lock().stats()
    }

    /// What writers say of a metric, or of all, in no order.
    pub fn metadata(&self, metric: Option<&str>) -> Vec<(String, Vec<MetricMetadata>)> {
        self.metadata.lock().get(metric)
    }

    /// Metrics that writers said something of.
    pub fn metadata_count(&self) -> usize {
        self.metadata.lock().len()
    }

    /// Names of the labels of the matching series, sorted. The range is that of the head or none, as in Prometheus: a
    /// series that has samples elsewhere in the head only counts too.
    pub fn label_names(&self, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let mut names = BTreeSet::new();
        if !self.overlaps(range) {
            return Vec::new();
        }
        let index = self.index.read();
        let wanted = Wanted::new(&index, matchers);
        match wanted.few(index.pair_count()) {
            None => index.for_each_name(|name, mut values| {
                if (&mut values).any(|(_, list)| wanted.has_any(list)) {
                    names.insert(name.to_owned());
                }
            }),
            Some(refs) => {
                drop(index);
                let mut seen = Seen::default();
                self.visit(refs, TimeRange::ALL, |index, shard, live| {
                    seen.resume(index);
                    for (name, _) in live.flat_map(|(_, series)| shard.symbols(series)) {
                        if seen.symbols.insert(name) {
                            names.insert(index.symbols.text(name).to_owned());
                        }
                    }
                });
            }
        }
        names.into_iter().collect()
    }

    /// Values of the label `name` of the matching series, sorted. The range is looked at as in [`Head::label_names`].
    pub fn label_values(&self, name: &str, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        if !self.overlaps(range) {
            return Vec::new();
        }
        let index = self.index.read();
        let wanted = Wanted::new(&index, matchers);
        let mut values: Vec<String> = Vec::new();
        match wanted.few(index.value_count(name)) {
            None => {
                let found = index.values_of(name).filter(|(_, list)| wanted.has_any(list));
                values.extend(found.map(|(v, _)| v.to_owned()));
            }
            Some(refs) => {
                drop(index);
                let mut seen = Seen::default();
                self.visit(refs, TimeRange::ALL, |index, shard, live| {
                    seen.resume(index);
                    let Some(wanted) = index.symbols.find(name) else { return };
                    let value_of = |(_, series)| shard.symbols(series).find(|(n, _)| *n == wanted);
                    for (_, value) in live.filter_map(value_of) {
                        if seen.symbols.insert(value) {
                            values.push(index.symbols.text(value).to_owned());
                        }
                    }
                });
            }
        }
        values.sort_unstable();
        // Symbols may have been swept between two shards.
        values.dedup();
        values
    }

    /// True when some sample of the head may lie inside `range`.
    fn overlaps(&self, range: TimeRange) -> bool {
        self.time_range().is_some_and(|r| r.overlaps(&range))
    }
}

/// The series that matchers select, or all where there is no matcher.
enum Wanted {
    All,
    Some {
        refs: Vec<u32>,
        /// A bit for each reference up to the highest: references are dense, so it is little.
        words: Vec<u64>,
    },
}

impl Wanted {
    fn new(index: &HeadIndex, matchers: &[Matcher]) -> Self {
        if matchers.is_empty() {
            return Wanted::All;
        }
        let Ok(refs) = resolve_matchers(index, matchers);
        let mut words = vec![0; refs.last().map_or(0, |last| *last as usize / 64 + 1)];
        for r in &refs {
            words[*r as usize / 64] |= 1u64 << (r % 64);
        }
        Wanted::Some { refs, words }
    }

    /// The series, where looking at each of them is less than looking at as many lists.
    fn few(&self, lists: usize) -> Option<&[u32]> {
        match self {
            Wanted::Some { refs, .. } if refs.len() < lists => Some(refs),
            _ => None,
        }
    }

    fn has_any(&self, list: &[u32]) -> bool {
        let Wanted::Some { words, .. } = self else { return !list.is_empty() };
        list.iter().any(|r| words.get(*r as usize / 64).is_some_and(|w| w >> (r % 64) & 1 == 1))
    }
}
