//! Downsampled blocks that overlap are merged window by window: a window's aggregates are of one input, and counters grow by what
//! they grew by.

mod world;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use chronolith_bucket::{UploadOptions, upload_block};
use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, CounterTotals, SampleColumns, encode_columns, encode_floats,
};
use chronolith_compact::downsample::downsample;
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{BlockId, FloatHistogram, Labels, Resolution, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::{
    Block, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta, list_blocks, verify,
};
use chronolith_tsdb::merge::{Deduplication, MergeOptions, merge_blocks};
use proptest::prelude::*;

use world::{HOUR_MS, NOW_MS, config, labels, worker};

const SCRAPE: i64 = 60_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A window: when, and what all of its aggregates but the counter are.
type Window = (i64, String);

fn id(n: u128) -> BlockId {
    BlockId(ulid::Ulid::from_parts((NOW_MS - 1_000) as u64, n))
}

/// A raw block of these series, and the blocks of both resolutions.
fn levels(
    dir: &Path,
    n: u128,
    times: (i64, i64),
    replica: &str,
    series: &[(Labels, Vec<Chunk>)],
) -> [PathBuf; 3] {
    let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    let mut writer = BlockWriter::create(dir, id(n), options).unwrap();
    for (labels, chunks) in series {
        writer.add_series(labels, chunks).unwrap();
    }
    let thanos = Some(ThanosMeta::new(&labels(&[("cluster", "a"), ("replica", replica)]), "sidecar"));
    writer.finish(BlockParts { times: Some(times), thanos, ..BlockParts::default() }).unwrap().unwrap();
    let path = |n: u128| dir.join(id(n).to_string());
    for level in 1..3 {
        let from = Block::open(&path(n + level - 1)).unwrap();
        downsample(&from, dir, id(n + level), options, || true).unwrap().unwrap();
    }
    [path(n), path(n + 1), path(n + 2)]
}

fn merged(dir: &Path, inputs: &[&PathBuf], deduplication: Deduplication) -> Block {
    let inputs: Vec<PathBuf> = inputs.iter().map(|p| (*p).clone()).collect();
    let out = tempfile::tempdir_in(dir).unwrap().keep();
    let thanos = Block::open(&inputs[0]).unwrap().meta().thanos.clone();
    let options = MergeOptions { deduplication, sync: false, thanos, ..MergeOptions::default() };
    let metas = merge_blocks(&inputs, &out, &mut || id(99), &options).unwrap();
    let path = out.join(metas[0].ulid.to_string());
    verify(&path).unwrap();
    Block::open(&path).unwrap()
}

fn chunks(block: &Block, name: &str) -> Vec<Chunk> {
    let all = block.select(&[], TimeRange::ALL).unwrap().map(Result::unwrap);
    let chunks: Vec<Chunk> =
        all.filter(|(l, _)| l.get("__name__") == Some(name)).flat_map(|(_, chunks)| chunks).collect();
    assert!(chunks.windows(2).all(|w| w[0].maxt < w[1].mint), "{chunks:?}");
    chunks
}

fn part(chunk: &Chunk, which: Aggregate) -> SampleColumns {
    let mut out = SampleColumns::default();
    if let Some(part) = AggrChunk::parse(&chunk.data).unwrap().get(which, 0, 0) {
        part.decode_into(TimeRange::ALL, &mut out).unwrap();
    }
    out
}

fn windows(chunks: &[Chunk]) -> Vec<Window> {
    let mut out = Vec::new();
    for chunk in chunks {
        let parts =
            [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max].map(|a| part(chunk, a));
        for (i, &t) in parts[0].ts.iter().enumerate() {
            let text: Vec<String> =
                parts.iter().filter(|p| !p.is_empty()).map(|p| format!("{:?}", p.value(i))).collect();
            out.push((t, text.join(" ")));
        }
    }
    out
}

fn counted(chunks: &[Chunk]) -> f64 {
    chunks.iter().flat_map(|c| part(c, Aggregate::Count).values).sum()
}

/// What a counter grew by, and its values by time: as `increase` has it.
fn growth(chunks: &[Chunk]) -> f64 {
    let mut counter = CounterTotals::default();
    let mut totals = Vec::new();
    for chunk in chunks {
        let samples = part(chunk, Aggregate::Counter);
        totals.extend(samples.ts.iter().zip(&samples.values).filter_map(|(t, v)| counter.push(*t, *v)));
    }
    totals.last().unwrap() - totals.first().unwrap()
}

fn histogram_growth(chunks: &[Chunk]) -> f64 {
    let mut before: Option<Arc<FloatHistogram>> = None;
    let mut growth = 0.0;
    for chunk in chunks {
        let samples = part(chunk, Aggregate::Counter);
        for i in 0..samples.len() {
            let h = samples.histogram(i).unwrap();
            if let Some(before) = before.replace(h.clone()) {
                growth += if h.detect_reset(&before) { h.count } else { h.count - before.count };
            }
        }
    }
    growth
}

fn histogram(v: f64) -> FloatHistogram {
    FloatHistogram {
        schema: 1,
        count: v,
        sum: v * 0.5,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![(v / 2.0).floor(), v - (v / 2.0).floor()],
        ..FloatHistogram::default()
    }
}

/// A counter that is scraped every minute, and as a histogram; `None` while nothing was seen of it.
fn series(values: &[Option<f64>], start: i64) -> Vec<(Labels, Vec<Chunk>)> {
    let seen = || values.iter().enumerate().filter_map(|(i, v)| Some((start + i as i64 * SCRAPE + 7, (*v)?)));
    let (ts, floats): (Vec<i64>, Vec<f64>) = seen().unzip();
    let mut columns = SampleColumns::default();
    seen().for_each(|(t, v)| columns.push_histogram(t, Arc::new(histogram(v))));
    vec![
        (labels(&[("__name__", "floats")]), encode_floats(&ts, &floats)),
        (labels(&[("__name__", "histograms")]), encode_columns(&columns).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Of two copies each has gaps of whole hours, but never both.
    #[test]
    fn copies_with_gaps_are_one_stream(
        resets in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        gaps in prop::collection::vec((0i64..48, 1i64..6, any::<bool>()), 0..8),
        hours in 49i64..80,
    ) {
        let resets: Vec<usize> = resets.iter().map(|i| i.index(hours as usize * 60)).collect();
        let mut v = 50.0;
        let all: Vec<Option<f64>> = (0..hours as usize * 60).map(|i| {
            v = if resets.contains(&i) { 1.0 } else { v + f64::from(i as u32 * 7 % 5) };
            Some(v)
        }).collect();
        let mut gone = vec![None; hours as usize];
        for (at, len, first) in gaps {
            // Both see the first hours and the last.
            for hour in at.max(2)..(at + len).min(hours - 2) {
                // Both were there between one's gap and the other's: else nobody knows of a reset in a gap.
                let beside = &gone[hour as usize - 1..=hour as usize + 1];
                if beside.iter().all(|g| g.is_none_or(|g| g == first)) {
                    gone[hour as usize] = Some(first);
                }
            }
        }
        let copy = |which: bool| -> Vec<Option<f64>> {
            all.iter().enumerate().map(|(i, v)| v.filter(|_| gone[i / 60] != Some(which))).collect()
        };
        let tmp = tempfile::tempdir().unwrap();
        let start = NOW_MS - 10 * DAY_MS;
        let times = (start, start + hours * HOUR_MS);
        let a = levels(tmp.path(), 1, times, "a", &series(&copy(true), start));
        let b = levels(tmp.path(), 11, times, "b", &series(&copy(false), start));
        let whole = levels(tmp.path(), 21, times, "c", &series(&all, start));
        for level in 1..3 {
            for how in [Deduplication::OneToOne, Deduplication::Penalty] {
                let block = merged(tmp.path(), &[&a[level], &b[level]], how);
                let want = Block::open(&whole[level]).unwrap();
                for name in ["floats", "histograms"] {
                    let (got, want) = (chunks(&block, name), chunks(&want, name));
                    prop_assert_eq!(counted(&got), counted(&want));
                    let inputs = [&a, &b].map(|x| windows(&chunks(&Block::open(&x[level]).unwrap(), name)));
                    let inputs: BTreeSet<Window> = inputs.into_iter().flatten().collect();
                    for window in windows(&got) {
                        prop_assert!(inputs.contains(&window), "{:?}", window);
                    }
                }
                prop_assert_eq!(growth(&chunks(&block, "floats")), growth(&chunks(&want, "floats")));
            }
        }
    }
}

/// Of a block and a part of it the block comes out, and byte by byte what only it has.
#[test]
fn copies_stay_as_they_are() {
    let tmp = tempfile::tempdir().unwrap();
    let start = NOW_MS - 10 * DAY_MS;
    let values: Vec<Option<f64>> = (0..3_000).map(|i| Some(f64::from(i % 700))).collect();
    let times = (start, start + 3_000 * SCRAPE);
    let a = levels(tmp.path(), 1, times, "a", &series(&values, start));
    let b = levels(tmp.path(), 11, times, "b", &series(&values[..1_500], start));
    for level in 1..3 {
        let block = merged(tmp.path(), &[&b[level], &a[level]], Deduplication::OneToOne);
        let want = Block::open(&a[level]).unwrap();
        for name in ["floats", "histograms"] {
            let (got, want) = (chunks(&block, name), chunks(&want, name));
            // The last window of a chunk stands at its last sample, and b's chunks end elsewhere.
            let ends = |chunks: &[Chunk]| -> Vec<Window> {
                let resolution_ms = [5 * SCRAPE, HOUR_MS][level - 1];
                windows(chunks).into_iter().map(|(t, v)| (t - t.rem_euclid(resolution_ms), v)).collect()
            };
            assert_eq!(ends(&got), ends(&want), "{name} {level}");
            // In hours there is one chunk, in which b's last sample is known by its time.
            assert!(level == 2 || got.last() == want.last(), "{name}");
        }
        assert_eq!(growth(&chunks(&block, "floats")), growth(&chunks(&want, "floats")));
        let (got, want) = (chunks(&block, "histograms"), chunks(&want, "histograms"));
        assert_eq!(histogram_growth(&got), histogram_growth(&want));
    }
}

/// Replicas scrape at other moments; one is followed until it has a gap, then the other one.
#[test]
fn a_replica_is_followed_until_it_has_a_gap() {
    let tmp = tempfile::tempdir().unwrap();
    let start = NOW_MS - 10 * DAY_MS;
    let values: Vec<Option<f64>> = (0..3_000).map(|i| Some(f64::from(i % 1_100))).collect();
    let mut first = values.clone();
    first[1_000..1_240].fill(None);
    let times = (start, start + 3_001 * SCRAPE);
    let a = levels(tmp.path(), 1, times, "a", &series(&first, start));
    let b = levels(tmp.path(), 11, times, "b", &series(&values, start + 20_000));
    let block = merged(tmp.path(), &[&a[1], &b[1]], Deduplication::Penalty);
    for name in ["floats", "histograms"] {
        let [a, b] = [&a, &b].map(|x| windows(&chunks(&Block::open(&x[1]).unwrap(), name)));
        let got = windows(&chunks(&block, name));
        let gap = start + 1_000 * SCRAPE;
        for window in &got {
            let wanted = if window.0 < gap { &a } else { &b };
            assert!(wanted.contains(window), "{name} {window:?}");
        }
        assert_eq!(got.len(), 600, "{name}");
    }
    let want = growth(&chunks(&Block::open(&b[1]).unwrap(), "floats"));
    assert!((growth(&chunks(&block, "floats")) - want).abs() <= 1.0, "a scrape more or less at the ends");
    assert!((histogram_growth(&chunks(&block, "histograms")) - want).abs() <= 6.0);
}

/// A lane that went through a reset is ahead of one that begins behind it: going over to that one is no reset.
#[test]
fn a_histogram_that_is_behind_was_not_reset() {
    let tmp = tempfile::tempdir().unwrap();
    let start = NOW_MS - 10 * DAY_MS;
    // Reset at 1,000 and at 2,800.
    let value = |i: usize| {
        (if i < 1_000 {
            i + 500
        } else if i < 2_800 {
            i - 1_000
        } else {
            i - 2_800
        }) as f64
    };
    let values: Vec<Option<f64>> = (0..3_600).map(|i| Some(value(i))).collect();
    let mut first = values.clone();
    first[1_800..1_920].fill(None);
    let mut second = values.clone();
    second[..1_200].fill(None);
    let times = (start, start + 3_600 * SCRAPE);
    let a = levels(tmp.path(), 1, times, "a", &series(&first, start));
    let b = levels(tmp.path(), 11, times, "b", &series(&second, start));
    let whole = levels(tmp.path(), 21, times, "c", &series(&values, start));
    let block = merged(tmp.path(), &[&a[1], &b[1]], Deduplication::OneToOne);
    let want = Block::open(&whole[1]).unwrap();
    assert_eq!(
        histogram_growth(&chunks(&block, "histograms")),
        histogram_growth(&chunks(&want, "histograms"))
    );
    assert_eq!(growth(&chunks(&block, "floats")), growth(&chunks(&want, "floats")));
    let known = part(&chunks(&block, "histograms")[0], Aggregate::Counter);
    assert!(known.histogram(0).is_some_and(|h| h.counter_reset != CounterReset::Gauge));
}

/// Thanos reads what was merged: it makes of it the same block of an hour as we do.
#[test]
fn thanos_downsamples_what_was_merged() {
    let Ok(binary) = std::env::var("CHRONOLITH_THANOS") else {
        eprintln!("left out: CHRONOLITH_THANOS names no Thanos");
        return;
    };
    let tmp = tempfile::tempdir().unwrap();
    let start = (NOW_MS - 30 * DAY_MS).div_euclid(14 * DAY_MS) * 14 * DAY_MS;
    let values: Vec<Option<f64>> = (0..20_160).map(|i| Some(f64::from(i % 6_300))).collect();
    let (mut first, mut second) = (values.clone(), values.clone());
    for (i, (a, b)) in first.iter_mut().zip(&mut second).enumerate() {
        match i / 60 % 97 {
            11..15 => *a = None,
            50 | 51 | 80 => *b = None,
            _ => {}
        }
    }
    let times = (start, start + 14 * DAY_MS);
    let a = levels(tmp.path(), 1, times, "a", &series(&first, start));
    let b = levels(tmp.path(), 11, times, "b", &series(&second, start));
    let block = merged(tmp.path(), &[&a[1], &b[1]], Deduplication::OneToOne);
    let bucket = block.dir().parent().unwrap();
    let config = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    let thanos = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(arguments).arg(format!("--objstore.config={config}")).stderr(Stdio::piped());
        command
    };
    let verified = thanos(&["tools", "bucket", "verify", "--log.format=json"]).output().unwrap();
    let log = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !log.contains("\"level\":\"error\""), "{log}");
    let work = format!("--data-dir={}", tmp.path().join("work").display());
    let mut running =
        thanos(&["tools", "bucket", "downsample", "--http-address=127.0.0.1:0", "--log.format=json", &work])
            .spawn()
            .unwrap();
    let mut log = String::new();
    for line in BufReader::new(running.stderr.take().unwrap()).lines() {
        log.push_str(&line.unwrap());
        log.push('\n');
        if log.contains("uploaded block") {
            break;
        }
    }
    running.kill().unwrap();
    running.wait().unwrap();
    let made = list_blocks(bucket).unwrap().into_iter().find(|(_, path)| path != block.dir());
    let theirs = Block::open(&made.unwrap_or_else(|| panic!("{log}")).1).unwrap();
    let ours = tmp.path().join("ours");
    let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    downsample(&block, &ours, id(50), options, || true).unwrap().unwrap();
    let ours = Block::open(&ours.join(id(50).to_string())).unwrap();
    assert_eq!(chunks(&theirs, "floats"), chunks(&ours, "floats"));
    let histograms = |block: &Block| windows(&chunks(block, "histograms"));
    assert_eq!(histograms(&theirs), histograms(&ours));
    let whole = levels(tmp.path(), 21, times, "c", &series(&values, start));
    assert_eq!(
        growth(&chunks(&theirs, "floats")),
        growth(&chunks(&Block::open(&whole[2]).unwrap(), "floats"))
    );
}

/// The compactor merges them, marks their sources, and leaves one block of a resolution.
#[tokio::test]
async fn the_compactor_merges_downsampled_replicas() {
    let tmp = tempfile::tempdir().unwrap();
    let start = (NOW_MS - 30 * DAY_MS).div_euclid(14 * DAY_MS) * 14 * DAY_MS;
    let values: Vec<Option<f64>> = (0..20_160).map(|i| Some(f64::from(i % 7_000))).collect();
    let times = (start, start + 14 * DAY_MS);
    let bucket = Bucket::in_memory();
    for (n, replica) in [(1, "a"), (11, "b")] {
        // Only what is downsampled: the raw blocks are out of retention.
        for path in &levels(tmp.path(), n, times, replica, &series(&values, start))[1..] {
            let meta = Block::open(path).unwrap().meta().clone();
            upload_block(&bucket, path, &meta, UploadOptions::default(), NOW_MS).await.unwrap();
        }
    }
    let config = chronolith_compact::Config {
        replica_labels: vec!["replica".to_owned()],
        consistency_delay: std::time::Duration::ZERO,
        ..config()
    };
    let w = worker(&bucket, &tmp.path().join("work"), config);
    let report = w.compactor.iterate().await.unwrap();
    assert_eq!((report.compactions, report.failed), (2, 0));
    assert_eq!(w.metric("thanos_compact_group_vertical_compactions_total"), 2.0);
    assert_eq!(w.own.marks("no-compact-mark.json", "downsample-vertical-compaction"), 0);
    assert_eq!(w.own.marks("deletion-mark.json", "source-of-compacted-block"), 4);
    let visible = chronolith_bucket::Fetcher::new(bucket.clone(), chronolith_bucket::FetchOptions::default());
    let filter = chronolith_bucket::BlockFilter { hide_marked_after_ms: Some(0), ..Default::default() };
    let found = visible.fetch_with(&filter, NOW_MS + 1_000).await.unwrap();
    let resolutions: Vec<Resolution> = found.blocks.values().filter_map(|m| m.resolution()).collect();
    assert_eq!(resolutions.len(), 2, "{resolutions:?}");
    assert_eq!(w.compactor.iterate().await.unwrap().compactions, 0);
}

/// A block that another worker downsamples does not hold up the others of its group.
#[tokio::test]
async fn blocks_of_a_group_are_downsampled_apart() {
    let tmp = tempfile::tempdir().unwrap();
    let bucket = Bucket::in_memory();
    let start = (NOW_MS - 30 * DAY_MS).div_euclid(14 * DAY_MS) * 14 * DAY_MS;
    let mut ids = Vec::new();
    for n in 0..3i64 {
        let from = start + n * 2 * DAY_MS;
        let samples = (0..2_880).map(|i| (from + i * SCRAPE, i as f64)).collect();
        let series = vec![(labels(&[("__name__", "up")]), samples)];
        let times = (from, from + 2 * DAY_MS);
        ids.push(world::put_block(&bucket, n as u128 + 1, &labels(&[("cluster", "a")]), times, series).await);
    }
    // What compaction would do with them is another matter.
    let config = chronolith_compact::Config { level_max: 0, ..config() };
    let (first, second) = (tmp.path().join("1"), tmp.path().join("2"));
    let one = worker(&bucket, &first, config.clone());
    let two = worker(&bucket, &second, config);
    let name = format!("block-{}", ids[1]);
    let chronolith_compact::lease::Claim::Held(lease) =
        one.compactor.leases().claim(&name, "test").await.unwrap()
    else {
        panic!("free");
    };
    let report = two.compactor.iterate().await.unwrap();
    assert_eq!((report.downsamples, report.busy, report.failed), (2, 1, 0), "{report:?}");
    lease.release().await;
    let report = two.compactor.iterate().await.unwrap();
    assert_eq!((report.downsamples, report.busy, report.failed), (1, 0, 0), "{report:?}");
    assert_eq!(world::blocks(&bucket).await.len(), 6);
    use futures::TryStreamExt;
    let left: Vec<_> = bucket.list("chronolith/leases/compact").try_collect().await.unwrap();
    assert!(left.iter().all(|o| !o.key.contains("block-")), "{left:?}");
    // Both at once: each block once.
    let (a, b) = tokio::join!(one.compactor.iterate(), two.compactor.iterate());
    assert_eq!((a.unwrap().downsamples, b.unwrap().downsamples), (0, 0));
}
