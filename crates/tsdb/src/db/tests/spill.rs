//! Complete chunks on disk: nothing that happens to their files changes what is read, now or after a restart.

use std::fs;

use chronolith_model::MatchOp;

use super::*;

/// Values that hardly compress, so that a series' chunks are a kilobyte each.
fn noise(series: i64, i: i64) -> f64 {
    f64::from_bits(((series << 32 | i) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 2)
}

fn one_shard(dir: &Path) -> DbOptions {
    DbOptions { shards: 1, ..options(dir) }
}

/// One sample of each of `series` series at each of `steps`, 1 s apart.
fn fill(db: &Db, series: i64, steps: std::ops::Range<i64>) {
    for from in steps.clone().step_by(50) {
        let to = steps.end.min(from + 50);
        let row = |s: i64| (named(&format!("m{s}")), (from..to).map(|i| (i * 1000, noise(s, i))).collect());
        let rows: Vec<Row> = (0..series).map(row).collect();
        let outcome = write(db, &rows);
        assert_eq!(outcome.rejected_count, 0);
        outcome.commit.wait().unwrap();
    }
}

fn filled(series: i64, steps: std::ops::Range<i64>) -> Model {
    let samples = |s: i64| steps.clone().map(|i| (i * 1000, noise(s, i))).collect();
    (0..series).map(|s| (format!("m{s}"), samples(s))).collect()
}

fn spill_files(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir.join("spill")).map_or_else(|_| Vec::new(), |d| d.map(|e| e.unwrap().path()).collect())
}

#[test]
fn complete_chunks_leave_memory_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (db, _) = Db::open(one_shard(dir.path())).unwrap();
        fill(&db, 100, 0..1500);
        let stats = db.spill_stats();
        assert!(stats.bytes > 700_000 && stats.files == 1 && stats.failures == 0, "{stats:?}");
        let in_memory = db.head(&tenant()).unwrap().bytes();
        assert!(in_memory < 800_000, "{in_memory}");
        assert_eq!(read_head(&db), filled(100, 0..1500));
        // Neither files without a name nor what a crash leaves of them matter.
        fs::remove_file(&spill_files(dir.path())[0]).unwrap();
        assert_eq!(read_head(&db), filled(100, 0..1500));
        fill(&db, 100, 1500..1600);
    }
    fs::write(dir.path().join("spill/00000000"), vec![0xA5; 300_000]).unwrap();
    fs::write(dir.path().join("spill/00000001"), b"").unwrap();
    let (db, report) = Db::open(one_shard(dir.path())).unwrap();
    assert_eq!((report.samples, report.dropped.len()), (160_000, 0));
    assert_eq!(read_head(&db), filled(100, 0..1600));
    assert!(db.spill_stats().bytes > 700_000, "replay spills too");
    assert_eq!(spill_files(dir.path()).len(), 1);
}

#[test]
fn a_disk_that_takes_nothing_costs_memory_only() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(one_shard(dir.path())).unwrap();
    // No file can be made below a file.
    fs::write(dir.path().join("spill"), b"").unwrap();
    fill(&db, 100, 0..1500);
    let stats = db.spill_stats();
    assert!(stats.failures > 0 && stats.bytes == 0, "{stats:?}");
    assert_eq!(read_head(&db), filled(100, 0..1500));
    // Room again: what has waited is written with what comes.
    fs::remove_file(dir.path().join("spill")).unwrap();
    let failures = stats.failures;
    let mut step = 1500;
    while db.spill_stats().bytes == 0 {
        assert!(step < 20_000, "it is tried again");
        fill(&db, 100, step..step + 500);
        step += 500;
    }
    assert!(db.spill_stats().bytes > 1_000_000, "{:?}", db.spill_stats());
    assert_eq!(db.spill_stats().failures, failures);
    assert_eq!(read_head(&db), filled(100, 0..step));
}

#[test]
fn reading_goes_on_while_chunks_move() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(DbOptions { shards: 2, ..options(dir.path()) }).unwrap();
    std::thread::scope(|scope| {
        for from in [0, 40] {
            let db = &db;
            scope.spawn(move || {
                for step in (0..2000).step_by(20) {
                    let row = |s: i64| {
                        (
                            named(&format!("m{s}")),
                            (step..step + 20).map(|i| (i * 1000, noise(s, i))).collect(),
                        )
                    };
                    let rows: Vec<Row> = (from..from + 40).map(row).collect();
                    assert_eq!(write(db, &rows).rejected_count, 0);
                }
            });
        }
        scope.spawn(|| {
            let mut ended = false;
            while !ended {
                let matcher = Matcher::new(MatchOp::Regex, "__name__", "m.?[0379]").unwrap();
                let (mut all, mut columns) = (0, SampleColumns::default());
                let mut complete = 0;
                for series in db.head(&tenant()).unwrap().select(&[matcher], TimeRange::ALL, false) {
                    let s: i64 = series.labels.metric_name().unwrap()[1..].parse().unwrap();
                    columns.clear();
                    for chunk in &series.chunks {
                        chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
                    }
                    // All there is up to some step, without a hole.
                    for (i, (t, v)) in (0..).zip(columns.ts.iter().zip(&columns.values)) {
                        assert_eq!((*t, v.to_bits()), (i * 1000, noise(s, i).to_bits()));
                    }
                    all += 1;
                    complete += usize::from(columns.ts.len() == 2000);
                }
                ended = all == 32 && complete == all;
            }
        });
    });
    assert!(db.spill_stats().bytes > 0);
    assert_eq!(read_head(&db), filled(80, 0..2000));
}

#[test]
fn cuts_and_newer_snapshots_remove_files() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = || crate::snapshot::list(&dir.path().join("snapshot")).unwrap();
    {
        let (db, _) = Db::open(one_shard(dir.path())).unwrap();
        fill(&db, 100, 0..1500);
        db.close().unwrap();
    }
    assert_eq!(spill_files(dir.path()).len(), 0, "an orderly end leaves none");
    let (db, report) = Db::open(one_shard(dir.path())).unwrap();
    assert!(report.snapshot.is_some() && report.samples == 0);
    let head = db.head(&tenant()).unwrap();
    assert!(head.bytes() < 500_000, "segments stay in the snapshot: {}", head.bytes());
    // The snapshot that they lie in is replaced and removed; they stay readable.
    let loaded = snapshots();
    for _ in 0..2 {
        db.snapshot().unwrap();
    }
    assert!(snapshots().iter().all(|id| !loaded.contains(id)));
    assert_eq!(read_head(&db), filled(100, 0..1500));
    fill(&db, 400, 1500..3000);
    let before = db.spill_stats();
    assert!(before.files > 1 && spill_files(dir.path()).len() as u64 == before.files, "{before:?}");
    let samples = filled(400, 1500..3000);
    let reader: Vec<_> = head.select(&[Matcher::equal("__name__", "m7")], TimeRange::ALL, false).collect();
    db.cut_all(&tenant()).unwrap();
    assert_eq!(read_head(&db).len(), 0);
    drop(reader);
    // The file that takes the next segment may be there still.
    assert!(spill_files(dir.path()).len() <= 1, "{:?}", db.spill_stats());
    let all = read_all(&db);
    assert_eq!(all.len(), 400);
    assert_eq!(all["m399"], samples["m399"]);
}
