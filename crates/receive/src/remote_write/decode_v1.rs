//! Remote write 1.0: from a decompressed body into a batch, without an allocation per sample or per label.
//!
//! ```text
//! WriteRequest { 1: TimeSeries* , 3: MetricMetadata* }
//! TimeSeries   { 1: Label*, 2: Sample*, 3: Exemplar*, 4: Histogram* }
//! Metadata     { 1: type, 2: name, 4: help, 5: unit }
//! ```
//!
//! A series' labels are not parsed here. Every sender writes them one behind the other, so the section is a byte range of
//! the body, which the head looks up as it lies; it parses and validates (UTF-8 included) only what it has not seen
//! before. Sections in pieces are copied together. Float samples go into one column; only native histograms and
//! exemplars allocate.
//!
//! Lengths are checked before they are followed, and what the columns may grow to is bounded by the size of the body
//! ([`super::decode`]), because two bytes of protobuf can stand for an empty message that takes thirty in memory.

use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{
    Exemplar, FloatHistogram, Histogram, LabelsBuilder, MetricKind, MetricMetadata, Sample,
    WriteBatchBuilder, WriteHistogram, WriteMetadata, write,
};

use super::decode::{
    Budget, DecodeError, DecodeStats, EXEMPLAR_BYTES, HISTOGRAM_BYTES, METADATA_BYTES, SAMPLE_BYTES,
    SERIES_BYTES,
};
use super::wire::{Cursor, WireError, WireType};

/// Reads a `prometheus.WriteRequest` into `builder`, which is started over. `body` must be the very bytes that
/// [`WriteBatchBuilder::finish`] is given afterwards.
///
/// # Errors
/// The builder's content is then of no use; start over.
pub fn decode(body: &[u8], builder: &mut WriteBatchBuilder) -> Result<DecodeStats, DecodeError> {
    let body_len = u32::try_from(body.len()).map_err(|_| WireError { offset: 0, what: "body over 4 GiB" })?;
    builder.start(body_len);
    let mut request = Cursor::new(body);
    let mut decoder =
        Decoder { body, builder, budget: Budget::for_body(body.len()), stats: DecodeStats::default() };
    while !request.is_empty() {
        match request.key()? {
            (1, wire_type) => {
                request.expect(wire_type, WireType::Len)?;
                decoder.series(request.message()?)?;
            }
            (3, wire_type) => {
                request.expect(wire_type, WireType::Len)?;
                let message = request.message()?;
                decoder.metadata(message)?;
            }
            (field, wire_type) => request.skip(field, wire_type)?,
        }
    }
    Ok(decoder.stats)
}

struct Decoder<'a> {
    body: &'a [u8],
    builder: &'a mut WriteBatchBuilder,
    budget: Budget,
    stats: DecodeStats,
}

impl Decoder<'_> {
    #[inline]
    fn series(&mut self, mut series: Cursor<'_>) -> Result<(), DecodeError> {
        self.budget.charge(SERIES_BYTES)?;
        let start = series.pos();
        skip_labels(&mut series)?;
        let mut labels = Section { start, end: series.pos(), joined: None };
        self.builder.push_series(start as u32..series.pos() as u32);
        while !series.is_empty() {
            if series.take_byte(0x12) {
                self.budget.charge(SAMPLE_BYTES)?;
                self.builder.push_sample(sample(series.message()?)?);
                continue;
            }
            let field_start = series.pos();
            let (field, wire_type) = series.key()?;
            if matches!(field, 1..=4) {
                series.expect(wire_type, WireType::Len)?;
            }
            match field {
                1 => {
                    series.message()?;
                    labels.add(self.body, field_start, series.pos());
                }
                2 => {
                    self.budget.charge(SAMPLE_BYTES)?;
                    self.builder.push_sample(sample(series.message()?)?);
                }
                3 => self.exemplar(series.message()?)?,
                4 => {
                    let (t, histogram) = self.histogram(series.message()?)?;
                    self.builder.push_histogram(t, histogram);
                }
                _ => series.skip(field, wire_type)?,
            }
        }
        match labels.joined {
            Some(joined) => self.builder.set_labels_bytes(&joined),
            None if (labels.start, labels.end) != (start, start) => {
                self.builder.set_labels(labels.start as u32..labels.end as u32);
            }
            None => {}
        }
        Ok(())
    }

    fn exemplar(&mut self, mut exemplar: Cursor<'_>) -> Result<(), DecodeError> {
        self.budget.charge(EXEMPLAR_BYTES + 2 * exemplar.rest().len())?;
        let (mut builder, mut value, mut t) = (LabelsBuilder::new(), 0.0, 0);
        let mut readable = true;
        while !exemplar.is_empty() {
            let field_start = exemplar.pos();
            match exemplar.key()? {
                (1, wire_type) => {
                    exemplar.expect(wire_type, WireType::Len)?;
                    exemplar.message()?;
                    for label in write::decode_labels(&self.body[field_start..exemplar.pos()]) {
                        match label {
                            Ok((name, value)) => _ = builder.add(name, value),
                            Err(_) => readable = false,
                        }
                    }
                }
                (2, wire_type) => {
                    exemplar.expect(wire_type, WireType::Fixed64)?;
                    value = exemplar.double()?;
                }
                (3, wire_type) => {
                    exemplar.expect(wire_type, WireType::Varint)?;
                    t = exemplar.varint()? as i64;
                }
                (field, wire_type) => exemplar.skip(field, wire_type)?,
            }
        }
        match builder.try_build() {
            Ok(labels) if readable => self.builder.push_exemplar(Exemplar { labels, value, t }),
            _ => self.stats.exemplars_dropped += 1,
        }
        Ok(())
    }

    fn metadata(&mut self, mut message: Cursor<'_>) -> Result<(), DecodeError> {
        let bytes = message.rest().len();
        self.stats.metadata += 1;
        let (mut kind, mut metric, mut help, mut unit): (u64, &[u8], &[u8], &[u8]) = (0, &[], &[], &[]);
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            match field {
                1 => {
                    message.expect(wire_type, WireType::Varint)?;
                    kind = message.varint()?;
                }
                2 | 4 | 5 => {
                    message.expect(wire_type, WireType::Len)?;
                    let text = message.message()?.rest();
                    match field {
                        2 => metric = text,
                        4 => help = text,
                        _ => unit = text,
                    }
                }
                _ => message.skip(field, wire_type)?,
            }
        }
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        match (text(metric), text(help), text(unit)) {
            (Some(metric), Some(help), Some(unit)) if !metric.is_empty() => {
                self.budget.charge(METADATA_BYTES + bytes)?;
                let says = MetricMetadata { kind: MetricKind::from_number(kind), help, unit };
                self.builder.push_metadata(WriteMetadata { metric, says });
            }
            _ => self.stats.metadata_dropped += 1,
        }
        Ok(())
    }

    fn histogram(&mut self, mut message: Cursor<'_>) -> Result<(i64, WriteHistogram), DecodeError> {
        self.budget.charge(HISTOGRAM_BYTES)?;
        let mut h = RawHistogram::default();
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            let want = match field {
                1 | 4 | 6 | 14 | 15 => WireType::Varint,
                2 | 3 | 5 | 7 => WireType::Fixed64,
                8 | 11 => WireType::Len,
                9 | 12 if wire_type == WireType::Varint => WireType::Varint,
                10 | 13 | 16 if wire_type == WireType::Fixed64 => WireType::Fixed64,
                9 | 10 | 12 | 13 | 16 => WireType::Len,
                _ => {
                    message.skip(field, wire_type)?;
                    continue;
                }
            };
            message.expect(wire_type, want)?;
            match field {
                1 => h.count = Count::Integer(message.varint()?),
                2 => h.count = Count::Float(message.double()?),
                3 => h.sum = message.double()?,
                4 => h.schema = message.sint32()?,
                5 => h.zero_threshold = message.double()?,
                6 => h.zero_count = Count::Integer(message.varint()?),
                7 => h.zero_count = Count::Float(message.double()?),
                8 => self.span(message.message()?, &mut h.negative_spans)?,
                9 => self.deltas(&mut message, wire_type, &mut h.negative_deltas)?,
                10 => self.doubles(&mut message, wire_type, &mut h.negative_counts)?,
                11 => self.span(message.message()?, &mut h.positive_spans)?,
                12 => self.deltas(&mut message, wire_type, &mut h.positive_deltas)?,
                13 => self.doubles(&mut message, wire_type, &mut h.positive_counts)?,
                14 => h.reset_hint = message.varint()?,
                15 => h.t = message.varint()? as i64,
                _ => self.doubles(&mut message, wire_type, &mut h.custom_values)?,
            }
        }
        Ok((h.t, h.into_model()))
    }

    fn span(&mut self, mut span: Cursor<'_>, out: &mut Vec<Span>) -> Result<(), DecodeError> {
        self.budget.charge(size_of::<Span>())?;
        let (mut offset, mut length) = (0, 0);
        while !span.is_empty() {
            match span.key()? {
                (1, wire_type) => {
                    span.expect(wire_type, WireType::Varint)?;
                    offset = span.sint32()?;
                }
                (2, wire_type) => {
                    span.expect(wire_type, WireType::Varint)?;
                    length = span.varint()? as u32;
                }
                (field, wire_type) => span.skip(field, wire_type)?,
            }
        }
        out.push(Span { offset, length });
        Ok(())
    }

    fn deltas(
        &mut self,
        from: &mut Cursor<'_>,
        wire_type: WireType,
        out: &mut Vec<i64>,
    ) -> Result<(), DecodeError> {
        if wire_type == WireType::Varint {
            self.budget.charge(8)?;
            out.push(from.sint64()?);
            return Ok(());
        }
        let mut packed = from.message()?;
        while !packed.is_empty() {
            self.budget.charge(8)?;
            out.push(packed.sint64()?);
        }
        Ok(())
    }

    fn doubles(
        &mut self,
        from: &mut Cursor<'_>,
        wire_type: WireType,
        out: &mut Vec<f64>,
    ) -> Result<(), DecodeError> {
        if wire_type == WireType::Fixed64 {
            self.budget.charge(8)?;
            out.push(from.double()?);
            return Ok(());
        }
        let mut packed = from.message()?;
        self.budget.charge(packed.rest().len())?;
        while !packed.is_empty() {
            out.push(packed.double()?);
        }
        Ok(())
    }
}

/// Moves behind labels that stand one behind the other.
#[inline(always)]
fn skip_labels(series: &mut Cursor<'_>) -> Result<(), WireError> {
    while series.take_byte(0x0A) {
        series.message()?;
    }
    Ok(())
}

#[inline(always)]
fn sample(mut message: Cursor<'_>) -> Result<Sample, WireError> {
    let mut sample = Sample { t: 0, v: 0.0 };
    // The form that every sender writes.
    if message.take_byte(0x09) {
        sample.v = message.double()?;
        if message.take_byte(0x10) {
            sample.t = message.varint()? as i64;
        }
    }
    while !message.is_empty() {
        match message.key()? {
            (1, wire_type) => {
                message.expect(wire_type, WireType::Fixed64)?;
                sample.v = message.double()?;
            }
            (2, wire_type) => {
                message.expect(wire_type, WireType::Varint)?;
                sample.t = message.varint()? as i64;
            }
            (field, wire_type) => message.skip(field, wire_type)?,
        }
    }
    Ok(sample)
}

/// Where a series' labels lie: one range of the body, or, from the second piece on, copied together.
struct Section {
    start: usize,
    end: usize,
    joined: Option<Vec<u8>>,
}

impl Section {
    #[cold]
    fn add(&mut self, body: &[u8], start: usize, end: usize) {
        match &mut self.joined {
            Some(joined) => joined.extend_from_slice(&body[start..end]),
            None if self.start == self.end => (self.start, self.end) = (start, end),
            None if self.end == start => self.end = end,
            None => self.joined = Some([&body[self.start..self.end], &body[start..end]].concat()),
        }
    }
}

#[derive(Clone, Copy)]
enum Count {
    Unset,
    Integer(u64),
    Float(f64),
}

impl Count {
    fn integer(self) -> u64 {
        if let Count::Integer(n) = self { n } else { 0 }
    }

    fn float(self) -> f64 {
        if let Count::Float(v) = self { v } else { 0.0 }
    }
}

struct RawHistogram {
    t: i64,
    count: Count,
    zero_count: Count,
    sum: f64,
    schema: i32,
    zero_threshold: f64,
    negative_spans: Vec<Span>,
    negative_deltas: Vec<i64>,
    negative_counts: Vec<f64>,
    positive_spans: Vec<Span>,
    positive_deltas: Vec<i64>,
    positive_counts: Vec<f64>,
    custom_values: Vec<f64>,
    reset_hint: u64,
}

impl Default for RawHistogram {
    fn default() -> Self {
        RawHistogram {
            t: 0,
            count: Count::Unset,
            zero_count: Count::Unset,
            sum: 0.0,
            schema: 0,
            zero_threshold: 0.0,
            negative_spans: Vec::new(),
            negative_deltas: Vec::new(),
            negative_counts: Vec::new(),
            positive_spans: Vec::new(),
            positive_deltas: Vec::new(),
            positive_counts: Vec::new(),
            custom_values: Vec::new(),
            reset_hint: 0,
        }
    }
}

impl RawHistogram {
    /// A float histogram is one whose count is a float, as in Prometheus; the other kind's fields are ignored.
    fn into_model(self) -> WriteHistogram {
        let counter_reset = match self.reset_hint as u32 {
            1 => CounterReset::Reset,
            2 => CounterReset::NotReset,
            3 => CounterReset::Gauge,
            _ => CounterReset::Unknown,
        };
        if let Count::Float(count) = self.count {
            return WriteHistogram::Float(Box::new(FloatHistogram {
                counter_reset,
                schema: self.schema,
                zero_threshold: self.zero_threshold,
                zero_count: self.zero_count.float(),
                count,
                sum: self.sum,
                positive_spans: self.positive_spans,
                negative_spans: self.negative_spans,
                positive_buckets: self.positive_counts,
                negative_buckets: self.negative_counts,
                custom_values: self.custom_values,
            }));
        }
        WriteHistogram::Integer(Box::new(Histogram {
            counter_reset,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count.integer(),
            count: self.count.integer(),
            sum: self.sum,
            positive_spans: self.positive_spans,
            negative_spans: self.negative_spans,
            positive_buckets: self.positive_deltas,
            negative_buckets: self.negative_deltas,
            custom_values: self.custom_values,
        }))
    }
}

#[cfg(test)]
mod tests;
