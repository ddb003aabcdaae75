//! `rewrite`: blocks again, without what was deleted.

use std::path::PathBuf;

use chronolith_bucket::deletions::{DeletionRequest, Deletions};
use chronolith_bucket::{
    DeletionMark, UploadOptions, carry_marks, download_block, is_uploaded, upload_block,
};
use chronolith_compact::rewrite::{Change, Rewritten, of_requests, rewrite_block};
use chronolith_model::{BlockId, Labels, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use serde::Deserialize;

use super::{Place, block_id, new_id, selector, work_dir};
use crate::error::blocking;
use crate::listing::{Listed, Listing};
use crate::output::line;
use crate::progress::Progress;
use crate::{Result, ToolError};

/// Flags of `rewrite`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Blocks (repeated); without it all that a deletion concerns.
    #[arg(long = "id", value_parser = block_id, value_name = "ULID")]
    id: Vec<BlockId>,
    /// File of deletions instead of the requests in the bucket: a YAML list of `matchers` and `intervals` of `mint`, `maxt`.
    #[arg(long = "rewrite.to-delete-config-file", value_name = "FILE")]
    to_delete_file: Option<PathBuf>,
    /// The same on the command line.
    #[arg(long = "rewrite.to-delete-config", value_name = "YAML", conflicts_with = "to_delete_file")]
    to_delete: Option<String>,
    /// Say which blocks a deletion concerns, and change nothing: the default.
    #[arg(long = "dry-run", conflicts_with = "no_dry_run")]
    dry_run: bool,
    /// Do it.
    #[arg(long = "no-dry-run")]
    no_dry_run: bool,
    /// Mark the original blocks for deletion.
    #[arg(long = "delete-blocks")]
    delete_blocks: bool,
    /// Put SHA-256 sums of the files into meta.json.
    #[arg(long = "hash-func", default_value = "", value_parser = ["", "SHA256"], value_name = "NAME")]
    hash_func: String,
    /// Take blocks without external labels, as plain Prometheus blocks are.
    #[arg(long = "prom-blocks")]
    prom_blocks: bool,
    /// Directory for what is under way.
    #[arg(long = "tmp.dir", value_name = "DIR")]
    tmp_dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToDelete {
    matchers: String,
    #[serde(default)]
    intervals: Vec<Interval>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interval {
    mint: i64,
    maxt: i64,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let deletions = match given(args, place.now_ms)? {
        Some(deletions) => deletions,
        None => Deletions::read(place.bucket).await?,
    };
    if deletions.is_empty() {
        return line(place.out, format_args!("nothing is to be deleted"));
    }
    let listing = Listing::read(place.bucket).await?;
    if let Some(missing) = args.id.iter().find(|id| listing.blocks.get(id).is_none_or(|b| b.meta().is_none()))
    {
        return Err(ToolError::Usage(format!("there is no block {missing}")));
    }
    let chosen: Vec<(&Listed, &BlockMeta)> = listing
        .with_meta()
        .filter(|(b, m)| {
            let wanted = if args.id.is_empty() { b.deletion.is_none() } else { args.id.contains(&b.id) };
            wanted && deletions.mask_of(m).is_some()
        })
        .collect();
    let mut progress = Progress::new("rewriting", chosen.len());
    for (block, meta) in chosen {
        if !args.no_dry_run {
            line(place.out, format_args!("{}: {} bytes to look through", block.id, block.bytes()))?;
            continue;
        }
        let Some(mask) = deletions.mask_of(meta) else { continue };
        let (mask, all) = (mask.clone(), deletions.clone());
        let rewritten =
            rewrite_in_bucket(place.bucket, meta, place.now_ms, args.into(), move |dir, parent, id| {
                let deleted = |labels: &Labels| mask.deleted(labels);
                Ok(rewrite_block(dir, parent, id, &of_requests(&mask, &deleted, &all))?)
            })
            .await?;
        line(place.out, format_args!("{}: {rewritten}", block.id))?;
        progress.step(&block.id);
    }
    Ok(())
}

/// The deletions of the flags.
fn given(args: &Args, now_ms: i64) -> Result<Option<Deletions>> {
    let usage = |e: chronolith_service::config::ConfigError| {
        ToolError::Usage(chronolith_service::exit::error_chain(&e))
    };
    let found = chronolith_service::config::inline_or_file(
        "rewrite.to-delete-config",
        args.to_delete.as_deref(),
        args.to_delete_file.as_deref(),
    );
    let Some((origin, text)) = found.map_err(usage)? else { return Ok(None) };
    let list: Vec<ToDelete> =
        chronolith_service::config::load_yaml(&origin.to_string(), &text).map_err(usage)?;
    let mut deletions = Deletions::default();
    for entry in list {
        let selectors = vec![selector(&entry.matchers)?];
        let intervals = match entry.intervals.as_slice() {
            [] => vec![Interval { mint: i64::MIN, maxt: i64::MAX }],
            some => some.to_vec(),
        };
        for Interval { mint, maxt } in intervals {
            let mut request = DeletionRequest::new(&selectors, TimeRange::new(mint, maxt), "", now_ms);
            request.maxt = maxt;
            let id = request.id.parse().map_err(|_| ToolError::Usage("no id".to_owned()))?;
            deletions.all.push(chronolith_bucket::deletions::Deletion {
                id,
                selectors: selectors.clone(),
                request,
            });
        }
    }
    Ok(Some(deletions))
}

/// How results are put into the bucket.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) delete_origin: bool,
    pub(super) options: UploadOptions,
    pub(super) tmp_dir: Option<PathBuf>,
}

impl From<&Args> for Publish {
    fn from(args: &Args) -> Self {
        let options = UploadOptions { hash: args.hash_func == "SHA256", allow_no_labels: args.prom_blocks };
        Publish { delete_origin: args.delete_blocks, options, tmp_dir: args.tmp_dir.clone() }
    }
}

/// Downloads a block, changes it, uploads the result, and marks the origin once the result was seen whole. Says what was done.
pub(super) async fn rewrite_in_bucket(
    bucket: &Bucket,
    meta: &BlockMeta,
    now_ms: i64,
    publish: Publish,
    change: impl FnOnce(&std::path::Path, &std::path::Path, BlockId) -> Result<Rewritten> + Send + 'static,
) -> Result<String> {
    const FILES_CONCURRENT: usize = 4;
    let work = work_dir(publish.tmp_dir.as_deref())?;
    let (dir, parent) = (work.path().join("origin"), work.path().to_owned());
    download_block(bucket, meta, &dir, FILES_CONCURRENT).await?;
    let (out_dir, id) = (parent.clone(), new_id(now_ms));
    match blocking(move || change(&dir, &out_dir, id)).await? {
        Rewritten::Unchanged => Ok("no series of it is concerned".to_owned()),
        Rewritten::Nothing => {
            if publish.delete_origin {
                DeletionMark::write(bucket, meta.ulid, now_ms, "nothing was left after a rewrite").await?;
            }
            Ok("nothing is left of it".to_owned())
        }
        Rewritten::Block(made) => {
            let from = parent.join(made.ulid.to_string());
            chronolith_tsdb::block::verify(&from)?;
            carry_marks(bucket, meta.ulid, made.ulid, now_ms).await?;
            upload_block(bucket, &from, &made, publish.options, now_ms).await?;
            if !is_uploaded(bucket, made.ulid).await? {
                return Err(ToolError::Found(format!(
                    "{} is not whole in the bucket after its upload",
                    made.ulid
                )));
            }
            if publish.delete_origin {
                let details = format!("rewritten as {}", made.ulid);
                DeletionMark::write(bucket, meta.ulid, now_ms, &details).await?;
            }
            Ok(format!("rewritten as {}", made.ulid))
        }
    }
}

/// The change that only puts chunks in order.
pub(super) fn reorder(deleted: &dyn Fn(&Labels) -> Vec<TimeRange>) -> Change<'_> {
    Change { deleted, name: "repair".to_owned(), applied: Vec::new(), source: "bucket.repair", always: true }
}
