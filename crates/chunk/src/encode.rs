//! From samples to chunks.

use crate::{Chunk, XorEncoder};

/// What Prometheus aims at: 30 minutes of samples at 15 s.
pub const SAMPLES_PER_CHUNK: usize = 120;

/// Encodes floats into XOR chunks of [`SAMPLES_PER_CHUNK`] samples. The columns must be equally long.
pub fn encode_floats(ts: &[i64], values: &[f64]) -> Vec<Chunk> {
    assert_eq!(ts.len(), values.len(), "columns of one series");
    let chunks = ts.chunks(SAMPLES_PER_CHUNK).zip(values.chunks(SAMPLES_PER_CHUNK));
    chunks
        .map(|(ts, values)| {
            let mut encoder = XorEncoder::new();
            for (&t, &v) in ts.iter().zip(values) {
                encoder.append(t, v);
            }
            encoder.finish_chunk(ts[0], ts[ts.len() - 1])
        })
        .collect()
}
