//! The three bytes in front of a histogram chunk.
//!
//! ```text
//! encodings 2, 3   u16 n | u8: reset knowledge in the two high bits
//! encodings 5, 6   u16: reset knowledge in the two high bits, n in the others | u8 header of the start timestamps
//! ```

use chronolith_model::histogram::CounterReset;

use crate::{ChunkError, Encoding};

/// Length of the header.
pub(super) const HEADER_BITS: u32 = 24;
/// Most samples of a chunk with start timestamps; also the mask of their count.
pub(crate) const ST_SAMPLES_MAX: u16 = 0x3fff;

/// What the header of a histogram chunk says.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) encoding: Encoding,
    pub(super) samples: usize,
    pub(super) reset: CounterReset,
    /// Header of the start timestamps; 0 in encodings without.
    pub(super) start_ts: u8,
}

impl Header {
    pub(super) fn read(data: &[u8], encoding: Encoding) -> Result<Header, ChunkError> {
        let [a, b] =
            *data.first_chunk::<2>().ok_or(ChunkError::Truncated { encoding, len: data.len(), sample: 0 })?;
        let word = u16::from_be_bytes([a, b]);
        let third = data.get(2).copied().unwrap_or(0);
        Ok(if encoding.has_start_ts() {
            let samples = usize::from(word & ST_SAMPLES_MAX);
            Header { encoding, samples, reset: from_flags(a), start_ts: third }
        } else {
            Header { encoding, samples: usize::from(word), reset: from_flags(third), start_ts: 0 }
        })
    }

    /// Writes the header over the first bytes of `out`.
    pub(super) fn write(&self, out: &mut [u8]) {
        let samples = self.samples as u16;
        if self.encoding.has_start_ts() {
            out[..2].copy_from_slice(&(samples | u16::from(flags(self.reset)) << 8).to_be_bytes());
            out[2] = self.start_ts;
        } else {
            out[..2].copy_from_slice(&samples.to_be_bytes());
            out[2] = flags(self.reset);
        }
    }
}

/// The flags byte of a chunk that was started with this knowledge.
fn flags(reset: CounterReset) -> u8 {
    match reset {
        CounterReset::Unknown => 0,
        CounterReset::NotReset => 0b0100_0000,
        CounterReset::Reset => 0b1000_0000,
        CounterReset::Gauge => 0b1100_0000,
    }
}

/// The knowledge in a chunk's flags byte.
fn from_flags(flags: u8) -> CounterReset {
    match flags >> 6 {
        0 => CounterReset::Unknown,
        1 => CounterReset::NotReset,
        2 => CounterReset::Reset,
        _ => CounterReset::Gauge,
    }
}
