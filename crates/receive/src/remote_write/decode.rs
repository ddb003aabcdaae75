//! What the decoders have in common: the bound on memory, what can go wrong, what is counted.

use chronolith_model::WriteBatchBuilder;

use super::decode_v1;
use super::protocol::Format;
use super::wire::WireError;

impl Format {
    /// The most memory that a request takes while it is decoded: its body and the columns.
    pub(super) fn memory_max(self, body_len: u64) -> u64 {
        body_len + columns_bytes_max(body_len as usize) as u64
    }

    /// Reads `body` into `builder`, which is started over.
    pub(super) fn decode(
        self,
        body: &[u8],
        builder: &mut WriteBatchBuilder,
    ) -> Result<DecodeStats, DecodeError> {
        match self {
            Format::V1 => decode_v1::decode(body, builder),
        }
    }
}

/// Bytes of columns for a byte of body. Dense native histograms come to 6 (a bucket is one byte on the wire and eight
/// here), floats to 2.
pub(super) const AMPLIFICATION_MAX: usize = 8;
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
    pub(super) fn for_body(body_len: usize) -> Self {
        let bytes_max = columns_bytes_max(body_len);
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
pub(super) fn columns_bytes_max(body_len: usize) -> usize {
    body_len.saturating_mul(AMPLIFICATION_MAX).saturating_add(COLUMNS_BYTES_MIN)
}
