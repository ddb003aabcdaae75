//! Table of contents: the last 52 bytes of an index.

use crate::cursor::Cursor;
use crate::{Error, Result, crc32c};

/// Where each section begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Toc {
    /// Symbol table.
    pub symbols: u64,
    /// First series.
    pub series: u64,
    /// End of the series section, since label indices are no longer written.
    pub label_indices: u64,
    /// End of the postings lists, since the label offset table is no longer written.
    pub label_offset_table: u64,
    /// Postings lists.
    pub postings: u64,
    /// Postings offset table.
    pub postings_offset_table: u64,
}

impl Toc {
    /// Encoded length.
    pub const BYTES: usize = 6 * 8 + 4;

    /// Reads the table from the last [`Toc::BYTES`] bytes of an index of `index_bytes` bytes, and checks that the
    /// sections lie in the file in their order.
    pub fn parse(file: &str, index_bytes: u64, tail: &[u8]) -> Result<Toc> {
        let offset = index_bytes.saturating_sub(Self::BYTES as u64);
        let tail = tail
            .len()
            .checked_sub(Self::BYTES)
            .map(|skip| &tail[skip..])
            .ok_or_else(|| Error::corrupt(file, offset, "too short for a table of contents"))?;
        let mut c = Cursor::new(file, offset, tail);
        let toc = Toc {
            symbols: c.u64()?,
            series: c.u64()?,
            label_indices: c.u64()?,
            label_offset_table: c.u64()?,
            postings: c.u64()?,
            postings_offset_table: c.u64()?,
        };
        if crc32c(&tail[..Self::BYTES - 4]) != c.u32()? {
            return Err(Error::corrupt(file, offset, "table of contents: checksum mismatch"));
        }
        let ordered = toc.symbols <= toc.series
            && toc.series <= toc.postings
            && toc.postings <= toc.postings_offset_table
            && toc.postings_offset_table <= offset;
        if !ordered {
            return Err(Error::corrupt(file, offset, format!("sections out of order: {toc:?}")));
        }
        Ok(toc)
    }

    /// Where the series section ends.
    pub fn series_end(&self) -> u64 {
        if (self.series..=self.postings).contains(&self.label_indices) {
            self.label_indices
        } else {
            self.postings
        }
    }

    /// An upper bound for the end of the last postings list.
    pub fn postings_end(&self) -> u64 {
        if (self.postings..=self.postings_offset_table).contains(&self.label_offset_table) {
            self.label_offset_table
        } else {
            self.postings_offset_table
        }
    }

    /// The encoded table with its checksum.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let fields = [
            self.symbols,
            self.series,
            self.label_indices,
            self.label_offset_table,
            self.postings,
            self.postings_offset_table,
        ];
        for (slot, field) in out.chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_be_bytes());
        }
        let crc = crc32c(&out[..Self::BYTES - 4]);
        out[Self::BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        out
    }
}
