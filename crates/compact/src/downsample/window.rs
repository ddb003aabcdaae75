//! Windows of time, and how many chunks a series becomes.

/// What Thanos takes for the distance of raw samples: mostly too long, yet good enough to estimate how densely a series
/// is filled.
pub(super) const RAW_INTERVAL_MS: i64 = 60_000;
/// Samples of a downsampled chunk at most, on average.
const SAMPLES_MAX: i64 = 140;

/// The last millisecond of the window that holds `t`. The sample of a window stands there, or at the last sample of the
/// batch where that comes first.
#[inline]
pub(super) fn end(t: i64, resolution_ms: i64) -> i64 {
    (t - t.rem_euclid(resolution_ms)).saturating_add(resolution_ms - 1)
}

/// How many chunks `count` samples, `interval_ms` apart, from `mint` to `maxt` become.
pub(super) fn chunk_count(mint: i64, maxt: i64, interval_ms: i64, resolution_ms: i64, count: usize) -> usize {
    let span = maxt.saturating_sub(mint);
    let fullness = (count as f64 / (span as f64 / interval_ms as f64)).min(1.0);
    let expected = ((span / resolution_ms) as f64 * fullness) as i64 + 1;
    // The smallest number of chunks for which the (whole) quotient is small enough.
    usize::try_from(expected / (SAMPLES_MAX + 1) + 1).expect("a quotient of positive numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_on_their_last_millisecond() {
        let cases = [(0, 299_999), (299_999, 299_999), (300_000, 599_999), (-1, -1), (-300_000, -1)];
        for (t, want) in cases {
            assert_eq!(end(t, 300_000), want, "{t}");
        }
    }

    #[test]
    fn chunks_are_counted_as_thanos_does() {
        let by_trying = |expected: i64| (1..).find(|x| expected / x <= 140).unwrap() as usize;
        for expected in 1..3_000i64 {
            let maxt = (expected - 1) * 300_000;
            let got = chunk_count(0, maxt, RAW_INTERVAL_MS, 300_000, usize::MAX);
            assert_eq!(got, by_trying(expected), "{expected}");
        }
        // Half of the samples that fill the range, half the chunks.
        assert_eq!(chunk_count(0, 14 * 86_400_000, RAW_INTERVAL_MS, 300_000, 20_160), 29);
        assert_eq!(chunk_count(0, 14 * 86_400_000, RAW_INTERVAL_MS, 300_000, 10_080), 15);
        assert_eq!(chunk_count(5, 5, RAW_INTERVAL_MS, 300_000, 1), 1);
    }
}
