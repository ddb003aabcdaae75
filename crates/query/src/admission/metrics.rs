//! Metrics of queries, under the names that Prometheus's engine and Thanos's querier give them, and those that they
//! do not have.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use chronolith_promql::MemoryPool;
use chronolith_service::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::queue::FairQueue;
use super::summary::Summaries;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SliceLabels {
    slice: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Counts something that runs or waits, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running(Gauge, i64);

impl Running {
    /// So many.
    pub(crate) fn new(gauge: &Gauge, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        gauge.inc_by(count);
        Running(gauge.clone(), count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec_by(self.1);
    }
}

/// What is counted of queries.
#[derive(Clone, Debug)]
pub(crate) struct QueryMetrics {
    pub(crate) active: Gauge,
    pub(crate) samples: Counter,
    pub(crate) samples_read: Counter,
    pub(crate) log_failures: Counter,
    pub(crate) slow: Counter,
    pub(crate) refused: Counter,
    pub(crate) gate_total: Counter,
    pub(crate) gate_seconds: Histogram,
    pub(crate) timespan_seconds: Histogram,
    pub(crate) remote_reads: Gauge,
    pub(crate) federation_errors: Counter,
    pub(crate) federation_warnings: Counter,
    slices: Family<SliceLabels, Histogram, fn() -> Histogram>,
    summaries: Summaries,
    outcomes: Family<OutcomeLabels, Counter>,
}

impl QueryMetrics {
    pub(crate) fn new() -> Self {
        // Upstream's buckets.
        let slice = || Histogram::new([0.01, 0.1, 1.0, 10.0]);
        let gate =
            [0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 6.0, 9.0, 20.0, 30.0, 60.0, 90.0, 120.0, 240.0, 360.0, 720.0];
        QueryMetrics {
            active: Gauge::default(),
            samples: Counter::default(),
            samples_read: Counter::default(),
            log_failures: Counter::default(),
            slow: Counter::default(),
            refused: Counter::default(),
            gate_total: Counter::default(),
            gate_seconds: Histogram::new(gate),
            timespan_seconds: Histogram::new(exponential_buckets(15.0 * 60.0, 2.0, 12)),
            remote_reads: Gauge::default(),
            federation_errors: Counter::default(),
            federation_warnings: Counter::default(),
            summaries: Summaries::default(),
            slices: Family::new_with_constructor(slice as fn() -> Histogram),
            outcomes: Family::default(),
        }
    }

    /// Adds everything to a registry; `log` says whether there is a query log.
    pub(crate) fn register(
        &self,
        registry: &mut Registry,
        queue: &Arc<FairQueue>,
        pool: &Arc<MemoryPool>,
        log: bool,
    ) {
        let r = registry;
        r.register("prometheus_engine_queries", "Queries that run or wait", self.active.clone());
        r.register("prometheus_engine_query_samples", "Samples loaded by all queries", self.samples.clone());
        r.register(
            "prometheus_engine_query_samples_read",
            "Samples read by all queries, each once per selector and range",
            self.samples_read.clone(),
        );
        r.register(
            "prometheus_engine_query_duration_histogram_seconds",
            "Duration of the parts of queries",
            self.slices.clone(),
        );
        r.register(
            "prometheus_engine_query_log_failures",
            "Queries that could not be written to the query log",
            self.log_failures.clone(),
        );
        let enabled: Gauge = Gauge::default();
        enabled.set(i64::from(log));
        r.register("prometheus_engine_query_log_enabled", "Whether there is a query log", enabled);
        r.register(
            "thanos_query_concurrent_gate_queries",
            "Queries that came to the queue",
            self.gate_total.clone(),
        );
        r.register(
            "thanos_query_concurrent_gate_queries_duration_seconds",
            "How long queries waited for their turn",
            self.gate_seconds.clone(),
        );
        r.register(
            "thanos_query_range_requested_timespan_duration_seconds",
            "Time that range queries asked for",
            self.timespan_seconds.clone(),
        );
        r.register("chronolith_query_ends", "Queries that ended, by how", self.outcomes.clone());
        r.register("chronolith_query_slow", "Queries slower than the threshold", self.slow.clone());
        r.register(
            "chronolith_query_queue_refused",
            "Queries that were refused because the queue was full",
            self.refused.clone(),
        );
        r.register(
            "prometheus_remote_read_handler_queries",
            "Queries of remote reads that run",
            self.remote_reads.clone(),
        );
        r.register(
            "prometheus_web_federation_errors",
            "Federation requests that failed",
            self.federation_errors.clone(),
        );
        r.register(
            "prometheus_web_federation_warnings",
            "Warnings of federation requests",
            self.federation_warnings.clone(),
        );
        r.register_collector(Box::new(self.summaries.clone()));
        r.register_collector(Box::new(Levels { queue: Arc::clone(queue), pool: Arc::clone(pool) }));
    }

    /// Counts an ended query.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Notes how long a part of a query took; upstream's names of the parts.
    pub(crate) fn took(&self, slice: &'static str, seconds: f64) {
        self.slices.get_or_create(&SliceLabels { slice }).observe(seconds);
        self.summaries.observe(slice, seconds, Instant::now());
    }
}

/// What is level now is asked for when it is scraped.
#[derive(Debug)]
struct Levels {
    queue: Arc<FairQueue>,
    pool: Arc<MemoryPool>,
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (running, waiting) = self.queue.levels();
        let mut gauge = |name: &str, help: &str, value: usize| {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let max = self.queue.running_max();
        gauge("prometheus_engine_queries_concurrent_max", "Most queries that run at once", max)?;
        gauge("thanos_query_concurrent_gate_queries_max", "Most queries that run at once", max)?;
        gauge("thanos_query_concurrent_gate_queries_in_flight", "Queries that run", running)?;
        gauge("chronolith_query_queue_waiting", "Queries that wait for their turn", waiting)?;
        gauge("chronolith_query_queue_max", "Most queries that wait", self.queue.waiting_max())?;
        let pool = &self.pool;
        gauge("chronolith_query_memory_bytes", "Memory that queries hold", pool.held())?;
        gauge("chronolith_query_memory_peak_bytes", "Most memory that queries held", pool.peak())?;
        gauge("chronolith_query_memory_max_bytes", "Memory that queries may hold", pool.max())?;
        let refused: ConstCounter<u64> = ConstCounter::new(pool.refused() as u64);
        let help = "Times that queries were refused memory because all together held too much";
        let name = "chronolith_query_memory_refused";
        refused.encode(encoder.encode_descriptor(name, help, None, refused.metric_type())?)?;
        Ok(())
    }
}
