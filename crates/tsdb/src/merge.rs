//! Merging blocks into one.
//!
//! All inputs are read in label order and merged series by series, so memory holds one series of each. Chunks that
//! overlap no other are copied as they are; overlapping ones (replicas, out of order, backfill) are decoded, merged
//! with each timestamp once, and encoded anew. Tombstones of the inputs are applied.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::path::Path;
use std::sync::Arc;

use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, Labels, TimeRange};

use crate::block::{
    Block, BlockMeta, BlockParts, BlockWriter, BlockWriterOptions, Compaction, HINT_OUT_OF_ORDER, Select,
    ThanosMeta, merge_overlapping,
};
use crate::{Error, Result};

/// How blocks are merged.
#[derive(Clone, Debug, Default)]
pub struct MergeOptions {
    /// How the result is written.
    pub writer: BlockWriterOptions,
    /// Thanos's part of the result's meta.json.
    pub thanos: Option<ThanosMeta>,
}

/// Merges blocks into the block `id` in the directory `parent`. `None` when every sample of the inputs was
/// deleted: then there is no block. Where inputs disagree on a timestamp, the chunk that begins first decides, and
/// among equals the earlier input.
pub fn merge_blocks(
    blocks: &[Arc<Block>],
    parent: &Path,
    id: BlockId,
    options: MergeOptions,
) -> Result<Option<BlockMeta>> {
    if blocks.is_empty() {
        return Err(Error::Invalid("no blocks to merge".to_owned()));
    }
    let metas: Vec<&BlockMeta> = blocks.iter().map(|b| b.meta()).collect();
    let mut writer = BlockWriter::create(parent, id, options.writer)?;
    let mut series = MergedSeries::new(blocks)?;
    while let Some((labels, chunks)) = series.next()? {
        let chunks = merge_overlapping(chunks)
            .map_err(|e| Error::Invalid(format!("series {labels} of block {id}: {e}")))?;
        writer.add_series(&labels, &chunks)?;
    }
    let min_time = metas.iter().map(|m| m.min_time).min();
    let max_time = metas.iter().map(|m| m.max_time).max();
    writer.finish(BlockParts {
        times: min_time.zip(max_time),
        compaction: merged_compaction(&metas),
        thanos: options.thanos,
    })
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

/// Series of several blocks in label order, those of equal labels joined.
struct MergedSeries {
    inputs: Vec<Select>,
    /// The next series of each input, smallest labels on top, then by input.
    next: BinaryHeap<Reverse<Pending>>,
}

struct Pending {
    labels: Labels,
    input: usize,
    chunks: Vec<Chunk>,
}

impl MergedSeries {
    fn new(blocks: &[Arc<Block>]) -> Result<Self> {
        let inputs = blocks.iter().map(|b| b.select(&[], TimeRange::ALL)).collect::<Result<Vec<_>>>()?;
        let mut merged = MergedSeries { next: BinaryHeap::with_capacity(inputs.len()), inputs };
        for input in 0..merged.inputs.len() {
            merged.advance(input)?;
        }
        Ok(merged)
    }

    fn advance(&mut self, input: usize) -> Result<()> {
        if let Some(series) = self.inputs[input].next() {
            let (labels, chunks) = series?;
            self.next.push(Reverse(Pending { labels, input, chunks }));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(Labels, Vec<Chunk>)>> {
        let Some(Reverse(first)) = self.next.pop() else { return Ok(None) };
        self.advance(first.input)?;
        let (labels, mut chunks) = (first.labels, first.chunks);
        while self.next.peek().is_some_and(|Reverse(p)| p.labels == labels) {
            let Some(Reverse(same)) = self.next.pop() else { break };
            self.advance(same.input)?;
            chunks.extend(same.chunks);
        }
        Ok(Some((labels, chunks)))
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pending {}

impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.labels.cmp(&other.labels).then(self.input.cmp(&other.input))
    }
}
