//! Reading a block: everything mapped, nothing copied until samples are decoded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, Matcher, TimeRange};
use parking_lot::RwLock;

use super::segment::Segments;
use super::{BlockMeta, CHUNKS_DIR, INDEX_FILE, Select, Tombstones};
use crate::index::{ChunkMeta, IndexReader, SeriesRecord};
use crate::postings::{intersect, resolve_matchers};
use crate::{Error, Result};

/// An open block. Cheap to clone. Its files stay readable after the directory was deleted, until the last clone
/// (and the last chunk taken from it) is gone.
#[derive(Clone, Debug)]
pub struct Block {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    dir: PathBuf,
    meta: BlockMeta,
    pub(super) index: IndexReader,
    segments: Segments,
    /// Replaced as a whole by a deletion; a selection keeps the state it began with.
    tombstones: RwLock<Arc<Tombstones>>,
}

impl Block {
    /// Opens a block directory: reads meta.json and tombstones, maps index and segments, checks their headers and
    /// the index's tables. Series and chunks are checked as they are read.
    pub fn open(dir: &Path) -> Result<Self> {
        let meta = BlockMeta::read(dir)?;
        let index = IndexReader::open(&dir.join(INDEX_FILE))?;
        let segments = Segments::open(&dir.join(CHUNKS_DIR))?;
        let tombstones = RwLock::new(Arc::new(Tombstones::read(dir)?));
        Ok(Block { inner: Arc::new(Inner { dir: dir.to_owned(), meta, index, segments, tombstones }) })
    }

    /// The block's meta.json as it was when the block was opened.
    pub fn meta(&self) -> &BlockMeta {
        &self.inner.meta
    }

    /// The block's name.
    pub fn id(&self) -> BlockId {
        self.inner.meta.ulid
    }

    /// The block's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The block's index.
    pub fn index(&self) -> &IndexReader {
        &self.inner.index
    }

    /// The deletions in force.
    pub fn tombstones(&self) -> Arc<Tombstones> {
        Arc::clone(&self.inner.tombstones.read())
    }

    /// The closed time range of the block.
    pub fn time_range(&self) -> TimeRange {
        self.inner.meta.time_range()
    }

    /// Bytes of index and segments on disk.
    pub fn bytes_len(&self) -> u64 {
        self.inner.index.bytes_len() as u64 + self.inner.segments.bytes_len()
    }

    /// The series that satisfy all matchers and have chunks overlapping `range`, in label order, with those chunks.
    /// Chunks are whole: their samples may begin before and end after the range.
    pub fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Select> {
        self.selection(matchers, range, false)
    }

    /// As [`Block::select`] without reading chunks; the lists of chunks are empty.
    pub fn select_labels(&self, matchers: &[Matcher], range: TimeRange) -> Result<Select> {
        self.selection(matchers, range, true)
    }

    /// The series of these references, in their order, with all of their chunks.
    pub fn select_refs(&self, refs: Vec<u32>) -> Select {
        Select::new(self, refs, TimeRange::ALL, false)
    }

    fn selection(&self, matchers: &[Matcher], range: TimeRange, skip_chunks: bool) -> Result<Select> {
        let refs = if self.time_range().overlaps(&range) && !range.is_empty() {
            resolve_matchers(&self.inner.index, matchers)?
        } else {
            Vec::new()
        };
        Ok(Select::new(self, refs, range, skip_chunks))
    }

    /// The label names of the series that satisfy all matchers, in order. Time counts by the block, not by the
    /// series, as in Prometheus.
    pub fn label_names(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<String>> {
        let index = &self.inner.index;
        if !self.time_range().overlaps(&range) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            return Ok(index.label_names());
        }
        let mut names = BTreeSet::new();
        let mut record = SeriesRecord::default();
        for series in resolve_matchers(index, matchers)? {
            index.series(series, NO_CHUNKS, &mut record)?;
            names.extend(record.labels.iter().map(|(name, _)| *name));
        }
        // Symbols are in the order of their strings, and so are the names.
        names.into_iter().map(|name| index.symbols().lookup(name).map(str::to_owned)).collect()
    }

    /// The values of a label among the series that satisfy all matchers, in order. Time as in
    /// [`Block::label_names`].
    pub fn label_values(&self, name: &str, matchers: &[Matcher], range: TimeRange) -> Result<Vec<String>> {
        let index = &self.inner.index;
        if !self.time_range().overlaps(&range) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            return index.label_values(name);
        }
        let refs = resolve_matchers(index, matchers)?;
        if refs.len() > index.postings_table().value_count(name) * SERIES_PER_LIST {
            self.values_by_list(name, &refs)
        } else {
            self.values_by_series(name, &refs)
        }
    }

    fn values_by_series(&self, name: &str, refs: &[u32]) -> Result<Vec<String>> {
        let index = &self.inner.index;
        let Some(name) = index.symbols().find(name)? else { return Ok(Vec::new()) };
        let mut values = BTreeSet::new();
        let mut record = SeriesRecord::default();
        for series in refs {
            index.series(*series, NO_CHUNKS, &mut record)?;
            values.extend(record.labels.iter().filter(|(n, _)| *n == name).map(|(_, v)| *v));
        }
        values.into_iter().map(|value| index.symbols().lookup(value).map(str::to_owned)).collect()
    }

    fn values_by_list(&self, name: &str, refs: &[u32]) -> Result<Vec<String>> {
        let index = &self.inner.index;
        let mut candidates = Vec::new();
        index.postings_table().visit(name, "", &mut |value, range| {
            candidates.push((value.to_owned(), range));
            std::ops::ControlFlow::Continue(())
        })?;
        let mut values = Vec::new();
        for (value, range) in candidates {
            let mut list = index.list(range)?;
            intersect(&mut list, refs);
            if !list.is_empty() {
                values.push(value);
            }
        }
        Ok(values)
    }

    /// Marks the samples of matching series inside `range` as deleted. Gives the number of series touched.
    pub fn delete(&self, matchers: &[Matcher], range: TimeRange) -> Result<usize> {
        let mut current = self.inner.tombstones.write();
        let mut tombstones = Tombstones::clone(&current);
        let mut record = SeriesRecord::default();
        let mut touched = 0;
        for series in resolve_matchers(&self.inner.index, matchers)? {
            self.inner.index.series(series, range, &mut record)?;
            let (Some(first), Some(last)) = (record.chunks.first(), record.chunks.last()) else { continue };
            let (mint, maxt) = (range.mint.max(first.mint), range.maxt.min(last.maxt));
            tombstones.add(u64::from(series), TimeRange::new(mint, maxt));
            touched += 1;
        }
        if touched > 0 {
            tombstones.write(&self.inner.dir)?;
            let mut meta = BlockMeta::read(&self.inner.dir)?;
            meta.stats.num_tombstones = tombstones.count();
            meta.write(&self.inner.dir)?;
            *current = Arc::new(tombstones);
        }
        Ok(touched)
    }

    /// Reads one chunk and checks it.
    pub(super) fn chunk(&self, meta: &ChunkMeta) -> Result<Chunk> {
        self.inner.segments.chunk(self.inner.index.file(), meta)
    }

    pub(super) fn chunk_error(&self, meta: &ChunkMeta, source: chronolith_chunk::ChunkError) -> Error {
        let (segment, offset) = meta.place();
        let path = self.inner.dir.join(CHUNKS_DIR).join(super::segment_name(segment as u64 + 1));
        Error::Chunk { file: path.display().to_string(), offset: offset as u64, source }
    }
}

/// An empty range: decodes labels only.
const NO_CHUNKS: TimeRange = TimeRange::new(i64::MAX, i64::MIN);

/// Intersecting a list costs about as much as decoding so many series.
const SERIES_PER_LIST: usize = 4;
