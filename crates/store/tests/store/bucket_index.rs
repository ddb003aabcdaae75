//! Blocks found by the bucket index: what it saves, what it must not hide, what happens without a good one.

use std::time::Duration;

use chronolith_bucket::{
    BlockFilter, BucketIndexWriter, DeletionMark, FetchOptions, FetchResult, Fetcher, IndexUse, delete_block,
    layout,
};
use chronolith_model::{BlockId, Labels};
use chronolith_objstore::Bucket;
use chronolith_storeapi::Store;
use chronolith_testkit::series::{counters, labels};
use chronolith_testkit::{S3Faults, S3Operation, S3Server};
use chronolith_tsdb::block::{BlockMeta, ThanosMeta};

use crate::support::{NOW_MS, T0, by_name, collect, open_with, put_block, put_block_as};

fn external() -> Labels {
    labels(&[("cluster", "a")])
}

/// A name of a block made at `ms`.
fn id_at(ms: i64, n: u128) -> BlockId {
    BlockId(((ms as u128) << 80 | n).into())
}

/// What a compactor sees.
async fn look(bucket: &Bucket) -> FetchResult {
    let fetcher = Fetcher::new(bucket.clone(), FetchOptions::default());
    let everything = BlockFilter { hide_duplicates: false, ..BlockFilter::default() };
    fetcher.fetch_with(&everything, NOW_MS).await.unwrap()
}

async fn write_index(bucket: &Bucket, listed_at_ms: i64) {
    let found = look(bucket).await;
    assert!(BucketIndexWriter::new(bucket.clone()).update(&found, listed_at_ms).await.unwrap().is_some());
}

#[tokio::test]
async fn new_and_deleted_blocks_are_seen_past_the_index() {
    let bucket = Bucket::in_memory();
    let old = put_block(&bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    let later = T0 + 86_400_000;
    let fresh = id_at(NOW_MS - 60_000, 1);
    put_block_as(fresh, &bucket, &external(), 0, counters("m", 2, later, 60_000, 10)).await;
    write_index(&bucket, NOW_MS).await;

    let opened = open_with(&bucket, |_| {});
    let store = &opened.store;
    let report = store.sync().await.unwrap();
    assert_eq!((report.index, report.loaded), (Some(IndexUse::Used), 2));
    assert_eq!(collect(&**store, by_name("m")).await.unwrap().0.len(), 2);

    // Uploaded, deleted and marked after the index was written.
    let newer = id_at(NOW_MS + 60_000, 2);
    put_block_as(newer, &bucket, &external(), 0, counters("n", 1, later, 60_000, 10)).await;
    delete_block(&bucket, fresh).await.unwrap();
    let report = store.sync().await.unwrap();
    assert_eq!((report.index, report.loaded, report.added, report.dropped), (Some(IndexUse::Used), 2, 1, 1));
    DeletionMark::write(&bucket, newer, NOW_MS - 48 * 3_600_000, "").await.unwrap();
    assert_eq!(store.sync().await.unwrap().loaded, 1);

    // An older block's mark comes with the next index.
    DeletionMark::write(&bucket, old, NOW_MS - 48 * 3_600_000, "").await.unwrap();
    assert_eq!(store.sync().await.unwrap().loaded, 1);
    write_index(&bucket, NOW_MS).await;
    assert_eq!(store.sync().await.unwrap().loaded, 0);
}

/// Blocks made after the listing are seen, and the index gets old, whatever time its writer believes it is.
#[tokio::test]
async fn a_writer_whose_clock_is_ahead_hides_nothing() {
    use chronolith_service::{Clock, SystemClock};
    let bucket = Bucket::in_memory();
    let now_ms = SystemClock.now_ms();
    let old = id_at(now_ms - 86_400_000, 1);
    put_block_as(old, &bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    for hours in [5, 5000] {
        write_index(&bucket, now_ms + hours * 3_600_000).await;
        let newer = id_at(now_ms + hours, 1);
        put_block_as(newer, &bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
        let opened = open_with(&bucket, |_| {});
        opened.clock.set(now_ms);
        let store = &opened.store;
        let report = store.sync().await.unwrap();
        let blocks = look(&bucket).await.blocks.len();
        assert_eq!((report.index, report.loaded), (Some(IndexUse::Used), blocks), "{hours} h ahead");
        opened.clock.set(now_ms + 2 * 3_600_000);
        assert_eq!(store.sync().await.unwrap().index, Some(IndexUse::Old), "{hours} h ahead");
    }
}

#[tokio::test]
async fn blocks_that_the_writer_could_not_read_are_looked_at() {
    let server = S3Server::start();
    let bucket = server.bucket();
    let good = put_block(&bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    let bad = put_block(&bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    let meta = server.object(&layout::key(bad, layout::META)).unwrap();
    server.put_object(&layout::key(bad, layout::META), "{\"version\":");
    write_index(&bucket, NOW_MS).await;
    let opened = open_with(&bucket, |_| {});
    assert_eq!(opened.store.sync().await.unwrap().loaded, 1);
    server.put_object(&layout::key(bad, layout::META), meta);
    let report = opened.store.sync().await.unwrap();
    assert_eq!((report.index, report.loaded), (Some(IndexUse::Used), 2));
    let _ = good;
}

#[tokio::test]
async fn without_a_good_index_the_bucket_is_listed() {
    let server = S3Server::start();
    let bucket = server.bucket();
    put_block(&bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    let opened = open_with(&bucket, |c| c.bucket_index_age_max = Duration::from_secs(3600));
    let store = &opened.store;
    let how = async || {
        let report = store.sync().await.unwrap();
        assert_eq!(report.loaded, 1);
        report.index.unwrap()
    };
    assert_eq!(how().await, IndexUse::Missing);
    write_index(&bucket, NOW_MS - 3_600_001).await;
    assert_eq!(how().await, IndexUse::Old);
    write_index(&bucket, NOW_MS - 3_600_000).await;
    assert_eq!(how().await, IndexUse::Used);
    let whole = server.object(layout::BUCKET_INDEX).unwrap();
    server.put_object(layout::BUCKET_INDEX, whole.slice(..whole.len() / 2));
    assert_eq!(how().await, IndexUse::Damaged);
    server.put_object(layout::BUCKET_INDEX, whole);
    let only_paths = layout::BUCKET_INDEX.to_owned();
    server.set_faults(S3Faults { refuse: true, only_paths, ..S3Faults::default() });
    assert_eq!(how().await, IndexUse::Failed);
    server.set_faults(S3Faults::default());
    assert_eq!(how().await, IndexUse::Used);
    let off = open_with(&bucket, |c| c.bucket_index_age_max = Duration::ZERO);
    assert_eq!(off.store.sync().await.unwrap().index, Some(IndexUse::Off));
}

/// A thousand blocks as a bucket shows them; nothing reads inside of them.
fn thousand(server: &S3Server) {
    for n in 0..1000u128 {
        let id = id_at(T0, n);
        let mut meta = BlockMeta::new(id, T0, T0 + 7_200_000);
        meta.compaction.sources = vec![id];
        meta.thanos = Some(ThanosMeta::new(&external(), "test"));
        for file in ["chunks/000001", layout::INDEX] {
            server.put_object(&layout::key(id, file), "x");
        }
        server.put_object(&layout::key(id, layout::META), meta.to_json());
    }
}

#[tokio::test]
async fn an_idle_store_asks_little() {
    /// Syncs of a day at the default of 15 minutes.
    const SYNCS: usize = 96;
    let server = S3Server::start();
    let bucket = server.bucket();
    thousand(&server);
    let listing = open_with(&bucket, |_| {});
    assert_eq!(listing.store.sync().await.unwrap().loaded, 1000);
    server.clear_requests();
    listing.store.sync().await.unwrap();
    let by_listing = server.requests().len();
    assert!(by_listing * SYNCS < 1000, "{by_listing} requests a sync by listing");

    write_index(&bucket, NOW_MS).await;
    server.clear_requests();
    let indexed = open_with(&bucket, |_| {});
    let report = indexed.store.sync().await.unwrap();
    assert_eq!((report.index, report.loaded), (Some(IndexUse::Used), 1000));
    let first = server.requests().len();
    indexed.store.sync().await.unwrap();
    assert_eq!(
        (first, server.requests().len()),
        (2, 4),
        "one GET and one page of the listing, first time or not"
    );
    assert_eq!(indexed.store.info().await.unwrap().label_sets.len(), 1);
}

/// A compactor that is gone costs listings, not a look into every block.
#[tokio::test]
async fn what_an_old_or_former_index_names_is_not_read_again() {
    let server = S3Server::start();
    let bucket = server.bucket();
    thousand(&server);
    let gets = async |opened: &crate::support::Opened, want: IndexUse| {
        server.clear_requests();
        let report = opened.store.sync().await.unwrap();
        assert_eq!((report.index, report.loaded), (Some(want), 1000));
        server.counts().get(&S3Operation::GetObject).copied().unwrap_or(0)
    };
    write_index(&bucket, NOW_MS - 2 * 3_600_000).await;
    let opened = open_with(&bucket, |_| {});
    assert_eq!(gets(&opened, IndexUse::Old).await, 1);
    write_index(&bucket, NOW_MS).await;
    let opened = open_with(&bucket, |_| {});
    assert_eq!(gets(&opened, IndexUse::Used).await, 1);
    bucket.delete(layout::BUCKET_INDEX).await.unwrap();
    assert_eq!(gets(&opened, IndexUse::Missing).await, 1);
}

#[tokio::test]
async fn an_unchanged_index_is_written_seldom() {
    let bucket = Bucket::in_memory();
    put_block(&bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    let writer = BucketIndexWriter::new(bucket.clone());
    let minute = 60_000;
    assert!(writer.update(&look(&bucket).await, NOW_MS).await.unwrap().is_some());
    assert!(writer.update(&look(&bucket).await, NOW_MS + 19 * minute).await.unwrap().is_none());
    assert!(writer.update(&look(&bucket).await, NOW_MS + 20 * minute).await.unwrap().is_some());
    put_block(&bucket, &external(), 0, counters("m", 1, T0, 60_000, 10)).await;
    assert!(writer.update(&look(&bucket).await, NOW_MS + 21 * minute).await.unwrap().is_some());
}
