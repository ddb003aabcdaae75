use std::path::Path;

use chronolith_chunk::{Chunk, SampleColumns, encode_floats};
use chronolith_model::{BlockId, Labels, MatchOp, Matcher, TimeRange};
use proptest::test_runner::{RngAlgorithm, TestRng};
use rand::RngExt as _;

use super::*;
use crate::{ErrorKind, Result};

type Series = Vec<(Labels, Vec<i64>)>;

fn id(n: u128) -> BlockId {
    BlockId(ulid::Ulid::from_parts(1_700_000_000_000, n))
}

fn sample_series() -> Series {
    let mut all: Series = (0..40)
        .map(|i: i64| {
            let (n, zone) = (i.to_string(), ["eu", "us", ""][i as usize % 3]);
            let labels = Labels::from_pairs([("__name__", "up"), ("n", &n), ("zone", zone)]).unwrap();
            (labels, (0..200).map(|s| s * 1000 + i).collect())
        })
        .collect();
    all.sort();
    all
}

fn write(parent: &Path, n: u128, series: &Series, options: BlockWriterOptions) -> BlockMeta {
    let mut writer = BlockWriter::create(parent, id(n), options).unwrap();
    for (labels, ts) in series {
        let values: Vec<f64> = ts.iter().map(|t| *t as f64 * 0.5).collect();
        writer.add_series(labels, &encode_floats(ts, &values)).unwrap();
    }
    writer.finish(BlockParts::default()).unwrap().unwrap()
}

fn quick() -> BlockWriterOptions {
    BlockWriterOptions { sync: false, ..BlockWriterOptions::default() }
}

fn times(chunks: &[Chunk]) -> Vec<i64> {
    let mut columns = SampleColumns::default();
    for chunk in chunks {
        chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
    }
    columns.ts
}

fn read(dir: &Path) -> Result<Series> {
    let block = Block::open(dir)?;
    block.select(&[], TimeRange::ALL)?.map(|s| s.map(|(l, c)| (l, times(&c)))).collect()
}

#[test]
fn select_by_matcher_and_time() {
    let tmp = tempfile::tempdir().unwrap();
    let meta = write(tmp.path(), 1, &sample_series(), quick());
    assert_eq!((meta.min_time, meta.max_time), (0, 199_040));
    assert_eq!((meta.stats.num_samples, meta.stats.num_float_samples), (8000, 8000));
    let block = Block::open(&tmp.path().join(id(1).to_string())).unwrap();
    assert_eq!(block.meta(), &meta);
    let eu = [Matcher::equal("zone", "eu"), Matcher::new(MatchOp::Regex, "n", "1.*").unwrap()];
    let got: Vec<_> = block.select(&eu, TimeRange::new(0, 50_000)).unwrap().map(Result::unwrap).collect();
    let numbers: Vec<_> = got.iter().map(|(l, _)| l.get("n").unwrap()).collect();
    assert_eq!(numbers, ["12", "15", "18"]);
    assert!(got.iter().all(|(_, chunks)| chunks.len() == 1 && times(chunks).len() == 120));
    assert_eq!(block.select(&eu, TimeRange::new(200_000, 300_000)).unwrap().count(), 0);
    assert_eq!(block.select(&eu, TimeRange::new(10, 5)).unwrap().count(), 0);
    let labels = block.select_labels(&[Matcher::equal("zone", "")], TimeRange::ALL).unwrap();
    let labels: Vec<_> = labels.map(Result::unwrap).collect();
    assert!(labels.len() == 13 && labels.iter().all(|(l, c)| c.is_empty() && l.get("zone").is_none()));
}

#[test]
fn names_and_values_with_matchers() {
    let tmp = tempfile::tempdir().unwrap();
    write(tmp.path(), 1, &sample_series(), quick());
    let block = Block::open(&tmp.path().join(id(1).to_string())).unwrap();
    let all = TimeRange::ALL;
    assert_eq!(block.label_names(&[], all).unwrap(), ["__name__", "n", "zone"]);
    assert_eq!(block.label_names(&[Matcher::equal("zone", "")], all).unwrap(), ["__name__", "n"]);
    assert_eq!(block.label_values("zone", &[], all).unwrap(), ["eu", "us"]);
    let up = [Matcher::equal("__name__", "up")];
    assert_eq!(block.label_values("zone", &up, all).unwrap(), ["eu", "us"]);
    let some = [Matcher::new(MatchOp::Regex, "n", "3|6|7").unwrap()];
    assert_eq!(block.label_values("zone", &some, all).unwrap(), ["eu", "us"]);
    assert_eq!(block.label_values("n", &some, all).unwrap(), ["3", "6", "7"]);
    assert!(block.label_values("none", &some, all).unwrap().is_empty());
    assert!(block.label_values("zone", &[], TimeRange::new(-9, -1)).unwrap().is_empty());
}

#[test]
fn segments_are_cut_at_their_size() {
    let tmp = tempfile::tempdir().unwrap();
    let options = BlockWriterOptions { segment_bytes_max: 2000, ..quick() };
    write(tmp.path(), 1, &sample_series(), options);
    let dir = tmp.path().join(id(1).to_string());
    let files = block_files(&dir).unwrap();
    let segments: Vec<_> = files.iter().filter(|f| f.rel_path.starts_with("chunks/")).collect();
    assert!(segments.len() > 10 && segments.iter().all(|f| f.size_bytes <= 2000), "{segments:?}");
    assert_eq!(read(&dir).unwrap(), sample_series());
    verify(&dir).unwrap();
    std::fs::remove_file(dir.join("chunks/000003")).unwrap();
    let err = Block::open(&dir).unwrap_err().to_string();
    assert!(err.contains("segment 000003 is missing"), "{err}");
    // A chunk larger than a segment gets one of its own.
    let options = BlockWriterOptions { segment_bytes_max: 10, ..quick() };
    write(tmp.path(), 2, &sample_series(), options);
    assert_eq!(read(&tmp.path().join(id(2).to_string())).unwrap(), sample_series());
}

#[test]
fn damage_is_found_and_never_panics() {
    let tmp = tempfile::tempdir().unwrap();
    write(tmp.path(), 1, &sample_series(), quick());
    let dir = tmp.path().join(id(1).to_string());
    let right = sample_series();
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for (file, flips) in [("index", 400), ("chunks/000001", 400), ("meta.json", 200), ("tombstones", 30)] {
        let path = dir.join(file);
        let sound = std::fs::read(&path).unwrap();
        let mut found = 0;
        for _ in 0..flips {
            let mut damaged = sound.clone();
            let at = rng.random_range(0..sound.len());
            damaged[at] ^= rng.random_range(1..=255u8);
            std::fs::write(&path, &damaged).unwrap();
            let verified = verify(&dir).is_ok();
            match read(&dir) {
                // meta.json has no checksum: times may be others, and then series are missing.
                Ok(got) if file == "meta.json" => assert!(got == right || got.is_empty()),
                Ok(got) => assert!(got == right, "{file} at {at}"),
                Err(e) => {
                    assert!(!verified, "{file} at {at}: verified, but {e}");
                    assert!(e.to_string().contains(file.split('/').next().unwrap()), "{e}");
                    found += 1;
                }
            }
        }
        assert!(found > 0, "{file}");
        for len in [0, 1, 7, sound.len() / 2, sound.len() - 1] {
            std::fs::write(&path, &sound[..len]).unwrap();
            assert!(verify(&dir).is_err(), "{file} cut to {len}");
        }
        std::fs::write(&path, &sound).unwrap();
    }
    verify(&dir).unwrap();
}

#[test]
fn an_unfinished_or_empty_block_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let entries = || std::fs::read_dir(tmp.path()).unwrap().count();
    let mut writer = BlockWriter::create(tmp.path(), id(1), quick()).unwrap();
    let (labels, ts) = &sample_series()[0];
    let chunks = encode_floats(ts, &vec![0.0; ts.len()]);
    writer.add_series(labels, &chunks).unwrap();
    let err = writer.add_series(labels, &chunks).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::Invalid);
    assert_eq!(entries(), 1);
    drop(writer);
    assert_eq!(entries(), 0);
    let mut writer = BlockWriter::create(tmp.path(), id(1), quick()).unwrap();
    writer.add_series(labels, &[]).unwrap();
    assert_eq!(writer.finish(BlockParts::default()).unwrap(), None);
    assert_eq!(entries(), 0);
    // Times that do not hold the samples are refused.
    let mut writer = BlockWriter::create(tmp.path(), id(1), quick()).unwrap();
    writer.add_series(labels, &chunks).unwrap();
    let parts = BlockParts { times: Some((0, 100)), ..BlockParts::default() };
    assert_eq!(writer.finish(parts).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(entries(), 0);
}

#[test]
fn directories_are_listed_deleted_and_swept() {
    let tmp = tempfile::tempdir().unwrap();
    write(tmp.path(), 2, &sample_series(), quick());
    write(tmp.path(), 1, &sample_series(), quick());
    std::fs::create_dir(tmp.path().join("wal")).unwrap();
    for suffix in [".tmp-for-creation", ".tmp-for-deletion", ".tmp"] {
        std::fs::create_dir_all(tmp.path().join(format!("{}{suffix}/chunks", id(9)))).unwrap();
    }
    let ids: Vec<_> = list_blocks(tmp.path()).unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [id(1), id(2)]);
    assert_eq!(remove_leftovers(tmp.path()).unwrap(), 3);
    let dir = tmp.path().join(id(1).to_string());
    let block = Block::open(&dir).unwrap();
    delete_block(&dir).unwrap();
    assert_eq!(list_blocks(tmp.path()).unwrap().len(), 1);
    assert_eq!(block.select(&[], TimeRange::ALL).unwrap().count(), 40, "open readers keep their files");
    assert!(BlockWriter::create(tmp.path(), id(2), quick()).is_err(), "an existing block is not overwritten");
    assert!(list_blocks(&tmp.path().join("none")).unwrap().is_empty());
}
