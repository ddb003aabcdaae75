//! Float histograms: every number XORed with its predecessor.

use std::borrow::Cow;

use chronolith_model::histogram::{CounterReset, EXPONENTIAL_SCHEMA_MAX};
use chronolith_model::{FloatHistogram, is_stale_nan};

use super::encoder::{BitWriterHandle, Kind, Parts};
use super::header::{HEADER_BITS, Header};
use super::layout::HistogramLayout;
use super::{hint, must_reduce};
use crate::bits::{BitReader, BitWriter};
use crate::start_ts::StartTsReader;
use crate::varbit::take_varbit_int;
use crate::xor::{NO_WINDOW, Stumble, XorValue, check, put_xor};
use crate::{ChunkError, Encoding};

/// Float histograms.
#[derive(Clone, Debug)]
pub struct Floats;

/// A number and its window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    value: f64,
    leading: u8,
    trailing: u8,
}

impl Default for Cell {
    fn default() -> Self {
        Cell { value: 0.0, leading: NO_WINDOW, trailing: 0 }
    }
}

impl Cell {
    fn put_first(&mut self, w: &mut BitWriter, v: f64) {
        self.value = v;
        w.put_f64(v);
    }

    fn put_next(&mut self, w: &mut BitWriter, v: f64) {
        let xor = v.to_bits() ^ self.value.to_bits();
        let (tail, words) = w.parts();
        put_xor(tail, words, xor, &mut self.leading, &mut self.trailing);
        self.value = v;
    }
}

/// The last sample, as the next one is compared with it.
#[derive(Clone, Debug, Default)]
pub struct State {
    count: Cell,
    zero_count: Cell,
    sum: Cell,
    buckets: [Vec<Cell>; 2],
}

impl Kind for Floats {
    const ENCODING: Encoding = Encoding::FloatHistogram;
    const ENCODING_ST: Encoding = Encoding::FloatHistogramSt;
    const KNOWS_NO_RESET: bool = false;
    type Histogram = FloatHistogram;
    type Count = f64;
    type Value = f64;
    type State = State;

    fn parts(h: &FloatHistogram) -> Parts<'_, Floats> {
        Parts {
            counter_reset: h.counter_reset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: &h.custom_values,
            count: h.count,
            zero_count: h.zero_count,
            sum: h.sum,
            spans: [&h.positive_spans, &h.negative_spans],
            buckets: [Cow::Borrowed(&h.positive_buckets), Cow::Borrowed(&h.negative_buckets)],
        }
    }

    fn stale(sum: f64) -> Parts<'static, Floats> {
        Parts {
            counter_reset: CounterReset::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            custom_values: &[],
            count: 0.0,
            zero_count: 0.0,
            sum,
            spans: [&[], &[]],
            buckets: [Cow::Borrowed(&[]), Cow::Borrowed(&[])],
        }
    }

    fn last(state: &State) -> (f64, f64, f64) {
        (state.count.value, state.zero_count.value, state.sum.value)
    }

    #[inline]
    fn last_bucket(state: &State, side: usize, at: usize) -> f64 {
        state.buckets[side][at].value
    }

    fn put_first(state: &mut State, w: &mut BitWriterHandle<'_>, parts: &Parts<'_, Floats>) {
        state.count.put_first(w.0, parts.count);
        state.zero_count.put_first(w.0, parts.zero_count);
        state.sum.put_first(w.0, parts.sum);
        for (cells, values) in state.buckets.iter_mut().zip(&parts.buckets) {
            *cells = vec![Cell::default(); values.len()];
            for (cell, v) in cells.iter_mut().zip(values.iter()) {
                cell.put_first(w.0, *v);
            }
        }
    }

    fn put_next(state: &mut State, w: &mut BitWriterHandle<'_>, parts: &Parts<'_, Floats>) {
        state.count.put_next(w.0, parts.count);
        state.zero_count.put_next(w.0, parts.zero_count);
        state.sum.put_next(w.0, parts.sum);
        for (cells, values) in state.buckets.iter_mut().zip(&parts.buckets) {
            for (cell, v) in cells.iter_mut().zip(values.iter()) {
                cell.put_next(w.0, *v);
            }
        }
    }

    fn decode(data: &[u8], encoding: Encoding) -> Result<Vec<(i64, i64, FloatHistogram)>, ChunkError> {
        let mut it = FloatHistogramIter::new(data, encoding)?;
        let mut out = Vec::new();
        while let Some(t) = it.advance()? {
            out.push((it.start_ts(), t, it.histogram()));
        }
        Ok(out)
    }
}

/// Reads the samples of a float histogram chunk.
#[derive(Clone, Debug)]
pub(crate) struct FloatHistogramIter<'a> {
    r: BitReader<'a>,
    len: usize,
    header: Header,
    next: usize,
    start_ts: StartTsReader,
    layout: HistogramLayout,
    t: i64,
    t_delta: i64,
    count: XorValue,
    zero_count: XorValue,
    sum: XorValue,
    buckets: [Vec<XorValue>; 2],
}

impl<'a> FloatHistogramIter<'a> {
    /// Reads `data`, whose encoding is one of the two of this kind.
    pub(crate) fn new(data: &'a [u8], encoding: Encoding) -> Result<Self, ChunkError> {
        let header = Header::read(data, encoding)?;
        let start_ts = StartTsReader::new(header.start_ts);
        let mut r = BitReader::new(data);
        r.skip(HEADER_BITS);
        Ok(FloatHistogramIter {
            r,
            len: data.len(),
            header,
            next: 0,
            start_ts,
            layout: HistogramLayout::default(),
            t: 0,
            t_delta: 0,
            count: XorValue::default(),
            zero_count: XorValue::default(),
            sum: XorValue::default(),
            buckets: Default::default(),
        })
    }

    /// Reads the next sample and returns its timestamp; `None` after the last one.
    pub(crate) fn advance(&mut self) -> Result<Option<i64>, ChunkError> {
        if self.next >= self.header.samples {
            return Ok(None);
        }
        let i = self.next;
        let before = self.t;
        let done = if i == 0 { self.first() } else { self.later() };
        self.start_ts.take_later(&mut self.r, i, before);
        self.next += 1;
        check(&self.r, done, self.header.encoding, self.len, i)
            .inspect_err(|_| self.next = self.header.samples)?;
        Ok(Some(self.t))
    }

    fn first(&mut self) -> Result<(), Stumble> {
        self.layout = HistogramLayout::read(&mut self.r, self.header.samples)?;
        if self.r.overrun() {
            return Ok(());
        }
        self.t = take_varbit_int(&mut self.r);
        for v in [&mut self.count, &mut self.zero_count, &mut self.sum] {
            v.bits = self.r.take(64);
        }
        for side in 0..2 {
            for _ in 0..self.layout.bucket_count(side) {
                let bits = self.r.take(64);
                self.buckets[side].push(XorValue { bits, ..XorValue::default() });
            }
        }
        self.start_ts.take_first(&mut self.r, self.t)
    }

    fn later(&mut self) -> Result<(), Stumble> {
        let r = &mut self.r;
        self.t_delta = self.t_delta.wrapping_add(take_varbit_int(r));
        self.t = self.t.wrapping_add(self.t_delta);
        self.count.take(r)?;
        self.zero_count.take(r)?;
        self.sum.take(r)?;
        if is_stale_nan(f64::from_bits(self.sum.bits)) {
            return Ok(());
        }
        self.buckets.iter_mut().flatten().try_for_each(|v| v.take(r))
    }

    pub(super) fn layout(&self) -> &HistogramLayout {
        &self.layout
    }

    /// What is known of a reset before the sample.
    pub(super) fn counter_reset(&self) -> CounterReset {
        hint(self.header.reset, self.next - 1)
    }

    /// Count, zero count, sum.
    #[inline]
    pub(super) fn numbers(&self) -> [f64; 3] {
        [&self.count, &self.zero_count, &self.sum].map(|v| f64::from_bits(v.bits))
    }

    /// Positive, then negative buckets.
    #[inline]
    pub(super) fn buckets_into(&self, out: &mut [f64]) {
        for (v, out) in self.buckets.iter().flatten().zip(out) {
            *out = f64::from_bits(v.bits);
        }
    }

    /// The sample's start timestamp, 0 when unknown.
    pub(crate) fn start_ts(&self) -> i64 {
        self.start_ts.last()
    }

    /// The sample's histogram.
    pub(crate) fn histogram(&self) -> FloatHistogram {
        let sum = f64::from_bits(self.sum.bits);
        if is_stale_nan(sum) {
            return FloatHistogram { sum, ..FloatHistogram::default() };
        }
        let [positive_spans, negative_spans] = self.layout.spans.clone();
        let values = |side: usize| self.buckets[side].iter().map(|v| f64::from_bits(v.bits)).collect();
        let mut h = FloatHistogram {
            counter_reset: self.counter_reset(),
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: f64::from_bits(self.zero_count.bits),
            count: f64::from_bits(self.count.bits),
            sum,
            positive_spans,
            negative_spans,
            positive_buckets: values(0),
            negative_buckets: values(1),
            custom_values: self.layout.custom_values.clone(),
        };
        if must_reduce(h.schema) {
            h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).expect("8 is coarser than a schema above 8");
        }
        h
    }
}
