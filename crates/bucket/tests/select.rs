//! Reading series of blocks in a bucket: what comes back, what it costs, what damage does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chronolith_bucket::{
    BlockSeries, BucketBlock, ErrorKind, IndexCache, Limiter, Limits, RunCache, SelectRequest, UploadOptions,
    layout, upload_block,
};
use chronolith_chunk::{AggrChunk, Aggregate, Chunk};
use chronolith_model::{BlockId, Labels, MatchOp, Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_testkit::series::{counters, labels};
use chronolith_testkit::{FaultyStore, S3Faults, S3Operation, S3Request, S3Server, StoreFaults};
use chronolith_tsdb::block::{Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};
use futures::TryStreamExt;
use tempfile::TempDir;

const T0: i64 = 1_600_000_000_000;
const STEP_MS: i64 = 60_000;

struct Fixture {
    dir: TempDir,
    block_dir: PathBuf,
    meta: Arc<BlockMeta>,
}

impl Fixture {
    /// A local block with these series.
    fn new(series: impl Iterator<Item = (Labels, Vec<Chunk>)>, options: BlockWriterOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = BlockId(((T0 as u128) << 80 | 7).into());
        let options = BlockWriterOptions { sync: false, ..options };
        let mut writer = BlockWriter::create(dir.path(), id, options).unwrap();
        for (labels, chunks) in series {
            writer.add_series(&labels, &chunks).unwrap();
        }
        let thanos = Some(ThanosMeta::new(&labels(&[("cluster", "a")]), "test"));
        let meta = writer.finish(BlockParts { thanos, ..BlockParts::default() }).unwrap().unwrap();
        Fixture { block_dir: dir.path().join(id.to_string()), dir, meta: Arc::new(meta) }
    }

    /// `count` series of each of three metrics over a day.
    fn day(count: usize) -> Self {
        let series = ["a_total", "b_total", "c_total"];
        let series = series.into_iter().flat_map(move |m| counters(m, count, T0, STEP_MS, 1440));
        Self::new(series, BlockWriterOptions::default())
    }

    async fn upload(&self, bucket: &Bucket) {
        upload_block(bucket, &self.block_dir, &self.meta, UploadOptions::default(), T0).await.unwrap();
    }

    fn open(&self, bucket: &Bucket) -> BucketBlock {
        BucketBlock::new(bucket.clone(), self.meta.clone(), &self.dir.path().join("data")).unwrap()
    }

    async fn in_memory(&self) -> (Bucket, Arc<BucketBlock>) {
        let bucket = Bucket::in_memory();
        self.upload(&bucket).await;
        let block = Arc::new(self.open(&bucket));
        (bucket, block)
    }

    fn header_file(&self) -> PathBuf {
        self.dir.path().join("data").join(self.meta.ulid.to_string()).join("index-header")
    }
}

fn m(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).unwrap()
}

async fn select(
    block: &Arc<BucketBlock>,
    request: &SelectRequest,
) -> chronolith_bucket::Result<Vec<BlockSeries>> {
    let batches: Vec<_> = block.select(request.clone()).try_collect().await?;
    Ok(batches.into_iter().flatten().collect())
}

fn all_matchers() -> Vec<Vec<Matcher>> {
    use MatchOp::*;
    vec![
        vec![m(Equal, "__name__", "a_total")],
        vec![m(Equal, "__name__", "b_total"), m(Equal, "instance", "host-03:9100")],
        vec![m(Equal, "__name__", "b_total"), m(Equal, "series", "0000017")],
        vec![m(Equal, "series", "0000017")],
        vec![m(Regex, "series", "0000017|0000018|nope"), m(NotEqual, "__name__", "a_total")],
        vec![m(Regex, "series", "00000[12].*")],
        vec![m(Regex, "__name__", ".+"), m(NotRegex, "instance", "host-0.*")],
        vec![m(NotEqual, "job", "node")],
        vec![m(Equal, "job", "node"), m(NotRegex, "series", ".*[1-9]")],
        vec![m(Equal, "job", "")],
        vec![m(Equal, "none", ""), m(Equal, "__name__", "c_total")],
        vec![m(Equal, "__name__", "d_total")],
        vec![],
    ]
}

/// The same through the local block reader, which shares no fetching code.
fn want(fixture: &Fixture, matchers: &[Matcher], range: TimeRange) -> Vec<BlockSeries> {
    let block = Arc::new(Block::open(&fixture.block_dir).unwrap());
    let all = block.select(matchers, range).unwrap();
    all.map(|s| s.unwrap()).map(|(labels, chunks)| BlockSeries { labels, chunks }).collect()
}

#[tokio::test]
async fn answers_equal_those_of_the_local_block() {
    let fixture = Fixture::day(150);
    let (_, plain) = fixture.in_memory().await;
    let bucket = Bucket::in_memory();
    fixture.upload(&bucket).await;
    let cached = fixture.open(&bucket).with_cache(Arc::new(IndexCache::new(64 << 20)));
    let cached = Arc::new(cached.with_run_cache(Arc::new(RunCache::new(64 << 20))));
    let hour = TimeRange::new(T0 + 3_600_000, T0 + 7_200_000);
    for range in [TimeRange::ALL, hour, TimeRange::new(T0, T0), TimeRange::new(0, T0 - 1)] {
        for matchers in all_matchers() {
            let want = want(&fixture, &matchers, range);
            for block in [&plain, &cached, &cached] {
                let request = SelectRequest::new(matchers.clone(), range);
                let got = select(block, &request).await.unwrap();
                assert_eq!(got.len(), want.len(), "{matchers:?} {range}");
                assert!(got == want, "{matchers:?} {range}");
                let request = SelectRequest { skip_chunks: true, ..request };
                let got = select(block, &request).await.unwrap();
                assert!(got.iter().map(|s| &s.labels).eq(want.iter().map(|s| &s.labels)), "{matchers:?}");
            }
        }
    }
}

#[tokio::test]
async fn labels_equal_those_of_the_local_block() {
    let fixture = Fixture::day(30);
    let (_, block) = fixture.in_memory().await;
    let local = Block::open(&fixture.block_dir).unwrap();
    for matchers in all_matchers() {
        let request = || SelectRequest::new(matchers.clone(), TimeRange::ALL);
        let names = block.label_names(request()).await.unwrap();
        assert_eq!(names, local.label_names(&matchers, TimeRange::ALL).unwrap(), "{matchers:?}");
        for name in ["__name__", "instance", "series", "none"] {
            let values = block.label_values(name, request()).await.unwrap();
            assert_eq!(
                values,
                local.label_values(name, &matchers, TimeRange::ALL).unwrap(),
                "{name} {matchers:?}"
            );
        }
    }
}

/// The promise of the store gateway: with the header there, a cold query over a day of one series costs at most four
/// requests, whatever the size of the block. Nothing reads a whole index or segment.
#[tokio::test]
async fn a_cold_series_costs_at_most_four_requests() {
    // A hundred thousand series of one metric, few samples each; the series asked for has a day.
    const SERIES: usize = 100_000;
    let short = counters("a_total", SERIES, T0, STEP_MS, 10);
    let day = counters("b_total", 1, T0, STEP_MS, 1440);
    let more = counters("c_total", 1000, T0, STEP_MS, 10);
    let fixture = Fixture::new(short.chain(day).chain(more), BlockWriterOptions::default());
    let server = S3Server::start();
    let bucket = server.bucket();
    fixture.upload(&bucket).await;
    let index_bytes = server.object(&layout::key(fixture.meta.ulid, layout::INDEX)).unwrap().len() as u64;
    let segment_bytes = server.object(&layout::segment_key(fixture.meta.ulid, 0)).unwrap().len() as u64;

    let block = Arc::new(fixture.open(&bucket));
    server.clear_requests();
    block.header().await.unwrap();
    let header_bytes = std::fs::metadata(fixture.header_file()).unwrap().len();
    assert!(header_bytes < index_bytes / 2, "{header_bytes} of {index_bytes}");
    let by_range = |r: &S3Request| r.range.is_some() || r.operation == S3Operation::HeadObject;
    assert!(server.requests().iter().all(by_range), "the header is made from ranges");

    let cases = [
        vec![m(MatchOp::Equal, "__name__", "b_total")],
        vec![m(MatchOp::Equal, "__name__", "b_total"), m(MatchOp::Equal, "job", "node")],
        vec![m(MatchOp::Equal, "__name__", "b_total"), m(MatchOp::Regex, "instance", "host-.*")],
        vec![m(MatchOp::Equal, "__name__", "a_total"), m(MatchOp::Equal, "series", "0054321")],
        vec![m(MatchOp::Equal, "__name__", "a_total"), m(MatchOp::Regex, "series", "0054321|0054322")],
        vec![
            m(MatchOp::Equal, "series", "0054321"),
            m(MatchOp::NotEqual, "job", "x"),
            m(MatchOp::NotEqual, "instance", ""),
        ],
    ];
    for matchers in cases {
        server.clear_requests();
        let request = SelectRequest::new(matchers.clone(), TimeRange::new(T0, T0 + 86_400_000));
        let got = select(&block, &request).await.unwrap();
        assert!(!got.is_empty());
        let requests = server.requests();
        assert!(requests.len() <= 4, "{} requests for {matchers:?}: {requests:?}", requests.len());
        assert!(requests.iter().all(|r| r.operation == S3Operation::GetObject && r.range.is_some()));
        let stats = request.stats.snapshot();
        assert_eq!(stats.requests(), requests.len() as u64);
        assert!(stats.series_bytes < index_bytes / 10, "{stats:?} of {index_bytes}");
        assert!(stats.chunk_bytes < segment_bytes / 4, "{stats:?} of {segment_bytes}");
        println!("{matchers:?}: {stats:?}");
    }
    // All series of the metric: ranges are joined, so far fewer requests than series.
    server.clear_requests();
    let request = SelectRequest::new(vec![m(MatchOp::Equal, "__name__", "a_total")], TimeRange::ALL);
    let mut count = 0;
    let mut batches = block.select(request);
    while let Some(batch) = batches.try_next().await.unwrap() {
        count += batch.len();
    }
    assert_eq!(count, SERIES);
    let requests = server.requests().len();
    println!("{SERIES} series: {requests} requests");
    assert!(requests < 400, "{requests} requests");
}

#[tokio::test]
async fn a_warm_cache_leaves_only_chunks() {
    let fixture = Fixture::day(50);
    let bucket = Bucket::in_memory();
    fixture.upload(&bucket).await;
    let block = Arc::new(fixture.open(&bucket).with_cache(Arc::new(IndexCache::new(1 << 20))));
    let matchers = vec![m(MatchOp::Equal, "__name__", "a_total"), m(MatchOp::Regex, "instance", "host-1.*")];
    let mut requests = Vec::new();
    for _ in 0..2 {
        let request = SelectRequest::new(matchers.clone(), TimeRange::ALL);
        assert_eq!(select(&block, &request).await.unwrap().len(), 10);
        requests.push(request.stats.snapshot());
    }
    assert_eq!((requests[1].postings_requests, requests[1].series_requests), (0, 0), "{requests:?}");
    assert!(requests[1].chunk_requests > 0);
}

#[tokio::test]
async fn small_segments_and_long_entries_are_read_whole() {
    // Series with very many chunks outgrow every guess; small segments spread a series over several files.
    let options = BlockWriterOptions { segment_bytes_max: 64 << 10, ..BlockWriterOptions::default() };
    let fixture = Fixture::new(counters("a_total", 3, T0, 1000, 200_000), options);
    let mut meta = BlockMeta::clone(&fixture.meta);
    // As if written by somebody who does not say sizes, or says them wrong.
    for (series, chunk) in [(0, 0), (20, 20)] {
        meta.thanos.as_mut().unwrap().index_stats.series_max_size = series;
        meta.thanos.as_mut().unwrap().index_stats.chunk_max_size = chunk;
        let bucket = Bucket::in_memory();
        fixture.upload(&bucket).await;
        let data = fixture.dir.path().join("data2");
        let block = Arc::new(BucketBlock::new(bucket, Arc::new(meta.clone()), &data).unwrap());
        for range in [TimeRange::ALL, TimeRange::new(T0 + 50_000_000, T0 + 50_100_000)] {
            let request = SelectRequest::new(vec![m(MatchOp::Equal, "job", "node")], range);
            let got = select(&block, &request).await.unwrap();
            assert!(got == want(&fixture, &request.matchers, range));
        }
    }
}

#[tokio::test]
async fn limits_hold_before_reading() {
    let fixture = Fixture::day(50);
    let (_, block) = fixture.in_memory().await;
    let base = SelectRequest::new(vec![m(MatchOp::Equal, "__name__", "a_total")], TimeRange::ALL);
    let cases = [
        (Limits { series_max: 49, ..Limits::default() }, "series: limit of 49"),
        (Limits { chunks_max: 100, ..Limits::default() }, "chunks: limit of 100"),
        (Limits { bytes_max: 1000, ..Limits::default() }, "bytes from the bucket: limit of 1000"),
    ];
    for (limits, text) in cases {
        let request =
            SelectRequest { limiter: Arc::new(Limiter::new(limits)), stats: Arc::default(), ..base.clone() };
        let err = select(&block, &request).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::LimitExceeded);
        assert!(err.to_string().contains(text) && err.to_string().contains(&block.id().to_string()), "{err}");
        assert_eq!(request.stats.snapshot().chunk_requests, 0);
        if limits.bytes_max > 0 {
            assert!(request.stats.snapshot().bytes() <= limits.bytes_max);
        }
    }
    let limits = Limits { series_max: 50, chunks_max: 600, bytes_max: 10 << 20 };
    let request = SelectRequest { limiter: Arc::new(Limiter::new(limits)), ..base };
    assert_eq!(select(&block, &request).await.unwrap().len(), 50);
}

#[tokio::test]
async fn damage_names_block_object_and_offset() {
    let fixture = Fixture::day(20);
    let server = S3Server::start();
    let bucket = server.bucket();
    fixture.upload(&bucket).await;
    let block = Arc::new(fixture.open(&bucket));
    let request = || SelectRequest::new(vec![m(MatchOp::Equal, "__name__", "b_total")], TimeRange::ALL);
    assert_eq!(select(&block, &request()).await.unwrap().len(), 20);
    let id = block.id();
    let segment = layout::segment_key(id, 0);
    let index = layout::key(id, layout::INDEX);
    let (good_segment, good_index) = (server.object(&segment).unwrap(), server.object(&index).unwrap());

    let flip = |bytes: &[u8], from: usize| {
        let mut bytes = bytes.to_vec();
        bytes[from..].iter_mut().for_each(|b| *b ^= 0x55);
        bytes
    };
    let cases: [(&str, Option<Vec<u8>>, &str, ErrorKind); 5] = [
        (&segment, Some(flip(&good_segment, 8)), "corrupt at offset", ErrorKind::Corrupt),
        (&segment, Some(good_segment[..good_segment.len() / 2].to_vec()), "", ErrorKind::Corrupt),
        (&segment, None, "object not found", ErrorKind::NotFound),
        (&index, Some(flip(&good_index, 0)), "corrupt at offset", ErrorKind::Corrupt),
        (&index, None, "object not found", ErrorKind::NotFound),
    ];
    for (key, bytes, text, kind) in cases {
        match bytes {
            Some(bytes) => server.put_object(key, bytes),
            None => server.remove_object(key),
        }
        let err = select(&block, &request()).await.unwrap_err();
        assert!(err.kind() == kind || err.kind() == ErrorKind::Unavailable, "{key} {text}: {err}");
        assert!(err.to_string().contains(key) && err.to_string().contains(text), "{err}");
        server.put_object(&segment, good_segment.clone());
        server.put_object(&index, good_index.clone());
    }
    assert_eq!(select(&block, &request()).await.unwrap().len(), 20);
}

#[tokio::test]
async fn faults_are_errors_or_right_answers() {
    let fixture = Fixture::day(20);
    let server = S3Server::start();
    fixture.upload(&server.bucket()).await;
    let block = Arc::new(fixture.open(&server.bucket()));
    let request = || SelectRequest::new(vec![m(MatchOp::Equal, "__name__", "b_total")], TimeRange::ALL);
    let want = want(&fixture, &request().matchers, TimeRange::ALL);
    server.set_faults(S3Faults { fail: 0.2, truncate: 0.2, fail_status: 500, ..S3Faults::default() });
    let mut right = 0;
    for _ in 0..10 {
        block.close_if_idle(Duration::ZERO);
        match select(&block, &request()).await {
            Ok(got) => {
                assert!(got == want);
                right += 1;
            }
            Err(err) => assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}"),
        }
    }
    assert!(right > 0);
    let (faulty, control) = FaultyStore::around(&server.bucket());
    server.set_faults(S3Faults::default());
    let block = Arc::new(fixture.open(&faulty));
    control.set(StoreFaults { truncate: 1.0, ..StoreFaults::default() });
    assert_eq!(select(&block, &request()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_damaged_header_is_made_again_and_an_idle_one_closed() {
    let fixture = Fixture::day(20);
    let (bucket, block) = fixture.in_memory().await;
    let header = block.header().await.unwrap();
    assert!(block.header_source().memory_bytes() > 0);
    assert!(!block.close_if_idle(Duration::from_secs(3600)));
    assert!(block.close_if_idle(Duration::ZERO));
    assert_eq!(block.header_source().memory_bytes(), 0);
    let (names, file) = (header.label_names(), fixture.header_file());
    drop(header);
    let good = std::fs::read(&file).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 3] ^= 1;
    for bad in [&b""[..], b"garbage", &good[..good.len() / 2], &flipped] {
        // Replaced, not overwritten: the old file may still be mapped.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bad).unwrap();
        block.close_if_idle(Duration::ZERO);
        assert_eq!(block.header().await.unwrap().label_names(), names);
        assert_eq!(std::fs::read(&file).unwrap(), good);
    }
    // With the local file there, opening needs no bucket.
    block.close_if_idle(Duration::ZERO);
    bucket.delete(&layout::key(block.id(), layout::INDEX)).await.unwrap();
    assert_eq!(block.header().await.unwrap().label_names(), names);
    block.header_source().remove().await.unwrap();
    assert!(!file.exists());
    assert!(block.header().await.is_err());
}

#[tokio::test]
async fn the_header_has_thanos_layout() {
    let fixture = Fixture::day(5);
    let (bucket, block) = fixture.in_memory().await;
    block.header().await.unwrap();
    let header = std::fs::read(fixture.header_file()).unwrap();
    let index = bucket.get(&layout::key(block.id(), layout::INDEX)).await.unwrap();
    let be = |bytes: &[u8]| bytes.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
    let toc = &index[index.len() - 52..];
    let (symbols, series, table) = (be(&toc[0..8]), be(&toc[8..16]), be(&toc[40..48]));
    assert_eq!(header[..6], [0xBA, 0xAA, 0xD7, 0x92, 1, 2]);
    assert_eq!(be(&header[6..14]), table);
    assert_eq!(header[14..14 + series - symbols], index[symbols..series]);
    let rest = &header[14 + series - symbols..];
    assert_eq!(rest[..index.len() - table], index[table..]);
    let end = &rest[index.len() - table..];
    assert_eq!((be(&end[..8]), be(&end[8..16]), end.len()), (14, 14 + series - symbols, 20));
    assert_eq!(be(&end[16..]), chronolith_tsdb::crc32c(&end[..16]) as usize);
}

/// A dashboard that refreshes: the second time no chunk is read, whatever was read of the series for other times.
#[tokio::test]
async fn chunks_that_were_read_come_from_memory() {
    let fixture = Fixture::day(20);
    let server = S3Server::start();
    let bucket = server.bucket();
    fixture.upload(&bucket).await;
    let plain = Arc::new(fixture.open(&bucket));
    let cache = Arc::new(RunCache::new(16 << 20));
    let block = Arc::new(fixture.open(&bucket).with_run_cache(cache.clone()));
    let matchers = vec![m(MatchOp::Equal, "__name__", "b_total")];
    for range in [TimeRange::new(T0 + 36_000_000, T0 + 50_000_000), TimeRange::ALL] {
        let want = select(&plain, &SelectRequest::new(matchers.clone(), range)).await.unwrap();
        for reads in [true, false] {
            server.clear_requests();
            let got = select(&block, &SelectRequest::new(matchers.clone(), range)).await.unwrap();
            assert_eq!(got, want);
            let of_segments = server.requests().iter().any(|r| r.target.contains("/chunks/"));
            assert_eq!(of_segments, reads, "{range:?}");
        }
    }
    assert!(cache.bytes() > 0);
}

/// Of downsampled data only what is asked for is handed on and kept.
#[tokio::test]
async fn aggregates_are_picked() {
    let aggregate = |(labels, chunks): (Labels, Vec<Chunk>)| {
        let parts = |chunk: Chunk| {
            let all = Aggregate::ALL.into_iter();
            let aggr =
                all.fold(AggrChunk::default(), |a, part| a.with(part, chunk.encoding, chunk.data.clone()));
            aggr.to_chunk(chunk.mint, chunk.maxt)
        };
        (labels, chunks.into_iter().map(parts).collect())
    };
    let series = counters("a_total", 5, T0, STEP_MS, 1440).map(aggregate);
    let fixture = Fixture::new(series, BlockWriterOptions::default());
    let bucket = Bucket::in_memory();
    fixture.upload(&bucket).await;
    let cached = fixture.open(&bucket).with_run_cache(Arc::new(RunCache::new(16 << 20)));
    let (plain, cached) = (Arc::new(fixture.open(&bucket)), Arc::new(cached));
    let whole = select(&plain, &SelectRequest::new(Vec::new(), TimeRange::ALL)).await.unwrap();
    let counter = [false, false, false, false, true];
    let sum = [false, true, false, false, false];
    for (block, aggregates) in
        [(&plain, counter), (&cached, counter), (&cached, sum), (&cached, counter), (&cached, [true; 5])]
    {
        let request = SelectRequest { aggregates, ..SelectRequest::new(Vec::new(), TimeRange::ALL) };
        let got = select(block, &request).await.unwrap();
        assert_eq!(got.len(), whole.len());
        for (chunk, want) in got.iter().zip(&whole).flat_map(|(g, w)| g.chunks.iter().zip(&w.chunks)) {
            let (chunk, want) =
                (AggrChunk::parse(&chunk.data).unwrap(), AggrChunk::parse(&want.data).unwrap());
            for part in Aggregate::ALL {
                let want = want.get(part, 0, 1).filter(|_| aggregates[part as usize]);
                assert_eq!(chunk.get(part, 0, 1), want, "{part:?} of {aggregates:?}");
            }
        }
    }
}
