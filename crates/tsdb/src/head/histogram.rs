//! The growing chunk of a series whose newest samples are histograms.
//!
//! It lies beside the series, which has room for a float chunk only; a series has one of the two at a time. A sample of
//! another kind completes the chunk. When a chunk ends is Prometheus's rule: by its bytes, spread over the block range.

use bytes::Bytes;
use chronolith_chunk::{Chunk, ChunkError, Encoding, FloatHistogramEncoder, HistogramEncoder};
use chronolith_model::histogram::{
    CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MAX_RESERVED, HistogramError,
};
use chronolith_model::{SampleValue, WriteHistogram, is_stale_nan};

use super::series::range_end;

/// Bytes that a chunk aims at; twice as many end it in any case.
const CHUNK_BYTES: usize = 1024;
/// Fewer samples would not pay for the layout in front of them.
const SAMPLES_MIN: usize = 10;

/// The chunk's encoder.
#[derive(Debug)]
enum Encoder {
    Integer(HistogramEncoder),
    Float(FloatHistogramEncoder),
}

/// A chunk that takes more histograms.
#[derive(Debug)]
pub(crate) struct GrowingHistogram {
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

impl Encoder {
    fn first(t: i64, h: &WriteHistogram) -> Result<Self, ChunkError> {
        Ok(match h {
            WriteHistogram::Integer(h) => Encoder::Integer(HistogramEncoder::first(None, t, h)?),
            WriteHistogram::Float(h) => Encoder::Float(FloatHistogramEncoder::first(None, t, h)?),
        })
    }

    fn samples(&self) -> usize {
        match self {
            Encoder::Integer(e) => e.sample_count(),
            Encoder::Float(e) => e.sample_count(),
        }
    }

    fn bytes_len(&self) -> usize {
        match self {
            Encoder::Integer(e) => e.bytes_len(),
            Encoder::Float(e) => e.bytes_len(),
        }
    }

    fn last_t(&self) -> i64 {
        match self {
            Encoder::Integer(e) => e.last_t(),
            Encoder::Float(e) => e.last_t(),
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Encoder::Integer(e) => e.snapshot(),
            Encoder::Float(e) => e.snapshot(),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Encoder::Integer(_) => Encoding::Histogram,
            Encoder::Float(_) => Encoding::FloatHistogram,
        }
    }
}

impl GrowingHistogram {
    /// A chunk with its first sample.
    pub(crate) fn first(t: i64, h: &WriteHistogram, range: i64) -> Result<Self, ChunkError> {
        let encoder = Encoder::first(t, h)?;
        Ok(GrowingHistogram { encoder, mint: t, next_at: range_end(t, range), is_end_known: false })
    }

    /// Goes on with a chunk from a snapshot.
    pub(crate) fn resume(chunk: &Chunk, next_at: i64, is_end_known: bool) -> Result<Self, ChunkError> {
        let encoder = match chunk.encoding {
            Encoding::FloatHistogram => Encoder::Float(FloatHistogramEncoder::resume(&chunk.data)?),
            _ => Encoder::Integer(HistogramEncoder::resume(&chunk.data)?),
        };
        Ok(GrowingHistogram { encoder, mint: chunk.mint, next_at, is_end_known })
    }

    /// Appends a histogram that is newer than the last one. When it began a chunk, the complete one comes back.
    pub(crate) fn append(
        &mut self,
        t: i64,
        h: &WriteHistogram,
        range: i64,
    ) -> Result<Option<Chunk>, ChunkError> {
        let (samples, bytes) = (self.encoder.samples(), self.encoder.bytes_len());
        let range_ends = if self.is_end_known { range_end(self.mint, range) } else { self.next_at };
        let same_kind = matches!(
            (&self.encoder, h),
            (Encoder::Integer(_), WriteHistogram::Integer(_)) | (Encoder::Float(_), WriteHistogram::Float(_))
        );
        if same_kind && !self.is_end_known && bytes >= CHUNK_BYTES / 4 {
            let ratio = CHUNK_BYTES as f64 / bytes as f64;
            self.next_at = chunk_end(self.mint, self.last_t(), self.next_at, ratio);
            self.is_end_known = true;
        }
        let is_full =
            (t >= self.next_at || bytes >= 2 * CHUNK_BYTES) && (samples >= SAMPLES_MIN || t >= range_ends);
        let next = match (&mut self.encoder, h) {
            (Encoder::Integer(e), WriteHistogram::Integer(h)) if is_full => {
                Some(Encoder::Integer(HistogramEncoder::first(Some(e), t, h)?))
            }
            (Encoder::Float(e), WriteHistogram::Float(h)) if is_full => {
                Some(Encoder::Float(FloatHistogramEncoder::first(Some(e), t, h)?))
            }
            // An error: bucket indices too far apart for one chunk's spans.
            (Encoder::Integer(e), WriteHistogram::Integer(h)) => e
                .append(t, h)
                .or_else(|_| HistogramEncoder::first(None, t, h).map(Some))?
                .map(Encoder::Integer),
            (Encoder::Float(e), WriteHistogram::Float(h)) => e
                .append(t, h)
                .or_else(|_| FloatHistogramEncoder::first(None, t, h).map(Some))?
                .map(Encoder::Float),
            (_, h) => Some(Encoder::first(t, h)?),
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

    pub(crate) fn is_float(&self) -> bool {
        matches!(self.encoder, Encoder::Float(_))
    }

    /// The newest sample.
    pub(crate) fn last(&self) -> Option<SampleValue> {
        Some(self.chunk().iter().ok()?.last()?.ok()?.1)
    }

    /// Bytes that it holds, roughly: the chunk, and the last sample's buckets with their differences.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.encoder.bytes_len()
    }
}

/// Checks a histogram as it came. Schemas of the reserve are brought to the finest that is stored.
pub(crate) fn check(h: &WriteHistogram, buckets_max: usize) -> Result<Option<WriteHistogram>, String> {
    let (schema, buckets, bounds) = match h {
        WriteHistogram::Integer(h) => {
            (h.schema, h.positive_buckets.len() + h.negative_buckets.len(), h.custom_values.len())
        }
        WriteHistogram::Float(h) => {
            (h.schema, h.positive_buckets.len() + h.negative_buckets.len(), h.custom_values.len())
        }
    };
    let size = buckets.max(bounds);
    if size > buckets_max {
        return Err(format!("{size} buckets, more than {buckets_max}"));
    }
    let text = |e: HistogramError| e.to_string();
    if schema != CUSTOM_BUCKETS_SCHEMA
        && (EXPONENTIAL_SCHEMA_MAX + 1..=EXPONENTIAL_SCHEMA_MAX_RESERVED).contains(&schema)
    {
        let mut reduced = h.clone();
        // Reducing takes what it finds, so the rest is checked before.
        match &mut reduced {
            WriteHistogram::Integer(h) => {
                h.schema = EXPONENTIAL_SCHEMA_MAX;
                h.validate().map_err(text)?;
                h.schema = schema;
                h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).map_err(text)?;
            }
            WriteHistogram::Float(h) => {
                h.schema = EXPONENTIAL_SCHEMA_MAX;
                h.validate().map_err(text)?;
                h.schema = schema;
                h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).map_err(text)?;
            }
        }
        return Ok(Some(reduced));
    }
    match h {
        WriteHistogram::Integer(h) => h.validate().map_err(text)?,
        WriteHistogram::Float(h) => h.validate().map_err(text)?,
    }
    Ok(None)
}

/// True when a stored sample is this histogram, whatever is known of resets and however its empty buckets are laid out.
pub(crate) fn is_same(stored: &SampleValue, h: &WriteHistogram) -> bool {
    match (stored, h) {
        (SampleValue::Histogram(a), WriteHistogram::Integer(b)) => {
            if is_stale_nan(a.sum) || is_stale_nan(b.sum) {
                return is_stale_nan(a.sum) && is_stale_nan(b.sum);
            }
            let (mut a, mut b) = ((**a).clone(), (**b).clone());
            a.compact(0).equals(b.compact(0))
        }
        (SampleValue::FloatHistogram(a), WriteHistogram::Float(b)) => {
            if is_stale_nan(a.sum) || is_stale_nan(b.sum) {
                return is_stale_nan(a.sum) && is_stale_nan(b.sum);
            }
            let (mut a, mut b) = ((**a).clone(), (**b).clone());
            a.compact(0).equals(b.compact(0))
        }
        _ => false,
    }
}

/// The same histogram as a decoded sample.
pub(crate) fn to_value(h: &WriteHistogram) -> SampleValue {
    match h {
        WriteHistogram::Integer(h) => SampleValue::Histogram(std::sync::Arc::new((**h).clone())),
        WriteHistogram::Float(h) => SampleValue::FloatHistogram(std::sync::Arc::new((**h).clone())),
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::histogram::{CounterReset, Span};
    use chronolith_model::{FloatHistogram, Histogram};

    use super::*;

    fn histogram(n: i64) -> Histogram {
        Histogram {
            count: 3 * n as u64,
            sum: n as f64 * 1.5,
            zero_threshold: 1e-128,
            zero_count: n as u64,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_buckets: vec![n, 0],
            ..Histogram::default()
        }
    }

    fn integer(n: i64) -> WriteHistogram {
        WriteHistogram::Integer(Box::new(histogram(n)))
    }

    fn float(n: i64) -> WriteHistogram {
        WriteHistogram::Float(Box::new(histogram(n).to_float()))
    }

    #[test]
    fn chunks_end_for_size_kind_and_reset() {
        let range = 7_200_000;
        let mut g = GrowingHistogram::first(0, &integer(1), range).unwrap();
        let mut chunks = Vec::new();
        for i in 1..480 {
            chunks.extend(g.append(i * 15_000, &integer(i + 1 + i * i % 97), range).unwrap());
        }
        chunks.push(g.chunk());
        assert!(chunks.len() > 1, "spread over the range by their size");
        let counts: Vec<_> = chunks.iter().map(|c| c.sample_count().unwrap()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 480);
        // Another kind, and back.
        let before = g.append(480 * 15_000, &float(9_999_999), range).unwrap().unwrap();
        assert_eq!(before.encoding, Encoding::Histogram);
        assert!(g.is_float() && g.mint == 480 * 15_000 && !g.is_end_known);
        assert_eq!(
            g.append(481 * 15_000, &integer(1), range).unwrap().unwrap().encoding,
            Encoding::FloatHistogram
        );
        // A reset begins a chunk whose header says so.
        assert!(g.append(482 * 15_000, &integer(5), range).unwrap().is_none());
        assert!(g.append(483 * 15_000, &integer(2), range).unwrap().is_some());
        assert_eq!(g.chunk().data[2] >> 6, 0b10);
    }

    #[test]
    fn a_resumed_chunk_goes_on_as_if_nothing_was() {
        let range = 7_200_000;
        let mut g = GrowingHistogram::first(0, &integer(1), range).unwrap();
        for i in 1..40 {
            g.append(i * 15_000, &integer(i + 1), range).unwrap();
        }
        let mut again = GrowingHistogram::resume(&g.chunk(), g.next_at, g.is_end_known).unwrap();
        for i in 40..300 {
            let (a, b) = (
                g.append(i * 15_000, &integer(i + 1), range),
                again.append(i * 15_000, &integer(i + 1), range),
            );
            assert_eq!(a.unwrap(), b.unwrap());
        }
        assert_eq!(g.chunk(), again.chunk());
        assert!(
            is_same(&again.last().unwrap(), &integer(300)) && !is_same(&again.last().unwrap(), &integer(299))
        );
    }

    #[test]
    fn bad_histograms_are_named_and_fine_ones_reduced() {
        let mut bad = histogram(1);
        bad.count = 17;
        let text = check(&WriteHistogram::Integer(Box::new(bad)), 100).unwrap_err();
        assert!(text.contains("observations found in buckets"), "{text}");
        assert!(check(&integer(1), 1).unwrap_err().contains("more than 1"));
        assert_eq!(check(&float(1), 100), Ok(None));
        let fine = Histogram { schema: 10, counter_reset: CounterReset::Gauge, ..histogram(1) };
        let reduced = check(&WriteHistogram::Integer(Box::new(fine)), 100).unwrap().unwrap();
        let WriteHistogram::Integer(reduced) = reduced else { panic!("stays integer") };
        assert_eq!((reduced.schema, reduced.count, reduced.counter_reset), (8, 3, CounterReset::Gauge));
        let unknown = FloatHistogram { schema: 53, ..histogram(1).to_float() };
        assert!(check(&WriteHistogram::Float(Box::new(unknown)), 100).unwrap_err().contains("schema"));
    }
}
