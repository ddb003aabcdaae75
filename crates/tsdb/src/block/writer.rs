//! Writing a block: series in label order, bounded memory, all or nothing.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use chronolith_chunk::{AggrChunk, Chunk, ChunkError, Encoding};
use chronolith_model::{BlockId, Labels};

use super::segment::{SEGMENT_BYTES_MAX, SegmentWriter};
use super::{BlockMeta, BlockStats, Compaction, IndexStats, ThanosMeta, Tombstones, sync_dir};
use super::{CHUNKS_DIR, CREATION_SUFFIX, INDEX_FILE};
use crate::index::{ChunkMeta, IndexWriter, IndexWriterOptions, IndexWritten};
use crate::{Error, Result};

/// How a block is written.
#[derive(Clone, Copy, Debug)]
pub struct BlockWriterOptions {
    /// Size at which a new chunk segment begins; one chunk alone may exceed it.
    pub segment_bytes_max: u64,
    /// The index. Its `sync` is overruled by that of the block.
    pub index: IndexWriterOptions,
    /// Sync every file and directory before the block gets its name. Off only in tests and benchmarks.
    pub sync: bool,
}

impl Default for BlockWriterOptions {
    fn default() -> Self {
        BlockWriterOptions {
            segment_bytes_max: SEGMENT_BYTES_MAX,
            index: IndexWriterOptions::default(),
            sync: true,
        }
    }
}

/// What a block's meta says beyond what its writer counts.
#[derive(Clone, Debug, Default)]
pub struct BlockParts {
    /// First millisecond and first after the block. `None`: those of the samples.
    pub times: Option<(i64, i64)>,
    /// History. Level 0 stands for a block from a head: level 1, its own source.
    pub compaction: Compaction,
    /// Thanos's part. Its `index_stats` are filled in.
    pub thanos: Option<ThanosMeta>,
}

/// A block under way: its directory, its segments, what is counted. Dropping it before [`BlockDraft::finish`] removes what
/// was written.
#[derive(Debug)]
pub(crate) struct BlockDraft {
    id: BlockId,
    parent: PathBuf,
    tmp: PathBuf,
    sync: bool,
    pub(crate) segments: SegmentWriter,
    stats: BlockStats,
    mint: i64,
    maxt: i64,
    finished: bool,
}

impl BlockDraft {
    /// Begins a block in the directory `parent`. A leftover of the same id is removed; a finished block of that id
    /// is an error.
    pub(crate) fn create(parent: &Path, id: BlockId, segment_bytes_max: u64, sync: bool) -> Result<Self> {
        let dir = parent.join(id.to_string());
        if dir.exists() {
            return Err(Error::Invalid(format!("block {} exists already", dir.display())));
        }
        let tmp = parent.join(format!("{id}{CREATION_SUFFIX}"));
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).map_err(Error::io("remove", &tmp))?;
        }
        let chunks = tmp.join(CHUNKS_DIR);
        std::fs::create_dir_all(&chunks).map_err(Error::io("create", &chunks))?;
        Ok(BlockDraft {
            id,
            parent: parent.to_owned(),
            segments: SegmentWriter::new(&chunks, segment_bytes_max, sync),
            tmp,
            sync,
            stats: BlockStats::default(),
            mint: i64::MAX,
            maxt: i64::MIN,
            finished: false,
        })
    }

    /// Where the index goes.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.tmp.join(INDEX_FILE)
    }

    /// Counts a chunk. Of downsampled data the samples of the count are counted, as Thanos does.
    pub(crate) fn count_chunk(&mut self, encoding: Encoding, data: &[u8]) -> Result<(), ChunkError> {
        let (samples, of_floats) = if encoding == Encoding::Aggregate {
            let parts = AggrChunk::parse(&Bytes::copy_from_slice(data))?;
            (parts.sample_count()? as u64, !parts.is_histogram())
        } else {
            (encoding.sample_count(data)? as u64, encoding.is_float())
        };
        self.stats.num_samples += samples;
        if of_floats {
            self.stats.num_float_samples += samples;
        } else {
            self.stats.num_histogram_samples += samples;
        }
        self.stats.num_chunks += 1;
        Ok(())
    }

    /// Counts a series whose samples lie between these times, both included.
    pub(crate) fn count_series(&mut self, mint: i64, maxt: i64) {
        self.mint = self.mint.min(mint);
        self.maxt = self.maxt.max(maxt);
        self.stats.num_series += 1;
    }

    /// Number of series so far.
    pub(crate) fn series_count(&self) -> u64 {
        self.stats.num_series
    }

    /// Writes what is left, the index through `index`, and gives the block its name.
    pub(crate) fn finish(
        mut self,
        index: impl FnOnce() -> Result<IndexWritten>,
        parts: BlockParts,
    ) -> Result<BlockMeta> {
        self.segments.finish()?;
        let written = index()?;
        // The largest chunk may end at the largest time there is; the block's end is exclusive.
        let (min_time, max_time) = parts.times.unwrap_or((self.mint, self.maxt.saturating_add(1)));
        if min_time > self.mint || max_time <= self.maxt && max_time != i64::MAX {
            return Err(Error::Invalid(format!(
                "block {} of [{min_time}, {max_time}) holds samples from {} to {}",
                self.id, self.mint, self.maxt
            )));
        }
        let mut meta = BlockMeta::new(self.id, min_time, max_time);
        meta.stats = std::mem::take(&mut self.stats);
        meta.compaction = parts.compaction;
        if meta.compaction.level == 0 {
            meta.compaction.level = 1;
            meta.compaction.sources = vec![self.id];
        }
        meta.thanos = parts.thanos;
        if let Some(thanos) = &mut meta.thanos {
            thanos.index_stats = IndexStats {
                series_max_size: written.series_bytes_max,
                chunk_max_size: self.segments.chunk_bytes_max,
            };
        }
        Tombstones::default().write(&self.tmp)?;
        meta.write(&self.tmp)?;
        let dir = self.parent.join(self.id.to_string());
        std::fs::rename(&self.tmp, &dir).map_err(Error::io("rename", &self.tmp))?;
        self.finished = true;
        if self.sync {
            sync_dir(&self.parent)?;
        }
        Ok(meta)
    }
}

/// Writes one block. Dropping it before [`BlockWriter::finish`] removes what it wrote; after an error nothing else
/// can be done with it.
#[derive(Debug)]
pub struct BlockWriter {
    draft: BlockDraft,
    index: IndexWriter,
    metas: Vec<ChunkMeta>,
}

impl BlockWriter {
    /// Begins a block in the directory `parent`. A leftover of the same id is removed; a finished block of that id
    /// is an error.
    pub fn create(parent: &Path, id: BlockId, options: BlockWriterOptions) -> Result<Self> {
        let draft = BlockDraft::create(parent, id, options.segment_bytes_max, options.sync)?;
        let index_options = IndexWriterOptions { sync: options.sync, ..options.index };
        let index = IndexWriter::create(&draft.index_path(), index_options)?;
        Ok(BlockWriter { draft, index, metas: Vec::new() })
    }

    /// Adds a series with its chunks, which are in time order and do not overlap. Series come in ascending label
    /// order, each once. A series without chunks is left out.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[Chunk]) -> Result<()> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { return Ok(()) };
        for chunk in chunks {
            self.draft.count_chunk(chunk.encoding, &chunk.data).map_err(|e| {
                Error::Invalid(format!("series {labels}: chunk {} to {}: {e}", chunk.mint, chunk.maxt))
            })?;
        }
        self.metas.clear();
        self.draft.segments.write(chunks, &mut self.metas)?;
        self.index.add_series(labels, &self.metas)?;
        self.draft.count_series(first.mint, last.maxt);
        Ok(())
    }

    /// Number of series so far.
    pub fn series_count(&self) -> u64 {
        self.draft.series_count()
    }

    /// Completes the block and gives it its name. `None` when no series came: then there is no block.
    pub fn finish(self, parts: BlockParts) -> Result<Option<BlockMeta>> {
        if self.draft.series_count() == 0 {
            return Ok(None);
        }
        let BlockWriter { draft, index, .. } = self;
        draft.finish(|| index.finish(), parts).map(Some)
    }
}

impl Drop for BlockDraft {
    fn drop(&mut self) {
        if !self.finished
            && let Err(err) = std::fs::remove_dir_all(&self.tmp)
        {
            tracing::warn!(block = %self.id, dir = %self.tmp.display(), %err, "unfinished block not removed");
        }
    }
}
