//! Which chunks may travel as they are.
//!
//! Thanos's StoreAPI has three encodings: XOR and the two of native histograms, none with start timestamps. Our own clients say in
//! [`SeriesRequest.chunk_encodings`](crate::proto::thanos::SeriesRequest) what else they read; Thanos's skip the field and do
//! not send it. A server that is not told rewrites: values and times stay, start timestamps are lost. So no capability has to
//! be known beforehand, and a querier of Thanos between two processes of ours is served like any other.

use std::borrow::Cow;

use chronolith_chunk::{Encoding, SampleColumns, encode_columns};
use chronolith_model::TimeRange;

use crate::AggrChunk;

/// Encodings that an asker reads beside XOR, histogram and float histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChunkEncodings(u8);

impl ChunkEncodings {
    const KNOWN: [Encoding; 3] = [Encoding::Xor2, Encoding::HistogramSt, Encoding::FloatHistogramSt];

    /// All that this version reads.
    pub(crate) const ALL: ChunkEncodings = ChunkEncodings(
        1 << Encoding::Xor2 as u8 | 1 << Encoding::HistogramSt as u8 | 1 << Encoding::FloatHistogramSt as u8,
    );

    /// From the numbers of a request; those of later versions are skipped.
    pub(crate) fn from_wire(numbers: &[u32]) -> Self {
        let known = Self::KNOWN.iter().filter(|e| numbers.contains(&u32::from(e.as_u8())));
        ChunkEncodings(known.fold(0, |set, e| set | 1 << e.as_u8()))
    }

    /// The numbers for a request.
    pub(crate) fn to_wire(self) -> Vec<u32> {
        Self::KNOWN.iter().filter(|e| self.contains(**e)).map(|e| u32::from(e.as_u8())).collect()
    }

    fn contains(self, encoding: Encoding) -> bool {
        encoding.as_u8() <= 3 || 1u8.checked_shl(encoding.as_u8().into()).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The chunks in encodings that the asker reads.
    pub(crate) fn readable(self, chunks: &[AggrChunk]) -> Cow<'_, [AggrChunk]> {
        let foreign = |c: &AggrChunk| c.raw().is_some_and(|c| !self.contains(c.encoding));
        if !chunks.iter().any(foreign) {
            return Cow::Borrowed(chunks);
        }
        let mut out = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            match chunk.raw().filter(|_| foreign(chunk)) {
                None => out.push(chunk.clone()),
                Some(raw) => {
                    let mut columns = SampleColumns::default();
                    let read = raw.decode_into(TimeRange::ALL, &mut columns);
                    match read.and_then(|()| encode_columns(&columns)) {
                        Ok(chunks) => out.extend(chunks.into_iter().map(AggrChunk::Raw)),
                        // The reader meets the unknown type and names it.
                        Err(_) => out.push(chunk.clone()),
                    }
                }
            }
        }
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use chronolith_chunk::{Chunk, Xor2Encoder};

    use super::*;

    fn with_start_timestamps() -> (Chunk, Vec<(i64, f64)>) {
        let mut encoder = Xor2Encoder::new();
        let samples: Vec<(i64, f64)> = (0..100).map(|i| (i * 15_000, i as f64 / 4.0)).collect();
        for (t, v) in &samples {
            encoder.append(7, *t, *v).unwrap();
        }
        (encoder.finish_chunk(0, 99 * 15_000), samples)
    }

    #[test]
    fn who_does_not_ask_gets_thanos_encodings() {
        let (chunk, samples) = with_start_timestamps();
        let chunks = [chunk.into()];
        let back = ChunkEncodings::from_wire(&[5, 77]).readable(&chunks);
        let raw = back[0].raw().unwrap();
        assert_eq!((back.len(), raw.encoding), (1, Encoding::Xor));
        let mut columns = SampleColumns::default();
        raw.decode_into(TimeRange::ALL, &mut columns).unwrap();
        assert_eq!(columns.ts.into_iter().zip(columns.values).collect::<Vec<_>>(), samples);
    }

    #[test]
    fn who_asks_gets_the_chunk() {
        let (chunk, _) = with_start_timestamps();
        let chunks = [chunk.into()];
        let all = ChunkEncodings::from_wire(&ChunkEncodings::ALL.to_wire());
        assert_eq!(all, ChunkEncodings::ALL);
        assert!(matches!(all.readable(&chunks), Cow::Borrowed(_)));
    }
}
