//! Whether two lists of samples are one stream in pieces, or two scrapes of one target.
//!
//! Where one list goes on after the other (a *change*), the two look different. A stream that moved goes on at its own pace: from
//! the last sample of one list to the first of the other it is one interval, or more where something is missing. Two scrapes
//! fall between each other: the distances at changes are parts of an interval, half of one on average. So the distances at
//! changes are measured by the nearest distances within a list at which the other one has nothing to say.
//!
//! The measure does not ask how many changes there are, beside how many samples: a series that two receivers took in turns
//! while they did not agree on the hashring is one stream whether a minute of it is read or a day, and a second Prometheus that
//! was there for the last hour of a day is a scrape of its own. Where lists only ever alternate, nothing tells the two apart; they
//! count as scrapes then. That all distances are equal is no proof either: two Prometheus servers scrape a target at offsets
//! made of hashes, so one target in some 7,500 (of a scrape interval of 30 s, at times aligned to 2 ms) is scraped half an
//! interval apart, and each of these would have twice its samples in every read, for good. What the answer costs is half the
//! samples of a read that lies as a whole within the minutes in which receivers did not agree.

/// Of an interval, the least mean distance at changes of what is one stream: between the half of two scrapes and the whole.
const PART_MIN: f64 = 0.75;
/// No single distance counts for more intervals than this: after an outage of everything the next sample may be anybody's.
const PART_MAX: f64 = 1.0;
/// So many changes after another the pace before them says nothing any more; the interval of the scrape may have become another one.
const CHANGES_MAX: usize = 256;

/// Which of the two lists has the next time of the merged ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    A,
    B,
    Both,
}

/// The merged times of two ascending lists: where each lies.
pub(crate) fn merged<'a>(a: &'a [i64], b: &'a [i64]) -> impl Iterator<Item = (Side, usize, usize)> + 'a {
    let (mut i, mut j) = (0, 0);
    std::iter::from_fn(move || {
        let side = match (a.get(i), b.get(j)) {
            (None, None) => return None,
            (Some(_), None) => Side::A,
            (None, Some(_)) => Side::B,
            (Some(x), Some(y)) if x == y => Side::Both,
            (Some(x), Some(y)) => {
                if x < y {
                    Side::A
                } else {
                    Side::B
                }
            }
        };
        let at = (side, i, j);
        i += usize::from(side != Side::B);
        j += usize::from(side != Side::A);
        Some(at)
    })
}

/// Distances of neighbours in the merged lists, and whether they are of different lists.
fn distances<'a>(a: &'a [i64], b: &'a [i64]) -> impl Iterator<Item = (bool, i64)> + 'a {
    let mut before: Option<(Side, i64)> = None;
    merged(a, b).filter_map(move |(side, i, j)| {
        let t = if side == Side::B { b[j] } else { a[i] };
        let (before, t_before) = before.replace((side, t))?;
        let is_change = matches!((before, side), (Side::A, Side::B) | (Side::B, Side::A));
        Some((is_change, t.saturating_sub(t_before)))
    })
}

/// The answer for the times of two lists, each strictly ascending.
pub(crate) fn are_one_stream(a: &[i64], b: &[i64]) -> bool {
    // Before the first distance within a list, that one and the next stand for it.
    let mut within = distances(a, b).filter(|(is_change, _)| !is_change).map(|(_, distance)| distance);
    let (first, second) = (within.next(), within.next());
    let mut last = (first, second);
    let (mut changes, mut parts, mut in_turn) = (0usize, 0.0, 0);
    for (is_change, distance) in distances(a, b) {
        if !is_change {
            last = (last.1, Some(distance));
            in_turn = 0;
            continue;
        }
        changes += 1;
        in_turn += 1;
        // The lesser of two: one of them may be a hole in the stream.
        let interval = last.0.into_iter().chain(last.1).min();
        parts += match interval {
            Some(interval) if in_turn <= CHANGES_MAX => (distance as f64 / interval as f64).min(PART_MAX),
            _ => 0.5,
        };
    }
    parts >= PART_MIN * changes as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1000;

    /// The samples of `all` whose number `has` likes, and the others.
    fn parted(all: &[i64], has: impl Fn(usize) -> bool) -> (Vec<i64>, Vec<i64>) {
        let side = |wanted: bool| {
            let of = all.iter().enumerate().filter(|(i, _)| has(*i) == wanted);
            of.map(|(_, t)| *t).collect()
        };
        (side(true), side(false))
    }

    #[test]
    fn a_series_that_two_receivers_took_in_turns_is_one_stream_however_much_of_it_is_read() {
        let all: Vec<i64> = (0..2000).map(|i| 7 + i * 15 * SECOND + i % 3).collect();
        // From 1000 on for two minutes each sample goes to the other one.
        let (a, b) = parted(&all, |i| i < 1000 || (i < 1008 && i % 2 == 0));
        for (from, to) in [(0, 2000), (990, 1010), (995, 1010), (997, 1008), (1000, 1012), (999, 1500)] {
            let within = |list: &[i64]| -> Vec<i64> {
                list.iter().copied().filter(|t| (all[from]..all[to - 1]).contains(t)).collect()
            };
            assert!(are_one_stream(&within(&a), &within(&b)), "{from}..{to}");
            assert!(are_one_stream(&within(&b), &within(&a)), "{from}..{to}");
        }
        // And forth and back, with holes, on the way through three rings.
        let (a, b) = parted(&all, |i| i % 100 < 50 || i % 7 == 0);
        let b: Vec<i64> = b.into_iter().enumerate().filter(|(i, _)| i % 31 > 2).map(|(_, t)| t).collect();
        assert!(are_one_stream(&a, &b));
    }

    #[test]
    fn a_scrape_that_was_there_for_an_hour_of_a_day_is_one_of_its_own() {
        let a: Vec<i64> = (0..5760).map(|i| i * 15 * SECOND).collect();
        for offset in [1, 2 * SECOND, 7 * SECOND, 14 * SECOND] {
            let b: Vec<i64> = (5520..5760).map(|i| i * 15 * SECOND + offset).collect();
            assert!(!are_one_stream(&a, &b) && !are_one_stream(&b, &a), "{offset}");
            // It went just after the beginning and came back just before the end.
            let b = [a[2] + offset, a[5000] + offset, a[5001] + offset];
            assert!(!are_one_stream(&a, &b) && !are_one_stream(&b, &a), "{offset}");
        }
    }

    #[test]
    fn what_only_alternates_counts_as_scrapes() {
        let all: Vec<i64> = (0..20).map(|i| i * 15 * SECOND).collect();
        let (a, b) = parted(&all, |i| i % 2 == 0);
        assert!(!are_one_stream(&a, &b));
        assert!(are_one_stream(&a, &[]) && are_one_stream(&[], &[]) && are_one_stream(&a, &a));
        // The pace of long ago is no measure.
        let all: Vec<i64> = (0..10).map(|i| i * 15).chain((0..2000).map(|i| 150 + i * 15)).collect();
        let (a, b) = parted(&all, |i| i < 10 || i % 2 == 0);
        assert!(!are_one_stream(&a, &b));
    }

    proptest! {
        /// Jitter, scrapes that failed, any offset.
        #[test]
        fn two_prometheus_are_two(
            offset in 0i64..15_000,
            scrapes in prop::collection::vec((0i64..150, 0i64..150, 0u8..50, 0u8..50), 40..200),
        ) {
            let list = |at: i64, jitters: Vec<Option<i64>>| -> Vec<i64> {
                let times = jitters.into_iter().enumerate();
                times.filter_map(|(i, jitter)| Some(at + i as i64 * 15_000 + jitter?)).collect()
            };
            let a = list(0, scrapes.iter().map(|s| (s.2 > 0).then_some(s.0)).collect());
            let b = list(offset, scrapes.iter().map(|s| (s.3 > 0).then_some(s.1)).collect());
            prop_assert!(!are_one_stream(&a, &b));
        }

        /// Jitter, samples that were lost, owners at random now and then.
        #[test]
        fn one_stream_is_one(
            samples in prop::collection::vec((0i64..1500, 0u8..50), 40..200),
            turns in prop::collection::vec(any::<bool>(), 16),
            at in 0usize..40,
        ) {
            let times: Vec<i64> =
                samples.iter().enumerate().filter(|(_, s)| s.1 > 0).map(|(i, s)| i as i64 * 15_000 + s.0).collect();
            let (a, b) = parted(&times, |i| match i.checked_sub(at) {
                None => true,
                Some(i) => turns.get(i).copied().unwrap_or(false),
            });
            prop_assert!(are_one_stream(&a, &b));
        }
    }
}
