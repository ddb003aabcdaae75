//! The series of a selection in label order, without building their labels.
//!
//! Each label pair that occurs is numbered once and its text copied once. The pairs are then sorted, and a series is the
//! list of its pairs' ranks: lists compare as the label sets do, a prefix being smaller on both sides. What is here
//! belongs to the selection, so nothing that happens to the head afterwards can mix up series and labels.

use chronolith_model::Labels;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::section::Fingerprint;
use super::symbols::Symbols;

/// A series of a selection.
pub(super) struct Row {
    /// The slot may have been given to another series meanwhile.
    pub(super) fp: Fingerprint,
    pub(super) series: u32,
    pairs: u32,
    start: usize,
}

/// Series as they are found.
#[derive(Default)]
pub(super) struct Gather {
    rows: Vec<Row>,
    /// The rows' pairs, by number.
    ids: Vec<u32>,
    /// Name and value of the last row's pairs, with the pair's number: series that follow each other share most.
    last: Vec<((u32, u32), u32)>,
    names: Vec<String>,
    pairs: Vec<Pair>,
    text: String,
    pair_ids: HashMap<(u32, u32), u32, FxBuildHasher>,
    name_ids: HashMap<u32, u32, FxBuildHasher>,
    /// The sweeps that the symbols had seen when the maps were filled.
    sweeps: u64,
}

struct Pair {
    name: u32,
    value: std::ops::Range<usize>,
}

impl Gather {
    /// Room for so many series.
    pub(super) fn with_capacity(series: usize) -> Self {
        Gather { rows: Vec::with_capacity(series), ..Gather::default() }
    }

    /// Forgets what symbols mean if that may have changed since. To be called whenever the index has been locked anew.
    pub(super) fn resume(&mut self, symbols: &Symbols) {
        if self.sweeps != symbols.sweeps() {
            self.sweeps = symbols.sweeps();
            self.pair_ids.clear();
            self.name_ids.clear();
            self.last.clear();
        }
    }

    /// Adds a series.
    pub(super) fn push(
        &mut self,
        series: u32,
        fp: Fingerprint,
        pairs: impl Iterator<Item = (u32, u32)>,
        symbols: &Symbols,
    ) {
        let start = self.ids.len();
        for (i, pair) in pairs.enumerate() {
            let id = match self.last.get(i) {
                Some((last, id)) if *last == pair => *id,
                _ => {
                    let id = self.pair_id(pair, symbols);
                    match self.last.get_mut(i) {
                        Some(last) => *last = (pair, id),
                        None => self.last.push((pair, id)),
                    }
                    id
                }
            };
            self.ids.push(id);
        }
        self.rows.push(Row { fp, series, pairs: (self.ids.len() - start) as u32, start });
    }

    fn pair_id(&mut self, pair: (u32, u32), symbols: &Symbols) -> u32 {
        *self.pair_ids.entry(pair).or_insert_with(|| {
            let name = *self.name_ids.entry(pair.0).or_insert_with(|| {
                self.names.push(symbols.text(pair.0).to_owned());
                (self.names.len() - 1) as u32
            });
            let start = self.text.len();
            self.text.push_str(symbols.text(pair.1));
            self.pairs.push(Pair { name, value: start..self.text.len() });
            (self.pairs.len() - 1) as u32
        })
    }

    fn value(&self, pair: u32) -> &str {
        &self.text[self.pairs[pair as usize].value.clone()]
    }

    /// Sorts the series by labels.
    pub(super) fn finish(mut self) -> Sorted {
        let (ranks, ends, text) = self.rank_pairs();
        for id in &mut self.ids {
            *id = ranks[*id as usize];
        }
        sort_rows(&mut self.rows, &self.ids, ends.len());
        Sorted { rows: self.rows, ranks: self.ids, ends, text, buf: String::new() }
    }

    /// For each pair its rank, from 1 up, and the ranks' encoded pairs one behind the other.
    fn rank_pairs(&self) -> (Vec<u32>, Vec<usize>, String) {
        // Only after a sweep can a pair or a name have two numbers; both then have the same rank.
        let mut names: Vec<u32> = (0..self.names.len() as u32).collect();
        names.sort_unstable_by_key(|n| &self.names[*n as usize]);
        let mut name_ranks = vec![0u32; names.len()];
        for (i, name) in names.iter().enumerate() {
            let same = i > 0 && self.names[names[i - 1] as usize] == self.names[*name as usize];
            name_ranks[*name as usize] = if same { name_ranks[names[i - 1] as usize] } else { i as u32 };
        }
        // Values of one name often begin alike: eight bytes behind what all of them share decide nearly always.
        let mut shared: Vec<Option<&[u8]>> = vec![None; names.len()];
        for (pair, at) in self.pairs.iter().zip(0..) {
            let value = self.value(at).as_bytes();
            let prefix = shared[name_ranks[pair.name as usize] as usize].get_or_insert(value);
            let common = prefix.iter().zip(value).take_while(|(a, b)| a == b).count();
            *prefix = &prefix[..common];
        }
        let mut order: Vec<(u32, u64, u32)> = Vec::with_capacity(self.pairs.len());
        for (pair, at) in self.pairs.iter().zip(0..) {
            let name = name_ranks[pair.name as usize];
            let skip = shared[name as usize].map_or(0, <[u8]>::len);
            let mut next = [0u8; 8];
            for (to, from) in next.iter_mut().zip(&self.value(at).as_bytes()[skip..]) {
                *to = *from;
            }
            order.push((name, u64::from_be_bytes(next), at));
        }
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| self.value(a.2).cmp(self.value(b.2)))
        });
        let mut ranks = vec![0; order.len()];
        let mut ends = Vec::with_capacity(order.len());
        let mut text = String::with_capacity(self.text.len() + 24 * order.len());
        let mut last = None;
        for (name, _, pair) in order {
            let value = self.value(pair);
            if last != Some((name, value)) {
                Labels::encode_pair(&self.names[self.pairs[pair as usize].name as usize], value, &mut text);
                ends.push(text.len());
                last = Some((name, value));
            }
            ranks[pair as usize] = ends.len() as u32;
        }
        (ranks, ends, text)
    }
}

/// Sorts rows by their ranks; `max` is the highest.
fn sort_rows(rows: &mut [Row], ranks: &[u32], max: usize) {
    let of = |row: &Row| &ranks[row.start..row.start + row.pairs as usize];
    let Some(first) = rows.first().map(of) else { return };
    let mut shared = first.len();
    for row in rows.iter() {
        shared = first[..shared].iter().zip(of(row)).take_while(|(a, b)| a == b).count();
    }
    // As many ranks as fit one number, behind those that all rows share; 0 where a row ends.
    let bits = (usize::BITS - max.leading_zeros()).max(1);
    let packed = (u128::BITS / bits) as usize;
    let key = |row: &Row| {
        let rest = &of(row)[shared..];
        (0..packed).fold(0u128, |key, i| key << bits | u128::from(rest.get(i).copied().unwrap_or(0)))
    };
    let mut order: Vec<(u128, u32)> = rows.iter().zip(0..).map(|(row, i)| (key(row), i)).collect();
    let rest = |i: u32| of(&rows[i as usize]).get(shared + packed..).unwrap_or(&[]);
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| rest(a.1).cmp(rest(b.1))));
    // Puts the rows in order by following the cycles of the permutation.
    let mut from: Vec<u32> = order.into_iter().map(|(_, i)| i).collect();
    for start in 0..rows.len() {
        let mut to = start;
        while from[to] as usize != start {
            let next = from[to] as usize;
            rows.swap(to, next);
            from[to] = to as u32;
            to = next;
        }
        from[to] = to as u32;
    }
}

/// Series in label order.
pub(super) struct Sorted {
    pub(super) rows: Vec<Row>,
    ranks: Vec<u32>,
    /// Where the encoded pairs end.
    ends: Vec<usize>,
    text: String,
    buf: String,
}

impl Sorted {
    /// The labels of a row.
    pub(super) fn labels(&mut self, row: usize) -> Labels {
        let Row { start, pairs, .. } = self.rows[row];
        self.buf.clear();
        for rank in &self.ranks[start..start + pairs as usize] {
            let rank = *rank as usize;
            let from = if rank > 1 { self.ends[rank - 2] } else { 0 };
            self.buf.push_str(&self.text[from..self.ends[rank - 1]]);
        }
        Labels::from_encoded_pairs(&self.buf)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_labels() -> impl Strategy<Value = Labels> {
        let name = prop_oneof!["[a-c]{1,2}", "n[0-9]{1,2}"];
        let value = prop_oneof!["[a-b]{1,3}", "node-00[0-9]{1,3}\\.example", "[aé\u{0}]{1,12}"];
        proptest::collection::btree_map(name, value, 0..40).prop_map(|m| Labels::from_pairs(m).unwrap())
    }

    proptest! {
        #[test]
        fn rows_come_in_label_order(sets in proptest::collection::btree_set(any_labels(), 0..60), sweep in 0usize..60) {
            let mut symbols = Symbols::new(1);
            let mut gather = Gather::default();
            // Not in label order.
            let mut sets: Vec<Labels> = sets.into_iter().collect();
            sets.sort_by_key(Labels::stable_hash);
            for (i, labels) in sets.iter().enumerate() {
                if i == sweep {
                    // Every symbol goes; the numbers come back for other strings.
                    symbols.begin_sweep();
                    symbols.end_sweep();
                    symbols.intern("something else");
                }
                gather.resume(&symbols);
                let pairs: Vec<_> = labels.iter().map(|(n, v)| (symbols.intern(n), symbols.intern(v))).collect();
                gather.push(i as u32, Fingerprint::default(), pairs.into_iter(), &symbols);
            }
            let mut sorted = gather.finish();
            let got: Vec<_> = (0..sorted.rows.len()).map(|i| (sorted.labels(i), sorted.rows[i].series)).collect();
            let mut want: Vec<_> = sets.into_iter().zip(0u32..).collect();
            want.sort();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn long_sets_that_differ_late_are_told_apart() {
        let mut symbols = Symbols::new(1);
        let mut gather = Gather::default();
        // Differ in the first label and in the last of sixty: more ranks than one number holds.
        let sets: Vec<Labels> = (0..200u32)
            .map(|i| {
                let last = (i * 37) % 200;
                Labels::from_pairs((0..60).map(|n| {
                    let value = if n == 0 {
                        (last % 2).to_string()
                    } else if n == 59 {
                        last.to_string()
                    } else {
                        "x".to_owned()
                    };
                    (format!("label{n:02}"), value)
                }))
                .unwrap()
            })
            .collect();
        for (labels, i) in sets.iter().zip(0..) {
            let pairs: Vec<_> = labels.iter().map(|(n, v)| (symbols.intern(n), symbols.intern(v))).collect();
            gather.push(i, Fingerprint::default(), pairs.into_iter(), &symbols);
        }
        let mut sorted = gather.finish();
        let got: Vec<Labels> = (0..200).map(|i| sorted.labels(i)).collect();
        let mut want = sets;
        want.sort();
        assert_eq!(got, want);
    }
}
