//! The acceptance suite over a head, over blocks, and over both; and a cut in the middle of a stream.

use std::sync::Mutex;

use bytes::Bytes;
use chronolith_chunk::SampleColumns;
use chronolith_model::{Sample, WriteBatchBuilder, write};
use chronolith_storeapi::SeriesEvent;
use chronolith_storeapi::contract::{self, STEP_MS, StoreFixture, T0, TestSeries};
use chronolith_tsdb::db::DbOptions;
use futures::StreamExt;
use tempfile::TempDir;

use super::*;

fn open(dir: &TempDir, external: &Labels) -> (Arc<Tenants>, Arc<Db>) {
    let mut options = DbOptions::new(dir.path());
    options.wal_sync = chronolith_tsdb::db::WalSync::Off;
    options.clock = Arc::new(|| T0 + 1_000_000_000);
    let (db, _) = Db::open(options).unwrap();
    let tenants = Arc::new(Tenants::new(external.clone(), "tenant_id"));
    tenants.set_db(Arc::clone(&db));
    (tenants, db)
}

fn write(db: &Db, tenant: &TenantId, series: &[(Labels, Vec<(i64, f64)>)]) {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    let mut samples = 0;
    for (labels, points) in series {
        let mut section = Vec::new();
        write::encode_labels(labels.iter(), &mut section);
        builder.push_series_bytes(&section);
        for (t, v) in points {
            builder.push_sample(Sample { t: *t, v: *v });
            samples += 1;
        }
    }
    let outcome = db.write(tenant, &builder.finish(Bytes::new()));
    assert_eq!((outcome.written, outcome.rejected_count), (samples, 0), "{:?}", outcome.rejected);
    outcome.commit.wait().unwrap();
}

#[derive(Clone, Copy, PartialEq)]
enum Where {
    Head,
    Blocks,
    Both,
}

struct Fixture {
    place: Where,
    dirs: Mutex<Vec<TempDir>>,
}

#[async_trait]
impl StoreFixture for Fixture {
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store> {
        let dir = tempfile::tempdir().unwrap();
        // The suite's producer has these external labels and no others, so the tenant has no label of its own.
        let tenant = TenantId::new("suite").unwrap();
        let (_, db) = open(&dir, external);
        let halves = series.iter().map(|s| {
            let middle = s.samples.len() / 2;
            let (a, b) = s.samples.split_at(if self.place == Where::Both { middle } else { s.samples.len() });
            ((s.labels.clone(), a.to_vec()), (s.labels.clone(), b.to_vec()))
        });
        let (first, second): (Vec<_>, Vec<_>) = halves.unzip();
        write(&db, &tenant, &first);
        if self.place != Where::Head {
            db.cut_all(&tenant).unwrap();
        }
        write(&db, &tenant, &second);
        self.dirs.lock().unwrap().push(dir);
        let tenants = Arc::new(Tenants::new(external.clone(), ""));
        tenants.set_db(db);
        Arc::new(TenantsStore::new(tenants))
    }
}

async fn suite(place: Where) {
    contract::run(&Fixture { place, dirs: Mutex::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_behaves_like_every_store() {
    suite(Where::Head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_behave_like_every_store() {
    suite(Where::Blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beside_its_blocks_behaves_like_every_store() {
    suite(Where::Both).await;
}

fn request() -> SeriesRequest {
    SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")])
}

/// Sample counts by series, equal times counted once.
async fn counts(mut stream: SeriesStream) -> Vec<(Labels, usize)> {
    let mut out = Vec::new();
    while let Some(event) = stream.next().await {
        let SeriesEvent::Batch(batch) = event.unwrap() else { continue };
        for series in batch {
            let mut columns = SampleColumns::default();
            for chunk in series.chunks.iter().filter_map(|c| c.raw()) {
                chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
            }
            let mut ts = columns.ts;
            ts.sort_unstable();
            ts.dedup();
            out.push((series.labels, ts.len()));
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (tenants, db) = open(&dir, &Labels::from_pairs([("replica", "r1")]).unwrap());
    let labels = Labels::from_pairs([("__name__", "m")]).unwrap();
    for (tenant, n) in [("a", 3), ("b", 5)] {
        let points = (0..n).map(|i| (T0 + i * STEP_MS, i as f64)).collect();
        write(&db, &TenantId::new(tenant).unwrap(), &[(labels.clone(), points)]);
    }
    let store = TenantsStore::new(tenants);
    let all = counts(store.series(request()).await.unwrap()).await;
    let shown: Vec<_> = all.iter().map(|(l, n)| (l.to_string(), *n)).collect();
    assert_eq!(
        shown,
        [
            (r#"{__name__="m", replica="r1", tenant_id="a"}"#.to_owned(), 3),
            (r#"{__name__="m", replica="r1", tenant_id="b"}"#.to_owned(), 5)
        ]
    );
    let mut one = request();
    one.matchers.push(Matcher::equal("tenant_id", "b"));
    assert_eq!(counts(store.series(one).await.unwrap()).await.len(), 1);
    let info = store.info().await.unwrap();
    assert_eq!((info.label_sets.len(), info.range.mint, info.range.maxt), (2, T0, i64::MAX));
    let values = LabelValuesRequest::new("tenant_id", TimeRange::ALL, Vec::new());
    assert_eq!(store.label_values(values).await.unwrap().values, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_heads_hold_is_known_at_once_and_what_blocks_hold_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (tenants, db) = open(&dir, &Labels::from_pairs([("replica", "r1")]).unwrap());
    let tenant = TenantId::new("a").unwrap();
    let one = |i: i64, from: i64| {
        let name = format!("host-{i}");
        let pairs =
            [("__name__", "m"), ("instance", name.as_str()), ("parity", ["even", "odd"][i as usize % 2])];
        let points = (from..from + 10).map(|k| (T0 + k * STEP_MS, k as f64)).collect();
        (Labels::from_pairs(pairs).unwrap(), points)
    };
    write(&db, &tenant, &(0..10).map(|i| one(i, 0)).collect::<Vec<_>>());
    let store = TenantsStore::new(tenants);
    let by = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| Matcher::equal(n, v)).collect::<Vec<_>>();
    let series = |pairs: &[(&str, &str)]| store.series_at_once(&by(pairs), TimeRange::ALL);
    assert_eq!(series(&[("__name__", "m")]), Some(10));
    assert_eq!(series(&[("__name__", "m"), ("parity", "odd")]), Some(5));
    // Not more than one has the instance; that it is even is not looked at.
    assert_eq!(series(&[("parity", "odd"), ("instance", "host-2")]), Some(1));
    assert_eq!(series(&[("replica", "r1"), ("instance", "host-2")]), Some(1));
    assert_eq!(series(&[("replica", "r2"), ("instance", "host-2")]), Some(0));
    assert_eq!(store.values_at_once("instance", &[], TimeRange::ALL), Some(10));
    db.cut_all(&tenant).unwrap();
    write(&db, &tenant, &[one(3, 1000)]);
    assert_eq!(series(&[("__name__", "m")]), None);
    let recent = TimeRange::new(T0 + 900 * STEP_MS, i64::MAX);
    assert_eq!(store.series_at_once(&by(&[("__name__", "m")]), recent), Some(1));
    assert_eq!(store.values_at_once("instance", &[], recent), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_of_a_stream_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (tenants, db) = open(&dir, &Labels::from_pairs([("replica", "r1")]).unwrap());
    let tenant = TenantId::new("a").unwrap();
    // Enough for several batches of the head iterator.
    let series: Vec<_> = (0..4 * HEAD_SERIES_BATCH)
        .map(|i| {
            let labels = Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:05}"))]).unwrap();
            (labels, (0..10).map(|k| (T0 + k * STEP_MS, k as f64)).collect())
        })
        .collect();
    write(&db, &tenant, &series);
    let store = TenantsStore::new(tenants);
    let before = counts(store.series(request()).await.unwrap()).await;
    assert_eq!(before.len(), series.len());
    let mut small = request();
    small.batch_size = 10;
    let mut stream = store.series(small).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    let SeriesEvent::Batch(first) = first else { panic!("{first:?}") };
    let cutter = Arc::clone(&db);
    let owner = tenant.clone();
    tokio::task::spawn_blocking(move || cutter.cut_all(&owner)).await.unwrap().unwrap();
    assert_eq!(
        db.head(&tenant).unwrap().select(&[], TimeRange::ALL, false).count(),
        0,
        "the head is empty now"
    );
    let rest = counts(stream).await;
    assert_eq!(first.len() + rest.len(), series.len());
    assert_eq!(rest[..], before[first.len()..]);
    assert_eq!(counts(store.series(request()).await.unwrap()).await, before);
}

/// The requests of `dir`'s bucket, which holds one: series that match in the range.
async fn deleting(matchers: &[Matcher], range: TimeRange) -> DeletionWatch {
    let bucket = chronolith_objstore::Bucket::in_memory();
    let now_ms = T0 + 1_000_000_000;
    let request = chronolith_bucket::DeletionRequest::new(&[matchers.to_vec()], range, "", now_ms);
    request.write(&bucket).await.unwrap();
    DeletionWatch::new(Some(bucket))
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_of_deleted_series_are_not_told() {
    for cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (tenants, db) = open(&dir, &Labels::empty());
        let tenant = TenantId::new("a").unwrap();
        let one = |pairs: &[(&str, &str)]| {
            let points = (0..10).map(|k| (T0 + k * STEP_MS, k as f64)).collect();
            (Labels::from_pairs(pairs.iter().copied()).unwrap(), points)
        };
        write(
            &db,
            &tenant,
            &[
                one(&[("__name__", "m"), ("instance", "1"), ("job", "a")]),
                one(&[("__name__", "m"), ("instance", "1"), ("job", "b"), ("secret", "x")]),
                one(&[("__name__", "m"), ("instance", "2"), ("job", "b")]),
            ],
        );
        if cut {
            db.cut_all(&tenant).unwrap();
        }
        let deletions = deleting(&[Matcher::equal("job", "b")], TimeRange::new(T0, T0 + 8 * STEP_MS)).await;
        let store = TenantsStore::new(tenants).with_deletions(deletions);
        let before = TimeRange::new(T0, T0 + 8 * STEP_MS);
        let values = async |label: &str, range, matchers: &[Matcher]| {
            let request = LabelValuesRequest::new(label, range, matchers.to_vec());
            store.label_values(request).await.unwrap().values
        };
        let names = async |range, matchers: &[Matcher]| {
            let request = LabelNamesRequest::new(range, matchers.to_vec());
            store.label_names(request).await.unwrap().names
        };
        assert_eq!(values("job", before, &[]).await, ["a"], "{cut}");
        assert_eq!(values("instance", before, &[]).await, ["1"]);
        assert_eq!(values("job", before, &[Matcher::equal("__name__", "m")]).await, ["a"]);
        assert_eq!(values("tenant_id", before, &[]).await, ["a"]);
        assert_eq!(values("tenant_id", before, &[Matcher::equal("job", "b")]).await, [""; 0]);
        assert_eq!(names(before, &[]).await, ["__name__", "instance", "job", "tenant_id"]);
        assert_eq!(names(before, &[Matcher::equal("instance", "2")]).await, [""; 0]);
        let request = |range| SeriesRequest { skip_chunks: true, range, ..request() };
        assert_eq!(counts(store.series(request(before)).await.unwrap()).await.len(), 1);
        // The last sample of each is there.
        assert_eq!(values("job", TimeRange::ALL, &[]).await, ["a", "b"]);
        assert_eq!(names(TimeRange::ALL, &[]).await.len(), 5);
        assert_eq!(counts(store.series(request(TimeRange::ALL)).await.unwrap()).await.len(), 3);
    }
}
