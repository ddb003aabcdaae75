//! The head's inverted index: label pair to series references.

use std::borrow::Cow;
use std::convert::Infallible;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::symbols::Symbols;
use crate::postings::PostingsSource;

/// One label pair's series, ascending. Most pairs with many distinct values have one or two series.
type List = SmallVec<[u32; 2]>;

/// Keyed by symbol. Symbols are dense numbers of our own making, so a cheap hash will do.
type BySymbol<T> = HashMap<u32, T, FxBuildHasher>;

/// Symbols and postings of one head.
pub(crate) struct HeadIndex {
    pub(crate) symbols: Symbols,
    names: BySymbol<BySymbol<List>>,
    /// Entries in all lists of all pairs.
    pairs: usize,
}

impl HeadIndex {
    pub(crate) fn new(seed: u64) -> Self {
        HeadIndex { symbols: Symbols::new(seed), names: HashMap::default(), pairs: 0 }
    }

    /// Enters a series under one of its pairs.
    pub(crate) fn insert(&mut self, name: u32, value: u32, series: u32) {
        let list = self.names.entry(name).or_default().entry(value).or_insert_with(|| {
            self.pairs += 1;
            List::new()
        });
        // New series come in nearly ascending order: shards number their own, and fill up evenly.
        let mut at = list.len();
        for _ in 0..8 {
            if at == 0 || list[at - 1] < series {
                break;
            }
            at -= 1;
        }
        if at > 0 && list[at - 1] >= series {
            at = list.partition_point(|&x| x < series);
        }
        if list.get(at) != Some(&series) {
            if list.len() == list.capacity() && list.len() >= 1024 {
                // Long lists grow by an eighth: doubling would waste a third of the index on average.
                list.reserve_exact(list.len() / 8);
            }
            list.insert(at, series);
        }
    }

    /// Forgets all postings; the symbols stay.
    pub(crate) fn clear(&mut self) {
        self.names = HashMap::default();
        self.pairs = 0;
    }

    /// Builds all postings anew and forgets the symbols that no series uses. `series` calls back for each series, with its
    /// reference, in ascending order, and each of its label pairs; it is asked twice, so that every list is made as long
    /// as it becomes.
    pub(crate) fn rebuild(&mut self, series: impl Fn(&mut dyn FnMut(u32, usize, (u32, u32)))) {
        self.clear();
        let mut numbers = HashMap::<(u32, u32), u32, FxBuildHasher>::default();
        let mut lens: Vec<u32> = Vec::new();
        let mut last = LastPairs::default();
        series(&mut |_, at, pair| {
            let list = last.number(at, pair, || {
                *numbers.entry(pair).or_insert_with(|| {
                    lens.push(0);
                    (lens.len() - 1) as u32
                })
            });
            lens[list as usize] += 1;
        });
        let mut lists: Vec<List> = lens.iter().map(|len| List::with_capacity(*len as usize)).collect();
        let mut last = LastPairs::default();
        series(&mut |reference, at, pair| {
            let list = last.number(at, pair, || numbers[&pair]);
            lists[list as usize].push(reference);
        });
        self.pairs = numbers.len();
        self.symbols.begin_sweep();
        for ((name, value), list) in numbers {
            self.symbols.mark(name);
            self.symbols.mark(value);
            let list = std::mem::take(&mut lists[list as usize]);
            self.names.entry(name).or_default().insert(value, list);
        }
        self.symbols.end_sweep();
    }

    /// Removes series that `dead` names.
    pub(crate) fn remove(&mut self, dead: &dyn Fn(u32) -> bool) {
        let mut pairs = 0;
        self.names.retain(|_, values| {
            values.retain(|_, list| {
                list.retain(|s| !dead(*s));
                if list.len() * 2 < list.capacity() {
                    list.shrink_to_fit();
                }
                !list.is_empty()
            });
            if values.len() * 4 < values.capacity() {
                values.shrink_to_fit();
            }
            pairs += values.len();
            !values.is_empty()
        });
        self.pairs = pairs;
    }

    /// True when a series has this label pair.
    pub(crate) fn has_pair(&self, name: &str, value: &str) -> bool {
        let pair = self.symbols.find(name).zip(self.symbols.find(value));
        pair.is_some_and(|(n, v)| self.names.get(&n).is_some_and(|values| values.contains_key(&v)))
    }

    /// Distinct label pairs.
    pub(crate) fn pair_count(&self) -> usize {
        self.pairs
    }

    /// Calls `visit` for each label name with its values and their series, in no order.
    pub(crate) fn for_each_name<'a>(
        &'a self,
        mut visit: impl FnMut(&'a str, &mut dyn Iterator<Item = (&'a str, &'a [u32])>),
    ) {
        for (name, values) in &self.names {
            let mut values = values.iter().map(|(v, list)| (self.symbols.text(*v), list.as_slice()));
            visit(self.symbols.text(*name), &mut values);
        }
    }

    /// Series that carry one pair.
    pub(crate) fn list_len(&self, name: &str, value: &str) -> usize {
        self.list(name, value).map_or(0, |list| list.len())
    }

    /// How many label names there are.
    pub(crate) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// Distinct values of one name.
    pub(crate) fn value_count(&self, name: &str) -> usize {
        self.symbols.find(name).and_then(|n| self.names.get(&n)).map_or(0, BySymbol::len)
    }

    fn list(&self, name: &str, value: &str) -> Option<&List> {
        let (n, v) = (self.symbols.find(name)?, self.symbols.find(value)?);
        self.names.get(&n)?.get(&v)
    }

    /// The values of one name with their series, in no order.
    pub(crate) fn values_of<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a [u32])> {
        let values = self.symbols.find(name).and_then(|n| self.names.get(&n));
        values.into_iter().flatten().map(|(v, list)| (self.symbols.text(*v), list.as_slice()))
    }
}

/// The last series' label pairs with their numbers: the next series shares most of them at the same places.
#[derive(Default)]
struct LastPairs(Vec<((u32, u32), u32)>);

impl LastPairs {
    #[inline]
    fn number(&mut self, at: usize, pair: (u32, u32), find: impl FnOnce() -> u32) -> u32 {
        if let Some((last, number)) = self.0.get(at)
            && *last == pair
        {
            return *number;
        }
        let number = find();
        match self.0.get_mut(at) {
            Some(last) => *last = (pair, number),
            None => self.0.push((pair, number)),
        }
        number
    }
}

impl PostingsSource for HeadIndex {
    type Ref = u32;
    type Error = Infallible;

    fn all(&self) -> Result<Cow<'_, [u32]>, Infallible> {
        // Every series has a metric name.
        let lists: Vec<_> = self.values_of(chronolith_model::METRIC_NAME).map(|(_, list)| list).collect();
        Ok(Cow::Owned(crate::postings::union(&lists)))
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u32]>, Infallible> {
        Ok(Cow::Borrowed(self.list(name, value).map_or(&[], |l| l.as_slice())))
    }

    fn postings_matching(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Cow<'_, [u32]>>, Infallible> {
        let values = self.values_of(name).filter(|(v, _)| v.starts_with(prefix) && keep(v));
        Ok(values.map(|(_, list)| Cow::Borrowed(list)).collect())
    }
}
