//! What can be wrong with a chunk's bytes.

use crate::Encoding;

/// Why a chunk cannot be decoded. Callers add block, series and offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The encoding byte is none that exists.
    #[error("unknown chunk encoding {0}")]
    UnknownEncoding(u8),
    /// The encoding exists, but not for this use.
    #[error("chunk encoding {encoding} is not supported: {reason}")]
    Unsupported {
        /// The encoding.
        encoding: Encoding,
        /// Why.
        reason: &'static str,
    },
    /// The data ended inside a sample.
    #[error("{encoding} chunk of {len} bytes ends inside sample {sample}")]
    Truncated {
        /// The encoding.
        encoding: Encoding,
        /// Bytes that were there.
        len: usize,
        /// Sample that could not be completed, from 0.
        sample: usize,
    },
    /// The data contradicts itself.
    #[error("{encoding} chunk is corrupt at sample {sample}: {reason}")]
    Corrupt {
        /// The encoding.
        encoding: Encoding,
        /// Sample at which it was noticed, from 0.
        sample: usize,
        /// What contradicts.
        reason: &'static str,
    },
    /// A chunk cannot take another sample: its counter is full.
    #[error("chunk is full: {0} samples")]
    Full(u16),
}
