//! Metrics of forwarding, with Thanos's names where the meaning is the same.

use std::fmt;
use std::sync::Arc;

use chronolith_service::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;

use super::sink::RingSink;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    result: &'static str,
}

/// Counters that are written to as things happen.
#[derive(Clone, Debug)]
pub(super) struct ForwardMetrics {
    forwards: Family<ResultLabels, Counter>,
    replications: Family<ResultLabels, Counter>,
    pub(super) delay: Histogram,
    pub(super) queue_refused: Counter,
    pub(super) late_answers: Gauge,
}

impl ForwardMetrics {
    pub(super) fn register(registry: &mut Registry, replication_factor: usize) -> Self {
        let (forwards, replications) = (Family::default(), Family::default());
        let help = "Shares of write requests sent to other receivers, by result";
        registry.register("thanos_receive_forward_requests", help, forwards.clone());
        let help = "As thanos_receive_forward_requests, of requests that this receiver replicates";
        registry.register("thanos_receive_replications", help, replications.clone());
        let factor = Gauge::<i64>::default();
        factor.set(replication_factor as i64);
        registry.register("thanos_receive_replication_factor", "Copies of each series", factor);
        let delay = Histogram::new([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0]);
        let help = "How long shares waited for their receiver's worker";
        registry.register("thanos_receive_forward_delay_seconds", help, delay.clone());
        let (queue_refused, late_answers) = (Counter::default(), Gauge::default());
        let help = "Shares that found their receiver's queue full";
        registry.register("chronolith_receive_forward_queue_refused", help, queue_refused.clone());
        let help = "Acknowledged requests some of whose receivers have not answered yet";
        registry.register("chronolith_receive_forward_unfinished_requests", help, late_answers.clone());
        ForwardMetrics { forwards, replications, delay, queue_refused, late_answers }
    }

    pub(super) fn forwarded(&self, ok: bool, replicated_already: bool) {
        let labels = ResultLabels { result: if ok { "success" } else { "error" } };
        self.forwards.get_or_create(&labels).inc();
        if !replicated_already {
            self.replications.get_or_create(&labels).inc();
        }
    }
}

/// What is read when scraped: the rings and the peers.
#[derive(Debug)]
pub(super) struct RingCollector(pub(super) Arc<RingSink>);

impl Collector for RingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(rings) = self.0.rings() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, values: Vec<(&'static str, String, f64)>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (label, value, n) in values {
                ConstGauge::new(n).encode(family.encode_family(&[(label, value.as_str())])?)?;
            }
            Ok::<(), fmt::Error>(())
        };
        let by_ring = |value: &dyn Fn(&crate::hashring::HashringConfig) -> usize| {
            rings.configs().map(|c| ("name", c.name.clone(), value(c) as f64)).collect()
        };
        gauge(
            "thanos_receive_hashring_nodes",
            "Endpoints of each hashring",
            by_ring(&|c| c.endpoints.len()),
        )?;
        let help = "Tenants that each hashring lists";
        gauge("thanos_receive_hashring_tenants", help, by_ring(&|c| c.tenants.len()))?;
        let peers = self.0.peers();
        let by_peer = |value: &dyn Fn(&super::peer::PeerState) -> f64| {
            peers.iter().map(|p| ("endpoint", p.address().to_owned(), value(&p.state()))).collect()
        };
        let help = "1 while requests to a receiver fail at once because it was unavailable";
        gauge(
            "chronolith_receive_peer_backoff",
            help,
            by_peer(&|s| f64::from(u8::from(s.backoff.is_some()))),
        )?;
        let help = "Bytes of shares that wait for a receiver";
        gauge("chronolith_receive_peer_queue_bytes", help, by_peer(&|s| s.queue_bytes as f64))?;
        let help = "The most bytes of shares that wait for a receiver";
        gauge("chronolith_receive_peer_queue_max_bytes", help, by_peer(&|s| s.queue_bytes_max as f64))?;
        let caches: Vec<_> = rings.shard_caches().collect();
        let items = |value: &dyn Fn(&crate::hashring::ShardCacheStats) -> usize| {
            caches.iter().map(|(name, s)| ("hashring", (*name).to_owned(), value(s) as f64)).collect()
        };
        gauge("thanos_shuffle_shard_cache_items", "Shards remembered", items(&|s| s.items))?;
        gauge("thanos_shuffle_shard_cache_max_items", "The most shards remembered", items(&|s| s.items_max))?;
        for (name, help, value) in [
            (
                "thanos_shuffle_shard_cache_requests",
                "Look-ups of shards",
                (|s| s.requests) as fn(&crate::hashring::ShardCacheStats) -> u64,
            ),
            ("thanos_shuffle_shard_cache_hits", "Look-ups that found the shard", |s| s.hits),
            ("thanos_shuffle_shard_cache_evicted", "Shards put out for others", |s| s.evicted),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (ring, stats) in &caches {
                ConstCounter::new(value(stats)).encode(family.encode_family(&[("hashring", *ring)])?)?;
            }
        }
        Ok(())
    }
}
