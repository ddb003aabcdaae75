//! The growing chunk of a series whose newest samples the series itself has no room for: histograms, and floats with start
//! timestamps.
//!
//! It lies beside the series, which has room for a plain float chunk only; a series has one of the two at a time. A sample
//! of another kind completes the chunk. When a chunk ends is Prometheus's rule: that of floats, or by its bytes, spread
//! over the block range.
//!
//! A chunk begun with a start timestamp takes samples without one too. One that has no place for start timestamps ends
//! with the first sample that has one: only series that have them are stored in the encodings that keep them.

use bytes::Bytes;
use chronolith_chunk::{Chunk, ChunkError, Encoding, FloatHistogramEncoder, HistogramEncoder, Xor2Encoder};
use chronolith_model::{SampleValue, WriteHistogram};

use super::series::{FloatEnd, range_end};

/// Bytes that a chunk aims at; twice as many end it in any case.
const CHUNK_BYTES: usize = 1024;
/// Fewer samples would not pay for the layout in front of them.
const SAMPLES_MIN: usize = 10;

/// The chunk's encoder.
#[derive(Debug)]
enum Encoder {
    Integer(HistogramEncoder),
    Float(FloatHistogramEncoder),
    /// Floats with start timestamps, and the last of them.
    Started(Xor2Encoder, (i64, f64)),
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grows {
    /// Integer histograms.
    Histograms,
    /// Float histograms.
    FloatHistograms,
    /// Floats with start timestamps.
    Floats,
}

/// A chunk that takes more samples.
#[derive(Debug)]
pub(crate) struct Growing {
    encoder: Encoder,
    pub(crate) mint: i64,
    pub(crate) next_at: i64,
    /// `next_at` has been moved to where the chunk will be full.
    pub(crate) is_end_known: bool,
}

/// Spreads the rest of the range evenly over chunks of this size, as Prometheus computes it.
fn chunk_end(start: i64, current: i64, max: i64, ratio_to_full: f64) -> i64 {
    let n = (max.wrapping_sub(start)) as f64
        / ((current.wrapping_sub(start).wrapping_add(1)) as f64 * ratio_to_full);
    if n <= 1.0 { max } else { (start as f64 + max.wrapping_sub(start) as f64 / n.floor()) as i64 }
}

fn first_integer(
    previous: Option<&HistogramEncoder>,
    (t, start_ts): (i64, i64),
    h: &chronolith_model::Histogram,
) -> Result<Encoder, ChunkError> {
    Ok(Encoder::Integer(match start_ts {
        0 => HistogramEncoder::first(previous, t, h)?,
        st => HistogramEncoder::first_with_start_ts(previous, st, t, h)?,
    }))
}

fn first_float(
    previous: Option<&FloatHistogramEncoder>,
    (t, start_ts): (i64, i64),
    h: &chronolith_model::FloatHistogram,
) -> Result<Encoder, ChunkError> {
    Ok(Encoder::Float(match start_ts {
        0 => FloatHistogramEncoder::first(previous, t, h)?,
        st => FloatHistogramEncoder::first_with_start_ts(previous, st, t, h)?,
    }))
}

impl Encoder {
    fn first(at: (i64, i64), h: &WriteHistogram) -> Result<Self, ChunkError> {
        match h {
            WriteHistogram::Integer(h) => first_integer(None, at, h),
            WriteHistogram::Float(h) => first_float(None, at, h),
        }
    }

    fn samples(&self) -> usize {
        match self {
            Encoder::Integer(e) => e.sample_count(),
            Encoder::Float(e) => e.sample_count(),
            Encoder::Started(e, _) => e.sample_count(),
        }
    }

    fn bytes_len(&self) -> usize {
        match self {
            Encoder::Integer(e) => e.bytes_len(),
            Encoder::Float(e) => e.bytes_len(),
            Encoder::Started(e, _) => e.bytes_len(),
        }
    }

    fn last_t(&self) -> i64 {
        match self {
            Encoder::Integer(e) => e.last_t(),
            Encoder::Float(e) => e.last_t(),
            Encoder::Started(_, (t, _)) => *t,
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Encoder::Integer(e) => e.snapshot(),
            Encoder::Float(e) => e.snapshot(),
            Encoder::Started(e, _) => e.snapshot(),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Encoder::Integer(e) => e.encoding(),
            Encoder::Float(e) => e.encoding(),
            Encoder::Started(..) => Encoding::Xor2,
        }
    }
}

impl Growing {
    /// A chunk with its first histogram; a start timestamp of 0 is none.
    pub(crate) fn first(t: i64, start_ts: i64, h: &WriteHistogram, range: i64) -> Result<Self, ChunkError> {
        let encoder = Encoder::first((t, start_ts), h)?;
        Ok(Growing { encoder, mint: t, next_at: range_end(t, range), is_end_known: false })
    }

    /// A chunk with its first float.
    pub(crate) fn first_started(t: i64, start_ts: i64, v: f64, range: i64) -> Result<Self, ChunkError> {
        let mut encoder = Xor2Encoder::new();
        encoder.append(start_ts, t, v)?;
        let encoder = Encoder::Started(encoder, (t, v));
        Ok(Growing { encoder, mint: t, next_at: range_end(t, range), is_end_known: false })
    }

    /// Goes on with a chunk from a snapshot.
    pub(crate) fn resume(chunk: &Chunk, next_at: i64, is_end_known: bool) -> Result<Self, ChunkError> {
        let encoder = match chunk.encoding {
            Encoding::Histogram => Encoder::Integer(HistogramEncoder::resume(&chunk.data)?),
            Encoding::HistogramSt => Encoder::Integer(HistogramEncoder::resume_with_start_ts(&chunk.data)?),
            Encoding::FloatHistogram => Encoder::Float(FloatHistogramEncoder::resume(&chunk.data)?),
            Encoding::FloatHistogramSt => {
                Encoder::Float(FloatHistogramEncoder::resume_with_start_ts(&chunk.data)?)
            }
            Encoding::Xor2 => match chunk.iter()?.last().transpose()? {
                Some((t, SampleValue::Float(v))) => {
                    Encoder::Started(Xor2Encoder::resume(&chunk.data)?, (t, v))
                }
                _ => return Err(unsupported(chunk.encoding, "it is empty")),
            },
            other => return Err(unsupported(other, "it grows elsewhere")),
        };
        Ok(Growing { encoder, mint: chunk.mint, next_at, is_end_known })
    }

    /// Appends a float that is newer than the last sample, if the chunk is one of floats and not full.
    pub(crate) fn append_float(&mut self, t: i64, start_ts: i64, v: f64) -> bool {
        let Encoder::Started(encoder, last) = &mut self.encoder else { return false };
        let end = FloatEnd { samples: encoder.sample_count(), bytes: encoder.bytes_len() };
        self.next_at = end.next_at(self.mint, last.0, self.next_at);
        if end.is_full(t, self.next_at) || encoder.append(start_ts, t, v).is_err() {
            return false;
        }
        *last = (t, v);
        true
    }

    /// Appends a histogram that is newer than the last sample. When it began a chunk, the complete one comes back.
    pub(crate) fn append(
        &mut self,
        t: i64,
        start_ts: i64,
        h: &WriteHistogram,
        range: i64,
    ) -> Result<Option<Chunk>, ChunkError> {
        let at = (t, start_ts);
        let (samples, bytes) = (self.encoder.samples(), self.encoder.bytes_len());
        let range_ends = if self.is_end_known { range_end(self.mint, range) } else { self.next_at };
        let has_place = start_ts == 0 || self.encoder.encoding().has_start_ts();
        let same_kind = matches!(
            (&self.encoder, h),
            (Encoder::Integer(_), WriteHistogram::Integer(_)) | (Encoder::Float(_), WriteHistogram::Float(_))
        ) && has_place;
        if same_kind && !self.is_end_known && bytes >= CHUNK_BYTES / 4 {
            let ratio = CHUNK_BYTES as f64 / bytes as f64;
            self.next_at = chunk_end(self.mint, self.last_t(), self.next_at, ratio);
            self.is_end_known = true;
        }
        let is_full = !has_place
            || (t >= self.next_at || bytes >= 2 * CHUNK_BYTES) && (samples >= SAMPLES_MIN || t >= range_ends);
        let next = match (&mut self.encoder, h) {
            (Encoder::Integer(e), WriteHistogram::Integer(h)) if is_full => {
                Some(first_integer(Some(e), at, h)?)
            }
            (Encoder::Float(e), WriteHistogram::Float(h)) if is_full => Some(first_float(Some(e), at, h)?),
            // An error: bucket indices too far apart for one chunk's spans.
            (Encoder::Integer(e), WriteHistogram::Integer(h)) => match e.append_with_start_ts(start_ts, t, h)
            {
                Ok(next) => next.map(Encoder::Integer),
                Err(_) => Some(first_integer(None, at, h)?),
            },
            (Encoder::Float(e), WriteHistogram::Float(h)) => match e.append_with_start_ts(start_ts, t, h) {
                Ok(next) => next.map(Encoder::Float),
                Err(_) => Some(first_float(None, at, h)?),
            },
            (_, h) => Some(Encoder::first(at, h)?),
        };
        let Some(next) = next else { return Ok(None) };
        let complete = self.chunk();
        self.encoder = next;
        self.mint = t;
        self.next_at = range_end(t, range);
        // Prometheus forgets the end only of a chunk that ended for its size or kind, not of one that ended because the
        // next histogram did not fit; its chunks are the measure.
        if is_full || !same_kind {
            self.is_end_known = false;
        }
        Ok(Some(complete))
    }

    pub(crate) fn last_t(&self) -> i64 {
        self.encoder.last_t()
    }

    /// The chunk as it is now.
    pub(crate) fn chunk(&self) -> Chunk {
        let encoder = &self.encoder;
        Chunk { mint: self.mint, maxt: encoder.last_t(), encoding: encoder.encoding(), data: encoder.bytes() }
    }

    pub(crate) fn kind(&self) -> Grows {
        match self.encoder {
            Encoder::Integer(_) => Grows::Histograms,
            Encoder::Float(_) => Grows::FloatHistograms,
            Encoder::Started(..) => Grows::Floats,
        }
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<SampleValue> {
        match &self.encoder {
            Encoder::Started(_, (_, v)) => Some(SampleValue::Float(*v)),
            _ => Some(self.chunk().iter().ok()?.last()?.ok()?.1),
        }
    }

    /// Bytes that it holds, roughly: the chunk, and the last sample's buckets with their differences.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.encoder.bytes_len()
    }
}

fn unsupported(encoding: Encoding, reason: &'static str) -> ChunkError {
    ChunkError::Unsupported { encoding, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::histogram::is_same;
    use crate::head::histogram::tests::{float, integer};

    #[test]
    fn chunks_end_for_size_kind_and_reset() {
        let range = 7_200_000;
        let mut g = Growing::first(0, 0, &integer(1), range).unwrap();
        let mut chunks = Vec::new();
        for i in 1..480 {
            chunks.extend(g.append(i * 15_000, 0, &integer(i + 1 + i * i % 97), range).unwrap());
        }
        chunks.push(g.chunk());
        assert!(chunks.len() > 1, "spread over the range by their size");
        let counts: Vec<_> = chunks.iter().map(|c| c.sample_count().unwrap()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 480);
        // Another kind, and back.
        let before = g.append(480 * 15_000, 0, &float(9_999_999), range).unwrap().unwrap();
        assert_eq!(before.encoding, Encoding::Histogram);
        assert!(g.kind() == Grows::FloatHistograms && g.mint == 480 * 15_000 && !g.is_end_known);
        assert_eq!(
            g.append(481 * 15_000, 0, &integer(1), range).unwrap().unwrap().encoding,
            Encoding::FloatHistogram
        );
        // A reset begins a chunk whose header says so.
        assert!(g.append(482 * 15_000, 0, &integer(5), range).unwrap().is_none());
        assert!(g.append(483 * 15_000, 0, &integer(2), range).unwrap().is_some());
        assert_eq!(g.chunk().data[2] >> 6, 0b10);
    }

    #[test]
    fn a_resumed_chunk_goes_on_as_if_nothing_was() {
        let range = 7_200_000;
        let mut g = Growing::first(0, 0, &integer(1), range).unwrap();
        for i in 1..40 {
            g.append(i * 15_000, 0, &integer(i + 1), range).unwrap();
        }
        let mut again = Growing::resume(&g.chunk(), g.next_at, g.is_end_known).unwrap();
        for i in 40..300 {
            let (a, b) = (
                g.append(i * 15_000, 0, &integer(i + 1), range),
                again.append(i * 15_000, 0, &integer(i + 1), range),
            );
            assert_eq!(a.unwrap(), b.unwrap());
        }
        assert_eq!(g.chunk(), again.chunk());
        assert!(
            is_same(&again.last().unwrap(), &integer(300)) && !is_same(&again.last().unwrap(), &integer(299))
        );
    }

    #[test]
    fn start_timestamps_have_chunks_of_their_own() {
        let range = 7_200_000;
        let mut g = Growing::first(0, 0, &integer(1), range).unwrap();
        assert!(g.append(1, 0, &integer(2), range).unwrap().is_none());
        let plain = g.append(2, -5, &integer(3), range).unwrap().unwrap();
        assert_eq!((plain.encoding, g.chunk().encoding), (Encoding::Histogram, Encoding::HistogramSt));
        // What has none goes on in the same chunk.
        assert!(g.append(3, 0, &integer(4), range).unwrap().is_none());
        let mut again = Growing::resume(&g.chunk(), g.next_at, g.is_end_known).unwrap();
        for g in [&mut g, &mut again] {
            assert!(g.append(4, -5, &integer(5), range).unwrap().is_none());
            assert!(!g.append_float(5, 0, 1.0));
        }
        assert_eq!(g.chunk(), again.chunk());

        let mut g = Growing::first_started(0, -5, 1.0, range).unwrap();
        let mut samples = 1;
        while g.append_float(samples * 15_000, if samples % 2 == 0 { -5 } else { 0 }, samples as f64) {
            samples += 1;
        }
        assert_eq!((samples, g.kind(), g.chunk().encoding), (120, Grows::Floats, Encoding::Xor2));
        let resumed = Growing::resume(&g.chunk(), g.next_at, false).unwrap();
        assert_eq!((resumed.chunk(), resumed.last_t()), (g.chunk(), g.last_t()));
        assert_eq!(resumed.last(), Some(SampleValue::Float(119.0)));
    }
}
