//! Building aggregate chunks of native histograms.

use chronolith_model::FloatHistogram;

use crate::{AggrChunk, Aggregate, Chunk, ChunkError, Encoding, FloatHistogramEncoder, XorEncoder};

/// A window of downsampled histograms.
#[derive(Clone, Copy, Debug)]
pub struct HistogramWindow<'a> {
    /// Where it stands.
    pub t: i64,
    /// Number of raw samples.
    pub count: f64,
    /// Their sum, a gauge.
    pub sum: &'a FloatHistogram,
    /// The counter.
    pub counter: &'a FloatHistogram,
}

/// An aggregate chunk of histograms that may get more windows.
#[derive(Debug)]
pub struct AggrHistogramEncoder {
    mint: i64,
    /// What all sums of a chunk have in common.
    schema: i32,
    zero_threshold: f64,
    custom_values: Vec<f64>,
    count: XorEncoder,
    sum: FloatHistogramEncoder,
    counter: FloatHistogramEncoder,
}

impl AggrHistogramEncoder {
    /// A chunk with its first window.
    pub fn first(window: HistogramWindow<'_>) -> Result<Self, ChunkError> {
        Self::with_counter(window, FloatHistogramEncoder::first(None, window.t, window.counter)?)
    }

    fn with_counter(window: HistogramWindow<'_>, first: FloatHistogramEncoder) -> Result<Self, ChunkError> {
        let HistogramWindow { t, count: n, sum, counter } = window;
        let mut count = XorEncoder::new();
        count.append(t, n);
        Ok(AggrHistogramEncoder {
            mint: t,
            schema: sum.schema,
            zero_threshold: sum.zero_threshold,
            custom_values: sum.custom_values.clone(),
            count,
            sum: FloatHistogramEncoder::first(None, t, sum)?,
            // Thanos's header says "no reset", as if the chunk before it were this one.
            counter: FloatHistogramEncoder::first(Some(&first), t, counter)?,
        })
    }

    /// Appends a window. Where it does not fit, the next chunk, which holds it, comes back; this one is then complete.
    pub fn append(&mut self, window: HistogramWindow<'_>) -> Result<Option<Self>, ChunkError> {
        let HistogramWindow { t, count, sum, counter } = window;
        if sum.zero_threshold != self.zero_threshold
            || sum.schema != self.schema
            || sum.custom_values != self.custom_values
        {
            return Self::first(window).map(Some);
        }
        if let Some(first) = self.counter.append(t, counter)? {
            return Self::with_counter(window, first).map(Some);
        }
        if self.sum.append(t, sum)?.is_some() {
            let reason = "a sum of histograms is no gauge";
            return Err(ChunkError::Corrupt { encoding: Encoding::FloatHistogram, sample: 0, reason });
        }
        self.count.append(t, count);
        Ok(None)
    }

    /// The chunk.
    pub fn finish(self) -> Chunk {
        let (mint, maxt) = (self.mint, self.counter.last_t());
        AggrChunk::default()
            .with(Aggregate::Count, Encoding::Xor, self.count.finish())
            .with(Aggregate::Sum, Encoding::FloatHistogram, self.sum.finish())
            .with(Aggregate::Counter, Encoding::FloatHistogram, self.counter.finish())
            .to_chunk(mint, maxt)
    }
}
