//! Late data and start timestamps: whatever order samples come in, and whatever happens to the process meanwhile, what is read
//! is what was taken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding};
use chronolith_model::histogram::Span;
use chronolith_model::write::encode_labels;
use chronolith_model::{
    Histogram, Matcher, Sample, SampleValue, TenantId, TimeRange, WriteBatch, WriteBatchBuilder,
    WriteHistogram,
};
use proptest::prelude::*;

use super::*;

const BLOCK: i64 = 100_000;
/// Thirty blocks: as long to these blocks as two and a half days to blocks of two hours.
const WINDOW: i64 = 30 * BLOCK;

/// What a sample says: kind and number, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    histogram: bool,
    n: i64,
    start_ts: i64,
}

/// Series to time to what was said.
type Model = BTreeMap<&'static str, BTreeMap<i64, Said>>;

const SERIES: [&str; 3] = ["a", "b", "c"];

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn options(dir: &Path) -> DbOptions {
    DbOptions {
        clock: Arc::new(|| i64::MAX / 2),
        shards: 2,
        block_range_ms: BLOCK,
        out_of_order_window_ms: WINDOW,
        start_timestamps: true,
        ..DbOptions::new(dir)
    }
}

fn histogram(n: i64) -> WriteHistogram {
    WriteHistogram::Integer(Box::new(Histogram {
        count: n as u64,
        sum: n as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![n],
        ..Histogram::default()
    }))
}

fn batch(rows: &[(&str, i64, Said)]) -> WriteBatch {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    for (name, t, said) in rows {
        let mut section = Vec::new();
        encode_labels([("__name__", *name)], &mut section);
        builder.push_series_bytes(&section);
        if said.histogram {
            builder.push_histogram_with_start_ts(*t, histogram(said.n), said.start_ts);
        } else {
            builder.push_sample_with_start_ts(Sample { t: *t, v: said.n as f64 }, said.start_ts);
        }
    }
    builder.finish(Bytes::new())
}

fn write(db: &Db, rows: &[(&str, i64, Said)]) -> WriteOutcome {
    db.write(&tenant(), &batch(rows))
}

/// What chunks say inside a range, of equal times the first one.
fn said(chunks: &[Chunk], range: TimeRange) -> BTreeMap<i64, Said> {
    let mut samples = BTreeMap::new();
    for chunk in chunks {
        let mut all = chunk.iter().unwrap();
        while let Some(sample) = all.next() {
            let (t, value) = sample.unwrap();
            let start_ts = all.start_ts();
            assert!(chunk.mint <= t && t <= chunk.maxt);
            let said = match value {
                SampleValue::Float(v) => Said { histogram: false, n: v as i64, start_ts },
                SampleValue::Histogram(h) => Said { histogram: true, n: h.count as i64, start_ts },
                SampleValue::FloatHistogram(_) => panic!("none was written"),
            };
            if range.contains(t) {
                samples.entry(t).or_insert(said);
            }
        }
    }
    samples
}

/// What the head and the local blocks hold inside a range; where both have a time, the block's sample came first. Whoever
/// wants only the newest samples of the head gets the same ones, start timestamps and all.
fn read(db: &Db, range: TimeRange) -> Model {
    let mut model = Model::new();
    for name in SERIES {
        let matchers = [Matcher::equal("__name__", name)];
        let mut chunks = Vec::new();
        for block in db.blocks(&tenant()) {
            chunks.extend(block.select(&matchers, range).unwrap().flat_map(|s| s.unwrap().1));
        }
        if let Some(head) = db.head(&tenant()) {
            let of_head: Vec<Chunk> = head.select(&matchers, range, false).flat_map(|s| s.chunks).collect();
            let newest: Vec<Chunk> = head.select_newest(&matchers, range).flat_map(|s| s.chunks).collect();
            assert_eq!(said(&newest, range).pop_last(), said(&of_head, range).pop_last());
            chunks.extend(of_head);
        }
        model.insert(name, said(&chunks, range));
    }
    model
}

fn encodings(db: &Db, name: &str) -> BTreeSet<u8> {
    let head = db.head(&tenant()).unwrap();
    let found = head.select(&[Matcher::equal("__name__", name)], TimeRange::ALL, false);
    found.flat_map(|s| s.chunks).map(|c| c.encoding.as_u8()).collect()
}

#[derive(Clone, Debug)]
enum Do {
    /// Series, how far before the newest sample of all (behind it, when negative), kind, number, start timestamp.
    Write(usize, i64, bool, i64, Option<i64>),
    Restart,
    Close,
    CutDue,
    CutAll,
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let age = prop_oneof![3 => -3000..0i64, 3 => 0..BLOCK, 3 => 0..WINDOW, 1 => WINDOW..2 * WINDOW];
    let write = (0..SERIES.len(), age, prop::bool::weighted(0.3), 1..9i64, prop::option::of(0..3i64))
        .prop_map(|(series, age, histogram, n, start)| Do::Write(series, age, histogram, n, start));
    let step = prop_oneof![
        60 => write,
        1 => Just(Do::Restart),
        1 => Just(Do::Close),
        2 => Just(Do::CutDue),
        1 => Just(Do::CutAll),
    ];
    prop::collection::vec(step, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_order_inside_the_window_reads_as_written(steps in steps(), part in (0..3 * WINDOW, 0..2 * WINDOW)) {
        let dir = tempfile::tempdir().unwrap();
        let mut db = Db::open(options(dir.path())).unwrap().0;
        let (mut model, mut doubled) = (Model::new(), BTreeSet::new());
        let mut newest = 2 * WINDOW;
        for step in steps {
            match step {
                Do::Write(series, age, histogram, n, start) => {
                    let (name, t) = (SERIES[series], newest - age);
                    let start_ts = start.map_or(0, |s| t / BLOCK * BLOCK - s * 1000);
                    let said = Said { histogram, n, start_ts };
                    let head_max = db.head(&tenant()).and_then(|h| h.time_range()).map(|r| r.maxt);
                    let outcome = write(&db, &[(name, t, said)]);
                    let is_new = !model.get(name).is_some_and(|s| s.contains_key(&t));
                    if let Some(max) = head_max.filter(|_| is_new) {
                        let reason = outcome.rejected.first().map(|r| r.reason.kind());
                        // A series' own newest sample may be older than the window: then it is in order.
                        prop_assert!(t < max - WINDOW || reason.is_none(), "{t} {max} {reason:?}");
                        prop_assert!(reason.is_none_or(|r| r == "too_old"), "{t} {max} {reason:?}");
                    }
                    if outcome.written == 1 {
                        newest = newest.max(t);
                        if is_new {
                            model.entry(name).or_default().insert(t, said);
                        } else {
                            // What lies in a block or in a closed chunk is not looked at: either may stand.
                            doubled.insert((name, t));
                        }
                    }
                }
                Do::Restart => {
                    db.sync().unwrap();
                    drop(db);
                    db = Db::open(options(dir.path())).unwrap().0;
                }
                Do::Close => {
                    db.close().unwrap();
                    drop(db);
                    db = Db::open(options(dir.path())).unwrap().0;
                }
                Do::CutAll => drop(db.cut_all(&tenant())),
                Do::CutDue => drop(db.cut_due().unwrap()),
            }
        }
        for range in [TimeRange::ALL, TimeRange::new(part.0, part.0 + part.1)] {
            let got = read(&db, range);
            for name in SERIES {
                let want = model.get(name).into_iter().flatten().filter(|(t, _)| range.contains(**t));
                let want: BTreeMap<i64, Said> = want.map(|(t, s)| (*t, *s)).collect();
                prop_assert_eq!(got[name].keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
                for (t, said) in want.iter().filter(|(t, _)| !doubled.contains(&(name, **t))) {
                    prop_assert_eq!(&got[name][t], said, "{} at {}", name, t);
                }
            }
        }
    }
}

fn float(n: i64, start_ts: i64) -> Said {
    Said { histogram: false, n, start_ts }
}

#[test]
fn only_series_with_start_timestamps_use_the_encodings_that_keep_them() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    for i in 0..40 {
        let t = 1000 * i;
        let histogram = Said { histogram: true, n: i + 1, start_ts: if i < 20 { 0 } else { 19_000 } };
        let rows =
            [("a", t, float(i, 0)), ("b", t, float(i, if i == 0 { 0 } else { 500 })), ("c", t, histogram)];
        assert_eq!(write(&db, &rows).written, 3);
    }
    let set = |of: &[Encoding]| of.iter().map(|e| e.as_u8()).collect::<BTreeSet<_>>();
    assert_eq!(encodings(&db, "a"), set(&[Encoding::Xor]));
    assert_eq!(encodings(&db, "b"), set(&[Encoding::Xor, Encoding::Xor2]));
    assert_eq!(encodings(&db, "c"), set(&[Encoding::Histogram, Encoding::HistogramSt]));
    let before = read(&db, TimeRange::ALL);
    assert_eq!((before["b"][&0].start_ts, before["b"][&1000].start_ts), (0, 500));
    // The same sample with another start timestamp is the same sample.
    assert_eq!(write(&db, &[("b", 39_000, float(39, 501))]).rejected_count, 0);
    assert_eq!(write(&db, &[("b", 39_000, float(38, 500))]).rejected[0].reason.kind(), "duplicate_timestamp");
    let metas = db.cut_all(&tenant()).unwrap();
    assert_eq!(metas.iter().map(|m| m.stats.num_samples).sum::<u64>(), 120);
    assert_eq!(read(&db, TimeRange::ALL), before, "out of the block");
}

#[test]
fn without_the_feature_start_timestamps_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Db::open(DbOptions { start_timestamps: false, ..options(dir.path()) }).unwrap().0;
    let db = open();
    let histogram = Said { histogram: true, n: 1, start_ts: 5 };
    assert_eq!(
        write(&db, &[("a", 9000, float(1, 5)), ("b", 9000, histogram), ("a", 8000, float(1, 5))]).written,
        3
    );
    let check = |db: &Db| {
        let got = read(db, TimeRange::ALL);
        assert!(got.values().flatten().all(|(_, said)| said.start_ts == 0), "{got:?}");
        assert_eq!(encodings(db, "a"), [Encoding::Xor.as_u8()].into());
    };
    check(&db);
    db.sync().unwrap();
    drop(db);
    check(&open());
}
