//! `replicate`: blocks into another bucket, as they are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_bucket::layout;
use chronolith_model::{BlockId, Matcher};
use chronolith_objstore::{Bucket, BucketMetrics};
use chronolith_service::config::DurationMs;

use super::{Place, TimeArgs, block_id, document, selector, work_dir};
use crate::listing::{Listed, Listing, matches, thanos};
use crate::output::{Log, LogFormat};
use crate::progress::Progress;
use crate::{Result, ToolError};

/// Flags of `replicate`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// File with the configuration of the bucket to copy into.
    #[arg(long = "objstore-to.config-file", value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "objstore-to.config", value_name = "YAML", conflicts_with = "to_file")]
    to: Option<String>,
    /// Blocks of these resolutions (repeated).
    #[arg(long = "resolution", default_values = ["0s", "5m", "1h"], value_name = "DURATION")]
    resolution: Vec<DurationMs>,
    /// Blocks of at least this compaction level.
    #[arg(long = "compaction-min", default_value_t = 1, value_name = "N")]
    compaction_min: u32,
    /// Blocks of at most this compaction level.
    #[arg(long = "compaction-max", default_value_t = 4, value_name = "N")]
    compaction_max: u32,
    /// Blocks of these compaction levels (repeated) instead.
    #[arg(long = "compaction", value_name = "N")]
    compaction: Vec<u32>,
    /// Blocks whose external labels satisfy this selector.
    #[arg(long = "matcher", default_value = "", value_name = "SELECTOR")]
    matcher: String,
    /// These blocks (repeated), whatever the other flags say; runs once.
    #[arg(long = "id", value_parser = block_id, value_name = "ULID")]
    id: Vec<BlockId>,
    /// Run once instead of once a minute.
    #[arg(long = "single-run")]
    single_run: bool,
    /// Leave out blocks that are marked for deletion.
    #[arg(long = "ignore-marked-for-deletion")]
    ignore_marked: bool,
    #[command(flatten)]
    times: TimeArgs,
    /// Directory for what is under way.
    #[arg(long = "tmp.dir", value_name = "DIR")]
    tmp_dir: Option<PathBuf>,
    #[command(flatten)]
    output: LogFormat,
}

/// Thanos's pause.
const PAUSE: Duration = Duration::from_secs(60);

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let to = open_other("objstore-to", args.to.as_deref(), args.to_file.as_deref())?
        .ok_or_else(|| ToolError::Usage("give --objstore-to.config-file".to_owned()))?;
    let matchers = match args.matcher.as_str() {
        "" => Vec::new(),
        // Thanos takes bare matchers; ours are a selector with or without its braces.
        text if text.contains('{') => selector(text)?,
        text => selector(&format!("{{{text}}}"))?,
    };
    let mut log = Log::new(args.output, place.out);
    loop {
        let listing = Listing::read(place.bucket).await?;
        let mut wanted: Vec<&Listed> =
            listing.blocks.values().filter(|b| takes(args, b, &matchers, place.now_ms)).collect();
        wanted.sort_by_key(|b| (b.meta().map(|m| m.min_time), b.id));
        let there: BTreeSet<BlockId> = Listing::read(&to).await?.with_meta().map(|(b, _)| b.id).collect();
        wanted.retain(|b| !there.contains(&b.id));
        let mut progress = Progress::new("copying", wanted.len());
        let mut bytes = 0;
        for block in &wanted {
            bytes += copy(args.tmp_dir.as_deref(), place.bucket, &to, block).await?;
            log.add(&block.id, "copied", block.bytes())?;
            progress.step(&block.id);
        }
        drop(progress);
        log.say(format_args!("{} blocks, {bytes} bytes copied", wanted.len()))?;
        log.finish()?;
        if args.single_run || !args.id.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The bucket of `--<flag>.config` or `--<flag>.config-file`; `None` without either.
pub(super) fn open_other(flag: &str, inline: Option<&str>, file: Option<&Path>) -> Result<Option<Bucket>> {
    let found = document(&format!("{flag}.config"), inline, file)?;
    let Some((origin, text)) = found else { return Ok(None) };
    let usage = |e: &dyn std::error::Error| {
        ToolError::Usage(format!("{origin}: {}", chronolith_service::exit::error_chain(e)))
    };
    let config = chronolith_objstore::config::parse(&text).map_err(|e| usage(&e))?;
    chronolith_objstore::open(&config, BucketMetrics::default()).map(Some).map_err(|e| usage(&e))
}

fn takes(args: &Args, block: &Listed, matchers: &[Matcher], now_ms: i64) -> bool {
    let Some(meta) = block.meta() else { return false };
    if !args.id.is_empty() {
        return args.id.contains(&block.id);
    }
    let level = meta.compaction.level;
    let of_level = match args.compaction.as_slice() {
        [] => (args.compaction_min..=args.compaction_max).contains(&level),
        levels => levels.contains(&level),
    };
    of_level
        && args.resolution.iter().any(|r| r.0 == thanos(meta).downsample.resolution)
        && matches(meta, matchers)
        && args.times.takes(meta, now_ms)
        && !(args.ignore_marked && block.deletion.is_some())
}

/// Copies the files of a block, meta.json last. What is there with its size is kept.
pub(super) async fn copy(tmp_dir: Option<&Path>, from: &Bucket, to: &Bucket, block: &Listed) -> Result<u64> {
    let dir = work_dir(tmp_dir)?;
    let (file, mut bytes) = (dir.path().join("object"), 0);
    let is_data = |name: &str| name == layout::INDEX || name.starts_with("chunks/");
    for (name, size) in block.objects.iter().filter(|(name, _)| is_data(name)) {
        let key = layout::key(block.id, name);
        match to.head(&key).await {
            Ok(there) if there.size == *size => continue,
            Ok(_) => {}
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
        from.get_to_file(&key, &file).await?;
        to.put_file(&key, &file).await?;
        bytes += size;
    }
    let key = layout::key(block.id, layout::META);
    let meta = from.get(&key).await?;
    bytes += meta.len() as u64;
    to.put(&key, meta).await?;
    Ok(bytes)
}
