//! `create-blocks-from openmetrics`: a block for each stretch of time in which the text has samples.
//!
//! The text is read once for its times, and then once for as many blocks as [`SAMPLES_AT_ONCE`] lets be held in memory, at least one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_chunk::encode_floats;
use chronolith_model::BlockId;
use chronolith_service::config::DurationMs;
use chronolith_tsdb::block::{Block, BlockParts, BlockWriter, BlockWriterOptions};

use super::list::print;
use super::openmetrics::{Sample, Series, parse};
use crate::progress::Progress;
use crate::{Format, Result, ToolError};

/// Flags of `openmetrics`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    /// Label to attach to all series, like key="value" (repeated).
    #[arg(long = "label", value_name = "LABEL", value_parser = chronolith_service::config::parse_label_flag)]
    label: Vec<(String, String)>,
    /// Longest block; rounded down to 2h, 6h, 18h, 54h, …
    #[arg(long = "max-block-duration", default_value = "2h", value_name = "DURATION")]
    max_block_duration: DurationMs,
    /// Print times and sizes for people.
    #[arg(short = 'r', long = "human-readable")]
    human_readable: bool,
    /// Print no blocks.
    #[arg(short = 'q', long = "quiet")]
    quiet: bool,
    /// How the blocks are printed: table, csv, tsv or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// The text.
    #[arg(value_name = "INPUT FILE")]
    input: PathBuf,
    /// Directory for the blocks.
    #[arg(default_value = "data/", value_name = "OUTPUT DIRECTORY")]
    output: PathBuf,
}

/// Samples held in memory at once, of 16 bytes each: a quarter of a gigabyte.
const SAMPLES_AT_ONCE: u64 = 16 << 20;
const READ_BYTES: usize = 1 << 20;

/// Samples of one block by their series' number.
type Held = HashMap<usize, Vec<(i64, f64)>>;

const DEFAULT_BLOCK_MS: i64 = 2 * 3_600_000;

/// The largest of Prometheus's ranges that is not above `max_ms`: ten, each three times the one before.
fn block_ms(max_ms: i64) -> i64 {
    let ranges = (0..10).map(|n| DEFAULT_BLOCK_MS * 3i64.pow(n));
    ranges.take_while(|r| *r <= max_ms).last().unwrap_or(DEFAULT_BLOCK_MS)
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let mut input = open(args)?;
    let of_text = |e: String| ToolError::Usage(format!("{}: {e}", args.input.display()));
    let block_ms = block_ms(args.max_block_duration.0);
    let mut series = Series::default();
    let mut windows: BTreeMap<i64, u64> = BTreeMap::new();
    let mut note = |s: Sample| {
        *windows.entry(s.t.div_euclid(block_ms)).or_default() += 1;
        Ok(())
    };
    parse(BufReader::with_capacity(READ_BYTES, &mut input), &mut series, &mut note).map_err(of_text)?;
    std::fs::create_dir_all(&args.output).map_err(ToolError::io("create", &args.output))?;

    let mut progress = Progress::new("making blocks", windows.len());
    let mut made = Vec::new();
    let mut left: Vec<(i64, u64)> = windows.into_iter().rev().collect();
    while let Some((first, mut samples)) = left.pop() {
        let mut held: BTreeMap<i64, Held> = BTreeMap::from([(first, Held::new())]);
        while let Some((window, more)) = left.pop_if(|(_, more)| samples + *more <= SAMPLES_AT_ONCE) {
            samples += more;
            held.insert(window, Held::new());
        }
        input.rewind().map_err(ToolError::io("rewind", &args.input))?;
        let mut keep = |s: Sample| {
            if let Some(held) = held.get_mut(&s.t.div_euclid(block_ms)) {
                held.entry(s.series).or_default().push((s.t, s.value));
            }
            Ok(())
        };
        parse(BufReader::with_capacity(READ_BYTES, &mut input), &mut series, &mut keep).map_err(of_text)?;
        for held in held.into_values() {
            let id = write(args, &series, held)?;
            progress.step(&id);
            made.push(Block::open(&args.output.join(id.to_string()))?);
        }
    }
    drop(progress);
    if args.quiet { Ok(()) } else { print(&made, args.human_readable, args.format, out) }
}

/// The input as a file that can be read again and again: a pipe is kept in a temporary one.
fn open(args: &Args) -> Result<File> {
    let mut file = File::open(&args.input).map_err(ToolError::io("open", &args.input))?;
    if file.metadata().is_ok_and(|m| m.is_file()) {
        return Ok(file);
    }
    let mut copy = tempfile::tempfile().map_err(ToolError::io("create a copy of", &args.input))?;
    let mut copied = std::io::copy(&mut Read::by_ref(&mut file), &mut copy);
    copied = copied.and_then(|_| copy.rewind().map(|()| 0));
    copied.map_err(ToolError::io("copy", &args.input))?;
    Ok(copy)
}

fn write(args: &Args, series: &Series, held: Held) -> Result<BlockId> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let id = BlockId(ulid::Ulid::from_parts(u64::try_from(now).unwrap_or(u64::MAX), rand::random()));
    let mut writer = BlockWriter::create(&args.output, id, BlockWriterOptions::default())?;
    let attached = || args.label.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let labels = |number: usize| series.labels()[number].with(attached());
    let mut all: Vec<_> = held.into_iter().map(|(number, samples)| (labels(number), samples)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    // Attached labels may make two series one.
    all.dedup_by(|b, a| {
        let same = a.0 == b.0;
        if same {
            a.1.append(&mut b.1);
        }
        same
    });
    for (labels, mut samples) in all {
        samples.sort_by_key(|(t, _)| *t);
        samples.dedup_by(|b, a| a.0 == b.0 && a.1.to_bits() == b.1.to_bits());
        if let Some(pair) = samples.windows(2).find(|w| w[0].0 == w[1].0) {
            let text = format!("series {labels} has two values at {}", pair[0].0);
            return Err(ToolError::Usage(format!("{}: {text}", args.input.display())));
        }
        let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
        writer.add_series(&labels, &encode_floats(&ts, &values))?;
    }
    writer.finish(BlockParts::default())?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_ranges_are_prometheuses() {
        let hours = |h: i64| h * 3_600_000;
        let got = [0, 1, 2, 5, 6, 17, 54].map(|h| block_ms(hours(h)));
        assert_eq!(got, [2, 2, 2, 2, 6, 6, 54].map(hours));
    }
}
