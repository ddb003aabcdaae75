//! Chunk encodings: XOR, XOR2, native histograms, downsampled aggregates.
//!
//! One file per encoding behind one small interface, [`Chunk`]. Everything is pure and synchronous. Bytes come from
//! outside (a bucket, a peer): decoding never panics and never allocates more than the chunk's length justifies.
//! Encoders are canonical: the same samples give the same bytes as Prometheus writes.

#[allow(dead_code)] // The histogram codecs of the next change use the rest.
mod bits;
mod chunk;
mod columns;
mod encode;
mod error;
mod varint;
mod xor;

pub use bits::WordSink;
pub use chunk::{Chunk, ChunkIter, Encoding};
pub use columns::SampleColumns;
pub use encode::{SAMPLES_PER_CHUNK, encode_floats};
pub use error::ChunkError;
pub use xor::{XorEncoder, XorState};
