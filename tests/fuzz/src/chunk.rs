//! Chunks of every encoding, as a bucket or a peer may send them. The first byte is the encoding.

use bytes::Bytes;
use chronolith_chunk::{Chunk, Encoding, SampleColumns};
use chronolith_model::TimeRange;

pub(crate) fn run(data: &[u8]) {
    let Some((encoding, rest)) = data.split_first() else { return };
    let Ok(encoding) = Encoding::try_from(*encoding) else { return };
    let chunk = Chunk { mint: 0, maxt: 1, encoding, data: Bytes::copy_from_slice(rest) };
    let mut all = SampleColumns::default();
    let decoded = chunk.decode_into(TimeRange::ALL, &mut all);
    assert_eq!(all.ts.len(), all.values.len());
    if decoded.is_ok() {
        assert_eq!(chunk.sample_count().ok(), Some(all.len()), "{encoding}");
    } else {
        assert!(all.is_empty(), "{encoding}: something is left of what failed");
    }
    let mut part = SampleColumns::default();
    let _ = chunk.decode_into(TimeRange::new(1_000, 2_000), &mut part);
}
