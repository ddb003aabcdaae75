//! `chronolith tools bucket …`.

mod cleanup;
mod delete;
mod inspect;
mod ls;
mod mark;
mod replicate;
mod retention;
mod rewrite;
mod upload;
mod verify;
mod web;

use std::io::Write;
use std::path::Path;

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use clap::Subcommand;

use crate::{Result, ToolError};

pub use verify::Issue;

/// A tool over a bucket.
#[derive(Subcommand, Clone, Debug)]
pub enum BucketTool {
    /// List the blocks.
    Ls(ls::Args),
    /// Show the blocks with their times, sizes, levels and labels.
    Inspect(inspect::Args),
    /// Look for missing files, overlaps, duplicates, disorder and damage.
    Verify(verify::Args),
    /// Put a mark on blocks, or take it away.
    Mark(mark::Args),
    /// Delete marked blocks after their delay, and uploads that stopped, as the compactor does.
    Cleanup(cleanup::Args),
    /// Mark what is out of retention, and rewrite blocks of which some series are.
    Retention(retention::Args),
    /// Delete series: record a request that all readers honour, list requests, revoke one.
    Delete(delete::Args),
    /// Write blocks anew without what was deleted, or with other labels.
    Rewrite(rewrite::Args),
    /// Copy blocks into another bucket.
    Replicate(replicate::Args),
    /// Adopt the blocks of a Prometheus.
    UploadBlocks(upload::Args),
    /// What Thanos's web interface shows, as JSON.
    WebJson(web::Args),
}

/// Where a tool works.
pub struct Place<'a> {
    /// The bucket.
    pub bucket: &'a Bucket,
    /// The time, milliseconds since the epoch.
    pub now_ms: i64,
    /// Where results go.
    pub out: &'a mut (dyn Write + Send),
}

impl BucketTool {
    /// Runs the tool.
    pub async fn run(&self, place: Place<'_>) -> Result<()> {
        match self {
            BucketTool::Ls(args) => ls::run(args, place).await,
            BucketTool::Inspect(args) => inspect::run(args, place).await,
            BucketTool::Verify(args) => verify::run(args, place).await,
            BucketTool::Mark(args) => mark::run(args, place).await,
            BucketTool::Cleanup(args) => cleanup::run(args, place).await,
            BucketTool::Retention(args) => retention::run(args, place).await,
            BucketTool::Delete(args) => delete::run(args, place).await,
            BucketTool::Rewrite(args) => rewrite::run(args, place).await,
            BucketTool::Replicate(args) => replicate::run(args, place).await,
            BucketTool::UploadBlocks(args) => upload::run(args, place).await,
            BucketTool::WebJson(args) => web::run(args, place).await,
        }
    }
}

/// Thanos's flags for what needs no setting here: listings and reads of metas wait as long as the store's own timeouts say.
#[derive(clap::Args, Clone, Debug)]
struct Ignored {
    /// Taken for compatibility.
    #[arg(long = "timeout", hide = true, value_name = "DURATION")]
    _timeout: Option<chronolith_service::config::DurationMs>,
    /// Taken for compatibility.
    #[arg(long = "block-sync-concurrency", hide = true, value_name = "N")]
    _sync_concurrency: Option<usize>,
}

/// Where a document of `--<flag>` or `--<flag>-file` is from, and its text; `None` without either.
fn document(flag: &str, inline: Option<&str>, file: Option<&Path>) -> Result<Option<(String, String)>> {
    chronolith_service::config::inline_or_file(flag, inline, file).map_err(|e| usage(&e))
}

/// What is wrong with the command line or a file that it names.
fn usage(error: &dyn std::error::Error) -> ToolError {
    ToolError::Usage(chronolith_service::exit::error_chain(error))
}

fn block_id(text: &str) -> Result<BlockId, String> {
    text.parse().map_err(|e: chronolith_model::IdError| e.to_string())
}

/// A moment of a flag: RFC 3339, or a duration before now like -30d; `0s` is now.
#[derive(Clone, Copy, Debug)]
enum Moment {
    At(i64),
    FromNow(i64),
}

impl Moment {
    fn at_ms(self, now_ms: i64) -> i64 {
        match self {
            Moment::At(ms) => ms,
            Moment::FromNow(ms) => now_ms.saturating_add(ms),
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return Ok(Moment::At(t.as_millisecond()));
    }
    let (negative, length) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let ms = chronolith_model::parse_duration_ms(length)
        .ok_or_else(|| "want an RFC 3339 moment or a duration from now like -30d".to_owned())?;
    Ok(Moment::FromNow(if negative { -ms } else { ms }))
}

/// `--min-time`, `--max-time`: blocks that begin before or end after are left out.
#[derive(clap::Args, Clone, Debug)]
struct TimeArgs {
    /// Blocks that end before are left out: RFC 3339, or a duration from now like -30d.
    #[arg(long = "min-time", value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    min_time: Option<Moment>,
    /// Blocks that begin after are left out.
    #[arg(long = "max-time", value_name = "TIME", allow_hyphen_values = true, value_parser = moment)]
    max_time: Option<Moment>,
}

impl TimeArgs {
    fn takes(&self, meta: &chronolith_tsdb::block::BlockMeta, now_ms: i64) -> bool {
        self.min_time.is_none_or(|t| meta.max_time > t.at_ms(now_ms))
            && self.max_time.is_none_or(|t| meta.min_time <= t.at_ms(now_ms))
    }
}

fn selector(text: &str) -> Result<Vec<chronolith_model::Matcher>, ToolError> {
    chronolith_promql::parser::parse_selector(text)
        .map_err(|e| ToolError::Usage(format!("selector {text:?}: {e}")))
}

/// An id for a new block.
fn new_id(now_ms: i64) -> BlockId {
    BlockId(ulid::Ulid::from_parts(now_ms.max(0).unsigned_abs(), rand::random()))
}

fn work_dir(parent: Option<&std::path::Path>) -> Result<tempfile::TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, std::path::Path::to_owned);
    std::fs::create_dir_all(&parent).map_err(ToolError::io("create", &parent))?;
    tempfile::Builder::new()
        .prefix("chronolith-tools-")
        .tempdir_in(&parent)
        .map_err(ToolError::io("create a directory in", &parent))
}
