//! Merging blocks into one, or into several where one index could not hold the result.
//!
//! ```text
//! symbols of all inputs ─ merged, each input's numbers mapped to the merged ones
//! series of all inputs  ─ k-way, compared by numbers ─ chunks: copied as bytes, or decoded, deduplicated, encoded ─ block
//! ```
//!
//! Numbers of merged symbols are in the order of their strings, so labels are compared and written without ever looking at a
//! string. A series whose chunks do not overlap and have no deletions is copied byte by byte, each checksum checked on the way.
//! Memory: four bytes a symbol of each input, four bytes a series of the result, and fixed buffers; nothing is mapped.
//!
//! A crash leaves a directory that [`crate::block::remove_leftovers`] clears. An error names the input that is to blame, if one
//! is.

mod aggregates;
mod input;
mod overlap;
mod part;
mod split;
mod symbols;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronolith_chunk::{Chunk, ChunkError};
use chronolith_model::{BlockId, TimeRange};

use crate::block::{BlockMeta, BlockParts, Compaction, HINT_OUT_OF_ORDER, SEGMENT_BYTES_MAX, ThanosMeta};
use crate::index::IndexWriterOptions;
use crate::{Error, Result};

use input::{Input, SeriesMerge};
use part::PartWriter;

/// What becomes of samples of one series that overlap in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deduplication {
    /// All samples stay, each timestamp once: copies of one stream (`--deduplication.func=`). Of downsampled copies each window is
    /// that of the one which saw most of it.
    #[default]
    OneToOne,
    /// Inputs are replicas with scrapes of their own, of which one is followed until it has a gap
    /// (`--deduplication.func=penalty`). What turns out to be copies of one stream is put together.
    Penalty,
}

/// Sizes that an index must not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexLimits {
    /// Bytes of the index. A result that might exceed them is split.
    pub index_bytes_max: u64,
    /// Bytes of its symbol table.
    pub symbols_bytes_max: u64,
}

impl Default for IndexLimits {
    /// What the format can hold, less a sixth for what is only estimated.
    fn default() -> Self {
        IndexLimits { index_bytes_max: (64 << 30) / 6 * 5, symbols_bytes_max: u64::from(u32::MAX) / 6 * 5 }
    }
}

/// How blocks are merged.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// What becomes of overlaps.
    pub deduplication: Deduplication,
    /// When the result is split.
    pub limits: IndexLimits,
    /// Size at which a new chunk segment begins.
    pub segment_bytes_max: u64,
    /// Memory for one batch of postings.
    pub postings_bytes_max: usize,
    /// Sync every file and directory before a block gets its name. Off only in tests and benchmarks.
    pub sync: bool,
    /// Thanos's part of the result's meta.json.
    pub thanos: Option<ThanosMeta>,
    /// Merging ends with an error soon after this became true.
    pub stop: Arc<AtomicBool>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        MergeOptions {
            deduplication: Deduplication::default(),
            limits: IndexLimits::default(),
            segment_bytes_max: SEGMENT_BYTES_MAX,
            postings_bytes_max: IndexWriterOptions::default().postings_bytes_max,
            sync: true,
            thanos: None,
            stop: Arc::default(),
        }
    }
}

/// Why blocks could not be merged.
#[derive(Debug, thiserror::Error)]
#[error("merge{}", block.map(|b| format!(", block {b}")).unwrap_or_default())]
pub struct MergeError {
    /// The input that is to blame. `None`: none, or no single one.
    pub block: Option<BlockId>,
    /// What happened.
    pub source: Error,
}

impl MergeError {
    fn of(block: BlockId) -> impl FnOnce(Error) -> MergeError {
        move |source| MergeError { block: Some(block), source }
    }
}

impl From<Error> for MergeError {
    fn from(source: Error) -> Self {
        MergeError { block: None, source }
    }
}

/// Merges the blocks in the directories `inputs` into blocks in the directory `parent`, which get the ids that `new_id`
/// gives. There is none when every sample of the inputs was deleted. There are several when [`MergeOptions::limits`] ask for
/// it: these have different series, the same times, and each only itself as a source, since readers take a block whose sources
/// are all in another one for superfluous.
///
/// Where inputs disagree on a timestamp, the chunk that begins first decides, and among equals the earlier input. Samples outside
/// of the times that the inputs' metas name are left out, as Prometheus does.
pub fn merge_blocks(
    inputs: &[PathBuf],
    parent: &Path,
    new_id: &mut dyn FnMut() -> BlockId,
    options: &MergeOptions,
) -> Result<Vec<BlockMeta>, MergeError> {
    let mut opened = inputs.iter().map(|dir| Input::open(dir)).collect::<Result<Vec<_>, MergeError>>()?;
    let metas: Vec<BlockMeta> = opened.iter().map(|i| i.meta.clone()).collect();
    let (Some(min_time), Some(max_time)) =
        (metas.iter().map(|m| m.min_time).min(), metas.iter().map(|m| m.max_time).max())
    else {
        return Err(Error::Invalid("no blocks to merge".to_owned()).into());
    };
    // Chunks of earlier blocks come first; of equal ones, those of the earlier input.
    opened.sort_by_key(|i| i.meta.min_time);
    let union = symbols::unite(&mut opened)?;
    let mut merge = SeriesMerge::new(opened, union.empty);
    let parts = split::plan(&mut merge, &union, &options.limits)?;
    let split = parts.len() > 1;
    let range = TimeRange::new(min_time, max_time.saturating_sub(1));

    let mut out = Vec::new();
    for part in parts {
        let mut writer = PartWriter::create(parent, new_id(), &merge, &part, options, range)?;
        let mut left = part.series_max;
        while left > 0 && merge.advance()? {
            left -= 1;
            if options.stop.load(Ordering::Relaxed) {
                return Err(Error::Invalid("merging was told to stop".to_owned()).into());
            }
            writer.add(&mut merge)?;
        }
        let mut compaction = merged_compaction(&metas.iter().collect::<Vec<_>>());
        if split {
            compaction.sources = vec![writer.id()];
        }
        let times = Some((min_time, max_time));
        out.extend(writer.finish(BlockParts { times, compaction, thanos: options.thanos.clone() })?);
    }
    Ok(out)
}

/// Chunks of one series of this resolution, from whatever sources, in time order and without overlaps: each timestamp once, that of
/// the chunk that begins first.
pub fn merge_chunks(chunks: Vec<Chunk>, resolution_ms: i64) -> Result<Vec<Chunk>, ChunkError> {
    let pieces = chunks.into_iter().map(|chunk| overlap::Piece { input: 0, chunk }).collect();
    overlap::deduplicate(pieces, Deduplication::OneToOne, resolution_ms).map_err(|(_, e)| e)
}

/// The history of a block merged from these.
pub fn merged_compaction(inputs: &[&BlockMeta]) -> Compaction {
    let sources: BTreeSet<BlockId> =
        inputs.iter().flat_map(|m| m.compaction.sources.iter().copied()).collect();
    let mut hints: BTreeSet<&str> =
        inputs.iter().flat_map(|m| m.compaction.hints.iter().map(String::as_str)).collect();
    // "All of it came out of order" is true of the whole only if it is true of every part; the other hints say
    // "some of it".
    if !inputs.iter().all(|m| m.compaction.hints.iter().any(|h| h == HINT_OUT_OF_ORDER)) {
        hints.remove(HINT_OUT_OF_ORDER);
    }
    let mut parents: Vec<_> = inputs.iter().map(|m| m.as_parent()).collect();
    parents.sort_by_key(|p| (p.min_time, p.ulid));
    Compaction {
        level: inputs.iter().map(|m| m.compaction.level).max().unwrap_or(0).saturating_add(1),
        sources: sources.into_iter().collect(),
        parents,
        hints: hints.into_iter().map(str::to_owned).collect(),
        ..Compaction::default()
    }
}

/// What a look through an index found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexHealth {
    /// Series.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// Chunks that begin before the one in front of them ended, equal ones not counted.
    pub out_of_order_chunks: u64,
}

/// Reads the series of a block's index, chunks not.
pub fn index_health(dir: &Path) -> Result<IndexHealth> {
    let mut stream = crate::index::IndexStream::open(&dir.join(crate::block::INDEX_FILE))?;
    let mut record = crate::index::SeriesRecord::default();
    let mut health = IndexHealth::default();
    while stream.next_series(&mut record)?.is_some() {
        health.series += 1;
        health.chunks += record.chunks.len() as u64;
        let disorder =
            record.chunks.windows(2).filter(|w| w[1].mint <= w[0].maxt && w[0].range() != w[1].range());
        health.out_of_order_chunks += disorder.count() as u64;
    }
    Ok(health)
}

#[cfg(test)]
mod tests;
