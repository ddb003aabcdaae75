//! `ls`: the blocks.

use serde::Serialize;

use super::{Ignored, Place, TimeArgs};
use crate::listing::{Listed, Listing, Marks, labels_text, thanos};
use crate::output::{self, Table, duration, line, moment};
use crate::{Format, Result, ToolError};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;

/// Flags of `ls`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How blocks are printed: nothing for their names alone, wide, table, csv, tsv, or json for one meta.json a line.
    #[arg(short = 'o', long = "output", default_value = "", value_name = "FORMAT")]
    output: String,
    /// Leave out blocks that are marked for deletion.
    #[arg(long = "exclude-delete")]
    exclude_delete: bool,
    #[command(flatten)]
    times: TimeArgs,
    #[command(flatten)]
    ignored: Ignored,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    meta: &'a BlockMeta,
    marks: Marks,
    bytes: u64,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let Place { bucket, now_ms, out } = place;
    let format: Option<Format> = match args.output.as_str() {
        "" | "wide" | "json" => None,
        other => Some(other.parse().map_err(|e| ToolError::Usage(format!("--output: {e}, or wide")))?),
    };
    let listing = Listing::read(bucket).await?;
    let mut blocks: Vec<(&Listed, &BlockMeta)> = listing.with_meta().collect();
    blocks.retain(|(b, m)| args.times.takes(m, now_ms) && !(args.exclude_delete && b.deletion.is_some()));
    if let Some(format) = format {
        let mut table =
            Table::new(&["ULID", "FROM", "UNTIL", "LEVEL", "RESOLUTION", "BYTES", "MARKS", "LABELS"]);
        for (block, meta) in &blocks {
            table.row(vec![
                block.id.to_string(),
                moment(meta.min_time),
                moment(meta.max_time),
                meta.compaction.level.to_string(),
                duration(thanos(meta).downsample.resolution),
                block.bytes().to_string(),
                mark_names(block),
                labels_text(meta),
            ]);
        }
        output::write(out, format, &table, &Vec::<()>::new())?;
    } else {
        for (block, meta) in &blocks {
            match args.output.as_str() {
                "json" => {
                    let text =
                        serde_json::to_string(&Line { meta, marks: block.marks(), bytes: block.bytes() });
                    line(out, format_args!("{}", text.expect("a meta has string keys only")))?;
                }
                "wide" => line(
                    out,
                    format_args!(
                        "{} -- {} - {} Diff: {}, Compaction: {}, Downsample: {}, Source: {}",
                        block.id,
                        moment(meta.min_time),
                        moment(meta.max_time),
                        duration(meta.max_time - meta.min_time),
                        meta.compaction.level,
                        thanos(meta).downsample.resolution,
                        thanos(meta).source
                    ),
                )?,
                _ => line(out, format_args!("{}", block.id))?,
            }
        }
    }
    for block in listing.blocks.values() {
        match &block.meta {
            Ok(Some(_)) => {}
            Ok(None) => eprintln!("{}: no meta.json: an upload or a deletion that has not ended", block.id),
            Err(why) => eprintln!("{}: {why}", block.id),
        }
    }
    if listing.blocks.is_empty() {
        hint_at_tenants(bucket).await?;
    }
    Ok(())
}

/// The names of a block's marks.
pub(super) fn mark_names(block: &Listed) -> String {
    let names = [
        block.deletion.is_some().then_some("deletion"),
        block.no_compact.is_some().then_some("no-compact"),
        block.no_downsample.is_some().then_some("no-downsample"),
    ];
    names.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Cortex and Mimir have a directory a tenant.
async fn hint_at_tenants(bucket: &Bucket) -> Result<()> {
    const LOOKED_AT_MAX: usize = 100;
    for dir in bucket.list_dirs("").await?.into_iter().take(LOOKED_AT_MAX) {
        let below = bucket.list_dirs(&dir).await?;
        let is_block = |d: &String| {
            let name = d.rsplit('/').next().unwrap_or_default();
            name.parse::<chronolith_model::BlockId>().is_ok()
        };
        if below.iter().any(is_block) {
            eprintln!("blocks of tenant {dir:?} lie below {dir}/: give --tenant-prefix={dir}");
        }
    }
    Ok(())
}
