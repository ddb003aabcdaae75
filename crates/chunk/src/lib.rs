//! Chunk encodings: XOR, XOR2, native histograms with and without start timestamps, downsampled aggregates.
//!
//! One file per encoding behind one small interface, [`Chunk`]. Everything is pure and synchronous. Bytes come from
//! outside (a bucket, a peer): decoding never panics and never allocates more than the chunk's length justifies.
//! Encoders are canonical: the same samples give the same bytes as Prometheus writes.

mod aggr;
mod aggr_histogram;
mod bits;
mod chunk;
mod columns;
mod counter;
mod encode;
mod error;
mod histogram;
mod start_ts;
mod varbit;
mod varint;
mod xor;
mod xor2;

pub use aggr::{AggrChunk, Aggregate};
pub use aggr_histogram::{AggrHistogramEncoder, HistogramWindow};
pub use bits::WordSink;
pub use chunk::{Chunk, ChunkIter, Encoding};
pub use columns::SampleColumns;
pub use counter::CounterTotals;
pub use encode::{SAMPLES_PER_CHUNK, encode_columns, encode_floats};
pub use error::ChunkError;
pub use histogram::{FloatHistogramEncoder, HistogramEncoder, HistogramLayout, HistogramReader};
pub use xor::{XorEncoder, XorState};
pub use xor2::Xor2Encoder;
