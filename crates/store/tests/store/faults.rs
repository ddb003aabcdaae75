//! What goes wrong in a bucket is a warning or an error, by the request's strategy, and never a shorter answer without one.

use chronolith_bucket::layout;
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_storeapi::{ErrorKind, PartialResponse, SeriesRequest, Store, StoreSeries};
use chronolith_testkit::series::{counters, labels};
use chronolith_testkit::{FaultyStore, S3Faults, S3Server, StoreFaults};

use crate::support::{Opened, T0, by_name, collect, open, open_with, put_block};

const DAY_MS: i64 = 86_400_000;

async fn block(bucket: &Bucket, day: i64) -> BlockId {
    put_block(bucket, &labels(&[("cluster", "a")]), 0, counters("m", 5, T0 + day * DAY_MS, 60_000, 300)).await
}

fn samples(series: &[StoreSeries]) -> usize {
    let chunks = series.iter().flat_map(|s| &s.chunks);
    chunks.map(|c| c.raw().unwrap().sample_count().unwrap()).sum()
}

/// The warnings of a partial answer; of the other strategy it must be an error.
async fn warnings(store: &dyn Store) -> (usize, Vec<String>) {
    let abort = SeriesRequest { partial_response: PartialResponse::Abort, ..by_name("m") };
    let strict = collect(store, abort).await;
    let (series, warnings) = collect(store, by_name("m")).await.unwrap();
    assert_eq!(strict.is_err(), !warnings.is_empty(), "{strict:?}, {warnings:?}");
    (samples(&series), warnings)
}

/// Asks again and again while the bucket fails at random: an answer is whole, or says what it lacks.
async fn never_silent(opened: &Opened, whole: usize) -> (usize, usize) {
    let (mut partial, mut complete) = (0, 0);
    for _ in 0..40 {
        let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
        let got = samples(&series);
        assert!(got == whole || !warnings.is_empty(), "{got} of {whole} samples and no warning");
        assert!(got <= whole);
        *(if warnings.is_empty() { &mut complete } else { &mut partial }) += 1;
    }
    (partial, complete)
}

#[tokio::test]
async fn failing_and_truncated_reads_are_never_silent() {
    let bucket = Bucket::in_memory();
    for day in 0..4 {
        block(&bucket, day).await;
    }
    let (faulty, control) = FaultyStore::around(&bucket);
    // Nothing is kept in memory, so that each query reads.
    let opened = open_with(&faulty, |c| c.index_cache_bytes_max = 0);
    opened.store.sync().await.unwrap();
    opened.store.prepare_headers().await;
    let whole = 4 * 5 * 300;
    for faults in [
        StoreFaults { fail: 0.1, ..StoreFaults::default() },
        StoreFaults { truncate: 0.1, ..StoreFaults::default() },
    ] {
        control.set(faults);
        let (partial, complete) = never_silent(&opened, whole).await;
        assert!(partial > 0 && complete > 0, "{partial} partial, {complete} complete");
    }
    control.set(StoreFaults::default());
    assert_eq!(never_silent(&opened, whole).await.0, 0, "it is over when it is over");
}

#[tokio::test]
async fn a_store_of_500_and_503_is_retried() {
    let server = S3Server::start();
    let bucket = server.bucket();
    for day in 0..2 {
        block(&bucket, day).await;
    }
    let opened = open_with(&bucket, |c| c.index_cache_bytes_max = 0);
    opened.store.sync().await.unwrap();
    opened.store.prepare_headers().await;
    for fail_status in [500, 503] {
        server.set_faults(S3Faults { fail: 0.2, fail_status, ..S3Faults::default() });
        for _ in 0..5 {
            let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
            assert!(samples(&series) == 2 * 5 * 300 || !warnings.is_empty());
        }
    }
}

#[tokio::test]
async fn damaged_objects_are_named_and_the_rest_answers() {
    let whole = 5 * 300;
    // What becomes of the first of three blocks.
    type Damage = fn(&S3Server, BlockId);
    let cases: [(&str, &str, Damage); 6] = [
        ("missing segment", "chunks/000001", |s, id| s.remove_object(&layout::segment_key(id, 0))),
        ("corrupt CRC", "chunks/000001", |s, id| {
            let key = layout::segment_key(id, 0);
            let mut bytes = s.object(&key).unwrap().to_vec();
            // In the middle of the data of some chunk.
            let at = bytes.len() / 2;
            bytes[at] ^= 0xFF;
            s.put_object(&key, bytes);
        }),
        ("segment cut short", "chunks/000001", |s, id| {
            let key = layout::segment_key(id, 0);
            let bytes = s.object(&key).unwrap();
            s.put_object(&key, bytes.slice(..bytes.len() / 2));
        }),
        ("missing index", "index", |s, id| s.remove_object(&layout::key(id, layout::INDEX))),
        ("index cut short", "index", |s, id| {
            let key = layout::key(id, layout::INDEX);
            let bytes = s.object(&key).unwrap();
            s.put_object(&key, bytes.slice(..bytes.len() / 2));
        }),
        ("index over its symbols", "index", |s, id| {
            let key = layout::key(id, layout::INDEX);
            let mut bytes = s.object(&key).unwrap().to_vec();
            chronolith_testkit::damage::index_over_symbols(&mut bytes);
            s.put_object(&key, bytes);
        }),
    ];
    for (what, object, damage) in cases {
        let server = S3Server::start();
        let bucket = server.bucket();
        let bad = block(&bucket, 0).await;
        for day in 1..3 {
            block(&bucket, day).await;
        }
        damage(&server, bad);
        let opened = open(&bucket).await;
        let (got, warnings) = warnings(&*opened.store).await;
        assert!((2 * whole..3 * whole).contains(&got), "{what}: {got} samples");
        assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
        let named = format!("{bad}/{object}");
        assert!(warnings[0].contains(&named), "{what}: {warnings:?} does not name {named}");
    }
}

#[tokio::test]
async fn blocks_that_vanish_under_a_stale_listing_are_warnings() {
    let server = S3Server::start();
    let bucket = server.bucket();
    let gone = block(&bucket, 0).await;
    block(&bucket, 1).await;
    let opened = open(&bucket).await;
    for key in server.keys().into_iter().filter(|k| k.starts_with(&gone.to_string())) {
        server.remove_object(&key);
    }
    let (got, text) = warnings(&*opened.store).await;
    assert_eq!(got, 5 * 300);
    assert!(text.len() == 1 && text[0].contains(&gone.to_string()), "{text:?}");
    // The next look knows.
    opened.store.sync().await.unwrap();
    assert_eq!(warnings(&*opened.store).await, (5 * 300, Vec::new()));
}

/// Who has not seen the bucket does not say that it is empty.
#[tokio::test]
async fn before_the_first_look_there_is_no_answer() {
    let server = S3Server::start();
    let bucket = server.bucket();
    block(&bucket, 0).await;
    server.set_faults(S3Faults { refuse: true, ..S3Faults::default() });
    let opened = open_with(&bucket, |_| {});
    let store = &*opened.store;
    opened.store.sync().await.unwrap_err();
    let unavailable = |e: chronolith_storeapi::StoreError| assert_eq!(e.kind(), ErrorKind::Unavailable);
    unavailable(collect(store, by_name("m")).await.unwrap_err());
    unavailable(store.info().await.unwrap_err());
    assert_eq!(store.series_at_once(&[], chronolith_model::TimeRange::ALL), None, "it has to be asked");
    server.set_faults(S3Faults::default());
    opened.store.sync().await.unwrap();
    assert_eq!(warnings(store).await, (5 * 300, Vec::new()));
    // Later a listing that fails leaves what is known.
    server.set_faults(S3Faults { refuse: true, ..S3Faults::default() });
    opened.store.sync().await.unwrap_err();
    assert_eq!(store.info().await.unwrap().label_sets.len(), 1);
}

#[tokio::test]
async fn the_budget_of_all_requests_is_kept_and_given_back() {
    let bucket = Bucket::in_memory();
    block(&bucket, 0).await;
    let opened = open_with(&bucket, |c| c.read_budget_bytes = 100);
    opened.store.sync().await.unwrap();
    for _ in 0..3 {
        let err = collect(&*opened.store, by_name("m")).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::LimitExceeded);
        assert!(err.chain().contains("--chunk-pool-size"), "{}", err.chain());
    }
    // Twice what one request of its kind needs, and many of them one after the other.
    let opened = open_with(&bucket, |c| c.read_budget_bytes = 256 << 10);
    opened.store.sync().await.unwrap();
    for _ in 0..50 {
        assert_eq!(samples(&collect(&*opened.store, by_name("m")).await.unwrap().0), 5 * 300);
    }
}
