//! `prometheus_engine_query_duration_seconds`: quantiles of the last ten minutes by part of a query, as upstream's summary has them.
//!
//! The metrics library has no summaries. The quantiles are a gauge with the label `quantile`, sum and count are gauges named
//! `…_sum` and `…_count`: every sample line reads as upstream's, only the `# TYPE` lines differ.
//!
//! Durations fall into buckets that grow by 2 %, so that a quantile is right to 1 %. Five sets of buckets take turns of two minutes
//! each; the oldest is emptied when its turn comes. Memory: 24 KB a part.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// Upstream's.
const QUANTILES: [(f64, &str); 3] = [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")];
/// Ten minutes in five turns, as the Go client has it by default.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(120);
/// A microsecond; what is shorter counts as this.
const SHORTEST_S: f64 = 1e-6;
const GROWTH: f64 = 1.02;
/// Up to some three hours.
const BUCKETS: usize = 1165;

/// Durations by part of a query. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Summaries(Arc<Mutex<BTreeMap<&'static str, Summary>>>);

impl Summaries {
    /// Notes a duration.
    pub(super) fn observe(&self, slice: &'static str, seconds: f64, now: Instant) {
        self.0.lock().entry(slice).or_insert_with(|| Summary::new(now)).observe(seconds, now);
    }
}

#[derive(Debug)]
struct Summary {
    turns: Vec<Vec<u32>>,
    current: usize,
    began: Instant,
    count: u64,
    sum: f64,
}

impl Summary {
    fn new(now: Instant) -> Self {
        Summary { turns: vec![vec![0; BUCKETS]; TURNS], current: 0, began: now, count: 0, sum: 0.0 }
    }

    fn observe(&mut self, seconds: f64, now: Instant) {
        self.turn(now);
        self.count += 1;
        self.sum += seconds;
        let bucket = ((seconds / SHORTEST_S).ln() / GROWTH.ln()).max(0.0) as usize;
        self.turns[self.current][bucket.min(BUCKETS - 1)] += 1;
    }

    /// Empties what is too old by now.
    fn turn(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began).as_secs() / TURN.as_secs();
        for _ in 0..passed.min(TURNS as u64) {
            self.current = (self.current + 1) % TURNS;
            self.turns[self.current].fill(0);
        }
        self.began += TURN * u32::try_from(passed).unwrap_or(u32::MAX);
    }

    /// `NaN` where nothing was observed in the last ten minutes.
    fn quantiles(&mut self, now: Instant) -> [f64; 3] {
        self.turn(now);
        let at = |bucket: usize| self.turns.iter().map(|t| u64::from(t[bucket])).sum::<u64>();
        let total: u64 = (0..BUCKETS).map(at).sum();
        QUANTILES.map(|(quantile, _)| {
            let rank = ((total as f64 * quantile).ceil() as u64).max(1);
            let mut below = 0;
            let found = (0..BUCKETS).find(|bucket| {
                below += at(*bucket);
                below >= rank
            });
            // The middle of the bucket.
            found.map_or(f64::NAN, |bucket| SHORTEST_S * GROWTH.powf(bucket as f64 + 0.5))
        })
    }
}

impl Collector for Summaries {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = Instant::now();
        let mut all = self.0.lock();
        const NAME: &str = "prometheus_engine_query_duration_seconds";
        let mut quantiles = encoder.encode_descriptor(NAME, "Query timings", None, MetricType::Gauge)?;
        for (slice, summary) in all.iter_mut() {
            for ((_, quantile), value) in QUANTILES.iter().zip(summary.quantiles(now)) {
                let labels = [("slice", *slice), ("quantile", *quantile)];
                ConstGauge::new(value).encode(quantiles.encode_family(&labels)?)?;
            }
        }
        let sum = format!("{NAME}_sum");
        let mut sums = encoder.encode_descriptor(&sum, "Query timings, added up", None, MetricType::Gauge)?;
        for (slice, summary) in all.iter() {
            ConstGauge::new(summary.sum).encode(sums.encode_family(&[("slice", *slice)])?)?;
        }
        let count = format!("{NAME}_count");
        let mut counts =
            encoder.encode_descriptor(&count, "Query timings, counted", None, MetricType::Gauge)?;
        for (slice, summary) in all.iter() {
            ConstGauge::new(summary.count as f64).encode(counts.encode_family(&[("slice", *slice)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_ten_minutes() {
        let start = Instant::now();
        let mut summary = Summary::new(start);
        assert!(summary.quantiles(start)[0].is_nan());
        for i in 1..=1000 {
            summary.observe(f64::from(i) / 1000.0, start);
        }
        for (got, want) in summary.quantiles(start).into_iter().zip([0.5, 0.9, 0.99]) {
            assert!((got / want - 1.0).abs() < 0.011, "{got} for {want}");
        }
        let later = start + Duration::from_secs(300);
        for _ in 0..9000 {
            summary.observe(2.0, later);
        }
        assert!((summary.quantiles(later)[0] / 2.0 - 1.0).abs() < 0.011);
        summary.observe(0.0, later + Duration::from_secs(3600));
        assert!(summary.quantiles(later + Duration::from_secs(3600))[2] < 2e-6);
        assert_eq!(summary.count, 10_001);
    }
}
