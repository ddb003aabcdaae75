//! `cleanup`: what is due goes.

use chronolith_bucket::{DeletionMark, delete_block, delete_partial_block, layout};
use chronolith_service::config::DurationMs;

use super::Place;
use crate::Result;
use crate::listing::Listing;
use crate::output::line;
use crate::progress::Progress;

/// Flags of `cleanup`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A marked block is deleted when its mark is so old.
    #[arg(long = "delete-delay", default_value = "48h", value_name = "DURATION")]
    delete_delay: DurationMs,
    /// Uploads without meta.json are taken for stopped when their newest object is so old, and at least two days.
    #[arg(long = "consistency-delay", default_value = "30m", value_name = "DURATION")]
    consistency_delay: DurationMs,
    /// Say what would be deleted, and delete nothing.
    #[arg(long = "dry-run")]
    dry_run: bool,
}

/// Thanos's bound.
const PARTIAL_AGE_MS: i64 = 48 * 3_600_000;

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let Place { bucket, now_ms, out } = place;
    let listing = Listing::read(bucket).await?;
    let partial_age_ms = args.consistency_delay.0.max(PARTIAL_AGE_MS);
    let marked_due = |mark: &DeletionMark| {
        now_ms.saturating_sub(mark.deletion_time.saturating_mul(1000)) >= args.delete_delay.0
    };
    let mut due = Vec::new();
    for block in listing.blocks.values() {
        let stopped =
            matches!(block.meta, Ok(None)) && now_ms.saturating_sub(block.modified_ms) > partial_age_ms;
        match &block.deletion {
            Some(mark) if marked_due(mark) => due.push((block, "marked")),
            None if stopped => due.push((block, "stopped upload")),
            _ => {}
        }
    }
    let mut progress = Progress::new("deleting", due.len());
    let (mut count, mut bytes) = (0, 0);
    for (block, why) in due {
        if !args.dry_run {
            if why == "marked" {
                // A mark that was taken back meanwhile holds.
                if DeletionMark::read(bucket, block.id).await?.is_none() {
                    continue;
                }
                delete_block(bucket, block.id).await?;
            } else if !bucket.exists(&layout::key(block.id, layout::META)).await? {
                delete_partial_block(bucket, block.id).await?;
            } else {
                continue;
            }
        }
        line(out, format_args!("{} {why} {} bytes", block.id, block.bytes()))?;
        progress.step(&block.id);
        count += 1;
        bytes += block.bytes();
    }
    drop(progress);
    let verb = if args.dry_run { "to delete" } else { "deleted" };
    line(out, format_args!("{count} blocks, {bytes} bytes {verb}"))
}
