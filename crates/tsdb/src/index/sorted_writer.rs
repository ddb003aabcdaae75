//! Writing an index whose symbols are known before its series, as they are when indexes are merged: everything goes
//! straight into the file, series as they come. Memory: 4 bytes a series, and one batch of postings.

use std::path::Path;
use std::sync::Arc;

use super::output::{Output, Section};
use super::postings_writer::{Lists, finish_index};
use super::writer::{check_chunk_order, uvarint_bytes};
use super::{HEADER_BYTES, IndexWriterOptions, IndexWritten, MAGIC, SERIES_ALIGN, SymbolCache, Symbols};
use super::{SeriesRecord, Toc, VERSION_WRITTEN};
use crate::cursor::put_uvarint_bytes;
use crate::{Error, Result, map_file};

/// Bytes that a symbol takes in the table.
pub(crate) fn symbol_bytes(len: usize) -> u64 {
    (len + uvarint_bytes(len)) as u64
}

/// Writes one index file. Series refer to symbols by their number in the table, which is the order of their strings.
#[derive(Debug)]
pub(crate) struct SortedIndexWriter {
    options: IndexWriterOptions,
    out: Output,
    toc: Toc,
    refs: Vec<u32>,
    uses: rustc_hash::FxHashMap<u32, u64>,
    series_bytes_max: u64,
    last_labels: Vec<(u32, u32)>,
    last_chunk_ref: u64,
    body: Vec<u8>,
    entry: Vec<u8>,
}

impl SortedIndexWriter {
    /// Creates the file, which must not exist, and writes the symbols that `each` gives, ascending: `count` of them,
    /// [`symbol_bytes`] in sum `text_bytes`.
    pub(crate) fn create(
        path: &Path,
        options: IndexWriterOptions,
        count: u32,
        text_bytes: u64,
        each: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<Self> {
        let mut out = Output::create(path)?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION_WRITTEN])?;
        let mut toc = Toc { symbols: out.pos, ..Toc::default() };
        debug_assert_eq!(toc.symbols, HEADER_BYTES as u64);
        let len = out.u32_of("symbol table", text_bytes + 4)?;
        let mut section = Section::start(&mut out, len)?;
        section.put(|buf| buf.extend_from_slice(&count.to_be_bytes()))?;
        each(&mut |symbol| section.put(|buf| put_uvarint_bytes(buf, symbol)))?;
        section.end()?;
        toc.series = out.pos;
        Ok(SortedIndexWriter {
            options,
            out,
            toc,
            refs: Vec::new(),
            uses: rustc_hash::FxHashMap::default(),
            series_bytes_max: 0,
            last_labels: Vec::new(),
            last_chunk_ref: 0,
            body: Vec::new(),
            entry: Vec::new(),
        })
    }

    /// Adds a series; labels above the last one's, chunks in order.
    pub(crate) fn add_series(&mut self, record: &SeriesRecord) -> Result<()> {
        if !self.refs.is_empty() && self.last_labels >= record.labels {
            return Err(Error::Invalid("a series is not above the one before it".to_owned()));
        }
        check_chunk_order(&format_args!("number {}", self.refs.len()), &record.chunks, self.last_chunk_ref)?;
        self.out.pad(SERIES_ALIGN)?;
        let series = self.out.pos / SERIES_ALIGN;
        self.refs.push(u32::try_from(series).map_err(|_| self.out.too_large())?);
        for (name, _) in &record.labels {
            *self.uses.entry(*name).or_default() += 1;
        }
        self.entry.clear();
        record.encode(&mut self.body, &mut self.entry);
        self.out.write(&self.entry)?;
        self.series_bytes_max = self.series_bytes_max.max(self.entry.len() as u64);
        self.last_labels.clone_from(&record.labels);
        if let Some(chunk) = record.chunks.last() {
            self.last_chunk_ref = chunk.chunk_ref;
        }
        Ok(())
    }

    /// Number of series so far.
    pub(crate) fn series_count(&self) -> u64 {
        self.refs.len() as u64
    }

    /// Writes the rest and closes the file.
    pub(crate) fn finish(mut self) -> Result<IndexWritten> {
        self.out.flush()?;
        let name: Arc<str> = self.out.path.display().to_string().into();
        let section = map_file(&self.out.path)?.slice(self.toc.symbols as usize..self.toc.series as usize);
        let symbols = Symbols::parse(name, VERSION_WRITTEN, self.toc.symbols, section)?;
        let mut cache = SymbolCache::default();
        let mut text = |symbol| symbols.lookup_cached(symbol, &mut cache).map(str::to_owned);
        let mut uses: Vec<_> = self.uses.into_iter().collect();
        uses.sort_unstable();
        let lists = Lists { all: &self.refs, uses, bytes_max: self.options.postings_bytes_max };
        let bytes = finish_index(self.out, self.toc, lists, &mut text, self.options.sync)?;
        Ok(IndexWritten { bytes, series_bytes_max: self.series_bytes_max })
    }
}
