//! Caches of what queries read from indexes: postings lists, expanded postings and series entries, in memory and, behind
//! it, in a cache outside of the process.
//!
//! A block never changes, so nothing is ever wrong or old in here. What the outer cache gives is parsed like what the
//! bucket gives, and what does not parse is a miss.

use std::sync::Arc;

use bytes::Bytes;
use chronolith_cache::GuardedCache;
use chronolith_model::{BlockId, Matcher};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::refs;

/// Names the layout of values, in front of every key of the outer cache.
const LAYOUT: &str = "ch1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Postings(BlockId, u64),
    Series(BlockId, u32),
    Expanded(BlockId, u128),
}

impl Key {
    fn outer(self) -> String {
        match self {
            Key::Postings(block, start) => format!("{LAYOUT}:P:{block}:{start}"),
            Key::Series(block, series) => format!("{LAYOUT}:S:{block}:{series}"),
            Key::Expanded(block, matchers) => format!("{LAYOUT}:E:{block}:{matchers:032x}"),
        }
    }

    const fn item_type(self) -> &'static str {
        match self {
            Key::Postings(..) => "Postings",
            Key::Series(..) => "Series",
            Key::Expanded(..) => "ExpandedPostings",
        }
    }
}

#[derive(Clone)]
enum Value {
    Refs(Arc<[u32]>),
    /// With the flag whether matchers are still to be checked.
    Expanded(Arc<[u32]>, bool),
    Series(Bytes),
}

impl Value {
    fn outer(&self) -> Bytes {
        match self {
            Value::Refs(list) => refs::encode(&[], list),
            Value::Expanded(list, check) => refs::encode(&[u8::from(*check)], list),
            Value::Series(bytes) => bytes.clone(),
        }
    }

    fn from_outer(key: Key, bytes: Bytes) -> Option<Self> {
        Some(match key {
            Key::Postings(..) => Value::Refs(refs::decode(&bytes)?.into()),
            Key::Expanded(..) => {
                let (check, list) = bytes.split_first()?;
                Value::Expanded(refs::decode(list)?.into(), *check != 0)
            }
            Key::Series(..) => Value::Series(bytes),
        })
    }
}

#[derive(Clone)]
struct Bytesize;

/// What an entry costs beside its payload: key, value, and the cache's own bookkeeping.
const ENTRY_BYTES: u64 = 120;

impl Weighter<Key, Value> for Bytesize {
    fn weight(&self, _: &Key, value: &Value) -> u64 {
        let payload = match value {
            Value::Refs(list) | Value::Expanded(list, _) => size_of_val::<[u32]>(list),
            Value::Series(bytes) => bytes.len(),
        };
        payload as u64 + ENTRY_BYTES
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ItemLabels {
    item_type: &'static str,
}

/// What an [`IndexCache`] keeps. The default is everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedItems {
    /// Postings lists.
    pub postings: bool,
    /// Series entries.
    pub series: bool,
    /// The series that a block has for all matchers of a request.
    pub expanded: bool,
}

impl Default for CachedItems {
    fn default() -> Self {
        CachedItems { postings: true, series: true, expanded: true }
    }
}

/// Postings lists and series entries of all blocks; in memory, bounded in bytes.
pub struct IndexCache {
    cache: Cache<Key, Value, Bytesize>,
    outer: Option<Arc<GuardedCache>>,
    items: CachedItems,
    item_bytes_max: u64,
    requests: Family<ItemLabels, Counter>,
    hits: Family<ItemLabels, Counter>,
}

impl std::fmt::Debug for IndexCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexCache({} of {} bytes)", self.cache.weight(), self.cache.capacity())
    }
}

impl IndexCache {
    /// A cache of at most `bytes_max` in memory.
    pub fn new(bytes_max: u64) -> Self {
        // A series entry with a day of chunks has a few hundred bytes.
        let items = usize::try_from(bytes_max / 512).unwrap_or(usize::MAX).max(16);
        let cache = Cache::with_weighter(items, bytes_max, Bytesize);
        let (requests, hits) = Default::default();
        IndexCache {
            cache,
            outer: None,
            items: CachedItems::default(),
            item_bytes_max: u64::MAX,
            requests,
            hits,
        }
    }

    /// The same cache with another one behind it, which is asked for what is not in memory.
    pub fn with_outer(mut self, outer: Arc<GuardedCache>) -> Self {
        self.outer = Some(outer);
        self
    }

    /// The same cache, keeping only some kinds.
    pub fn with_items(mut self, items: CachedItems) -> Self {
        self.items = items;
        self
    }

    /// The same cache, keeping nothing in memory that is larger.
    pub fn with_item_bytes_max(mut self, bytes_max: u64) -> Self {
        self.item_bytes_max = bytes_max;
        self
    }

    /// Puts requests and hits on a registry, named as in Thanos.
    pub fn register(&self, registry: &mut Registry) {
        let prefix = "thanos_store_index_cache";
        registry.register(format!("{prefix}_requests"), "Requests to the index cache", self.requests.clone());
        registry.register(format!("{prefix}_hits"), "Requests that were hits", self.hits.clone());
    }

    /// Bytes in use, in memory.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    fn keeps(&self, key: Key) -> bool {
        match key {
            Key::Postings(..) => self.items.postings,
            Key::Series(..) => self.items.series,
            Key::Expanded(..) => self.items.expanded,
        }
    }

    /// The values of keys of one kind, in their order.
    async fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let Some(first) = keys.first().filter(|k| self.keeps(**k)) else { return vec![None; keys.len()] };
        let mut values: Vec<Option<Value>> = keys.iter().map(|key| self.cache.get(key)).collect();
        if let Some(outer) = &self.outer {
            let missing: Vec<usize> = (0..keys.len()).filter(|i| values[*i].is_none()).collect();
            let names: Vec<String> = missing.iter().map(|i| keys[*i].outer()).collect();
            for (i, bytes) in missing.into_iter().zip(outer.get(&names).await) {
                if let Some(value) = bytes.and_then(|b| Value::from_outer(keys[i], b)) {
                    self.remember(keys[i], value.clone());
                    values[i] = Some(value);
                }
            }
        }
        let labels = ItemLabels { item_type: first.item_type() };
        let hits = values.iter().flatten().count() as u64;
        self.requests.get_or_create(&labels).inc_by(keys.len() as u64);
        self.hits.get_or_create(&labels).inc_by(hits);
        values
    }

    fn put(&self, key: Key, value: Value) {
        if !self.keeps(key) {
            return;
        }
        if let Some(outer) = &self.outer {
            outer.put(key.outer(), &value.outer());
        }
        self.remember(key, value);
    }

    fn remember(&self, key: Key, value: Value) {
        if Bytesize.weight(&key, &value) <= self.item_bytes_max {
            self.cache.insert(key, value);
        }
    }

    /// True when the list is in memory.
    pub(crate) fn has_postings(&self, block: BlockId, start: u64) -> bool {
        self.cache.contains_key(&Key::Postings(block, start))
    }

    pub(crate) async fn postings(&self, block: BlockId, starts: &[u64]) -> Vec<Option<Arc<[u32]>>> {
        let keys: Vec<Key> = starts.iter().map(|start| Key::Postings(block, *start)).collect();
        let list = |value| match value {
            Some(Value::Refs(list)) => Some(list),
            _ => None,
        };
        self.get(&keys).await.into_iter().map(list).collect()
    }

    pub(crate) fn put_postings(&self, block: BlockId, start: u64, list: Arc<[u32]>) {
        self.put(Key::Postings(block, start), Value::Refs(list));
    }

    pub(crate) async fn series(&self, block: BlockId, refs: &[u32]) -> Vec<Option<Bytes>> {
        let keys: Vec<Key> = refs.iter().map(|series| Key::Series(block, *series)).collect();
        let entry = |value| match value {
            Some(Value::Series(bytes)) => Some(bytes),
            _ => None,
        };
        self.get(&keys).await.into_iter().map(entry).collect()
    }

    pub(crate) fn put_series(&self, block: BlockId, series: u32, entry: &[u8]) {
        // A copy: a slice would keep alive the whole range that it was read with.
        self.put(Key::Series(block, series), Value::Series(Bytes::copy_from_slice(entry)));
    }

    /// The series that the block has for all matchers, and whether these are still to be checked on their labels.
    pub(crate) async fn expanded(&self, block: BlockId, matchers: &[Matcher]) -> Option<(Arc<[u32]>, bool)> {
        match self.get(&[Key::Expanded(block, digest(matchers))]).await.pop().flatten()? {
            Value::Expanded(list, check) => Some((list, check)),
            _ => None,
        }
    }

    pub(crate) fn put_expanded(&self, block: BlockId, matchers: &[Matcher], list: &[u32], check: bool) {
        self.put(Key::Expanded(block, digest(matchers)), Value::Expanded(list.into(), check));
    }
}

/// The same for the same matchers in any order.
fn digest(matchers: &[Matcher]) -> u128 {
    let mut texts: Vec<String> = matchers.iter().map(|m| format!("{m:?}")).collect();
    texts.sort_unstable();
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let digest = hash.finalize();
    u128::from_be_bytes(digest[..16].try_into().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_holds() {
        let cache = IndexCache::new(1 << 20);
        let id = BlockId(1u128.into());
        for i in 0..10_000 {
            cache.put_series(id, i, &[0; 1000]);
            cache.put_postings(id, u64::from(i), vec![1; 100].into());
        }
        assert!(cache.bytes() <= 1 << 20, "{cache:?}");
        cache.put_postings(id, 77, vec![5].into());
        assert_eq!(cache.postings(id, &[77]).await[0].as_ref().unwrap()[..], [5]);
        assert_eq!(cache.series(id, &[1 << 30, 9999]).await, [None, Some(Bytes::from(vec![0; 1000]))]);
    }

    #[tokio::test]
    async fn kinds_that_are_not_wanted_are_not_kept() {
        let items = CachedItems { series: false, ..CachedItems::default() };
        let cache = IndexCache::new(1 << 20).with_items(items);
        let id = BlockId(1u128.into());
        cache.put_series(id, 1, b"x");
        assert_eq!(cache.series(id, &[1]).await, [None]);
        let m = |name: &str, value: &str| Matcher::equal(name, value);
        cache.put_expanded(id, &[m("a", "b"), m("c", "d")], &[1, 2], true);
        let (list, check) = cache.expanded(id, &[m("c", "d"), m("a", "b")]).await.unwrap();
        assert_eq!((&list[..], check), (&[1, 2][..], true));
        assert!(cache.expanded(id, &[m("a", "b")]).await.is_none());
        assert!(cache.expanded(id, &[m("a", "bc"), m("", "d")]).await.is_none());
    }

    #[test]
    fn what_the_outer_cache_holds_is_read_back() {
        let id = BlockId(1u128.into());
        let list: Arc<[u32]> = vec![1, 5, 70_000, u32::MAX].into();
        for (key, value) in [
            (Key::Postings(id, 1), Value::Refs(list.clone())),
            (Key::Expanded(id, 1), Value::Expanded(list.clone(), true)),
        ] {
            let outer = value.outer();
            match Value::from_outer(key, outer.clone()).unwrap() {
                Value::Refs(l) | Value::Expanded(l, true) => assert_eq!(l, list),
                _ => panic!("another kind"),
            }
            assert!(Value::from_outer(key, outer.slice(..outer.len() - 1)).is_none());
        }
        assert!(Value::from_outer(Key::Expanded(id, 1), Bytes::new()).is_none());
    }
}
