//! Integer histograms: deltas of deltas.

use std::borrow::Cow;

use chronolith_model::histogram::{CounterReset, EXPONENTIAL_SCHEMA_MAX};
use chronolith_model::{FloatHistogram, Histogram, is_stale_nan};

use super::encoder::{BitWriterHandle, Kind, Parts};
use super::header::{HEADER_BITS, Header};
use super::layout::HistogramLayout;
use super::{hint, must_reduce};
use crate::bits::{BitReader, BitWriter};
use crate::start_ts::StartTsReader;
use crate::varbit::{VarbitInts, take_varbit_int, take_varbit_uint};
use crate::xor::{NO_WINDOW, Stumble, XorValue, check, put_xor};
use crate::{ChunkError, Encoding};

/// Integer histograms.
#[derive(Clone, Debug)]
pub struct Ints;

/// The last sample, as the next one is compared with it.
#[derive(Clone, Debug)]
pub struct State {
    count: u64,
    zero_count: u64,
    count_delta: i64,
    zero_count_delta: i64,
    sum: f64,
    leading: u8,
    trailing: u8,
    /// Absolute counts, positive and negative.
    buckets: [Vec<i64>; 2],
    /// How much the difference between a bucket and its neighbour grew last.
    deltas: [Vec<i64>; 2],
}

impl Default for State {
    fn default() -> Self {
        State {
            count: 0,
            zero_count: 0,
            count_delta: 0,
            zero_count_delta: 0,
            sum: 0.0,
            leading: NO_WINDOW,
            trailing: 0,
            buckets: Default::default(),
            deltas: Default::default(),
        }
    }
}

impl Kind for Ints {
    const ENCODING: Encoding = Encoding::Histogram;
    const ENCODING_ST: Encoding = Encoding::HistogramSt;
    const KNOWS_NO_RESET: bool = true;
    type Histogram = Histogram;
    type Count = u64;
    type Value = i64;
    type State = State;

    fn parts(h: &Histogram) -> Parts<'_, Ints> {
        let absolute = |deltas: &[i64]| {
            let mut sum = 0i64;
            let counts = deltas.iter().map(|d| {
                sum = sum.wrapping_add(*d);
                sum
            });
            Cow::Owned(counts.collect())
        };
        Parts {
            counter_reset: h.counter_reset,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            custom_values: &h.custom_values,
            count: h.count,
            zero_count: h.zero_count,
            sum: h.sum,
            spans: [&h.positive_spans, &h.negative_spans],
            buckets: [absolute(&h.positive_buckets), absolute(&h.negative_buckets)],
        }
    }

    fn stale(sum: f64) -> Parts<'static, Ints> {
        Parts {
            counter_reset: CounterReset::Unknown,
            schema: 0,
            zero_threshold: 0.0,
            custom_values: &[],
            count: 0,
            zero_count: 0,
            sum,
            spans: [&[], &[]],
            buckets: [Cow::Borrowed(&[]), Cow::Borrowed(&[])],
        }
    }

    fn last(state: &State) -> (u64, u64, f64) {
        (state.count, state.zero_count, state.sum)
    }

    #[inline]
    fn last_bucket(state: &State, side: usize, at: usize) -> i64 {
        state.buckets[side][at]
    }

    fn put_first(state: &mut State, w: &mut BitWriterHandle<'_>, parts: &Parts<'_, Ints>) {
        let w = &mut *w.0;
        w.put_varbit_uint(parts.count);
        w.put_varbit_uint(parts.zero_count);
        w.put_f64(parts.sum);
        for side in 0..2 {
            let buckets = &parts.buckets[side];
            let mut last = 0i64;
            for &b in buckets.iter() {
                w.put_varbit_int(b.wrapping_sub(last));
                last = b;
            }
            state.buckets[side] = buckets.to_vec();
            state.deltas[side] = vec![0; buckets.len()];
        }
        (state.count, state.zero_count, state.sum) = (parts.count, parts.zero_count, parts.sum);
    }

    fn put_next(state: &mut State, w: &mut BitWriterHandle<'_>, parts: &Parts<'_, Ints>) {
        let w = &mut *w.0;
        let stale = is_stale_nan(parts.sum);
        let put_dod = |w: &mut BitWriter, now: u64, last: &mut u64, delta: &mut i64| {
            let new_delta = now.wrapping_sub(*last) as i64;
            w.put_varbit_int(if stale { 0 } else { new_delta.wrapping_sub(*delta) });
            (*last, *delta) = (now, new_delta);
        };
        put_dod(w, parts.count, &mut state.count, &mut state.count_delta);
        put_dod(w, parts.zero_count, &mut state.zero_count, &mut state.zero_count_delta);
        let xor = parts.sum.to_bits() ^ state.sum.to_bits();
        let (tail, words) = w.parts();
        put_xor(tail, words, xor, &mut state.leading, &mut state.trailing);
        state.sum = parts.sum;
        if stale {
            return;
        }
        for side in 0..2 {
            // Differences to the neighbour, now and in the last sample.
            let (mut below, mut below_last) = (0i64, 0i64);
            let last = state.buckets[side].iter_mut().zip(&mut state.deltas[side]);
            for (&b, (last, delta)) in parts.buckets[side].iter().zip(last) {
                let step = b.wrapping_sub(below);
                let step_last = last.wrapping_sub(below_last);
                let new_delta = step.wrapping_sub(step_last);
                w.put_varbit_int(new_delta.wrapping_sub(*delta));
                (below, below_last) = (b, *last);
                (*last, *delta) = (b, new_delta);
            }
        }
    }

    fn decode(data: &[u8], encoding: Encoding) -> Result<Vec<(i64, i64, Histogram)>, ChunkError> {
        let mut it = HistogramIter::new(data, encoding)?;
        let mut out = Vec::new();
        while let Some(t) = it.advance()? {
            out.push((it.start_ts(), t, it.histogram()));
        }
        Ok(out)
    }
}

/// Reads the samples of an integer histogram chunk.
#[derive(Clone, Debug)]
pub(crate) struct HistogramIter<'a> {
    r: BitReader<'a>,
    len: usize,
    header: Header,
    next: usize,
    start_ts: StartTsReader,
    layout: HistogramLayout,
    t: i64,
    t_delta: i64,
    count: u64,
    zero_count: u64,
    count_delta: i64,
    zero_count_delta: i64,
    sum: XorValue,
    /// Positive, then negative.
    buckets: Vec<Bucket>,
    positive: usize,
}

/// A bucket as it is written.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Difference to its neighbour.
    step: i64,
    /// How much that grew last.
    delta: i64,
}

impl<'a> HistogramIter<'a> {
    /// Reads `data`, whose encoding is one of the two of this kind.
    pub(crate) fn new(data: &'a [u8], encoding: Encoding) -> Result<Self, ChunkError> {
        let header = Header::read(data, encoding)?;
        let start_ts = StartTsReader::new(header.start_ts);
        let mut r = BitReader::new(data);
        r.skip(HEADER_BITS);
        Ok(HistogramIter {
            r,
            len: data.len(),
            header,
            next: 0,
            start_ts,
            layout: HistogramLayout::default(),
            t: 0,
            t_delta: 0,
            count: 0,
            zero_count: 0,
            count_delta: 0,
            zero_count_delta: 0,
            sum: XorValue::default(),
            buckets: Vec::new(),
            positive: 0,
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
        self.count = take_varbit_uint(&mut self.r);
        self.zero_count = take_varbit_uint(&mut self.r);
        self.sum.bits = self.r.take(64);
        let [positive, negative] = [0, 1].map(|side| self.layout.bucket_count(side) as usize);
        self.positive = positive;
        self.buckets.reserve_exact(positive + negative);
        for _ in 0..positive + negative {
            self.buckets.push(Bucket { step: take_varbit_int(&mut self.r), delta: 0 });
        }
        self.start_ts.take_first(&mut self.r, self.t)
    }

    fn later(&mut self) -> Result<(), Stumble> {
        let mut ints = VarbitInts::new(&mut self.r);
        self.t_delta = self.t_delta.wrapping_add(ints.take());
        self.t = self.t.wrapping_add(self.t_delta);
        self.count_delta = self.count_delta.wrapping_add(ints.take());
        self.count = self.count.wrapping_add_signed(self.count_delta);
        self.zero_count_delta = self.zero_count_delta.wrapping_add(ints.take());
        self.zero_count = self.zero_count.wrapping_add_signed(self.zero_count_delta);
        self.sum.take(&mut self.r)?;
        if is_stale_nan(f64::from_bits(self.sum.bits)) {
            return Ok(());
        }
        let mut ints = VarbitInts::new(&mut self.r);
        for bucket in &mut self.buckets {
            bucket.delta = bucket.delta.wrapping_add(ints.take());
            bucket.step = bucket.step.wrapping_add(bucket.delta);
        }
        Ok(())
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
        [self.count as f64, self.zero_count as f64, f64::from_bits(self.sum.bits)]
    }

    /// Positive, then negative buckets.
    #[inline]
    pub(super) fn buckets_into(&self, out: &mut [f64]) {
        let (positive, negative) = out.split_at_mut(self.positive.min(out.len()));
        for (side, out) in [positive, negative].into_iter().enumerate() {
            let mut count = 0i64;
            for (bucket, out) in self.side(side).iter().zip(out) {
                count = count.wrapping_add(bucket.step);
                *out = count as f64;
            }
        }
    }

    fn side(&self, side: usize) -> &[Bucket] {
        let (positive, negative) = self.buckets.split_at(self.positive);
        [positive, negative][side]
    }

    /// The sample's start timestamp, 0 when unknown.
    pub(crate) fn start_ts(&self) -> i64 {
        self.start_ts.last()
    }

    /// The sample's histogram.
    pub(crate) fn histogram(&self) -> Histogram {
        let sum = f64::from_bits(self.sum.bits);
        if is_stale_nan(sum) {
            return Histogram { sum, ..Histogram::default() };
        }
        let [positive_spans, negative_spans] = self.layout.spans.clone();
        let steps = |side: usize| self.side(side).iter().map(|b| b.step).collect();
        let mut h = Histogram {
            counter_reset: self.counter_reset(),
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: self.zero_count,
            count: self.count,
            sum,
            positive_spans,
            negative_spans,
            positive_buckets: steps(0),
            negative_buckets: steps(1),
            custom_values: self.layout.custom_values.clone(),
        };
        if must_reduce(h.schema) {
            h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).expect("8 is coarser than a schema above 8");
        }
        h
    }

    /// The sample's histogram with float counts.
    pub(crate) fn float_histogram(&self) -> FloatHistogram {
        let sum = f64::from_bits(self.sum.bits);
        if is_stale_nan(sum) {
            return FloatHistogram { sum, ..FloatHistogram::default() };
        }
        let [positive_spans, negative_spans] = self.layout.spans.clone();
        let counts = |side: usize| {
            let mut sum = 0i64;
            let absolute = self.side(side).iter().map(|b| {
                sum = sum.wrapping_add(b.step);
                sum as f64
            });
            absolute.collect()
        };
        let mut h = FloatHistogram {
            counter_reset: self.counter_reset(),
            schema: self.layout.schema,
            zero_threshold: self.layout.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum,
            positive_spans,
            negative_spans,
            positive_buckets: counts(0),
            negative_buckets: counts(1),
            custom_values: self.layout.custom_values.clone(),
        };
        if must_reduce(h.schema) {
            h.reduce_resolution(EXPONENTIAL_SCHEMA_MAX).expect("8 is coarser than a schema above 8");
        }
        h
    }
}
