//! `cleanup`: what is due goes, by the compactor's rules.

use chronolith_bucket::Cleaning;
use chronolith_service::config::DurationMs;

use super::{Ignored, Place};
use crate::Result;
use crate::listing::Listing;
use crate::output::{Log, LogFormat};
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
    #[command(flatten)]
    output: LogFormat,
    #[command(flatten)]
    ignored: Ignored,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let Place { bucket, now_ms, out } = place;
    let mut log = Log::new(args.output, out);
    let listing = Listing::read(bucket).await?;
    let mut rules = Cleaning::after(args.delete_delay.0);
    rules.partial_age_ms = rules.partial_age_ms.max(args.consistency_delay.0);
    let mut due = Vec::new();
    for block in listing.blocks.values() {
        let stopped = matches!(block.meta, Ok(None)) && rules.is_stopped(block.modified, now_ms);
        match &block.deletion {
            Some(mark) if rules.is_due(mark, now_ms) => due.push((block, "marked")),
            None if stopped => due.push((block, "stopped upload")),
            _ => {}
        }
    }
    let mut progress = Progress::new("deleting", due.len());
    let (mut count, mut bytes) = (0, 0);
    for (block, why) in due {
        let deleted = match why {
            _ if args.dry_run => true,
            "marked" => rules.delete_marked(bucket, block.id, now_ms).await?,
            _ => rules.delete_stopped(bucket, block.id, now_ms).await?,
        };
        if !deleted {
            continue;
        }
        log.add(&block.id, why, block.bytes())?;
        progress.step(&block.id);
        count += 1;
        bytes += block.bytes();
    }
    drop(progress);
    let verb = if args.dry_run { "to delete" } else { "deleted" };
    log.say(format_args!("{count} blocks, {bytes} bytes {verb}"))?;
    log.finish()
}
