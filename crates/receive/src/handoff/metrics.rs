//! Metrics of the hand-off.

use std::fmt;
use std::sync::Arc;

use chronolith_service::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;

use super::log::{HintError, HintLog};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct HandoffMetrics {
    hints: Family<ResultLabels, Counter>,
    replayed: Family<ResultLabels, Counter>,
    pub(super) rejected_samples: Counter,
}

impl HandoffMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = HandoffMetrics::default();
        let help = "Shares of unavailable receivers by what became of them: kept, full, busy, failed";
        registry.register("chronolith_receive_handoff_hints", help, metrics.hints.clone());
        let help =
            "Hints taken from the log by what became of them: delivered, rerouted, aged, refused, damaged";
        registry.register("chronolith_receive_handoff_replayed_hints", help, metrics.replayed.clone());
        let help = "Samples of delivered hints that the receiver rejected";
        registry.register(
            "chronolith_receive_handoff_rejected_samples",
            help,
            metrics.rejected_samples.clone(),
        );
        metrics
    }

    pub(super) fn kept(&self, result: &Result<(), HintError>) {
        let result = match result {
            Ok(()) => "kept",
            Err(HintError::Full(_)) => "full",
            Err(HintError::Busy) => "busy",
            Err(HintError::Io(_)) => "failed",
        };
        self.hints.get_or_create(&ResultLabels { result }).inc();
    }

    pub(super) fn replayed(&self, result: &'static str) {
        self.replayed.get_or_create(&ResultLabels { result }).inc();
    }
}

#[derive(Debug)]
pub(super) struct HandoffCollector(pub(super) Arc<HintLog>);

impl Collector for HandoffCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Bytes of hints that wait for a receiver";
        let name = "chronolith_receive_handoff_pending_bytes";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for peer in self.0.peers() {
            let bytes = self.0.stats(&peer).bytes as f64;
            ConstGauge::new(bytes).encode(family.encode_family(&[("endpoint", peer.as_str())])?)?;
        }
        let help = "The most bytes of hints of all receivers together";
        ConstGauge::new(self.0.bytes().1 as f64).encode(encoder.encode_descriptor(
            "chronolith_receive_handoff_max_bytes",
            help,
            None,
            MetricType::Gauge,
        )?)
    }
}
