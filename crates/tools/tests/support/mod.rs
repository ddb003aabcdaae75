//! Tools run as the command line runs them, over a bucket in memory and directories.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::Path;

use chronolith_bucket::{UploadOptions, upload_block};
use chronolith_chunk::encode_floats;
use chronolith_model::{BlockId, Labels};
use chronolith_objstore::Bucket;
use chronolith_tools::bucket::Place;
use chronolith_tools::{BucketTool, ToolError, TsdbTool};
use chronolith_tsdb::block::{BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, ThanosMeta};
use clap::Parser;

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;

#[derive(Parser)]
struct BucketCli {
    #[command(subcommand)]
    tool: BucketTool,
}

#[derive(Parser)]
struct TsdbCli {
    #[command(subcommand)]
    tool: TsdbTool,
}

/// Runs a bucket tool; gives what it printed and how it ended.
pub(crate) async fn bucket_tool(
    bucket: &Bucket,
    now_ms: i64,
    args: &[&str],
) -> (String, Result<(), ToolError>) {
    let tool = BucketCli::try_parse_from(std::iter::once(&"tool").chain(args))
        .unwrap_or_else(|e| panic!("{e}"))
        .tool;
    let mut out = Vec::new();
    let ended = tool.run(Place { bucket, now_ms, out: &mut out }).await;
    (String::from_utf8(out).unwrap(), ended)
}

/// The same, which must end well.
pub(crate) async fn bucket_text(bucket: &Bucket, now_ms: i64, args: &[&str]) -> String {
    let (text, ended) = bucket_tool(bucket, now_ms, args).await;
    ended.unwrap_or_else(|e| panic!("{args:?}: {e}\n{text}"));
    text
}

pub(crate) fn tsdb_tool(args: &[&str]) -> Result<String, ToolError> {
    let tool =
        TsdbCli::try_parse_from(std::iter::once(&"tool").chain(args)).unwrap_or_else(|e| panic!("{e}")).tool;
    let mut out = Vec::new();
    tool.run(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

pub(crate) fn id(n: u64) -> BlockId {
    BlockId(ulid::Ulid::from_parts(n, u128::from(n)))
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// A block with a sample a minute of each series from `from` to before `to`.
pub(crate) fn write_block(dir: &Path, n: u64, series: &[Labels], from: i64, to: i64) -> BlockMeta {
    let mut writer = BlockWriter::create(dir, id(n), BlockWriterOptions::default()).unwrap();
    let ts: Vec<i64> = (from..to).step_by(60_000).collect();
    let values: Vec<f64> = (0..ts.len()).map(|i| i as f64).collect();
    let mut series = series.to_vec();
    series.sort();
    for labels in &series {
        writer.add_series(labels, &encode_floats(&ts, &values)).unwrap();
    }
    let parts = BlockParts { times: Some((from, to)), ..BlockParts::default() };
    writer.finish(parts).unwrap().unwrap()
}

/// The same in the bucket, with external labels.
pub(crate) async fn put_block(
    bucket: &Bucket,
    n: u64,
    external: &[(&str, &str)],
    series: &[Labels],
    from: i64,
    to: i64,
) -> BlockMeta {
    let tmp = tempfile::tempdir().unwrap();
    let mut meta = write_block(tmp.path(), n, series, from, to);
    meta.thanos = Some(ThanosMeta::new(&labels(external), "test"));
    let dir = tmp.path().join(meta.ulid.to_string());
    upload_block(bucket, &dir, &meta, UploadOptions::default(), to).await.unwrap()
}

/// All samples of the bucket's blocks that are not marked, by series: what the bytes say.
pub(crate) async fn samples(bucket: &Bucket) -> BTreeMap<String, usize> {
    let listing = chronolith_tools::Listing::read(bucket).await.unwrap();
    let tmp = tempfile::tempdir().unwrap();
    for (block, meta) in listing.with_meta().filter(|(b, _)| b.deletion.is_none()) {
        let dir = tmp.path().join(block.id.to_string());
        chronolith_bucket::download_block(bucket, meta, &dir, 2).await.unwrap();
    }
    let mut out = BTreeMap::new();
    for line in tsdb_tool(&["dump", tmp.path().to_str().unwrap()]).unwrap().lines() {
        let series = line.rsplitn(3, ' ').last().unwrap();
        *out.entry(series.to_owned()).or_default() += 1;
    }
    out
}
