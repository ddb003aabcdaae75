//! The index and block paths: writing 100k series, set algebra, opening, selecting.
//!
//! Names are `stage/case/size`. `cargo bench -p chronolith-tsdb --bench index -- --test` runs each once.

use std::hint::black_box;
use std::path::Path;

use chronolith_chunk::{Chunk, encode_floats};
use chronolith_model::{BlockId, Labels, MatchOp, Matcher, TimeRange};
use chronolith_tsdb::block::{Block, BlockParts, BlockWriter, BlockWriterOptions};
use chronolith_tsdb::index::{ChunkMeta, IndexWriter, IndexWriterOptions};
use chronolith_tsdb::postings;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const SERIES: usize = 100_000;

/// 100 metrics of 100 pods on 10 nodes each, with the dozen labels that Kubernetes metrics carry.
fn label_sets() -> Vec<Labels> {
    let mut all: Vec<Labels> = (0..SERIES)
        .map(|i| {
            let (metric, pod, mode) = (i / 1000, i / 10 % 100, i % 10);
            let text = [
                format!("metric_{metric:03}_total"),
                format!("pod-{pod:03}-7d4b9c6f5-x{:04}", pod * 37 % 9973),
                format!("10.0.{}.{}:9100", pod / 10, pod % 10),
                format!("node-{:02}", pod % 10),
                format!("mode{mode}"),
                format!("ns-{}", pod % 7),
            ];
            Labels::from_pairs([
                ("__name__", text[0].as_str()),
                ("pod", &text[1]),
                ("instance", &text[2]),
                ("node", &text[3]),
                ("mode", &text[4]),
                ("namespace", &text[5]),
                ("job", "kubernetes-pods"),
                ("cluster", "eu-west-1"),
                ("container", "app"),
                ("endpoint", "metrics"),
                ("service", "app-metrics"),
                ("team", "platform"),
            ])
            .expect("names are unique")
        })
        .collect();
    all.sort();
    all
}

/// Two hours at 15 s of a counter.
fn chunks() -> Vec<Chunk> {
    let ts: Vec<i64> = (0..480).map(|i| 1_700_006_400_000 + i * 15_000).collect();
    let vs: Vec<f64> = (0..480).map(|i| (i * i % 977 + i * 30) as f64).collect();
    encode_floats(&ts, &vs)
}

fn quick() -> BlockWriterOptions {
    BlockWriterOptions { sync: false, ..BlockWriterOptions::default() }
}

fn write_block(parent: &Path, labels: &[Labels], chunks: &[Chunk]) -> Block {
    let id = BlockId(ulid::Ulid::from_parts(1, 1));
    let mut writer = BlockWriter::create(parent, id, quick()).expect("fresh directory");
    for l in labels {
        writer.add_series(l, chunks).expect("sorted");
    }
    writer.finish(BlockParts::default()).expect("written");
    Block::open(&parent.join(id.to_string())).expect("sound")
}

fn writing(c: &mut Criterion) {
    let labels = label_sets();
    let chunks = chunks();
    let mut group = c.benchmark_group("write");
    group.sample_size(10).throughput(Throughput::Elements(SERIES as u64));
    group.bench_function("index/100k", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("temporary directory"),
            |dir| {
                let options = IndexWriterOptions { sync: false, ..IndexWriterOptions::default() };
                let path = dir.path().join("index");
                let mut writer = IndexWriter::create(&path, options).expect("fresh directory");
                for (i, l) in labels.iter().enumerate() {
                    let meta = ChunkMeta { mint: 0, maxt: 7_200_000, chunk_ref: i as u64 * 400 + 8 };
                    writer.add_series(l, &[meta]).expect("sorted");
                }
                (writer.finish().expect("written"), dir)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("block/100k", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("temporary directory"),
            |dir| (write_block(dir.path(), &labels, &chunks), dir),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn algebra(c: &mut Criterion) {
    let all: Vec<u32> = (0..1_000_000).map(|i| i * 9).collect();
    let some: Vec<u32> = all.iter().copied().step_by(1000).collect();
    let half: Vec<u32> = all.iter().copied().step_by(2).collect();
    let parts: Vec<Vec<u32>> = (0..100).map(|i| all.iter().copied().skip(i).step_by(100).collect()).collect();
    let mut group = c.benchmark_group("postings");
    group.bench_function("intersect/1k_with_1M", |b| {
        b.iter_batched(
            || some.clone(),
            |mut a| {
                postings::intersect(&mut a, &all);
                a
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("intersect/1M_with_500k", |b| {
        b.iter_batched(
            || all.clone(),
            |mut a| {
                postings::intersect(&mut a, &half);
                a
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("subtract/500k_from_1M", |b| {
        b.iter_batched(
            || all.clone(),
            |mut a| {
                postings::subtract(&mut a, &half);
                a
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("union/100_lists_1M", |b| b.iter(|| postings::union(black_box(&parts))));
    group.finish();
}

fn reading(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let block = write_block(dir.path(), &label_sets(), &chunks());
    let m = |op, name, value| Matcher::new(op, name, value).expect("valid");
    let eq = |name, value| m(MatchOp::Equal, name, value);
    let mut group = c.benchmark_group("read");
    group.sample_size(20);
    group.bench_function("open/100k", |b| b.iter(|| Block::open(block.dir()).expect("sound")));
    let cases = [
        (
            "select/one_series",
            vec![eq("__name__", "metric_050_total"), eq("instance", "10.0.5.5:9100"), eq("mode", "mode3")],
        ),
        ("select/metric_1k", vec![eq("__name__", "metric_050_total")]),
        (
            "select/regex_instance",
            vec![eq("__name__", "metric_050_total"), m(MatchOp::Regex, "instance", "10.0.[1-3].*")],
        ),
        ("select/not_equal", vec![eq("__name__", "metric_050_total"), m(MatchOp::NotEqual, "mode", "mode3")]),
        ("select/all_100k", vec![]),
    ];
    for (name, matchers) in cases {
        group.bench_function(name, |b| {
            b.iter(|| {
                block
                    .select(&matchers, TimeRange::ALL)
                    .expect("sound")
                    .map(|s| s.expect("sound").1.len())
                    .sum::<usize>()
            });
        });
    }
    group.bench_function("label_values/pod_of_metric", |b| {
        let matchers = [eq("__name__", "metric_050_total")];
        b.iter(|| block.label_values("pod", &matchers, TimeRange::ALL).expect("sound"));
    });
    group.finish();
}

criterion_group!(benches, writing, algebra, reading);
criterion_main!(benches);
