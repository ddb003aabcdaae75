//! Exemplars, metric metadata and statistics of all tenants.
//!
//! Each tenant's external labels are part of its series: matchers on them choose tenants, and they win over a series' own.
//! Metadata knows no labels, so all tenants answer together, as Thanos's do.

use async_trait::async_trait;
use chronolith_model::{Labels, Matcher, TenantId};
use chronolith_storeapi::local::strip_external;
use chronolith_storeapi::{
    Exemplars, ExemplarsAnswer, ExemplarsRequest, Metadata, MetadataAnswer, MetadataRequest, SeriesExemplars,
    Statistic, Status, StatusAnswer, StatusRequest, StoreError, TsdbStatistics,
};
use chronolith_tsdb::head::{Head, HeadStats, NameValue};

use crate::TenantsStore;

/// The selectors as one tenant sees them. `None` when none of them fits its external labels.
///
/// Errors: nothing is left of those that fit.
fn selectors_of(
    selectors: &[Vec<Matcher>],
    external: &Labels,
    tenant: &TenantId,
) -> Result<Option<Vec<Vec<Matcher>>>, StoreError> {
    let fitting: Vec<_> = selectors.iter().filter_map(|s| strip_external(s, external)).collect();
    if fitting.is_empty() {
        return Ok(None);
    }
    let left: Vec<_> = fitting.into_iter().filter(|matchers| !matchers.is_empty()).collect();
    if left.is_empty() {
        let text = format!("tenant {tenant}: no matchers specified (excluding external labels)");
        return Err(StoreError::invalid(text));
    }
    Ok(Some(left))
}

#[async_trait]
impl Exemplars for TenantsStore {
    async fn exemplars(&self, request: ExemplarsRequest) -> Result<ExemplarsAnswer, StoreError> {
        let series = self
            .for_each_tenant(Vec::new(), move |found, db, tenant, external| {
                let Some(head) = db.head(tenant) else { return Ok(()) };
                let Some(selectors) = selectors_of(&request.selectors, external, tenant)? else {
                    return Ok(());
                };
                let of_head = |head: &Head| head.exemplars(&selectors, request.range);
                found.extend(of_head(&head).into_iter().map(|(labels, exemplars)| SeriesExemplars {
                    labels: labels.overlay(external),
                    exemplars,
                }));
                Ok(())
            })
            .await?;
        Ok(ExemplarsAnswer::merged(series, Vec::new()))
    }
}

#[async_trait]
impl Metadata for TenantsStore {
    async fn metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        self.for_each_tenant(MetadataAnswer::default(), move |answer, db, tenant, _| {
            if let Some(head) = db.head(tenant) {
                let mut metrics = head.metadata(request.metric.as_deref());
                metrics.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                for (metric, says) in metrics {
                    answer.add(&request, metric, says);
                }
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Status for TenantsStore {
    async fn tsdb_statistics(&self, request: StatusRequest) -> Result<StatusAnswer, StoreError> {
        self.for_each_tenant(StatusAnswer::default(), move |answer, db, tenant, external| {
            if strip_external(&request.matchers, external).is_some()
                && let Some(head) = db.head(tenant)
            {
                answer.tenants.insert(tenant.as_str().to_owned(), statistics(head.stats(request.limit)));
            }
            Ok(())
        })
        .await
    }
}

fn statistics(stats: HeadStats) -> TsdbStatistics {
    let list = |list: Vec<NameValue>| {
        list.into_iter().map(|NameValue { name, value }| Statistic { name, value }).collect()
    };
    TsdbStatistics {
        series: stats.series_count,
        label_pairs: stats.label_pair_count,
        chunks: stats.chunk_count,
        mint: stats.min_time,
        maxt: stats.max_time,
        series_by_metric: list(stats.series_count_by_metric_name),
        values_by_label: list(stats.label_value_count_by_label_name),
        bytes_by_label: list(stats.memory_in_bytes_by_label_name),
        series_by_pair: list(stats.series_count_by_label_value_pair),
    }
}
