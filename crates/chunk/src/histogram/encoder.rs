//! Writing histogram chunks: when a histogram fits into a chunk, and how it is made to.
//!
//! A counter histogram starts a new chunk when it was reset, when schema, zero threshold or custom bounds change, and
//! after a stale marker. A gauge histogram does so for the last two reasons. When it brings new buckets, the chunk is
//! encoded anew with them (recoded); when it lacks buckets that are empty in the chunk (any, for a gauge), the
//! histogram is widened by them. The bytes are the same that Prometheus's appenders produce.

use std::borrow::Cow;

use bytes::Bytes;
use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterReset, Span};
use chronolith_model::is_stale_nan;

use super::header::{HEADER_BITS, Header, ST_SAMPLES_MAX};
use super::layout::HistogramLayout;
use super::union::{Union, shrank};
use crate::bits::BitWriter;
use crate::start_ts::StartTsWriter;
use crate::varbit::put_varbit_int;
use crate::{Chunk, ChunkError, Encoding};

/// A histogram's numbers, whatever their kind.
#[derive(Debug)]
pub struct Parts<'a, K: Kind> {
    pub(super) counter_reset: CounterReset,
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) custom_values: &'a [f64],
    pub(super) count: K::Count,
    pub(super) zero_count: K::Count,
    pub(super) sum: f64,
    /// Positive, negative.
    pub(super) spans: [&'a [Span]; 2],
    /// Absolute bucket counts.
    pub(super) buckets: [Cow<'a, [K::Value]>; 2],
}

/// What differs between integer and float histograms.
pub trait Kind: Sized + std::fmt::Debug + Clone + 'static {
    /// Encoding of the chunks.
    const ENCODING: Encoding;
    /// Encoding of the chunks with start timestamps.
    const ENCODING_ST: Encoding;
    /// The chunk header says whether there was "no reset", not only whether there was one, when a chunk is cut for
    /// another reason than its size.
    const KNOWS_NO_RESET: bool;
    /// The histogram.
    type Histogram;
    /// Type of counts.
    type Count: Copy + PartialOrd + std::fmt::Debug;
    /// Type of bucket counts.
    type Value: Copy + PartialOrd + Default + std::fmt::Debug + 'static;
    /// What encoding the next sample needs of the last one.
    type State: Clone + std::fmt::Debug + Default;

    /// Takes a histogram apart.
    fn parts(h: &Self::Histogram) -> Parts<'_, Self>;
    /// Nothing but the stale marker.
    fn stale(sum: f64) -> Parts<'static, Self>;
    /// Count, zero count and sum of the last sample.
    fn last(state: &Self::State) -> (Self::Count, Self::Count, f64);
    /// Count of a bucket of the last sample.
    fn last_bucket(state: &Self::State, side: usize, at: usize) -> Self::Value;
    /// Writes the first sample, without its timestamp.
    #[doc(hidden)]
    fn put_first(state: &mut Self::State, w: &mut BitWriterHandle<'_>, parts: &Parts<'_, Self>);
    /// Writes a later sample, without its timestamp.
    #[doc(hidden)]
    fn put_next(state: &mut Self::State, w: &mut BitWriterHandle<'_>, parts: &Parts<'_, Self>);
    /// Decodes a chunk of one of the two encodings: start timestamp, timestamp, histogram.
    fn decode(data: &[u8], encoding: Encoding) -> Result<Vec<(i64, i64, Self::Histogram)>, ChunkError>;
}

/// The writer, passed to [`Kind`] without making it public.
#[derive(Debug)]
pub struct BitWriterHandle<'a>(pub(super) &'a mut BitWriter);

/// Builds a histogram chunk, with start timestamps when the first sample came with one.
#[derive(Clone, Debug)]
pub struct Encoder<K: Kind> {
    w: BitWriter,
    header: CounterReset,
    samples: u16,
    layout: HistogramLayout,
    t: i64,
    t_delta: i64,
    state: K::State,
    /// There in chunks with start timestamps.
    start_ts: Option<StartTsWriter>,
}

/// How a histogram goes into a chunk.
enum Fit {
    AsIs,
    Widen([Union; 2]),
}

impl<K: Kind> Encoder<K> {
    fn empty(header: CounterReset, encoding: Encoding) -> Self {
        let mut w = BitWriter::default();
        w.put(0, HEADER_BITS);
        Encoder {
            w,
            header,
            samples: 0,
            layout: HistogramLayout::default(),
            t: 0,
            t_delta: 0,
            state: K::State::default(),
            start_ts: encoding.has_start_ts().then(StartTsWriter::default),
        }
    }

    /// A chunk with its first sample. `previous` is the chunk before it, if there is one that ended for its size or
    /// age: the header then tells whether the counter was reset between them.
    pub fn first(previous: Option<&Self>, t: i64, h: &K::Histogram) -> Result<Self, ChunkError> {
        Self::begin(previous, K::ENCODING, 0, t, h)
    }

    /// A chunk with start timestamps, and its first sample; `st` is 0 when unknown. Else as [`Encoder::first`].
    pub fn first_with_start_ts(
        previous: Option<&Self>,
        st: i64,
        t: i64,
        h: &K::Histogram,
    ) -> Result<Self, ChunkError> {
        Self::begin(previous, K::ENCODING_ST, st, t, h)
    }

    fn begin(
        previous: Option<&Self>,
        encoding: Encoding,
        st: i64,
        t: i64,
        h: &K::Histogram,
    ) -> Result<Self, ChunkError> {
        let parts = K::parts(h);
        let header = match (parts.counter_reset, previous) {
            (CounterReset::Gauge, _) => CounterReset::Gauge,
            (CounterReset::Reset, _) => CounterReset::Reset,
            (_, Some(previous)) => match previous.fit_counter(&parts).1 {
                CounterReset::Unknown if !K::KNOWS_NO_RESET => CounterReset::NotReset,
                found => found,
            },
            (_, None) => CounterReset::Unknown,
        };
        Self::started(header, encoding, st, t, &parts)
    }

    fn started(
        header: CounterReset,
        encoding: Encoding,
        st: i64,
        t: i64,
        parts: &Parts<'_, K>,
    ) -> Result<Self, ChunkError> {
        let mut encoder = Self::empty(header, encoding);
        encoder.put(st, t, parts)?;
        Ok(encoder)
    }

    /// An encoder that continues `data`, a chunk without start timestamps.
    pub fn resume(data: &[u8]) -> Result<Self, ChunkError> {
        Self::resume_as(data, K::ENCODING)
    }

    /// An encoder that continues `data`, a chunk with start timestamps.
    pub fn resume_with_start_ts(data: &[u8]) -> Result<Self, ChunkError> {
        Self::resume_as(data, K::ENCODING_ST)
    }

    fn resume_as(data: &[u8], encoding: Encoding) -> Result<Self, ChunkError> {
        let mut encoder = Self::empty(Header::read(data, encoding)?.reset, encoding);
        for (st, t, h) in K::decode(data, encoding)? {
            encoder.put(st, t, &K::parts(&h))?;
        }
        Ok(encoder)
    }

    /// Appends a histogram. When it does not fit into this chunk, the next chunk, which holds it, comes back; this
    /// one is then complete.
    ///
    /// The histogram must be valid; one whose spans contradict its buckets is an error.
    pub fn append(&mut self, t: i64, h: &K::Histogram) -> Result<Option<Self>, ChunkError> {
        self.append_with_start_ts(0, t, h)
    }

    /// [`Encoder::append`] with a start timestamp, 0 when unknown. Only a chunk that was begun with start timestamps
    /// takes another one than 0.
    pub fn append_with_start_ts(
        &mut self,
        st: i64,
        t: i64,
        h: &K::Histogram,
    ) -> Result<Option<Self>, ChunkError> {
        let encoding = self.encoding();
        if st != 0 && !encoding.has_start_ts() {
            let reason = "it has no place for start timestamps";
            return Err(ChunkError::Unsupported { encoding, reason });
        }
        let mut parts = K::parts(h);
        if self.samples == 0 {
            if parts.counter_reset != CounterReset::Unknown && parts.counter_reset != CounterReset::NotReset {
                self.header = parts.counter_reset;
            }
            self.put(st, t, &parts)?;
            return Ok(None);
        }
        check_spans(&parts)?;
        let gauge = parts.counter_reset == CounterReset::Gauge;
        let (fit, found) = if gauge { self.fit_gauge(&parts) } else { self.fit_counter(&parts) };
        let unions = match fit {
            None => return Self::started(found, encoding, st, t, &parts).map(Some),
            Some(Fit::AsIs) => {
                self.put(st, t, &parts)?;
                return Ok(None);
            }
            Some(Fit::Widen(unions)) => unions,
        };
        let grows = unions.iter().any(|u| u.grows);
        let lacks = unions.iter().any(|u| u.lacks);
        let spans = [0, 1].map(|side| match &unions[side] {
            _ if !lacks => parts.spans[side].to_vec(),
            _ if !grows && !gauge => self.layout.spans[side].clone(),
            union if union.lacks || gauge => union.spans(),
            _ => parts.spans[side].to_vec(),
        });
        for (side, union) in unions.iter().enumerate().filter(|(_, u)| u.lacks) {
            parts.buckets[side] = Cow::Owned(union.widen_new(&parts.buckets[side]));
        }
        parts.spans = [&spans[0], &spans[1]];
        if grows {
            self.recode(&spans, &unions)?;
        }
        self.put(st, t, &parts)?;
        Ok(None)
    }

    /// Encodes the chunk anew with more buckets.
    fn recode(&mut self, spans: &[Vec<Span>; 2], unions: &[Union; 2]) -> Result<(), ChunkError> {
        let encoding = self.encoding();
        let mut wider = Self::empty(self.header, encoding);
        for (st, t, h) in K::decode(&self.snapshot(), encoding)? {
            let mut parts = K::parts(&h);
            for (side, union) in unions.iter().enumerate().filter(|(_, u)| u.grows) {
                if !is_stale_nan(parts.sum) {
                    parts.buckets[side] = Cow::Owned(union.widen_old(&parts.buckets[side]));
                }
            }
            parts.spans = [&spans[0], &spans[1]];
            wider.put(st, t, &parts)?;
        }
        *self = wider;
        Ok(())
    }

    /// How a counter histogram fits, and what is known of a reset before it.
    fn fit_counter(&self, h: &Parts<'_, K>) -> (Option<Fit>, CounterReset) {
        let (count, zero_count, sum) = K::last(&self.state);
        let cut = |found: CounterReset| {
            let header = match found {
                CounterReset::Reset => found,
                found if K::KNOWS_NO_RESET => found,
                _ => CounterReset::Unknown,
            };
            (None, header)
        };
        if self.samples > 0 && self.header == CounterReset::Gauge {
            return cut(CounterReset::NotReset);
        }
        if h.counter_reset == CounterReset::Reset {
            return cut(CounterReset::Reset);
        }
        if is_stale_nan(h.sum) {
            return (Some(Fit::AsIs), CounterReset::NotReset);
        }
        if is_stale_nan(sum) {
            return cut(CounterReset::Unknown);
        }
        if h.count < count {
            return cut(CounterReset::Reset);
        }
        if h.schema != self.layout.schema || h.zero_threshold != self.layout.zero_threshold {
            return cut(CounterReset::Unknown);
        }
        if self.bounds_differ(h) || h.zero_count < zero_count {
            return cut(CounterReset::Reset);
        }
        let last = |side: usize| move |at: usize| K::last_bucket(&self.state, side, at);
        if self.has_spans(h) {
            let shrank_in = |side: usize| {
                h.buckets[side].iter().enumerate().any(|(at, new)| shrank(last(side)(at), *new))
            };
            return if shrank_in(0) || shrank_in(1) {
                cut(CounterReset::Reset)
            } else {
                (Some(Fit::AsIs), CounterReset::NotReset)
            };
        }
        let unions = self.unions(h);
        for (side, union) in unions.iter().enumerate() {
            if !union.is_monotonic(last(side), &h.buckets[side]) {
                return cut(CounterReset::Reset);
            }
        }
        (Some(widen(unions)), CounterReset::NotReset)
    }

    /// How a gauge histogram fits.
    fn fit_gauge(&self, h: &Parts<'_, K>) -> (Option<Fit>, CounterReset) {
        let (_, _, sum) = K::last(&self.state);
        let fits = if self.header != CounterReset::Gauge {
            None
        } else if is_stale_nan(h.sum) {
            Some(Fit::AsIs)
        } else if is_stale_nan(sum)
            || h.schema != self.layout.schema
            || h.zero_threshold != self.layout.zero_threshold
            || self.bounds_differ(h)
        {
            None
        } else if self.has_spans(h) {
            Some(Fit::AsIs)
        } else {
            Some(widen(self.unions(h)))
        };
        (fits, CounterReset::Gauge)
    }

    fn bounds_differ(&self, h: &Parts<'_, K>) -> bool {
        h.schema == CUSTOM_BUCKETS_SCHEMA && h.custom_values != self.layout.custom_values
    }

    /// True when a histogram, which is sound in itself, has the chunk's buckets: mostly.
    fn has_spans(&self, h: &Parts<'_, K>) -> bool {
        (0..2).all(|side| self.layout.spans[side] == h.spans[side])
    }

    fn unions(&self, h: &Parts<'_, K>) -> [Union; 2] {
        [0, 1].map(|side| Union::new(&self.layout.spans[side], h.spans[side]))
    }

    fn put(&mut self, st: i64, t: i64, parts: &Parts<'_, K>) -> Result<(), ChunkError> {
        let samples_max = if self.start_ts.is_some() { ST_SAMPLES_MAX } else { u16::MAX };
        if self.samples == samples_max {
            return Err(ChunkError::Full(samples_max));
        }
        let stale = is_stale_nan(parts.sum).then(|| K::stale(parts.sum));
        let parts = stale.as_ref().unwrap_or(parts);
        let mut t_delta = 0;
        if self.samples == 0 {
            check_spans(parts)?;
            self.layout = HistogramLayout {
                schema: parts.schema,
                zero_threshold: parts.zero_threshold,
                spans: parts.spans.map(<[Span]>::to_vec),
                custom_values: parts.custom_values.to_vec(),
            };
            self.layout.write(&mut self.w);
            self.w.put_varbit_int(t);
            K::put_first(&mut self.state, &mut BitWriterHandle(&mut self.w), parts);
        } else {
            t_delta = t.wrapping_sub(self.t);
            let (tail, words) = self.w.parts();
            put_varbit_int(tail, words, t_delta.wrapping_sub(self.t_delta));
            K::put_next(&mut self.state, &mut BitWriterHandle(&mut self.w), parts);
        }
        if let Some(start_ts) = &mut self.start_ts {
            let (tail, words) = self.w.parts();
            match self.samples {
                0 => start_ts.put_first(tail, words, t, st),
                i => start_ts.put_later(tail, words, i, self.t, st),
            }
        }
        self.t = t;
        self.t_delta = t_delta;
        self.samples += 1;
        Ok(())
    }

    /// Encoding of the chunk.
    pub fn encoding(&self) -> Encoding {
        if self.start_ts.is_some() { K::ENCODING_ST } else { K::ENCODING }
    }

    /// Timestamp of the last sample.
    pub fn last_t(&self) -> i64 {
        self.t
    }

    /// What the chunk's header says about a reset before it.
    pub fn counter_reset(&self) -> CounterReset {
        self.header
    }

    /// Number of samples.
    pub fn sample_count(&self) -> usize {
        usize::from(self.samples)
    }

    /// Length of the chunk in bytes.
    pub fn bytes_len(&self) -> usize {
        self.w.bytes_len()
    }

    /// The chunk's bytes so far.
    pub fn snapshot(&self) -> Bytes {
        let mut out = self.w.to_vec();
        let header = Header {
            encoding: self.encoding(),
            samples: self.sample_count(),
            reset: self.header,
            start_ts: self.start_ts.as_ref().map_or(0, StartTsWriter::header),
        };
        header.write(&mut out);
        Bytes::from(out)
    }

    /// The chunk's bytes.
    pub fn finish(self) -> Bytes {
        self.snapshot()
    }

    /// The chunk, covering `mint` to `maxt`.
    pub fn finish_chunk(self, mint: i64, maxt: i64) -> Chunk {
        Chunk { mint, maxt, encoding: self.encoding(), data: self.finish() }
    }
}

fn widen(unions: [Union; 2]) -> Fit {
    if unions.iter().any(|u| u.grows || u.lacks) { Fit::Widen(unions) } else { Fit::AsIs }
}

fn check_spans<K: Kind>(parts: &Parts<'_, K>) -> Result<(), ChunkError> {
    if is_stale_nan(parts.sum) {
        return Ok(());
    }
    let fits = |side: usize| {
        let need = parts.spans[side].iter().map(|s| u64::from(s.length)).sum::<u64>();
        need == parts.buckets[side].len() as u64 && parts.spans[side].iter().skip(1).all(|s| s.offset >= 0)
    };
    if fits(0) && fits(1) {
        return Ok(());
    }
    let reason = "spans do not match the buckets";
    Err(ChunkError::Corrupt { encoding: K::ENCODING, sample: 0, reason })
}
