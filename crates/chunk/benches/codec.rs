//! Encode and decode speed: `cargo bench -p chronolith-chunk`.
//!
//! Corpora of 1,000 series of 120 samples (about a megabyte of samples, out of the first-level caches), fixed seed:
//! `counter` scraped on time, integer steps; `jitter` the same with timestamps that miss by a few milliseconds;
//! `gauge` random floats, the worst case; `constant`.

use std::hint::black_box;
use std::sync::Arc;

use chronolith_chunk::{
    Chunk, FloatHistogramEncoder, HistogramEncoder, SampleColumns, Xor2Encoder, XorEncoder, XorState,
};
use chronolith_model::histogram::Span;
use chronolith_model::{Histogram, TimeRange};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SERIES: usize = 1000;
const SAMPLES: usize = 120;

/// A small generator of our own: the corpus must not change with a dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

type Series = Vec<(i64, f64)>;

fn corpus(name: &str) -> Vec<Series> {
    let mut r = Random(42);
    (0..SERIES)
        .map(|_| {
            let (mut t, mut v) = (1_700_000_000_000 + r.below(15_000) as i64, r.below(1_000_000) as f64);
            (0..SAMPLES)
                .map(|_| {
                    t += 15_000;
                    let mut late = 0;
                    match name {
                        "counter" => v += r.below(200) as f64,
                        "jitter" => {
                            v += r.below(200) as f64;
                            late = r.below(10) as i64;
                        }
                        "gauge" => v = (r.next() >> 11) as f64 / (1u64 << 53) as f64,
                        _ => {}
                    }
                    (t + late, v)
                })
                .collect()
        })
        .collect()
}

fn encode(series: &Series) -> Chunk {
    let mut e = XorEncoder::new();
    for &(t, v) in series {
        e.append(t, v);
    }
    e.finish_chunk(series[0].0, series[SAMPLES - 1].0)
}

fn floats(c: &mut Criterion) {
    for name in ["counter", "jitter", "gauge", "constant"] {
        let corpus = corpus(name);
        let chunks: Vec<Chunk> = corpus.iter().map(encode).collect();
        let xor2: Vec<Chunk> = corpus
            .iter()
            .map(|series| {
                let mut e = Xor2Encoder::new();
                series.iter().for_each(|&(t, v)| e.append(0, t, v).expect("120 samples"));
                e.finish_chunk(series[0].0, series[SAMPLES - 1].0)
            })
            .collect();
        let per_sample = |chunks: &[Chunk]| {
            chunks.iter().map(|c| c.data.len()).sum::<usize>() as f64 / (SERIES * SAMPLES) as f64
        };
        println!("{name}: XOR {:.2}, XOR2 {:.2} bytes a sample", per_sample(&chunks), per_sample(&xor2));
        let mut g = c.benchmark_group("codec");
        g.throughput(Throughput::Elements((SERIES * SAMPLES) as u64));
        g.bench_function(format!("encode/xor/{name}"), |b| {
            b.iter(|| corpus.iter().map(|s| encode(black_box(s)).data.len()).sum::<usize>());
        });
        // As a head does it: all series by turns, one sample each.
        g.bench_function(format!("append/xor/{name}"), |b| {
            b.iter(|| {
                let mut heads = vec![(XorState::new(), Vec::with_capacity(512)); SERIES];
                for i in 0..SAMPLES {
                    for (series, (state, buffer)) in corpus.iter().zip(&mut heads) {
                        let (t, v) = series[i];
                        state.append(buffer, t, v);
                    }
                }
                heads.iter().map(|(state, _)| state.bytes_len()).sum::<usize>()
            });
        });
        for (encoding, chunks) in [("xor", &chunks), ("xor2", &xor2)] {
            g.bench_function(format!("decode/{encoding}/{name}"), |b| {
                let mut out = SampleColumns::default();
                b.iter(|| {
                    for chunk in chunks {
                        out.clear();
                        black_box(chunk).decode_into(TimeRange::ALL, &mut out).expect("our own chunk");
                    }
                    out.len()
                });
            });
        }
        g.finish();
    }
}

fn histograms(c: &mut Criterion) {
    let mut r = Random(7);
    let mut counts = [0i64; 20];
    let samples: Vec<(i64, Histogram)> = (0..SAMPLES as i64)
        .map(|i| {
            counts.iter_mut().for_each(|c| *c += r.below(20) as i64);
            let mut last = 0;
            let deltas = counts.iter().map(|c| c - std::mem::replace(&mut last, *c)).collect();
            let h = Histogram {
                schema: 3,
                zero_threshold: 2f64.powi(-128),
                count: counts.iter().sum::<i64>() as u64,
                sum: counts.iter().sum::<i64>() as f64 * 1.25,
                positive_spans: vec![Span { offset: -5, length: 20 }],
                positive_buckets: deltas,
                ..Histogram::default()
            };
            (1_700_000_000_000 + i * 15_000, h)
        })
        .collect();
    let floats: Vec<_> = samples.iter().map(|(t, h)| (*t, Arc::new(h.to_float()))).collect();
    let int = || {
        let mut e = HistogramEncoder::first(None, samples[0].0, &samples[0].1).expect("valid");
        for (t, h) in &samples[1..] {
            e.append(*t, h).expect("valid");
        }
        e.finish_chunk(0, i64::MAX)
    };
    let float = || {
        let mut e = FloatHistogramEncoder::first(None, floats[0].0, &floats[0].1).expect("valid");
        for (t, h) in &floats[1..] {
            e.append(*t, h).expect("valid");
        }
        e.finish_chunk(0, i64::MAX)
    };
    let mut g = c.benchmark_group("codec");
    g.throughput(Throughput::Elements(SAMPLES as u64));
    g.bench_function("encode/histogram/20", |b| b.iter(|| int().data.len()));
    g.bench_function("encode/floathistogram/20", |b| b.iter(|| float().data.len()));
    for (name, chunk) in [("histogram", int()), ("floathistogram", float())] {
        g.bench_function(format!("decode/{name}/20"), |b| {
            b.iter(|| {
                let mut out = SampleColumns::default();
                black_box(&chunk).decode_into(TimeRange::ALL, &mut out).expect("our own chunk");
                out.len()
            });
        });
    }
    g.finish();
}

criterion_group!(benches, floats, histograms);
criterion_main!(benches);
