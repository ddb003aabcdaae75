//! The head against a naive model.

use super::*;

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
