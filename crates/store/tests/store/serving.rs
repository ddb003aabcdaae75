//! The acceptance suite, damage, resolutions, limits, syncing, serving.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chronolith_bucket::{DeletionMark, delete_block, layout};
use chronolith_chunk::{AggrChunk as AggregateParts, Aggregate as Part, Chunk, Encoding, encode_floats};
use chronolith_model::relabel::{RelabelAction, RuleSpec};
use chronolith_model::{Labels, Matcher, Relabeling, TimeRange};
use chronolith_objstore::{Bucket, BucketConfig, BucketMetrics};
use chronolith_service::shutdown::CancellationToken;
use chronolith_service::{ManualClock, Metrics, Probes};
use chronolith_store::{Config, Parts, build, run};
use chronolith_storeapi::contract::{self, StoreFixture, TestSeries};
use chronolith_storeapi::{
    AggrChunk, Aggregate, AggregateSet, ErrorKind, LabelNamesRequest, LabelValuesRequest, PartialResponse,
    SeriesRequest, Store,
};
use chronolith_testkit::series::{counters, labels};
use chronolith_testkit::{S3Faults, S3Server, http};
use futures::StreamExt;

use crate::support::{
    NOW_MS, Opened, T0, by_name, collect, next_id, open, open_with, open_without_chunks, put_block,
};

/// Splits what it is given over two blocks in time, so that the merge has something to do.
pub(crate) struct Fixture {
    make: Box<dyn Fn() -> Bucket + Send + Sync>,
    opened: parking_lot::Mutex<Vec<Opened>>,
}

/// The series before and after a moment.
fn in_two(series: &[TestSeries]) -> [Vec<(Labels, Vec<Chunk>)>; 2] {
    let mut sorted: Vec<&TestSeries> = series.iter().collect();
    sorted.sort_by(|a, b| a.labels.cmp(&b.labels));
    let cut = T0 + 200 * contract::STEP_MS;
    [true, false].map(|early| {
        let part = sorted.iter().filter_map(|s| {
            let samples = s.samples.iter().filter(|(t, _)| (*t < cut) == early);
            let (ts, values): (Vec<i64>, Vec<f64>) = samples.copied().unzip();
            (!ts.is_empty()).then(|| (s.labels.clone(), encode_floats(&ts, &values)))
        });
        part.collect()
    })
}

impl Fixture {
    pub(crate) fn new(make: impl Fn() -> Bucket + Send + Sync + 'static) -> Self {
        Fixture { make: Box::new(make), opened: Default::default() }
    }
}

#[async_trait]
impl StoreFixture for Fixture {
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store> {
        let bucket = (self.make)().with_prefix(&next_id().to_string());
        for part in in_two(series) {
            if !part.is_empty() {
                put_block(&bucket, external, 0, part).await;
            }
        }
        let opened = open(&bucket).await;
        let store = opened.store.clone();
        self.opened.lock().push(opened);
        store
    }
}

async fn accept(make: impl Fn() -> Bucket + Send + Sync + 'static) {
    contract::run(&Fixture::new(make)).await;
}

#[tokio::test]
async fn acceptance_in_memory() {
    accept(Bucket::in_memory).await;
}

#[tokio::test]
async fn acceptance_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    let config = BucketConfig::filesystem(dir.path().to_str().unwrap());
    let bucket = chronolith_objstore::open(&config, BucketMetrics::default()).unwrap();
    accept(move || bucket.clone()).await;
}

#[tokio::test]
async fn acceptance_s3() {
    let server = S3Server::start();
    let bucket = server.bucket();
    accept(move || bucket.clone()).await;
}

#[tokio::test]
async fn damage_is_a_warning_and_the_rest_answers() {
    let server = S3Server::start();
    let bucket = server.bucket();
    let external = labels(&[("cluster", "a")]);
    let mut ids = Vec::new();
    for day in 0..4 {
        ids.push(
            put_block(&bucket, &external, 0, counters("m", 3, T0 + day * 86_400_000, 60_000, 100)).await,
        );
    }
    let opened = open_without_chunks(&bucket).await;
    let store = &*opened.store;
    assert_eq!(collect(store, by_name("m")).await.unwrap().1, [""; 0]);

    // A segment gone, a segment garbled, an index gone whose header was never made.
    server.remove_object(&layout::segment_key(ids[0], 0));
    let garbled: Vec<u8> =
        server.object(&layout::segment_key(ids[1], 0)).unwrap().iter().map(|b| b ^ 0x5A).collect();
    server.put_object(&layout::segment_key(ids[1], 0), garbled);
    let (series, warnings) = collect(store, by_name("m")).await.unwrap();
    assert_eq!(series.len(), 3);
    assert!(series.iter().all(|s| s.chunks.len() == 2), "two blocks of one chunk are left: {series:?}");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (id, warning) in ids.iter().zip(&warnings) {
        assert!(warning.contains(&layout::segment_key(*id, 0)), "{warning}");
    }
    let abort = SeriesRequest { partial_response: PartialResponse::Abort, ..by_name("m") };
    assert_eq!(collect(store, abort).await.unwrap_err().kind(), ErrorKind::Aborted);
    // Labels do not need the segments.
    let names = LabelNamesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
    let names = store.label_names(names).await.unwrap();
    assert_eq!((names.names.len(), names.warnings.len()), (5, 0), "{names:?}");

    // A new block with a damaged meta, another with a garbled mark: reported, skipped, the rest stays.
    let bad = put_block(&bucket, &external, 0, counters("n", 1, T0, 60_000, 10)).await;
    server.put_object(&layout::key(bad, layout::META), "{\"version\":");
    server.put_object(&layout::key(ids[2], layout::DELETION_MARK), "not json");
    let report = store.sync().await.unwrap();
    assert_eq!((report.loaded, report.added, report.dropped), (4, 0, 0));

    // The bucket goes away: syncing fails, what is loaded stays; queries warn, labels come from the headers.
    server.set_faults(S3Faults { refuse: true, ..S3Faults::default() });
    assert!(store.sync().await.is_err());
    assert_eq!(store.block_count(), 4);
    let values = LabelValuesRequest::new("series", TimeRange::ALL, Vec::new());
    assert_eq!(store.label_values(values).await.unwrap().values.len(), 3);
}

#[tokio::test]
async fn an_index_that_is_garbled_is_named() {
    let bucket = Bucket::in_memory();
    let external = labels(&[("cluster", "a")]);
    let good = put_block(&bucket, &external, 0, counters("m", 3, T0, 60_000, 100)).await;
    let bad = put_block(&bucket, &external, 0, counters("m", 3, T0 + 86_400_000, 60_000, 100)).await;
    let key = layout::key(bad, layout::INDEX);
    let len = bucket.get(&key).await.unwrap().len();
    bucket.put(&key, vec![7; len].into()).await.unwrap();
    let opened = open(&bucket).await;
    let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
    assert_eq!((series.len(), warnings.len()), (3, 1), "{warnings:?}");
    assert!(warnings[0].contains(&key) && warnings[0].contains("offset"), "{warnings:?}");
    let values = LabelValuesRequest::new("series", TimeRange::ALL, Vec::new());
    let values = opened.store.label_values(values).await.unwrap();
    assert_eq!((values.values.len(), values.warnings.len()), (3, 1));
    let info = opened.store.info().await.unwrap();
    assert_eq!(info.label_sets, [external]);
    let _ = good;
}

fn downsampled(start: i64, step_ms: i64, count: usize) -> Vec<(Labels, Vec<Chunk>)> {
    let ts = chronolith_testkit::series::times(start, step_ms, count);
    let mut parts = AggregateParts::default();
    for (i, part) in Part::ALL.into_iter().enumerate() {
        let values = vec![i as f64 + 1.0; ts.len()];
        let chunk = encode_floats(&ts, &values).remove(0);
        parts = parts.with(part, Encoding::Xor, chunk.data);
    }
    vec![(labels(&[("__name__", "m")]), vec![parts.to_chunk(ts[0], ts[count - 1])])]
}

#[tokio::test]
async fn resolutions_are_chosen_and_aggregates_picked() {
    let bucket = Bucket::in_memory();
    let external = labels(&[("cluster", "a")]);
    let raw =
        |start| vec![(labels(&[("__name__", "m")]), encode_floats(&[start, start + 60_000], &[1.0, 2.0]))];
    let day = 86_400_000;
    put_block(&bucket, &external, 0, raw(T0)).await;
    put_block(&bucket, &external, 0, raw(T0 + day)).await;
    put_block(&bucket, &external, 300_000, downsampled(T0, 300_000, 10)).await;
    let opened = open(&bucket).await;
    let store = &*opened.store;

    let (series, _) = collect(store, by_name("m")).await.unwrap();
    assert!(series[0].chunks.iter().all(|c| c.raw().is_some()) && series[0].chunks.len() == 2);

    let request =
        SeriesRequest { max_resolution_ms: 300_000, aggregates: AggregateSet::AVERAGE, ..by_name("m") };
    let (series, _) = collect(store, request).await.unwrap();
    assert_eq!((series.len(), series[0].chunks.len()), (1, 2), "{series:?}");
    let AggrChunk::Downsampled(chunk) = &series[0].chunks[0] else { panic!("{series:?}") };
    assert_eq!(chunk.mint, T0);
    assert!(chunk.part(Aggregate::Count).is_some() && chunk.part(Aggregate::Sum).is_some());
    assert!(chunk.part(Aggregate::Min).is_none() && chunk.part(Aggregate::Counter).is_none());
    let sum = chunk.part(Aggregate::Sum).unwrap();
    assert_eq!(sum.sample_count().unwrap(), 10);
    let last = series[0].chunks[1].raw().expect("the hole is filled with raw data");
    assert_eq!(last.mint, T0 + day);
}

#[tokio::test]
async fn limits_end_the_answer_whatever_the_strategy() {
    let bucket = Bucket::in_memory();
    put_block(&bucket, &labels(&[("cluster", "a")]), 0, counters("m", 50, T0, 60_000, 500)).await;
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 3] = [
        (|c| c.request_series_max = 49, "series"),
        (|c| c.request_samples_max = 120 * 100, "chunks"),
        (|c| c.downloaded_bytes_max = 100, "bytes"),
    ];
    for (change, what) in cases {
        let opened = open_with(&bucket, change);
        opened.store.sync().await.unwrap();
        let err = collect(&*opened.store, by_name("m")).await.unwrap_err();
        assert_eq!(err.kind(), ErrorKind::LimitExceeded);
        assert!(err.chain().contains(what), "{}", err.chain());
    }
    let opened = open_with(&bucket, |c| c.request_series_max = 50);
    opened.store.sync().await.unwrap();
    assert_eq!(collect(&*opened.store, by_name("m")).await.unwrap().0.len(), 50);
}

#[tokio::test]
async fn syncing_follows_the_bucket() {
    let bucket = Bucket::in_memory();
    let external = labels(&[("cluster", "a")]);
    let first = put_block(&bucket, &external, 0, counters("m", 1, T0, 60_000, 10)).await;
    let opened = open(&bucket).await;
    let store = &opened.store;
    assert_eq!(store.block_count(), 1);
    let second = put_block(&bucket, &labels(&[("cluster", "b")]), 0, counters("m", 1, T0, 60_000, 10)).await;
    let report = store.sync().await.unwrap();
    assert_eq!((report.loaded, report.added), (2, 1));
    let info = store.info().await.unwrap();
    assert_eq!(info.label_sets, [external.clone(), labels(&[("cluster", "b")])]);
    assert_eq!(info.range, TimeRange::new(T0, T0 + 9 * 60_000));

    // A marked block is served for a day, as those who made its replacement promise.
    DeletionMark::write(&bucket, first, NOW_MS, "").await.unwrap();
    opened.clock.set(NOW_MS + 24 * 3_600_000);
    assert_eq!(store.sync().await.unwrap().dropped, 0);
    opened.clock.set(NOW_MS + 25 * 3_600_000);
    assert_eq!(store.sync().await.unwrap().dropped, 1);
    // A block deleted while it is being read: the answer is whole or has a warning.
    let mut stream = store.series(by_name("m")).await.unwrap();
    delete_block(&bucket, second).await.unwrap();
    assert_eq!(store.sync().await.unwrap().loaded, 0);
    while let Some(event) = stream.next().await {
        event.unwrap();
    }
    let (series, warnings) = collect(&**store, by_name("m")).await.unwrap();
    assert!(series.is_empty() && warnings.is_empty());
    let empty = store.info().await.unwrap();
    assert!(empty.range.is_empty() && empty.label_sets.is_empty());
}

#[tokio::test]
async fn time_partition_bounds_what_is_served() {
    let bucket = Bucket::in_memory();
    let external = labels(&[("cluster", "a")]);
    for day in 0..3 {
        put_block(&bucket, &external, 0, counters("m", 1, T0 + day * 86_400_000, 60_000, 10)).await;
    }
    let opened = open_with(&bucket, |c| {
        c.min_time = "-29d".parse().unwrap();
        c.max_time = chronolith_store::TimeBound::At(T0 + 86_400_000 + 3_600_000);
    });
    assert_eq!(opened.store.sync().await.unwrap().loaded, 1);
    let range = opened.store.info().await.unwrap().range;
    assert_eq!(range.mint, T0 + 86_400_000);
}

#[tokio::test]
async fn a_role_serves_over_http_and_grpc_and_stops() {
    let server = S3Server::start();
    let bucket = server.bucket();
    put_block(&bucket, &labels(&[("cluster", "a")]), 0, counters("m", 3, T0, 60_000, 10)).await;
    server.set_faults(S3Faults { refuse: true, ..S3Faults::default() });
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        data_dir: dir.path().to_owned(),
        grpc_address: Some("127.0.0.1:0".to_owned()),
        http_address: Some("127.0.0.1:0".to_owned()),
        sync_interval: Duration::from_millis(50),
        ..Config::default()
    };
    let parts = Parts {
        bucket,
        metrics: Metrics::new(),
        probes: Probes::new(),
        clock: Arc::new(ManualClock::new(NOW_MS)),
    };
    let mut ready = parts.probes.watch();
    let built = build(config, parts).await.unwrap();
    let url = format!("http://{}", built.http_addr().unwrap());
    let grpc = built.grpc_addr().unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(built, shutdown.clone()));
    let get = |path: &str| {
        let url = format!("{url}{path}");
        tokio::task::spawn_blocking(move || http::get(&url).unwrap())
    };
    assert_eq!(get("/-/ready").await.unwrap().status, 503, "nothing is synced yet");
    server.set_faults(S3Faults::default());
    ready.wait_for(|ready| *ready).await.unwrap();
    assert_eq!(get("/-/ready").await.unwrap().status, 200);
    let metrics = get("/metrics").await.unwrap().text();
    assert!(metrics.contains("thanos_bucket_store_blocks_loaded 1"), "{metrics}");

    let client =
        chronolith_storeapi::StoreClient::new(&format!("http://{grpc}"), &Default::default()).unwrap();
    let (series, warnings) = collect(&client, by_name("m")).await.unwrap();
    assert_eq!((series.len(), warnings.len()), (3, 0));
    assert_eq!(series[0].labels.get("cluster"), Some("a"));
    drop(client);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn relabel_rules_choose_the_blocks() {
    let bucket = Bucket::in_memory();
    for cluster in ["a", "b", "c"] {
        put_block(&bucket, &labels(&[("cluster", cluster)]), 0, counters("m", 1, T0, 60_000, 10)).await;
    }
    let spec = RuleSpec {
        source_labels: vec!["cluster".to_owned()],
        regex: Some("a|c".to_owned()),
        action: RelabelAction::Keep,
        ..RuleSpec::default()
    };
    let opened = open_with(&bucket, |c| c.shard = Relabeling::new(vec![spec]).unwrap());
    assert_eq!(opened.store.sync().await.unwrap().loaded, 2);
    let sets = opened.store.info().await.unwrap().label_sets;
    assert_eq!(sets, [labels(&[("cluster", "a")]), labels(&[("cluster", "c")])]);
}

/// A tenant's directory of a Cortex or Mimir bucket: what lies beside the blocks is passed over, and blocks have no external labels.
#[tokio::test]
async fn a_tenant_of_mimir_is_served_in_place() {
    let bucket = Bucket::in_memory();
    let tenant = bucket.with_prefix("team-a");
    let up = || vec![(labels(&[("__name__", "m"), ("job", "x")]), encode_floats(&[T0], &[1.0]))];
    put_block(&tenant, &Labels::empty(), 0, up()).await;
    let gone = put_block(&tenant, &Labels::empty(), 0, up()).await;
    DeletionMark::write(&tenant, gone, T0, "").await.unwrap();
    for other in [format!("markers/{gone}-deletion-mark.json"), "bucket-index.json.gz".to_owned()] {
        tenant.put(&other, "x".into()).await.unwrap();
    }
    put_block(&bucket.with_prefix("team-b"), &Labels::empty(), 0, up()).await;
    let opened = open(&tenant).await;
    assert_eq!(opened.store.block_count(), 1);
    let (series, warnings) = collect(&*opened.store, by_name("m")).await.unwrap();
    assert_eq!((series.len(), warnings.len()), (1, 0));
    assert_eq!(series[0].labels, labels(&[("__name__", "m"), ("job", "x")]));
    let values = LabelValuesRequest::new("job", TimeRange::ALL, Vec::new());
    assert_eq!(opened.store.label_values(values).await.unwrap().values, ["x"]);
}
