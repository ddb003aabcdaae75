//! Metrics of the remote-write handler. The `thanos_` ones mean what they mean in Thanos.

use chronolith_service::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;

use super::admission::Admission;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) code: u16,
    pub(super) tenant: String,
}

/// A label `reason` from a bounded set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

type Sizes = Family<RequestLabels, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug)]
pub(super) struct RemoteWriteMetrics {
    pub(super) series: Sizes,
    pub(super) samples: Sizes,
    pub(super) pending: Gauge,
    pub(super) refused: Family<ReasonLabels, Counter>,
    pub(super) samples_written: Counter,
    pub(super) samples_rejected: Counter,
    pub(super) metadata_dropped: Counter,
    pub(super) exemplars_dropped: Counter,
}

impl RemoteWriteMetrics {
    pub(super) fn register(registry: &mut Registry, admission: &Admission) -> Self {
        // Thanos's buckets.
        let sizes = || Histogram::new([10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0]);
        let metrics = RemoteWriteMetrics {
            series: Family::new_with_constructor(sizes as fn() -> Histogram),
            samples: Family::new_with_constructor(sizes as fn() -> Histogram),
            pending: Gauge::default(),
            refused: Family::default(),
            samples_written: Counter::default(),
            samples_rejected: Counter::default(),
            metadata_dropped: Counter::default(),
            exemplars_dropped: Counter::default(),
        };
        let m = &metrics;
        let help = "Series in write requests";
        registry.register("thanos_receive_write_timeseries", help, m.series.clone());
        registry.register("thanos_receive_write_samples", "Samples in write requests", m.samples.clone());
        registry.register(
            "thanos_receive_pending_write_requests",
            "Write requests in flight",
            m.pending.clone(),
        );
        let help = "Write requests refused as a whole";
        registry.register("chronolith_receive_requests_refused", help, m.refused.clone());
        registry.register("chronolith_receive_samples_written", "Samples stored", m.samples_written.clone());
        registry.register(
            "chronolith_receive_samples_rejected",
            "Samples rejected",
            m.samples_rejected.clone(),
        );
        let help = "Metadata entries of requests that could not be read";
        registry.register("chronolith_receive_metadata_dropped", help, m.metadata_dropped.clone());
        let help = "Exemplars whose labels could not be read";
        registry.register("chronolith_receive_exemplars_dropped", help, m.exemplars_dropped.clone());
        registry.register_collector(Box::new(Budgets(admission.clone())));
        metrics
    }
}

/// What requests wait for. `thanos_receive_write_request_concurrent_*` are Thanos's gate.
#[derive(Debug)]
struct Budgets(Admission);

impl Collector for Budgets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Admission { read, decode, workers, .. } = &self.0;
        let mut gauge = |name: &str, help: &str, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let help = ["Memory for request bodies", "Memory for decoded requests"];
        for (name, help, budget) in [("read", help[0], read), ("decode", help[1], decode)] {
            gauge(&format!("chronolith_receive_{name}_bytes_limit"), help, budget.bytes_max() as f64)?;
            gauge(&format!("chronolith_receive_{name}_bytes_used"), help, budget.bytes_used() as f64)?;
            let help = "Write requests that wait for memory";
            gauge(&format!("chronolith_receive_{name}_requests_waiting"), help, budget.waiting() as f64)?;
        }
        let gate = "thanos_receive_write_request_concurrent_gate_writes";
        let help = ["Write requests decoded at a time at the most", "Write requests being decoded"];
        gauge(&format!("{gate}_max"), help[0], workers.units() as f64)?;
        gauge(&format!("{gate}_in_flight"), help[1], workers.used() as f64)?;
        let help = "Write requests that wait to be decoded";
        gauge("chronolith_receive_decode_requests_queued", help, workers.waiting() as f64)
    }
}
