//! From a compressed body to a batch, whatever the format; and what the decoders have in common: the bound on memory, what
//! can go wrong, what is counted.

use std::time::Instant;

use bytes::BytesMut;
use chronolith_model::{TenantId, WriteBatch};
use chronolith_storeapi::WriteReport;
use parking_lot::Mutex;

use super::pool::{BatchPool, BatchSlot};
use super::protocol::{Encoding, Format};
use super::reply::Refusal;
use super::wire::WireError;
use super::{body, decode_v1, decode_v2};
use crate::otlp::{self, Deltas, OtlpSettings, Totals};

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
            Format::OtlpProtobuf | Format::OtlpJson => AMPLIFICATION_MAX_OTLP,
        };
        let columns = columns_bytes_max(body_len as usize, amplification) as u64;
        body_len.saturating_add(columns).min(bytes_max)
    }

    /// Decompresses and decodes into memory of the pool; `memory_max` is what [`Format::memory_max`] said. Points of OTLP that
    /// are deltas are added up in `totals`, if any.
    pub(super) fn decode(
        self,
        compressed: Compressed<'_>,
        memory_max: u64,
        otlp: &OtlpSettings,
        tenant: &TenantId,
        totals: Option<&Mutex<Totals>>,
        pool: &BatchPool,
    ) -> Result<Decoded, Refusal> {
        let mut slot = pool.take();
        let columns = usize::try_from(memory_max).unwrap_or(usize::MAX).saturating_sub(compressed.len);
        if matches!(self, Format::V1 | Format::V2) {
            let read = compressed.decompress(&mut slot.body).and_then(|()| {
                let BatchSlot { body, builder } = &mut slot;
                if self == Format::V1 {
                    return Ok((decode_v1::decode(body, builder)?, WriteReport::default()));
                }
                let mut symbols = pool.take_symbols();
                let hearing = Some(pool.hearing(tenant));
                let read = decode_v2::decode(body, columns, pool.label_key(), hearing, &mut symbols, builder);
                pool.put_symbols(symbols);
                let read = read?;
                Ok((read.stats, read.refused))
            });
            return match read {
                Ok((stats, refused)) => {
                    let batch = slot.builder.finish(slot.body.freeze());
                    Ok(Decoded { batch, stats, refused })
                }
                Err(refusal) => {
                    pool.put(slot);
                    Err(refusal)
                }
            };
        }
        let mut plain = pool.take_plain();
        let read = compressed.decompress(&mut plain).and_then(|()| {
            let protobuf = match self {
                Format::OtlpJson => Some(otlp::to_protobuf(&plain).map_err(Refusal::Json)?),
                _ => None,
            };
            let message = protobuf.as_deref().unwrap_or(&plain);
            let deltas = totals.map(|totals| Deltas::new(totals, pool.label_key(), Instant::now()));
            let (rendered, builder) = (&mut slot.body, &mut slot.builder);
            let read = otlp::translate(message, otlp, deltas, columns, rendered, builder)?;
            Ok((read.stats, read.refused))
        });
        pool.put_plain(plain);
        match read {
            Ok((stats, refused)) => {
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

/// A body as it came, and what it decompresses to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compressed<'a> {
    pub(super) encoding: Encoding,
    pub(super) body: &'a [u8],
    /// Bytes when decompressed.
    pub(super) len: usize,
}

impl Compressed<'_> {
    fn decompress(&self, into: &mut BytesMut) -> Result<(), Refusal> {
        body::decompress(self.encoding, self.body, self.len, into)
    }
}

/// Bytes of columns for a byte of body. Dense native histograms come to 6 (a bucket is one byte on the wire and eight
/// here), floats to 2.
pub(super) const AMPLIFICATION_MAX: usize = 8;
/// The same for remote write 2.0, where some 60 bytes of references stand for all labels of a series, and a usual request
/// is a sixth of what it is in 1.0.
const AMPLIFICATION_MAX_V2: usize = 64;
/// The same for OTLP, where the attributes of a resource and of a histogram stand for those of many series. JSON takes some
/// ten times its size while it is read.
const AMPLIFICATION_MAX_OTLP: usize = 64;
/// What a body of any size may use besides, so that small ones need no thought.
pub(super) const COLUMNS_BYTES_MIN: usize = 1 << 20;
/// What a series, a sample, a histogram, an exemplar and a metadata entry are charged, beside the vectors that they own.
pub(crate) const SERIES_BYTES: usize = 32;
pub(crate) const SAMPLE_BYTES: usize = 16;
pub(crate) const HISTOGRAM_BYTES: usize = 256;
pub(crate) const EXEMPLAR_BYTES: usize = 64;
pub(crate) const METADATA_BYTES: usize = 96;

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
pub(crate) struct Budget {
    bytes_max: usize,
    left: usize,
}

impl Budget {
    /// For a body of remote write 1.0 of this length.
    pub(super) fn for_body(body_len: usize) -> Self {
        Budget::new(columns_bytes_max(body_len, AMPLIFICATION_MAX))
    }

    /// Of this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Budget { bytes_max, left: bytes_max }
    }

    #[inline(always)]
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.exceeded()),
        }
    }

    /// What is said when more was asked for.
    #[cold]
    pub(crate) fn exceeded(&self) -> DecodeError {
        DecodeError::TooManyElements { bytes_max: self.bytes_max }
    }
}

/// The most memory that the columns decoded from a body of this length can take.
fn columns_bytes_max(body_len: usize, amplification: usize) -> usize {
    body_len.saturating_mul(amplification).saturating_add(COLUMNS_BYTES_MIN)
}

#[cfg(test)]
mod tests;
