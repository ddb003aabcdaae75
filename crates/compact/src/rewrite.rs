//! One block again without some of its samples.
//!
//! ```text
//! series of the index ─ what is to go of each ─ tombstones ─ merge of the one block, or new labels ─ meta.json that says what was done
//! ```
//!
//! The result has the level of its origin and sources of its own, derived from the origin's and from the change
//! ([`chronolith_bucket::deletions::derived_source`]): it is not taken for a duplicate of its origin, and a second worker that
//! does the same makes a duplicate of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chronolith_bucket::deletions::derived_source;
use chronolith_bucket::{Deletions, Mask, deletions};
use chronolith_model::{BlockId, Labels, MatchOp, Relabeling, TimeRange};
use chronolith_tsdb::block::{Block, BlockMeta, TOMBSTONES_FILE, ThanosMeta, Tombstones};
use chronolith_tsdb::index::{SeriesRecord, SymbolCache};
use chronolith_tsdb::merge::{MergeError, MergeOptions, merge_blocks};
use serde_json::{Value, json};

use crate::relabel::{Relabeled, relabel_block};
use crate::retention::Expired;

/// What goes, and how the result says so.
pub struct Change<'a> {
    /// The ranges that go of a series, given without external labels.
    pub deleted: &'a dyn Fn(&Labels) -> Vec<TimeRange>,
    /// Names the change: equal for equal changes.
    pub name: String,
    /// Entries of `deletions_applied`, see [`applied`].
    pub applied: Vec<Value>,
    /// `thanos.source` of the result.
    pub source: &'a str,
    /// The result is made even where nothing goes: its chunks are put in order and duplicates taken out.
    pub always: bool,
    /// New labels of what stays, and Thanos's `relabels_applied` for them.
    pub relabel: Option<(&'a Relabeling, Value)>,
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewritten {
    /// No series had anything to lose; there is no new block.
    Unchanged,
    /// Nothing was left; there is no new block.
    Nothing,
    /// The new block, in the given directory.
    Block(Box<BlockMeta>),
}

/// The change that deletion requests ask for.
pub fn of_requests<'a>(
    mask: &'a Mask,
    deleted: &'a dyn Fn(&Labels) -> Vec<TimeRange>,
    all: &deletions::Deletions,
) -> Change<'a> {
    let ids = mask.requests();
    let requests = all.all.iter().filter(|d| ids.contains(&d.id));
    Change {
        deleted,
        name: ids.iter().map(BlockId::to_string).collect::<Vec<_>>().join(" "),
        applied: requests.flat_map(applied).collect(),
        source: "bucket.rewrite",
        always: false,
        relabel: None,
    }
}

/// Thanos's `deletions_applied` for a request: an entry a selector.
pub fn applied(deletion: &deletions::Deletion) -> Vec<Value> {
    let entry = |selector: &Vec<chronolith_model::Matcher>| {
        let kind = |op| match op {
            MatchOp::Equal => 0,
            MatchOp::NotEqual => 1,
            MatchOp::Regex => 2,
            MatchOp::NotRegex => 3,
        };
        let matchers: Vec<Value> =
            selector.iter().map(|m| json!({"Type": kind(m.op), "Name": m.name, "Value": m.value})).collect();
        json!({
            "matchers": matchers,
            "intervals": [{"Mint": deletion.request.mint, "Maxt": deletion.request.maxt}],
            "request_id": deletion.request.id,
        })
    };
    deletion.selectors.iter().map(entry).collect()
}

/// Marks in a local block's tombstones what `deleted` says of each series; merging the block then leaves it out. Gives the number
/// of series that lose something.
pub fn delete_from(dir: &Path, deleted: &dyn Fn(&Labels) -> Vec<TimeRange>) -> chronolith_tsdb::Result<u64> {
    let block = Block::open(dir)?;
    let index = block.index();
    let mut tombstones = Tombstones::clone(&block.tombstones());
    let (mut record, mut cache, mut touched) = (SeriesRecord::default(), SymbolCache::default(), 0);
    for series in index.all_postings()? {
        index.series(series, TimeRange::ALL, &mut record)?;
        let (Some(first), Some(last)) = (record.chunks.first(), record.chunks.last()) else { continue };
        let own = TimeRange::new(first.mint, record.chunks.iter().map(|c| c.maxt).fold(last.maxt, i64::max));
        let ranges = deleted(&index.labels(&record, &mut cache)?);
        let mut loses = false;
        for range in ranges.into_iter().filter(|r| r.overlaps(&own)) {
            let clipped = TimeRange::new(range.mint.max(own.mint), range.maxt.min(own.maxt));
            // A gap between chunks has nothing to lose.
            if record.chunks.iter().any(|c| c.range().overlaps(&clipped)) {
                tombstones.add(u64::from(series), clipped);
                loses = true;
            }
        }
        touched += u64::from(loses);
    }
    if touched > 0 {
        tombstones.write(dir)?;
    }
    Ok(touched)
}

/// The block without its series that are out of retention.
pub fn take_out(expired: &Expired, dir: &Path, parent: &Path, id: BlockId) -> Result<Rewritten, MergeError> {
    let change = Change {
        deleted: &|labels| expired.deleted(labels),
        name: expired.name.clone(),
        applied: Vec::new(),
        source: "bucket.rewrite",
        always: false,
        relabel: None,
    };
    rewrite_block(dir, parent, id, &change)
}

/// The sources that the block's data had before it was rewritten: by these, blocks of other resolutions know it.
pub fn origins(meta: &BlockMeta) -> BTreeSet<BlockId> {
    let rewrites = meta.thanos.as_ref().and_then(|t| t.unknown.get("rewrites")?.as_array());
    let sources = rewrites.into_iter().flatten().filter_map(|r| r.get("sources")?.as_array()).flatten();
    sources.filter_map(|s| s.as_str()?.parse().ok()).collect()
}

/// Takes out of the inputs of a merge what requests delete of them, by their tombstones, and notes that in the meta of the result.
pub fn delete_from_inputs(
    inputs: &[PathBuf],
    deletions: &Deletions,
    result: &mut ThanosMeta,
) -> Result<(), MergeError> {
    let (mut sources, mut origins_of_all) = (BTreeSet::new(), BTreeSet::new());
    let mut range: Option<TimeRange> = None;
    for dir in inputs {
        let meta = BlockMeta::read(dir)?;
        let own = meta.time_range();
        range = Some(range.map_or(own, |r| TimeRange::new(r.mint.min(own.mint), r.maxt.max(own.maxt))));
        sources.extend(meta.compaction.sources.iter().copied());
        origins_of_all.extend(origins(&meta));
        if let Some(mask) = deletions.mask_of(&meta) {
            let delete = delete_from(dir, &|labels| mask.deleted(labels));
            delete.map_err(|source| MergeError { block: Some(meta.ulid), source })?;
        }
    }
    // Each input lost what concerned it now or before, so the result has nothing of these requests.
    let (Some(range), Ok(external)) = (range, result.external_labels()) else { return Ok(()) };
    let resolution_ms = result.downsample.resolution;
    let mask = deletions.mask(&external, range, resolution_ms, &BTreeSet::new());
    let ids = mask.map(|m| m.requests()).unwrap_or_default();
    if ids.is_empty() && origins_of_all.is_empty() {
        return Ok(());
    }
    sources.extend(origins_of_all);
    let sources: Vec<String> = sources.iter().map(BlockId::to_string).collect();
    let entries: Vec<Value> =
        deletions.all.iter().filter(|d| ids.contains(&d.id)).flat_map(applied).collect();
    let entry = json!({"sources": sources, "deletions_applied": entries, "relabels_applied": null});
    result.unknown.insert("rewrites".to_owned(), json!([entry]));
    Ok(())
}

/// Rewrites the block in `dir` into a new one below `parent`. The tombstones that `dir` had are applied as well.
pub fn rewrite_block(
    dir: &Path,
    parent: &Path,
    id: BlockId,
    change: &Change<'_>,
) -> Result<Rewritten, MergeError> {
    let origin = BlockMeta::read(dir)?;
    let had_tombstones = !Tombstones::read(dir)?.is_empty();
    let touched =
        delete_from(dir, change.deleted).map_err(|source| MergeError { block: Some(origin.ulid), source })?;
    let made = match &change.relabel {
        Some((rules, _)) => {
            match relabel_block(dir, parent, id, rules, touched > 0 || had_tombstones || change.always)? {
                Relabeled::Unchanged => return Ok(Rewritten::Unchanged),
                Relabeled::Nothing => None,
                Relabeled::Block(meta) => Some(*meta),
            }
        }
        None if touched == 0 && !had_tombstones && !change.always => return Ok(Rewritten::Unchanged),
        None => {
            let options = MergeOptions { thanos: origin.thanos.clone(), ..MergeOptions::default() };
            merge_blocks(&[dir.to_owned()], parent, &mut || id, &options)?.into_iter().next()
        }
    };
    let Some(mut meta) = made else { return Ok(Rewritten::Nothing) };
    let compaction = &mut meta.compaction;
    compaction.level = origin.compaction.level;
    compaction.sources = origin.compaction.sources.clone();
    if compaction.sources.is_empty() {
        compaction.sources = vec![origin.ulid];
    }
    let before: Vec<String> = compaction.sources.iter().map(BlockId::to_string).collect();
    for source in &mut compaction.sources {
        *source = derived_source(*source, &change.name);
    }
    compaction.sources.sort_unstable();
    if let Some(thanos) = &mut meta.thanos {
        thanos.source = change.source.to_owned();
        // The uploader fills them in.
        thanos.files = Vec::new();
        thanos.segment_files = Vec::new();
        thanos.upload_time = None;
        {
            let rewrites = thanos.unknown.entry("rewrites").or_insert_with(|| json!([]));
            let relabels = change.relabel.as_ref().map(|(_, written)| written);
            let entry = json!({
                "sources": before,
                "deletions_applied": change.applied,
                "relabels_applied": relabels,
            });
            match rewrites.as_array_mut() {
                Some(rewrites) => rewrites.push(entry),
                None => *rewrites = json!([entry]),
            }
        }
    }
    let made = parent.join(id.to_string());
    meta.write(&made)?;
    debug_assert!(made.join(TOMBSTONES_FILE).exists());
    Ok(Rewritten::Block(Box::new(meta)))
}
