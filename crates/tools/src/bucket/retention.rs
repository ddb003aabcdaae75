//! `retention`: what is out of retention goes.

use std::path::PathBuf;

use chronolith_bucket::{BucketBlock, DeletionMark, SelectRequest, UploadOptions};
use chronolith_compact::retention::{Expired, Keep, Policy, Verdict};
use chronolith_compact::rewrite;
use chronolith_model::TimeRange;
use chronolith_objstore::Bucket;
use chronolith_service::config::DurationMs;
use chronolith_tsdb::block::BlockMeta;
use futures::TryStreamExt;
use serde::Serialize;

use super::rewrite::{Publish, rewrite_in_bucket};
use super::{Ignored, Place, usage, work_dir};
use crate::listing::{Listing, labels_text, thanos};
use crate::output::{self, Table, duration, line, moment};
use crate::progress::Progress;
use crate::{Format, Result, ToolError};

/// Flags of `retention`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How long raw samples are kept; 0d is for ever.
    #[arg(long = "retention.resolution-raw", default_value = "0d", value_name = "DURATION")]
    raw: DurationMs,
    /// How long five-minute aggregates are kept.
    #[arg(long = "retention.resolution-5m", default_value = "0d", value_name = "DURATION")]
    five_minutes: DurationMs,
    /// How long one-hour aggregates are kept.
    #[arg(long = "retention.resolution-1h", default_value = "0d", value_name = "DURATION")]
    one_hour: DurationMs,
    /// retention.yml: defaults, tenants, series. The flags come before its defaults.
    #[arg(long = "retention.config-file", value_name = "FILE")]
    policy_file: Option<PathBuf>,
    /// Print blocks and bytes, and change nothing.
    #[arg(long = "dry-run")]
    dry_run: bool,
    /// table, csv, tsv or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// Directory for what is under way.
    #[arg(long = "tmp.dir", value_name = "DIR")]
    tmp_dir: Option<PathBuf>,
    /// What is out of retention is not fresh; the flag is taken for compatibility.
    #[arg(long = "consistency-delay", hide = true, value_name = "DURATION")]
    _consistency_delay: Option<DurationMs>,
    /// Nothing is deleted here, see cleanup; the flag is taken for compatibility.
    #[arg(long = "delete-delay", hide = true, value_name = "DURATION")]
    _delete_delay: Option<DurationMs>,
    #[command(flatten)]
    ignored: Ignored,
}

#[derive(Serialize)]
struct Row {
    block: String,
    action: &'static str,
    from: String,
    until: String,
    resolution: String,
    bytes: u64,
    labels: String,
    why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    result: String,
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let flags =
        Keep { raw_ms: args.raw.0, five_minutes_ms: args.five_minutes.0, one_hour_ms: args.one_hour.0 };
    let policy = match &args.policy_file {
        Some(path) => Policy::load(path, flags).map_err(|e| usage(&e))?,
        None => Policy::new(flags),
    };
    if policy.keeps_all() {
        return Err(ToolError::Usage(
            "everything is kept for ever: give --retention.resolution-* or --retention.config-file"
                .to_owned(),
        ));
    }
    let listing = Listing::read(place.bucket).await?;
    let work = work_dir(args.tmp_dir.as_deref())?;
    let judged: Vec<_> = listing
        .with_meta()
        .filter(|(b, _)| b.deletion.is_none())
        .map(|(b, m)| (b, m, policy.judge(m, place.now_ms)))
        .filter(|(_, _, verdict)| !matches!(verdict, Verdict::Keep))
        .collect();
    let mut progress = Progress::new("judging", judged.len());
    let mut rows = Vec::new();
    for (block, meta, verdict) in judged {
        let (action, why, result) = match verdict {
            Verdict::Keep => continue,
            Verdict::Mark { why } => {
                if !args.dry_run {
                    DeletionMark::write(place.bucket, block.id, place.now_ms, &why).await?;
                }
                ("mark", why, String::new())
            }
            Verdict::Rewrite(expired) => {
                if !has_expired(place.bucket, meta, &expired, work.path()).await? {
                    continue;
                }
                let why = expired.name.clone();
                let result = if args.dry_run {
                    String::new()
                } else {
                    take_out(place.bucket, meta, expired, args.tmp_dir.clone(), place.now_ms).await?
                };
                ("rewrite", why, result)
            }
        };
        rows.push(Row {
            block: block.id.to_string(),
            action,
            from: moment(meta.min_time),
            until: moment(meta.max_time),
            resolution: duration(thanos(meta).downsample.resolution),
            bytes: block.bytes(),
            labels: labels_text(meta),
            why,
            result,
        });
        progress.step(&block.id);
    }
    drop(progress);
    let mut table = Table::new(&["BLOCK", "ACTION", "FROM", "UNTIL", "RESOLUTION", "BYTES", "LABELS", "WHY"]);
    for r in &rows {
        table.row(vec![
            r.block.clone(),
            r.action.to_owned(),
            r.from.clone(),
            r.until.clone(),
            r.resolution.clone(),
            r.bytes.to_string(),
            r.labels.clone(),
            if r.result.is_empty() { r.why.clone() } else { format!("{}; {}", r.why, r.result) },
        ]);
    }
    output::write(place.out, args.output, &table, &rows)?;
    if args.output == Format::Table {
        let sum = |action| {
            let of = rows.iter().filter(|r| r.action == action);
            of.fold((0, 0), |(n, bytes), r| (n + 1, bytes + r.bytes))
        };
        let ((marked, marked_bytes), (rewritten, rewritten_bytes)) = (sum("mark"), sum("rewrite"));
        line(
            place.out,
            format_args!(
                "{marked} blocks, {marked_bytes} bytes {}; {rewritten} blocks of {rewritten_bytes} bytes {}",
                if args.dry_run { "to mark for deletion" } else { "marked for deletion" },
                if args.dry_run { "to rewrite" } else { "rewritten" },
            ),
        )?;
    }
    Ok(())
}

/// True when the block has a series that goes; reads little of it.
async fn has_expired(
    bucket: &Bucket,
    meta: &BlockMeta,
    expired: &Expired,
    work: &std::path::Path,
) -> Result<bool> {
    let block =
        std::sync::Arc::new(BucketBlock::new(bucket.clone(), std::sync::Arc::new(meta.clone()), work)?);
    for matchers in expired.candidates() {
        let request =
            SelectRequest { skip_chunks: true, ..SelectRequest::new(matchers.to_vec(), TimeRange::ALL) };
        let mut batches = block.clone().select(request);
        while let Some(batch) = batches.try_next().await? {
            if batch.iter().any(|series| expired.goes(&series.labels)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

async fn take_out(
    bucket: &Bucket,
    meta: &BlockMeta,
    expired: Expired,
    tmp_dir: Option<PathBuf>,
    now_ms: i64,
) -> Result<String> {
    let options = UploadOptions { hash: false, allow_no_labels: true };
    let publish = Publish { delete_origin: true, options, tmp_dir };
    rewrite_in_bucket(bucket, meta, now_ms, publish, move |dir, parent, id| {
        Ok(rewrite::take_out(&expired, dir, parent, id)?)
    })
    .await
}
