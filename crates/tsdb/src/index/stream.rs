//! An index read once from front to back: symbols, then series in label order, through small buffers.

use std::path::{Path, PathBuf};

use chronolith_model::TimeRange;

use super::{HEADER_BYTES, MAGIC, SERIES_ALIGN, SeriesRecord, Toc};
use crate::crc::Crc32c;
use crate::cursor::Cursor;
use crate::window::FileWindow;
use crate::{Error, Result};

/// Read ahead of a list that is 4 bytes an entry.
const POSTINGS_WINDOW_BYTES: usize = 32 << 10;
/// Read ahead of series and symbols.
const WINDOW_BYTES: usize = 128 << 10;
/// Longest head of anything with a uvarint length.
const UVARINT_BYTES_MAX: usize = 10;

/// The series of one index, by the list of all series.
#[derive(Debug)]
pub(crate) struct IndexStream {
    path: PathBuf,
    version: u8,
    toc: Toc,
    series: FileWindow,
    postings: FileWindow,
    /// Where the next reference stands, and how many are left.
    next: u64,
    left: u32,
    first: u64,
    count: u32,
}

impl IndexStream {
    /// Opens an index: header, table of contents, the list of all series.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut series = FileWindow::open(path, WINDOW_BYTES)?;
        let mut postings = FileWindow::open(path, POSTINGS_WINDOW_BYTES)?;
        let name = series.name();
        let mut c = Cursor::new(&name, 0, series.up_to(0, HEADER_BYTES)?);
        if c.u32()? != MAGIC {
            return Err(Error::corrupt(&name, 0, "not an index: wrong magic number"));
        }
        let version = c.u8()?;
        if !(1..=3).contains(&version) {
            let what = format!("index version {version} is unknown, versions 1 to 3 are read");
            return Err(Error::Unsupported { file: name.to_string(), what });
        }
        let len = series.len();
        let tail = postings.up_to(len.saturating_sub(Toc::BYTES as u64), Toc::BYTES)?;
        let toc = Toc::parse(&name, len, tail)?;
        let start = find_all_postings(&mut postings, &toc)?;
        let mut c = Cursor::new(&name, start, postings.up_to(start, 8)?);
        let (len, count) = (c.u32()?, c.u32()?);
        if u64::from(len) != 4 + 4 * u64::from(count) || start + 8 + 4 * u64::from(count) > toc.postings_end()
        {
            let what = format!("list of all series: {count} entries in {len} bytes");
            return Err(Error::corrupt(&name, start, what));
        }
        let (next, first) = (start + 8, start + 8);
        Ok(IndexStream {
            path: path.to_owned(),
            version,
            toc,
            series,
            postings,
            next,
            left: count,
            first,
            count,
        })
    }

    /// Format version.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    /// Length of the index.
    pub(crate) fn bytes_len(&self) -> u64 {
        self.series.len()
    }

    /// The file's name in errors.
    pub(crate) fn name(&self) -> std::sync::Arc<str> {
        self.series.name()
    }

    /// The symbols, with what series call them.
    pub(crate) fn symbols(&self) -> Result<SymbolStream> {
        SymbolStream::open(&self.path, self.version, self.toc.symbols)
    }

    /// Goes back to the first series.
    pub(crate) fn rewind(&mut self) {
        (self.next, self.left) = (self.first, self.count);
    }

    /// Decodes the next series into `record`. Gives its reference and the bytes of its entry.
    pub(crate) fn next_series(&mut self, record: &mut SeriesRecord) -> Result<Option<(u32, usize)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let bytes = self.postings.get(self.next, 4)?;
        let series = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.next += 4;
        self.left -= 1;
        let offset = if self.version == 1 { u64::from(series) } else { u64::from(series) * SERIES_ALIGN };
        if offset < self.toc.series || offset >= self.toc.series_end() {
            let what = "series reference outside the series section";
            return Err(Error::corrupt(&self.series.name(), offset, what));
        }
        let file = self.series.name();
        let head = self.series.up_to(offset, UVARINT_BYTES_MAX)?;
        let body = Cursor::new(&file, offset, head).uvarint()?;
        let left = self.toc.series_end() - offset;
        let entry = body.saturating_add(UVARINT_BYTES_MAX as u64 + 4).min(left);
        let used =
            record.decode(&file, offset, self.series.up_to(offset, entry as usize)?, TimeRange::ALL)?;
        Ok(Some((series, used)))
    }
}

/// Where the list of all series begins: the first entry of the offset table, or in version 1, which has no order, the one
/// without a name.
fn find_all_postings(file: &mut FileWindow, toc: &Toc) -> Result<u64> {
    let name = file.name();
    let table = toc.postings_offset_table;
    let count = Cursor::new(&name, table, file.up_to(table, 8)?).at(4).u32()?;
    let mut pos = table + 8;
    for _ in 0..count {
        let head = Cursor::new(&name, pos, file.up_to(pos, 1 + UVARINT_BYTES_MAX)?).at(1).uvarint()?;
        // Two short strings and an offset where the name is empty; else only to step over the entry.
        let want = usize::try_from(head).unwrap_or(usize::MAX).saturating_add(4 * UVARINT_BYTES_MAX);
        let bytes = file.up_to(pos, want.min(1 << 20))?;
        let mut c = Cursor::new(&name, pos, bytes).at(1);
        let label = c.uvarint_bytes()?;
        if label.is_empty() {
            c.uvarint_bytes()?;
            return c.uvarint();
        }
        let value = c.uvarint()?;
        let value_at = pos + c.pos() as u64 + value;
        let mut c = Cursor::new(&name, value_at, file.up_to(value_at, UVARINT_BYTES_MAX)?);
        c.uvarint()?;
        pos = value_at + c.pos() as u64;
    }
    Err(Error::corrupt(&name, table, "no list of all series"))
}

/// The strings of an index in order.
#[derive(Debug)]
pub(crate) struct SymbolStream {
    file: FileWindow,
    version: u8,
    crc: Crc32c,
    /// Entries that are not in the checksum yet: over a few KiB at a time it costs a tenth.
    unchecked: Vec<u8>,
    pos: u64,
    end: u64,
    left: u32,
    count: u32,
    current: Vec<u8>,
    reference: u32,
}

impl SymbolStream {
    fn open(path: &Path, version: u8, offset: u64) -> Result<Self> {
        let mut file = FileWindow::open(path, WINDOW_BYTES)?;
        let head: [u8; 8] = file.get(offset, 8)?.try_into().expect("eight bytes");
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let count = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let mut crc = Crc32c::new();
        crc.update(&head[4..]);
        let (pos, end) = (offset + 8, offset + 4 + u64::from(len));
        Ok(SymbolStream {
            file,
            version,
            crc,
            unchecked: Vec::new(),
            pos,
            end,
            left: count,
            count,
            current: Vec::new(),
            reference: 0,
        })
    }

    /// Moves to the next symbol; false behind the last one, when the checksum was right.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        let name = self.file.name();
        if self.left == 0 {
            self.crc.update(&self.unchecked);
            self.unchecked.clear();
            let crc = self.file.get(self.end, 4)?;
            let stored = u32::from_be_bytes([crc[0], crc[1], crc[2], crc[3]]);
            if self.pos != self.end || self.crc.finish() != stored {
                return Err(Error::corrupt(&name, self.end, "symbol table: checksum mismatch"));
            }
            return Ok(false);
        }
        let mut c = Cursor::new(&name, self.pos, self.file.up_to(self.pos, UVARINT_BYTES_MAX)?);
        let (len, head) = (c.uvarint()?, c.pos());
        let entry_end = (self.pos + head as u64).saturating_add(len);
        if entry_end > self.end {
            return Err(Error::corrupt(&name, self.pos, "symbol outside its table"));
        }
        let entry = self.file.get(self.pos, head + len as usize)?;
        self.unchecked.extend_from_slice(entry);
        if self.unchecked.len() >= 8 << 10 {
            self.crc.update(&self.unchecked);
            self.unchecked.clear();
        }
        let text = &entry[head..];
        if std::str::from_utf8(text).is_err() {
            return Err(Error::corrupt(&name, self.pos, "string is not UTF-8"));
        }
        let first = self.left == self.count;
        if !first && self.current.as_slice() >= text {
            return Err(Error::corrupt(&name, self.pos, "symbols are not in order"));
        }
        self.current.clear();
        self.current.extend_from_slice(text);
        self.reference = if self.version == 1 { self.pos as u32 } else { self.count - self.left };
        self.pos = entry_end;
        self.left -= 1;
        Ok(true)
    }

    /// The current symbol.
    pub(crate) fn text(&self) -> &[u8] {
        &self.current
    }

    /// What series of this index call it.
    pub(crate) fn reference(&self) -> u32 {
        self.reference
    }
}
