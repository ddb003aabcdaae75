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

    /// Names of the labels of the matching series that have samples inside `range`, sorted.
    pub fn label_names(&self, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let mut names = BTreeSet::new();
        if self.covers(range) {
            let index = self.index.read();
            let wanted = Wanted::new(&index, matchers);
            index.for_each_name(|name, mut values| {
                if (&mut values).any(|(_, list)| wanted.has_any(list)) {
                    names.insert(name.to_owned());
                }
            });
            return names.into_iter().collect();
        }
        let refs = self.resolve(matchers);
        let mut seen = Seen::default();
        self.visit(&refs, range, |index, shard, live| {
            seen.resume(index);
            for (_, series) in live {
                for (name, _) in shard.symbols(series) {
                    if seen.symbols.insert(name) {
                        names.insert(index.symbols.text(name).to_owned());
                    }
                }
            }
        });
        names.into_iter().collect()
    }

    /// Values of the label `name` of the matching series that have samples inside `range`, sorted.
    pub fn label_values(&self, name: &str, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let mut values: Vec<String>;
        if self.covers(range) {
            let index = self.index.read();
            let wanted = Wanted::new(&index, matchers);
            let found = index.values_of(name).filter(|(_, list)| wanted.has_any(list));
            values = found.map(|(v, _)| v.to_owned()).collect();
        } else if let Some(found) = self.probe_values(name, matchers, range) {
            values = found;
        } else {
            let refs = self.resolve(matchers);
            let mut seen = Seen::default();
            values = Vec::new();
            self.visit(&refs, range, |index, shard, live| {
                seen.resume(index);
                let Some(wanted) = index.symbols.find(name) else { return };
                for (_, series) in live {
                    let value = shard.symbols(series).find(|(n, _)| *n == wanted).map(|(_, v)| v);
                    if let Some(value) = value
                        && seen.symbols.insert(value)
                    {
                        values.push(index.symbols.text(value).to_owned());
                    }
                }
            });
        }
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The values of a label by looking at a few series of each: in practice the first one has samples inside the range.
    /// `None` when that does not decide for a value.
    fn probe_values(&self, name: &str, matchers: &[Matcher], range: TimeRange) -> Option<Vec<String>> {
        let probes: Vec<(String, Vec<u32>, bool)> = {
            let index = self.index.read();
            let wanted = Wanted::new(&index, matchers);
            let probe = |(value, list): (&str, &[u32])| {
                let mut matching = wanted.of(list);
                let first: Vec<u32> = matching.by_ref().take(PROBES).collect();
                (!first.is_empty()).then(|| (value.to_owned(), first, matching.next().is_some()))
            };
            index.values_of(name).filter_map(probe).collect()
        };
        let mut values = Vec::with_capacity(probes.len());
        for (value, refs, more) in probes {
            let found = refs.iter().any(|r| {
                let (shard, slot) = self.place(*r);
                let shard = self.shards[shard].lock();
                shard.live_series(slot).is_some_and(|series| shard.overlaps(slot, series, range))
            });
            match (found, more) {
                (true, _) => values.push(value),
                (false, false) => {}
                (false, true) => return None,
            }
        }
        Some(values)
    }

    /// True when every sample of the head lies inside `range`.
    fn covers(&self, range: TimeRange) -> bool {
        self.time_range().is_some_and(|r| range.mint <= r.mint && r.maxt <= range.maxt)
    }
}

/// Series of a label's value that are looked at before all of them are.
const PROBES: usize = 4;

/// The series that matchers select; `None` when there is no matcher.
struct Wanted(Option<Vec<u64>>);

impl Wanted {
    fn new(index: &HeadIndex, matchers: &[Matcher]) -> Self {
        if matchers.is_empty() {
            return Wanted(None);
        }
        let Ok(refs) = resolve_matchers(index, matchers);
        // References are dense, so a bit for each up to the highest is little.
        let mut words = vec![0; refs.last().map_or(0, |last| *last as usize / 64 + 1)];
        for r in refs {
            words[r as usize / 64] |= 1u64 << (r % 64);
        }
        Wanted(Some(words))
    }

    fn has(&self, r: u32) -> bool {
        let Some(words) = &self.0 else { return true };
        words.get(r as usize / 64).is_some_and(|w| w >> (r % 64) & 1 == 1)
    }

    fn has_any(&self, list: &[u32]) -> bool {
        self.of(list).next().is_some()
    }

    fn of<'a>(&'a self, list: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        list.iter().copied().filter(|r| self.has(*r))
    }
}
