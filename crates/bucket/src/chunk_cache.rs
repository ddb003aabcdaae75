//! A cache of pieces of chunk segments.
//!
//! Segments are cut into pieces of equal size, so that requests for different ranges meet in the same pieces. A read takes
//! the pieces that are there and asks the bucket for the runs in between, few of them; where a segment ends inside of a piece,
//! the piece is short.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use chronolith_cache::GuardedCache;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Settings of a [`ChunkCache`]; the names and figures are Thanos's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkCacheOptions {
    /// `chunk_subrange_size`: bytes of a piece.
    pub piece_bytes: u64,
    /// `max_chunks_get_range_requests`: requests to the bucket for one read.
    pub requests_max: usize,
}

impl Default for ChunkCacheOptions {
    fn default() -> Self {
        ChunkCacheOptions { piece_bytes: 16_000, requests_max: 3 }
    }
}

/// What an entry costs beside its payload.
const ENTRY_BYTES: u64 = 200;

#[derive(Clone)]
struct Bytesize;

impl Weighter<String, Bytes> for Bytesize {
    fn weight(&self, key: &String, value: &Bytes) -> u64 {
        (key.len() + value.len()) as u64 + ENTRY_BYTES
    }
}

/// Pieces of chunk segments, in memory or outside of the process.
pub struct ChunkCache {
    memory: Option<Cache<String, Bytes, Bytesize>>,
    outer: Option<Arc<GuardedCache>>,
    options: ChunkCacheOptions,
    requests: Counter,
    hits: Counter,
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkCache({} bytes in memory)", self.bytes())
    }
}

impl ChunkCache {
    /// A cache in memory.
    pub fn in_memory(bytes_max: u64, options: ChunkCacheOptions) -> Self {
        let items = usize::try_from(bytes_max / options.piece_bytes.max(1)).unwrap_or(usize::MAX).max(16);
        let memory = Some(Cache::with_weighter(items, bytes_max, Bytesize));
        ChunkCache { memory, outer: None, options, requests: Counter::default(), hits: Counter::default() }
    }

    /// A cache outside of the process.
    pub fn outer(outer: Arc<GuardedCache>, options: ChunkCacheOptions) -> Self {
        let (requests, hits) = Default::default();
        ChunkCache { memory: None, outer: Some(outer), options, requests, hits }
    }

    /// Puts requests and hits on a registry.
    pub fn register(&self, registry: &mut Registry) {
        let prefix = "chronolith_store_chunk_cache";
        registry.register(
            format!("{prefix}_requests"),
            "Pieces of segments asked of the cache",
            self.requests.clone(),
        );
        registry.register(format!("{prefix}_hits"), "Those that it had", self.hits.clone());
    }

    /// Bytes in use, in memory.
    pub fn bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, |m| m.weight())
    }

    async fn pieces(&self, keys: &[String]) -> Vec<Option<Bytes>> {
        let pieces = match (&self.memory, &self.outer) {
            (Some(memory), _) => keys.iter().map(|key| memory.get(key)).collect(),
            (None, Some(outer)) => outer.get(keys).await,
            (None, None) => vec![None; keys.len()],
        };
        self.requests.inc_by(keys.len() as u64);
        self.hits.inc_by(pieces.iter().flatten().count() as u64);
        pieces
    }

    fn put(&self, key: String, piece: &[u8]) {
        if let Some(memory) = &self.memory {
            // A copy: a slice would keep alive the whole range that it was read with.
            memory.insert(key, Bytes::copy_from_slice(piece));
        } else if let Some(outer) = &self.outer {
            outer.put(key, piece);
        }
    }

    /// The bytes of `range` that the object has, fewer than asked for only where it ends before. `fetch` reads from the
    /// bucket and answers in the same way.
    pub(crate) async fn read<E, F: Future<Output = Result<Bytes, E>>>(
        &self,
        object: &str,
        range: Range<u64>,
        fetch: impl Fn(Range<u64>) -> F,
    ) -> Result<Bytes, E> {
        let size = self.options.piece_bytes.max(1);
        let first = range.start / size;
        let keys: Vec<String> =
            (first..range.end.div_ceil(size)).map(|n| format!("ch1:C:{object}:{size}:{n}")).collect();
        let mut pieces = self.pieces(&keys).await;
        // Behind a short piece there is nothing.
        if let Some(last) = pieces.iter().position(|p| p.as_ref().is_some_and(|p| (p.len() as u64) < size)) {
            pieces.truncate(last + 1);
        }
        let runs = runs(&pieces, self.options.requests_max.max(1));
        let fetches = runs.iter().map(|run| {
            let (start, end) = (first + run.start as u64, first + run.end as u64);
            fetch(start * size..end * size)
        });
        // A run may begin where the object ends, which a bucket refuses; then the range is read as it was asked for.
        let Ok(fetched) = futures::future::try_join_all(fetches).await else { return fetch(range).await };
        for (run, bytes) in runs.iter().zip(&fetched) {
            for (i, n) in run.clone().enumerate() {
                let from = (i as u64 * size).min(bytes.len() as u64) as usize;
                let to = ((i as u64 + 1) * size).min(bytes.len() as u64) as usize;
                if pieces[n].is_none() && from < to {
                    self.put(keys[n].clone(), &bytes[from..to]);
                    pieces[n] = Some(bytes.slice(from..to));
                }
            }
        }
        let offset = (range.start - first * size) as usize;
        let want = (range.end - range.start) as usize;
        if let ([_], [bytes]) = (&runs[..], &fetched[..])
            && runs[0] == (0..pieces.len())
        {
            return Ok(bytes.slice(offset.min(bytes.len())..(offset + want).min(bytes.len())));
        }
        let mut out = BytesMut::with_capacity(want + offset);
        for piece in pieces {
            let Some(piece) = piece else { break };
            out.extend_from_slice(&piece);
        }
        let out = out.freeze();
        Ok(out.slice(offset.min(out.len())..(offset + want).min(out.len())))
    }
}

/// The runs of missing pieces; joined to one when there are more than `max`.
fn runs(pieces: &[Option<Bytes>], max: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (n, _) in pieces.iter().enumerate().filter(|(_, p)| p.is_none()) {
        match runs.last_mut() {
            Some(run) if run.end == n => run.end = n + 1,
            _ => runs.push(n..n + 1),
        }
    }
    while runs.len() > max {
        // The two with the smallest gap between them become one.
        let gap = |i: &usize| runs[i + 1].start - runs[*i].end;
        let at = (0..runs.len() - 1).min_by_key(gap).expect("there are two at least");
        runs[at].end = runs[at + 1].end;
        runs.remove(at + 1);
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use proptest::prelude::*;

    fn object(len: usize) -> Bytes {
        (0..len).map(|i| (i * 7 % 251) as u8).collect::<Vec<_>>().into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_reads_give_the_objects_bytes(
            len in 1usize..300,
            piece_bytes in 1u64..40,
            requests_max in 1usize..4,
            ranges in proptest::collection::vec((0usize..300, 1u64..120), 1..12),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let whole = object(len);
            let cache = ChunkCache::in_memory(1 << 20, ChunkCacheOptions { piece_bytes, requests_max });
            for (start, count) in ranges {
                let start = (start % len) as u64;
                let calls = AtomicUsize::new(0);
                let fetch = |r: Range<u64>| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    let whole = whole.clone();
                    async move {
                        let (from, to) = (r.start as usize, (r.end as usize).min(whole.len()));
                        if from < whole.len() { Ok(whole.slice(from..to)) } else { Err("range behind the end") }
                    }
                };
                let got = runtime.block_on(cache.read("o", start..start + count, fetch)).unwrap();
                let end = (start + count).min(len as u64);
                prop_assert_eq!(&got[..], &whole[start as usize..end as usize]);
                prop_assert!(calls.into_inner() <= requests_max + 1);
            }
        }
    }

    #[test]
    fn runs_are_few() {
        let there = |text: &str| text.bytes().map(|b| (b == b'x').then(Bytes::new)).collect::<Vec<_>>();
        assert!(runs(&there("xx"), 3).is_empty());
        assert_eq!(runs(&there("..x..x.xxx."), 3), [0..5, 6..7, 10..11]);
        let one = runs(&there("..x..x.xxx."), 1);
        assert_eq!((one.len(), one[0].clone()), (1, 0..11));
    }

    #[tokio::test]
    async fn what_was_read_is_not_fetched_again() {
        let whole = object(1000);
        let cache = ChunkCache::in_memory(1 << 20, ChunkCacheOptions { piece_bytes: 100, requests_max: 3 });
        let fetch = |r: Range<u64>| {
            let whole = whole.clone();
            async move { Ok::<_, ()>(whole.slice(r.start as usize..(r.end as usize).min(1000))) }
        };
        cache.read("o", 150..420, fetch).await.unwrap();
        let never = |_: Range<u64>| async { Err::<Bytes, _>("asked the bucket") };
        assert_eq!(cache.read("o", 110..490, never).await.unwrap(), whole.slice(110..490));
        assert!(cache.read("p", 110..490, never).await.is_err(), "another object's");
        assert!(cache.bytes() > 400 && cache.hits.get() == 4);
    }
}
