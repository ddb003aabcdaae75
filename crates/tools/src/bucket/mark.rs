//! `mark`: marks by hand.

use chronolith_bucket::{DeletionMark, NoCompactMark, NoDownsampleMark, layout};
use chronolith_model::BlockId;

use super::{Place, block_id};
use crate::Result;
use crate::output::{Log, LogFormat};

/// Flags of `mark`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Blocks (repeated).
    #[arg(long = "id", required = true, value_parser = block_id, value_name = "ULID")]
    id: Vec<BlockId>,
    /// Which mark.
    #[arg(
        long = "marker",
        required = true,
        value_parser = [layout::DELETION_MARK, layout::NO_COMPACT_MARK, layout::NO_DOWNSAMPLE_MARK],
        value_name = "FILE"
    )]
    marker: String,
    /// Remark for humans.
    #[arg(long = "details", default_value = "", value_name = "TEXT")]
    details: String,
    /// Take the mark away.
    #[arg(long = "remove")]
    remove: bool,
    #[command(flatten)]
    output: LogFormat,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let Place { bucket, now_ms, out } = place;
    let mut log = Log::new(args.output, out);
    for id in &args.id {
        let key = layout::key(*id, &args.marker);
        if args.remove {
            let there = bucket.exists(&key).await?;
            bucket.delete(&key).await?;
            log.add(id, if there { "mark removed" } else { "had no such mark" }, 0)?;
            continue;
        }
        // Reading the meta tells a wrong id from a right one.
        bucket.head(&layout::key(*id, layout::META)).await?;
        let new = match args.marker.as_str() {
            layout::DELETION_MARK => DeletionMark::write(bucket, *id, now_ms, &args.details).await?,
            layout::NO_COMPACT_MARK => {
                NoCompactMark::write(bucket, *id, now_ms, &args.details, "manual").await?
            }
            _ => NoDownsampleMark::write(bucket, *id, now_ms, &args.details, "manual").await?,
        };
        log.add(id, if new { "marked" } else { "had that mark already" }, 0)?;
    }
    log.finish()
}
