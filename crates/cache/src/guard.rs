//! A cache that never fails and never makes its readers wait for long.
//!
//! Reads have a deadline; after some failures in a row the backend is left alone for a while, and then tried with one read.
//! Writes go through a bounded queue and are dropped when it is full. Values carry a checksum over key and value, so that
//! damage, and what others wrote under the same key, is a miss.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

use crate::SharedBackend;

/// Bytes in front of each value: the checksum.
const HEAD_BYTES: usize = 8;
/// Items written with one call.
const PUT_ITEMS_MAX: usize = 100;

/// Bounds of a [`GuardedCache`].
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// The longest that a read waits.
    pub get_timeout: Duration,
    /// The longest that a write takes before its items are given up.
    pub put_timeout: Duration,
    /// Items that wait for being written.
    pub queue_items_max: usize,
    /// Writes at a time.
    pub put_concurrency: usize,
    /// Values larger than this are not kept.
    pub item_bytes_max: usize,
    /// Reads that fail in a row before the backend is left alone.
    pub failures_max: u32,
    /// How long it is left alone.
    pub pause: Duration,
}

impl Default for GuardOptions {
    fn default() -> Self {
        GuardOptions {
            get_timeout: Duration::from_millis(500),
            put_timeout: Duration::from_secs(5),
            queue_items_max: 10_000,
            put_concurrency: 20,
            item_bytes_max: 1 << 20,
            failures_max: 5,
            pause: Duration::from_secs(5),
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NameLabels {
    name: &'static str,
}

/// What the caches of a process do. The label `name` tells them apart.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    requests: Family<NameLabels, Counter>,
    hits: Family<NameLabels, Counter>,
    failures: Family<NameLabels, Counter>,
    skipped: Family<NameLabels, Counter>,
    damaged: Family<NameLabels, Counter>,
    dropped: Family<NameLabels, Counter>,
}

impl CacheMetrics {
    /// Makes the metrics and puts them on `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let m = CacheMetrics::default();
        let mut put = |name: &str, help: &str, family: &Family<NameLabels, Counter>| {
            registry.register(format!("chronolith_cache_{name}"), help, family.clone());
        };
        put("requests", "Values asked of a cache outside of the process", &m.requests);
        put("hits", "Values that it had", &m.hits);
        put("failures", "Reads and writes that failed or took too long", &m.failures);
        put("skipped", "Values not asked for, as the cache had failed before", &m.skipped);
        put("damaged", "Values that came back damaged", &m.damaged);
        put("dropped", "Values not kept: the queue of writes was full, or the value too large", &m.dropped);
        m
    }

    fn add(&self, family: &Family<NameLabels, Counter>, name: &'static str, n: usize) {
        if n > 0 {
            family.get_or_create(&NameLabels { name }).inc_by(n as u64);
        }
    }
}

/// A backend behind bounds.
#[derive(Debug)]
pub struct GuardedCache {
    name: &'static str,
    backend: SharedBackend,
    options: GuardOptions,
    metrics: CacheMetrics,
    failures: AtomicU32,
    paused_until: Mutex<Option<Instant>>,
    queue: mpsc::Sender<(String, Bytes)>,
}

impl GuardedCache {
    /// A cache, and the task that writes to it until the cache is dropped. Call inside of a runtime.
    pub fn start(
        name: &'static str,
        backend: SharedBackend,
        options: GuardOptions,
        metrics: CacheMetrics,
    ) -> Arc<Self> {
        let (queue, items) = mpsc::channel(options.queue_items_max.max(1));
        tokio::spawn(write(name, backend.clone(), items, options.clone(), metrics.clone()));
        let (failures, paused_until) = (AtomicU32::new(0), Mutex::new(None));
        Arc::new(GuardedCache { name, backend, options, metrics, failures, paused_until, queue })
    }

    /// The values of keys, in their order. Whatever goes wrong is a miss.
    pub async fn get(&self, keys: &[String]) -> Vec<Option<Bytes>> {
        let none = || vec![None; keys.len()];
        if keys.is_empty() || self.is_paused() {
            self.metrics.add(&self.metrics.skipped, self.name, keys.len());
            return none();
        }
        self.metrics.add(&self.metrics.requests, self.name, keys.len());
        let read = tokio::time::timeout(self.options.get_timeout, self.backend.get(keys));
        let values = match read.await {
            Ok(Ok(values)) if values.len() == keys.len() => values,
            Ok(Ok(_)) => return self.failed("another number of values than keys", none()),
            Ok(Err(err)) => return self.failed(&err.to_string(), none()),
            Err(_) => return self.failed("no answer in time", none()),
        };
        self.failures.store(0, Ordering::Relaxed);
        let (mut hits, mut damaged) = (0, 0);
        let opened = keys.iter().zip(values).map(|(key, value)| {
            let value = value?;
            let opened = open(key, value);
            *(if opened.is_some() { &mut hits } else { &mut damaged }) += 1;
            opened
        });
        let opened = opened.collect();
        self.metrics.add(&self.metrics.hits, self.name, hits);
        self.metrics.add(&self.metrics.damaged, self.name, damaged);
        opened
    }

    /// Offers a value. Returns at once.
    pub fn put(&self, key: String, value: &[u8]) {
        let fits = value.len() + HEAD_BYTES <= self.options.item_bytes_max;
        if !fits || self.queue.try_send((key.clone(), seal(&key, value))).is_err() {
            self.metrics.add(&self.metrics.dropped, self.name, 1);
        }
    }

    fn is_paused(&self) -> bool {
        let mut until = self.paused_until.lock();
        match *until {
            Some(end) if Instant::now() < end => true,
            Some(_) => {
                // One reader tries; until it knows, the others wait for the next pause to end.
                *until = Some(Instant::now() + self.options.get_timeout);
                self.failures.store(self.options.failures_max.saturating_sub(1), Ordering::Relaxed);
                false
            }
            None => false,
        }
    }

    fn failed(&self, why: &str, none: Vec<Option<Bytes>>) -> Vec<Option<Bytes>> {
        self.metrics.add(&self.metrics.failures, self.name, 1);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(cache = self.name, why, failures, "cache not read");
        if failures >= self.options.failures_max {
            let mut until = self.paused_until.lock();
            if until.is_none() {
                tracing::warn!(cache = self.name, why, "cache fails and is left alone for a while");
            }
            *until = Some(Instant::now() + self.options.pause);
        }
        none
    }
}

fn checksum(key: &str, value: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(key.as_bytes());
    hash.update(value);
    hash.digest()
}

fn seal(key: &str, value: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_BYTES + value.len());
    out.put_u64(checksum(key, value));
    out.put_slice(value);
    out.freeze()
}

fn open(key: &str, sealed: Bytes) -> Option<Bytes> {
    let (head, value) = sealed.split_first_chunk::<HEAD_BYTES>()?;
    (u64::from_be_bytes(*head) == checksum(key, value)).then(|| sealed.slice(HEAD_BYTES..))
}

async fn write(
    name: &'static str,
    backend: SharedBackend,
    mut items: mpsc::Receiver<(String, Bytes)>,
    options: GuardOptions,
    metrics: CacheMetrics,
) {
    let running = Arc::new(tokio::sync::Semaphore::new(options.put_concurrency.max(1)));
    let mut batch = Vec::with_capacity(PUT_ITEMS_MAX);
    while items.recv_many(&mut batch, PUT_ITEMS_MAX).await > 0 {
        let batch = std::mem::replace(&mut batch, Vec::with_capacity(PUT_ITEMS_MAX));
        let permit = running.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (backend, metrics, timeout) = (backend.clone(), metrics.clone(), options.put_timeout);
        tokio::spawn(async move {
            let _permit = permit;
            let why = match tokio::time::timeout(timeout, backend.put(batch)).await {
                Ok(Ok(())) => return,
                Ok(Err(err)) => err.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            metrics.add(&metrics.failures, name, 1);
            tracing::debug!(cache = name, why, "cache not written");
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    use async_trait::async_trait;

    use super::*;
    use crate::{Backend, CacheError};

    #[derive(Debug, Default)]
    struct Map {
        values: Mutex<HashMap<String, Bytes>>,
        reads: AtomicU32,
        hangs: AtomicBool,
        fails: AtomicBool,
    }

    #[async_trait]
    impl Backend for Map {
        async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.fails.load(Ordering::SeqCst) {
                return Err(CacheError::Protocol("broken".to_owned()));
            }
            let values = self.values.lock();
            Ok(keys.iter().map(|k| values.get(k).cloned()).collect())
        }

        async fn put(&self, items: Vec<(String, Bytes)>) -> Result<(), CacheError> {
            self.values.lock().extend(items);
            Ok(())
        }
    }

    fn keys(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("k{i}")).collect()
    }

    async fn wait_for(test: impl Fn() -> bool) {
        while !test() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn values_come_back_and_damage_is_a_miss() {
        let map = Arc::new(Map::default());
        let options = GuardOptions { item_bytes_max: 100, ..GuardOptions::default() };
        let cache = GuardedCache::start("test", map.clone(), options, CacheMetrics::default());
        for key in keys(3) {
            cache.put(key.clone(), key.as_bytes());
        }
        cache.put("large".to_owned(), &[0; 100]);
        wait_for(|| map.values.lock().len() == 3).await;
        let swapped = map.values.lock()["k0"].clone();
        map.values.lock().insert("k1".to_owned(), swapped);
        let got = cache.get(&keys(4)).await;
        assert_eq!(got, [Some(Bytes::from("k0")), None, Some(Bytes::from("k2")), None]);
        assert!(cache.get(&["large".to_owned()]).await[0].is_none());
    }

    #[tokio::test]
    async fn a_backend_that_hangs_or_fails_is_left_alone_for_a_while() {
        for hangs in [true, false] {
            let map = Arc::new(Map::default());
            let pause = Duration::from_millis(200);
            let get_timeout = Duration::from_millis(10);
            let options = GuardOptions { get_timeout, pause, failures_max: 3, ..GuardOptions::default() };
            let cache = GuardedCache::start("test", map.clone(), options, CacheMetrics::default());
            map.hangs.store(hangs, Ordering::SeqCst);
            map.fails.store(!hangs, Ordering::SeqCst);
            for _ in 0..100 {
                assert_eq!(cache.get(&keys(1)).await, [None]);
            }
            let reads = map.reads.load(Ordering::SeqCst);
            assert!((3..20).contains(&reads), "{reads} reads of a broken cache");
            map.hangs.store(false, Ordering::SeqCst);
            map.fails.store(false, Ordering::SeqCst);
            cache.put("k0".to_owned(), b"back");
            while cache.get(&keys(1)).await != [Some(Bytes::from("back"))] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn the_queue_of_writes_is_bounded() {
        let map = Arc::new(Map::default());
        let options = GuardOptions { queue_items_max: 10, ..GuardOptions::default() };
        let metrics = CacheMetrics::default();
        let cache = GuardedCache::start("test", map.clone(), options, metrics.clone());
        // Nothing is written before this task waits.
        for key in keys(50) {
            cache.put(key, b"x");
        }
        assert_eq!(metrics.dropped.get_or_create(&NameLabels { name: "test" }).get(), 40);
        wait_for(|| map.values.lock().len() == 10).await;
    }
}
