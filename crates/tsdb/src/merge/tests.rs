//! Merged blocks against what their inputs hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_chunk::{Chunk, encode_floats};
use chronolith_model::histogram::Span;
use chronolith_model::{BlockId, Histogram, Labels, MatchOp, Matcher, SampleValue, TimeRange};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::ErrorKind;
use crate::block::{AnySample, Block, BlockWriter, BlockWriterOptions, encode_samples, verify};

/// Samples by labels and time; values as text, since histograms have no order.
type Content = BTreeMap<Labels, BTreeMap<i64, String>>;

const HOUR: i64 = 3_600_000;

fn id(n: u128) -> BlockId {
    BlockId(ulid::Ulid::from_parts(1_700_000_000_000, n))
}

fn labels(n: usize) -> Labels {
    let (pod, zone) = (format!("pod-{}", n * 37 % 101), ["eu", "us", "ap"][n % 3]);
    Labels::from_pairs([("__name__", "up"), ("n", &format!("{n:04}")), ("pod", &pod), ("zone", zone)])
        .unwrap()
}

fn quick() -> MergeOptions {
    MergeOptions { sync: false, ..MergeOptions::default() }
}

fn write(parent: &Path, n: u128, times: (i64, i64), series: &BTreeMap<Labels, Vec<Chunk>>) -> PathBuf {
    let options =
        BlockWriterOptions { sync: false, segment_bytes_max: 20_000, ..BlockWriterOptions::default() };
    let mut writer = BlockWriter::create(parent, id(n), options).unwrap();
    for (labels, chunks) in series {
        writer.add_series(labels, chunks).unwrap();
    }
    writer.finish(BlockParts { times: Some(times), ..BlockParts::default() }).unwrap().unwrap();
    parent.join(id(n).to_string())
}

fn read(dir: &Path) -> Content {
    let block = Block::open(dir).unwrap();
    let mut out = Content::new();
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let (labels, chunks) = series.unwrap();
        let samples = out.entry(labels).or_default();
        for chunk in chunks {
            for sample in chunk.iter().unwrap() {
                let (t, value) = sample.unwrap();
                // What is known of resets depends on the chunk.
                let mut text = format!("{value:?}");
                for known in ["NotReset", "Reset"] {
                    text = text.replace(&format!("counter_reset: {known},"), "counter_reset: Unknown,");
                }
                assert!(samples.insert(t, text).is_none(), "time {t} twice");
            }
        }
    }
    out
}

fn merge(inputs: &[PathBuf], parent: &Path, options: &MergeOptions) -> Vec<PathBuf> {
    let mut next = 1000;
    let mut new_id = || {
        next += 1;
        id(next)
    };
    let metas = merge_blocks(inputs, parent, &mut new_id, options).unwrap();
    let dirs: Vec<PathBuf> = metas.iter().map(|m| parent.join(m.ulid.to_string())).collect();
    for dir in &dirs {
        verify(dir).unwrap();
    }
    dirs
}

fn floats(n: usize, times: impl Iterator<Item = i64>) -> Vec<Chunk> {
    let ts: Vec<i64> = times.collect();
    let values: Vec<f64> = ts.iter().map(|t| (t / 1000 + n as i64) as f64).collect();
    encode_floats(&ts, &values)
}

/// Three blocks one after another, each with other series beside common ones.
fn consecutive(parent: &Path) -> Vec<PathBuf> {
    (0..3usize)
        .map(|b| {
            let from = b as i64 * 2 * HOUR;
            let series = (b * 20..b * 20 + 60)
                .map(|n| (labels(n), floats(n, (0..480).map(|i| from + n as i64 + i * 15_000))))
                .collect();
            write(parent, b as u128 + 1, (from, from + 2 * HOUR), &series)
        })
        .collect()
}

#[test]
fn chunks_that_do_not_overlap_are_copied() {
    let tmp = tempfile::tempdir().unwrap();
    let inputs = consecutive(tmp.path());
    let mut want = Content::new();
    for dir in &inputs {
        for (labels, samples) in read(dir) {
            want.entry(labels).or_default().extend(samples);
        }
    }
    // A given order of the inputs does not matter, small buffers and segments neither.
    let shuffled = [inputs[2].clone(), inputs[0].clone(), inputs[1].clone()];
    let options = MergeOptions { segment_bytes_max: 10_000, postings_bytes_max: 100, ..quick() };
    let merged = merge(&shuffled, tmp.path(), &options);
    assert_eq!(merged.len(), 1);
    assert_eq!(read(&merged[0]), want);
    let meta = BlockMeta::read(&merged[0]).unwrap();
    assert_eq!((meta.min_time, meta.max_time), (0, 6 * HOUR));
    assert_eq!(meta.compaction.level, 2);
    assert_eq!(meta.compaction.sources, [id(1), id(2), id(3)]);
    assert_eq!(meta.compaction.parents.len(), 3);
    assert_eq!((meta.stats.num_series, meta.stats.num_samples), (100, 3 * 60 * 480));
    assert!(std::fs::read_dir(merged[0].join("chunks")).unwrap().count() > 1);
    // Every chunk is one of the inputs'.
    let all = |dirs: &[PathBuf]| {
        let blocks = dirs.iter().map(|d| Block::open(d).unwrap());
        let chunks = blocks.flat_map(|b| b.select(&[], TimeRange::ALL).unwrap().map(|s| s.unwrap().1));
        chunks.flatten().map(|c| (c.mint, c.data.to_vec())).collect::<BTreeSet<_>>()
    };
    assert_eq!(all(&merged), all(&inputs));
    // The same with default sizes gives the same index, whatever was batched.
    let again = merge_blocks(&inputs, tmp.path(), &mut || id(2000), &quick()).unwrap();
    assert_eq!(again[0].stats, meta.stats);
    assert_eq!(read(&tmp.path().join(id(2000).to_string())), want);
}

/// Random blocks of all kinds of samples, with overlaps, deletions and start timestamps, against a map.
#[test]
fn any_blocks_give_the_union_of_their_samples() {
    for seed in 0..12u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let tmp = tempfile::tempdir().unwrap();
        let mut want = Content::new();
        let mut inputs = Vec::new();
        for b in 0..rng.random_range(2..6u128) {
            let from = rng.random_range(0..4) * HOUR;
            let mut series = BTreeMap::new();
            for n in 0..30usize {
                if rng.random_ratio(1, 3) {
                    continue;
                }
                let step = if rng.random_ratio(1, 2) { 60_000 } else { 45_000 };
                let with_st = n % 5 == 4;
                let samples: Vec<AnySample> = (0..rng.random_range(1..160i64))
                    .map(|i| from + i * step)
                    .take_while(|t| *t < from + 2 * HOUR)
                    .map(|t| AnySample { start_ts: if with_st { 1 } else { 0 }, t, value: value(n, t) })
                    .collect();
                series.insert(labels(n), encode_samples(&samples).unwrap());
            }
            let dir = write(tmp.path(), b + 1, (from, from + 2 * HOUR), &series);
            if rng.random_ratio(1, 2) {
                let (zone, at) = (Matcher::new(MatchOp::Regex, "zone", "eu|us").unwrap(), from + HOUR / 2);
                Block::open(&dir).unwrap().delete(&[zone], TimeRange::new(at, at + HOUR / 3)).unwrap();
            }
            inputs.push(dir);
        }
        for dir in &inputs {
            for (labels, samples) in read(dir) {
                want.entry(labels).or_default().extend(samples);
            }
        }
        let merged = merge(&inputs, tmp.path(), &quick());
        assert!(read(&merged[0]) == want, "seed {seed}");
        let block = Block::open(&merged[0]).unwrap();
        assert!(block.tombstones().is_empty());
        // Start timestamps came along.
        let with_st =
            block.select(&[Matcher::new(MatchOp::Regex, "n", "...4").unwrap()], TimeRange::ALL).unwrap();
        assert!(with_st.flat_map(|s| s.unwrap().1).all(|c| c.encoding.has_start_ts()), "seed {seed}");
    }
}

fn value(n: usize, t: i64) -> SampleValue {
    let histogram = Histogram {
        schema: 1,
        count: 3 * (t as u64 / 1000 + 1),
        sum: t as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![t / 1000 + 1, t / 1000 + 1],
        ..Histogram::default()
    };
    match n % 4 {
        0 => SampleValue::Histogram(Arc::new(histogram)),
        1 => SampleValue::FloatHistogram(Arc::new(histogram.to_float())),
        _ => SampleValue::Float(t as f64),
    }
}

#[test]
fn a_result_too_large_for_its_index_is_split() {
    let tmp = tempfile::tempdir().unwrap();
    let inputs = consecutive(tmp.path());
    let whole = merge(&inputs, tmp.path(), &quick());
    let whole_bytes = std::fs::metadata(whole[0].join("index")).unwrap().len();
    for limits in [
        IndexLimits { index_bytes_max: 9_000, ..IndexLimits::default() },
        IndexLimits { symbols_bytes_max: 300, ..IndexLimits::default() },
    ] {
        let parent = tempfile::tempdir().unwrap();
        let parts = merge(&inputs, parent.path(), &MergeOptions { limits, ..quick() });
        assert!(parts.len() > 2, "{whole_bytes} bytes in {} parts", parts.len());
        let mut got = Content::new();
        for dir in &parts {
            let index = std::fs::metadata(dir.join("index")).unwrap().len();
            assert!(index <= limits.index_bytes_max, "{index} bytes");
            let meta = BlockMeta::read(dir).unwrap();
            assert_eq!(meta.compaction.sources, [meta.ulid]);
            assert_eq!((meta.compaction.level, meta.compaction.parents.len()), (2, 3));
            for (labels, samples) in read(dir) {
                assert!(got.insert(labels, samples).is_none(), "a series is in one part only");
            }
        }
        assert_eq!(got, read(&whole[0]));
    }
}

#[test]
fn replicas_are_deduplicated_and_copies_put_together() {
    let tmp = tempfile::tempdir().unwrap();
    let every = |offset: i64| (0..240i64).map(move |i| i * 30_000 + offset);
    let series = |offset: i64, gap: std::ops::Range<i64>| {
        let of_its_own = floats(0, every(offset).filter(|t| !gap.contains(t)));
        let copy = floats(1, every(0).filter(|t| !gap.contains(&(t + offset))));
        BTreeMap::from([(labels(0), of_its_own), (labels(1), copy), (labels(2), histograms(every(offset)))])
    };
    let inputs = [
        write(tmp.path(), 1, (0, 2 * HOUR), &series(0, 0..0)),
        write(tmp.path(), 2, (0, 2 * HOUR), &series(4_000, HOUR..HOUR + 200_000)),
    ];
    let options = MergeOptions { deduplication: Deduplication::Penalty, ..quick() };
    let merged = merge(&inputs, tmp.path(), &options);
    let got = read(&merged[0]);
    for n in 0..3 {
        assert_eq!(got[&labels(n)].keys().copied().collect::<Vec<_>>(), every(0).collect::<Vec<_>>(), "{n}");
    }
    assert!(got[&labels(2)].values().all(|v| v.starts_with("Histogram")), "integer histograms stay so");
    // Every sample, when asked for.
    let merged = merge(&inputs, &tmp.path().join("all"), &quick());
    assert_eq!(read(&merged[0])[&labels(0)].len(), 240 + 240 - 7);
}

fn histograms(times: impl Iterator<Item = i64>) -> Vec<Chunk> {
    let samples: Vec<AnySample> = times.map(|t| AnySample { start_ts: 0, t, value: value(0, t) }).collect();
    encode_samples(&samples).unwrap()
}

#[test]
fn damage_is_blamed_on_its_block() {
    let tmp = tempfile::tempdir().unwrap();
    let inputs = consecutive(tmp.path());
    let flip = |file: &str, at: u64| {
        let path = inputs[1].join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = if at == u64::MAX { bytes.len() - 1 } else { at as usize };
        bytes[at] ^= 0xFF;
        std::fs::write(&path, bytes).unwrap();
    };
    let segments = std::fs::read_dir(inputs[1].join("chunks")).unwrap().count();
    assert!(segments > 1);
    for (file, at) in [
        ("chunks/000001", 0),
        ("chunks/000001", 300),
        ("chunks/000002", u64::MAX),
        ("index", 0),
        ("index", 30),
        ("index", 3_000),
        ("index", u64::MAX),
    ] {
        flip(file, at);
        let parent = tempfile::tempdir().unwrap();
        let err = merge_blocks(&inputs, parent.path(), &mut || id(99), &quick()).unwrap_err();
        assert_eq!(err.block, Some(id(2)), "{file} {at}: {:?}", err.source);
        assert_eq!(err.source.kind(), ErrorKind::Corrupt, "{file} {at}");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left");
        flip(file, at);
    }
    std::fs::remove_file(inputs[1].join("chunks/000002")).unwrap();
    let err = merge_blocks(&inputs, tmp.path(), &mut || id(99), &quick()).unwrap_err();
    assert_eq!((err.block, err.source.kind()), (Some(id(2)), ErrorKind::NotFound));
    std::fs::write(inputs[0].join("meta.json"), "{").unwrap();
    assert!(merge_blocks(&inputs, tmp.path(), &mut || id(99), &quick()).is_err());
}

#[test]
fn what_lies_outside_of_a_block_or_is_deleted_goes() {
    let tmp = tempfile::tempdir().unwrap();
    let inside = BTreeMap::from([(labels(0), floats(0, (0..100).map(|i| i * 1000)))]);
    let dir = write(tmp.path(), 1, (0, 100_000), &inside);
    // As an old Prometheus wrote it: a sample at the end of the block's time, which is exclusive.
    let meta = std::fs::read_to_string(dir.join("meta.json")).unwrap();
    std::fs::write(dir.join("meta.json"), meta.replace("100000", "99000")).unwrap();
    let merged = merge(std::slice::from_ref(&dir), &tmp.path().join("out"), &quick());
    assert_eq!(read(&merged[0])[&labels(0)].len(), 99);
    // Nothing left is no block.
    Block::open(&dir).unwrap().delete(&[], TimeRange::ALL).unwrap();
    assert!(merge(&[dir], &tmp.path().join("none"), &quick()).is_empty());
}

#[test]
fn it_stops_when_told() {
    let tmp = tempfile::tempdir().unwrap();
    let inputs = consecutive(tmp.path());
    let options = quick();
    options.stop.store(true, Ordering::Relaxed);
    assert!(merge_blocks(&inputs, tmp.path(), &mut || id(99), &options).is_err());
    assert!(!tmp.path().join(id(99).to_string()).exists());
}

#[test]
fn history_keeps_what_is_true_of_the_whole() {
    let mut a = BlockMeta::new(id(1), 0, 10);
    let mut b = BlockMeta::new(id(2), 10, 20);
    (a.compaction.level, b.compaction.level) = (1, 3);
    (a.compaction.sources, b.compaction.sources) = (vec![id(1)], vec![id(8), id(7)]);
    a.compaction.hints = vec![HINT_OUT_OF_ORDER.to_owned()];
    let merged = merged_compaction(&[&b, &a]);
    assert_eq!((merged.level, merged.hints.len()), (4, 0));
    assert_eq!(merged.sources, [id(1), id(7), id(8)]);
    assert_eq!(merged.parents.iter().map(|p| p.ulid).collect::<Vec<_>>(), [id(1), id(2)]);
}
