//! Downsampled blocks are those that Thanos makes of the same raw block, chunk by chunk, byte by byte.
//!
//! `testdata/thanos.txt` was written by Thanos 0.42. Where `CHRONOLITH_THANOS` names a Thanos, it is asked anew, and with
//! `UPDATE_EXPECT=1` the file is written from its answer.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, FloatHistogramEncoder, HistogramEncoder, SampleColumns, encode_floats,
};
use chronolith_compact::downsample::downsample;
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{BlockId, FloatHistogram, Histogram, Labels, STALE_NAN, TimeRange};
use chronolith_tsdb::block::{
    Block, BlockParts, BlockWriter, BlockWriterOptions, Compaction, ThanosMeta, list_blocks, verify,
};

/// Start of the block, a multiple of 14 days.
const START: i64 = 1_405 * DAY_14;
const DAY_14: i64 = 14 * 24 * 3_600_000;

/// Numbers that are the same every time (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

type Series = (&'static str, Vec<Chunk>);

/// The raw series, in label order. Each shows one thing.
fn raw_series() -> Vec<Series> {
    let mut dice = Dice(7);
    let floats = |samples: Vec<(i64, f64)>| {
        let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
        encode_floats(&ts, &values)
    };
    // Scraped every 15 s with jitter, starting again now and then.
    let mut total = 0.0;
    let counter = (0..2_000).map(|i| {
        total = if dice.below(300) == 0 { 0.5 } else { total + dice.below(100) as f64 * 0.1 };
        (START + 4_321 + i * 15_000 + dice.below(40) as i64, total)
    });
    let counter = floats(counter.collect());
    // Stale markers, NaN and hours without samples.
    let gaps = (0..1_500i64).filter(|i| !(300..700).contains(i)).map(|i| {
        let v = match dice.below(50) {
            0 => STALE_NAN,
            1 => f64::NAN,
            n => n as f64 - 20.25,
        };
        (START + 7_200_000 + i * 60_000, v)
    });
    let gaps = floats(gaps.collect());
    // A whole window, and a whole chunk, of NaN alone.
    let nan =
        floats((0..400i64).map(|i| (START + i * 60_000, if i > 100 { f64::NAN } else { 1.0 })).collect());
    let short = floats((0..5).map(|i| (START + 1_000 + i * 15_000, i as f64)).collect());
    let single = floats(vec![(START + 999_999, -3.5)]);
    // Less than one sample a window, over most of the block.
    let sparse =
        floats((0..2_500i64).map(|i| (START + 17 + i * 420_000, (i * i % 977) as f64 / 7.0)).collect());
    let mixed = floats((0..500).map(|i| (START + 3 + i * 30_000, i as f64)).collect());
    let mixed = [mixed, int_histograms(START + 30_000_000, 400, &mut dice)].concat();
    vec![
        ("counter", counter),
        ("floats_then_histograms", mixed),
        ("gaps", gaps),
        ("histogram_counter", int_histograms(START + 5_000, 2_500, &mut dice)),
        ("histogram_gauge", gauge_histograms(START + 9_000, 1_200, &mut dice)),
        ("nan", nan),
        ("short", short),
        ("single", single),
        ("sparse", sparse),
    ]
}

/// A counter of integer histograms whose buckets become more; its sums have no digits to be rounded.
fn int_histograms(start: i64, count: i64, dice: &mut Dice) -> Vec<Chunk> {
    let mut buckets = [0i64; 24];
    let mut sum = 0.0;
    let mut zero_count = 0;
    let mut chunks = Vec::new();
    let mut open: Option<(i64, HistogramEncoder)> = None;
    for i in 0..count {
        let reach = 4 + (i as usize / 150).min(20);
        for _ in 0..dice.below(6) {
            buckets[dice.below(reach as u64) as usize] += 1 + dice.below(3) as i64;
            sum += dice.below(64) as f64 / 8.0;
        }
        zero_count += dice.below(2);
        let (mut deltas, mut last) = (Vec::new(), 0);
        for bucket in &buckets[..reach] {
            deltas.push(bucket - last);
            last = *bucket;
        }
        let h = Histogram {
            schema: 2,
            zero_threshold: 0.001,
            zero_count,
            count: zero_count + buckets.iter().sum::<i64>() as u64,
            sum,
            positive_spans: vec![
                Span { offset: -3, length: 4 },
                Span { offset: 2, length: reach as u32 - 4 },
            ],
            positive_buckets: deltas,
            ..Histogram::default()
        };
        let t = start + i * 15_000;
        let next = match &mut open {
            None => Some(HistogramEncoder::first(None, t, &h).unwrap()),
            Some((_, e)) if e.sample_count() == 120 => Some(HistogramEncoder::first(Some(e), t, &h).unwrap()),
            Some((_, e)) => e.append(t, &h).unwrap(),
        };
        if let Some(next) = next
            && let Some((mint, full)) = open.replace((t, next))
        {
            let maxt = full.last_t();
            chunks.push(full.finish_chunk(mint, maxt));
        }
    }
    let (mint, last) = open.unwrap();
    let maxt = last.last_t();
    chunks.push(last.finish_chunk(mint, maxt));
    chunks
}

/// A gauge of float histograms.
fn gauge_histograms(start: i64, count: i64, dice: &mut Dice) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut open: Option<(i64, FloatHistogramEncoder)> = None;
    for i in 0..count {
        let buckets: Vec<f64> = (0..5).map(|_| dice.below(100) as f64).collect();
        let h = FloatHistogram {
            counter_reset: CounterReset::Gauge,
            schema: 0,
            zero_threshold: 0.5,
            zero_count: dice.below(9) as f64,
            count: buckets.iter().sum(),
            sum: dice.below(1_000) as f64 / 4.0,
            positive_spans: vec![Span { offset: 0, length: 5 }],
            positive_buckets: buckets,
            ..FloatHistogram::default()
        };
        let t = start + i * 30_000;
        let next = match &mut open {
            None => Some(FloatHistogramEncoder::first(None, t, &h).unwrap()),
            Some((_, e)) if e.sample_count() == 120 => {
                Some(FloatHistogramEncoder::first(Some(e), t, &h).unwrap())
            }
            Some((_, e)) => e.append(t, &h).unwrap(),
        };
        if let Some(next) = next
            && let Some((mint, full)) = open.replace((t, next))
        {
            let maxt = full.last_t();
            chunks.push(full.finish_chunk(mint, maxt));
        }
    }
    let (mint, last) = open.unwrap();
    let maxt = last.last_t();
    chunks.push(last.finish_chunk(mint, maxt));
    chunks
}

fn raw_block(dir: &Path) -> PathBuf {
    let id: BlockId = "01HF7YAT00AAAAAAAAAAAAAAAA".parse().unwrap();
    let mut writer = BlockWriter::create(dir, id, quick()).unwrap();
    for (name, chunks) in raw_series() {
        writer.add_series(&Labels::from_pairs([("__name__", name)]).unwrap(), &chunks).unwrap();
    }
    let external = Labels::from_pairs([("cluster", "golden")]).unwrap();
    let parts = BlockParts {
        times: Some((START, START + DAY_14)),
        compaction: Compaction { level: 4, sources: vec![id], ..Compaction::default() },
        thanos: Some(ThanosMeta::new(&external, "compactor")),
    };
    writer.finish(parts).unwrap().unwrap();
    dir.join(id.to_string())
}

fn quick() -> BlockWriterOptions {
    BlockWriterOptions { sync: false, ..BlockWriterOptions::default() }
}

/// A block as text: a line a chunk, its parts in hex, or their checksums where they are long.
fn describe(block: &Block) -> String {
    let mut out = String::new();
    let meta = block.meta();
    let stats = &meta.stats;
    writeln!(
        out,
        "block {} {} resolution {} level {} series {} chunks {} samples {}",
        meta.min_time - START,
        meta.max_time - START,
        meta.thanos.as_ref().unwrap().downsample.resolution,
        meta.compaction.level,
        stats.num_series,
        stats.num_chunks,
        stats.num_samples
    )
    .unwrap();
    for series in block.select(&[], TimeRange::ALL).unwrap() {
        let (labels, chunks) = series.unwrap();
        writeln!(out, "{labels}").unwrap();
        for chunk in chunks {
            let parsed = AggrChunk::parse(&chunk.data).unwrap();
            assert_eq!(parsed.to_bytes(), chunk.data, "{labels}: taken apart and put together");
            write!(out, "  {} {}", chunk.mint - START, chunk.maxt - START).unwrap();
            for which in Aggregate::ALL {
                match parsed.get(which, 0, 0) {
                    None => out.push_str(" -"),
                    Some(part) if part.data.len() <= 120 => {
                        write!(out, " {}:", part.encoding.as_u8()).unwrap();
                        part.data.iter().for_each(|b| write!(out, "{b:02x}").unwrap());
                    }
                    Some(part) => {
                        let (encoding, sum) = (part.encoding.as_u8(), fnv(&part.data));
                        write!(out, " {encoding}#{}#{sum:016x}", part.data.len()).unwrap();
                    }
                }
            }
            out.push('\n');
        }
    }
    out
}

/// FNV-1a: any change shows.
fn fnv(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Our two levels of the raw block, as text.
fn ours(dir: &Path, raw: &Path) -> String {
    let mut text = String::new();
    let mut from = Block::open(raw).unwrap();
    for id in ["01HF7YAT00BBBBBBBBBBBBBBBB", "01HF7YAT00CCCCCCCCCCCCCCCC"] {
        downsample(&from, dir, id.parse().unwrap(), quick(), || true).unwrap().unwrap();
        from = Block::open(&dir.join(id)).unwrap();
        assert_eq!(verify(&dir.join(id)).unwrap().samples, from.meta().stats.num_samples);
        text.push_str(&describe(&from));
    }
    text
}

/// Thanos's two levels of the raw block, as text.
fn theirs(binary: &str, dir: &Path) -> String {
    let bucket = dir.join("bucket");
    std::fs::create_dir(&bucket).unwrap();
    let raw = raw_block(&bucket);
    let config = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    let mut thanos = Command::new(binary)
        .args(["tools", "bucket", "downsample", "--http-address=127.0.0.1:0", "--log.format=json"])
        .arg(format!("--objstore.config={config}"))
        .arg(format!("--data-dir={}", dir.join("work").display()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    for line in BufReader::new(thanos.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        log.push_str(&line);
        log.push('\n');
        if log.matches("uploaded block").count() == 2 {
            break;
        }
    }
    thanos.kill().unwrap();
    thanos.wait().unwrap();
    let mut levels: Vec<Block> = list_blocks(&bucket)
        .unwrap()
        .into_iter()
        .filter(|(_, path)| *path != raw)
        .map(|(_, path)| Block::open(&path).unwrap())
        .collect();
    assert_eq!(levels.len(), 2, "{log}");
    levels.sort_by_key(|b| b.meta().thanos.as_ref().unwrap().downsample.resolution);
    levels.iter().map(describe).collect()
}

fn golden_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/thanos.txt")
}

fn assert_same(ours: &str, theirs: &str) {
    for (a, b) in ours.lines().zip(theirs.lines()) {
        assert_eq!(a, b, "ours, theirs");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
}

#[test]
fn blocks_are_those_of_thanos() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_block(dir.path());
    let ours = ours(dir.path(), &raw);
    assert_same(&ours, &std::fs::read_to_string(golden_file()).unwrap());
}

#[test]
fn a_thanos_of_today_makes_the_same_blocks() {
    let Ok(binary) = std::env::var("CHRONOLITH_THANOS") else {
        eprintln!("left out: CHRONOLITH_THANOS names no Thanos");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let theirs = theirs(&binary, dir.path());
    if std::env::var("UPDATE_EXPECT").is_ok_and(|v| v == "1") {
        std::fs::write(golden_file(), &theirs).unwrap();
    }
    let raw = raw_block(dir.path());
    assert_same(&ours(dir.path(), &raw), &theirs);
}

/// Every value that Thanos stores is what the raw samples say, by the plainest reckoning.
#[test]
fn aggregates_are_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_block(dir.path());
    ours(dir.path(), &raw);
    for (id, resolution) in
        [("01HF7YAT00BBBBBBBBBBBBBBBB", 300_000), ("01HF7YAT00CCCCCCCCCCCCCCCC", 3_600_000)]
    {
        let block = Block::open(&dir.path().join(id)).unwrap();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let (labels, chunks) = series.unwrap();
            let (_, raw) =
                raw_series().into_iter().find(|(name, _)| labels.get("__name__") == Some(*name)).unwrap();
            let mut samples = SampleColumns::default();
            raw.iter().for_each(|c| c.decode_into(TimeRange::ALL, &mut samples).unwrap());
            let mut counted = 0.0;
            for chunk in &chunks {
                let parsed = AggrChunk::parse(&chunk.data).unwrap();
                let part = |which: Aggregate| {
                    let mut out = SampleColumns::default();
                    if let Some(part) = parsed.get(which, 0, 0) {
                        part.decode_into(TimeRange::ALL, &mut out).unwrap();
                    }
                    out
                };
                let (counts, sums) = (part(Aggregate::Count), part(Aggregate::Sum));
                assert_eq!(counts.ts, sums.ts);
                for (i, &t) in counts.ts.iter().enumerate() {
                    let from = t - t.rem_euclid(resolution);
                    let inside = (0..samples.len()).filter(|j| (from..=t).contains(&samples.ts[*j]));
                    let values: Vec<f64> =
                        inside.map(|j| samples.values[j]).filter(|v| !v.is_nan()).collect();
                    assert_eq!(counts.values[i], values.len() as f64, "{labels} {t}");
                    let sum: f64 = values.iter().sum();
                    assert!((sums.values[i] - sum).abs() <= 1e-9 * sum.abs().max(1.0), "{labels} {t}");
                    counted += counts.values[i];
                }
                if !parsed.is_histogram() {
                    let (mins, maxs) = (part(Aggregate::Min), part(Aggregate::Max));
                    for i in 0..counts.len() {
                        assert!(mins.values[i] * counts.values[i] <= sums.values[i] + 1e-6);
                        assert!(maxs.values[i] * counts.values[i] >= sums.values[i] - 1e-6);
                    }
                }
            }
            let numbers = samples.values.iter().filter(|v| !v.is_nan()).count();
            assert_eq!(counted, numbers as f64, "{labels}: no sample is lost or counted twice");
        }
    }
}
