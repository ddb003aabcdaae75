//! Caches of what queries read from blocks: postings lists and series entries in memory, and a hook for chunk ranges.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::BlockId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Postings(BlockId, u64),
    Series(BlockId, u32),
}

#[derive(Clone)]
enum Value {
    Postings(Arc<[u32]>),
    Series(Bytes),
}

#[derive(Clone)]
struct Bytesize;

/// What an entry costs beside its payload: key, value, and the cache's own bookkeeping.
const ENTRY_BYTES: u64 = 120;

impl Weighter<Key, Value> for Bytesize {
    fn weight(&self, _: &Key, value: &Value) -> u64 {
        let payload = match value {
            Value::Postings(list) => size_of_val::<[u32]>(list),
            Value::Series(bytes) => bytes.len(),
        };
        payload as u64 + ENTRY_BYTES
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ItemLabels {
    item_type: &'static str,
}

/// Postings lists and series entries of all blocks, bounded in bytes.
pub struct IndexCache {
    cache: Cache<Key, Value, Bytesize>,
    requests: Family<ItemLabels, Counter>,
    hits: Family<ItemLabels, Counter>,
}

impl std::fmt::Debug for IndexCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexCache({} of {} bytes)", self.cache.weight(), self.cache.capacity())
    }
}

impl IndexCache {
    /// A cache of at most `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        // A series entry with a day of chunks has a few hundred bytes.
        let items = usize::try_from(bytes_max / 512).unwrap_or(usize::MAX).max(16);
        let cache = Cache::with_weighter(items, bytes_max, Bytesize);
        IndexCache { cache, requests: Family::default(), hits: Family::default() }
    }

    /// Puts requests and hits on a registry, named as in Thanos.
    pub fn register(&self, registry: &mut Registry) {
        let prefix = "thanos_store_index_cache";
        registry.register(format!("{prefix}_requests"), "Requests to the index cache", self.requests.clone());
        registry.register(format!("{prefix}_hits"), "Requests that were hits", self.hits.clone());
    }

    /// Bytes in use.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    fn get(&self, key: Key, item_type: &'static str) -> Option<Value> {
        let found = self.cache.get(&key);
        self.requests.get_or_create(&ItemLabels { item_type }).inc();
        if found.is_some() {
            self.hits.get_or_create(&ItemLabels { item_type }).inc();
        }
        found
    }

    pub(crate) fn has_postings(&self, block: BlockId, start: u64) -> bool {
        self.cache.contains_key(&Key::Postings(block, start))
    }

    pub(crate) fn postings(&self, block: BlockId, start: u64) -> Option<Arc<[u32]>> {
        match self.get(Key::Postings(block, start), "Postings")? {
            Value::Postings(list) => Some(list),
            Value::Series(_) => None,
        }
    }

    pub(crate) fn put_postings(&self, block: BlockId, start: u64, list: Arc<[u32]>) {
        self.cache.insert(Key::Postings(block, start), Value::Postings(list));
    }

    pub(crate) fn series(&self, block: BlockId, series: u32) -> Option<Bytes> {
        match self.get(Key::Series(block, series), "Series")? {
            Value::Series(bytes) => Some(bytes),
            Value::Postings(_) => None,
        }
    }

    pub(crate) fn put_series(&self, block: BlockId, series: u32, entry: &[u8]) {
        // A copy: a slice would keep alive the whole range that it was read with.
        self.cache.insert(Key::Series(block, series), Value::Series(Bytes::copy_from_slice(entry)));
    }
}

/// A cache of byte ranges of chunk segments, for whoever wants to put one in.
pub trait RangeCache: Send + Sync {
    /// The bytes of a range of an object, if they are there.
    fn get(&self, key: &str, range: &Range<u64>) -> Option<Bytes>;
    /// Offers the bytes of a range.
    fn put(&self, key: &str, range: &Range<u64>, bytes: &Bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds() {
        let cache = IndexCache::new(1 << 20);
        let id = BlockId(1u128.into());
        for i in 0..10_000 {
            cache.put_series(id, i, &[0; 1000]);
            cache.put_postings(id, u64::from(i), vec![1; 100].into());
        }
        assert!(cache.bytes() <= 1 << 20, "{cache:?}");
        cache.put_postings(id, 77, vec![5].into());
        assert_eq!(cache.postings(id, 77).unwrap()[..], [5]);
        assert!(cache.series(id, 1 << 30).is_none());
    }
}
