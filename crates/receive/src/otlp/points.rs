//! Points of every kind, as series.
//!
//! ```text
//! Number      { 2: start, 3: time, 4: double, 5: Exemplar*, 6: int, 7: attribute*, 8: flags }
//! Histogram   { 2: start, 3: time, 4: count, 5: sum, 6: counts, 7: bounds, 8: Exemplar*, 9: attribute*, 10: flags }
//! Exponential { 1: attribute*, 2: start, 3: time, 4: count, 5: sum, 6: scale, 7: zero count, 8: positive, 9: negative,
//!               10: flags, 11: Exemplar* }            Buckets { 1: offset, 2: counts }
//! Summary     { 2: start, 3: time, 4: count, 5: sum, 6: { 1: quantile, 2: value }*, 7: attribute*, 8: flags }
//! ```

use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterReset};
use chronolith_model::{Exemplar, Histogram, STALE_NAN, WriteHistogram};

use super::delta::{Explicit, Exponential, Side};
use super::labels::Text;
use super::metric::Temporality;
use super::native::{SCALE_MIN, ZERO_THRESHOLD, buckets, scaled};
use super::series::Times;
use super::translate::{Fault, Translator};
use super::value::attribute;
use crate::remote_write::{Cursor, DecodeError, EXEMPLAR_BYTES, HISTOGRAM_BYTES, WireType};

/// The flag that says that there is no value.
const NO_RECORDED_VALUE: u64 = 1;

/// What all points have.
#[derive(Default)]
struct Point<'a> {
    start: u64,
    time: u64,
    flags: u64,
    count: u64,
    sum: Option<f64>,
    exemplars: Vec<Cursor<'a>>,
}

impl Point<'_> {
    fn times(&self) -> Times {
        Times { t: millis(self.time), start_t: millis(self.start) }
    }

    /// Start and time in nanoseconds.
    fn span(&self) -> (u64, u64) {
        (self.start, self.time)
    }

    fn is_stale(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    /// The value, or the stale marker where there is none.
    fn or_stale(&self, v: f64) -> f64 {
        if self.is_stale() { STALE_NAN } else { v }
    }
}

/// Milliseconds of nanoseconds.
pub(super) fn millis(nanos: u64) -> i64 {
    nanos as i64 / 1_000_000
}

/// Numbers of the fields that kinds of points have in common.
struct Fields {
    attributes: u32,
    exemplars: u32,
    flags: u32,
    /// Fields 4 and 5 are count and sum.
    counts: bool,
}

impl<'a> Translator<'a> {
    /// Reads one field of what all points have; false when it is none of them.
    fn common(
        &mut self,
        point: &mut Point<'a>,
        fields: &Fields,
        (field, wire_type): (u32, WireType),
        message: &mut Cursor<'a>,
    ) -> Result<bool, DecodeError> {
        if field == fields.attributes {
            message.expect(wire_type, WireType::Len)?;
            let one = attribute(message.message()?, &mut self.texts, &mut self.budget)?;
            self.attributes.push(one);
        } else if field == fields.exemplars {
            message.expect(wire_type, WireType::Len)?;
            self.budget.charge(EXEMPLAR_BYTES)?;
            point.exemplars.push(message.message()?);
        } else if field == fields.flags {
            message.expect(wire_type, WireType::Varint)?;
            point.flags = message.varint()?;
        } else if matches!(field, 2 | 3) {
            message.expect(wire_type, WireType::Fixed64)?;
            let nanos = message.fixed64()?;
            *(if field == 2 { &mut point.start } else { &mut point.time }) = nanos;
        } else if fields.counts && matches!(field, 4 | 5) {
            message.expect(wire_type, WireType::Fixed64)?;
            match field {
                4 => point.count = message.fixed64()?,
                _ => point.sum = Some(message.double()?),
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// A point of a gauge or a sum; only a sum's exemplars are kept.
    pub(super) fn number(
        &mut self,
        mut message: Cursor<'a>,
        name: Text,
        exemplars: bool,
        temporality: Temporality,
    ) -> Result<(), Fault> {
        let fields = Fields { attributes: 7, exemplars: 5, flags: 8, counts: false };
        let (mut point, mut v) = (Point::default(), 0.0);
        self.attributes.clear();
        while !message.is_empty() {
            let key = message.key()?;
            match key {
                (4, wire_type) => {
                    message.expect(wire_type, WireType::Fixed64)?;
                    v = message.double()?;
                }
                (6, wire_type) => {
                    message.expect(wire_type, WireType::Fixed64)?;
                    v = message.fixed64()? as i64 as f64;
                }
                key if self.common(&mut point, &fields, key, &mut message)? => {}
                (field, wire_type) => message.skip(field, wire_type)?,
            }
        }
        self.note_time(point.time);
        self.set_point_labels()?;
        if temporality == Temporality::AddedUp {
            let (span, stale) = (point.span(), point.is_stale());
            if let Some(total) =
                self.added_up(name, stale, |totals, key, now| totals.number(key, span, v, now))?
            {
                (point.start, v) = total;
            }
        }
        self.push(name, point.times(), point.or_stale(v))?;
        if exemplars && !point.exemplars.is_empty() {
            let exemplars = self.exemplars(&point.exemplars)?;
            self.push_exemplars(exemplars);
        }
        Ok(())
    }

    pub(super) fn summary(&mut self, mut message: Cursor<'a>, name: Text) -> Result<(), Fault> {
        // No exemplars: a field number that no message has.
        let fields = Fields { attributes: 7, exemplars: 0, flags: 8, counts: true };
        let (mut point, mut quantiles) = (Point::default(), Vec::new());
        self.attributes.clear();
        while !message.is_empty() {
            let key = message.key()?;
            match key {
                (6, wire_type) => {
                    message.expect(wire_type, WireType::Len)?;
                    self.budget.charge(16)?;
                    quantiles.push(quantile(message.message()?)?);
                }
                key if self.common(&mut point, &fields, key, &mut message)? => {}
                (field, wire_type) => message.skip(field, wire_type)?,
            }
        }
        self.note_time(point.time);
        self.set_point_labels()?;
        let at = point.times();
        let (sum_name, count_name) = (self.suffixed(name, "_sum")?, self.suffixed(name, "_count")?);
        self.push(sum_name, at, point.or_stale(point.sum.unwrap_or(0.0)))?;
        self.push(count_name, at, point.or_stale(point.count as f64))?;
        for (quantile, v) in quantiles {
            let quantile = self.bound(quantile)?;
            self.labels.set(&self.texts, self.words.quantile, quantile);
            self.push(name, at, point.or_stale(v))?;
        }
        Ok(())
    }

    pub(super) fn histogram(
        &mut self,
        mut message: Cursor<'a>,
        name: Text,
        temporality: Temporality,
    ) -> Result<(), Fault> {
        let fields = Fields { attributes: 9, exemplars: 8, flags: 10, counts: true };
        let mut point = Point::default();
        let (mut counts, mut bounds): (Vec<u64>, Vec<f64>) = (Vec::new(), Vec::new());
        self.attributes.clear();
        while !message.is_empty() {
            let key = message.key()?;
            match key {
                (6, wire_type) => self.fixed64s(&mut message, wire_type, |bits| counts.push(bits))?,
                (7, wire_type) => {
                    self.fixed64s(&mut message, wire_type, |bits| bounds.push(f64::from_bits(bits)))?;
                }
                key if self.common(&mut point, &fields, key, &mut message)? => {}
                (field, wire_type) => message.skip(field, wire_type)?,
            }
        }
        self.note_time(point.time);
        self.set_point_labels()?;
        if temporality == Temporality::AddedUp {
            let (span, stale) = (point.span(), point.is_stale());
            let own = Explicit { count: point.count, sum: point.sum, counts, bounds };
            let total =
                self.added_up(name, stale, |totals, key, now| totals.explicit(key, span, &own, now))?;
            let (start, total) = total.unwrap_or((point.start, own));
            point.start = start;
            (point.count, point.sum, counts, bounds) = (total.count, total.sum, total.counts, total.bounds);
        }
        let exemplars = self.exemplars(&point.exemplars)?;
        if self.settings.convert_histograms_to_nhcb {
            self.budget.charge(HISTOGRAM_BYTES + counts.len() * 16)?;
            self.push_native(name, point.times(), custom(&point, &counts, bounds, temporality))?;
            self.push_exemplars(exemplars);
            return Ok(());
        }
        self.classic(&point, name, &counts, &bounds, exemplars)?;
        Ok(())
    }

    /// `_sum`, `_count` and a `_bucket` a bound.
    fn classic(
        &mut self,
        point: &Point<'_>,
        name: Text,
        counts: &[u64],
        bounds: &[f64],
        exemplars: Vec<Exemplar>,
    ) -> Result<(), DecodeError> {
        let at = point.times();
        if let Some(sum) = point.sum {
            let name = self.suffixed(name, "_sum")?;
            self.push(name, at, point.or_stale(sum))?;
        }
        let (count_name, bucket_name) = (self.suffixed(name, "_count")?, self.suffixed(name, "_bucket")?);
        self.push(count_name, at, point.or_stale(point.count as f64))?;
        let mut exemplars = exemplars.into_iter().peekable();
        let mut cumulative = 0u64;
        for (bound, count) in bounds.iter().zip(counts) {
            cumulative = cumulative.wrapping_add(*count);
            let le = self.bound(*bound)?;
            self.labels.set(&self.texts, self.words.le, le);
            self.push(bucket_name, at, point.or_stale(cumulative as f64))?;
            // Both are sorted.
            while let Some(exemplar) = exemplars.next_if(|e| e.value <= *bound) {
                self.push_exemplars([exemplar]);
            }
        }
        self.labels.set(&self.texts, self.words.le, self.words.infinity);
        self.push(bucket_name, at, point.or_stale(point.count as f64))?;
        self.push_exemplars(exemplars);
        Ok(())
    }

    pub(super) fn exponential(
        &mut self,
        mut message: Cursor<'a>,
        name: Text,
        temporality: Temporality,
    ) -> Result<(), Fault> {
        let fields = Fields { attributes: 1, exemplars: 11, flags: 10, counts: true };
        let (mut point, mut scale, mut zero_count) = (Point::default(), 0, 0);
        let mut sides = [Side::default(), Side::default()];
        self.attributes.clear();
        while !message.is_empty() {
            let key = message.key()?;
            match key {
                (7, wire_type) => {
                    message.expect(wire_type, WireType::Fixed64)?;
                    zero_count = message.fixed64()?;
                }
                (6, wire_type) => {
                    message.expect(wire_type, WireType::Varint)?;
                    scale = message.sint32()?;
                }
                (8 | 9, wire_type) => {
                    message.expect(wire_type, WireType::Len)?;
                    sides[key.0 as usize - 8] = self.side(message.message()?)?;
                }
                key if self.common(&mut point, &fields, key, &mut message)? => {}
                (field, wire_type) => message.skip(field, wire_type)?,
            }
        }
        self.note_time(point.time);
        if scale < SCALE_MIN {
            return Err(Fault::Refused(format!("scale must be at least {SCALE_MIN}, was {scale}")));
        }
        self.set_point_labels()?;
        if temporality == Temporality::AddedUp {
            let (span, stale) = (point.span(), point.is_stale());
            let own = Exponential { count: point.count, sum: point.sum, scale, zero_count, sides };
            let total =
                self.added_up(name, stale, |totals, key, now| totals.exponential(key, span, &own, now))?;
            let (start, total) = total.unwrap_or((point.start, own));
            point.start = start;
            (point.count, point.sum) = (total.count, total.sum);
            (scale, zero_count, sides) = (total.scale, total.zero_count, total.sides);
        }
        let (schema, scale_down) = scaled(scale);
        let [
            Side { offset: positive_offset, counts: positive },
            Side { offset: negative_offset, counts: negative },
        ] = sides;
        self.budget.charge(HISTOGRAM_BYTES + (positive.len() + negative.len()) * 16)?;
        let (positive_spans, positive_buckets) = buckets(&positive, positive_offset, scale_down, true);
        let (negative_spans, negative_buckets) = buckets(&negative, negative_offset, scale_down, true);
        let histogram = Histogram {
            counter_reset: reset_hint(temporality),
            schema,
            zero_threshold: ZERO_THRESHOLD,
            zero_count,
            count: point.count,
            sum: point.sum.unwrap_or(0.0),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: Vec::new(),
        };
        let histogram = if point.is_stale() { stale(schema) } else { histogram };
        self.push_native(name, point.times(), WriteHistogram::Integer(Box::new(histogram)))?;
        let exemplars = self.exemplars(&point.exemplars)?;
        self.push_exemplars(exemplars);
        Ok(())
    }

    /// Offset and counts of one side of an exponential histogram.
    fn side(&mut self, mut message: Cursor<'_>) -> Result<Side, DecodeError> {
        let (mut offset, mut counts) = (0, Vec::new());
        while !message.is_empty() {
            match message.key()? {
                (1, wire_type) => {
                    message.expect(wire_type, WireType::Varint)?;
                    offset = message.sint32()?;
                }
                (2, WireType::Varint) => {
                    self.budget.charge(8)?;
                    counts.push(message.varint()?);
                }
                (2, wire_type) => {
                    message.expect(wire_type, WireType::Len)?;
                    let mut packed = message.message()?;
                    while !packed.is_empty() {
                        self.budget.charge(8)?;
                        counts.push(packed.varint()?);
                    }
                }
                (field, wire_type) => message.skip(field, wire_type)?,
            }
        }
        Ok(Side { offset, counts })
    }

    /// A repeated number of eight bytes, packed or not.
    fn fixed64s(
        &mut self,
        message: &mut Cursor<'_>,
        wire_type: WireType,
        mut take: impl FnMut(u64),
    ) -> Result<(), DecodeError> {
        if wire_type == WireType::Fixed64 {
            self.budget.charge(8)?;
            take(message.fixed64()?);
            return Ok(());
        }
        message.expect(wire_type, WireType::Len)?;
        let mut packed = message.message()?;
        self.budget.charge(packed.rest().len())?;
        while !packed.is_empty() {
            take(packed.fixed64()?);
        }
        Ok(())
    }
}

fn quantile(mut message: Cursor<'_>) -> Result<(f64, f64), DecodeError> {
    let (mut quantile, mut v) = (0.0, 0.0);
    while !message.is_empty() {
        match message.key()? {
            (1, wire_type) => {
                message.expect(wire_type, WireType::Fixed64)?;
                quantile = message.double()?;
            }
            (2, wire_type) => {
                message.expect(wire_type, WireType::Fixed64)?;
                v = message.double()?;
            }
            (field, wire_type) => message.skip(field, wire_type)?,
        }
    }
    Ok((quantile, v))
}

/// A delta's histogram is a gauge to everything that looks for counter resets.
fn reset_hint(temporality: Temporality) -> CounterReset {
    if temporality == Temporality::Delta { CounterReset::Gauge } else { CounterReset::Unknown }
}

fn stale(schema: i32) -> Histogram {
    Histogram { schema, sum: STALE_NAN, ..Histogram::default() }
}

/// An explicit histogram as a native one with custom buckets.
fn custom(point: &Point<'_>, counts: &[u64], bounds: Vec<f64>, temporality: Temporality) -> WriteHistogram {
    if point.is_stale() {
        return WriteHistogram::Integer(Box::new(stale(CUSTOM_BUCKETS_SCHEMA)));
    }
    let empty = counts.iter().take_while(|c| **c == 0).count();
    let (positive_spans, positive_buckets) = buckets(&counts[empty..], empty as i32, 0, false);
    WriteHistogram::Integer(Box::new(Histogram {
        counter_reset: reset_hint(temporality),
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: point.count,
        sum: point.sum.unwrap_or(0.0),
        positive_spans,
        positive_buckets,
        custom_values: bounds,
        ..Histogram::default()
    }))
}
