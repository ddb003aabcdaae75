//! Speed of downsampling: `cargo bench -p chronolith-compact --bench downsample`.
//!
//! Series of 14 days at 15 s (80,640 raw samples), fixed seed, in chunks of 120: `counter` with integer steps and a reset a
//! day, `gauge` random floats; counters of integer histograms: `histogram` with 16 buckets over which 40 observations a scrape
//! are spread like a bell, so that about 12 of them change each time, and `histogram_scattered` with 24 buckets of which any 4 grow by up to 4
//! each time, the worst for a format that writes differences between neighbours. The throughput is that of *raw* samples, also
//! from 5 m to 1 h. `block` reads a block of 100 counters and 100 gauges from files and writes the next one.

use std::hint::black_box;

use chronolith_chunk::{Chunk, HistogramEncoder, encode_floats};
use chronolith_compact::downsample::{SeriesDownsampler, downsample};
use chronolith_model::histogram::Span;
use chronolith_model::{BlockId, Histogram, Labels, Resolution};
use chronolith_tsdb::block::{Block, BlockParts, BlockWriter, BlockWriterOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SAMPLES: i64 = 14 * 24 * 240;
const START: i64 = 1_700_000_000_000;

/// A small generator of our own: the corpus must not change with a dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn floats(name: &str, r: &mut Random) -> Vec<Chunk> {
    let mut total = 0.0;
    let (ts, values): (Vec<i64>, Vec<f64>) = (0..SAMPLES)
        .map(|i| {
            let v = match name {
                "counter" => {
                    total = if i % 5_760 == 5_000 { 0.0 } else { total + r.below(200) as f64 };
                    total
                }
                _ => r.below(1 << 52) as f64 / (1u64 << 52) as f64,
            };
            (START + i * 15_000 + r.below(5) as i64, v)
        })
        .unzip();
    encode_floats(&ts, &values)
}

/// `observe` is called before each sample.
fn histograms<const N: usize>(mut observe: impl FnMut(&mut [i64; N])) -> Vec<Chunk> {
    let mut buckets = [0i64; N];
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut open: Option<(i64, HistogramEncoder)> = None;
    for i in 0..SAMPLES {
        observe(&mut buckets);
        let mut last = 0;
        let deltas = buckets.map(|b| b - std::mem::replace(&mut last, b));
        let h = Histogram {
            schema: 3,
            zero_threshold: 1e-128,
            count: buckets.iter().sum::<i64>() as u64,
            sum: buckets.iter().sum::<i64>() as f64 * 0.3,
            positive_spans: vec![Span { offset: -10, length: N as u32 }],
            positive_buckets: deltas.to_vec(),
            ..Histogram::default()
        };
        let t = START + i * 15_000;
        let next = match &mut open {
            None => Some(HistogramEncoder::first(None, t, &h).expect("valid")),
            Some((_, e)) if e.sample_count() == 120 => {
                Some(HistogramEncoder::first(Some(e), t, &h).expect("valid"))
            }
            Some((_, e)) => e.append(t, &h).expect("valid"),
        };
        if let Some(next) = next
            && let Some((mint, full)) = open.replace((t, next))
        {
            let maxt = full.last_t();
            chunks.push(full.finish_chunk(mint, maxt));
        }
    }
    chunks
}

fn series(c: &mut Criterion) {
    let mut r = Random(42);
    let floats = ["counter", "gauge"].map(|name| (name, floats(name, &mut r)));
    let bell = histograms::<16>(|buckets| {
        for _ in 0..40 {
            buckets[r.below(1 << 15).count_ones() as usize] += 1;
        }
    });
    let scattered = histograms::<24>(|buckets| {
        for _ in 0..4 {
            buckets[r.below(24) as usize] += r.below(5) as i64;
        }
    });
    let corpora = floats.into_iter().chain([("histogram", bell), ("histogram_scattered", scattered)]);
    let mut group = c.benchmark_group("series");
    group.throughput(Throughput::Elements(SAMPLES as u64)).sample_size(10);
    for (name, chunks) in corpora {
        let mut run = |from: Resolution, to: Resolution, chunks: &[Chunk]| {
            let mut out = Vec::new();
            let mut downsampler = SeriesDownsampler::new(from, to);
            group.bench_function(format!("{name}/{}ms", to.ms()), |b| {
                b.iter(|| {
                    out.clear();
                    downsampler.downsample(chunks.to_vec(), &mut out).expect("sound");
                    black_box(&out);
                });
            });
            out
        };
        let five = run(Resolution::Raw, Resolution::FiveMinutes, &chunks);
        run(Resolution::FiveMinutes, Resolution::OneHour, &five);
    }
    group.finish();
}

fn block(c: &mut Criterion) {
    const SERIES: u64 = 200;
    let dir = tempfile::tempdir().expect("a directory");
    let raw = BlockId(1u128.into());
    let mut r = Random(7);
    let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
    let mut writer = BlockWriter::create(dir.path(), raw, options).expect("an empty directory");
    for (name, number) in ["counter", "gauge"].iter().flat_map(|name| (0..SERIES / 2).map(move |i| (name, i)))
    {
        let instance = format!("{number:03}");
        let labels = Labels::from_pairs([("__name__", *name), ("instance", &instance)]).expect("labels");
        writer.add_series(&labels, &floats(name, &mut r)).expect("in order");
    }
    writer.finish(BlockParts::default()).expect("written");
    let block = Block::open(&dir.path().join(raw.to_string())).expect("whole");
    let mut group = c.benchmark_group("block");
    group.throughput(Throughput::Elements(SERIES * SAMPLES as u64)).sample_size(10);
    let mut next = 1u128;
    group.bench_function("raw_to_5m", |b| {
        b.iter(|| {
            next += 1;
            let id = BlockId(next.into());
            downsample(&block, dir.path(), id, options, || true).expect("sound").expect("series");
            std::fs::remove_dir_all(dir.path().join(id.to_string())).expect("removed");
        });
    });
    group.finish();
}

criterion_group!(benches, series, block);
criterion_main!(benches);
