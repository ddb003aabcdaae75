//! A tenant's exemplars: a ring that forgets the oldest, with a list through it for each series.
//!
//! Rules are Prometheus's: labels of at most 128 characters; of a series, an exemplar equal to the newest is a repetition;
//! one older than the newest must lie inside the out-of-order window, and one at its time must be larger in value or
//! else in labels. A series' exemplars stay when the series leaves the head.

use chronolith_model::{Exemplar, Labels, Matcher, TimeRange};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::section::Fingerprint;

/// Characters of an exemplar's label names and values together (OpenMetrics).
const LABEL_CHARS_MAX: usize = 128;
/// End of a list.
const NONE: u32 = u32::MAX;
/// The most exemplars of a tenant, as the lists' references have 32 bits.
pub(crate) const EXEMPLARS_MAX: usize = 1 << 30;

/// What became of an exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExemplarTaken {
    Taken,
    Duplicate,
    OutOfOrder,
    LabelsTooLong,
}

struct Entry {
    exemplar: Exemplar,
    /// In `series`.
    series: u32,
    older: u32,
    newer: u32,
}

struct SeriesList {
    fp: Fingerprint,
    labels: Labels,
    oldest: u32,
    newest: u32,
}

/// The ring.
pub(crate) struct ExemplarRing {
    /// Grows up to `max`, then is overwritten from the oldest on.
    entries: Vec<Entry>,
    /// Where the next one goes once the ring is full.
    next: usize,
    max: usize,
    /// How far behind its series' newest exemplar one may lie.
    window_ms: i64,
    series: Vec<SeriesList>,
    /// Places in `series` without a series.
    free: Vec<u32>,
    by_fp: HashMap<(u64, u64), u32, FxBuildHasher>,
    taken: u64,
    refused: u64,
}

/// What a ring holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExemplarStats {
    /// Exemplars held.
    pub held: usize,
    /// The most that are held.
    pub max: usize,
    /// Series that have some.
    pub series: usize,
    /// Time of the oldest in the order of arrival.
    pub oldest_ms: Option<i64>,
    /// Exemplars taken since the process began.
    pub taken: u64,
    /// Exemplars refused as out of order since the process began.
    pub out_of_order: u64,
}

impl ExemplarRing {
    pub(crate) fn new(max: usize, window_ms: i64) -> Self {
        ExemplarRing {
            entries: Vec::new(),
            next: 0,
            max: max.min(EXEMPLARS_MAX),
            window_ms,
            series: Vec::new(),
            free: Vec::new(),
            by_fp: HashMap::default(),
            taken: 0,
            refused: 0,
        }
    }

    /// From now on exemplars may be so much older than their series' newest.
    pub(crate) fn set_window(&mut self, window_ms: i64) {
        self.window_ms = window_ms;
    }

    /// Takes an exemplar of the series `fp`, whose labels are asked for when it has none yet.
    pub(crate) fn add(
        &mut self,
        fp: Fingerprint,
        labels: impl FnOnce() -> Labels,
        exemplar: &Exemplar,
    ) -> ExemplarTaken {
        let chars: usize = exemplar.labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        if chars > LABEL_CHARS_MAX {
            return ExemplarTaken::LabelsTooLong;
        }
        if self.max == 0 {
            return ExemplarTaken::Duplicate;
        }
        let known = self.by_fp.get(&(fp.low, fp.high)).copied();
        if let Some(list) = known {
            match self.check(list, exemplar) {
                ExemplarTaken::Taken => {}
                other => {
                    self.refused += u64::from(other == ExemplarTaken::OutOfOrder);
                    return other;
                }
            }
        }
        self.taken += 1;
        // What is overwritten may be the last one of its series, and that series this one.
        let at = self.make_room();
        let list = match self.by_fp.get(&(fp.low, fp.high)) {
            Some(list) => *list,
            None => self.new_list(fp, known.and_then(|k| self.labels_of(k, fp)).unwrap_or_else(labels)),
        };
        let mut older = self.series[list as usize].newest;
        while older != NONE && self.entries[older as usize].exemplar.t > exemplar.t {
            older = self.entries[older as usize].older;
        }
        let newer = match older {
            NONE => self.series[list as usize].oldest,
            older => self.entries[older as usize].newer,
        };
        let entry = Entry { exemplar: exemplar.clone(), series: list, older, newer };
        if at as usize == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[at as usize] = entry;
        }
        match older {
            NONE => self.series[list as usize].oldest = at,
            older => self.entries[older as usize].newer = at,
        }
        match newer {
            NONE => self.series[list as usize].newest = at,
            newer => self.entries[newer as usize].older = at,
        }
        ExemplarTaken::Taken
    }

    /// The labels of a list that has just lost its series, while nothing has taken its place.
    fn labels_of(&self, list: u32, fp: Fingerprint) -> Option<Labels> {
        self.series.get(list as usize).filter(|s| s.fp == fp).map(|s| s.labels.clone())
    }

    fn check(&self, list: u32, new: &Exemplar) -> ExemplarTaken {
        let list = &self.series[list as usize];
        let newest = &self.entries[list.newest as usize].exemplar;
        if is_same(newest, new) {
            return ExemplarTaken::Duplicate;
        }
        let too_old = new.t < newest.t && new.t <= newest.t.saturating_sub(self.window_ms);
        let same_time = new.t == newest.t;
        if too_old
            || same_time && new.value < newest.value
            || same_time && new.value == newest.value && new.labels < newest.labels
        {
            return ExemplarTaken::OutOfOrder;
        }
        if new.t < newest.t {
            // Inside the window: one at the same time counts as the same.
            let mut at = list.newest;
            while at != NONE {
                let entry = &self.entries[at as usize];
                if entry.exemplar.t == new.t {
                    return ExemplarTaken::Duplicate;
                }
                if entry.exemplar.t < new.t {
                    break;
                }
                at = entry.older;
            }
        }
        ExemplarTaken::Taken
    }

    /// The place for the next entry, free of what was there.
    fn make_room(&mut self) -> u32 {
        if self.entries.len() < self.max {
            return self.entries.len() as u32;
        }
        let at = self.next;
        self.next = (self.next + 1) % self.max;
        let Entry { series, older, newer, .. } = self.entries[at];
        let list = &mut self.series[series as usize];
        match older {
            NONE => list.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
        match newer {
            NONE => list.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        if list.oldest == NONE {
            self.by_fp.remove(&(list.fp.low, list.fp.high));
            self.free.push(series);
        }
        at as u32
    }

    fn new_list(&mut self, fp: Fingerprint, labels: Labels) -> u32 {
        let list = SeriesList { fp, labels, oldest: NONE, newest: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.series[at as usize] = list;
                at
            }
            None => {
                self.series.push(list);
                self.series.len() as u32 - 1
            }
        };
        self.by_fp.insert((fp.low, fp.high), at);
        at
    }

    fn of_list(&self, list: &SeriesList) -> impl Iterator<Item = &Exemplar> {
        let mut at = list.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(at as usize)?;
            at = entry.newer;
            Some(&entry.exemplar)
        })
    }

    /// Exemplars inside `range` of the series that satisfy all matchers of any list, ascending by labels and by time.
    pub(crate) fn select(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let fits = |labels: &Labels| {
            let all = |list: &Vec<Matcher>| list.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
            selectors.iter().any(all)
        };
        let mut found = Vec::new();
        for list in self.by_fp.values().map(|at| &self.series[*at as usize]) {
            let newest = self.entries[list.newest as usize].exemplar.t;
            if newest < range.mint || !fits(&list.labels) {
                continue;
            }
            let inside = self.of_list(list).filter(|e| range.contains(e.t));
            let exemplars: Vec<Exemplar> = inside.cloned().collect();
            if !exemplars.is_empty() {
                found.push((list.labels.clone(), exemplars));
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// All in the order of their arrival, with their series' labels: for a snapshot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Labels, &Exemplar)> {
        let (before, from) = self.entries.split_at(self.next.min(self.entries.len()));
        from.iter().chain(before).map(|e| (e.series, &self.series[e.series as usize].labels, &e.exemplar))
    }

    pub(crate) fn stats(&self) -> ExemplarStats {
        ExemplarStats {
            held: self.entries.len(),
            max: self.max,
            series: self.by_fp.len(),
            oldest_ms: self.iter().next().map(|(_, _, e)| e.t),
            taken: self.taken,
            out_of_order: self.refused,
        }
    }
}

fn is_same(a: &Exemplar, b: &Exemplar) -> bool {
    let same_value = a.value == b.value || a.value.to_bits() == b.value.to_bits();
    a.t == b.t && same_value && a.labels == b.labels
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn fp(series: u64) -> Fingerprint {
        Fingerprint { low: series, high: !series }
    }

    fn exemplar(t: i64, value: f64, trace: &str) -> Exemplar {
        Exemplar { labels: labels(&[("trace_id", trace)]), value, t }
    }

    fn add(ring: &mut ExemplarRing, series: u64, e: &Exemplar) -> ExemplarTaken {
        ring.add(fp(series), || labels(&[("__name__", "m"), ("s", &series.to_string())]), e)
    }

    #[test]
    fn the_rules_are_prometheus_s() {
        let mut ring = ExemplarRing::new(10, 0);
        let check = |ring: &mut ExemplarRing, e: Exemplar, want: ExemplarTaken| {
            assert_eq!(add(ring, 1, &e), want, "{e:?}");
        };
        check(&mut ring, exemplar(10, 1.0, "a"), ExemplarTaken::Taken);
        check(&mut ring, exemplar(10, 1.0, "a"), ExemplarTaken::Duplicate);
        check(&mut ring, exemplar(10, 0.5, "a"), ExemplarTaken::OutOfOrder);
        check(&mut ring, exemplar(10, 1.0, "b"), ExemplarTaken::Taken);
        check(&mut ring, exemplar(10, 1.0, "a"), ExemplarTaken::OutOfOrder);
        check(&mut ring, exemplar(10, 2.0, "a"), ExemplarTaken::Taken);
        check(&mut ring, exemplar(9, 2.0, "a"), ExemplarTaken::OutOfOrder);
        check(&mut ring, exemplar(11, 2.0, &"x".repeat(121)), ExemplarTaken::LabelsTooLong);
        check(&mut ring, exemplar(11, 2.0, &"ü".repeat(120)), ExemplarTaken::Taken);
        assert_eq!(add(&mut ring, 2, &exemplar(5, 1.0, "a")), ExemplarTaken::Taken);
        let stats = ring.stats();
        assert_eq!((stats.held, stats.series, stats.out_of_order, stats.oldest_ms), (5, 2, 3, Some(10)));

        let mut ring = ExemplarRing::new(10, 5);
        check(&mut ring, exemplar(10, 1.0, "a"), ExemplarTaken::Taken);
        check(&mut ring, exemplar(7, 1.0, "a"), ExemplarTaken::Taken);
        check(&mut ring, exemplar(7, 9.0, "b"), ExemplarTaken::Duplicate);
        check(&mut ring, exemplar(5, 1.0, "a"), ExemplarTaken::OutOfOrder);
        let all = ring.select(&[vec![]], TimeRange::ALL);
        assert_eq!(all[0].1.iter().map(|e| e.t).collect::<Vec<_>>(), [7, 10]);
        assert!(ExemplarRing::new(0, 0).select(&[vec![]], TimeRange::ALL).is_empty());
    }

    #[test]
    fn selections_match_labels_and_time() {
        let mut ring = ExemplarRing::new(100, 0);
        for series in 0..4 {
            for t in 0..5 {
                add(&mut ring, series, &exemplar(t * 10, 1.0, "a"));
            }
        }
        let by = |series: &str| vec![Matcher::equal("s", series)];
        let found = ring.select(&[by("3"), by("1"), by("9")], TimeRange::new(10, 20));
        let got: Vec<_> = found.iter().map(|(l, e)| (l.get("s").unwrap(), e.len())).collect();
        assert_eq!(got, [("1", 2), ("3", 2)]);
        assert!(ring.select(&[by("1")], TimeRange::new(41, 50)).is_empty());
        assert!(ring.select(&[], TimeRange::ALL).is_empty());
    }

    proptest! {
        /// Against the plain way: a list of everything, cut to its newest part.
        #[test]
        fn the_ring_keeps_the_newest(
            rows in prop::collection::vec((0..5u64, 0..40i64), 1..200),
            max in 1..20usize,
            window in prop_oneof![Just(0i64), Just(10)],
        ) {
            let mut ring = ExemplarRing::new(max, window);
            let mut kept: Vec<(u64, i64)> = Vec::new();
            for (series, t) in rows {
                if add(&mut ring, series, &exemplar(t, 1.0, "a")) == ExemplarTaken::Taken {
                    kept.push((series, t));
                    let drop = kept.len().saturating_sub(max);
                    kept.drain(..drop);
                }
            }
            let mut want: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for (series, t) in &kept {
                want.entry(series.to_string()).or_default().push(*t);
            }
            want.values_mut().for_each(|ts| ts.sort_unstable());
            let got: BTreeMap<String, Vec<i64>> = ring
                .select(&[vec![]], TimeRange::ALL)
                .into_iter()
                .map(|(l, e)| (l.get("s").unwrap().to_owned(), e.iter().map(|e| e.t).collect()))
                .collect();
            prop_assert_eq!(got, want);
            let order: Vec<_> = ring.iter().map(|(_, l, e)| (l.get("s").unwrap().parse().unwrap(), e.t)).collect();
            prop_assert_eq!(order, kept);
        }
    }
}
