use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::{Labels, TimeRange};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::cursor::{put_uvarint, put_uvarint_bytes};
use crate::{ErrorKind, Result, crc32c};

type Series = BTreeMap<Labels, Vec<ChunkMeta>>;
/// The series of each label pair.
type Lists = BTreeMap<(String, String), BTreeSet<Labels>>;

fn write(series: &Series, options: IndexWriterOptions) -> Bytes {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut writer = IndexWriter::create(&path, options).unwrap();
    for (labels, chunks) in series {
        writer.add_series(labels, chunks).unwrap();
    }
    let written = writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "temporary files are gone");
    bytes.into()
}

/// Everything an index says, read through every path that a query takes.
fn read(data: Bytes) -> Result<(Series, Lists)> {
    let index = IndexReader::new("index".into(), data)?;
    let mut record = SeriesRecord::default();
    let mut cache = SymbolCache::default();
    let mut series = Series::new();
    let mut by_ref = BTreeMap::new();
    for r in index.all_postings()? {
        index.series(r, TimeRange::ALL, &mut record)?;
        let labels = index.labels(&record, &mut cache)?;
        by_ref.insert(r, labels.clone());
        series.insert(labels, record.chunks.clone());
    }
    let mut lists = BTreeMap::new();
    for name in index.label_names() {
        let mut values = Vec::new();
        index.postings_table().visit(&name, "", &mut |value, range| {
            values.push((value.to_owned(), range));
            ControlFlow::Continue(())
        })?;
        for (value, range) in values {
            assert_eq!(index.postings_table().find(&name, &value)?, Some(range));
            let mut members = BTreeSet::new();
            for r in index.list(range)? {
                let labels = by_ref.get(&r).ok_or_else(|| crate::Error::corrupt("index", 0, "stray"))?;
                members.insert(labels.clone());
            }
            lists.insert((name.clone(), value), members);
        }
    }
    for symbol in index.symbols().iter() {
        index.symbols().find(symbol?)?;
    }
    Ok((series, lists))
}

fn expected_lists(series: &Series) -> Lists {
    let mut lists: BTreeMap<_, BTreeSet<Labels>> = BTreeMap::new();
    for labels in series.keys() {
        for (n, v) in labels {
            lists.entry((n.to_owned(), v.to_owned())).or_default().insert(labels.clone());
        }
    }
    lists
}

fn any_series() -> impl Strategy<Value = Series> {
    let name = prop_oneof!["[a-c]", "[a-z]{1,3}", "[α-ω]{1,2}"];
    let value = prop_oneof!["[0-9]{1,2}", "[a-z]{0,12}", "\\PC{0,5}"];
    let labels = prop::collection::btree_map(name, value, 0..5);
    let chunks = prop::collection::vec((1i64..1 << 40, 0i64..1 << 40), 0..5);
    prop::collection::vec((labels, chunks, any::<i32>()), 0..120).prop_map(|all| {
        let sets: BTreeMap<Labels, _> = all
            .into_iter()
            .map(|(l, chunks, t)| (Labels::from_pairs(l).unwrap(), (chunks, i64::from(t))))
            .collect();
        let mut chunk_ref = 8;
        sets.into_iter()
            .map(|(labels, (chunks, mut t))| {
                let metas = chunks.into_iter().map(|(gap, length)| {
                    let mint = t + gap;
                    t = mint + length;
                    chunk_ref += 100;
                    ChunkMeta { mint, maxt: t, chunk_ref }
                });
                (labels, metas.collect())
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(
        series in any_series(),
        empty_symbol in any::<bool>(),
        postings_bytes_max in prop::sample::select(vec![0usize, 64, 1 << 20]),
    ) {
        let bytes = write(&series, IndexWriterOptions { empty_symbol, postings_bytes_max, sync: false });
        // The size of a batch does not show in the result.
        let other = IndexWriterOptions { empty_symbol, postings_bytes_max: 1000, sync: false };
        prop_assert!(bytes == write(&series, other));
        let (got, lists) = read(bytes.clone()).unwrap();
        prop_assert_eq!(&got, &series);
        prop_assert_eq!(lists, expected_lists(&series));

        let mut third = bytes.to_vec();
        third[4] = 3;
        prop_assert_eq!(&read(third.into()).unwrap().0, &series);
        let first = version_1(&series);
        let (got, lists) = read(first).unwrap();
        prop_assert_eq!(&got, &series);
        prop_assert_eq!(lists, expected_lists(&series));
    }

    #[test]
    fn values_are_found_from_any_start(values in prop::collection::btree_set("[a-d]{1,4}", 1..200), from in "[a-e]{0,4}") {
        let series = values.iter().map(|v| (Labels::from_pairs([("a", v), ("b", v)]).unwrap(), vec![])).collect();
        let index = IndexReader::new("i".into(), write(&series, IndexWriterOptions::default())).unwrap();
        let mut got = Vec::new();
        index.postings_table().visit("a", &from, &mut |v, _| {
            got.push(v.to_owned());
            ControlFlow::Continue(())
        }).unwrap();
        let want: Vec<_> = values.range(from.clone()..).cloned().collect();
        prop_assert_eq!(got, want);
        prop_assert_eq!(index.postings_table().find("a", &from).unwrap().is_some(), values.contains(&from));
        prop_assert_eq!(index.symbols().find(&from).unwrap().is_some(), values.contains(&from) || ["a", "b", ""].contains(&from.as_str()));
        prop_assert!(index.postings_table().find("0", "").unwrap().is_none());
    }
}

/// The index of the same series in version 1: symbols by position, series by plain offset, a table without order.
fn version_1(series: &Series) -> Bytes {
    let section = |out: &mut Vec<u8>, payload: &[u8]| {
        out.extend((payload.len() as u32).to_be_bytes());
        out.extend(payload);
        out.extend(crc32c(payload).to_be_bytes());
    };
    let mut out = MAGIC.to_be_bytes().to_vec();
    out.push(1);
    let mut toc = Toc { symbols: 5, ..Toc::default() };
    let strings: BTreeSet<&str> = series.keys().flatten().flat_map(|(n, v)| [n, v]).collect();
    let mut symbols = BTreeMap::new();
    let mut payload = (strings.len() as u32).to_be_bytes().to_vec();
    for s in strings {
        symbols.insert(s, out.len() as u32 + 4 + payload.len() as u32);
        put_uvarint_bytes(&mut payload, s.as_bytes());
    }
    section(&mut out, &payload);
    toc.series = out.len() as u64;
    let mut lists: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::from([(("", ""), vec![])]);
    for (labels, chunks) in series {
        for pair in labels.iter().chain([("", "")]) {
            lists.entry(pair).or_default().push(out.len() as u32);
        }
        let labels = labels.iter().map(|(n, v)| (symbols[n], symbols[v])).collect();
        SeriesRecord { labels, chunks: chunks.clone() }.encode(&mut Vec::new(), &mut out);
    }
    toc.label_indices = out.len() as u64;
    toc.postings = out.len() as u64;
    let mut table = (lists.len() as u32).to_be_bytes().to_vec();
    for ((name, value), refs) in lists.into_iter().rev() {
        table.push(2);
        put_uvarint_bytes(&mut table, name.as_bytes());
        put_uvarint_bytes(&mut table, value.as_bytes());
        put_uvarint(&mut table, out.len() as u64);
        let mut list = (refs.len() as u32).to_be_bytes().to_vec();
        list.extend(refs.iter().flat_map(|r| r.to_be_bytes()));
        section(&mut out, &list);
    }
    toc.label_offset_table = out.len() as u64;
    toc.postings_offset_table = out.len() as u64;
    section(&mut out, &table);
    out.extend(toc.encode());
    out.into()
}

fn sample_index() -> (Series, Bytes) {
    let mut series = Series::new();
    for i in 0..36i64 {
        let (n, odd) = (i.to_string(), (i % 2).to_string());
        let labels = Labels::from_pairs([("__name__", "up"), ("n", &n), ("odd", &odd)]).unwrap();
        series.insert(labels, vec![]);
    }
    for (i, chunks) in series.values_mut().enumerate() {
        let at = i as i64 * 10;
        *chunks = vec![ChunkMeta { mint: at, maxt: at + 9, chunk_ref: at as u64 + 8 }];
    }
    let bytes = write(&series, IndexWriterOptions::default());
    (series, bytes)
}

#[test]
fn a_flipped_byte_gives_an_error_or_the_right_data() {
    let (series, bytes) = sample_index();
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut errors = 0;
    for at in 0..bytes.len() {
        for flip in [1, rng.random_range(1..=255u8)] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= flip;
            // The version has no checksum: an index that claims to be of version 1 has symbols elsewhere.
            if at == 4 && damaged[at] == 1 {
                let _ = read(damaged.into());
                continue;
            }
            match read(damaged.into()) {
                Ok((got, lists)) => {
                    assert_eq!(got, series, "byte {at} ^ {flip}");
                    assert_eq!(lists, expected_lists(&series), "byte {at} ^ {flip}");
                }
                Err(e) => {
                    assert!(e.to_string().contains("index"), "{e}");
                    assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Invalid), "{e}");
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > bytes.len(), "most bytes matter: {errors} of {}", bytes.len() * 2);
}

#[test]
fn a_cut_index_is_an_error() {
    let (_, bytes) = sample_index();
    for len in 0..bytes.len() {
        assert!(read(bytes.slice(..len)).is_err(), "cut to {len}");
    }
}

/// Damage behind valid checksums, as a hostile writer would make it.
#[test]
fn lies_with_a_valid_checksum_are_errors() {
    let seal = |mut payload: Vec<u8>| {
        let mut out = (payload.len() as u32).to_be_bytes().to_vec();
        let crc = crc32c(&payload);
        out.append(&mut payload);
        out.extend(crc.to_be_bytes());
        Bytes::from(out)
    };
    let file: Arc<str> = "f".into();
    // Four thousand million symbols, and a symbol longer than the table.
    for payload in [vec![0xFF; 12], vec![0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]] {
        let err = Symbols::parse(file.clone(), 2, 0, seal(payload)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Corrupt);
    }
    let entry = |name: &str, value: &str, offset: u64| {
        let mut out = vec![2];
        put_uvarint_bytes(&mut out, name.as_bytes());
        put_uvarint_bytes(&mut out, value.as_bytes());
        put_uvarint(&mut out, offset);
        out
    };
    let table = |count: u32, entries: &[Vec<u8>]| {
        let payload = [&count.to_be_bytes()[..], &entries.concat()].concat();
        PostingsTable::parse(file.clone(), 2, 0, seal(payload), 1000)
    };
    assert!(table(2, &[entry("a", "b", 1), entry("a", "c", 9)]).is_ok());
    for (count, entries) in [
        (u32::MAX, vec![]),
        (2, vec![entry("a", "b", 1)]),
        (2, vec![entry("b", "b", 1), entry("a", "c", 9)]),
        (2, vec![entry("a", "b", 9), entry("a", "c", 1)]),
        (1, vec![entry("a", "b", 1000)]),
        (1, vec![vec![3, 0, 0, 0]]),
    ] {
        assert_eq!(table(count, &entries).unwrap_err().kind(), ErrorKind::Corrupt, "{count} {entries:?}");
    }
    for list in [vec![0xFF; 4], vec![0, 0, 0, 2, 0, 0, 0, 1]] {
        assert!(parse_postings("f", 0, &seal(list)).is_err());
    }
    let mut endless = vec![0xFF; 9];
    endless.push(1);
    assert!(SeriesRecord::default().decode("f", 0, &endless, TimeRange::ALL).is_err());
}

#[test]
fn the_writer_refuses_disorder() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = IndexWriter::create(&dir.path().join("index"), IndexWriterOptions::default()).unwrap();
    let labels = |v: &str| Labels::from_pairs([("a", v)]).unwrap();
    let chunk = |mint, maxt, chunk_ref| ChunkMeta { mint, maxt, chunk_ref };
    writer.add_series(&labels("b"), &[chunk(0, 9, 100)]).unwrap();
    let cases = [
        (labels("b"), vec![], "not above"),
        (labels("a"), vec![], "not above"),
        (labels("c"), vec![chunk(5, 4, 200)], "ends before it begins"),
        (labels("c"), vec![chunk(0, 9, 200), chunk(9, 12, 300)], "before the one in front of it ends"),
        (labels("c"), vec![chunk(0, 9, 99)], "lies before an earlier chunk"),
    ];
    for (labels, chunks, want) in cases {
        let err = writer.add_series(&labels, &chunks).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Invalid);
        assert!(err.to_string().contains(want), "{err}");
    }
    writer.add_series(&labels("c"), &[chunk(0, 9, 100)]).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(std::fs::read(dir.path().join("index")).unwrap().into()).unwrap().0.len(), 2);
}
