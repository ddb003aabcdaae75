//! Chain merge: all samples of all sources in time order, equal timestamps once.
//!
//! Of samples with the same timestamp the one of the first source stays, so that the result depends on the order of
//! sources and on nothing else.

use chronolith_chunk::SampleColumns;

/// Picks `(source, index)` in time order. See the module's text.
#[derive(Clone, Debug)]
pub struct Merge<'a> {
    sources: &'a [SampleColumns],
    /// Next sample of each source.
    next: Vec<usize>,
}

impl<'a> Merge<'a> {
    /// Merges sources that each ascend strictly.
    pub fn new(sources: &'a [SampleColumns]) -> Self {
        Merge { sources, next: vec![0; sources.len()] }
    }
}

impl Iterator for Merge<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        // Overlaps are narrow, two or three sources: looking at each beats a heap.
        let mut best: Option<(i64, usize)> = None;
        for (source, (columns, next)) in self.sources.iter().zip(&self.next).enumerate() {
            if let Some(&t) = columns.ts.get(*next)
                && best.is_none_or(|(first, _)| t < first)
            {
                best = Some((t, source));
            }
        }
        let (t, source) = best?;
        let index = self.next[source];
        for (columns, next) in self.sources.iter().zip(&mut self.next) {
            while columns.ts.get(*next).is_some_and(|other| *other <= t) {
                *next += 1;
            }
        }
        Some((source, index))
    }
}

/// Appends the merged samples of `sources` to `out`.
pub fn merge(sources: &[SampleColumns], out: &mut SampleColumns) {
    out.reserve(sources.iter().map(SampleColumns::len).max().unwrap_or(0));
    for (source, index) in Merge::new(sources) {
        out.push_from(&sources[source], index);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_source_wins() {
        let a = SampleColumns::from_floats([(1, 1.0), (3, 3.0), (4, 4.0)]);
        let b = SampleColumns::from_floats([(2, 20.0), (3, 30.0), (9, 90.0)]);
        let mut out = SampleColumns::default();
        merge(&[a, b], &mut out);
        assert_eq!(out, SampleColumns::from_floats([(1, 1.0), (2, 20.0), (3, 3.0), (4, 4.0), (9, 90.0)]));
    }

    proptest! {
        #[test]
        fn it_is_a_union(sources in prop::collection::vec(prop::collection::btree_map(0i64..50, 0u8..9, 0..20), 0..5)) {
            let mut want = BTreeMap::new();
            for source in sources.iter().rev() {
                want.extend(source.iter().map(|(t, v)| (*t, f64::from(*v))));
            }
            let columns: Vec<_> = sources
                .iter()
                .map(|s| SampleColumns::from_floats(s.iter().map(|(t, v)| (*t, f64::from(*v)))))
                .collect();
            let mut out = SampleColumns::default();
            merge(&columns, &mut out);
            prop_assert_eq!(out, SampleColumns::from_floats(want));
        }
    }
}
