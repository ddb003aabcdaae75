//! `create-blocks-from openmetrics`: a block for each stretch of time in which the text has samples.
//!
//! The text is read once for its times and once for each block, so memory is that of the largest block's samples.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_chunk::encode_floats;
use chronolith_model::{BlockId, Labels};
use chronolith_service::config::DurationMs;
use chronolith_tsdb::block::{Block, BlockParts, BlockWriter, BlockWriterOptions};

use super::list::print;
use super::openmetrics::{Sample, parse};
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
    /// The text.
    #[arg(value_name = "INPUT FILE")]
    input: PathBuf,
    /// Directory for the blocks.
    #[arg(default_value = "data/", value_name = "OUTPUT DIRECTORY")]
    output: PathBuf,
}

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
    let mut windows = std::collections::BTreeSet::new();
    let mut note = |s: Sample| {
        windows.insert(s.t.div_euclid(block_ms));
        Ok(())
    };
    parse(BufReader::new(&mut input), &mut note).map_err(of_text)?;
    std::fs::create_dir_all(&args.output).map_err(ToolError::io("create", &args.output))?;

    let mut progress = Progress::new("making blocks", windows.len());
    let mut made = Vec::new();
    for window in windows {
        input.rewind().map_err(ToolError::io("rewind", &args.input))?;
        let mut series: HashMap<Labels, Vec<(i64, f64)>> = HashMap::new();
        let mut keep = |s: Sample| {
            if s.t.div_euclid(block_ms) == window {
                let labels = s.labels.with(args.label.iter().map(|(n, v)| (n.as_str(), v.as_str())));
                series.entry(labels).or_default().push((s.t, s.value));
            }
            Ok(())
        };
        parse(BufReader::new(&mut input), &mut keep).map_err(of_text)?;
        let id = write(args, series)?;
        progress.step(&id);
        made.push(Block::open(&args.output.join(id.to_string()))?);
    }
    drop(progress);
    if args.quiet { Ok(()) } else { print(&made, args.human_readable, Format::Table, out) }
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

fn write(args: &Args, series: HashMap<Labels, Vec<(i64, f64)>>) -> Result<BlockId> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let id = BlockId(ulid::Ulid::from_parts(u64::try_from(now).unwrap_or(u64::MAX), rand::random()));
    let mut writer = BlockWriter::create(&args.output, id, BlockWriterOptions::default())?;
    let mut series: Vec<_> = series.into_iter().collect();
    series.sort_by(|a, b| a.0.cmp(&b.0));
    for (labels, mut samples) in series {
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
