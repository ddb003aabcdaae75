//! Metrics of limits. The `thanos_` ones are Thanos's.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chronolith_service::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;

use super::config::{LimitsConfig, TenantLimits};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TenantLabel {
    pub(super) tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LimitLabels {
    pub(super) tenant: String,
    pub(super) limit: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct LimitsMetrics {
    pub(super) reloads: Counter,
    pub(super) reload_failures: Counter,
    pub(super) head_series_limited: Family<TenantLabel, Counter>,
    pub(super) limited: Family<LimitLabels, Counter>,
}

impl LimitsMetrics {
    pub(super) fn register(registry: &mut Registry, config: Arc<ArcSwap<LimitsConfig>>) -> Self {
        let m = LimitsMetrics::default();
        let help = "How often the limits file was read again";
        registry.register("thanos_receive_limits_config_reload", help, m.reloads.clone());
        let help = "How often reading the limits file again failed; the old limits stay";
        registry.register("thanos_receive_limits_config_reload_err", help, m.reload_failures.clone());
        let help = "Write requests with series above the tenant's limit of active series";
        let limited = m.head_series_limited.clone();
        registry.register("thanos_receive_head_series_limited_requests", help, limited);
        let help = "Write requests refused by a limit of their tenant, by the limit's key";
        registry.register("chronolith_receive_limited_requests", help, m.limited.clone());
        registry.register_collector(Box::new(Configured(config)));
        m
    }
}

/// The limits as they are configured; the tenant of the default is empty, as in Thanos.
#[derive(Debug)]
struct Configured(Arc<ArcSwap<LimitsConfig>>);

impl Collector for Configured {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let config = self.0.load();
        let mut tenants: Vec<(&str, &TenantLimits)> =
            config.tenants.iter().map(|(id, limits)| (id.as_str(), &**limits)).collect();
        tenants.sort_unstable_by_key(|(name, _)| *name);
        tenants.insert(0, ("", &config.default));
        let help = "The configured limit of active series";
        let mut family =
            encoder.encode_descriptor("thanos_receive_head_series_limit", help, None, MetricType::Gauge)?;
        for (tenant, limits) in &tenants {
            let gauge = ConstGauge::new(limits.head_series as f64);
            gauge.encode(family.encode_family(&[("tenant", *tenant)])?)?;
        }
        let help = "The configured limits of a write request";
        let mut family =
            encoder.encode_descriptor("thanos_receive_write_limits", help, None, MetricType::Gauge)?;
        for (tenant, limits) in &tenants {
            let request = &limits.request;
            for (limit, value) in
                [("body_size", request.size_bytes), ("series", request.series), ("samples", request.samples)]
            {
                let labels = [("tenant", *tenant), ("limit", limit)];
                ConstGauge::new(value as f64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
