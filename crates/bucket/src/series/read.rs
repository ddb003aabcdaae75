//! From references to series: entries by joined ranges, then chunks by joined ranges, batch by batch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chronolith_chunk::{AggrChunk, Aggregate, Chunk, ChunkError, Encoding};
use chronolith_model::Labels;
use chronolith_tsdb::block::{chunk_entry_bytes, parse_chunk};
use chronolith_tsdb::index::{ChunkMeta, SeriesRecord, SymbolCache};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use super::ranges::{Part, join};
use super::{BlockSeries, BucketBlock, CONCURRENT_REQUESTS, Held, RANGE_BYTES_MAX, SelectRequest};
use crate::deletions::hides_chunk;
use crate::run_cache::{RUN_BYTES_MAX, RunKey};
use crate::upload::joined;
use crate::{Error, IndexHeader, Result, layout};

/// References whose entries are read together: enough to join ranges, few enough (some hundred KiB) to begin the
/// answer soon.
pub(super) const SERIES_BATCH: usize = 2000;
/// Series entries further apart than this are separate requests.
const SERIES_GAP_BYTES_MAX: u64 = 128 << 10;
/// Size of an entry of which nothing is known; Thanos's figure.
const SERIES_BYTES_GUESS: u64 = 64 << 10;
/// Chunks further apart than this are separate requests; Thanos's figure.
const CHUNK_GAP_BYTES_MAX: u64 = 512 << 10;
/// Size of a chunk of which nothing is known; Thanos's figure.
const CHUNK_BYTES_GUESS: u64 = 16_000;
/// Number of series handed on at once.
const BATCH_SERIES: usize = 512;
/// Batches in the making at once, of series, and of chunks where few blocks are read: one is read while another is consumed.
const BATCHES_AHEAD: usize = 2;
/// An entry or chunk larger than this is damage, not data.
const ITEM_BYTES_MAX: u64 = 64 << 20;

/// A decoded series whose chunks are still in the bucket.
pub(super) struct Pending {
    pub(super) series: u32,
    pub(super) labels: Labels,
    pub(super) chunks: Vec<ChunkMeta>,
}

/// A chunk that is to be read: its place in the batch and in its segment.
struct Wanted {
    series: usize,
    nth: usize,
    start: u64,
    meta: ChunkMeta,
}

/// One selection under way.
pub(super) struct Reader {
    pub(super) block: Arc<BucketBlock>,
    pub(super) header: Arc<IndexHeader>,
    pub(super) request: Arc<SelectRequest>,
    pub(super) refs: Vec<u32>,
    pub(super) check_labels: bool,
    /// The series that the mask hides are wanted, instead of the others.
    pub(super) hidden: bool,
}

impl Reader {
    pub(super) fn stream(self) -> BoxStream<'static, Result<Vec<BlockSeries>>> {
        let reader = Arc::new(self);
        let starts = (0..reader.refs.len()).step_by(SERIES_BATCH);
        let batches: Vec<_> = starts.map(|s| s..reader.refs.len().min(s + SERIES_BATCH)).collect();
        let is_one_of_few = reader.request.batch_bytes >= SelectRequest::BATCH_BYTES_MAX;
        let chunks_ahead = if is_one_of_few { BATCHES_AHEAD } else { 1 };
        let (for_series, for_split, for_chunks) = (reader.clone(), reader.clone(), reader);
        futures::stream::iter(batches)
            .map(move |batch| {
                let reader = for_series.clone();
                async move { reader.load_series(batch).await }
            })
            .buffered(BATCHES_AHEAD)
            .map_ok(move |pending| futures::stream::iter(for_split.split(pending)).map(Ok))
            .try_flatten()
            .map_ok(move |batch| {
                let reader = for_chunks.clone();
                async move { reader.load_chunks(batch).await }
            })
            .try_buffered(chunks_ahead)
            // Handed on, a batch is the consumer's.
            .map_ok(|(batch, _held)| batch)
            .try_filter(|batch| futures::future::ready(!batch.is_empty()))
            .boxed()
    }

    fn series_bytes_guess(&self) -> u64 {
        match self.block.meta.thanos.as_ref().map_or(0, |t| t.index_stats.series_max_size) {
            0 => SERIES_BYTES_GUESS,
            // Padding and, in other writers' figures, the length field are on top.
            known => (known + 32).min(SERIES_BYTES_GUESS),
        }
    }

    fn chunk_bytes_guess(&self) -> u64 {
        match self.block.meta.thanos.as_ref().map_or(0, |t| t.index_stats.chunk_max_size) {
            0 => CHUNK_BYTES_GUESS,
            known => (known + 16).min(CHUNK_BYTES_GUESS),
        }
    }

    /// Takes what joined ranges will read out of the request's limits and the process's budget.
    fn charge(&self, parts: &[Part]) -> Result<Held> {
        let (block, limiter) = (self.block.meta.ulid, &self.request.limiter);
        let bytes = parts.iter().map(|part| part.end - part.start).sum();
        limiter.bytes(block, bytes)?;
        limiter.hold(block, bytes)
    }

    /// Fetches one joined range, which was charged for.
    async fn fetch(&self, key: &str, part: &Part, chunks: bool) -> Result<Bytes> {
        let (block, stats) = (&self.block, &self.request.stats);
        let fetch = |range: Range<u64>| async move {
            let bytes = block.bucket.get_range(key, range).await?;
            let counter = if chunks { &stats.chunks } else { &stats.series };
            counter.add(bytes.len() as u64);
            Ok::<_, Error>(bytes)
        };
        match block.chunk_cache.as_ref().filter(|_| chunks) {
            Some(cache) => cache.read(key, part.start..part.end, fetch).await,
            None => fetch(part.start..part.end).await,
        }
    }

    /// The bytes of an item that turned out to be longer than what was read of it.
    async fn fetch_one(&self, key: &str, start: u64, bytes: u64, chunk: bool) -> Result<Bytes> {
        if bytes > ITEM_BYTES_MAX {
            return Err(Error::corrupt(key, start, format!("an entry of {bytes} bytes")));
        }
        let part = Part { start, end: start + bytes, first: 0, last: 0 };
        let _held = self.charge(std::slice::from_ref(&part))?;
        self.fetch(key, &part, chunk).await
    }

    pub(super) async fn load_series(&self, batch: Range<usize>) -> Result<Vec<Pending>> {
        let (header, block) = (&self.header, self.block.meta.ulid);
        let refs = &self.refs[batch];
        let cache = self.block.cache.as_ref();
        let mut entries: Vec<Option<Bytes>> = match cache {
            Some(cache) => cache.series(block, refs).await,
            None => vec![None; refs.len()],
        };
        let mut missing = Vec::new();
        let guess = self.series_bytes_guess();
        for (i, _) in entries.iter().enumerate().filter(|(_, e)| e.is_none()) {
            let (start, end) = header.series_place(refs[i])?;
            missing.push((i, start, end.min(start + guess)));
        }
        let parts = join(missing.iter().map(|(_, s, e)| (*s, *e)), SERIES_GAP_BYTES_MAX, RANGE_BYTES_MAX);
        let _held = self.charge(&parts)?;
        let fetches = futures::stream::iter(parts).map(|part| async move {
            let bytes = self.fetch(header.index_key(), &part, false).await?;
            Ok::<_, Error>((part, bytes))
        });
        let fetched: Vec<_> = fetches.buffered(CONCURRENT_REQUESTS).try_collect().await?;
        for (part, bytes) in fetched {
            for (i, start, _) in &missing[part.first..=part.last] {
                let at = ((start - part.start) as usize).min(bytes.len());
                let entry = self.whole_entry(*start, bytes.slice(at..)).await?;
                if let Some(cache) = cache {
                    cache.put_series(block, refs[*i], &entry);
                }
                entries[*i] = Some(entry);
            }
        }
        let (mut record, mut symbols) = (SeriesRecord::default(), SymbolCache::default());
        let mut out = Vec::with_capacity(refs.len());
        for (i, entry) in entries.iter().enumerate() {
            let entry = entry.as_ref().expect("each entry was cached or fetched");
            let (offset, _) = header.series_place(refs[i])?;
            record.decode(header.index_key(), offset, entry, self.request.range)?;
            // Of what a mask concerns, nothing is left where it has nothing in the range.
            if record.chunks.is_empty() && !self.hidden {
                continue;
            }
            let labels = header.labels(&record, &mut symbols)?;
            if self.check_labels {
                let matchers = &self.request.matchers;
                if !matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or_default())) {
                    continue;
                }
                self.request.limiter.series(block, 1)?;
            }
            let mut chunks = record.chunks.clone();
            if let Some(mask) = &self.request.mask {
                let lost = mask.lost(&labels);
                let hides = |c: &ChunkMeta| hides_chunk(&lost, c.range(), self.request.range);
                if self.hidden {
                    if lost.is_empty() || !chunks.iter().all(hides) {
                        continue;
                    }
                } else if !lost.is_empty() {
                    chunks.retain(|c| !hides(c));
                    if chunks.is_empty() {
                        continue;
                    }
                }
            }
            out.push(Pending { series: refs[i], labels, chunks });
        }
        let touched = &self.request.stats.series_touched;
        touched.fetch_add(refs.len() as u64, Ordering::Relaxed);
        Ok(out)
    }

    /// The entry at the start of `bytes`, read again where the guess was too short.
    async fn whole_entry(&self, start: u64, bytes: Bytes) -> Result<Bytes> {
        let key = self.header.index_key();
        let need = SeriesRecord::entry_bytes(key, start, &bytes)?;
        match usize::try_from(need) {
            Ok(need) if need <= bytes.len() => Ok(bytes.slice(..need)),
            _ => self.fetch_one(key, start, need, false).await,
        }
    }

    /// Cuts series into batches by the bytes of their chunks.
    fn split(&self, pending: Vec<Pending>) -> Vec<Vec<Pending>> {
        let guess = self.chunk_bytes_guess();
        let mut batches = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for series in pending {
            let own: u64 = chunk_lengths(&series.chunks, guess).sum();
            if !batch.is_empty() && (bytes + own > self.request.batch_bytes || batch.len() == BATCH_SERIES) {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += own;
            batch.push(series);
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        batches
    }

    /// The series with their chunks, and what they hold of the budget.
    async fn load_chunks(self: Arc<Self>, batch: Vec<Pending>) -> Result<(Vec<BlockSeries>, Vec<Held>)> {
        if self.request.skip_chunks {
            let bare = batch.into_iter().map(|p| BlockSeries { labels: p.labels, chunks: Vec::new() });
            return Ok((bare.collect(), Vec::new()));
        }
        let guess = self.chunk_bytes_guess();
        let cache = self.block.run_cache.as_ref();
        let key =
            |series: &Pending| RunKey::new(self.block.meta.ulid, &series.chunks, self.request.aggregates);
        let keys: Vec<Option<RunKey>> = batch.iter().map(key).collect();
        let cached = keys.iter().map(|key| cache?.get(key.as_ref()?)).collect::<Vec<_>>();
        // (segment, offset, guessed length, place in the answer)
        let mut wanted = Vec::new();
        for (s, series) in batch.iter().enumerate().filter(|(s, _)| cached[*s].is_none()) {
            for (c, (meta, len)) in series.chunks.iter().zip(chunk_lengths(&series.chunks, guess)).enumerate()
            {
                let (segment, offset) = meta.place();
                wanted.push((segment, offset as u64, len, (s, c)));
            }
        }
        let count = batch.iter().map(|series| series.chunks.len() as u64).sum();
        self.request.limiter.chunks(self.block.meta.ulid, count)?;
        self.request.stats.chunks_touched.fetch_add(count, Ordering::Relaxed);
        wanted.sort_unstable();
        let places =
            |(p, run): (&Pending, &Option<_>)| vec![None; if run.is_some() { 0 } else { p.chunks.len() }];
        let mut chunks: Vec<Vec<Option<Chunk>>> = batch.iter().zip(&cached).map(places).collect();
        let mut held = Vec::new();
        for of_segment in wanted.chunk_by(|a, b| a.0 == b.0) {
            let key: Arc<str> = layout::segment_key(self.block.meta.ulid, of_segment[0].0).into();
            let spans = of_segment.iter().map(|(_, start, len, _)| (*start, start + len));
            let parts = join(spans, CHUNK_GAP_BYTES_MAX, RANGE_BYTES_MAX);
            held.push(self.charge(&parts)?);
            let mut parts = parts.into_iter();
            let mut reads = JoinSet::new();
            loop {
                while reads.len() < CONCURRENT_REQUESTS
                    && let Some(part) = parts.next()
                {
                    let wanted = of_segment[part.first..=part.last].iter().map(|&(_, start, _, (s, c))| {
                        Wanted { series: s, nth: c, start, meta: batch[s].chunks[c] }
                    });
                    reads.spawn(self.clone().read_part(key.clone(), part, wanted.collect()));
                }
                let Some(read) = reads.join_next().await else { break };
                for (wanted, chunk) in joined(read)? {
                    chunks[wanted.series][wanted.nth] = Some(chunk);
                }
            }
        }
        let mut series = Vec::with_capacity(batch.len());
        for (((pending, chunks), run), key) in batch.into_iter().zip(chunks).zip(cached).zip(keys) {
            let chunks = match &run {
                Some(run) => run.to_vec(),
                None => chunks.into_iter().map(|c| c.expect("each chunk was fetched")).collect(),
            };
            if let (Some(cache), Some(key), None) = (cache, key, &run) {
                cache.put(key, &chunks);
            }
            series.push(BlockSeries { labels: pending.labels, chunks });
        }
        Ok((series, held))
    }

    /// Reads one joined range and what is wanted of it. A task of its own: whoever holds a part of what may be under way must get on
    /// while nobody takes the batches of its block.
    async fn read_part(
        self: Arc<Self>,
        key: Arc<str>,
        part: Part,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<(Wanted, Chunk)>> {
        let _under_way = self.request.limiter.under_way(part.end - part.start).await;
        let bytes = self.fetch(&key, &part, true).await?;
        let mut out = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let at = ((wanted.start - part.start) as usize).min(bytes.len());
            let chunk = self.whole_chunk(&key, wanted.start, bytes.slice(at..), wanted.meta).await?;
            out.push((wanted, chunk));
        }
        self.cut_down(&key, &bytes, &mut out)?;
        Ok(out)
    }

    /// Copies what is wanted out of a range, where that is a small part of it or may be kept: a slice would keep alive the range.
    /// A series gets memory of its own.
    fn cut_down(&self, key: &str, range: &Bytes, chunks: &mut [(Wanted, Chunk)]) -> Result<()> {
        let wanted: usize = chunks.iter().map(|(_, chunk)| chunk.data.len()).sum();
        let picks = self.request.aggregates != [true; 5];
        for run in chunks.chunk_by_mut(|a, b| a.0.series == b.0.series) {
            let bytes: usize = run.iter().map(|(_, chunk)| chunk.data.len()).sum();
            let is_kept = self.block.run_cache.is_some() && bytes <= RUN_BYTES_MAX;
            let picks = picks && run.iter().any(|(_, chunk)| chunk.encoding == Encoding::Aggregate);
            if !picks && !is_kept && wanted > range.len() / 2 {
                continue;
            }
            let (mut own, mut ends) = (Vec::with_capacity(bytes), Vec::with_capacity(run.len()));
            for (wanted, chunk) in run.iter() {
                if picks && chunk.encoding == Encoding::Aggregate {
                    let picked = pick(chunk, self.request.aggregates);
                    let picked = picked.map_err(|e| Error::corrupt(key, wanted.start, e.to_string()))?;
                    own.extend_from_slice(&picked);
                } else {
                    own.extend_from_slice(&chunk.data);
                }
                ends.push(own.len());
            }
            let own = Bytes::from(own.into_boxed_slice());
            let mut from = 0;
            for ((_, chunk), end) in run.iter_mut().zip(ends) {
                chunk.data = own.slice(from..end);
                from = end;
            }
        }
        Ok(())
    }

    async fn whole_chunk(&self, key: &str, start: u64, mut bytes: Bytes, meta: ChunkMeta) -> Result<Chunk> {
        let need = chunk_entry_bytes(key, start, &bytes)?;
        if need > bytes.len() as u64 {
            bytes = self.fetch_one(key, start, need, true).await?;
        }
        let (encoding, data) = parse_chunk(key, start, &bytes)?;
        Ok(Chunk { mint: meta.mint, maxt: meta.maxt, encoding, data })
    }
}

/// An aggregate chunk's data with the wanted aggregates only, for readers within the process: Thanos needs the counter in any case.
fn pick(chunk: &Chunk, wanted: [bool; 5]) -> std::result::Result<Bytes, ChunkError> {
    let (whole, mut picked) = (AggrChunk::parse(&chunk.data)?, AggrChunk::default());
    for part in Aggregate::ALL.into_iter().filter(|part| wanted[*part as usize]) {
        if let Some(Chunk { encoding, data, .. }) = whole.get(part, chunk.mint, chunk.maxt) {
            picked = picked.with(part, encoding, data);
        }
    }
    Ok(picked.to_bytes())
}

/// Lengths of a series' chunks: up to the next one where that follows in the same segment, else the guess.
fn chunk_lengths(chunks: &[ChunkMeta], guess: u64) -> impl Iterator<Item = u64> + '_ {
    chunks.iter().enumerate().map(move |(i, chunk)| {
        let next = chunks.get(i + 1).map(|n| n.chunk_ref.wrapping_sub(chunk.chunk_ref));
        // Written in order, a series' chunks lie one behind the other; other writers may leave others in between.
        next.filter(|len| (1..1 << 20).contains(len)).unwrap_or(guess)
    })
}
