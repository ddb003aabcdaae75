//! Builders of labels, samples and series.

use chronolith_chunk::{Chunk, encode_floats};
use chronolith_model::Labels;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A label set.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).expect("labels of a test are valid")
}

/// Timestamps `start, start + step, …`.
pub fn times(start_ms: i64, step_ms: i64, count: usize) -> Vec<i64> {
    (0..count as i64).map(|i| start_ms + i * step_ms).collect()
}

/// A counter: grows by 0 to 9 a sample, falls to zero once in about 500 samples.
pub fn counter(seed: u64, count: usize) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut total = 0.0;
    (0..count)
        .map(|_| {
            total =
                if rng.random_ratio(1, 500) { 0.0 } else { total + f64::from(rng.random_range(0..10u32)) };
            total
        })
        .collect()
}

/// A gauge: a walk with two decimals.
pub fn gauge(seed: u64, count: usize) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut hundredths = 5_000i64;
    (0..count)
        .map(|_| {
            hundredths += rng.random_range(-100..=100i64);
            hundredths as f64 / 100.0
        })
        .collect()
}

/// `count` series of one metric, sorted by labels, each with a counter of `samples` samples in 120-sample chunks.
/// Labels: `__name__`, `instance` (one of 100), `job`, `series` (the number, zero-padded).
pub fn counters(
    metric: &str,
    count: usize,
    start_ms: i64,
    step_ms: i64,
    samples: usize,
) -> impl Iterator<Item = (Labels, Vec<Chunk>)> {
    let mut all: Vec<(Labels, u64)> = (0..count)
        .map(|i| {
            let (instance, series) = (format!("host-{:02}:9100", i % 100), format!("{i:07}"));
            let pairs = [("__name__", metric), ("instance", &instance), ("job", "node"), ("series", &series)];
            (labels(&pairs), i as u64)
        })
        .collect();
    all.sort();
    let ts = times(start_ms, step_ms, samples);
    all.into_iter().map(move |(labels, seed)| (labels, encode_floats(&ts, &counter(seed, samples))))
}
