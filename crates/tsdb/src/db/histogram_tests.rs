//! Native histograms, exemplars and metadata: what is written is readable, and is there again after any end of the process.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding};
use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterReset, Span};
use chronolith_model::write::encode_labels;
use chronolith_model::{
    Exemplar, FloatHistogram, Histogram, Labels, Matcher, MetricKind, MetricMetadata, STALE_NAN, Sample,
    SampleValue, TenantId, TimeRange, WriteBatch, WriteBatchBuilder, WriteHistogram, WriteMetadata,
    is_stale_nan,
};
use proptest::prelude::*;

use super::*;

/// A sample of any kind, in a form that compares.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Float(u64),
    Integer(Histogram),
    FloatHistogram(FloatHistogram),
    Stale(&'static str),
}

/// Series name to time to value.
type Model = BTreeMap<String, BTreeMap<i64, Value>>;

fn options(dir: &Path) -> DbOptions {
    DbOptions { clock: Arc::new(|| i64::MAX / 2), shards: 2, ..DbOptions::new(dir) }
}

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn section(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode_labels([("__name__", name), ("job", "test")], &mut out);
    out
}

fn histogram(n: i64) -> Histogram {
    Histogram {
        count: 7 * n as u64,
        sum: n as f64 * 1.5,
        zero_threshold: 1e-128,
        zero_count: n as u64,
        positive_spans: vec![Span { offset: 1, length: 2 }, Span { offset: 3, length: 1 }],
        positive_buckets: vec![n, 0, n],
        negative_spans: vec![Span { offset: -2, length: 1 }],
        negative_buckets: vec![2 * n],
        ..Histogram::default()
    }
}

fn custom(n: i64) -> Histogram {
    Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 2 * n as u64,
        sum: n as f64,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![n, 0],
        custom_values: vec![1.0, 2.5, 10.0],
        ..Histogram::default()
    }
}

fn integer(h: Histogram) -> WriteHistogram {
    WriteHistogram::Integer(Box::new(h))
}

fn float(h: Histogram) -> WriteHistogram {
    WriteHistogram::Float(Box::new(h.to_float()))
}

fn stale() -> WriteHistogram {
    integer(Histogram { sum: STALE_NAN, ..Histogram::default() })
}

#[derive(Clone, Debug)]
enum Row {
    Float(i64, f64),
    Histogram(i64, WriteHistogram),
}

fn batch(rows: &[(&str, &[Row])]) -> WriteBatch {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    for (name, samples) in rows {
        builder.push_series_bytes(&section(name));
        for row in *samples {
            match row {
                Row::Float(t, v) => builder.push_sample(Sample { t: *t, v: *v }),
                Row::Histogram(t, h) => builder.push_histogram(*t, h.clone()),
            }
        }
    }
    builder.finish(Bytes::new())
}

fn write(db: &Db, name: &str, rows: &[Row]) -> WriteOutcome {
    db.write(&tenant(), &batch(&[(name, rows)]))
}

fn write_all(db: &Db, name: &str, rows: &[Row]) {
    for row in rows {
        let outcome = write(db, name, std::slice::from_ref(row));
        assert_eq!((outcome.written, outcome.rejected_count), (1, 0), "{row:?} {:?}", outcome.rejected);
    }
    db.sync().unwrap();
}

/// Without what may differ by where a chunk began: the reset hint, and empty buckets.
fn plain(value: SampleValue) -> Value {
    match value {
        SampleValue::Float(v) => Value::Float(v.to_bits()),
        SampleValue::Histogram(h) if is_stale_nan(h.sum) => Value::Stale("integer"),
        SampleValue::FloatHistogram(h) if is_stale_nan(h.sum) => Value::Stale("float"),
        SampleValue::Histogram(h) => {
            let mut h = Histogram { counter_reset: CounterReset::Unknown, ..(*h).clone() };
            h.compact(0);
            Value::Integer(h)
        }
        SampleValue::FloatHistogram(h) => {
            let mut h = FloatHistogram { counter_reset: CounterReset::Unknown, ..(*h).clone() };
            h.compact(0);
            Value::FloatHistogram(h)
        }
    }
}

fn of_row(row: &Row) -> (i64, Value) {
    match row {
        Row::Float(t, v) => (*t, Value::Float(v.to_bits())),
        Row::Histogram(t, WriteHistogram::Integer(h)) => {
            (*t, plain(SampleValue::Histogram(Arc::new((**h).clone()))))
        }
        Row::Histogram(t, WriteHistogram::Float(h)) => {
            (*t, plain(SampleValue::FloatHistogram(Arc::new((**h).clone()))))
        }
    }
}

fn add(model: &mut Model, labels: &Labels, chunks: &[Chunk]) {
    let samples = model.entry(labels.metric_name().unwrap().to_owned()).or_default();
    for chunk in chunks {
        for sample in chunk.iter().unwrap() {
            let (t, value) = sample.unwrap();
            assert!(chunk.mint <= t && t <= chunk.maxt);
            samples.entry(t).or_insert_with(|| plain(value));
        }
    }
}

/// Everything in the head and in local blocks.
fn read(db: &Db) -> Model {
    let mut model = Model::new();
    for block in db.blocks(&tenant()) {
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let (labels, chunks) = series.unwrap();
            add(&mut model, &labels, &chunks);
        }
    }
    for series in db.head(&tenant()).into_iter().flat_map(|h| h.select(&[], TimeRange::ALL, false)) {
        add(&mut model, &series.labels, &series.chunks);
    }
    model
}

fn model_of(rows: &[(&str, &[Row])]) -> Model {
    rows.iter().map(|(n, rows)| ((*n).to_owned(), rows.iter().map(of_row).collect())).collect()
}

fn kinds(db: &Db, name: &str) -> Vec<Encoding> {
    let head = db.head(&tenant()).unwrap();
    let found = head.select(&[Matcher::equal("__name__", name)], TimeRange::ALL, false);
    found.flat_map(|s| s.chunks).map(|c| c.encoding).collect()
}

/// Series of all kinds, and changes of kind.
fn samples() -> Vec<(&'static str, Vec<Row>)> {
    let step = 15_000;
    let mut mixed: Vec<Row> = Vec::new();
    for i in 0..40 {
        mixed.push(match i / 5 % 4 {
            0 => Row::Float(i * step, i as f64),
            1 => Row::Histogram(i * step, integer(histogram(i + 1))),
            2 => Row::Histogram(i * step, float(histogram(i + 1))),
            _ => Row::Histogram(i * step, integer(custom(i + 1))),
        });
    }
    let gauge = |n| Histogram { counter_reset: CounterReset::Gauge, ..histogram(n) };
    vec![
        ("int", (0..300).map(|i| Row::Histogram(i * step, integer(histogram(i + 1)))).collect()),
        ("float", (0..300).map(|i| Row::Histogram(i * step, float(histogram(300 - i)))).collect()),
        ("custom", (0..50).map(|i| Row::Histogram(i * step, integer(custom(i + 1)))).collect()),
        ("gauge", (0..50).map(|i| Row::Histogram(i * step, integer(gauge(i * 37 % 11 + 1)))).collect()),
        ("mixed", mixed),
    ]
}

fn borrowed<'a>(rows: &'a [(&'static str, Vec<Row>)]) -> Vec<(&'a str, &'a [Row])> {
    rows.iter().map(|(n, r)| (*n, r.as_slice())).collect()
}

#[test]
fn histograms_survive_restarts_snapshots_and_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let rows = samples();
    let (first, second): (Vec<_>, Vec<_>) =
        rows.iter().map(|(n, r)| ((*n, r[..r.len() / 2].to_vec()), (*n, r[r.len() / 2..].to_vec()))).unzip();
    {
        let (db, _) = Db::open(options(dir.path())).unwrap();
        first.iter().for_each(|(n, r)| write_all(&db, n, r));
        assert_eq!(read(&db), model_of(&borrowed(&first)));
        assert_eq!(kinds(&db, "mixed")[..3], [Encoding::Xor, Encoding::Histogram, Encoding::FloatHistogram]);
        let stats = db.head(&tenant()).unwrap().stats(10);
        assert_eq!((stats.series_count, stats.min_time, stats.max_time), (5, 0, 149 * 15_000));
    }
    {
        let (db, report) = Db::open(options(dir.path())).unwrap();
        assert_eq!((report.samples, report.samples_without_series), (370, 0));
        assert_eq!(read(&db), model_of(&borrowed(&first)), "from the log");
        db.close().unwrap();
    }
    {
        let (db, report) = Db::open(options(dir.path())).unwrap();
        assert!(report.snapshot.is_some() && report.samples == 0, "{report:?}");
        assert_eq!(read(&db), model_of(&borrowed(&first)), "from the snapshot");
        second.iter().for_each(|(n, r)| write_all(&db, n, r));
        assert_eq!(read(&db), model_of(&borrowed(&rows)));
    }
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(read(&db), model_of(&borrowed(&rows)), "from snapshot and log");
    let before: Vec<_> = rows.iter().map(|(n, _)| kinds(&db, n)).collect();
    let metas = db.cut_all(&tenant()).unwrap();
    assert_eq!(metas.iter().map(|m| m.stats.num_histogram_samples).sum::<u64>(), 730);
    assert_eq!(metas.iter().map(|m| m.stats.num_float_samples).sum::<u64>(), 10);
    assert_eq!(db.head(&tenant()).unwrap().series_count(), 0);
    assert_eq!(read(&db), model_of(&borrowed(&rows)), "from blocks");
    assert!(before[0].iter().all(|e| *e == Encoding::Histogram));
    drop(db);
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(read(&db), model_of(&borrowed(&rows)), "from blocks, after a restart");
    // And goes on.
    let more = [Row::Histogram(400 * 15_000, integer(histogram(1000)))];
    write_all(&db, "int", &more);
    assert_eq!(read(&db)["int"].len(), 301);
}

#[test]
fn bad_and_late_histograms_are_refused_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    let bad = integer(Histogram { count: 1, ..histogram(5) });
    let huge = integer(Histogram {
        positive_spans: vec![Span { offset: 0, length: 20_000 }],
        positive_buckets: vec![0; 20_000],
        ..Histogram::default()
    });
    let rows = [
        Row::Histogram(1000, integer(histogram(1))),
        Row::Histogram(2000, bad),
        Row::Histogram(2000, huge),
        Row::Histogram(2000, integer(Histogram { schema: 9, ..histogram(2) })),
        Row::Histogram(2000, integer(Histogram { schema: 53, ..histogram(2) })),
        Row::Histogram(3000, integer(histogram(3))),
        Row::Histogram(3000, integer(histogram(3))),
        Row::Histogram(3000, integer(histogram(4))),
        Row::Histogram(3000, float(histogram(3))),
        Row::Histogram(2500, integer(histogram(3))),
    ];
    let outcome = write(&db, "h", &rows);
    let reasons: Vec<_> = outcome.rejected.iter().map(|r| (r.reason.kind(), r.t)).collect();
    let want = [
        ("invalid_histogram", 2000),
        ("invalid_histogram", 2000),
        ("invalid_histogram", 2000),
        ("duplicate_timestamp", 3000),
        ("duplicate_timestamp", 3000),
        ("out_of_order", 2500),
    ];
    assert_eq!(reasons, want, "{:?}", outcome.rejected);
    assert_eq!((outcome.written, outcome.histograms_written, outcome.rejected_count), (4, 4, 6));
    assert!(outcome.rejected[0].reason.to_string().contains("histogram's observation count should equal"));
    // A float at a histogram's time, and the other way round.
    assert_eq!(write(&db, "h", &[Row::Float(3000, 1.0)]).rejected[0].reason.kind(), "duplicate_timestamp");
    assert_eq!(write(&db, "h", &[Row::Float(4000, 1.0)]).written, 1);
    let late = write(&db, "h", &[Row::Histogram(4000, integer(histogram(9)))]);
    assert_eq!(late.rejected[0].reason.kind(), "duplicate_timestamp");
    assert_eq!(read(&db)["h"].len(), 4);
}

#[test]
fn stale_markers_become_the_series_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    let check = |db: &Db| {
        let model = read(db);
        assert_eq!(model["int"][&2000], Value::Stale("integer"));
        assert_eq!(model["float"][&2000], Value::Stale("float"));
        assert_eq!(model["direct"][&2000], Value::Stale("integer"));
        assert_eq!(model["plain"][&2000], Value::Float(STALE_NAN.to_bits()));
        assert_eq!(model["int"].len(), 3, "goes on after the marker");
    };
    write_all(&db, "int", &[Row::Histogram(1000, integer(histogram(1))), Row::Float(2000, STALE_NAN)]);
    write_all(&db, "int", &[Row::Histogram(3000, integer(histogram(1)))]);
    write_all(&db, "float", &[Row::Histogram(1000, float(histogram(1))), Row::Float(2000, STALE_NAN)]);
    write_all(&db, "direct", &[Row::Histogram(1000, integer(histogram(1))), Row::Histogram(2000, stale())]);
    write_all(&db, "plain", &[Row::Float(1000, 1.0), Row::Float(2000, STALE_NAN)]);
    // A repeated request is no conflict.
    write_all(&db, "float", &[Row::Float(2000, STALE_NAN)]);
    check(&db);
    drop(db);
    let (db, _) = Db::open(options(dir.path())).unwrap();
    check(&db);
    db.close().unwrap();
    drop(db);
    let (db, _) = Db::open(options(dir.path())).unwrap();
    check(&db);
}

#[test]
fn late_histograms_inside_the_window_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let options = || DbOptions { out_of_order_window_ms: 3_600_000, ..options(dir.path()) };
    let minute = 60_000;
    let all: Vec<Row> = (0..200)
        .map(|i| match i % 3 {
            0 => Row::Histogram(i * minute / 4, float(histogram(i + 1))),
            1 => Row::Float(i * minute / 4, i as f64),
            _ => Row::Histogram(i * minute / 4, integer(histogram(i + 1))),
        })
        .collect();
    {
        let (db, _) = Db::open(options()).unwrap();
        // The last first, then all others in a mixed order.
        write_all(&db, "h", &all[199..]);
        for i in 0..199 {
            write_all(&db, "h", &all[i * 37 % 199..][..1]);
        }
        // What is there is a repetition, something else at its time a conflict, before and after it was encoded.
        for i in [0, 5, 100, 198] {
            write_all(&db, "h", &all[i..=i]);
        }
        let late = write(&db, "h", &[Row::Histogram(199 * minute / 4, integer(histogram(5)))]);
        assert_eq!(late.rejected[0].reason.kind(), "duplicate_timestamp");
        let far = write(&db, "h", &[Row::Histogram(-60 * minute, integer(histogram(5)))]);
        assert_eq!(far.rejected[0].reason.kind(), "too_old");
        assert_eq!(read(&db), model_of(&[("h", &all)]));
    }
    {
        let (db, _) = Db::open(options()).unwrap();
        assert_eq!(read(&db), model_of(&[("h", &all)]), "from the log");
        db.close().unwrap();
    }
    let (db, _) = Db::open(options()).unwrap();
    assert_eq!(read(&db), model_of(&[("h", &all)]), "from the snapshot");
    let metas = db.cut_all(&tenant()).unwrap();
    assert_eq!(metas.iter().map(|m| m.stats.num_samples).sum::<u64>(), 200);
    assert_eq!(metas.iter().map(|m| m.stats.num_histogram_samples).sum::<u64>(), 133);
    assert_eq!(read(&db), model_of(&[("h", &all)]), "from the block");
}

#[test]
fn large_histograms_are_chunks_as_large_as_they_must_be() {
    let dir = tempfile::tempdir().unwrap();
    let large = |n: i64| {
        let buckets: Vec<i64> =
            (0..10_000).map(|i| n * 1_000_003 * if i % 2 == 0 { 1 } else { -1 }).collect();
        let count = 5_000 * n as u64 * 1_000_003;
        integer(Histogram {
            count,
            positive_spans: vec![Span { offset: 0, length: 10_000 }],
            positive_buckets: buckets,
            ..Histogram::default()
        })
    };
    let rows: Vec<Row> = (0..25).map(|i| Row::Histogram(i * 15_000, large(i + 1))).collect();
    {
        let (db, _) = Db::open(options(dir.path())).unwrap();
        write_all(&db, "h", &rows);
        let head = db.head(&tenant()).unwrap();
        let chunks = head.select(&[], TimeRange::ALL, false).next().unwrap().chunks;
        assert!(chunks[0].data.len() > 65_535 && chunks[0].sample_count().unwrap() == 10, "{chunks:?}");
        assert_eq!(read(&db), model_of(&[("h", &rows)]));
        db.close().unwrap();
    }
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(read(&db), model_of(&[("h", &rows)]));
    db.cut_all(&tenant()).unwrap();
    assert_eq!(read(&db), model_of(&[("h", &rows)]));
}

fn exemplar(trace: &str, value: f64, t: i64) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", trace)]).unwrap(), value, t }
}

fn write_exemplars(db: &Db, name: &str, exemplars: &[Exemplar]) -> WriteOutcome {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    builder.push_series_bytes(&section(name));
    builder.push_sample(Sample { t: exemplars[0].t, v: 1.0 });
    exemplars.iter().for_each(|e| builder.push_exemplar(e.clone()));
    db.write(&tenant(), &builder.finish(Bytes::new()))
}

fn write_metadata(db: &Db, entries: &[(&str, MetricKind, &str)]) -> WriteOutcome {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    for (metric, kind, help) in entries {
        let says = MetricMetadata { kind: *kind, help: (*help).to_owned(), unit: String::new() };
        builder.push_metadata(WriteMetadata { metric: (*metric).to_owned(), says });
    }
    db.write(&tenant(), &builder.finish(Bytes::new()))
}

#[test]
fn exemplars_and_metadata_survive_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let options = || DbOptions { exemplars_max: 4, replay_threads: 1, ..options(dir.path()) };
    let find = |db: &Db, name: &str| -> Vec<String> {
        let found =
            db.head(&tenant()).unwrap().exemplars(&[vec![Matcher::equal("__name__", name)]], TimeRange::ALL);
        found.iter().flat_map(|(_, e)| e).map(|e| e.labels.get("trace_id").unwrap().to_owned()).collect()
    };
    let says = |db: &Db| -> Vec<String> {
        let mut all = db.head(&tenant()).unwrap().metadata(None);
        all.sort();
        all.iter().map(|(m, says)| format!("{m} {} {}", says[0].kind.as_str(), says[0].help)).collect()
    };
    {
        let (db, _) = Db::open(options()).unwrap();
        let outcome = write_exemplars(&db, "a", &[exemplar("1", 1.0, 1000), exemplar("2", 1.0, 2000)]);
        assert_eq!((outcome.exemplars_written, outcome.exemplars_rejected), (2, 0));
        let outcome = write_exemplars(&db, "a", &[exemplar("3", 1.0, 1500), exemplar("2", 1.0, 2000)]);
        assert_eq!((outcome.exemplars_written, outcome.exemplars_rejected), (1, 1));
        assert_eq!(outcome.rejected_count, 0, "an exemplar that is refused does not fail the write");
        write_exemplars(&db, "b", &[exemplar("4", 1.0, 1000)]).commit.wait().unwrap();
        let outcome = write_metadata(&db, &[("a", MetricKind::Gauge, "help"), ("b", MetricKind::Info, "ü")]);
        outcome.commit.wait().unwrap();
        assert_eq!(find(&db, "a"), ["1", "2"]);
    }
    {
        let (db, _) = Db::open(options()).unwrap();
        assert_eq!((find(&db, "a"), find(&db, "b")), (vec!["1".into(), "2".into()], vec!["4".to_owned()]));
        assert_eq!(says(&db), ["a gauge help", "b info ü"]);
        db.close().unwrap();
    }
    let (db, report) = Db::open(options()).unwrap();
    assert!(report.snapshot.is_some());
    assert_eq!((find(&db, "a").len(), find(&db, "b").len()), (2, 1));
    assert_eq!(says(&db), ["a gauge help", "b info ü"]);
    // The oldest goes first, also after a restart; series may leave the head before their exemplars.
    write_exemplars(&db, "b", &[exemplar("5", 1.0, 5000), exemplar("6", 1.0, 6000)]).commit.wait().unwrap();
    assert_eq!((find(&db, "a"), find(&db, "b").len()), (vec!["2".to_owned()], 3));
    db.cut_all(&tenant()).unwrap();
    assert_eq!(db.head(&tenant()).unwrap().series_count(), 0);
    drop(db);
    let (db, _) = Db::open(options()).unwrap();
    assert_eq!((find(&db, "a"), find(&db, "b").len()), (vec!["2".to_owned()], 3));
    assert_eq!(says(&db).len(), 2);
}

/// What a random run does.
#[derive(Clone, Debug)]
enum Do {
    Write(u8, i64, u8, i64),
    Restart,
    Close,
    CutAll,
    CutDue,
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let one = prop_oneof![
        40 => (0..3u8, 0..400i64, 0..5u8, 1..50i64).prop_map(|(s, t, k, n)| Do::Write(s, t, k, n)),
        1 => Just(Do::Restart),
        1 => Just(Do::Close),
        1 => Just(Do::CutAll),
        1 => Just(Do::CutDue),
    ];
    prop::collection::vec(one, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever was accepted is there, once, whatever happens to the process, with and without a window.
    #[test]
    fn accepted_samples_of_any_kind_stay(steps in steps(), window in prop_oneof![Just(0i64), Just(100_000i64)]) {
        let dir = tempfile::tempdir().unwrap();
        let options =
            || DbOptions { block_range_ms: 100_000, out_of_order_window_ms: window, ..options(dir.path()) };
        let mut db = Db::open(options()).unwrap().0;
        let (mut model, mut doubled) = (Model::new(), BTreeSet::new());
        for step in steps {
            match step {
                Do::Write(series, t, kind, n) => {
                    let t = t * 1000;
                    let row = match kind {
                        0 => Row::Float(t, n as f64),
                        1 => Row::Histogram(t, integer(histogram(n))),
                        2 => Row::Histogram(t, float(histogram(n))),
                        3 => Row::Histogram(t, integer(custom(n))),
                        _ => Row::Histogram(t, stale()),
                    };
                    let name = ["a", "b", "c"][usize::from(series)];
                    if write(&db, name, std::slice::from_ref(&row)).written == 1 {
                        let (t, value) = of_row(&row);
                        match model.entry(name.to_owned()).or_default().entry(t) {
                            Entry::Vacant(entry) => drop(entry.insert(value)),
                            // What lies in a block is not known to the head: either may stand.
                            Entry::Occupied(_) => drop(doubled.insert((name, t))),
                        }
                    }
                }
                Do::Restart => {
                    db.sync().unwrap();
                    drop(db);
                    db = Db::open(options()).unwrap().0;
                }
                Do::Close => {
                    db.close().unwrap();
                    drop(db);
                    db = Db::open(options()).unwrap().0;
                }
                Do::CutAll => drop(db.cut_all(&tenant())),
                Do::CutDue => drop(db.cut_due().unwrap()),
            }
        }
        let got = read(&db);
        for (name, samples) in &model {
            for (t, value) in samples {
                let found = got.get(name).and_then(|s| s.get(t));
                prop_assert!(found.is_some(), "{} at {}: {:?} is gone", name, t, value);
            }
        }
        let count = |m: &Model| m.values().map(BTreeMap::len).sum::<usize>();
        prop_assert_eq!(count(&got), count(&model));
        for (name, samples) in &model {
            for (t, value) in samples.iter().filter(|(t, _)| !doubled.contains(&(name.as_str(), **t))) {
                prop_assert_eq!(&got[name][t], value, "{} at {}", name, t);
            }
        }
    }
}
