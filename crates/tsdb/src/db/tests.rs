//! Tests of the database as a whole: what is written is readable, and is there again after any end of the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use chronolith_chunk::SampleColumns;
use chronolith_model::write::encode_labels;
use chronolith_model::{Labels, Matcher, Sample, TenantId, TimeRange, WriteBatch, WriteBatchBuilder};
use proptest::prelude::*;

mod cuts;
mod damage;
mod keys;
mod model;
mod snapshots;
mod spill;
mod tenant_options;

use super::*;
use crate::head::{HeadSelect, HeadSeries, RejectReason};

/// Series name to time to value.
type Model = BTreeMap<String, BTreeMap<i64, f64>>;
/// Label section and samples.
type Row = (Vec<u8>, Vec<(i64, f64)>);

fn options(dir: &Path) -> DbOptions {
    DbOptions { clock: Arc::new(|| i64::MAX / 2), shards: 4, ..DbOptions::new(dir) }
}

fn section(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_labels(pairs.iter().copied(), &mut out);
    out
}

fn batch(rows: &[Row]) -> WriteBatch {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    for (section, samples) in rows {
        builder.push_series_bytes(section);
        for (t, v) in samples {
            builder.push_sample(Sample { t: *t, v: *v });
        }
    }
    builder.finish(Bytes::new())
}

fn named(name: &str) -> Vec<u8> {
    section(&[("__name__", name), ("job", "test")])
}

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn write(db: &Db, rows: &[Row]) -> WriteOutcome {
    db.write(&tenant(), &batch(rows))
}

fn write_one(db: &Db, name: &str, samples: &[(i64, f64)]) -> WriteOutcome {
    write(db, &[(named(name), samples.to_vec())])
}

/// Everything in a head that nobody writes to meanwhile; whoever wants the newest samples only gets these.
fn read_head(db: &Db) -> Model {
    let Some(head) = db.head(&tenant()) else { return Model::new() };
    let times = head.time_range().into_iter().flat_map(|r| [r.maxt, r.maxt - 1, (r.mint + r.maxt) / 2]);
    for range in times.map(|maxt| TimeRange::new(i64::MIN, maxt)).chain([TimeRange::ALL]) {
        let newest = |select: HeadSelect| -> BTreeMap<Labels, (i64, f64)> {
            let sample = |series: &HeadSeries| {
                let mut columns = SampleColumns::default();
                series.chunks.iter().for_each(|c| c.decode_into(range, &mut columns).unwrap());
                columns.ts.iter().copied().zip(columns.values.iter().copied()).max_by_key(|(t, _)| *t)
            };
            select.filter_map(|series| sample(&series).map(|s| (series.labels, s))).collect()
        };
        assert_eq!(newest(head.select_newest(&[], range)), newest(head.select(&[], range, false)));
    }
    read_busy_head(db)
}

/// Everything in the head, by metric name; equal times of overlapping chunks once.
fn read_busy_head(db: &Db) -> Model {
    let mut model = Model::new();
    let Some(head) = db.head(&tenant()) else { return model };
    let mut last: Option<Labels> = None;
    for series in head.select(&[], TimeRange::ALL, false) {
        assert!(last.as_ref().is_none_or(|l| *l < series.labels), "sorted and unique");
        let samples = model.entry(series.labels.metric_name().unwrap().to_owned()).or_default();
        for chunk in &series.chunks {
            let mut columns = SampleColumns::default();
            chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
            for (t, v) in columns.ts.iter().zip(&columns.values) {
                samples.entry(*t).or_insert(*v);
            }
        }
        last = Some(series.labels);
    }
    model
}

fn model_of(rows: &[(&str, &[(i64, f64)])]) -> Model {
    rows.iter().map(|(n, s)| ((*n).to_owned(), s.iter().copied().collect())).collect()
}

/// Everything in the local blocks, by metric name, and how many samples stand in more than one of them.
fn read_blocks(db: &Db) -> (Model, usize) {
    let (mut model, mut twice) = (Model::new(), 0);
    for block in db.blocks(&tenant()) {
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let (labels, chunks) = series.unwrap();
            let samples = model.entry(labels.metric_name().unwrap().to_owned()).or_default();
            for chunk in &chunks {
                let mut columns = SampleColumns::default();
                chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
                for (t, v) in columns.ts.iter().zip(&columns.values) {
                    twice += usize::from(samples.insert(*t, *v).is_some());
                }
            }
        }
    }
    (model, twice)
}

/// Head and blocks together.
fn read_all(db: &Db) -> Model {
    let mut all = read_blocks(db).0;
    for (name, samples) in read_head(db) {
        all.entry(name).or_default().extend(samples);
    }
    all
}

const HOUR: i64 = 3_600_000;

fn hours(from: i64, to: i64) -> Vec<(i64, f64)> {
    (from * 4..to * 4).map(|i| (i * HOUR / 4, i as f64)).collect()
}

#[test]
fn writes_are_read_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<(i64, f64)> = (0..500).map(|i| (i * 15_000, i as f64 / 3.0)).collect();
    {
        let (db, _) = Db::open(options(dir.path())).unwrap();
        for chunk in samples.chunks(7) {
            let outcome = write(&db, &[(named("a"), chunk.to_vec()), (named("b"), chunk.to_vec())]);
            assert_eq!((outcome.written, outcome.rejected_count), (2 * chunk.len(), 0));
            outcome.commit.wait().unwrap();
        }
        assert_eq!(read_head(&db), model_of(&[("a", &samples), ("b", &samples)]));
        let head = db.head(&tenant()).unwrap();
        assert_eq!(head.series_count(), 2);
        assert_eq!(head.label_names(&[], TimeRange::ALL), ["__name__", "job"]);
        assert_eq!(head.label_values("__name__", &[], TimeRange::ALL), ["a", "b"]);
        let m = [Matcher::equal("__name__", "b")];
        assert_eq!(head.label_values("__name__", &m, TimeRange::ALL), ["b"]);
        assert_eq!(head.select(&m, TimeRange::new(0, 10), true).count(), 1);
        assert_eq!(head.select(&m, TimeRange::new(-10, -1), true).count(), 0);
        let stats = head.stats(10);
        assert_eq!((stats.series_count, stats.label_pair_count, stats.chunk_count), (2, 3, 10));
        assert_eq!((stats.min_time, stats.max_time), (0, 499 * 15_000));
    }
    let (db, report) = Db::open(options(dir.path())).unwrap();
    assert_eq!((report.samples, report.samples_without_series), (1000, 0));
    assert!(report.dropped.is_empty(), "{report:?}");
    assert_eq!(read_head(&db), model_of(&[("a", &samples), ("b", &samples)]));
    // And goes on.
    assert_eq!(write_one(&db, "a", &[(500 * 15_000, 1.0)]).written, 1);
}

#[test]
fn samples_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_000_000));
    let clock = Arc::clone(&now);
    let (db, _) =
        Db::open(DbOptions { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..options(dir.path()) })
            .unwrap();
    let kinds = |o: &WriteOutcome| o.rejected.iter().map(|r| r.reason.kind()).collect::<Vec<_>>();
    assert_eq!(write_one(&db, "a", &[(1000, 1.0)]).rejected_count, 0);
    let again = write_one(&db, "a", &[(1000, 1.0)]);
    assert_eq!((again.written, again.rejected_count), (1, 0));
    again.commit.wait().unwrap();
    let outcome = write_one(&db, "a", &[(1000, 2.0), (500, 1.0), (2000, 5.0), (1_600_001, 0.0)]);
    assert_eq!(kinds(&outcome), ["duplicate_timestamp", "out_of_order", "out_of_bounds"]);
    assert_eq!((outcome.written, outcome.rejected[1].t), (1, 500));
    assert_eq!(outcome.rejected[0].series, r#"{__name__="a", job="test"}"#);
    let outcome = write(
        &db,
        &[
            (section(&[("job", "x")]), vec![(1, 1.0), (2, 2.0)]),
            (vec![0xFF, 0x01], vec![(1, 1.0)]),
            (named("good"), vec![(1, 1.0)]),
            (section(&[("__name__", "x"), ("a", "1"), ("a", "2")]), vec![(1, 1.0)]),
        ],
    );
    assert_eq!((outcome.written, outcome.rejected_count), (1, 4));
    let mut got = kinds(&outcome);
    got.sort_unstable();
    assert_eq!(got, ["duplicate_label", "malformed_labels", "missing_metric_name"]);
    let nan = f64::from_bits(0x7ff0_0000_0000_0002);
    assert_eq!(write_one(&db, "a", &[(3000, nan)]).written, 1);
    assert_eq!(write_one(&db, "a", &[(3000, nan)]).rejected_count, 0);
    let limited = DbOptions { limits: Limits { series_max: 2, ..Limits::default() }, ..db.options().clone() };
    drop(db);
    let (db, _) = Db::open(limited).unwrap();
    assert_eq!(write_one(&db, "third", &[(1, 1.0)]).rejected[0].reason, RejectReason::SeriesLimit(2));
}

#[test]
fn every_spelling_of_a_label_set_is_the_same_series() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    let canonical = section(&[("__name__", "up"), ("a", "1"), ("b", "2")]);
    let unsorted = section(&[("b", "2"), ("__name__", "up"), ("a", "1")]);
    let with_empty = section(&[("__name__", "up"), ("a", "1"), ("b", "2"), ("c", "")]);
    // The outer length as a varint that is longer than needed.
    let mut long_varint = canonical.clone();
    long_varint[1] |= 0x80;
    long_varint.insert(2, 0);
    for round in 0..3 {
        for (i, s) in [&unsorted, &canonical, &with_empty, &long_varint].into_iter().enumerate() {
            let outcome = write(&db, &[(s.clone(), vec![(round * 100 + i as i64, 1.0)])]);
            assert_eq!((outcome.written, outcome.rejected_count), (1, 0), "{round} {i}");
        }
    }
    assert_eq!(db.head(&tenant()).unwrap().series_count(), 1);
    assert_eq!(read_head(&db)["up"].len(), 12);
}

#[test]
fn months_old_data_and_the_ends_of_time_are_taken_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    // Times beyond are no JSON numbers.
    let times = [-(1 << 53), -7_200_001, -5, 0, 5, 1_600_000_000_000, 1 << 53];
    assert_eq!(write_one(&db, "a", &[(i64::MIN, 1.0)]).rejected_count, 1);
    for t in times {
        assert_eq!(write_one(&db, "a", &[(t, t as f64)]).rejected_count, 0, "{t}");
    }
    assert_eq!(write_one(&db, "a", &[(i64::MAX, 1.0)]).rejected_count, 1);
    assert_eq!(read_head(&db)["a"].keys().copied().collect::<Vec<_>>(), times);
    drop(db);
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(read_head(&db)["a"].keys().copied().collect::<Vec<_>>(), times);
}

#[test]
fn selections_stay_right_while_series_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Series live until the next cut; their slots and symbols then serve others.
        scope.spawn(|| {
            for i in 0..3000i64 {
                let (name, value) = (format!("s{}", i % 100), i.to_string());
                let mut pairs = vec![("__name__", name.as_str()), ("n", &value), ("z", "constant")];
                pairs.truncate(2 + i as usize % 2);
                assert_eq!(write(&db, &[(section(&pairs), vec![(i * 1000, i as f64)])]).written, 1);
                if i % 250 == 249 {
                    db.cut_all(&tenant()).unwrap();
                }
            }
            stop.store(true, Ordering::Release);
        });
        while !stop.load(Ordering::Acquire) {
            let Some(head) = db.head(&tenant()) else { continue };
            let mut last: Option<Labels> = None;
            for series in head.select(&[], TimeRange::ALL, false) {
                assert!(last.as_ref().is_none_or(|l| *l < series.labels), "{last:?} {:?}", series.labels);
                let n: f64 = series.labels.get("n").unwrap().parse().unwrap();
                let mut columns = SampleColumns::default();
                series.chunks[0].decode_into(TimeRange::ALL, &mut columns).unwrap();
                assert_eq!(columns.values, [n], "{:?}", series.labels);
                last = Some(series.labels);
            }
        }
    });
}

#[test]
fn label_names_and_values_are_those_of_matching_series() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    for i in 0..40i64 {
        let (job, host) = (format!("j{}", i % 3), format!("h{i:02}"));
        let pairs = [("__name__", "up"), ("host", host.as_str()), ("job", &job), ("only0", "x")];
        let pairs = &pairs[..if i % 3 == 0 { 4 } else { 3 }];
        assert_eq!(write(&db, &[(section(pairs), vec![(i * 1000, 1.0)])]).written, 1);
    }
    let head = db.head(&tenant()).unwrap();
    let job = [Matcher::equal("job", "j1")];
    let hosts = |of: &[i64]| of.iter().map(|i| format!("h{i:02}")).collect::<Vec<_>>();
    let of_job: Vec<i64> = (0..40).filter(|i| i % 3 == 1).collect();
    // The range is that of the head or none, whatever part of it is asked for. `job` has fewer values than there are
    // series of `j1`, `host` has more: the lists are looked at, or the series.
    for range in [TimeRange::ALL, TimeRange::new(2000, 8000)] {
        assert_eq!(head.label_names(&job, range), ["__name__", "host", "job"]);
        assert_eq!(head.label_names(&[], range), ["__name__", "host", "job", "only0"]);
        let some = [Matcher::equal("__name__", "up")];
        assert_eq!(head.label_names(&some, range), ["__name__", "host", "job", "only0"]);
        assert_eq!(head.label_values("only0", &job, range), Vec::<String>::new());
        assert_eq!(head.label_values("none", &[], range), Vec::<String>::new());
        assert_eq!(head.label_values("job", &[], range), ["j0", "j1", "j2"]);
        assert_eq!(head.label_values("job", &job, range), ["j1"]);
        assert_eq!(head.label_values("host", &job, range), hosts(&of_job));
        assert_eq!(head.label_values("host", &[], range), hosts(&(0..40).collect::<Vec<_>>()));
    }
    assert_eq!(head.label_values("host", &[], TimeRange::new(39_001, 50_000)), Vec::<String>::new());
    assert_eq!(head.label_names(&[], TimeRange::new(-10, -1)), Vec::<String>::new());
}

#[test]
fn tenants_share_the_log_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<TenantId> = (0..20).map(|i| TenantId::new(&format!("team {i}")).unwrap()).collect();
    {
        let (db, _) = Db::open(options(dir.path())).unwrap();
        for (i, id) in ids.iter().enumerate() {
            let _ = db.write(id, &batch(&[(named(&format!("m{i}")), vec![(1, i as f64)])]));
        }
        db.close().unwrap();
        assert!(matches!(write_one(&db, "x", &[(1, 1.0)]).commit.wait(), Err(WalError::Closed)));
    }
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(db.tenants().len(), 20);
    for (i, id) in ids.iter().enumerate() {
        let names = db.head(id).unwrap().label_values("__name__", &[], TimeRange::ALL);
        assert_eq!(names, [format!("m{i}")]);
    }
    assert!(matches!(Db::open(options(dir.path())), Err(DbError::Locked(_))));
}
