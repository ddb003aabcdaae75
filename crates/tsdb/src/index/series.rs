//! One series of the index: label references and chunk metas.
//!
//! ```text
//! uvarint len ‖ body ‖ CRC(body), starting at a multiple of 16
//! body: #labels ‖ (name ref ‖ value ref)… ‖ #chunks
//!       first chunk:  varint mint ‖ uvarint maxt-mint ‖ uvarint ref
//!       later chunks: uvarint mint - previous maxt ‖ uvarint maxt-mint ‖ varint ref - previous ref
//! ```

use chronolith_model::TimeRange;

use crate::cursor::{Cursor, put_uvarint, put_varint};
use crate::{Result, crc32c};

/// Where a chunk lies and what time it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkMeta {
    /// Time of the first sample.
    pub mint: i64,
    /// Time of the last sample, included.
    pub maxt: i64,
    /// `(segment number − 1) << 32 | offset of the chunk's length field`.
    pub chunk_ref: u64,
}

impl ChunkMeta {
    /// The chunk's time range.
    pub fn range(&self) -> TimeRange {
        TimeRange::new(self.mint, self.maxt)
    }

    /// Segment file (from 0) and byte offset in it.
    pub fn place(&self) -> (usize, usize) {
        ((self.chunk_ref >> 32) as usize, self.chunk_ref as u32 as usize)
    }
}

/// A decoded series; reuse one value for many series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesRecord {
    /// Symbol references of name and value, in label order.
    pub labels: Vec<(u32, u32)>,
    /// Chunk metas in time order; after [`SeriesRecord::decode`], those that overlap its range.
    pub chunks: Vec<ChunkMeta>,
}

impl SeriesRecord {
    /// Bytes of the whole entry whose first bytes are given (10 are enough), length field and checksum included.
    pub fn entry_bytes(file: &str, offset: u64, head: &[u8]) -> Result<u64> {
        let mut c = Cursor::new(file, offset, head);
        let body = c.uvarint()?;
        body.checked_add(c.pos() as u64 + 4).ok_or_else(|| c.corrupt("series length overflows"))
    }

    /// Decodes the entry at the start of `data`, which stands at `offset` in the index, keeping the chunks that
    /// overlap `range`. Gives back the bytes used.
    pub fn decode(&mut self, file: &str, offset: u64, data: &[u8], range: TimeRange) -> Result<usize> {
        let mut entry = Cursor::new(file, offset, data);
        let body = entry.uvarint_bytes()?;
        let body_pos = entry.pos() - body.len();
        if crc32c(body) != entry.u32()? {
            return Err(Cursor::new(file, offset, data).corrupt("series checksum mismatch"));
        }
        self.decode_body(Cursor::new(file, offset + body_pos as u64, body), range)?;
        Ok(entry.pos())
    }

    fn decode_body(&mut self, mut c: Cursor<'_>, range: TimeRange) -> Result<()> {
        self.labels.clear();
        self.chunks.clear();
        // The vectors grow with the bytes that are really there, never by the counts.
        for _ in 0..c.uvarint()? {
            let name = c.uvarint32()?;
            self.labels.push((name, c.uvarint32()?));
        }
        let count = c.uvarint()?;
        let mut last = ChunkMeta { mint: 0, maxt: 0, chunk_ref: 0 };
        for i in 0..count {
            let start = c;
            let overflow = || start.corrupt("chunk time or reference overflows");
            let mint = if i == 0 {
                c.varint()?
            } else {
                // Where a chunk begins before the one in front of it ended, writers let the difference wrap.
                last.maxt.wrapping_add_unsigned(c.uvarint()?)
            };
            let maxt = mint.checked_add_unsigned(c.uvarint()?).ok_or_else(overflow)?;
            let chunk_ref = if i == 0 {
                c.uvarint()?
            } else {
                last.chunk_ref.checked_add_signed(c.varint()?).ok_or_else(overflow)?
            };
            last = ChunkMeta { mint, maxt, chunk_ref };
            if mint > range.maxt {
                // Chunks are in time order, so nothing further overlaps.
                return Ok(());
            }
            if maxt >= range.mint {
                self.chunks.push(last);
            }
        }
        if c.remaining() > 0 {
            return Err(c.corrupt(format!("{} bytes after the last chunk", c.remaining())));
        }
        Ok(())
    }

    /// Appends the entry, without padding. `body` is scratch space.
    pub(super) fn encode(&self, body: &mut Vec<u8>, out: &mut Vec<u8>) {
        body.clear();
        put_uvarint(body, self.labels.len() as u64);
        for (name, value) in &self.labels {
            put_uvarint(body, u64::from(*name));
            put_uvarint(body, u64::from(*value));
        }
        put_uvarint(body, self.chunks.len() as u64);
        let mut last: Option<&ChunkMeta> = None;
        for chunk in &self.chunks {
            match last {
                None => put_varint(body, chunk.mint),
                Some(last) => put_uvarint(body, chunk.mint.wrapping_sub(last.maxt) as u64),
            }
            put_uvarint(body, chunk.maxt.wrapping_sub(chunk.mint) as u64);
            match last {
                None => put_uvarint(body, chunk.chunk_ref),
                Some(last) => put_varint(body, chunk.chunk_ref.wrapping_sub(last.chunk_ref) as i64),
            }
            last = Some(chunk);
        }
        put_uvarint(out, body.len() as u64);
        out.extend_from_slice(body);
        out.extend_from_slice(&crc32c(body).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(
            labels in prop::collection::vec((any::<u32>(), any::<u32>()), 0..20),
            first in any::<i32>(),
            steps in prop::collection::vec((1u32..1 << 30, 0u32..1 << 30, any::<u32>()), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut t = i64::from(first);
            let chunks: Vec<_> = steps
                .iter()
                .map(|&(gap, length, r)| {
                    let mint = t + i64::from(gap);
                    t = mint + i64::from(length);
                    ChunkMeta { mint, maxt: t, chunk_ref: u64::from(r) << 8 }
                })
                .collect();
            let series = SeriesRecord { labels, chunks };
            let mut bytes = Vec::new();
            series.encode(&mut Vec::new(), &mut bytes);
            let mut got = SeriesRecord::default();
            prop_assert_eq!(got.decode("f", 0, &bytes, TimeRange::ALL).unwrap(), bytes.len());
            prop_assert_eq!(&got, &series);
            prop_assert_eq!(SeriesRecord::entry_bytes("f", 0, &bytes).unwrap(), bytes.len() as u64);
            let at = cut.index(bytes.len());
            prop_assert!(got.decode("f", 0, &bytes[..at], TimeRange::ALL).is_err());
        }
    }

    #[test]
    fn keeps_only_overlapping_chunks() {
        let chunk = |mint, maxt| ChunkMeta { mint, maxt, chunk_ref: mint as u64 };
        let series = SeriesRecord { labels: vec![], chunks: vec![chunk(0, 9), chunk(10, 19), chunk(20, 29)] };
        let mut bytes = Vec::new();
        series.encode(&mut Vec::new(), &mut bytes);
        let mut got = SeriesRecord::default();
        got.decode("f", 0, &bytes, TimeRange::new(9, 10)).unwrap();
        assert_eq!(got.chunks, [chunk(0, 9), chunk(10, 19)]);
    }
}
