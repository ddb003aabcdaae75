//! A cache of chunks that queries have read, in memory: a series' run of chunks in a block, and of aggregates only those that were
//! wanted.
//!
//! Unlike pieces of segments ([`ChunkCache`](crate::ChunkCache)) it holds nothing that lay in between, and of the five
//! aggregates of downsampled data mostly one or two. A dashboard that refreshes asks for the same runs until a block is
//! compacted away: only its first and last block see other chunks as time goes on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use chronolith_chunk::Chunk;
use chronolith_model::BlockId;
use chronolith_tsdb::index::ChunkMeta;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Longer runs are not kept: they come from scans, which would drive out everything else.
pub(crate) const RUN_BYTES_MAX: usize = 64 << 10;
/// What an entry costs beside its chunks.
const ENTRY_BYTES: u64 = 150;
/// Bytes of a usual entry, for the cache's own table.
const ENTRY_BYTES_GUESS: u64 = 4096;

/// Names a run: the places of its chunks in the block, and the aggregates that were picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RunKey {
    block: BlockId,
    first: u64,
    /// Of all places: a range may leave out a chunk in the middle, where chunks overlap.
    digest: u64,
    aggregates: [bool; 5],
}

impl RunKey {
    /// `None` without chunks.
    pub(crate) fn new(block: BlockId, chunks: &[ChunkMeta], aggregates: [bool; 5]) -> Option<Self> {
        let first = chunks.first()?.chunk_ref;
        let mut hasher = DefaultHasher::new();
        chunks.iter().for_each(|chunk| chunk.chunk_ref.hash(&mut hasher));
        Some(RunKey { block, first, digest: hasher.finish(), aggregates })
    }
}

#[derive(Clone)]
struct Bytesize;

impl Weighter<RunKey, Arc<[Chunk]>> for Bytesize {
    fn weight(&self, _: &RunKey, run: &Arc<[Chunk]>) -> u64 {
        (run_bytes(run) + size_of_val::<[Chunk]>(run)) as u64 + ENTRY_BYTES
    }
}

fn run_bytes(run: &[Chunk]) -> usize {
    run.iter().map(|chunk| chunk.data.len()).sum()
}

/// Runs of chunks of all blocks; bounded in bytes.
pub struct RunCache {
    cache: Cache<RunKey, Arc<[Chunk]>, Bytesize>,
    requests: Counter,
    hits: Counter,
}

impl std::fmt::Debug for RunCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunCache({} of {} bytes)", self.cache.weight(), self.cache.capacity())
    }
}

impl RunCache {
    /// A cache of at most `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ENTRY_BYTES_GUESS).unwrap_or(usize::MAX).max(16);
        let cache = Cache::with_weighter(items, bytes_max, Bytesize);
        RunCache { cache, requests: Counter::default(), hits: Counter::default() }
    }

    /// Puts requests and hits on a registry.
    pub fn register(&self, registry: &mut Registry) {
        let prefix = "chronolith_store_series_chunks_cache";
        registry.register(
            format!("{prefix}_requests"),
            "Series of blocks whose chunks were asked of the cache in memory",
            self.requests.clone(),
        );
        registry.register(format!("{prefix}_hits"), "Those that it had", self.hits.clone());
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    pub(crate) fn get(&self, key: &RunKey) -> Option<Arc<[Chunk]>> {
        let run = self.cache.get(key);
        self.requests.inc();
        self.hits.inc_by(u64::from(run.is_some()));
        run
    }

    /// Keeps a run whose chunks share no memory with anything else.
    pub(crate) fn put(&self, key: RunKey, run: &[Chunk]) {
        if run_bytes(run) <= RUN_BYTES_MAX {
            self.cache.insert(key, run.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_chunk::encode_floats;

    #[test]
    fn the_bound_holds_and_long_runs_are_left_out() {
        let cache = RunCache::new(1 << 20);
        let picked = |n, aggregates| {
            let chunks = [n, n + 1].map(|chunk_ref| ChunkMeta { mint: 0, maxt: 0, chunk_ref });
            RunKey::new(BlockId(1u128.into()), &chunks, aggregates).unwrap()
        };
        let key = |n| picked(n, [true; 5]);
        let values: Vec<f64> = (0..600).map(|i| f64::from(i) * 0.37).collect();
        let run = encode_floats(&(0..600).collect::<Vec<_>>(), &values);
        for n in 0..1000 {
            cache.put(key(n), &run);
        }
        assert!(cache.bytes() <= 1 << 20 && cache.bytes() > 1 << 19, "{cache:?}");
        cache.put(key(5000), &run);
        assert_eq!(cache.get(&key(5000)).unwrap()[..], run[..]);
        assert!(cache.get(&picked(5000, [false; 5])).is_none());
        let long: Vec<Chunk> = run.iter().cycle().take(run.len() * 20).cloned().collect();
        cache.put(key(6000), &long);
        assert!(cache.get(&key(6000)).is_none());
        assert_eq!((cache.requests.get(), cache.hits.get()), (3, 1));
    }
}
