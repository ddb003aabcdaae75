//! Samples merged per CPU-second, and the memory that it takes.
//!
//! ```text
//! cargo bench -p chronolith-tsdb --bench merge -- generate DIR SERIES BLOCKS SAMPLES   blocks of 2 h; samples a series
//! cargo bench -p chronolith-tsdb --bench merge -- merge DIR [penalty]                  all blocks in DIR but the newest
//! ```
//!
//! Another program that compacts is measured on a copy of the same directory: docs/performance.md.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use chronolith_chunk::encode_floats;
use chronolith_model::{BlockId, Labels};
use chronolith_tsdb::block::{BlockParts, BlockWriter, BlockWriterOptions, list_blocks};
use chronolith_tsdb::merge::{Deduplication, MergeOptions, merge_blocks};

const HOUR_MS: i64 = 3_600_000;
/// 2020-03-24 00:00: a multiple of all lengths of blocks but 14 d.
const START_MS: i64 = 1_585_008_000_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["generate", dir, series, blocks, samples] => {
            let number = |text: &str| text.parse::<usize>().expect("a number");
            generate(Path::new(dir), number(series), number(blocks) as i64, number(samples) as i64);
        }
        ["merge", dir] => merge(Path::new(dir), Deduplication::OneToOne),
        ["merge", dir, "penalty"] => merge(Path::new(dir), Deduplication::Penalty),
        // What `cargo test --benches` asks for: a small round through both.
        _ => {
            let dir = std::env::temp_dir().join(format!("chronolith-merge-{}", std::process::id()));
            generate(&dir, 100, 3, 480);
            merge(&dir, Deduplication::OneToOne);
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// A node exporter's kind of series: a third counters, a third gauges, a third that hardly move.
fn generate(dir: &Path, series: usize, blocks: i64, samples: i64) {
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
    for block in 0..blocks {
        let from = START_MS + block * 2 * HOUR_MS;
        let id = BlockId(ulid::Ulid::from_parts(from as u64, block as u128 + 1));
        let options = BlockWriterOptions { sync: false, ..BlockWriterOptions::default() };
        let mut writer = BlockWriter::create(dir, id, options).expect("a block");
        let ts: Vec<i64> = (0..samples).map(|i| from + i * (2 * HOUR_MS / samples)).collect();
        let mut values = vec![0.0; ts.len()];
        for (labels, n) in &all {
            let mut state = (*n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ block as u64;
            for (i, value) in values.iter_mut().enumerate() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let random = (state >> 40) as f64;
                *value = match n % 3 {
                    0 => (block * 480 + i as i64) as f64 * 15.0 + random % 7.0,
                    1 => (random % 10_000.0) / 100.0,
                    _ => (n % 100) as f64,
                };
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
    blocks.pop();
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
    let samples: u64 = merged.iter().map(|m| m.stats.num_samples).sum();
    println!(
        "{} blocks, {samples} samples, {seconds:.2} CPU seconds, {:.1}M samples per CPU-second, peak memory {} MiB",
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
