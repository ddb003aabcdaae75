//! Chunks of one series that may overlap.

use chronolith_chunk::{Chunk, ChunkError, SampleColumns};
use chronolith_model::TimeRange;

use crate::chain;

/// Appends the samples of `chunks` inside `range` to `out`, in time order, equal timestamps once (the chunk that
/// begins first wins). Chunks may come in any order; those that overlap with none are decoded straight into `out`.
///
/// On an error `out` holds what was decoded before it.
pub fn merge_overlapping(
    mut chunks: Vec<Chunk>,
    range: TimeRange,
    out: &mut SampleColumns,
) -> Result<(), ChunkError> {
    chunks.retain(|c| c.time_range().overlaps(&range));
    if !chunks.is_sorted_by_key(|c| (c.mint, c.maxt)) {
        chunks.sort_by_key(|c| (c.mint, c.maxt));
    }
    let mut rest = &chunks[..];
    let base = out.len();
    while let Some(first) = rest.first() {
        let (mut end, mut maxt) = (1, first.maxt);
        while end < rest.len() && rest[end].mint <= maxt {
            maxt = maxt.max(rest[end].maxt);
            end += 1;
        }
        let before = out.len();
        if end == 1 {
            first.decode_into(range, out)?;
        } else {
            let mut sources = vec![SampleColumns::default(); end];
            for (chunk, source) in rest.iter().zip(&mut sources) {
                chunk.decode_into(range, source)?;
            }
            chain::merge(&sources, out);
        }
        if before > base && out.len() > before && out.ts[before] <= out.ts[before - 1] {
            // A chunk holds samples outside the time it claims.
            let mut late = SampleColumns::default();
            late.extend_from(out, before, out.len());
            let mut early = SampleColumns::default();
            early.extend_from(out, base, before);
            out.truncate(base);
            chain::merge(&[early, late], out);
        }
        rest = &rest[end..];
    }
    Ok(())
}

/// Distributes overlapping pieces of one series over as few lists without overlap as first fit gives: each piece goes
/// to the first list that ends before it. `pieces` ascend by first timestamp. The lists are what [`crate::penalty`]
/// takes as replicas.
pub fn split_overlaps<T>(pieces: Vec<T>, range: impl Fn(&T) -> TimeRange) -> Vec<Vec<T>> {
    let mut lists: Vec<(i64, Vec<T>)> = Vec::new();
    for piece in pieces {
        let TimeRange { mint, maxt } = range(&piece);
        match lists.iter_mut().find(|(end, _)| *end < mint) {
            Some((end, list)) => {
                *end = maxt;
                list.push(piece);
            }
            None => lists.push((maxt, vec![piece])),
        }
    }
    lists.into_iter().map(|(_, list)| list).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chronolith_chunk::encode_floats;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splitting() {
        let pieces = vec![(0, 10), (5, 15), (10, 20), (11, 12), (16, 30), (30, 31)];
        let lists = split_overlaps(pieces, |p| TimeRange::new(p.0, p.1));
        assert_eq!(lists, [vec![(0, 10), (11, 12), (16, 30)], vec![(5, 15), (30, 31)], vec![(10, 20)]]);
    }

    #[test]
    fn a_chunk_that_lies_about_its_time_is_merged() {
        let mut chunks = encode_floats(&[10, 20], &[1.0, 2.0]);
        let mut liar = encode_floats(&[15, 25], &[3.0, 4.0]).remove(0);
        liar.mint = 21;
        chunks.push(liar);
        let mut out = SampleColumns::default();
        merge_overlapping(chunks, TimeRange::ALL, &mut out).unwrap();
        assert_eq!(out.ts, [10, 15, 20, 25]);
    }

    proptest! {
        #[test]
        fn all_samples_once(
            runs in prop::collection::vec((0i64..200, prop::collection::vec(1i64..10, 1..20)), 0..6),
            from in 0i64..200,
            len in 0i64..200,
        ) {
            let range = TimeRange::new(from, from + len);
            let mut want = BTreeMap::new();
            let mut chunks = Vec::new();
            for (start, steps) in runs {
                let mut t = start;
                let ts: Vec<i64> = steps.iter().map(|s| { t += s; t }).collect();
                let values: Vec<f64> = ts.iter().map(|t| *t as f64).collect();
                want.extend(ts.iter().filter(|t| range.contains(**t)).map(|t| (*t, *t as f64)));
                chunks.extend(encode_floats(&ts, &values));
            }
            let mut out = SampleColumns::default();
            merge_overlapping(chunks, range, &mut out).unwrap();
            prop_assert_eq!(out, SampleColumns::from_floats(want));
        }
    }
}
