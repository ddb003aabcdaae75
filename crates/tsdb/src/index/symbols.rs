//! Symbol table: every string of the index once, sorted; series refer to them by number.
//!
//! ```text
//! ┌─────────┬───────────┬──────────────────────┬───┬─────────┐
//! │ len u32 │ count u32 │ uvarint len ‖ bytes  │ … │ CRC u32 │   len and CRC cover count and entries
//! └─────────┴───────────┴──────────────────────┴───┴─────────┘
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::{Error, Result, crc32c};

/// Every so many symbols the position is kept in memory; a lookup scans from there. Prometheus's choice: 4 bytes
/// for 32 symbols, a scan of 16 entries on average.
const SAMPLE_EVERY: usize = 32;

/// A checked symbol table over its section's bytes.
#[derive(Clone, Debug)]
pub struct Symbols {
    file: Arc<str>,
    /// Offset of the section in the index: version 1 refers to symbols by absolute position.
    offset: u64,
    version: u8,
    /// `len ‖ count ‖ entries`, without the checksum.
    section: Bytes,
    count: u32,
    /// Position in `section` of symbol 0, 32, 64, …
    samples: Vec<u32>,
}

impl Symbols {
    /// Reads the table in `section`, which starts with the length field and may be longer than the table.
    /// `offset` is where it stands in the index, `version` that index's version.
    pub fn parse(file: Arc<str>, version: u8, offset: u64, section: Bytes) -> Result<Symbols> {
        let section = checked_section(&file, offset, section)?;
        let mut c = Cursor::new(&file, offset, &section).at(4);
        let count = c.u32()?;
        if count as usize > c.remaining() {
            return Err(c.corrupt(format!("{count} symbols cannot fit {} bytes", c.remaining())));
        }
        let mut samples = Vec::with_capacity(count as usize / SAMPLE_EVERY + 1);
        for i in 0..count as usize {
            if i.is_multiple_of(SAMPLE_EVERY) {
                samples.push(c.pos() as u32);
            }
            c.uvarint_bytes()?;
        }
        Ok(Symbols { offset, version, section, count, samples, file })
    }

    /// Number of symbols.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of memory beside the section itself.
    pub fn memory_bytes(&self) -> usize {
        self.samples.capacity() * 4
    }

    /// The string of a reference.
    pub fn lookup(&self, symbol: u32) -> Result<&str> {
        let (start, len) = self.locate(symbol)?;
        self.str_at(start, len)
    }

    /// As [`Symbols::lookup`] for a reader that sees the same references again and again.
    pub fn lookup_cached(&self, symbol: u32, cache: &mut SymbolCache) -> Result<&str> {
        let slot = &mut cache.slots[symbol as usize % SymbolCache::SLOTS];
        if slot.symbol != symbol || slot.start == 0 {
            let (start, len) = self.locate(symbol)?;
            *slot = CacheSlot { symbol, start, len };
        }
        self.str_at(slot.start, slot.len)
    }

    /// The reference of a string, if it is a symbol.
    pub fn find(&self, text: &str) -> Result<Option<u32>> {
        let mut low = 0;
        let mut high = self.samples.len();
        while low < high {
            let mid = (low + high) / 2;
            if self.cursor(self.samples[mid]).uvarint_bytes()? <= text.as_bytes() {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        let Some(sample) = low.checked_sub(1) else { return Ok(None) };
        let mut c = self.cursor(self.samples[sample]);
        let first = sample * SAMPLE_EVERY;
        for i in first..(first + SAMPLE_EVERY).min(self.count as usize) {
            let at = c.pos();
            let symbol = c.uvarint_bytes()?;
            if symbol == text.as_bytes() {
                return Ok(Some(if self.version == 1 { (self.offset + at as u64) as u32 } else { i as u32 }));
            }
            if symbol > text.as_bytes() {
                break;
            }
        }
        Ok(None)
    }

    /// All symbols in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<&str>> + '_ {
        let mut c = self.cursor(8);
        (0..self.count).map(move |_| {
            let at = c.pos();
            let bytes = c.uvarint_bytes()?;
            utf8(&self.file, self.offset + at as u64, bytes)
        })
    }

    fn cursor(&self, pos: u32) -> Cursor<'_> {
        Cursor::new(&self.file, self.offset, &self.section).at(pos as usize)
    }

    /// Start and length of a symbol's bytes in the section.
    fn locate(&self, symbol: u32) -> Result<(u32, u32)> {
        let unknown = || {
            Error::corrupt(
                &self.file,
                self.offset,
                format!("symbol {symbol} of {} does not exist", self.count),
            )
        };
        let mut c;
        if self.version == 1 {
            let pos = u64::from(symbol).checked_sub(self.offset).filter(|p| *p >= 8).ok_or_else(unknown)?;
            c = self.cursor(u32::try_from(pos).map_err(|_| unknown())?);
        } else {
            if symbol >= self.count {
                return Err(unknown());
            }
            c = self.cursor(self.samples[symbol as usize / SAMPLE_EVERY]);
            for _ in 0..symbol as usize % SAMPLE_EVERY {
                c.uvarint_bytes()?;
            }
        }
        let bytes = c.uvarint_bytes()?;
        Ok(((c.pos() - bytes.len()) as u32, bytes.len() as u32))
    }

    fn str_at(&self, start: u32, len: u32) -> Result<&str> {
        let bytes = &self.section[start as usize..][..len as usize];
        utf8(&self.file, self.offset + u64::from(start), bytes)
    }
}

/// Remembers where recently used symbols lie: series next to each other share nearly all of theirs.
#[derive(Clone, Debug)]
pub struct SymbolCache {
    slots: Box<[CacheSlot]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct CacheSlot {
    symbol: u32,
    /// 0 means empty: no symbol starts there.
    start: u32,
    len: u32,
}

impl SymbolCache {
    /// 12 KiB, which stays in the first-level cache.
    const SLOTS: usize = 1024;
}

impl Default for SymbolCache {
    fn default() -> Self {
        SymbolCache { slots: vec![CacheSlot::default(); Self::SLOTS].into_boxed_slice() }
    }
}

/// Cuts `len ‖ payload` out of bytes that begin with such a section, after checking the CRC behind it.
pub(super) fn checked_section(file: &str, offset: u64, bytes: Bytes) -> Result<Bytes> {
    let mut c = Cursor::new(file, offset, &bytes);
    let len = c.u32()? as usize;
    let payload = c.take(len)?;
    if crc32c(payload) != c.u32()? {
        return Err(Error::corrupt(file, offset, "section checksum mismatch"));
    }
    Ok(bytes.slice(..4 + len))
}

pub(super) fn utf8<'a>(file: &str, offset: u64, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Error::corrupt(file, offset, "string is not UTF-8"))
}
