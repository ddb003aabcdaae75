//! The heads' statistics in the form of the query API, all tenants together.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chronolith_query::http::{StatusSource, TopEntry, TsdbStatus};
use chronolith_receive::{Tenants, head_stats};
use chronolith_tsdb::head::NameValue;

/// Entries asked of each tenant where several have to be added up; the API's own bound.
const ENTRIES_A_TENANT: usize = 10_000;

/// Reads the heads of this process.
pub(super) struct HeadStatus(pub(super) Arc<Tenants>);

#[async_trait]
impl StatusSource for HeadStatus {
    async fn tsdb_status(&self, top: usize) -> TsdbStatus {
        let tenants = Arc::clone(&self.0);
        // Statistics walk all postings: not on a worker of the runtime.
        tokio::task::spawn_blocking(move || merged(&tenants, top)).await.unwrap_or_default()
    }

    async fn blocks(&self) -> Vec<String> {
        let Ok(db) = self.0.db() else { return Vec::new() };
        let tenants = db.tenants();
        let blocks = tenants.iter().flat_map(|tenant| db.blocks(tenant));
        blocks.map(|block| String::from_utf8_lossy(&block.meta().to_json()).into_owned()).collect()
    }
}

/// Before the log is replayed there is nothing to tell.
fn merged(tenants: &Tenants, top: usize) -> TsdbStatus {
    let count = tenants.db().map_or(0, |db| db.tenants().len());
    let limit = if count > 1 { ENTRIES_A_TENANT } else { top };
    let mut status = TsdbStatus { mint: i64::MAX, maxt: i64::MIN, ..TsdbStatus::default() };
    let mut sums: [HashMap<String, u64>; 4] = Default::default();
    for (_, stats) in head_stats(tenants, None, limit).unwrap_or_default() {
        status.series += stats.series_count;
        status.label_pairs += stats.label_pair_count;
        status.chunks += stats.chunk_count;
        status.mint = status.mint.min(stats.min_time);
        status.maxt = status.maxt.max(stats.max_time);
        for (sum, entries) in sums.iter_mut().zip([
            stats.series_count_by_metric_name,
            stats.label_value_count_by_label_name,
            stats.memory_in_bytes_by_label_name,
            stats.series_count_by_label_value_pair,
        ]) {
            for NameValue { name, value } in entries {
                *sum.entry(name).or_default() += value;
            }
        }
    }
    let [metrics, values, bytes, pairs] = sums.map(|sum| largest(sum, top));
    TsdbStatus {
        series_by_metric: metrics,
        values_by_label: values,
        bytes_by_label: bytes,
        series_by_pair: pairs,
        ..status
    }
}

fn largest(sum: HashMap<String, u64>, top: usize) -> Vec<TopEntry> {
    let mut entries: Vec<TopEntry> = sum.into_iter().map(|(name, value)| TopEntry { name, value }).collect();
    entries.sort_unstable_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    entries.truncate(top);
    entries
}
