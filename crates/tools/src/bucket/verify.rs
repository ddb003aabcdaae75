//! `verify`: what is wrong with a bucket's blocks, and what of it can be mended safely.
//!
//! ```text
//! listing ─ files, metas ─ groups ─ overlaps, duplicates ─ each block downloaded ─ order of chunks, every byte, statistics
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chronolith_bucket::{DeletionMark, ErrorKind, UploadOptions, download_block, is_uploaded, layout};
use chronolith_compact::group::GroupKey;
use chronolith_compact::rewrite::rewrite_block;
use chronolith_model::{BlockId, Labels, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::{Block, BlockMeta};
use chronolith_tsdb::index::{SeriesRecord, SymbolCache};
use serde::Serialize;

use super::replicate::{copy, open_other};
use super::rewrite::{Publish, reorder, rewrite_in_bucket};
use super::{Place, block_id, work_dir};
use crate::error::blocking;
use crate::listing::{Listed, Listing};
use crate::output::{self, Table};
use crate::progress::Progress;
use crate::{Format, Result, ToolError};

/// Kinds of issues; the first three are Thanos's.
const INDEX_KNOWN_ISSUES: &str = "index_known_issues";
const OVERLAPPED_BLOCKS: &str = "overlapped_blocks";
const DUPLICATED_COMPACTION: &str = "duplicated_compaction";
const MISSING_FILES: &str = "missing_files";
const META_DISAGREEMENT: &str = "meta_disagreement";
const CORRUPT: &str = "corrupt";
const KINDS: [&str; 6] =
    [INDEX_KNOWN_ISSUES, OVERLAPPED_BLOCKS, DUPLICATED_COMPACTION, MISSING_FILES, META_DISAGREEMENT, CORRUPT];
/// Kinds for which a block must be downloaded.
const DEEP: [&str; 3] = [INDEX_KNOWN_ISSUES, META_DISAGREEMENT, CORRUPT];

/// Flags of `verify`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Mend what can be mended safely: duplicates are marked for deletion, blocks whose chunks are out of order or there twice
    /// are rewritten.
    #[arg(short = 'r', long = "repair")]
    repair: bool,
    /// Kinds of issues to look for (repeated); all without it.
    #[arg(short = 'i', long = "issues", value_parser = KINDS, value_name = "KIND")]
    issues: Vec<String>,
    /// Only these blocks (repeated).
    #[arg(long = "id", value_parser = block_id, value_name = "ULID")]
    id: Vec<BlockId>,
    /// table, csv, tsv or json.
    #[arg(short = 'o', long = "output", default_value = "table", value_name = "FORMAT")]
    output: Format,
    /// With --repair: file with the configuration of a bucket into which blocks are copied before they are marked.
    #[arg(long = "objstore-backup.config-file", value_name = "FILE")]
    backup_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(long = "objstore-backup.config", value_name = "YAML", conflicts_with = "backup_file")]
    backup: Option<String>,
    /// Blocks are marked and never deleted here, see cleanup; the flag is taken for compatibility.
    #[arg(long = "delete-delay", hide = true, value_name = "DURATION")]
    _delete_delay: Option<chronolith_service::config::DurationMs>,
    /// Directory for what is under way.
    #[arg(long = "tmp.dir", value_name = "DIR")]
    tmp_dir: Option<PathBuf>,
}

/// Something wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// The block.
    pub block: String,
    /// The kind.
    pub issue: &'static str,
    /// What exactly.
    pub details: String,
    /// What was done about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repair: String,
}

impl Issue {
    fn new(block: BlockId, issue: &'static str, details: impl Into<String>) -> Self {
        Issue { block: block.to_string(), issue, details: details.into(), repair: String::new() }
    }
}

pub(super) async fn run(args: &Args, place: Place<'_>) -> Result<()> {
    let wanted = |kind: &str| args.issues.is_empty() || args.issues.iter().any(|i| i == kind);
    let backup = open_other("objstore-backup", args.backup.as_deref(), args.backup_file.as_deref())?;
    let listing = Listing::read(place.bucket).await?;
    if let Some(missing) = args.id.iter().find(|id| !listing.blocks.contains_key(id)) {
        return Err(ToolError::Usage(format!("there is no block {missing}")));
    }
    let chosen = |id: &BlockId| args.id.is_empty() || args.id.contains(id);
    let mut issues: Vec<Issue> = Vec::new();
    for block in listing.blocks.values() {
        issues.extend(files(block));
    }
    issues.extend(overlaps(&listing));
    let duplicates = duplicates(&listing);
    issues.extend(duplicates.iter().map(|(block, cover)| {
        Issue::new(*block, DUPLICATED_COMPACTION, format!("all of its sources are in {cover}"))
    }));
    issues.retain(|i| wanted(i.issue) && i.block.parse().is_ok_and(|id| chosen(&id)));

    if DEEP.iter().any(|kind| wanted(kind)) {
        let whole: Vec<_> = listing.with_meta().filter(|(b, _)| chosen(&b.id)).collect();
        let mut progress = Progress::new("verifying", whole.len());
        for (block, meta) in whole {
            let found = deep(args, &place, meta).await?;
            issues.extend(found.into_iter().filter(|i| wanted(i.issue)));
            progress.step(&block.id);
        }
    }
    if args.repair {
        let mut progress = Progress::new("repairing", issues.len());
        for issue in &mut issues {
            issue.repair = repair(args, &place, backup.as_ref(), &listing, &duplicates, issue).await?;
            progress.step(&issue.block);
        }
    }
    issues.sort_by(|a, b| (&a.block, a.issue).cmp(&(&b.block, b.issue)));
    let mut table = Table::new(&["BLOCK", "ISSUE", "DETAILS", "REPAIR"]);
    for i in &issues {
        table.row(vec![i.block.clone(), i.issue.to_owned(), i.details.clone(), i.repair.clone()]);
    }
    output::write(place.out, args.output, &table, &issues)?;
    let open = issues.iter().filter(|i| i.repair.is_empty()).count();
    if open == 0 {
        Ok(())
    } else {
        Err(ToolError::Found(format!("{open} issues in {} blocks", blocks(&issues))))
    }
}

fn blocks(issues: &[Issue]) -> usize {
    issues.iter().map(|i| &i.block).collect::<BTreeSet<_>>().len()
}

/// What the listing alone tells.
fn files(block: &Listed) -> Vec<Issue> {
    let missing = |what: String| Issue::new(block.id, MISSING_FILES, what);
    let meta = match &block.meta {
        Ok(Some(meta)) => meta,
        Ok(None) => {
            return vec![missing("no meta.json: an upload or a deletion that has not ended".to_owned())];
        }
        Err(why) => return vec![Issue::new(block.id, META_DISAGREEMENT, why.clone())],
    };
    let mut out = Vec::new();
    if !block.objects.contains_key(layout::INDEX) {
        out.push(missing("no index".to_owned()));
    }
    for file in meta.thanos.iter().flat_map(|t| &t.files).filter(|f| f.rel_path != layout::META) {
        match block.objects.get(&file.rel_path) {
            Some(size) if *size == file.size_bytes => {}
            Some(size) => {
                let what = format!("{} has {size} bytes, meta.json says {}", file.rel_path, file.size_bytes);
                out.push(Issue::new(block.id, META_DISAGREEMENT, what));
            }
            None if file.rel_path == layout::INDEX => {}
            None => out.push(missing(format!("no {}", file.rel_path))),
        }
    }
    let segments: Vec<u64> =
        block.objects.keys().filter_map(|k| k.strip_prefix("chunks/")?.parse().ok()).collect();
    let listed = meta.thanos.as_ref().is_some_and(|t| !t.files.is_empty());
    if !listed && meta.stats.num_chunks > 0 {
        let last = segments.last().copied().unwrap_or(1);
        let gaps = (1..=last).filter(|n| !segments.contains(n));
        out.extend(gaps.map(|n| missing(format!("no chunks/{n:06}"))));
    }
    out
}

/// Groups of blocks that will not be deleted.
fn groups(listing: &Listing) -> BTreeMap<GroupKey, Vec<&BlockMeta>> {
    let mut groups: BTreeMap<GroupKey, Vec<&BlockMeta>> = BTreeMap::new();
    for (_, meta) in listing.with_meta().filter(|(b, _)| b.deletion.is_none()) {
        groups.entry(GroupKey::of(meta)).or_default().push(meta);
    }
    for group in groups.values_mut() {
        group.sort_by_key(|m| (m.min_time, m.ulid));
    }
    groups
}

fn overlaps(listing: &Listing) -> Vec<Issue> {
    let mut out = Vec::new();
    for (key, group) in groups(listing) {
        let mut longest: Option<&BlockMeta> = None;
        for meta in group {
            if let Some(earlier) = longest.filter(|e| e.max_time > meta.min_time) {
                let what = format!(
                    "overlaps {} of {key}, which ends at {}",
                    earlier.ulid,
                    output::moment(earlier.max_time)
                );
                out.push(Issue::new(meta.ulid, OVERLAPPED_BLOCKS, what));
            }
            if longest.is_none_or(|e| e.max_time < meta.max_time) {
                longest = Some(meta);
            }
        }
    }
    out
}

/// Blocks whose sources are all in another one, and in which.
fn duplicates(listing: &Listing) -> BTreeMap<BlockId, BlockId> {
    let mut out = BTreeMap::new();
    for mut group in groups(listing).into_values() {
        group.sort_by_key(|m| (std::cmp::Reverse(m.compaction.sources.len()), m.ulid));
        let mut kept: Vec<(BlockId, BTreeSet<BlockId>)> = Vec::new();
        for meta in group {
            let mut own: BTreeSet<BlockId> = meta.compaction.sources.iter().copied().collect();
            if own.is_empty() {
                own.insert(meta.ulid);
            }
            match kept.iter().find(|(_, sources)| own.is_subset(sources)) {
                Some((cover, _)) => drop(out.insert(meta.ulid, *cover)),
                None => kept.push((meta.ulid, own)),
            }
        }
    }
    out
}

/// Downloads a block and reads all of it.
async fn deep(args: &Args, place: &Place<'_>, meta: &BlockMeta) -> Result<Vec<Issue>> {
    let work = work_dir(args.tmp_dir.as_deref())?;
    let dir = work.path().join("block");
    const FILES_CONCURRENT: usize = 4;
    match download_block(place.bucket, meta, &dir, FILES_CONCURRENT).await {
        Ok(_) => {}
        // The listing has told it already.
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    }
    blocking(move || Ok(look_through(&dir))).await
}

/// Every issue of a local block: the first damage of each kind, and how often it was seen.
fn look_through(dir: &Path) -> Vec<Issue> {
    let meta = match BlockMeta::read(dir) {
        Ok(meta) => meta,
        Err(_) => return Vec::new(),
    };
    let id = meta.ulid;
    let damage = |e: chronolith_tsdb::Error| {
        let text = chronolith_service::exit::error_chain(&e);
        Issue::new(id, CORRUPT, text.replace(&format!("{}/", dir.display()), ""))
    };
    let block = match Block::open(dir) {
        Ok(block) => block,
        Err(e) => return vec![damage(e)],
    };
    let mut found = Found::default();
    let mut out = Vec::new();
    match found.read_index(&block) {
        Ok(()) => found.complete = true,
        Err(e) => out.push(damage(e)),
    }
    out.extend(found.issues(&meta));
    if out.iter().all(|i| i.issue != CORRUPT) {
        for series in block.select(&[], TimeRange::ALL).into_iter().flatten() {
            match series {
                Ok((labels, chunks)) => {
                    let broken = chunks.iter().find_map(|c| decodes(c).err().map(|e| (c.mint, e)));
                    if let Some((mint, e)) = broken {
                        out.push(Issue::new(id, CORRUPT, format!("series {labels}: chunk at {mint}: {e}")));
                        break;
                    }
                }
                Err(e) => {
                    out.push(damage(e));
                    break;
                }
            }
        }
    }
    // The rest: postings, order of series and symbols, times of samples.
    if out.is_empty()
        && let Err(e) = chronolith_tsdb::block::verify(dir)
    {
        out.push(damage(e));
    }
    out
}

fn decodes(chunk: &chronolith_chunk::Chunk) -> Result<(), chronolith_chunk::ChunkError> {
    if chunk.encoding == chronolith_chunk::Encoding::Aggregate {
        return chronolith_chunk::AggrChunk::parse(&chunk.data).map(|_| ());
    }
    chunk.iter()?.try_for_each(|sample| sample.map(|_| ()))
}

/// What an index says of its block.
#[derive(Default)]
struct Found {
    /// All of the index could be read.
    complete: bool,
    series: u64,
    chunks: u64,
    out_of_order: u64,
    twice: u64,
    outside: u64,
    no_symbol: u64,
    first: BTreeMap<&'static str, String>,
}

impl Found {
    fn read_index(&mut self, block: &Block) -> chronolith_tsdb::Result<()> {
        let (index, range) = (block.index(), block.time_range());
        let (mut record, mut cache) = (SeriesRecord::default(), SymbolCache::default());
        for series in index.all_postings()? {
            index.series(series, TimeRange::ALL, &mut record)?;
            self.series += 1;
            self.chunks += record.chunks.len() as u64;
            let labels = match index.labels(&record, &mut cache) {
                Ok(labels) => labels.to_string(),
                Err(_) => {
                    self.no_symbol += 1;
                    self.first.entry("no_symbol").or_insert_with(|| format!("series {series}"));
                    continue;
                }
            };
            for pair in record.chunks.windows(2).filter(|w| w[1].mint <= w[0].maxt) {
                let (count, kind) = if pair[0].range() == pair[1].range() {
                    (&mut self.twice, "twice")
                } else {
                    (&mut self.out_of_order, "out_of_order")
                };
                *count += 1;
                self.first.entry(kind).or_insert_with(|| format!("{labels} at {}", pair[1].mint));
            }
            for chunk in record.chunks.iter().filter(|c| c.mint < range.mint || c.maxt > range.maxt) {
                self.outside += 1;
                self.first.entry("outside").or_insert_with(|| format!("{labels} at {}", chunk.mint));
            }
        }
        Ok(())
    }

    fn issues(&self, meta: &BlockMeta) -> Vec<Issue> {
        let first = |kind| self.first.get(kind).map_or("", String::as_str);
        let mut out = Vec::new();
        let mut add = |issue, what: String| out.push(Issue::new(meta.ulid, issue, what));
        if self.out_of_order > 0 {
            add(
                INDEX_KNOWN_ISSUES,
                format!("{} chunks out of order, the first of {}", self.out_of_order, first("out_of_order")),
            );
        }
        if self.twice > 0 {
            add(
                INDEX_KNOWN_ISSUES,
                format!("{} chunks are there twice, the first of {}", self.twice, first("twice")),
            );
        }
        if self.no_symbol > 0 {
            add(
                CORRUPT,
                format!(
                    "index: {} series with labels that are no symbols, the first {}",
                    self.no_symbol,
                    first("no_symbol")
                ),
            );
        }
        if self.outside > 0 {
            add(
                META_DISAGREEMENT,
                format!(
                    "{} chunks outside of the block's times, the first of {}",
                    self.outside,
                    first("outside")
                ),
            );
        }
        if self.complete && (meta.stats.num_series, meta.stats.num_chunks) != (self.series, self.chunks) {
            add(
                META_DISAGREEMENT,
                format!(
                    "{} series and {} chunks, meta.json says {} and {}",
                    self.series, self.chunks, meta.stats.num_series, meta.stats.num_chunks
                ),
            );
        }
        out
    }
}

/// Mends an issue where that is safe; says what was done.
async fn repair(
    args: &Args,
    place: &Place<'_>,
    backup: Option<&Bucket>,
    listing: &Listing,
    duplicates: &BTreeMap<BlockId, BlockId>,
    issue: &Issue,
) -> Result<String> {
    let Ok(id) = issue.block.parse::<BlockId>() else { return Ok(String::new()) };
    if let (Some(backup), Some(block), DUPLICATED_COMPACTION | INDEX_KNOWN_ISSUES) =
        (backup, listing.blocks.get(&id), issue.issue)
    {
        copy(args.tmp_dir.as_deref(), place.bucket, backup, block).await?;
    }
    match issue.issue {
        DUPLICATED_COMPACTION => {
            let Some(cover) = duplicates.get(&id) else { return Ok(String::new()) };
            if !is_uploaded(place.bucket, *cover).await? {
                return Ok(String::new());
            }
            let details = format!("all of its sources are in {cover}");
            DeletionMark::write(place.bucket, id, place.now_ms, &details).await?;
            Ok("marked for deletion".to_owned())
        }
        INDEX_KNOWN_ISSUES => {
            let Some(meta) = listing.blocks.get(&id).and_then(Listed::meta) else { return Ok(String::new()) };
            if DeletionMark::read(place.bucket, id).await?.is_some() {
                return Ok("marked for deletion before".to_owned());
            }
            let options = UploadOptions { hash: false, allow_no_labels: true };
            let publish = Publish { delete_origin: true, options, tmp_dir: args.tmp_dir.clone() };
            rewrite_in_bucket(place.bucket, meta, place.now_ms, publish, |dir, parent, new| {
                let nothing = |_: &Labels| Vec::new();
                Ok(rewrite_block(dir, parent, new, &reorder(&nothing))?)
            })
            .await
        }
        // Compaction merges overlaps; of the rest nobody knows what was lost.
        _ => Ok(String::new()),
    }
}
