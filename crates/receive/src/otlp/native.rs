//! OpenTelemetry's dense buckets as a native histogram's spans and deltas.

use chronolith_model::histogram::{EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MIN, Span};

/// The coarsest scale that is taken.
pub(super) const SCALE_MIN: i32 = EXPONENTIAL_SCHEMA_MIN;
/// OpenTelemetry's points do not say how wide their zero bucket is.
pub(super) const ZERO_THRESHOLD: f64 = 1e-128;
/// Empty buckets in a row that are written out rather than skipped by a new span.
const GAP_MAX: i64 = 2;

/// The schema for a scale, and by how many powers of two buckets must be merged for it.
pub(super) fn scaled(scale: i32) -> (i32, u32) {
    let down = (scale - EXPONENTIAL_SCHEMA_MAX).max(0);
    // Beyond 31 all buckets of a sign are one, whatever the scale.
    (scale - down, down.min(31) as u32)
}

/// Spans and deltas of counts that begin at index `offset`, 2^`scale_down` merged into one. `exponential`: index 0 is
/// the bucket behind 1 in OpenTelemetry, the one that ends at 1 in Prometheus.
pub(super) fn buckets(
    counts: &[u64],
    offset: i32,
    scale_down: u32,
    exponential: bool,
) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<Span>, Vec<i64>) = (Vec::new(), Vec::new());
    if counts.is_empty() {
        return (spans, deltas);
    }
    let index = |i: usize| ((i as i64 + i64::from(offset)) >> scale_down) + i64::from(exponential);
    spans.push(Span { offset: clamp(index(0)), length: 0 });
    let mut previous = 0i64;
    // Up to which bucket there is something in the spans.
    let mut end = index(0);
    let last = index(counts.len() - 1);
    let mut push = |spans: &mut Vec<Span>, count: i64| {
        spans.last_mut().expect("there is always one").length += 1;
        deltas.push(count.wrapping_sub(previous));
        previous = count;
    };
    let mut i = 0;
    while i < counts.len() {
        let bucket = index(i);
        let mut count = 0u64;
        while i < counts.len() && index(i) == bucket {
            count = count.wrapping_add(counts[i]);
            i += 1;
        }
        // The last one is written even when it is empty.
        if count == 0 && bucket != last {
            continue;
        }
        let gap = bucket - end;
        if gap > GAP_MAX {
            spans.push(Span { offset: clamp(gap), length: 0 });
        } else {
            for _ in 0..gap {
                push(&mut spans, 0);
            }
        }
        push(&mut spans, count as i64);
        end = bucket + 1;
    }
    (spans, deltas)
}

fn clamp(v: i64) -> i32 {
    v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(counts: &[u64], offset: i32, scale_down: u32, spans: &[(i32, u32)], deltas: &[i64]) {
        let (got_spans, got_deltas) = buckets(counts, offset, scale_down, true);
        let got: Vec<_> = got_spans.iter().map(|s| (s.offset, s.length)).collect();
        assert_eq!((got.as_slice(), got_deltas.as_slice()), (spans, deltas));
    }

    #[test]
    fn dense_buckets_become_spans() {
        check(&[], 3, 0, &[], &[]);
        check(&[4, 3, 2, 1], 0, 0, &[(1, 4)], &[4, -1, -1, -1]);
        check(&[4, 0, 0, 2, 1], -3, 0, &[(-2, 5)], &[4, -4, 0, 2, -1]);
        check(&[4, 0, 0, 0, 2], 0, 0, &[(1, 1), (3, 1)], &[4, -2]);
        // Two in one: indices 0..3 become 1, 1, 2, 2.
        check(&[4, 3, 2, 1], 0, 1, &[(1, 2)], &[7, -4]);
        check(&[1, 1, 1], -1, 1, &[(0, 2)], &[1, 1]);
        check(&[u64::MAX], i32::MAX, 0, &[(i32::MAX, 1)], &[-1]);
        assert_eq!((scaled(3), scaled(8), scaled(10), scaled(60)), ((3, 0), (8, 0), (8, 2), (8, 31)));
        let (spans, deltas) = buckets(&[5, 6], 2, 0, false);
        assert_eq!((spans[0].offset, deltas), (2, vec![5, 1]));
    }
}
