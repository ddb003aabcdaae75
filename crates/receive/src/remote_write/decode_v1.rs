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

use chronolith_model::{
    Exemplar, LabelsBuilder, MetricKind, MetricMetadata, WriteBatchBuilder, WriteMetadata, write,
};

use super::decode::{
    Budget, DecodeError, DecodeStats, EXEMPLAR_BYTES, METADATA_BYTES, SAMPLE_BYTES, SERIES_BYTES,
};
use super::wire::{Cursor, WireError, WireType};
use super::{histogram, sample};

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
                self.builder.push_sample(sample::read::<false>(series.message()?)?.0);
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
                    self.builder.push_sample(sample::read::<false>(series.message()?)?.0);
                }
                3 => self.exemplar(series.message()?)?,
                4 => {
                    let read = histogram::read(series.message()?, false, &mut self.budget)?;
                    self.builder.push_histogram(read.t, read.histogram);
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
}

/// Moves behind labels that stand one behind the other.
#[inline(always)]
fn skip_labels(series: &mut Cursor<'_>) -> Result<(), WireError> {
    while series.take_byte(0x0A) {
        series.message()?;
    }
    Ok(())
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

#[cfg(test)]
mod tests;
