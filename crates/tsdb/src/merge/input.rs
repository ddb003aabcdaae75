//! The inputs of a merge, and their series in label order.

use std::path::Path;

use chronolith_model::BlockId;

use super::MergeError;
use super::symbols::SymbolMap;
use crate::block::{BlockMeta, INDEX_FILE, RawChunks, Tombstones};
use crate::index::{IndexStream, SeriesRecord};
use crate::{Error, Result};

/// One block, read front to back.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) meta: BlockMeta,
    pub(super) stream: IndexStream,
    pub(super) chunks: RawChunks,
    pub(super) tombstones: Tombstones,
    pub(super) map: SymbolMap,
    /// The current series, its symbols the merged ones.
    pub(super) record: SeriesRecord,
    /// Its reference, by which tombstones know it, and the bytes of its entry.
    pub(super) series: u32,
    pub(super) entry_bytes: usize,
    last_labels: Vec<(u32, u32)>,
    ended: bool,
}

impl Input {
    pub(super) fn open(dir: &Path) -> Result<Self, MergeError> {
        let meta = BlockMeta::read(dir)?;
        let id = meta.ulid;
        Self::open_with(dir, meta).map_err(MergeError::of(id))
    }

    fn open_with(dir: &Path, meta: BlockMeta) -> Result<Self> {
        Ok(Input {
            meta,
            stream: IndexStream::open(&dir.join(INDEX_FILE))?,
            chunks: RawChunks::new(dir),
            tombstones: Tombstones::read(dir)?,
            map: SymbolMap::Dense(Vec::new()),
            record: SeriesRecord::default(),
            series: 0,
            entry_bytes: 0,
            last_labels: Vec::new(),
            ended: false,
        })
    }

    pub(super) fn id(&self) -> BlockId {
        self.meta.ulid
    }

    fn advance(&mut self, empty: Option<u32>) -> Result<()> {
        std::mem::swap(&mut self.last_labels, &mut self.record.labels);
        let Some((series, entry_bytes)) = self.stream.next_series(&mut self.record)? else {
            self.ended = true;
            return Ok(());
        };
        (self.series, self.entry_bytes) = (series, entry_bytes);
        let corrupt = |what: &str| Error::corrupt(&self.stream.name(), 0, format!("series {series}: {what}"));
        let mut last = None;
        for (name, value) in &mut self.record.labels {
            match (self.map.get(*name), self.map.get(*value)) {
                (Some(n), Some(v)) => (*name, *value) = (n, v),
                _ => return Err(corrupt("a label refers to no symbol")),
            }
            if last.is_some_and(|last| last >= *name) {
                return Err(corrupt("labels are not in order"));
            }
            last = Some(*name);
        }
        if let Some(empty) = empty {
            // A label with an empty value is none.
            self.record.labels.retain(|(_, value)| *value != empty);
        }
        if !self.last_labels.is_empty() && self.last_labels >= self.record.labels {
            return Err(corrupt("it is not above the one before it"));
        }
        Ok(())
    }
}

/// Steps through the series of all inputs; those of equal labels are one.
#[derive(Debug)]
pub(super) struct SeriesMerge {
    pub(super) inputs: Vec<Input>,
    /// The inputs that have the current series, ascending.
    pub(super) current: Vec<usize>,
    empty: Option<u32>,
    started: bool,
}

impl SeriesMerge {
    pub(super) fn new(inputs: Vec<Input>, empty: Option<u32>) -> Self {
        SeriesMerge { inputs, current: Vec::new(), empty, started: false }
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        for input in &mut self.inputs {
            input.stream.rewind();
            input.ended = false;
            input.last_labels.clear();
            input.record.labels.clear();
        }
        self.current.clear();
        self.started = false;
    }

    /// Moves to the next series; false when there is none.
    pub(super) fn advance(&mut self) -> Result<bool, MergeError> {
        if !std::mem::replace(&mut self.started, true) {
            self.current.extend(0..self.inputs.len());
        }
        for at in self.current.drain(..) {
            let input = &mut self.inputs[at];
            input.advance(self.empty).map_err(MergeError::of(input.meta.ulid))?;
        }
        for (at, input) in self.inputs.iter().enumerate().filter(|(_, i)| !i.ended) {
            let order = match self.current.first() {
                None => std::cmp::Ordering::Less,
                Some(least) => input.record.labels.cmp(&self.inputs[*least].record.labels),
            };
            if order.is_lt() {
                self.current.clear();
            }
            if order.is_le() {
                self.current.push(at);
            }
        }
        Ok(!self.current.is_empty())
    }

    /// Labels of the current series.
    pub(super) fn labels(&self) -> &[(u32, u32)] {
        self.current.first().map_or(&[], |at| &self.inputs[*at].record.labels)
    }
}
