//! Snapshots: a restart from one is the same as a restart from the log.

use super::*;

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
