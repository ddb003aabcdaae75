//! A metric: what it is, its name, and the way of its points.

use chronolith_model::{MetricKind, MetricMetadata, WriteMetadata};

use super::labels::Text;
use super::names::{self, NameKind};
use super::translate::{Fault, NAME_BYTES, Translator};
use crate::remote_write::{Cursor, DecodeError, METADATA_BYTES, WireType};

/// A metric, but for its points.
struct Metric<'a> {
    name: &'a [u8],
    description: &'a [u8],
    unit: &'a [u8],
    kind: PointKind,
    points: Cursor<'a>,
    temporality: u64,
    monotonic: bool,
}

/// What a metric's points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PointKind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// A metric's name as it was translated, and whether its metadata was said.
pub(super) struct Named {
    name: Result<Text, String>,
    said: bool,
}

/// What a point's value stands for, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Temporality {
    /// All since the start, or nothing that adds up.
    Cumulative,
    /// What came since the last point, stored as it is.
    Delta,
    /// The same, stored as what has come in all ([`super::delta`]).
    AddedUp,
}

impl<'a> Translator<'a> {
    pub(super) fn metric(&mut self, message: Cursor<'a>) -> Result<(), DecodeError> {
        let Some(metric) = Metric::read(message)? else { return Ok(()) };
        let describe = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let (name, temporality) = match self.open_metric(&metric) {
            Ok(opened) => opened,
            Err(fault) => {
                let points = count(metric.points)?;
                return self.leave_out(fault, || describe(metric.name), points);
            }
        };
        let mut points = metric.points;
        while !points.is_empty() {
            match points.key()? {
                (1, wire_type) => {
                    points.expect(wire_type, WireType::Len)?;
                    let point = points.message()?;
                    let done = match metric.kind {
                        PointKind::Gauge => self.number(point, name, false, Temporality::Cumulative),
                        PointKind::Sum => self.number(point, name, true, temporality),
                        PointKind::Histogram => self.histogram(point, name, temporality),
                        PointKind::Exponential => self.exponential(point, name, temporality),
                        PointKind::Summary => self.summary(point, name),
                    };
                    if let Err(fault) = done {
                        self.leave_out(fault, || describe(metric.name), 1)?;
                    }
                }
                (field, wire_type) => points.skip(field, wire_type)?,
            }
        }
        Ok(())
    }

    /// Checks a metric, names it and says what it is.
    fn open_metric(&mut self, metric: &Metric<'a>) -> Result<(Text, Temporality), Fault> {
        let has_temporality =
            matches!(metric.kind, PointKind::Sum | PointKind::Histogram | PointKind::Exponential);
        let temporality = match metric.temporality {
            _ if !has_temporality => Temporality::Cumulative,
            CUMULATIVE => Temporality::Cumulative,
            DELTA if self.settings.native_delta => Temporality::Delta,
            DELTA if self.totals.is_some() => Temporality::AddedUp,
            DELTA => {
                return Err(Fault::Refused(
                    "delta temporality is not supported, send cumulative points".to_owned(),
                ));
            }
            _ => return Err(Fault::Refused("invalid aggregation temporality".to_owned())),
        };
        let name_kind = match metric.kind {
            PointKind::Gauge => NameKind::Gauge,
            PointKind::Sum if metric.monotonic => NameKind::Counter,
            _ => NameKind::Other,
        };
        let key = (metric.name, metric.unit, name_kind);
        if !self.metrics.contains_key(&key) {
            let name = String::from_utf8_lossy(metric.name);
            let unit = String::from_utf8_lossy(metric.unit);
            let name = names::metric_name(&name, &unit, name_kind, self.settings.translation_strategy);
            self.budget.charge(NAME_BYTES + name.as_ref().map_or_else(String::len, String::len))?;
            let name = name.map(|name| self.texts.keep(name.as_bytes()));
            self.metrics.insert(key, Named { name, said: false });
        }
        let named = self.metrics.get_mut(&key).expect("it was just entered");
        let name = named.name.clone().map_err(Fault::Refused)?;
        if !std::mem::replace(&mut named.said, true) {
            self.say(metric, name, temporality)?;
        }
        Ok((name, temporality))
    }

    fn say(&mut self, metric: &Metric<'_>, name: Text, temporality: Temporality) -> Result<(), DecodeError> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
        self.out.stats.metadata += 1;
        let (Ok(name), Ok(help), Ok(unit)) =
            (text(self.texts.bytes(name)), text(metric.description), text(metric.unit))
        else {
            self.out.stats.metadata_dropped += 1;
            return Ok(());
        };
        self.budget.charge(METADATA_BYTES + name.len() + help.len() + unit.len())?;
        let kind = match metric.kind {
            _ if temporality == Temporality::Delta => MetricKind::Unknown,
            PointKind::Sum if metric.monotonic => MetricKind::Counter,
            PointKind::Gauge | PointKind::Sum => MetricKind::Gauge,
            PointKind::Histogram | PointKind::Exponential => MetricKind::Histogram,
            PointKind::Summary => MetricKind::Summary,
        };
        let says = MetricMetadata { kind, help, unit: names::unit_name(&unit) };
        self.builder.push_metadata(WriteMetadata { metric: name, says });
        Ok(())
    }
}

impl<'a> Metric<'a> {
    /// Everything but the points; `None` when there is no data of a known kind.
    fn read(mut message: Cursor<'a>) -> Result<Option<Self>, DecodeError> {
        let (mut name, mut description, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut data = None;
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            let kind = match field {
                1..=3 => None,
                5 => Some(PointKind::Gauge),
                7 => Some(PointKind::Sum),
                9 => Some(PointKind::Histogram),
                10 => Some(PointKind::Exponential),
                11 => Some(PointKind::Summary),
                _ => {
                    message.skip(field, wire_type)?;
                    continue;
                }
            };
            message.expect(wire_type, WireType::Len)?;
            let content = message.message()?;
            match (field, kind) {
                (_, Some(kind)) => data = Some((kind, content)),
                (1, None) => name = content.rest(),
                (2, None) => description = content.rest(),
                _ => unit = content.rest(),
            }
        }
        let Some((kind, points)) = data else { return Ok(None) };
        let (mut temporality, mut monotonic, mut look) = (0, false, points);
        while !look.is_empty() {
            match look.key()? {
                (2, WireType::Varint) if kind != PointKind::Gauge => temporality = look.varint()?,
                (3, WireType::Varint) if kind == PointKind::Sum => monotonic = look.varint()? != 0,
                (field, wire_type) => look.skip(field, wire_type)?,
            }
        }
        Ok(Some(Metric { name, description, unit, kind, points, temporality, monotonic }))
    }
}

/// Points of a metric.
fn count(mut points: Cursor<'_>) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !points.is_empty() {
        let (field, wire_type) = points.key()?;
        count += usize::from(field == 1);
        points.skip(field, wire_type)?;
    }
    Ok(count)
}

/// Points of all metrics below, `levels` repeated fields 2 down.
pub(super) fn count_points(mut message: Cursor<'_>, levels: u32) -> Result<usize, DecodeError> {
    if levels == 0 {
        return Metric::read(message)?.map_or(Ok(0), |metric| count(metric.points));
    }
    let mut points = 0;
    while !message.is_empty() {
        match message.key()? {
            (2, WireType::Len) => points += count_points(message.message()?, levels - 1)?,
            (field, wire_type) => message.skip(field, wire_type)?,
        }
    }
    Ok(points)
}
