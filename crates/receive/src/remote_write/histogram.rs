//! Native histograms on the wire: the same message in remote write 1.0 and 2.0, but for the start timestamp.
//!
//! ```text
//! Histogram { 1|2: count, 3: sum, 4: schema, 5: zero threshold, 6|7: zero count, 8..10: negative, 11..13: positive,
//!             14: reset hint, 15: time, 16: custom values, 17: start (2.0) }
//! ```

use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{FloatHistogram, Histogram, WriteHistogram};

use super::decode::{Budget, DecodeError, HISTOGRAM_BYTES};
use super::wire::{Cursor, WireType};

/// A histogram with its times in milliseconds.
pub(super) struct TimedHistogram {
    pub(super) t: i64,
    /// 0: unknown.
    pub(super) start_t: i64,
    pub(super) histogram: WriteHistogram,
}

/// Reads one. `with_start` says whether field 17 is known to the protocol.
pub(super) fn read(
    message: Cursor<'_>,
    with_start: bool,
    budget: &mut Budget,
) -> Result<TimedHistogram, DecodeError> {
    Reader { budget, with_start }.histogram(message)
}

struct Reader<'b> {
    budget: &'b mut Budget,
    with_start: bool,
}

impl Reader<'_> {
    fn histogram(&mut self, mut message: Cursor<'_>) -> Result<TimedHistogram, DecodeError> {
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
                17 if self.with_start => WireType::Varint,
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
                17 => h.start_t = message.varint()? as i64,
                _ => self.doubles(&mut message, wire_type, &mut h.custom_values)?,
            }
        }
        Ok(TimedHistogram { t: h.t, start_t: h.start_t, histogram: h.into_model() })
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
    start_t: i64,
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
            start_t: 0,
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
