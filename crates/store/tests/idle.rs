//! What blocks cost that nobody asks for. A process of its own, as it looks at the process's memory.
//!
//! `IDLE_BLOCKS=10000 cargo test -p chronolith-store --test idle -- --nocapture` prints what blocks cost that nobody asks for.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronolith_bucket::{BucketIndexWriter, FetchOptions, Fetcher, UploadOptions, upload_block};
use chronolith_model::{BlockId, Matcher, TimeRange};
use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics};
use chronolith_service::{ManualClock, Metrics};
use chronolith_store::{BucketStore, Config};
use chronolith_storeapi::{SeriesEvent, SeriesRequest, Store};
use chronolith_testkit::series::{counters, labels};
use chronolith_tsdb::block::{BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};
use futures::StreamExt;

const T0: i64 = 1_700_000_000_000;
const NOW_MS: i64 = T0 + 400 * 86_400_000;
/// The budget of DESIGN.
const BLOCK_BYTES_MAX: usize = 2048;

/// One block, and `count - 1` more of the same bytes under other names.
async fn fill(bucket: &Bucket, root: &Path, count: u128) {
    let id = |n: u128| BlockId(((T0 as u128) << 80 | n).into());
    let dir = tempfile::tempdir().unwrap();
    let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    let mut writer = BlockWriter::create(dir.path(), id(0), options).unwrap();
    for (labels, chunks) in counters("m", 20, T0, 60_000, 120) {
        writer.add_series(&labels, &chunks).unwrap();
    }
    let thanos = Some(ThanosMeta::new(&labels(&[("cluster", "a"), ("replica", "b")]), "receive"));
    let meta = writer.finish(BlockParts { thanos, ..BlockParts::default() }).unwrap().unwrap();
    let first = dir.path().join(id(0).to_string());
    upload_block(bucket, &first, &meta, UploadOptions::default(), T0).await.unwrap();
    let first = root.join(id(0).to_string());
    let meta = BlockMeta::parse("meta.json", &std::fs::read(first.join("meta.json")).unwrap()).unwrap();
    for n in 1..count {
        let dir = root.join(id(n).to_string());
        std::fs::create_dir_all(dir.join("chunks")).unwrap();
        for file in ["index", "chunks/000001"] {
            std::fs::hard_link(first.join(file), dir.join(file)).unwrap();
        }
        let mut meta = meta.clone();
        meta.ulid = id(n);
        meta.compaction.sources = vec![id(n)];
        std::fs::write(dir.join("meta.json"), meta.to_json()).unwrap();
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    // Resident pages less shared ones, which are those of mapped files.
    let pages: Vec<usize> = statm.split(' ').take(3).map(|n| n.parse().unwrap()).collect();
    (pages[1] - pages[2]) * 4096
}

async fn open(bucket: &Bucket, data_dir: &Path, bucket_index_age_max: Duration) -> Arc<BucketStore> {
    let config = Config {
        data_dir: data_dir.to_owned(),
        index_cache_bytes_max: 1 << 20,
        header_idle: Duration::ZERO,
        bucket_index_age_max,
        ..Config::default()
    };
    let clock = Arc::new(ManualClock::new(NOW_MS));
    Arc::new(BucketStore::new(bucket.clone(), config, clock, &Metrics::new()).unwrap())
}

#[tokio::test]
async fn idle_blocks_cost_little_memory() {
    let count: usize = std::env::var("IDLE_BLOCKS").map_or(1000, |n| n.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let config = BucketConfig::filesystem(root.path().to_str().unwrap());
    let bucket = chronolith_objstore::open(&config, BucketMetrics::default()).unwrap();
    fill(&bucket, root.path(), count as u128).await;
    let found = Fetcher::new(bucket.clone(), FetchOptions::default()).fetch(NOW_MS).await.unwrap();
    BucketIndexWriter::new(bucket.clone()).update(&found, NOW_MS).await.unwrap();
    drop(found);

    let began = Instant::now();
    let listing = open(&bucket, &data.path().join("listing"), Duration::ZERO).await;
    assert_eq!(listing.sync().await.unwrap().loaded, count);
    let by_listing = began.elapsed();
    drop(listing);

    let before = resident_bytes();
    let began = Instant::now();
    let store = open(&bucket, &data.path().join("indexed"), Duration::from_secs(3600)).await;
    assert_eq!(store.sync().await.unwrap().loaded, count);
    let by_index = began.elapsed();
    let synced = resident_bytes();
    let began = Instant::now();
    store.prepare_headers().await;
    let headers = began.elapsed();

    // Every header is opened, used, and closed again.
    let began = Instant::now();
    let request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
    let mut stream = store.series(SeriesRequest { skip_chunks: true, ..request }).await.unwrap();
    let mut series = 0;
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            SeriesEvent::Batch(batch) => series += batch.len(),
            SeriesEvent::Warning(text) => panic!("{text}"),
            SeriesEvent::Hints(hints) => assert_eq!(hints.queried_blocks.len(), count),
        }
    }
    assert_eq!(series, 20);
    let query = began.elapsed();
    drop(stream);
    assert_eq!(store.close_idle_headers(), count);
    let idle = resident_bytes();
    println!(
        "{count} blocks: known by listing after {by_listing:?}, by index after {by_index:?}; headers made in {headers:?}; \
         all asked in {query:?}; {} B a block known, {} B a block after all were asked and closed",
        synced.saturating_sub(before) / count,
        idle.saturating_sub(before) / count,
    );
    // What does not grow with the blocks is not theirs: metrics, the cache's table, buffers of the allocator.
    let block_bytes = synced.saturating_sub(before).saturating_sub(1 << 20) / count;
    assert!(block_bytes <= BLOCK_BYTES_MAX, "{block_bytes} B a block");
}
