//! Frames: what surrounds a record in a segment, and how damage is found.
//!
//! ```text
//! segment:  "CHRONWAL" ‖ version u32 = 1 ‖ segment number u64 ‖ crc32c of the 20 bytes u32
//! frame:    body length u32 ‖ crc32c of (length ‖ body) u32 ‖ body            all little endian
//! ```
//!
//! The length is under the checksum, so a frame of zeros (a file that was extended but not filled) is damage, not
//! an empty record.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};

/// Length of [`segment_header`].
pub const SEGMENT_HEADER_BYTES: usize = 24;
const MAGIC: &[u8; 8] = b"CHRONWAL";
const VERSION: u32 = 1;
pub(crate) const FRAME_HEADER_BYTES: usize = 8;
/// The longest body that is believed. A request is bounded by 32 MiB of remote write; no record comes near.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 20;
/// Bytes asked of the store at once while reading.
const READ_BYTES: usize = 1 << 20;

pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    if let [one] = parts {
        return crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, one) as u32;
    }
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

/// The first bytes of segment `id`.
pub fn segment_header(id: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut out = [0; SEGMENT_HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&id.to_le_bytes());
    let crc = crc32c(&[&out[..20]]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Leaves room for a frame's header; the body follows. The answer goes to [`frame_end`].
pub fn frame_begin(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    at
}

/// Fills in the header of the frame that began at `at` and ends at the buffer's end.
pub fn frame_end(out: &mut [u8], at: usize) {
    let body = out.len() - at - FRAME_HEADER_BYTES;
    assert!(body <= BODY_BYTES_MAX, "a record is bounded by the request that caused it");
    let len = (body as u32).to_le_bytes();
    out[at..at + 4].copy_from_slice(&len);
    let crc = crc32c(&[&len, &out[at + FRAME_HEADER_BYTES..]]);
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Why a segment cannot be read further.
#[derive(Debug)]
pub enum FrameDamage {
    /// The segment's header is missing, cut or of another version.
    Header,
    /// The segment ends inside a frame.
    Cut,
    /// A checksum does not match, or a length is impossible.
    Checksum,
    /// The store failed.
    Io(io::Error),
}

impl std::fmt::Display for FrameDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameDamage::Header => f.write_str("segment header is damaged"),
            FrameDamage::Cut => f.write_str("segment ends inside a record"),
            FrameDamage::Checksum => f.write_str("record checksum does not match"),
            FrameDamage::Io(e) => write!(f, "reading failed: {e}"),
        }
    }
}

/// Reads the frames of one segment. Bodies are slices of large shared buffers, so that they can be handed to other
/// threads without a copy.
pub struct FrameReader {
    source: Box<dyn Read + Send>,
    /// Bytes read and not yet given out.
    buf: Bytes,
    ended: bool,
    /// Offset of the next frame.
    offset: u64,
}

impl FrameReader {
    /// Reads and checks the segment's header.
    pub fn open(source: Box<dyn Read + Send>, id: u64) -> Result<Self, FrameDamage> {
        let mut reader = FrameReader { source, buf: Bytes::new(), ended: false, offset: 0 };
        if !reader.fill(SEGMENT_HEADER_BYTES)? || reader.buf[..SEGMENT_HEADER_BYTES] != segment_header(id) {
            return Err(FrameDamage::Header);
        }
        let _ = reader.buf.split_to(SEGMENT_HEADER_BYTES);
        reader.offset = SEGMENT_HEADER_BYTES as u64;
        Ok(reader)
    }

    /// Where the next frame begins: everything before is whole.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record's body; `None` at a clean end.
    pub fn next_body(&mut self) -> Result<Option<Bytes>, FrameDamage> {
        if !self.fill(FRAME_HEADER_BYTES)? {
            return if self.buf.is_empty() { Ok(None) } else { Err(FrameDamage::Cut) };
        }
        let word = |at: usize| {
            u32::from_le_bytes([self.buf[at], self.buf[at + 1], self.buf[at + 2], self.buf[at + 3]])
        };
        let (len, crc) = (word(0) as usize, word(4));
        if len > BODY_BYTES_MAX {
            return Err(FrameDamage::Checksum);
        }
        if !self.fill(FRAME_HEADER_BYTES + len)? {
            return Err(FrameDamage::Cut);
        }
        let mut frame = self.buf.split_to(FRAME_HEADER_BYTES + len);
        if crc32c(&[&frame[..4], &frame[FRAME_HEADER_BYTES..]]) != crc {
            return Err(FrameDamage::Checksum);
        }
        self.offset += frame.len() as u64;
        let _ = frame.split_to(FRAME_HEADER_BYTES);
        Ok(Some(frame))
    }

    /// Reads until `n` bytes are there; false when the segment ends before. Memory grows with the bytes that are
    /// really there, never with what a damaged length promises.
    fn fill(&mut self, n: usize) -> Result<bool, FrameDamage> {
        if self.buf.len() >= n {
            return Ok(true);
        }
        let mut next = BytesMut::with_capacity(self.buf.len() + READ_BYTES);
        next.extend_from_slice(&self.buf);
        while next.len() < n && !self.ended {
            let at = next.len();
            next.resize(at + READ_BYTES, 0);
            let mut filled = at;
            while filled < next.len() {
                match self.source.read(&mut next[filled..]) {
                    Ok(0) => {
                        self.ended = true;
                        break;
                    }
                    Ok(read) => filled += read,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(FrameDamage::Io(e)),
                }
            }
            next.truncate(filled);
        }
        self.buf = next.freeze();
        Ok(self.buf.len() >= n)
    }
}
