//! Thanos's chunks of downsampled data: up to five chunks, one an aggregate.
//!
//! ```text
//! five entries in the order count, sum, min, max, counter:
//!   uvarint L | [encoding u8 | L bytes], nothing after L when it is 0
//! ```
//!
//! L does not count the encoding byte. Thanos reads an absent last entry as damage, so builders always give a counter.

use bytes::Bytes;

use crate::varint::{push_uvarint, split_uvarint};
use crate::{Chunk, ChunkError, Encoding};

/// One of the five aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Aggregate {
    /// Number of samples.
    Count = 0,
    /// Sum of the samples.
    Sum = 1,
    /// Smallest sample.
    Min = 2,
    /// Largest sample.
    Max = 3,
    /// Counter with its resets applied.
    Counter = 4,
}

impl Aggregate {
    /// All of them, in the order of the format.
    pub const ALL: [Aggregate; 5] =
        [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Counter];
}

/// The parts of an aggregate chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AggrChunk {
    parts: [Option<(Encoding, Bytes)>; 5],
}

impl AggrChunk {
    /// Takes the data of a chunk with [`Encoding::Aggregate`] apart, without copying.
    pub fn parse(data: &Bytes) -> Result<AggrChunk, ChunkError> {
        let encoding = Encoding::Aggregate;
        let mut parts: [Option<(Encoding, Bytes)>; 5] = Default::default();
        let mut rest = &data[..];
        for (i, part) in parts.iter_mut().enumerate() {
            let truncated = ChunkError::Truncated { encoding, len: data.len(), sample: i };
            let len = split_uvarint(&mut rest).ok_or_else(|| truncated.clone())?;
            if len == 0 {
                continue;
            }
            let (&byte, after) = rest.split_first().ok_or_else(|| truncated.clone())?;
            let len = usize::try_from(len).ok().filter(|len| *len <= after.len()).ok_or(truncated)?;
            let sub = Encoding::try_from(byte)?;
            if !matches!(sub, Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram | Encoding::Xor2)
            {
                let reason = "sub-chunk has an encoding that cannot be one";
                return Err(ChunkError::Corrupt { encoding, sample: i, reason });
            }
            *part = Some((sub, data.slice_ref(&after[..len])));
            rest = &after[len..];
        }
        Ok(AggrChunk { parts })
    }

    /// Sets an aggregate.
    pub fn with(mut self, which: Aggregate, encoding: Encoding, data: Bytes) -> AggrChunk {
        self.parts[which as usize] = Some((encoding, data));
        self
    }

    /// An aggregate as a chunk of its own, if it is there.
    pub fn get(&self, which: Aggregate, mint: i64, maxt: i64) -> Option<Chunk> {
        let (encoding, data) = self.parts[which as usize].clone()?;
        Some(Chunk { mint, maxt, encoding, data })
    }

    /// True for native histograms: the counter (which is always there) or the sum is of them.
    pub fn is_histogram(&self) -> bool {
        let of_histograms =
            |which: Aggregate| matches!(&self.parts[which as usize], Some((e, _)) if !e.is_float());
        of_histograms(Aggregate::Counter) || of_histograms(Aggregate::Sum)
    }

    /// Number of downsampled samples: those of the count.
    pub fn sample_count(&self) -> Result<usize, ChunkError> {
        self.get(Aggregate::Count, 0, 0).map_or(Ok(0), |c| c.sample_count())
    }

    /// The chunk's data.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Some((encoding, data)) if !data.is_empty() => {
                    push_uvarint(&mut out, data.len() as u64);
                    out.push(encoding.as_u8());
                    out.extend_from_slice(data);
                }
                _ => out.push(0),
            }
        }
        Bytes::from(out)
    }

    /// The chunk, covering `mint` to `maxt`.
    pub fn to_chunk(&self, mint: i64, maxt: i64) -> Chunk {
        Chunk { mint, maxt, encoding: Encoding::Aggregate, data: self.to_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode_floats;

    fn sample() -> AggrChunk {
        let mut aggr = AggrChunk::default();
        for (i, which) in Aggregate::ALL.into_iter().enumerate().filter(|(i, _)| *i != 2) {
            let data = encode_floats(&[1, 2, 3], &[i as f64; 3]).remove(0).data;
            aggr = aggr.with(which, Encoding::Xor, data);
        }
        aggr
    }

    #[test]
    fn parts_come_back() {
        let aggr = sample();
        let chunk = aggr.to_chunk(1, 3);
        assert!(matches!(chunk.iter(), Err(ChunkError::Unsupported { .. })));
        let parsed = AggrChunk::parse(&chunk.data).unwrap();
        assert_eq!(parsed, aggr);
        assert_eq!(parsed.sample_count(), Ok(3));
        assert_eq!(parsed.get(Aggregate::Min, 1, 3), None);
        assert_eq!(parsed.get(Aggregate::Max, 1, 3).unwrap().iter().unwrap().count(), 3);
        for cut in 0..chunk.data.len() {
            assert!(AggrChunk::parse(&chunk.data.slice(..cut)).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(data in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = AggrChunk::parse(&Bytes::from(data));
        }
    }
}
