//! Cuts: what leaves the head is in blocks, whenever the process ends.

use super::*;

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
