//! The index header: the parts of a block's index that every query needs, kept in a local file.
//!
//! ```text
//! ┌────────────────┬───────────┬──────────────────┬──────────────────────────────────┐
//! │ magic BAAAD792 │ version 1 │ index version u8 │ offset of the postings table u64 │
//! ├────────────────┴───────────┴──────────────────┴──────────────────────────────────┤
//! │ index bytes [symbols, series)                                                    │
//! ├──────────────────────────────────────────────────────────────────────────────────┤
//! │ index bytes [postings offset table, end): table, CRC, TOC of the index           │
//! ├──────────────────────────────────────────────────────────────────────────────────┤
//! │ position of the symbols u64 │ position of the postings table u64 │ CRC of both   │
//! └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Thanos's format, version 1, big endian. The file is made under a temporary name and renamed, so it is whole or not
//! there; one that is damaged nevertheless is thrown away and made again. It holds nothing that is not in the bucket.

mod build;
mod source;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::{BlockId, Labels};
use chronolith_tsdb::index::{
    PostingsRange, PostingsTable, SERIES_ALIGN, SeriesRecord, SymbolCache, Symbols, Toc,
};
use chronolith_tsdb::{crc32c, map_file};

use crate::{Error, Result, layout};

pub use source::HeaderSource;

const MAGIC: u32 = 0xBAAA_D792;
const VERSION: u8 = 1;
/// Magic, version, index version, offset of the postings table.
const HEAD_BYTES: usize = 4 + 1 + 1 + 8;
/// Two positions and their checksum.
const TAIL_BYTES: usize = 8 + 8 + 4;

/// An open index header. Its strings and lists are read from the mapped file when asked for.
#[derive(Debug)]
pub struct IndexHeader {
    /// Key of the index itself, for errors about it.
    index: Arc<str>,
    version: u8,
    toc: Toc,
    symbols: Symbols,
    table: PostingsTable,
}

impl IndexHeader {
    /// Maps and checks the file at `path`.
    pub fn open(path: &Path, block: BlockId) -> Result<Self> {
        Self::parse(&path.display().to_string(), map_file(path)?, block)
    }

    fn parse(file: &str, data: Bytes, block: BlockId) -> Result<Self> {
        let corrupt = |at: usize, what: &str| Error::corrupt(file, at as u64, what);
        if data.len() < HEAD_BYTES + Toc::BYTES + TAIL_BYTES {
            return Err(corrupt(0, "too short for an index header"));
        }
        if u32::from_be_bytes(array(&data, 0)) != MAGIC {
            return Err(corrupt(0, "not an index header: wrong magic number"));
        }
        if data[4] != VERSION {
            return Err(corrupt(4, &format!("index header version {} is unknown", data[4])));
        }
        let version = data[5];
        if !(1..=3).contains(&version) {
            return Err(corrupt(5, &format!("index version {version} is unknown, versions 1 to 3 are read")));
        }
        let tail = data.len() - TAIL_BYTES;
        if crc32c(&data[tail..tail + 16]) != u32::from_be_bytes(array(&data, tail + 16)) {
            return Err(corrupt(tail, "index header: checksum mismatch"));
        }
        let position =
            |at: usize| usize::try_from(u64::from_be_bytes(array(&data, at))).unwrap_or(usize::MAX);
        let (symbols_pos, table_pos) = (position(tail), position(tail + 8));
        let toc_pos = tail - Toc::BYTES;
        if symbols_pos != HEAD_BYTES || table_pos < symbols_pos || table_pos > toc_pos {
            return Err(corrupt(tail, "index header: positions out of order"));
        }
        let index: Arc<str> = layout::key(block, layout::INDEX).into();
        let table_offset = u64::from_be_bytes(array(&data, 6));
        let index_bytes = table_offset.saturating_add((tail - table_pos) as u64);
        let toc = Toc::parse(&index, index_bytes, &data[toc_pos..tail])?;
        if toc.postings_offset_table != table_offset {
            return Err(corrupt(6, "index header: offset of the postings table differs from the index's"));
        }
        let symbols = data.slice(symbols_pos..table_pos);
        let symbols = Symbols::parse(index.clone(), version, toc.symbols, symbols)?;
        let table = data.slice(table_pos..toc_pos);
        let table = PostingsTable::parse(index.clone(), version, table_offset, table, toc.postings_end())?;
        Ok(IndexHeader { index, version, toc, symbols, table })
    }

    /// Key of the index in the bucket.
    pub fn index_key(&self) -> &str {
        &self.index
    }

    /// The postings offset table.
    pub fn postings_table(&self) -> &PostingsTable {
        &self.table
    }

    /// Bytes of memory beside the mapped file.
    pub fn memory_bytes(&self) -> usize {
        self.symbols.memory_bytes() + self.table.memory_bytes() + size_of::<Self>()
    }

    /// Where the list of a label pair lies.
    pub fn postings_range(&self, name: &str, value: &str) -> Result<Option<PostingsRange>> {
        Ok(self.table.find(name, value)?)
    }

    /// Byte offset of a series in the index, and where the series section ends.
    pub fn series_place(&self, series: u32) -> Result<(u64, u64)> {
        let offset = if self.version == 1 { u64::from(series) } else { u64::from(series) * SERIES_ALIGN };
        let end = self.toc.series_end();
        if offset < self.toc.series || offset >= end {
            return Err(Error::corrupt(&self.index, offset, "series reference outside the series section"));
        }
        Ok((offset, end))
    }

    /// The label set of a decoded series.
    pub fn labels(&self, record: &SeriesRecord, cache: &mut SymbolCache) -> Result<Labels> {
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(record.labels.len());
        for (name, value) in &record.labels {
            let name = self.symbols.lookup_cached(*name, cache)?;
            let value = self.symbols.lookup_cached(*value, cache)?;
            if name.len().max(value.len()) > Labels::PART_BYTES_MAX {
                return Err(Error::corrupt(&self.index, self.toc.symbols, "symbol too long for a label"));
            }
            if pairs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(Error::corrupt(
                    &self.index,
                    self.toc.series,
                    "labels of a series are not sorted",
                ));
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

    /// The values of a name in order, those that `keep` accepts.
    pub fn label_values(&self, name: &str, keep: &mut dyn FnMut(&str) -> bool) -> Result<Vec<String>> {
        let mut out = Vec::new();
        if !name.is_empty() {
            self.table.visit(name, "", &mut |value, _| {
                if keep(value) {
                    out.push(value.to_owned());
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(out)
    }
}

fn array<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    data[at..at + N].try_into().expect("the slice has N bytes")
}
