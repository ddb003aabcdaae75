//! `rewrite`: blocks again, without what was deleted, or with other labels.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_bucket::deletions::{DeletionRequest, Deletions, Looked};
use chronolith_bucket::{
    BucketBlock, DeletionMark, Mask, SelectRequest, UploadOptions, carry_marks, download_block, is_uploaded,
    upload_block,
};
use chronolith_compact::relabel::relabel;
use chronolith_compact::rewrite::{Change, Rewritten, of_requests, rewrite_block};
use chronolith_model::{BlockId, Labels, Matcher, Relabeling, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use futures::TryStreamExt;
use serde::Deserialize;

use super::{Place, block_id, document, new_id, selector, usage, work_dir};
use crate::error::blocking;
use crate::listing::{Listed, Listing};
use crate::output::{Log, LogFormat};
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
    /// File of relabel rules for the series' own labels, as in Prometheus's configuration: series may be dropped, and those
    /// that become equal are put together. Needs --id; without a deletion beside it nothing else goes.
    #[arg(long = "rewrite.to-relabel-config-file", value_name = "FILE")]
    to_relabel_file: Option<PathBuf>,
    /// The same on the command line.
    #[arg(long = "rewrite.to-relabel-config", value_name = "YAML", conflicts_with = "to_relabel_file")]
    to_relabel: Option<String>,
    /// Print a line for each series that is deleted or relabeled.
    #[arg(long = "rewrite.add-change-log")]
    change_log: bool,
    /// Say what would change, and change nothing: the default. Reads the blocks' indexes only.
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
    #[command(flatten)]
    output: LogFormat,
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
    let Place { bucket, now_ms, out } = place;
    let rules = rules(args)?;
    let given = given(args, now_ms)?;
    // What was looked through is noted beside the requests of the bucket.
    let of_bucket = given.is_none() && rules.is_none();
    let deletions = match given {
        Some(deletions) => deletions,
        None if rules.is_some() => Deletions::default(),
        None => Deletions::read(bucket).await?,
    };
    if rules.is_some() && args.id.is_empty() {
        return Err(ToolError::Usage("relabeling needs --id: give the blocks to relabel".to_owned()));
    }
    let mut log = Log::new(args.output, out);
    if deletions.is_empty() && rules.is_none() {
        log.say(format_args!("nothing is to be deleted"))?;
        return log.finish();
    }
    let listing = Listing::read(bucket).await?;
    if let Some(missing) = args.id.iter().find(|id| listing.blocks.get(id).is_none_or(|b| b.meta().is_none()))
    {
        return Err(ToolError::Usage(format!("there is no block {missing}")));
    }
    let chosen: Vec<(&Listed, &BlockMeta)> = listing
        .with_meta()
        .filter(|(b, m)| {
            let wanted = if args.id.is_empty() { b.deletion.is_none() } else { args.id.contains(&b.id) };
            wanted && (rules.is_some() || deletions.mask_of(m).is_some())
        })
        .collect();
    let mut progress = Progress::new("rewriting", chosen.len());
    for (block, meta) in chosen {
        let mask = deletions.mask_of(meta).unwrap_or_default();
        let work = work_dir(args.tmp_dir.as_deref())?;
        let relabeling = rules.as_ref().map(|r| &r.relabeling);
        let mut changed = |text: &str| if args.change_log { log.add(&block.id, text, 0) } else { Ok(()) };
        let preview = preview(bucket, meta, &mask, relabeling, work.path(), &mut changed).await?;
        if preview.is_nothing() {
            if of_bucket && args.no_dry_run {
                note(bucket, block.id, &mask).await?;
            }
            log.add(&block.id, "no series of it is concerned", 0)?;
        } else if !args.no_dry_run {
            log.add(&block.id, format!("{preview} of a block to rewrite"), block.bytes())?;
        } else {
            let (all, rules) = (deletions.clone(), rules.clone());
            let rewrite = move |dir: &Path, parent: &Path, id| {
                let deleted = |labels: &Labels| mask.deleted(labels);
                let mut change = of_requests(&mask, &deleted, &all);
                if let Some(rules) = &rules {
                    change.name = format!("{} relabel {}", change.name, rules.written).trim().to_owned();
                    change.relabel = Some((&rules.relabeling, rules.written.clone()));
                }
                Ok(rewrite_block(dir, parent, id, &change)?)
            };
            let rewritten = rewrite_in_bucket(bucket, meta, now_ms, args.into(), rewrite).await?;
            log.add(&block.id, format!("{preview}; {rewritten}"), 0)?;
        }
        progress.step(&block.id);
    }
    drop(progress);
    log.finish()
}

/// Notes that requests find nothing in a block, see [`Looked`].
async fn note(bucket: &Bucket, block: BlockId, mask: &Mask) -> Result<()> {
    for request in mask.requests() {
        let mut looked = Looked::read(bucket, request).await?;
        looked.blocks.insert(block);
        looked.write(bucket, request).await?;
    }
    Ok(())
}

/// What a rewrite would do to series.
#[derive(Clone, Copy, Debug, Default)]
struct Preview {
    deleted: u64,
    relabeled: u64,
    dropped: u64,
}

impl Preview {
    fn is_nothing(&self) -> bool {
        self.deleted + self.relabeled + self.dropped == 0
    }
}

impl std::fmt::Display for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Preview { deleted, relabeled, dropped } = self;
        let kinds = [(deleted, "lose samples"), (relabeled, "get other labels"), (dropped, "are dropped")];
        let texts: Vec<String> =
            kinds.iter().filter(|(n, _)| **n > 0).map(|(n, what)| format!("{n} series {what}")).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Looks into a block's index for what would change, and tells `changed` of each series.
async fn preview(
    bucket: &Bucket,
    meta: &BlockMeta,
    mask: &Mask,
    rules: Option<&Relabeling>,
    dir: &Path,
    changed: &mut (dyn FnMut(&str) -> Result<()> + Send),
) -> Result<Preview> {
    let block = Arc::new(BucketBlock::new(bucket.clone(), Arc::new(meta.clone()), dir)?);
    let mut preview = Preview::default();
    for (selector, range) in mask.rules() {
        let mut series = block.select(labels_of(selector.to_vec(), range));
        while let Some(batch) = series.try_next().await? {
            for series in batch {
                preview.deleted += 1;
                changed(&format!("deleted {} {} to {}", series.labels, range.mint, range.maxt))?;
            }
        }
    }
    let Some(rules) = rules else { return Ok(preview) };
    let mut series = block.select(labels_of(Vec::new(), TimeRange::ALL));
    while let Some(batch) = series.try_next().await? {
        for series in batch {
            match relabel(rules, &series.labels).map_err(ToolError::Usage)? {
                Some(new) if new == series.labels => {}
                Some(new) => {
                    preview.relabeled += 1;
                    changed(&format!("relabeled {} {new}", series.labels))?;
                }
                None => {
                    preview.dropped += 1;
                    changed(&format!("dropped {}", series.labels))?;
                }
            }
        }
    }
    Ok(preview)
}

fn labels_of(matchers: Vec<Matcher>, range: TimeRange) -> SelectRequest {
    SelectRequest { skip_chunks: true, ..SelectRequest::new(matchers, range) }
}

/// Relabel rules, and how meta.json tells of them.
#[derive(Clone)]
struct Rules {
    relabeling: Relabeling,
    written: serde_json::Value,
}

fn rules(args: &Args) -> Result<Option<Rules>> {
    let found =
        document("rewrite.to-relabel-config", args.to_relabel.as_deref(), args.to_relabel_file.as_deref())?;
    let Some((origin, text)) = found else { return Ok(None) };
    let relabeling = chronolith_service::relabel::parse_relabeling(&origin, &text).map_err(|e| usage(&e))?;
    if relabeling.is_empty() {
        return Err(ToolError::Usage(format!("{origin}: there is no rule")));
    }
    let list: Vec<serde_json::Map<String, serde_json::Value>> =
        chronolith_service::config::load_yaml(&origin, &text).map_err(|e| usage(&e))?;
    let written = list.into_iter().map(|rule| rule.into_iter().map(as_thanos_writes).collect()).collect();
    Ok(Some(Rules { relabeling, written: serde_json::Value::Array(written) }))
}

/// A setting of a rule as it stands in JSON: the keys are Go's, all values but `modulus` texts.
fn as_thanos_writes((key, value): (String, serde_json::Value)) -> (String, serde_json::Value) {
    use serde_json::Value;
    let text = |value: Value| match value {
        Value::Number(n) => Value::String(n.to_string()),
        Value::Bool(b) => Value::String(b.to_string()),
        other => other,
    };
    let key = match key.as_str() {
        "source_labels" => "sourceLabels".to_owned(),
        "target_label" => "targetLabel".to_owned(),
        _ => key,
    };
    let value = match value {
        Value::Array(items) => Value::Array(items.into_iter().map(text).collect()),
        value if key == "modulus" => value,
        value => text(value),
    };
    (key, value)
}

/// The deletions of the flags.
fn given(args: &Args, now_ms: i64) -> Result<Option<Deletions>> {
    let found =
        document("rewrite.to-delete-config", args.to_delete.as_deref(), args.to_delete_file.as_deref())?;
    let Some((origin, text)) = found else { return Ok(None) };
    let list: Vec<ToDelete> =
        chronolith_service::config::load_yaml(&origin.to_string(), &text).map_err(|e| usage(&e))?;
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
    change: impl FnOnce(&Path, &Path, BlockId) -> Result<Rewritten> + Send + 'static,
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
    Change {
        deleted,
        name: "repair".to_owned(),
        applied: Vec::new(),
        source: "bucket.repair",
        always: true,
        relabel: None,
    }
}
