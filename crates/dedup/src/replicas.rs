//! Whether overlapping lists of samples are copies of one stream or scrapes of their own.
//!
//! Two Prometheus servers scrape a target at different moments: their samples alternate, and [`penalty`] must choose. What
//! receivers replicate, or hand over to each other when a hashring changes, is one stream in pieces: equal times are equal
//! samples, and where one list has a gap the other one has what is missing. There the penalty would lose samples at every edge of
//! a gap, as it does in Thanos; every sample is taken instead, once.
//!
//! [`crate::one_stream`] tells them apart.

use std::borrow::Cow;

use chronolith_chunk::SampleColumns;

use crate::one_stream::{Side, are_one_stream, merged};
use crate::penalty;

/// Appends the deduplicated samples of `replicas` to `out`: what are copies is put together first, then [`penalty::dedup`]
/// chooses among the rest, with `is_counter` as described there.
pub fn dedup(replicas: &[SampleColumns], is_counter: bool, out: &mut SampleColumns) {
    let mut streams: Vec<Cow<'_, SampleColumns>> = Vec::with_capacity(replicas.len());
    'next: for replica in replicas {
        for stream in &mut streams {
            if stream.ts == replica.ts {
                continue 'next;
            }
            if are_one_stream(&stream.ts, &replica.ts) {
                *stream = Cow::Owned(union(stream, replica, is_counter));
                continue 'next;
            }
        }
        streams.push(Cow::Borrowed(replica));
    }
    match streams.as_slice() {
        [one] => out.extend_from(one, 0, one.len()),
        // Nothing was put together: no copies are made of what may be long.
        all if all.len() == replicas.len() => penalty::dedup(replicas, is_counter, out),
        _ => {
            let streams: Vec<SampleColumns> = streams.into_iter().map(Cow::into_owned).collect();
            penalty::dedup(&streams, is_counter, out);
        }
    }
}

/// All samples of both, of equal times the first list's. Where the two do not agree in all that they share, or share nothing, a
/// change between them must not make a counter look reset: as with the penalty, the list that lies below is lifted from there on.
fn union(a: &SampleColumns, b: &SampleColumns, is_counter: bool) -> SampleColumns {
    let mut shared = 0;
    let mut equal = true;
    for (side, i, j) in merged(&a.ts, &b.ts) {
        if side == Side::Both {
            shared += 1;
            equal &= a.values[i].to_bits() == b.values[j].to_bits();
        }
    }
    let lifts = is_counter && !(equal && shared > 0);
    let mut out = SampleColumns::default();
    out.reserve(a.len() + b.len() - shared);
    let (mut lift_a, mut lift_b) = (0.0, 0.0);
    let mut from_a = true;
    for (side, i, j) in merged(&a.ts, &b.ts) {
        let changes = from_a != (side != Side::B);
        from_a = side != Side::B;
        let (columns, index, lift) = if from_a { (a, i, &mut lift_a) } else { (b, j, &mut lift_b) };
        let last = out.values.last().copied().filter(|_| out.histogram(out.len() - 1).is_none());
        out.push_from(columns, index);
        if lifts && columns.histogram(index).is_none() {
            let value = columns.values[index] + *lift;
            if let Some(last) = last.filter(|last| changes && *last > value) {
                *lift += last - value;
            }
            if let Some(v) = out.values.last_mut() {
                *v = columns.values[index] + *lift;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(samples: impl IntoIterator<Item = i64>) -> SampleColumns {
        SampleColumns::from_floats(samples.into_iter().map(|t| (t, t as f64)))
    }

    fn times(replicas: &[SampleColumns]) -> Vec<i64> {
        let mut out = SampleColumns::default();
        dedup(replicas, false, &mut out);
        assert!(out.values.iter().zip(&out.ts).all(|(v, t)| *v == *t as f64), "{out:?}");
        out.ts
    }

    #[test]
    fn gaps_of_copies_fill_each_other() {
        let all: Vec<i64> = (0..100).map(|i| 7 + i * 15_000 + i % 3).collect();
        let without = |from: usize, to: usize| {
            columns(all.iter().enumerate().filter(|(i, _)| !(from..to).contains(i)).map(|(_, t)| *t))
        };
        let whole = columns(all.iter().copied());
        assert_eq!(times(&[whole.clone(), whole.clone(), whole.clone()]), all);
        assert_eq!(times(&[without(20, 21), whole.clone()]), all);
        // Each lacks something else, one sample or many, at the end or in the middle.
        assert_eq!(times(&[without(20, 21), without(30, 60), without(90, 100)]), all);
        assert_eq!(times(&[without(0, 40), without(40, 41), without(21, 39)]), all);
        // A series that moved from one receiver to another and back.
        let moved = |range: std::ops::Range<usize>| columns(all[range].iter().copied());
        let back = columns(all[..30].iter().chain(&all[70..]).copied());
        assert_eq!(times(&[moved(0..50), moved(50..100)]), all);
        assert_eq!(times(&[back, moved(30..70)]), all);
        // Its distributors did not agree for two minutes where it had moved: a read of five minutes has it all, too.
        let owner = |i: usize| if (40..48).contains(&i) { i.is_multiple_of(2) } else { i < 40 };
        for range in [0..100, 30..50, 38..58] {
            let part = |wanted: bool| columns(range.clone().filter(|i| owner(*i) == wanted).map(|i| all[i]));
            assert_eq!(times(&[part(true), part(false)]), all[range.clone()]);
        }
    }

    #[test]
    fn scrapes_of_their_own_are_chosen_from() {
        let a = columns((0..50).map(|i| i * 15_000));
        let b = columns((0..50).map(|i| i * 15_000 + 4_321));
        for replicas in [[a.clone(), b.clone()], [b, a]] {
            let mut expected = SampleColumns::default();
            penalty::dedup(&replicas, false, &mut expected);
            assert_eq!(times(&replicas), expected.ts);
            assert!(expected.len() <= 51);
        }
        // The second one came late and went early; how long the first one is plays no part.
        let a = columns((0..5760).map(|i| i * 15_000));
        let b = columns((5000..5200).map(|i| i * 15_000 + 4_321));
        let mut expected = SampleColumns::default();
        penalty::dedup(&[a.clone(), b.clone()], false, &mut expected);
        assert_eq!(times(&[a, b]), expected.ts);
        // Two are copies, the third one is not.
        let a = columns((0..50).map(|i| i * 15_000));
        let with_gap = columns((0..50).filter(|i| *i != 20).map(|i| i * 15_000));
        let own = columns((0..50).map(|i| i * 15_000 + 4_321));
        assert_eq!(times(&[with_gap, own, a.clone()]), a.ts);
    }

    #[test]
    fn a_change_between_lists_that_differ_is_no_reset() {
        let a = SampleColumns::from_floats((0..20).map(|i| (i * 10, 100.0 + i as f64)));
        let b = SampleColumns::from_floats((20..40).map(|i| (i * 10, i as f64)));
        let mut out = SampleColumns::default();
        dedup(&[a, b], true, &mut out);
        assert!(out.values.windows(2).all(|w| w[0] <= w[1]), "{:?}", out.values);
        // Copies that lack something each show a reset that was one.
        let value = |i: i64| if i < 17 { 100.0 + i as f64 } else { i as f64 };
        let copy =
            |gap: i64| SampleColumns::from_floats((0..40).filter(|i| *i != gap).map(|i| (i * 10, value(i))));
        let mut out = SampleColumns::default();
        dedup(&[copy(17), copy(30)], true, &mut out);
        assert_eq!(out.values, (0..40).map(value).collect::<Vec<_>>());
    }
}
