//! Samples merged per CPU-second, and the memory that it takes.
//!
//! ```text
//! cargo bench -p chronolith-tsdb --bench merge -- generate DIR SERIES BLOCKS SAMPLES [copies|replicas]
//! cargo bench -p chronolith-tsdb --bench merge -- merge DIR [penalty]
//! ```
//!
//! `generate` makes blocks of 2 h with so many samples a series. Of `copies` each 2 h has two with the same samples, of which each lacks
//! every tenth, another one; of `replicas` two whose scrapes are 4 s apart. `merge` takes all blocks but the newest, which a
//! compactor leaves alone, and where they overlap all of them; samples are those that it reads.
//!
//! Another program that compacts is measured on a copy of the same directory: docs/performance.md.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use chronolith_chunk::encode_floats;
use chronolith_model::{BlockId, Labels};
use chronolith_tsdb::block::{BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, list_blocks};
use chronolith_tsdb::merge::{Deduplication, MergeOptions, merge_blocks};

const HOUR_MS: i64 = 3_600_000;
/// 2020-03-24 00:00: a multiple of all lengths of blocks but 14 d.
const START_MS: i64 = 1_585_008_000_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["generate", dir, series, blocks, samples, rest @ ..] => {
            let number = |text: &str| text.parse::<usize>().expect("a number");
            let overlap = match rest {
                [] => Overlap::None,
                ["copies"] => Overlap::Copies,
                ["replicas"] => Overlap::Replicas,
                other => panic!("{other:?}"),
            };
            generate(Path::new(dir), number(series), number(blocks) as i64, number(samples) as i64, overlap);
        }
        ["merge", dir] => merge(Path::new(dir), Deduplication::OneToOne),
        ["merge", dir, "penalty"] => merge(Path::new(dir), Deduplication::Penalty),
        // What `cargo test --benches` asks for: a small round through both.
        _ => {
            let dir = std::env::temp_dir().join(format!("chronolith-merge-{}", std::process::id()));
            for overlap in [Overlap::None, Overlap::Copies, Overlap::Replicas] {
                generate(&dir, 100, 4, 480, overlap);
                merge(&dir, Deduplication::OneToOne);
                merge(&dir, Deduplication::Penalty);
                let _ = std::fs::remove_dir_all(&dir);
            }
        }
    }
}

/// How blocks of the same 2 h differ.
#[derive(Clone, Copy, PartialEq)]
enum Overlap {
    None,
    Copies,
    Replicas,
}

/// A node exporter's kind of series: a third counters, a third gauges, a third that hardly move.
fn generate(dir: &Path, series: usize, blocks: i64, samples: i64, overlap: Overlap) {
    let mut all: Vec<(Labels, usize)> = (0..series)
        .map(|n| {
            let (instance, cpu, metric) =
                (format!("10.0.{}.{}:9100", n / 40 / 250, n / 40 % 250), (n % 40).to_string(), n % 20);
            let metric = format!("node_metric_{metric:02}_total");
            let pairs = [
                ("__name__", metric.as_str()),
                ("cluster", "eu-1"),
                ("cpu", &cpu),
                ("instance", &instance),
                ("job", "node"),
                ("mode", ["idle", "user", "system", "iowait"][n % 4]),
                ("namespace", ["monitoring", "default", "kube-system"][n % 3]),
            ];
            (Labels::from_pairs(pairs).expect("valid labels"), n)
        })
        .collect();
    all.sort();
    std::fs::create_dir_all(dir).expect("a directory");
    for number in 0..blocks {
        let (block, replica) = if overlap == Overlap::None { (number, 0) } else { (number / 2, number % 2) };
        let from = START_MS + block * 2 * HOUR_MS;
        let id = BlockId(ulid::Ulid::from_parts(from as u64, number as u128 + 1));
        let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
        let mut writer = BlockWriter::create(dir, id, options).expect("a block");
        let lacks = |i: i64| overlap == Overlap::Copies && i % 10 == 3 + replica;
        let shift = if overlap == Overlap::Replicas { 4_000 * replica } else { 0 };
        let kept = (0..samples).filter(|i| !lacks(*i));
        let ts: Vec<i64> = kept.map(|i| from + shift + i * (2 * HOUR_MS / samples)).collect();
        let mut values = Vec::with_capacity(ts.len());
        for (labels, n) in &all {
            let mut state = (*n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ block as u64;
            values.clear();
            for i in 0..samples {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let random = (state >> 40) as f64;
                let value = match n % 3 {
                    0 => (block * 480 + i) as f64 * 15.0 + random % 7.0,
                    1 => (random % 10_000.0) / 100.0,
                    _ => (n % 100) as f64,
                };
                if !lacks(i) {
                    values.push(value);
                }
            }
            writer.add_series(labels, &encode_floats(&ts, &values)).expect("a series");
        }
        let parts = BlockParts { times: Some((from, from + 2 * HOUR_MS)), ..BlockParts::default() };
        writer.finish(parts).expect("a finished block");
    }
}

fn merge(dir: &Path, deduplication: Deduplication) {
    let mut blocks: Vec<PathBuf> =
        list_blocks(dir).expect("a directory of blocks").into_iter().map(|(_, path)| path).collect();
    let metas: Vec<BlockMeta> = blocks.iter().map(|dir| BlockMeta::read(dir).expect("a block")).collect();
    if metas.windows(2).all(|w| w[0].max_time <= w[1].min_time) {
        blocks.pop();
    }
    let out = dir.join("merged");
    let _ = std::fs::remove_dir_all(&out);
    let options = MergeOptions { deduplication, sync: false, ..MergeOptions::default() };
    let before = cpu_seconds();
    let mut next = 0;
    let mut new_id = || {
        next += 1;
        BlockId(ulid::Ulid::from_parts(START_MS as u64, next))
    };
    let merged = merge_blocks(&blocks, &out, &mut new_id, &options).expect("a merge");
    let seconds = cpu_seconds() - before;
    let samples: u64 = metas[..blocks.len()].iter().map(|m| m.stats.num_samples).sum();
    let left: u64 = merged.iter().map(|m| m.stats.num_samples).sum();
    println!(
        "{} blocks, {samples} samples, {left} of them left, {seconds:.2} CPU seconds, {:.1}M samples per CPU-second, peak memory {} MiB",
        blocks.len(),
        samples as f64 / seconds / 1e6,
        peak_memory_kib() / 1024
    );
    let _ = std::fs::remove_dir_all(out);
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
    ticks / 100.0
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
