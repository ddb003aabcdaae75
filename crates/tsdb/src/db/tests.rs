//! Tests of the database as a whole: what is written is readable, and is there again after any end of the process.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use chronolith_chunk::SampleColumns;
use chronolith_model::write::encode_labels;
use chronolith_model::{Labels, Matcher, Sample, TenantId, TimeRange, WriteBatch, WriteBatchBuilder};
use parking_lot::Mutex;
use proptest::prelude::*;

mod keys;
mod spill;
mod tenant_options;

use super::*;
use crate::head::{HeadSelect, HeadSeries, RejectReason};
use crate::wal::SegmentWriter;

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
fn heads_are_cut_into_aligned_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let all = hours(1, 8);
    {
        let (db, _) = Db::open(options(dir.path())).unwrap();
        let _ = write(&db, &[(named("a"), all.clone()), (named("old"), hours(1, 2))]);
        assert!(db.is_cut_due());
        let cut = db.cut_due().unwrap();
        let times: Vec<_> = cut.iter().map(|c| (c.meta.min_time / HOUR, c.meta.max_time / HOUR)).collect();
        assert_eq!(times, [(0, 2), (2, 4), (4, 6)]);
        assert_eq!(db.cut_due().unwrap().len(), 0);
        let head = db.head(&tenant()).unwrap();
        assert_eq!(head.time_range().unwrap().mint, 6 * HOUR);
        assert_eq!((head.min_valid_time(), head.series_count()), (6 * HOUR, 1));
        assert_eq!(head.label_values("__name__", &[], TimeRange::ALL), ["a"]);
        assert_eq!(read_all(&db), model_of(&[("a", &all), ("old", &hours(1, 2))]));
        // What lies in blocks is not taken again.
        assert_eq!(write_one(&db, "new", &[(HOUR, 1.0)]).rejected[0].reason, RejectReason::OutOfBounds);
        assert_eq!(write_one(&db, "old", &[(7 * HOUR, 1.0)]).written, 1);
    }
    let (db, report) = Db::open(options(dir.path())).unwrap();
    assert_eq!(report.samples_without_series, 0);
    let mut old = hours(1, 2);
    old.push((7 * HOUR, 1.0));
    assert_eq!(read_all(&db), model_of(&[("a", &all), ("old", &old)]));
    assert_eq!(read_head(&db), model_of(&[("a", &hours(6, 8)), ("old", &[(7 * HOUR, 1.0)])]));
    let ids: Vec<_> = db.blocks(&tenant()).iter().map(|b| b.id()).collect();
    for id in ids {
        db.drop_block(&tenant(), id).unwrap();
    }
    drop(db);
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(read_all(&db), read_head(&db));
    assert_eq!(db.head(&tenant()).unwrap().min_valid_time(), 6 * HOUR);
}

#[test]
fn a_cut_of_everything_bars_no_times() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Db::open(DbOptions { out_of_order_window_ms: HOUR, ..options(dir.path()) }).unwrap().0;
    {
        let db = open();
        let _ = write(&db, &[(named("a"), hours(1, 3)), (named("b"), hours(1, 2))]);
        let _ = write_one(&db, "a", &[(2 * HOUR + 1, 0.5)]);
        let blocks = db.cut_all(&tenant()).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!(blocks[1].max_time, 11 * HOUR / 4 + 1);
        assert_eq!((db.head(&tenant()).unwrap().series_count(), read_head(&db).len()), (0, 0));
        assert!(db.head(&tenant()).unwrap().bytes() < 10_000);
        // A scrape that was under way.
        assert_eq!(write_one(&db, "b", &[(2 * HOUR, 8.0)]).rejected_count, 0);
        assert_eq!(db.cut_all(&tenant()).unwrap().len(), 1);
        assert_eq!(write_one(&db, "b", &[(2 * HOUR + 5, 9.0)]).rejected_count, 0);
    }
    let db = open();
    let mut a = hours(1, 3);
    a.push((2 * HOUR + 1, 0.5));
    let mut b = hours(1, 2);
    b.extend([(2 * HOUR, 8.0), (2 * HOUR + 5, 9.0)]);
    assert_eq!(read_all(&db), model_of(&[("a", &a), ("b", &b)]));
    assert_eq!(read_head(&db), model_of(&[("b", &[(2 * HOUR + 5, 9.0)])]));
    assert_eq!(read_blocks(&db).1, 0);
}

#[test]
fn a_crash_at_any_step_of_a_cut_leaves_the_old_state_or_the_new_one() {
    use cut::Step;
    for everything in [false, true] {
        for stop in
            [Step::Logged, Step::Planned, Step::Block, Step::Written, Step::Committed, Step::Truncated]
        {
            let dir = tempfile::tempdir().unwrap();
            let with_window = DbOptions { out_of_order_window_ms: 10 * HOUR, ..options(dir.path()) };
            let late = [(HOUR + 7, 0.5), (5 * HOUR + 7, 0.25)];
            {
                let (db, _) = Db::open(with_window.clone()).unwrap();
                let _ = write(&db, &[(named("a"), hours(1, 6)), (named("b"), hours(1, 2))]);
                let _ = write_one(&db, "a", &late);
                let t = db.tenant(&tenant()).unwrap();
                let time = if everything { i64::MAX } else { 4 * HOUR };
                let crashed = db.cut(&t, time, &mut |step| {
                    if step == Step::Block {
                        // Meanwhile life goes on, late samples included.
                        let _ = write_one(&db, "a", &[(6 * HOUR, 24.0), (HOUR + 9, 0.75)]);
                    }
                    if step == stop { Err(DbError::InvalidOption("crash".to_owned())) } else { Ok(()) }
                });
                assert!(crashed.is_err());
                db.sync().unwrap();
            }
            for _ in 0..2 {
                let (db, report) = Db::open(with_window.clone()).unwrap();
                assert_eq!(report.samples_without_series, 0);
                let mut a = hours(1, 6);
                a.extend(late);
                if !matches!(stop, Step::Logged | Step::Planned) {
                    a.extend([(6 * HOUR, 24.0), (HOUR + 9, 0.75)]);
                }
                assert_eq!(
                    read_all(&db),
                    model_of(&[("a", &a), ("b", &hours(1, 2))]),
                    "{stop:?} {everything}"
                );
                let committed = matches!(stop, Step::Committed | Step::Truncated);
                assert_eq!(db.blocks(&tenant()).is_empty(), !committed, "{stop:?}");
                // No sample is in a block and in the head.
                let (in_blocks, twice) = read_blocks(&db);
                let in_head: usize = read_head(&db).values().map(BTreeMap::len).sum();
                let in_blocks: usize = in_blocks.values().map(BTreeMap::len).sum();
                assert_eq!((twice, in_head + in_blocks), (0, a.len() + 4), "{stop:?} {everything}");
            }
        }
    }
}

#[test]
fn a_restart_from_a_snapshot_is_the_same_as_one_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let with_window =
        DbOptions { out_of_order_window_ms: HOUR, wal_segment_bytes_max: 4000, ..options(dir.path()) };
    let open = || Db::open(with_window.clone()).unwrap();
    let mut expected = Model::new();
    for round in 0..4i64 {
        let (db, report) = open();
        assert_eq!(report.snapshot.is_some(), round > 0, "{report:?}");
        assert!(
            report.samples_without_series == 0
                && report.dropped.is_empty()
                && report.snapshots_refused.is_empty()
        );
        assert_eq!(read_head(&db), expected);
        for i in 0..300 {
            let t = round * 1_000_000 + i * 1000;
            let row = vec![(t, i as f64 * 0.7)];
            let late = vec![(t - 500, 1.0)];
            let rows = [(named("a"), row.clone()), (named(&format!("r{round}_{}", i % 40)), row)];
            assert_eq!(write(&db, &rows).rejected_count, 0);
            assert_eq!(write(&db, &[(named("a"), late)]).rejected_count, 0);
            if i == 150 {
                db.snapshot().unwrap();
            }
        }
        expected = read_head(&db);
        assert_eq!(expected["a"].len(), 600 * (round as usize + 1));
        match round {
            // Closed, dropped without a snapshot, and with a snapshot that is damaged afterwards.
            0 | 1 => db.close().unwrap(),
            2 => drop(db),
            _ => {
                db.close().unwrap();
                drop(db);
                let ids = snapshot::list(&dir.path().join("snapshot")).unwrap();
                assert_eq!(ids.len(), 2);
                let path = dir.path().join(format!("snapshot/{:08}", ids[1]));
                let whole = fs::read(&path).unwrap();
                for at in (0..whole.len()).step_by(whole.len() / 20) {
                    let mut bytes = whole.clone();
                    if at % 2 == 0 {
                        bytes[at] ^= 4
                    } else {
                        bytes.truncate(at)
                    }
                    fs::write(&path, bytes).unwrap();
                    let (db, report) = open();
                    assert_eq!(
                        (report.snapshot, report.snapshots_refused.len()),
                        (Some(ids[0]), 1),
                        "{report:?}"
                    );
                    assert_eq!(report.samples_without_series, 0);
                    assert_eq!(read_head(&db), expected);
                }
            }
        }
    }
}

#[test]
fn snapshots_under_load_and_slots_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let small = DbOptions { block_range_ms: 10_000, wal_sync: WalSync::Off, ..options(dir.path()) };
    let mut expected = Model::new();
    {
        let (db, _) = Db::open(small.clone()).unwrap();
        std::thread::scope(|scope| {
            let db = &db;
            let writers: Vec<_> = (0..2)
                .map(|w| {
                    scope.spawn(move || {
                        let mut model = Model::new();
                        for i in 0..3000i64 {
                            // Series come and go, so their slots are used again.
                            for name in [format!("w{w}_{}", i / 100), format!("w{w}_steady")] {
                                let outcome = write_one(db, &name, &[(i * 20, i as f64)]);
                                if outcome.rejected_count == 0 {
                                    model.entry(name).or_default().insert(i * 20, i as f64);
                                }
                            }
                        }
                        model
                    })
                })
                .collect();
            for _ in 0..20 {
                db.cut_due().unwrap();
                db.snapshot().unwrap();
                let now = read_busy_head(db);
                assert!(now.values().flatten().all(|(t, v)| *t == *v as i64 * 20));
            }
            for writer in writers {
                expected.extend(writer.join().unwrap());
            }
            db.cut_due().unwrap();
        });
        assert_eq!(read_all(&db), expected);
        db.sync().unwrap();
    }
    for _ in 0..2 {
        let (db, report) = Db::open(small.clone()).unwrap();
        assert_eq!((report.samples_without_series, report.snapshots_refused.len()), (0, 0), "{report:?}");
        assert_eq!(read_all(&db), expected);
        assert!(read_head(&db).len() < 20, "series without samples leave the head");
        db.close().unwrap();
    }
}

/// Segments in memory, of which only what was synced survives [`ForgetfulStore::crash`].
#[derive(Clone, Default)]
struct ForgetfulStore(Arc<Mutex<BTreeMap<u64, Disk>>>, Arc<Mutex<Faults>>);

#[derive(Default, Clone)]
struct Disk {
    written: Vec<u8>,
    synced: usize,
}

#[derive(Default)]
struct Faults {
    /// Syncs that still work; `None` is all.
    syncs_left: Option<usize>,
    /// Bytes that still fit; `None` is no bound.
    room: Option<usize>,
}

struct ForgetfulWriter(ForgetfulStore, u64);

impl ForgetfulStore {
    /// What is on the disk after a loss of power, with `extra` of the unsynced bytes by luck.
    fn crash(&self, extra: usize) -> ForgetfulStore {
        let mut disks = self.0.lock().clone();
        for disk in disks.values_mut() {
            let keep = disk.written.len().min(disk.synced + extra);
            disk.written.truncate(keep);
            disk.synced = disk.written.len();
        }
        ForgetfulStore(Arc::new(Mutex::new(disks)), Arc::default())
    }

    fn bytes(&self) -> usize {
        self.0.lock().values().map(|d| d.written.len()).sum()
    }
}

impl SegmentStore for ForgetfulStore {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().keys().copied().collect())
    }
    fn create(&self, id: u64) -> io::Result<Box<dyn SegmentWriter>> {
        assert!(self.0.lock().insert(id, Disk::default()).is_none());
        Ok(Box::new(ForgetfulWriter(self.clone(), id)))
    }
    fn open(&self, id: u64) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.0.lock().get(&id).ok_or(io::ErrorKind::NotFound)?.written.clone();
        Ok(Box::new(io::Cursor::new(bytes)))
    }
    fn truncate(&self, id: u64, len: u64) -> io::Result<()> {
        let mut disks = self.0.lock();
        let disk = disks.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        disk.written.truncate(len as usize);
        disk.synced = disk.written.len();
        Ok(())
    }
    fn remove(&self, id: u64) -> io::Result<()> {
        self.0.lock().remove(&id);
        Ok(())
    }
}

impl SegmentWriter for ForgetfulWriter {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = match &mut self.0.1.lock().room {
            None => bytes.len(),
            Some(room) => {
                let fits = bytes.len().min(*room);
                *room -= fits;
                fits
            }
        };
        // As write_all does it: what fits is there.
        let mut disks = self.0.0.lock();
        disks.get_mut(&self.1).expect("created").written.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.0.1.lock().syncs_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the disk is gone"))?;
        }
        let mut disks = self.0.0.lock();
        let disk = disks.get_mut(&self.1).expect("created");
        disk.synced = disk.written.len();
        Ok(())
    }
}

#[test]
fn nothing_acknowledged_is_lost_with_the_unsynced_bytes() {
    let store = ForgetfulStore::default();
    let dir = tempfile::tempdir().unwrap();
    let small = DbOptions { wal_segment_bytes_max: 2000, ..options(dir.path()) };
    let (db, _) = Db::open_with(small, Arc::new(store.clone())).unwrap();
    let acknowledged = Mutex::new(Model::new());
    let mut crashes = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (db, acknowledged) = (&db, &acknowledged);
            scope.spawn(move || {
                for i in 0..100i64 {
                    let name = format!("m{writer}_{}", i % 7);
                    let outcome = write_one(db, &name, &[(i, i as f64)]);
                    assert_eq!(outcome.rejected_count, 0);
                    outcome.commit.wait().unwrap();
                    acknowledged.lock().entry(name).or_default().insert(i, i as f64);
                }
            });
        }
        for extra in 0..40 {
            // What was acknowledged before the crash must be in what the crash leaves.
            let before = acknowledged.lock().clone();
            crashes.push((before, store.crash(extra * 3)));
            std::thread::yield_now();
        }
    });
    crashes.push((acknowledged.lock().clone(), store.crash(0)));
    for (before, disk) in crashes {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(db.options().dir.join("key"), dir.path().join("key")).unwrap();
        let (db, report) = Db::open_with(options(dir.path()), Arc::new(disk)).unwrap();
        assert_eq!(report.samples_without_series, 0);
        let after = read_head(&db);
        for (name, samples) in before {
            for (t, v) in samples {
                assert_eq!(after.get(&name).and_then(|s| s.get(&t)), Some(&v), "{name} at {t}");
            }
        }
    }
}

#[test]
fn a_failed_sync_ends_all_acknowledgements() {
    let store = ForgetfulStore::default();
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open_with(options(dir.path()), Arc::new(store.clone())).unwrap();
    write_one(&db, "a", &[(1, 1.0)]).commit.wait().unwrap();
    store.1.lock().syncs_left = Some(0);
    assert!(matches!(write_one(&db, "a", &[(2, 1.0)]).commit.wait(), Err(WalError::Failed { .. })));
    store.1.lock().syncs_left = None;
    // The disk works again, but nobody knows what it has lost.
    let (sender, receiver) = std::sync::mpsc::channel();
    write_one(&db, "a", &[(3, 1.0)]).commit.notify(move |r| sender.send(r).unwrap());
    assert!(receiver.recv().unwrap().is_err());
    assert!(db.close().is_err());
    drop(db);
    let (db, _) = Db::open_with(options(dir.path()), Arc::new(store.crash(0))).unwrap();
    assert_eq!(read_head(&db)["a"].get(&1), Some(&1.0));
    write_one(&db, "a", &[(3, 1.0)]).commit.wait().unwrap();
}

#[test]
fn a_full_disk_stalls_the_log_until_there_is_room() {
    for room in (0..400).step_by(9) {
        let store = ForgetfulStore::default();
        let dir = tempfile::tempdir().unwrap();
        let small = DbOptions { wal_segment_bytes_max: 300, ..options(dir.path()) };
        let (db, _) = Db::open_with(small, Arc::new(store.clone())).unwrap();
        let mut acknowledged = Model::new();
        let mut t = 0;
        let mut write_next = |acknowledged: &mut Model| {
            t += 1;
            let name = format!("m{}", t % 5);
            let result = write_one(&db, &name, &[(t, t as f64)]).commit.wait();
            if result.is_ok() {
                acknowledged.entry(name).or_default().insert(t, t as f64);
            }
            result
        };
        write_next(&mut acknowledged).unwrap();
        store.1.lock().room = Some(room);
        let refused = loop {
            match write_next(&mut acknowledged) {
                Ok(()) => {}
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, WalError::Stalled { .. }), "{refused}");
        assert!(db.is_stalled());
        // Refused before it reaches memory, from now on; and so are cuts and snapshots.
        let held = read_head(&db);
        assert!(write_next(&mut acknowledged).is_err());
        assert_eq!(read_head(&db), held);
        assert!(db.snapshot().is_err());
        // The loss of power now leaves what was acknowledged.
        let crashed = |acknowledged: &Model| {
            let dir = tempfile::tempdir().unwrap();
            fs::copy(db.options().dir.join("key"), dir.path().join("key")).unwrap();
            let (db, report) = Db::open_with(options(dir.path()), Arc::new(store.crash(0))).unwrap();
            assert_eq!(report.samples_without_series, 0);
            let after = read_head(&db);
            for (name, samples) in acknowledged {
                assert!(samples.iter().all(|(t, v)| after[name].get(t) == Some(v)), "{name}, {room}");
            }
            after
        };
        crashed(&acknowledged);
        store.1.lock().room = None;
        while db.is_stalled() {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        for _ in 0..10 {
            write_next(&mut acknowledged).unwrap();
        }
        // The log now has all that memory has, what was told to come back included.
        assert_eq!(crashed(&acknowledged), read_head(&db));
    }
}

/// A log of a few records with what the head holds after each, by the log's length in bytes.
fn small_log() -> (ForgetfulStore, Vec<u8>, Vec<(usize, Model)>) {
    let store = ForgetfulStore::default();
    let dir = tempfile::tempdir().unwrap();
    let with_window = DbOptions { out_of_order_window_ms: 1000, ..options(dir.path()) };
    let (db, _) = Db::open_with(with_window, Arc::new(store.clone())).unwrap();
    let key = fs::read(dir.path().join("key")).unwrap();
    let mut states = vec![(0, Model::new())];
    for i in 0..12i64 {
        let names = [format!("a{}", i % 3), format!("b{}", i % 5)];
        let rows: Vec<_> = names.iter().map(|n| (named(n), vec![(i * 10, i as f64 * 0.1)])).collect();
        write(&db, &rows).commit.wait().unwrap();
        states.push((store.bytes(), read_head(&db)));
        if i % 4 == 3 {
            write_one(&db, "a0", &[(i * 10 - 15, 7.0)]).commit.wait().unwrap();
            states.push((store.bytes(), read_head(&db)));
        }
    }
    drop(db);
    (store.crash(0), key, states)
}

fn reopen(key: &[u8], disk: ForgetfulStore) -> (Model, ReplayReport) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), key).unwrap();
    let options = DbOptions { replay_threads: 2, wal_sync: WalSync::Off, ..options(dir.path()) };
    let (db, report) = Db::open_with(options, Arc::new(disk)).unwrap();
    // It starts, and takes writes.
    assert_eq!(write_one(&db, "zzz", &[(1_000_000, 1.0)]).rejected_count, 0);
    let mut model = read_head(&db);
    model.remove("zzz");
    (model, report)
}

/// True when the model holds all of `less`.
fn includes(model: &Model, less: &Model) -> bool {
    less.iter().all(|(name, samples)| {
        model.get(name).is_some_and(|have| samples.iter().all(|(t, v)| have.get(t) == Some(v)))
    })
}

#[test]
fn a_log_cut_at_any_byte_keeps_what_lies_before() {
    let (store, key, states) = small_log();
    let disks = store.0.lock().clone();
    let (id, whole) = disks.iter().next().map(|(id, d)| (*id, d.written.clone())).unwrap();
    for cut in 0..=whole.len() {
        let disk = ForgetfulStore::default();
        let part = Disk { written: whole[..cut].to_vec(), synced: cut };
        disk.0.lock().insert(id, part);
        let (model, report) = reopen(&key, disk);
        let before = states.iter().rev().find(|(len, _)| *len <= cut).map(|(_, m)| m).unwrap();
        let next = states.iter().find(|(len, _)| *len > cut).map_or(before, |(_, m)| m);
        assert!(includes(&model, before) && includes(next, &model), "cut at {cut}");
        assert!(report.dropped.len() <= 1, "{report:?}");
    }
}

#[test]
fn a_log_flipped_at_any_byte_keeps_what_lies_before() {
    let (store, key, states) = small_log();
    let disks = store.0.lock().clone();
    let (id, whole) = disks.iter().next().map(|(id, d)| (*id, d.written.clone())).unwrap();
    let last = &states.last().unwrap().1;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let disk = ForgetfulStore::default();
        disk.0.lock().insert(id, Disk { synced: bytes.len(), written: bytes });
        let (model, report) = reopen(&key, disk);
        let before = states.iter().rev().find(|(len, _)| *len <= at).map(|(_, m)| m).unwrap();
        assert!(includes(&model, before) && includes(last, &model), "flip at {at}");
        assert_eq!(report.dropped.len(), 1, "flip at {at}: {report:?}");
        assert!(report.dropped[0].offset <= at as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_head_holds_what_a_naive_model_holds(
        window in prop_oneof![Just(0i64), Just(500), Just(1_000_000)],
        requests in prop::collection::vec(
            prop::collection::vec((0usize..6, -50i64..200, 0i64..3), 1..40), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let with_window = DbOptions { out_of_order_window_ms: window, block_range_ms: 1000, wal_sync: WalSync::Off, ..options(dir.path()) };
        let (db, _) = Db::open(with_window.clone()).unwrap();
        let mut model = Model::new();
        let mut clock = 0i64;
        for rows in requests {
            clock += 37;
            let max_before = model.values().filter_map(|s| s.keys().next_back()).max().copied();
            // Which of two values at one time out of order stays is not promised: with a window there is but one.
            let value = |t: i64, v: i64| if window == 0 { v as f64 } else { t as f64 };
            let rows: Vec<(usize, i64, f64)> =
                rows.into_iter().map(|(s, dt, v)| (s, clock + dt, value(clock + dt, v))).collect();
            let sent: Vec<_> = rows.iter().map(|(s, t, v)| (named(&format!("m{s}")), vec![(*t, *v)])).collect();
            let outcome = write(&db, &sent);
            // An empty head's window lies behind the first sample that comes.
            let max_before = max_before.or(rows.first().map(|(_, t, _)| *t));
            let mut written = 0;
            for (s, t, v) in rows {
                let samples = model.entry(format!("m{s}")).or_default();
                let newest = samples.keys().next_back().copied();
                let in_window = window > 0 && max_before.is_some_and(|m| t >= m - window);
                if newest.is_none_or(|n| t > n) {
                    samples.insert(t, v);
                    written += 1;
                } else if newest == Some(t) {
                    written += usize::from(samples[&t].to_bits() == v.to_bits());
                } else if in_window {
                    samples.insert(t, v);
                    written += 1;
                }
            }
            prop_assert_eq!(outcome.written, written);
        }
        model.retain(|_, s| !s.is_empty());
        let times = |m: &Model| m.iter().map(|(n, s)| (n.clone(), s.keys().copied().collect::<Vec<_>>())).collect::<Vec<_>>();
        prop_assert_eq!(times(&read_head(&db)), times(&model));
        if window == 0 {
            prop_assert_eq!(&read_head(&db), &model);
        }
        drop(db);
        let (db, _) = Db::open(with_window).unwrap();
        prop_assert_eq!(times(&read_head(&db)), times(&model));
    }
}
