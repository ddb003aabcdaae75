//! From a compressed body to a batch, whatever the format; and what the decoders have in common: the bound on memory, what
//! can go wrong, what is counted.

use chronolith_model::WriteBatch;
use chronolith_storeapi::WriteReport;

use super::pool::BatchPool;
use super::protocol::Format;
use super::reply::Refusal;
use super::wire::WireError;
use super::{body, decode_v1, decode_v2};

/// A request that was read.
#[derive(Debug)]
pub(super) struct Decoded {
    /// What there is to write.
    pub(super) batch: WriteBatch,
    /// What was read beside it.
    pub(super) stats: DecodeStats,
    /// Series that were left out, where the format lets the others be written.
    pub(super) refused: WriteReport,
}

impl Format {
    /// The most memory that a request takes while it is decoded, its body included, of the `bytes_max` there are.
    pub(super) fn memory_max(self, body_len: u64, bytes_max: u64) -> u64 {
        let amplification = match self {
            Format::V1 => AMPLIFICATION_MAX,
            Format::V2 => AMPLIFICATION_MAX_V2,
        };
        let columns = columns_bytes_max(body_len as usize, amplification) as u64;
        body_len.saturating_add(columns).min(bytes_max)
    }

    /// Decompresses and decodes into memory of the pool; `memory_max` is what [`Format::memory_max`] said.
    pub(super) fn decode(
        self,
        compressed: &[u8],
        body_len: usize,
        memory_max: u64,
        pool: &BatchPool,
    ) -> Result<Decoded, Refusal> {
        let mut slot = pool.take();
        match self {
            Format::V1 => {
                let read = body::decompress(compressed, body_len, &mut slot.body)
                    .and_then(|()| Ok(decode_v1::decode(&slot.body, &mut slot.builder)?));
                match read {
                    Ok(stats) => {
                        let batch = slot.builder.finish(slot.body.freeze());
                        Ok(Decoded { batch, stats, refused: WriteReport::default() })
                    }
                    Err(refusal) => {
                        pool.put(slot);
                        Err(refusal)
                    }
                }
            }
            Format::V2 => {
                let mut scratch = pool.take_scratch();
                let columns = usize::try_from(memory_max).unwrap_or(usize::MAX).saturating_sub(body_len);
                let read = body::decompress(compressed, body_len, &mut scratch.body).and_then(|()| {
                    let symbols = &mut scratch.symbols;
                    Ok(decode_v2::decode(&scratch.body, columns, symbols, &mut slot.body, &mut slot.builder)?)
                });
                pool.put_scratch(scratch);
                match read {
                    Ok(decode_v2::DecodedV2 { stats, refused }) => {
                        let batch = slot.builder.finish_rendered(slot.body.freeze());
                        Ok(Decoded { batch, stats, refused })
                    }
                    Err(refusal) => {
                        pool.put(slot);
                        Err(refusal)
                    }
                }
            }
        }
    }
}

/// Bytes of columns for a byte of body. Dense native histograms come to 6 (a bucket is one byte on the wire and eight
/// here), floats to 2.
pub(super) const AMPLIFICATION_MAX: usize = 8;
/// The same for remote write 2.0, where some 60 bytes of references stand for all labels of a series, and a usual request
/// is a sixth of what it is in 1.0.
const AMPLIFICATION_MAX_V2: usize = 64;
/// What a body of any size may use besides, so that small ones need no thought.
pub(super) const COLUMNS_BYTES_MIN: usize = 1 << 20;
/// What a series, a sample, a histogram, an exemplar and a metadata entry are charged, beside the vectors that they own.
pub(super) const SERIES_BYTES: usize = 32;
pub(super) const SAMPLE_BYTES: usize = 16;
pub(super) const HISTOGRAM_BYTES: usize = 256;
pub(super) const EXEMPLAR_BYTES: usize = 64;
pub(super) const METADATA_BYTES: usize = 96;

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the protobuf that it should be.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// More elements than a body of this size can honestly hold.
    #[error("the request's elements take more than {bytes_max} bytes of memory")]
    TooManyElements {
        /// The bound that was reached.
        bytes_max: usize,
    },
}

/// What was read beside what is in the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeStats {
    /// Metadata entries.
    pub metadata: usize,
    /// Metadata entries left out because they are not text, or name no metric.
    pub metadata_dropped: usize,
    /// Exemplars left out because their labels cannot be read. As in Prometheus, they do not fail a request.
    pub exemplars_dropped: usize,
}

/// Memory for the columns of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    left: usize,
}

impl Budget {
    /// For a body of remote write 1.0 of this length.
    pub(super) fn for_body(body_len: usize) -> Self {
        Budget::new(columns_bytes_max(body_len, AMPLIFICATION_MAX))
    }

    /// Of this many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Budget { bytes_max, left: bytes_max }
    }

    #[inline(always)]
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(DecodeError::TooManyElements { bytes_max: self.bytes_max }),
        }
    }
}

/// The most memory that the columns decoded from a body of this length can take.
fn columns_bytes_max(body_len: usize, amplification: usize) -> usize {
    body_len.saturating_mul(amplification).saturating_add(COLUMNS_BYTES_MIN)
}
