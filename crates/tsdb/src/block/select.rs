//! The series of a selection, one by one.

use std::sync::Arc;

use chronolith_chunk::Chunk;
use chronolith_model::{Labels, TimeRange};

use super::recode::without_ranges;
use super::{Block, Tombstones};
use crate::Result;
use crate::index::{ChunkMeta, SeriesRecord, SymbolCache};

/// Iterator over the series of a [`Block::select`]. Ends after an error.
#[derive(Debug)]
pub struct Select {
    block: Block,
    tombstones: Arc<Tombstones>,
    refs: std::vec::IntoIter<u32>,
    range: TimeRange,
    skip_chunks: bool,
    record: SeriesRecord,
    cache: SymbolCache,
}

impl Select {
    pub(super) fn new(block: &Block, refs: Vec<u32>, range: TimeRange, skip_chunks: bool) -> Self {
        Select {
            block: block.clone(),
            tombstones: block.tombstones(),
            refs: refs.into_iter(),
            range,
            skip_chunks,
            record: SeriesRecord::default(),
            cache: SymbolCache::default(),
        }
    }

    /// How many series may still come.
    pub fn series_max(&self) -> usize {
        self.refs.len()
    }

    fn read(&mut self, series: u32) -> Result<Option<(Labels, Vec<Chunk>)>> {
        let index = &self.block.inner.index;
        index.series(series, self.range, &mut self.record)?;
        let deleted = self.tombstones.of(u64::from(series));
        if !deleted.is_empty() {
            self.record.chunks.retain(|c| !deleted.iter().any(|d| d.mint <= c.mint && c.maxt <= d.maxt));
        }
        if self.record.chunks.is_empty() {
            return Ok(None);
        }
        let mut chunks = Vec::new();
        if !self.skip_chunks {
            chunks.reserve_exact(self.record.chunks.len());
            for meta in &self.record.chunks {
                self.read_chunk(meta, deleted, &mut chunks)?;
            }
            if chunks.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some((index.labels(&self.record, &mut self.cache)?, chunks)))
    }

    fn read_chunk(&self, meta: &ChunkMeta, deleted: &[TimeRange], out: &mut Vec<Chunk>) -> Result<()> {
        let chunk = self.block.chunk(meta)?;
        if deleted.iter().any(|d| d.overlaps(&meta.range())) {
            let kept = without_ranges(&chunk, deleted).map_err(|e| self.block.chunk_error(meta, e))?;
            out.extend(kept.into_iter().filter(|c| c.time_range().overlaps(&self.range)));
        } else {
            out.push(chunk);
        }
        Ok(())
    }
}

impl Iterator for Select {
    type Item = Result<(Labels, Vec<Chunk>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let series = self.refs.next()?;
            match self.read(series) {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(e) => {
                    self.refs = Vec::new().into_iter();
                    return Some(Err(e));
                }
            }
        }
    }
}
