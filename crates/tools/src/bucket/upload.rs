//! `upload-blocks`: the blocks of a Prometheus become blocks of the bucket.

use std::path::{Path, PathBuf};

use chronolith_bucket::{UploadOptions, upload_block};
use chronolith_compact::rewrite::{Change, Rewritten, rewrite_block};
use chronolith_model::{BlockId, Labels};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::{BlockMeta, ThanosMeta, Tombstones, list_blocks, verify};

use super::{Place, new_id, work_dir};
use crate::error::blocking;
use crate::output::{Log, LogFormat};
use crate::progress::Progress;
use crate::{Result, ToolError};

/// Flags of `upload-blocks`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Directory with the blocks, such as a Prometheus's data directory.
    #[arg(long = "path", default_value = "./data", value_name = "DIR")]
    path: PathBuf,
    /// External label of the uploaded blocks, like key="value" (repeated).
    #[arg(long = "label", required = true, value_name = "LABEL", value_parser = chronolith_service::config::parse_label_flag)]
    label: Vec<(String, String)>,
    /// Take blocks that a Prometheus compacted.
    #[arg(long = "shipper.upload-compacted")]
    upload_compacted: bool,
    /// Put SHA-256 sums of the files into meta.json.
    #[arg(long = "hash-func", default_value = "", value_parser = ["", "SHA256"], value_name = "NAME")]
    hash_func: String,
    /// Directory for what is under way.
    #[arg(long = "tmp.dir", value_name = "DIR")]
    tmp_dir: Option<PathBuf>,
    #[command(flatten)]
    output: LogFormat,
    /// Blocks are uploaded one after the other; the flag is taken for compatibility.
    #[arg(long = "shipper.upload-concurrency", hide = true, value_name = "N")]
    _concurrency: Option<usize>,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let external = Labels::from_pairs(args.label.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        .map_err(|e| ToolError::Usage(format!("--label: {e}")))?;
    if external.is_empty() {
        return Err(ToolError::Usage("--label must name at least one external label".to_owned()));
    }
    let blocks = list_blocks(&args.path)?;
    let mut progress = Progress::new("uploading", blocks.len());
    let (mut uploaded, mut failed) = (0, Vec::new());
    let Place { bucket, now_ms, out } = place;
    let mut log = Log::new(args.output, out);
    for (id, dir) in blocks {
        match one(args, bucket, now_ms, id, &dir, &external).await {
            Ok(text) => {
                uploaded += usize::from(text.starts_with("uploaded"));
                log.add(&id, text, 0)?;
            }
            Err(e @ ToolError::Bucket(_)) if is_of_store(&e) => return Err(e),
            Err(e) => {
                let why = chronolith_service::exit::error_chain(&e);
                log.add(&id, format!("not uploaded: {why}"), 0)?;
                failed.push(id.to_string());
            }
        }
        progress.step(&id);
    }
    drop(progress);
    log.say(format_args!("{uploaded} blocks uploaded"))?;
    log.finish()?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(ToolError::Found(format!("{} blocks were not uploaded: {}", failed.len(), failed.join(", "))))
}

/// What would fail for the next block as well.
fn is_of_store(e: &ToolError) -> bool {
    matches!(e, ToolError::Bucket(e) if e.kind() == chronolith_bucket::ErrorKind::Unavailable)
}

async fn one(
    args: &Args,
    bucket: &Bucket,
    now_ms: i64,
    id: BlockId,
    dir: &Path,
    external: &Labels,
) -> Result<String> {
    let mut meta = BlockMeta::read(dir)?;
    if meta.stats.num_samples == 0 {
        return Ok("skipped: it has no samples".to_owned());
    }
    if meta.compaction.level > 1 && !args.upload_compacted {
        let level = meta.compaction.level;
        return Ok(format!("skipped: compaction level {level}, take it with --shipper.upload-compacted"));
    }
    let mut thanos = ThanosMeta::new(external, "bucket.upload");
    if let Some(own) = meta.thanos.take() {
        thanos.downsample = own.downsample;
        thanos.index_stats = own.index_stats;
    }
    meta.thanos = Some(thanos);
    let (checked, work) = (dir.to_owned(), work_dir(args.tmp_dir.as_deref())?);
    let tmp = work.path().to_owned();
    // Buckets do not keep tombstones: what was deleted would be back.
    let prepared: Option<(PathBuf, BlockMeta)> = blocking(move || {
        verify(&checked)?;
        if Tombstones::read(&checked)?.is_empty() {
            return Ok(Some((checked, meta)));
        }
        let nothing = |_: &Labels| Vec::new();
        let change = Change {
            deleted: &nothing,
            name: "tombstones".to_owned(),
            applied: Vec::new(),
            source: "bucket.upload",
            always: false,
            relabel: None,
        };
        let copy = tmp.join(format!("from-{}", meta.ulid));
        link_block(&checked, &copy)?;
        meta.write(&copy)?;
        match rewrite_block(&copy, &tmp, new_id(now_ms), &change)? {
            Rewritten::Block(made) => Ok(Some((tmp.join(made.ulid.to_string()), *made))),
            Rewritten::Nothing | Rewritten::Unchanged => Ok(None),
        }
    })
    .await?;
    let Some((from, meta)) = prepared else { return Ok("skipped: all of it was deleted".to_owned()) };
    let options = UploadOptions { hash: args.hash_func == "SHA256", allow_no_labels: false };
    upload_block(bucket, &from, &meta, options, now_ms).await?;
    Ok(if meta.ulid == id {
        "uploaded".to_owned()
    } else {
        format!("uploaded without what its tombstones delete, as {}", meta.ulid)
    })
}

/// The same block at another place, without copying its data where the file system can.
fn link_block(from: &Path, to: &Path) -> Result<()> {
    let chunks = to.join("chunks");
    std::fs::create_dir_all(&chunks).map_err(ToolError::io("create", &chunks))?;
    let segments = std::fs::read_dir(from.join("chunks")).map_err(ToolError::io("list", from))?;
    let mut files = vec![PathBuf::from("index"), PathBuf::from("tombstones"), PathBuf::from("meta.json")];
    for segment in segments {
        let segment = segment.map_err(ToolError::io("list", from))?;
        files.push(Path::new("chunks").join(segment.file_name()));
    }
    for file in files {
        let (from, to) = (from.join(&file), to.join(&file));
        // What is written anew must not be a link to the original.
        let linked = !matches!(file.to_str(), Some("tombstones" | "meta.json"))
            && std::fs::hard_link(&from, &to).is_ok();
        if !linked {
            std::fs::copy(&from, &to).map_err(ToolError::io("copy", &from))?;
        }
    }
    Ok(())
}
