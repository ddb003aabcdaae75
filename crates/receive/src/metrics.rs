//! Metrics of the tenants' heads and local blocks, with Prometheus's names and a label `tenant`, as in Thanos's receiver.

use std::fmt;
use std::sync::Arc;

use chronolith_service::metrics::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::tenants::Tenants;

/// Registers the gauges; they are read when scraped.
pub(crate) fn register(registry: &mut Registry, tenants: Arc<Tenants>) {
    registry.register_collector(Box::new(TenantsCollector(tenants)));
}

#[derive(Debug)]
struct TenantsCollector(Arc<Tenants>);

impl Collector for TenantsCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(db) = self.0.db() else { return Ok(()) };
        let tenants = db.tenants();
        let mut family =
            |name: &str, help: &str, value: &dyn Fn(&chronolith_model::TenantId) -> Option<f64>| {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                for tenant in &tenants {
                    if let Some(value) = value(tenant) {
                        ConstGauge::new(value)
                            .encode(family.encode_family(&[("tenant", tenant.as_str())])?)?;
                    }
                }
                Ok::<(), fmt::Error>(())
            };
        let head = |t: &chronolith_model::TenantId| db.head(t);
        family("prometheus_tsdb_head_series", "Series in the head", &|t| {
            Some(head(t)?.series_count() as f64)
        })?;
        family("prometheus_tsdb_head_min_time", "Oldest sample of the head, in milliseconds", &|t| {
            Some(head(t)?.time_range()?.mint as f64)
        })?;
        family("prometheus_tsdb_head_max_time", "Newest sample of the head, in milliseconds", &|t| {
            Some(head(t)?.time_range()?.maxt as f64)
        })?;
        let exemplars = |t: &chronolith_model::TenantId| head(t).map(|h| h.exemplar_stats());
        family("prometheus_tsdb_exemplar_exemplars_in_storage", "Exemplars held", &|t| {
            Some(exemplars(t)?.held as f64)
        })?;
        family("prometheus_tsdb_exemplar_max_exemplars", "The most exemplars that are held", &|t| {
            Some(exemplars(t)?.max as f64)
        })?;
        let help = "Series that have exemplars";
        family("prometheus_tsdb_exemplar_series_with_exemplars_in_storage", help, &|t| {
            Some(exemplars(t)?.series as f64)
        })?;
        let help = "Time of the exemplar that came first of those held";
        family("prometheus_tsdb_exemplar_last_exemplars_timestamp_seconds", help, &|t| {
            Some(exemplars(t)?.oldest_ms? as f64 / 1000.0)
        })?;
        family("chronolith_receive_metadata_metrics", "Metrics that writers said something of", &|t| {
            Some(head(t)?.metadata_count() as f64)
        })?;
        family("prometheus_tsdb_blocks_loaded", "Local blocks", &|t| Some(db.blocks(t).len() as f64))?;
        family("prometheus_tsdb_storage_blocks_bytes", "Bytes of the local blocks", &|t| {
            Some(db.blocks(t).iter().map(|b| b.bytes_len() as f64).sum())
        })?;
        let spill = db.spill_stats();
        let stalled = u64::from(db.is_stalled());
        let mut gauge = |name: &str, help: &str, value: u64| {
            ConstGauge::new(value as f64).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)
        };
        gauge(
            "prometheus_tsdb_head_chunks_storage_size_bytes",
            "Complete chunks of all heads that lie in spill files instead of in memory",
            spill.bytes,
        )?;
        gauge("chronolith_receive_wal_stalled", "1 while the disk is full and writes are refused", stalled)?;
        gauge("chronolith_tsdb_head_spill_files", "Spill files of all heads", spill.files)?;
        ConstCounter::new(spill.failures).encode(encoder.encode_descriptor(
            "chronolith_tsdb_head_spill_failures",
            "Attempts to write complete chunks to a spill file that failed; the chunks stay in memory",
            None,
            MetricType::Counter,
        )?)
    }
}
