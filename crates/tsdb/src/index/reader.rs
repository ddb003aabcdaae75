//! Reading an index: header, sections, and from a reference to a series.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::{Labels, TimeRange};
use smallvec::SmallVec;

use super::{HEADER_BYTES, MAGIC, PostingsTable, SERIES_ALIGN, SeriesRecord, SymbolCache, Symbols, Toc};
use super::{PostingsRange, parse_postings};
use crate::cursor::Cursor;
use crate::postings::PostingsSource;
use crate::{Error, Result, map_file};

/// An index whose tables have been checked. Share it behind an `Arc`.
#[derive(Debug)]
pub struct IndexReader {
    file: Arc<str>,
    data: Bytes,
    version: u8,
    toc: Toc,
    symbols: Symbols,
    table: PostingsTable,
}

impl IndexReader {
    /// Maps and opens an index file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::new(path.display().to_string().into(), map_file(path)?)
    }

    /// Opens an index in memory (or mapped). `file` is its name in errors.
    pub fn new(file: Arc<str>, data: Bytes) -> Result<Self> {
        let mut c = Cursor::new(&file, 0, &data);
        if c.u32()? != MAGIC {
            return Err(Error::corrupt(&file, 0, "not an index: wrong magic number"));
        }
        let version = c.u8()?;
        if !(1..=3).contains(&version) {
            let what = format!("index version {version} is unknown, versions 1 to 3 are read");
            return Err(Error::Unsupported { file: file.to_string(), what });
        }
        let toc = Toc::parse(&file, data.len() as u64, &data)?;
        if toc.symbols < HEADER_BYTES as u64 {
            return Err(Error::corrupt(&file, toc.symbols, "symbol table inside the header"));
        }
        // The casts below are exact: `Toc::parse` has checked every offset against the length of `data`.
        let section = data.slice(toc.symbols as usize..toc.series as usize);
        let symbols = Symbols::parse(file.clone(), version, toc.symbols, section)?;
        let section = data.slice(toc.postings_offset_table as usize..data.len() - Toc::BYTES);
        let table = PostingsTable::parse(
            file.clone(),
            version,
            toc.postings_offset_table,
            section,
            toc.postings_end(),
        )?;
        Ok(IndexReader { file, data, version, toc, symbols, table })
    }

    /// Format version.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The file's name in errors.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The table of contents.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// The symbol table.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The postings offset table.
    pub fn postings_table(&self) -> &PostingsTable {
        &self.table
    }

    /// Bytes of memory beside the mapped file.
    pub fn memory_bytes(&self) -> usize {
        self.symbols.memory_bytes() + self.table.memory_bytes() + size_of::<Self>()
    }

    /// Length of the index.
    pub fn bytes_len(&self) -> usize {
        self.data.len()
    }

    /// The references of all series, ascending, which is label order.
    pub fn all_postings(&self) -> Result<Vec<u32>> {
        self.postings_of("", "")
    }

    /// The references of the series with a label pair.
    pub fn postings_of(&self, name: &str, value: &str) -> Result<Vec<u32>> {
        match self.table.find(name, value)? {
            Some(range) => self.list(range),
            None => Ok(Vec::new()),
        }
    }

    /// Decodes the list in a range given by the table.
    pub fn list(&self, range: PostingsRange) -> Result<Vec<u32>> {
        let bytes = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .and_then(|(start, end)| self.data.get(start..end))
            .ok_or_else(|| Error::corrupt(&self.file, range.start, "postings list outside the file"))?;
        parse_postings(&self.file, range.start, bytes)
    }

    /// Byte offset of a series reference.
    pub fn series_offset(&self, series: u32) -> u64 {
        if self.version == 1 { u64::from(series) } else { u64::from(series) * SERIES_ALIGN }
    }

    /// Decodes a series, keeping the chunks that overlap `range`.
    pub fn series(&self, series: u32, range: TimeRange, out: &mut SeriesRecord) -> Result<()> {
        let offset = self.series_offset(series);
        let (first, end) = (self.toc.series, self.toc.series_end());
        if offset < first || offset >= end {
            return Err(Error::corrupt(&self.file, offset, "series reference outside the series section"));
        }
        out.decode(&self.file, offset, &self.data[offset as usize..end as usize], range)?;
        Ok(())
    }

    /// The label set of a decoded series.
    pub fn labels(&self, record: &SeriesRecord, cache: &mut SymbolCache) -> Result<Labels> {
        let mut pairs: SmallVec<[(&str, &str); 32]> = SmallVec::new();
        for (name, value) in &record.labels {
            let name = self.symbols.lookup_cached(*name, cache)?;
            let value = self.symbols.lookup_cached(*value, cache)?;
            if name.len().max(value.len()) > Labels::PART_BYTES_MAX {
                return Err(Error::corrupt(&self.file, self.toc.symbols, "symbol too long for a label"));
            }
            if pairs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(Error::corrupt(&self.file, self.toc.series, "labels of a series are not sorted"));
            }
            if !value.is_empty() {
                pairs.push((name, value));
            }
        }
        Ok(Labels::from_sorted(pairs.iter().copied()))
    }

    /// The label names in order.
    pub fn label_names(&self) -> Vec<String> {
        self.table.names().map(str::to_owned).collect()
    }

    /// The values of a name in order.
    pub fn label_values(&self, name: &str) -> Result<Vec<String>> {
        let mut out = Vec::new();
        if !name.is_empty() {
            self.table.visit(name, "", &mut |value, _| {
                out.push(value.to_owned());
                ControlFlow::Continue(())
            })?;
        }
        Ok(out)
    }
}

impl PostingsSource for IndexReader {
    type Ref = u32;
    type Error = Error;

    fn all(&self) -> Result<Cow<'_, [u32]>> {
        self.all_postings().map(Cow::Owned)
    }

    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u32]>> {
        self.postings_of(name, value).map(Cow::Owned)
    }

    fn postings_matching(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Cow<'_, [u32]>>> {
        let mut ranges = Vec::new();
        self.table.visit(name, prefix, &mut |value, range| {
            if !value.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            if keep(value) {
                ranges.push(range);
            }
            ControlFlow::Continue(())
        })?;
        ranges.into_iter().map(|range| self.list(range).map(Cow::Owned)).collect()
    }
}
