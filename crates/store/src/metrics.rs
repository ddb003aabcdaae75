//! Metrics of the role; where Thanos has one, the name and meaning are its.

use chronolith_bucket::{FetchResult, IndexUse, StatsSnapshot};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DataLabels {
    data_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone)]
pub(crate) struct StoreMetrics {
    pub(crate) blocks_loaded: Gauge,
    pub(crate) block_loads: Counter,
    pub(crate) block_load_failures: Counter,
    pub(crate) block_drops: Counter,
    pub(crate) headers_closed: Counter,
    pub(crate) syncs: Counter,
    pub(crate) sync_failures: Counter,
    metas: Family<StateLabels, Gauge>,
    index_loads: Family<ResultLabels, Counter>,
    blocks_queried: Histogram,
    fetched_bytes: Family<DataLabels, Counter>,
    fetch_requests: Family<DataLabels, Counter>,
}

impl StoreMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let m = StoreMetrics {
            blocks_loaded: Gauge::default(),
            block_loads: Counter::default(),
            block_load_failures: Counter::default(),
            block_drops: Counter::default(),
            headers_closed: Counter::default(),
            syncs: Counter::default(),
            sync_failures: Counter::default(),
            metas: Family::default(),
            index_loads: Family::default(),
            blocks_queried: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            fetched_bytes: Family::default(),
            fetch_requests: Family::default(),
        };
        let r = registry;
        r.register("thanos_bucket_store_blocks_loaded", "Blocks served", m.blocks_loaded.clone());
        r.register("thanos_bucket_store_block_loads", "Attempts to load a block", m.block_loads.clone());
        r.register(
            "thanos_bucket_store_block_load_failures",
            "Attempts to load a block, or to make its index header, that failed",
            m.block_load_failures.clone(),
        );
        r.register("thanos_bucket_store_block_drops", "Blocks no longer served", m.block_drops.clone());
        r.register(
            "thanos_bucket_store_indexheader_lazy_unload",
            "Index headers closed because nobody used them",
            m.headers_closed.clone(),
        );
        r.register("thanos_blocks_meta_syncs", "Looks at the bucket for blocks", m.syncs.clone());
        r.register("thanos_blocks_meta_sync_failures", "Those that failed", m.sync_failures.clone());
        r.register("thanos_blocks_meta_synced", "Blocks found, by what became of them", m.metas.clone());
        r.register(
            "chronolith_store_bucket_index_loads",
            "Looks at the bucket, by what came of the bucket index; all but used mean a full listing",
            m.index_loads.clone(),
        );
        for how in IndexUse::ALL {
            let _ = m.index_loads.get_or_create(&ResultLabels { result: how.as_str() });
        }
        r.register(
            "thanos_bucket_store_series_blocks_queried",
            "Blocks read for a request for series",
            m.blocks_queried.clone(),
        );
        r.register(
            "chronolith_store_fetched_bytes",
            "Bytes that requests for series fetched from the bucket",
            m.fetched_bytes.clone(),
        );
        r.register(
            "chronolith_store_fetch_requests",
            "Bucket requests that requests for series made",
            m.fetch_requests.clone(),
        );
        m
    }

    pub(crate) fn synced(&self, found: &FetchResult, how: IndexUse) {
        self.index_loads.get_or_create(&ResultLabels { result: how.as_str() }).inc();
        let mut counts = std::collections::BTreeMap::from([
            ("loaded", found.blocks.len()),
            ("no-meta-json", found.partial.len()),
            ("corrupted-meta-json", found.corrupt.len()),
            ("failed", found.failed.len()),
            ("time-excluded", 0),
            ("too-fresh", 0),
            ("marked-for-deletion", 0),
            ("duplicate", 0),
        ]);
        for why in found.excluded.values() {
            *counts.entry(why.as_str()).or_default() += 1;
        }
        for (state, n) in counts {
            self.metas.get_or_create(&StateLabels { state }).set(n as i64);
        }
    }

    pub(crate) fn queried(&self, blocks: usize) {
        self.blocks_queried.observe(blocks as f64);
    }

    pub(crate) fn fetched(&self, stats: StatsSnapshot) {
        let by_type = [
            ("postings", stats.postings_requests, stats.postings_bytes),
            ("series", stats.series_requests, stats.series_bytes),
            ("chunks", stats.chunk_requests, stats.chunk_bytes),
        ];
        for (data_type, requests, bytes) in by_type {
            self.fetch_requests.get_or_create(&DataLabels { data_type }).inc_by(requests);
            self.fetched_bytes.get_or_create(&DataLabels { data_type }).inc_by(bytes);
        }
    }
}
