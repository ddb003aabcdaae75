//! The caches of a store, made from its configuration.

use std::sync::Arc;

use chronolith_bucket::{BucketBlock, ChunkCache, IndexCache, RunCache};
use chronolith_cache::{
    CacheError, CacheMetrics, DiskCache, GuardOptions, GuardedCache, Memcached, RedisCache, SharedBackend,
};
use chronolith_service::Metrics;

use crate::{CachePlace, Config};

/// What stands between blocks and the bucket.
#[derive(Debug)]
pub(crate) struct Caches {
    index: Arc<IndexCache>,
    chunks: Option<Arc<ChunkCache>>,
    runs: Option<Arc<RunCache>>,
}

impl Caches {
    /// Opens directories and starts the tasks that write; servers are not connected yet.
    pub(crate) fn open(config: &Config, metrics: &Metrics) -> Result<Self, CacheError> {
        let outer_metrics = metrics.register(CacheMetrics::register);
        let outer = |name, place: &CachePlace| open(name, place, &outer_metrics);
        let mut index = IndexCache::new(config.index_cache_bytes_max);
        if let Some(c) = &config.index_cache {
            if let CachePlace::Memory { bytes_max, item_bytes_max } = c.place {
                index = IndexCache::new(bytes_max).with_item_bytes_max(item_bytes_max);
            }
            index = index.with_items(c.items);
            if let Some(outer) = outer("index", &c.place)? {
                index = index.with_outer(outer);
            }
        }
        let chunks = match &config.chunk_cache {
            None => None,
            Some(c) => Some(match (&c.place, outer("chunks", &c.place)?) {
                (_, Some(outer)) => ChunkCache::outer(outer, c.options),
                (CachePlace::Memory { bytes_max, .. }, None) => ChunkCache::in_memory(*bytes_max, c.options),
                _ => unreachable!("every other place has an outer cache"),
            }),
        };
        let runs =
            (config.run_cache_bytes_max > 0).then(|| Arc::new(RunCache::new(config.run_cache_bytes_max)));
        metrics.register(|registry| {
            index.register(registry);
            if let Some(runs) = &runs {
                runs.register(registry);
            }
            if let Some(chunks) = &chunks {
                chunks.register(registry);
            }
        });
        Ok(Caches { index: Arc::new(index), chunks: chunks.map(Arc::new), runs })
    }

    /// The block, read through the caches from now on.
    pub(crate) fn put_before(&self, block: BucketBlock) -> BucketBlock {
        let mut block = block.with_cache(self.index.clone());
        if let Some(runs) = &self.runs {
            block = block.with_run_cache(runs.clone());
        }
        match &self.chunks {
            Some(chunks) => block.with_chunk_cache(chunks.clone()),
            None => block,
        }
    }
}

/// The cache outside of the process's memory; `None` where there is none.
fn open(
    name: &'static str,
    place: &CachePlace,
    metrics: &CacheMetrics,
) -> Result<Option<Arc<GuardedCache>>, CacheError> {
    let (backend, guard): (SharedBackend, GuardOptions) = match place {
        CachePlace::Memory { .. } => return Ok(None),
        CachePlace::Disk(options) => {
            let item_bytes_max = usize::MAX;
            (
                Arc::new(DiskCache::open(options.clone())?),
                GuardOptions { item_bytes_max, ..GuardOptions::default() },
            )
        }
        CachePlace::Memcached(options, guard) => (Arc::new(Memcached::new(options.clone())?), guard.clone()),
        CachePlace::Redis(options, guard) => (Arc::new(RedisCache::new((**options).clone())?), guard.clone()),
    };
    Ok(Some(GuardedCache::start(name, backend, guard, metrics.clone())))
}
