//! `list`: the blocks of a directory.

use std::io::Write;
use std::path::{Path, PathBuf};

use chronolith_tsdb::block::{Block, list_blocks};
use serde_json::json;

use crate::output::{self, Table, duration};
use crate::{Format, Result};

/// Flags of `list`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Print times and sizes for people.
    #[arg(short = 'r', long = "human-readable")]
    human_readable: bool,
    /// table, csv, tsv or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// Directory of the blocks.
    #[arg(default_value = "data/", value_name = "DB PATH")]
    path: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let mut blocks = Vec::new();
    for (_, dir) in list_blocks(&args.path)? {
        blocks.push(Block::open(&dir)?);
    }
    blocks.sort_by_key(|b| (b.meta().min_time, b.id()));
    print(&blocks, args.human_readable, args.output, out)
}

pub(super) fn print(blocks: &[Block], human: bool, format: Format, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[
        "BLOCK ULID",
        "MIN TIME",
        "MAX TIME",
        "DURATION",
        "NUM SAMPLES",
        "NUM CHUNKS",
        "NUM SERIES",
        "SIZE",
    ]);
    let mut values = Vec::new();
    for block in blocks {
        let (meta, size) = (block.meta(), size(block.dir(), block.bytes_len()));
        let time = |ms: i64| if human { clock(ms) } else { ms.to_string() };
        table.row(vec![
            meta.ulid.to_string(),
            time(meta.min_time),
            time(meta.max_time),
            duration(meta.max_time - meta.min_time),
            meta.stats.num_samples.to_string(),
            meta.stats.num_chunks.to_string(),
            meta.stats.num_series.to_string(),
            if human { bytes(size) } else { size.to_string() },
        ]);
        values.push(json!({
            "ulid": meta.ulid.to_string(),
            "minTime": meta.min_time,
            "maxTime": meta.max_time,
            "numSamples": meta.stats.num_samples,
            "numChunks": meta.stats.num_chunks,
            "numSeries": meta.stats.num_series,
            "size": size,
        }));
    }
    output::write(out, format, &table, &values)
}

/// Bytes on disk, as Prometheus counts them: segments, index, meta.json and tombstones.
fn size(dir: &Path, data: u64) -> u64 {
    let of = |file: &str| std::fs::metadata(dir.join(file)).map_or(0, |m| m.len());
    data + of("meta.json") + of("tombstones")
}

/// A moment as Go prints it.
fn clock(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

/// A size with units that are powers of 1024, each once: `1MiB512KiB`.
fn bytes(mut n: u64) -> String {
    const UNITS: [(&str, u64); 5] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    if n == 0 {
        return "0B".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in UNITS {
        if n >= size {
            text.push_str(&format!("{}{unit}", n / size));
            n %= size;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_and_moments() {
        assert_eq!(super::bytes(1_572_864 + 3), "1MiB512KiB3B");
        assert_eq!(super::bytes(0), "0B");
        assert_eq!(super::clock(1_700_000_000_999), "2023-11-14 22:13:20 +0000 UTC");
    }
}
