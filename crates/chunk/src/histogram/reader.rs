//! The histograms of a chunk as plain numbers, for whoever reads many: nothing is allocated for a sample.

use chronolith_model::FloatHistogram;
use chronolith_model::histogram::CounterReset;

use super::layout::HistogramLayout;
use super::{FloatHistogramIter, HistogramIter, must_reduce};
use crate::{Chunk, ChunkError, Encoding};

/// Reads the histograms of a chunk one after the other. All of them have one layout.
#[derive(Clone, Debug)]
pub struct HistogramReader<'a> {
    inner: Inner<'a>,
    /// The layout where that of the chunk is finer than readers know.
    reduced: Option<HistogramLayout>,
}

#[derive(Clone, Debug)]
enum Inner<'a> {
    Ints(HistogramIter<'a>),
    Floats(FloatHistogramIter<'a>),
}

impl<'a> HistogramReader<'a> {
    /// A reader before the first sample; `None` where the chunk is not of histograms.
    pub fn of(chunk: &'a Chunk) -> Result<Option<Self>, ChunkError> {
        let inner = match chunk.encoding {
            Encoding::Histogram | Encoding::HistogramSt => {
                Inner::Ints(HistogramIter::new(&chunk.data, chunk.encoding)?)
            }
            Encoding::FloatHistogram | Encoding::FloatHistogramSt => {
                Inner::Floats(FloatHistogramIter::new(&chunk.data, chunk.encoding)?)
            }
            Encoding::Xor | Encoding::Xor2 | Encoding::Aggregate => return Ok(None),
        };
        Ok(Some(HistogramReader { inner, reduced: None }))
    }

    /// Goes to the next sample and gives its time; `None` behind the last one. After an error the reader is at its end.
    #[inline]
    pub fn advance(&mut self) -> Result<Option<i64>, ChunkError> {
        let t = match &mut self.inner {
            Inner::Ints(it) => it.advance()?,
            Inner::Floats(it) => it.advance()?,
        };
        if must_reduce(self.chunk_layout().schema) && self.reduced.is_none() {
            let h = self.histogram();
            // A stale marker has no layout.
            self.reduced = (!chronolith_model::is_stale_nan(h.sum)).then_some(HistogramLayout {
                schema: h.schema,
                zero_threshold: h.zero_threshold,
                spans: [h.positive_spans, h.negative_spans],
                custom_values: h.custom_values,
            });
        }
        Ok(t)
    }

    #[inline]
    fn chunk_layout(&self) -> &HistogramLayout {
        match &self.inner {
            Inner::Ints(it) => it.layout(),
            Inner::Floats(it) => it.layout(),
        }
    }

    /// The layout of all samples, known with the first that is no stale marker.
    pub fn layout(&self) -> &HistogramLayout {
        self.reduced.as_ref().unwrap_or_else(|| self.chunk_layout())
    }

    /// What is known of a reset before the sample.
    #[inline]
    pub fn counter_reset(&self) -> CounterReset {
        match &self.inner {
            Inner::Ints(it) => it.counter_reset(),
            Inner::Floats(it) => it.counter_reset(),
        }
    }

    /// Count, zero count and sum of the sample; the sum may be a stale marker.
    #[inline]
    pub fn numbers(&self) -> [f64; 3] {
        match &self.inner {
            Inner::Ints(it) => it.numbers(),
            Inner::Floats(it) => it.numbers(),
        }
    }

    /// Puts the sample's buckets, positive ones first, into `out`, which is as long as the layout has buckets.
    /// Those of a stale marker mean nothing.
    #[inline]
    pub fn buckets_into(&self, out: &mut [f64]) {
        match &self.inner {
            _ if self.reduced.is_some() => {
                let h = self.histogram();
                for (v, out) in h.positive_buckets.iter().chain(&h.negative_buckets).zip(out) {
                    *out = *v;
                }
            }
            Inner::Ints(it) => it.buckets_into(out),
            Inner::Floats(it) => it.buckets_into(out),
        }
    }

    fn histogram(&self) -> FloatHistogram {
        match &self.inner {
            Inner::Ints(it) => it.float_histogram(),
            Inner::Floats(it) => it.histogram(),
        }
    }
}
