//! Writing one block of a merge's result.

use std::path::Path;

use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, TimeRange};

use super::input::SeriesMerge;
use super::overlap::{Piece, begins, deduplicate};
use super::split::{Part, Symbols};
use super::symbols::each;
use super::{Deduplication, MergeError, MergeOptions};
use crate::block::{BlockDraft, BlockMeta, BlockParts, without_ranges};
use crate::index::{ChunkMeta, IndexWriterOptions, SeriesRecord, SortedIndexWriter, symbol_bytes};
use crate::{Error, Result};

pub(super) struct PartWriter {
    id: BlockId,
    draft: BlockDraft,
    index: SortedIndexWriter,
    /// From merged symbols to those of this part, where it has not all of them.
    ranks: Option<Vec<u32>>,
    /// Samples outside are left out.
    range: TimeRange,
    deduplication: Deduplication,
    /// Of all inputs; 0 is raw.
    resolution_ms: i64,
    record: SeriesRecord,
    /// Chunks of the current series and whose they are.
    sources: Vec<(usize, ChunkMeta)>,
}

impl PartWriter {
    pub(super) fn create(
        parent: &Path,
        id: BlockId,
        merge: &SeriesMerge,
        part: &Part,
        options: &MergeOptions,
        range: TimeRange,
    ) -> Result<Self, MergeError> {
        let draft = BlockDraft::create(parent, id, options.segment_bytes_max, options.sync)?;
        let (count, bytes, ranks) = match &part.symbols {
            Symbols::All(count, bytes) => (*count, *bytes, None),
            Symbols::Some(_) => {
                let (mut count, mut bytes, mut ranks) = (0u32, 0, Vec::new());
                each(&merge.inputs, |number, text, _| {
                    ranks.push(count);
                    if part.symbols.contains(number) {
                        count += 1;
                        bytes += symbol_bytes(text.len());
                    }
                    Ok(())
                })?;
                (count, bytes, Some(ranks))
            }
        };
        let index_options = IndexWriterOptions {
            sync: options.sync,
            postings_bytes_max: options.postings_bytes_max,
            ..IndexWriterOptions::default()
        };
        let mut blamed = None;
        let index = SortedIndexWriter::create(&draft.index_path(), index_options, count, bytes, |write| {
            let written = each(&merge.inputs, |number, text, _| {
                if part.symbols.contains(number) {
                    write(text)?;
                }
                Ok(())
            });
            written.map_err(|e| {
                blamed = e.block;
                e.source
            })
        });
        let index = index.map_err(|source| MergeError { block: blamed, source })?;
        let deduplication = options.deduplication;
        let thanos = merge.inputs.first().and_then(|i| i.meta.thanos.as_ref());
        let resolution_ms = thanos.map_or(0, |t| t.downsample.resolution);
        let (record, sources) = Default::default();
        Ok(PartWriter { id, draft, index, ranks, range, deduplication, resolution_ms, record, sources })
    }

    pub(super) fn id(&self) -> BlockId {
        self.id
    }

    /// Adds the series at which `merge` stands.
    pub(super) fn add(&mut self, merge: &mut SeriesMerge) -> Result<(), MergeError> {
        self.sources.clear();
        let mut deleted = false;
        for at in &merge.current {
            let input = &merge.inputs[*at];
            deleted |= !input.tombstones.of(u64::from(input.series)).is_empty();
            self.sources.extend(input.record.chunks.iter().map(|c| (*at, *c)));
        }
        let follows = |w: &[(usize, ChunkMeta)]| {
            // Windows that end a chunk in their middle go on in the next one of the same input.
            let resolution_ms = if w[0].0 == w[1].0 { 0 } else { self.resolution_ms };
            w[0].1.maxt < begins(w[1].1.mint, resolution_ms)
        };
        let disjoint = self.sources.windows(2).all(follows);
        let inside = match (self.sources.first(), self.sources.last()) {
            (Some((_, first)), Some((_, last))) => {
                self.range.mint <= first.mint && last.maxt <= self.range.maxt
            }
            _ => return Ok(()),
        };
        self.record.chunks.clear();
        self.draft.segments.begin_series();
        if disjoint && inside && !deleted {
            self.copy(merge)?;
        } else {
            self.rewrite(merge)?;
        }
        let (Some(first), Some(last)) = (self.record.chunks.first(), self.record.chunks.last()) else {
            return Ok(());
        };
        self.draft.count_series(first.mint, last.maxt);
        self.record.labels.clear();
        match &self.ranks {
            None => self.record.labels.extend_from_slice(merge.labels()),
            Some(ranks) => {
                let mapped = merge.labels().iter().map(|(n, v)| (ranks[*n as usize], ranks[*v as usize]));
                self.record.labels.extend(mapped);
            }
        }
        self.index.add_series(&self.record)?;
        Ok(())
    }

    /// Copies the chunks as they are.
    fn copy(&mut self, merge: &mut SeriesMerge) -> Result<(), MergeError> {
        for (at, meta) in &self.sources {
            let input = &mut merge.inputs[*at];
            let id = input.meta.ulid;
            let raw = input.chunks.read(meta).map_err(MergeError::of(id))?;
            self.draft.count_chunk(raw.encoding, raw.data).map_err(|e| of_chunk(id, meta, &e))?;
            let chunk_ref = self.draft.segments.put_entry(raw.entry, raw.data.len() as u64)?;
            self.record.chunks.push(ChunkMeta { chunk_ref, ..*meta });
        }
        Ok(())
    }

    /// Takes out what is deleted or outside, then deduplicates what overlaps.
    fn rewrite(&mut self, merge: &mut SeriesMerge) -> Result<(), MergeError> {
        let mut pieces = Vec::with_capacity(self.sources.len());
        for (at, meta) in &self.sources {
            let input = &mut merge.inputs[*at];
            let id = input.meta.ulid;
            let mut gone = input.tombstones.of(u64::from(input.series)).to_vec();
            if self.range.mint > i64::MIN {
                gone.push(TimeRange::new(i64::MIN, self.range.mint - 1));
            }
            if self.range.maxt < i64::MAX {
                gone.push(TimeRange::new(self.range.maxt + 1, i64::MAX));
            }
            if gone.iter().any(|g| g.mint <= meta.mint && meta.maxt <= g.maxt) {
                continue;
            }
            let chunk = input.chunks.read(meta).map_err(MergeError::of(id))?.to_chunk(meta);
            if !gone.iter().any(|g| g.overlaps(&meta.range())) {
                pieces.push(Piece { input: *at, chunk });
            } else {
                let kept = without_ranges(&chunk, &gone).map_err(|e| of_chunk(id, meta, &e))?;
                pieces.extend(kept.into_iter().map(|chunk| Piece { input: *at, chunk }));
            }
        }
        let chunks =
            deduplicate(pieces, self.deduplication, self.resolution_ms).map_err(|(input, e)| MergeError {
                block: input.map(|at| merge.inputs[at].meta.ulid),
                source: Error::Invalid(format!("overlapping chunks: {e}")),
            })?;
        for chunk in &chunks {
            self.put(chunk)?;
        }
        Ok(())
    }

    fn put(&mut self, chunk: &Chunk) -> Result<()> {
        self.draft
            .count_chunk(chunk.encoding, &chunk.data)
            .map_err(|e| Error::Invalid(format!("chunk {} to {}: {e}", chunk.mint, chunk.maxt)))?;
        let chunk_ref = self.draft.segments.put_chunk(chunk)?;
        self.record.chunks.push(ChunkMeta { mint: chunk.mint, maxt: chunk.maxt, chunk_ref });
        Ok(())
    }

    /// Completes the block; `None` when no series came.
    pub(super) fn finish(self, parts: BlockParts) -> Result<Option<BlockMeta>, MergeError> {
        if self.index.series_count() == 0 {
            return Ok(None);
        }
        let index = self.index;
        Ok(Some(self.draft.finish(|| index.finish(), parts)?))
    }
}

#[cold]
fn of_chunk(block: BlockId, meta: &ChunkMeta, e: &chronolith_chunk::ChunkError) -> MergeError {
    let source = Error::Corrupt {
        file: format!("block {block}"),
        offset: meta.place().1 as u64,
        what: format!("chunk {} to {}: {e}", meta.mint, meta.maxt),
    };
    MergeError { block: Some(block), source }
}
