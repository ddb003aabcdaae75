//! Batches whose series have keys: whatever the head remembers of them, it stores what the sections would have stored.

use xxhash_rust::xxh3::xxh3_128;

use super::*;

/// A series' pairs and samples.
type Keyed<'a> = (Vec<(&'a str, &'a str)>, Vec<(i64, f64)>);

/// The batch as a decoder of remote write 2.0 makes it.
fn keyed(rows: &[Keyed<'_>]) -> WriteBatch {
    let mut symbols: Vec<&str> = Vec::new();
    // The references of each series, and its key.
    let series: Vec<(Vec<u8>, u128)> = rows
        .iter()
        .map(|(pairs, _)| {
            let mut key = 0u128;
            let mut refs = Vec::new();
            for (name, value) in pairs {
                for text in [name, value] {
                    let known = symbols.iter().position(|s| s == text);
                    refs.push(known.unwrap_or_else(|| {
                        symbols.push(text);
                        symbols.len() - 1
                    }) as u8);
                }
                let mut label = Vec::new();
                encode_labels([(*name, *value)], &mut label);
                key = key.wrapping_add(xxh3_128(&label));
            }
            (refs, key)
        })
        .collect();
    assert!(symbols.len() < 0x80, "a reference is one byte");
    let mut body: Vec<u8> = series.iter().flat_map(|(refs, _)| refs.clone()).collect();
    let mut builder = WriteBatchBuilder::default();
    builder.start((body.len() + symbols.iter().map(|s| s.len()).sum::<usize>()) as u32);
    let mut at = 0;
    for ((refs, key), (_, samples)) in series.iter().zip(rows) {
        builder.push_keyed_series();
        builder.set_labels(at..at + refs.len() as u32);
        builder.set_key(*key);
        at += refs.len() as u32;
        samples.iter().for_each(|(t, v)| builder.push_sample(Sample { t: *t, v: *v }));
    }
    for symbol in symbols {
        let start = body.len() as u32;
        body.extend_from_slice(symbol.as_bytes());
        builder.dictionary_mut().push_symbol(start..body.len() as u32);
    }
    builder.finish(Bytes::from(body))
}

fn rejected(outcome: &WriteOutcome) -> Vec<(String, &'static str, i64)> {
    let mut all: Vec<_> = outcome.rejected.iter().map(|r| (r.series.clone(), r.reason.kind(), r.t)).collect();
    all.sort();
    all
}

#[test]
fn every_order_of_a_label_set_is_the_same_series_by_key_or_section() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    let sorted = [("__name__", "up"), ("a", "1"), ("b", "2")];
    let unsorted = [("b", "2"), ("__name__", "up"), ("a", "1")];
    let with_empty = [("__name__", "up"), ("a", "1"), ("b", "2"), ("c", "")];
    let mut t = 0;
    for _ in 0..3 {
        // New to the head in an order that is not canonical, both in one request.
        for pairs in [&unsorted[..], &sorted, &with_empty] {
            let rows = [(pairs.to_vec(), vec![(t, 1.0)]), (unsorted.to_vec(), vec![(t + 1, 1.0)])];
            let outcome = db.write(&tenant(), &keyed(&rows));
            assert_eq!((outcome.written, outcome.rejected_count), (2, 0), "{pairs:?}");
            let outcome = write(&db, &[(section(pairs), vec![(t + 2, 1.0)])]);
            assert_eq!((outcome.written, outcome.rejected_count), (1, 0), "{pairs:?}");
            t += 3;
        }
        assert_eq!(db.head(&tenant()).unwrap().series_count(), 1);
    }
    assert_eq!(read_head(&db)["up"].len(), 27);
    drop(db);
    let (db, _) = Db::open(options(dir.path())).unwrap();
    assert_eq!(read_head(&db)["up"].len(), 27, "the log names the canonical section");
}

#[test]
fn a_key_known_of_a_series_that_is_gone_makes_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(options(dir.path())).unwrap();
    for t in 0..5 {
        // In another order every time: only the set decides.
        let mut pairs = vec![("__name__", "up"), ("a", "1"), ("b", "2")];
        pairs.rotate_left(t % 3);
        let rows = [(pairs, vec![(t as i64, 1.0)])];
        assert_eq!(db.write(&tenant(), &keyed(&rows)).written, 1);
        assert_eq!(db.head(&tenant()).unwrap().series_count(), 1);
        assert_eq!(read_head(&db)["up"].len(), 1);
        db.cut_all(&tenant()).unwrap();
        assert_eq!(db.head(&tenant()).unwrap().series_count(), 0);
    }
}

#[test]
fn limits_hold_for_series_whose_keys_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut limited = options(dir.path());
    limited.limits.series_max = 1;
    let (db, _) = Db::open(limited).unwrap();
    let row = |name| (vec![("__name__", name)], vec![(1, 1.0)]);
    assert_eq!(db.write(&tenant(), &keyed(&[row("a")])).written, 1);
    for _ in 0..2 {
        let outcome = db.write(&tenant(), &keyed(&[row("a"), row("b")]));
        assert_eq!(rejected(&outcome), [(r#"{__name__="b"}"#.to_owned(), "series_limit", 1)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn keys_and_sections_store_the_same(
        requests in proptest::collection::vec(
            proptest::collection::vec((0usize..40, any::<u8>(), 0usize..4), 1..12), 1..20),
        cuts in proptest::collection::vec(0u8..5, 20),
    ) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [by_key, by_section] = dirs.each_ref().map(|dir| Db::open(options(dir.path())).unwrap().0);
        let values: Vec<String> = (0..5).map(|i| i.to_string()).collect();
        for (n, (request, cut)) in requests.iter().zip(&cuts).enumerate() {
            let rows: Vec<Keyed<'_>> = request.iter().map(|(series, order, damage)| {
                let name = ["m", "n", "o"][series % 3];
                let mut pairs = vec![("__name__", name), ("a", values[series % 5].as_str()), ("b", &values[series / 10])];
                match damage {
                    0 => pairs.push(("a", "twice")),
                    1 => pairs.push(("z", "")),
                    _ => {}
                }
                let at = usize::from(*order) % pairs.len();
                pairs.rotate_left(at);
                if *order > 250 {
                    pairs.retain(|(name, _)| *name != "__name__");
                }
                // The order inside a request is the head's business: all samples of a series are the same.
                (pairs, vec![(n as i64, *series as f64)])
            }).collect();
            let sections: Vec<Row> = rows.iter().map(|(pairs, s)| (section(pairs), s.clone())).collect();
            let (a, b) = (by_key.write(&tenant(), &keyed(&rows)), write(&by_section, &sections));
            prop_assert_eq!(a.written, b.written);
            prop_assert_eq!(a.rejected_count, b.rejected_count);
            prop_assert_eq!(rejected(&a), rejected(&b));
            if *cut == 0 {
                for db in [&by_key, &by_section] {
                    db.cut_all(&tenant()).unwrap();
                }
            }
            prop_assert_eq!(contents(&by_key), contents(&by_section));
        }
    }
}

/// Every series with its samples.
fn contents(db: &Db) -> Vec<(String, Vec<i64>, Vec<u64>)> {
    let Some(head) = db.head(&tenant()) else { return Vec::new() };
    let samples = |series: HeadSeries| {
        let mut columns = SampleColumns::default();
        series.chunks.iter().for_each(|c| c.decode_into(TimeRange::ALL, &mut columns).unwrap());
        (series.labels.to_string(), columns.ts, columns.values.iter().map(|v| v.to_bits()).collect())
    };
    head.select(&[], TimeRange::ALL, false).map(samples).collect()
}
