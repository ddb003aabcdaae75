//! `inspect`: the blocks in a table.

use serde::Serialize;

use super::ls::mark_names;
use super::{Ignored, Place, TimeArgs};
use crate::listing::{Listing, labels_text, thanos};
use crate::output::{self, Table, duration, moment};
use crate::{Format, Result, ToolError};

/// Flags of `inspect`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Blocks with this external label, like key="value"; all of them must hold.
    #[arg(short = 'l', long = "selector", value_name = "LABEL", value_parser = chronolith_service::config::parse_label_flag)]
    selector: Vec<(String, String)>,
    /// Sort by these columns, the first one first.
    #[arg(long = "sort-by", default_values = ["FROM", "UNTIL"], value_name = "COLUMN")]
    sort_by: Vec<String>,
    /// table, csv, tsv or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
    #[command(flatten)]
    times: TimeArgs,
    #[command(flatten)]
    ignored: Ignored,
}

#[derive(Serialize)]
struct Row {
    ulid: String,
    from: String,
    until: String,
    range: String,
    until_down: String,
    series: u64,
    samples: u64,
    chunks: u64,
    compaction_level: u32,
    compaction_failed: bool,
    labels: String,
    resolution: String,
    source: String,
    bytes: u64,
    marks: String,
}

/// Ranges from which on blocks are downsampled, Thanos's.
const DOWNSAMPLED_FROM_MS: [(i64, i64); 2] = [(0, 40 * 3_600_000), (300_000, 10 * 24 * 3_600_000)];

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let listing = Listing::read(place.bucket).await?;
    let mut table = Table::new(&[
        "ULID",
        "FROM",
        "UNTIL",
        "RANGE",
        "UNTIL DOWN",
        "#SERIES",
        "#SAMPLES",
        "#CHUNKS",
        "COMP LEVEL",
        "COMP FAILED",
        "LABELS",
        "RESOLUTION",
        "SOURCE",
        "BYTES",
        "MARKS",
    ]);
    let columns: Vec<usize> = args
        .sort_by
        .iter()
        .map(|name| table.column(name).ok_or_else(|| ToolError::Usage(format!("no column {name:?}"))))
        .collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for (block, meta) in listing.with_meta() {
        let thanos = thanos(meta);
        let selected = args.selector.iter().all(|(n, v)| thanos.labels.get(n) == Some(v));
        if !selected || !args.times.takes(meta, place.now_ms) {
            continue;
        }
        let range = meta.max_time - meta.min_time;
        let resolution = thanos.downsample.resolution;
        let down = DOWNSAMPLED_FROM_MS.iter().find(|(r, _)| *r == resolution).map(|(_, from)| from - range);
        let row = Row {
            ulid: block.id.to_string(),
            from: moment(meta.min_time),
            until: moment(meta.max_time),
            range: duration(range),
            until_down: down.filter(|d| *d > 0).map_or_else(|| "-".to_owned(), duration),
            series: meta.stats.num_series,
            samples: meta.stats.num_samples,
            chunks: meta.stats.num_chunks,
            compaction_level: meta.compaction.level,
            compaction_failed: meta.compaction.failed,
            labels: labels_text(meta),
            resolution: duration(resolution),
            source: thanos.source,
            bytes: block.bytes(),
            marks: mark_names(block),
        };
        let cells = vec![
            row.ulid.clone(),
            row.from.clone(),
            row.until.clone(),
            row.range.clone(),
            row.until_down.clone(),
            row.series.to_string(),
            row.samples.to_string(),
            row.chunks.to_string(),
            row.compaction_level.to_string(),
            row.compaction_failed.to_string(),
            row.labels.clone(),
            row.resolution.clone(),
            row.source.clone(),
            row.bytes.to_string(),
            row.marks.clone(),
        ];
        rows.push((cells, row));
    }
    // Numbers by their size, which for those of equal length is their order as text.
    let key = |cells: &[String]| -> Vec<(usize, String)> {
        let is_number = |c: &str| !c.is_empty() && c.bytes().all(|b| b.is_ascii_digit());
        columns
            .iter()
            .map(|c| (if is_number(&cells[*c]) { cells[*c].len() } else { 0 }, cells[*c].clone()))
            .collect()
    };
    rows.sort_by_key(|(cells, _)| key(cells));
    let mut values = Vec::with_capacity(rows.len());
    for (cells, row) in rows {
        table.row(cells);
        values.push(row);
    }
    output::write(place.out, args.output, &table, &values)
}
