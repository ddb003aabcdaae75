//! From an `ExportMetricsServiceRequest` to a batch, by Prometheus's rules.
//!
//! ```text
//! Request { 1: ResourceMetrics* }     ResourceMetrics { 1: Resource { 1: attribute* }, 2: ScopeMetrics* }
//! ScopeMetrics { 1: Scope { 1: name, 2: version, 3: attribute* }, 2: Metric*, 3: schema URL }
//! Metric { 1: name, 2: description, 3: unit, 5: Gauge, 7: Sum, 9: Histogram, 10: ExponentialHistogram, 11: Summary }
//! ```
//!
//! The protobuf is read where it lies; what a resource and a scope add to labels is worked out once for all of their points,
//! names are translated once a request. What is wrong with a metric or a point refuses that alone: the answer counts and
//! names it. Bytes that are no protobuf refuse the request.
//!
//! Fields may come in any order, so a message is looked through for what its repeated parts need before these are read.

use bytes::BytesMut;
use chronolith_model::{
    Exemplar, MetricKind, MetricMetadata, Sample, WriteBatchBuilder, WriteHistogram, WriteMetadata,
};
use chronolith_storeapi::{RejectKind, WriteRejection, WriteReport};
use hashbrown::{HashMap, HashSet};

use super::labels::{LabelSet, Text, Texts};
use super::names::{self, NameKind};
use super::settings::OtlpSettings;
use super::value::{Attribute, attribute};
use crate::remote_write::{
    Budget, Cursor, DecodeError, DecodeStats, METADATA_BYTES, SAMPLE_BYTES, SERIES_BYTES, Sections,
    WireError, WireType,
};

/// Bytes that an entry of a cache of names is charged, beside its text.
const NAME_BYTES: usize = 96;

/// What was read beside what is in the batch.
#[derive(Debug, Default)]
pub struct Translated {
    /// Counts.
    pub stats: DecodeStats,
    /// Points that were left out, with their reasons.
    pub refused: WriteReport,
}

/// Reads a request in protobuf into `builder`, which is started over, and its label sections into `rendered`;
/// [`WriteBatchBuilder::finish_rendered`] is then given that buffer. All memory together is at most a small multiple of
/// `bytes_max`.
///
/// # Errors
/// The builder's content is then of no use; start over.
pub fn translate(
    body: &[u8],
    settings: &OtlpSettings,
    bytes_max: usize,
    rendered: &mut BytesMut,
    builder: &mut WriteBatchBuilder,
) -> Result<Translated, DecodeError> {
    u32::try_from(body.len()).map_err(|_| WireError { offset: 0, what: "body over 4 GiB" })?;
    builder.start(0);
    let mut texts = Texts::new(body);
    let words = Words::new(&mut texts);
    let mut translator = Translator {
        settings,
        texts,
        words,
        label_names: HashMap::new(),
        metrics: HashMap::new(),
        bounds: HashMap::new(),
        infos: HashSet::new(),
        info_said: false,
        sections: Sections::new(rendered, bytes_max),
        builder,
        budget: Budget::new(bytes_max),
        resource: Resource::default(),
        scope: LabelSet::default(),
        scope_removes: Vec::new(),
        labels: LabelSet::default(),
        attributes: Vec::new(),
        out: Translated::default(),
    };
    let mut request = Cursor::new(body);
    while !request.is_empty() {
        match request.key()? {
            (1, wire_type) => {
                request.expect(wire_type, WireType::Len)?;
                translator.resource_metrics(request.message()?)?;
            }
            (field, wire_type) => request.skip(field, wire_type)?,
        }
    }
    Ok(translator.out)
}

/// Why a point, a metric, a scope or a resource is left out, or the request refused.
pub(super) enum Fault {
    Decode(DecodeError),
    Refused(String),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Fault::Decode(error)
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Fault::Decode(error.into())
    }
}

/// Label names and values that the translation itself writes.
pub(super) struct Words {
    pub(super) name: Text,
    pub(super) le: Text,
    pub(super) quantile: Text,
    pub(super) infinity: Text,
    pub(super) target_info: Text,
    pub(super) job: Text,
    pub(super) instance: Text,
    scope: [Text; 3],
}

impl Words {
    fn new(texts: &mut Texts<'_>) -> Self {
        let mut keep = |text: &str| texts.keep(text.as_bytes());
        Words {
            name: keep("__name__"),
            le: keep("le"),
            quantile: keep("quantile"),
            infinity: keep("+Inf"),
            target_info: keep("target_info"),
            job: keep("job"),
            instance: keep("instance"),
            scope: ["otel_scope_name", "otel_scope_version", "otel_scope_schema_url"].map(keep),
        }
    }
}

/// What a resource adds to its points.
#[derive(Default)]
pub(super) struct Resource<'a> {
    pub(super) attributes: Vec<Attribute<'a>>,
    promoted: LabelSet,
    job: Option<Text>,
    instance: Option<Text>,
    /// Nanoseconds of its first and last point.
    pub(super) earliest: Option<u64>,
    pub(super) latest: u64,
}

/// A metric, but for its points.
pub(super) struct Metric<'a> {
    pub(super) name: &'a [u8],
    description: &'a [u8],
    unit: &'a [u8],
    kind: PointKind,
    points: Cursor<'a>,
    temporality: u64,
    monotonic: bool,
}

/// What a metric's points are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PointKind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;

/// A metric's name as it was translated, and whether its metadata was said.
struct Named {
    name: Result<Text, String>,
    said: bool,
}

pub(super) struct Translator<'a> {
    pub(super) settings: &'a OtlpSettings,
    pub(super) texts: Texts<'a>,
    pub(super) words: Words,
    label_names: HashMap<&'a [u8], Result<Text, String>>,
    metrics: HashMap<(&'a [u8], &'a [u8], NameKind), Named>,
    /// Bounds of buckets and quantiles as text, by their bits.
    bounds: HashMap<u64, Text>,
    /// Samples of `target_info` that were written: hash of the labels, milliseconds.
    pub(super) infos: HashSet<(u64, i64)>,
    /// Metadata of `target_info` was said.
    pub(super) info_said: bool,
    pub(super) sections: Sections<'a>,
    pub(super) builder: &'a mut WriteBatchBuilder,
    pub(super) budget: Budget,
    pub(super) resource: Resource<'a>,
    scope: LabelSet,
    /// Scope labels that are empty take away what an attribute has set.
    scope_removes: Vec<Text>,
    pub(super) labels: LabelSet,
    /// Of the point that is read.
    pub(super) attributes: Vec<Attribute<'a>>,
    out: Translated,
}

impl<'a> Translator<'a> {
    fn resource_metrics(&mut self, message: Cursor<'a>) -> Result<(), DecodeError> {
        self.resource.attributes.clear();
        let mut look = message;
        while !look.is_empty() {
            match look.key()? {
                (1, wire_type) => {
                    look.expect(wire_type, WireType::Len)?;
                    let mut resource = look.message()?;
                    while !resource.is_empty() {
                        match resource.key()? {
                            (1, wire_type) => {
                                resource.expect(wire_type, WireType::Len)?;
                                let one = attribute(resource.message()?, &mut self.texts, &mut self.budget)?;
                                self.resource.attributes.push(one);
                            }
                            (field, wire_type) => resource.skip(field, wire_type)?,
                        }
                    }
                }
                (field, wire_type) => look.skip(field, wire_type)?,
            }
        }
        if let Err(fault) = self.set_resource() {
            return self.leave_out(fault, || "resource".to_owned(), count_points(message, 2)?);
        }
        let mut scopes = message;
        while !scopes.is_empty() {
            match scopes.key()? {
                (2, wire_type) => {
                    scopes.expect(wire_type, WireType::Len)?;
                    self.scope_metrics(scopes.message()?)?;
                }
                (field, wire_type) => scopes.skip(field, wire_type)?,
            }
        }
        match self.target_info() {
            Ok(()) => Ok(()),
            Err(fault) => self.leave_out(fault, || "target_info".to_owned(), 0),
        }
    }

    /// Works out what the resource adds to its points.
    fn set_resource(&mut self) -> Result<(), Fault> {
        (self.resource.earliest, self.resource.latest) = (None, 0);
        self.resource.promoted.clear();
        let attributes = std::mem::take(&mut self.resource.attributes);
        let find = |key: &str| attributes.iter().find(|a| a.key == key.as_bytes()).map(|a| a.value);
        self.resource.job = match (find("service.name"), find("service.namespace")) {
            (Some(name), Some(namespace)) => Some(self.joined(namespace, b"/", name)?),
            (name, _) => name,
        };
        self.resource.instance = find("service.instance.id");
        let mut result = Ok(());
        for Attribute { key, value } in &attributes {
            if !self.settings.promotes(&String::from_utf8_lossy(key)) {
                continue;
            }
            match self.label_name(key) {
                Ok(name) => self.resource.promoted.set(&self.texts, name, *value),
                Err(fault) => result = Err(fault),
            }
        }
        self.resource.attributes = attributes;
        result
    }

    fn scope_metrics(&mut self, message: Cursor<'a>) -> Result<(), DecodeError> {
        if let Err(fault) = self.set_scope(message) {
            return self.leave_out(fault, || "scope".to_owned(), count_points(message, 1)?);
        }
        let mut metrics = message;
        while !metrics.is_empty() {
            match metrics.key()? {
                (2, wire_type) => {
                    metrics.expect(wire_type, WireType::Len)?;
                    self.metric(metrics.message()?)?;
                }
                (field, wire_type) => metrics.skip(field, wire_type)?,
            }
        }
        Ok(())
    }

    /// Works out what the scope adds to its points.
    fn set_scope(&mut self, mut message: Cursor<'a>) -> Result<(), Fault> {
        self.scope.clear();
        self.scope_removes.clear();
        if !self.settings.promote_scope_metadata {
            return Ok(());
        }
        let empty = self.texts.keep(b"");
        let (mut of_scope, mut attributes) = ([empty; 3], Vec::new());
        while !message.is_empty() {
            let (field, wire_type) = message.key()?;
            if !matches!(field, 1 | 3) {
                message.skip(field, wire_type)?;
                continue;
            }
            message.expect(wire_type, WireType::Len)?;
            let start = message.pos();
            let mut scope = message.message()?;
            if field == 3 {
                of_scope[2] = Texts::of_body(start, message.pos());
                continue;
            }
            while !scope.is_empty() {
                let (field, wire_type) = scope.key()?;
                if !matches!(field, 1..=3) {
                    scope.skip(field, wire_type)?;
                    continue;
                }
                scope.expect(wire_type, WireType::Len)?;
                let start = scope.pos();
                let inner = scope.message()?;
                match field {
                    3 => attributes.push(attribute(inner, &mut self.texts, &mut self.budget)?),
                    _ => of_scope[field as usize - 1] = Texts::of_body(start, scope.pos()),
                }
            }
        }
        if self.texts.bytes(of_scope[0]).is_empty() {
            return Ok(());
        }
        for Attribute { key, value } in attributes {
            let key = format!("otel_scope_{}", String::from_utf8_lossy(key));
            let name = names::label_name(&key, self.settings).map_err(Fault::Refused)?;
            self.budget.charge(name.len() + 10)?;
            let name = self.texts.keep(name.as_bytes());
            self.scope.set(&self.texts, name, value);
        }
        for (name, value) in self.words.scope.into_iter().zip(of_scope) {
            if self.texts.bytes(value).is_empty() {
                self.scope_removes.push(name);
            }
            self.scope.set(&self.texts, name, value);
        }
        Ok(())
    }

    fn metric(&mut self, message: Cursor<'a>) -> Result<(), DecodeError> {
        let Some(metric) = Metric::read(message)? else { return Ok(()) };
        let describe = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let name = match self.open_metric(&metric) {
            Ok(name) => name,
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
                    let delta = metric.temporality == DELTA;
                    let done = match metric.kind {
                        PointKind::Gauge => self.number(point, name, false),
                        PointKind::Sum => self.number(point, name, true),
                        PointKind::Histogram => self.histogram(point, name, delta),
                        PointKind::Exponential => self.exponential(point, name, delta),
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
    fn open_metric(&mut self, metric: &Metric<'a>) -> Result<Text, Fault> {
        let has_temporality =
            matches!(metric.kind, PointKind::Sum | PointKind::Histogram | PointKind::Exponential);
        match metric.temporality {
            _ if !has_temporality => {}
            CUMULATIVE => {}
            DELTA if self.settings.native_delta => {}
            DELTA => {
                return Err(Fault::Refused(
                    "delta temporality is not supported, send cumulative points".to_owned(),
                ));
            }
            _ => return Err(Fault::Refused("invalid aggregation temporality".to_owned())),
        }
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
            self.say(metric, name)?;
        }
        Ok(name)
    }

    fn say(&mut self, metric: &Metric<'_>, name: Text) -> Result<(), DecodeError> {
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
            _ if metric.temporality == DELTA => MetricKind::Unknown,
            PointKind::Sum if metric.monotonic => MetricKind::Counter,
            PointKind::Gauge | PointKind::Sum => MetricKind::Gauge,
            PointKind::Histogram | PointKind::Exponential => MetricKind::Histogram,
            PointKind::Summary => MetricKind::Summary,
        };
        let says = MetricMetadata { kind, help, unit: names::unit_name(&unit) };
        self.builder.push_metadata(WriteMetadata { metric: name, says });
        Ok(())
    }

    /// Notes what is left out; what refuses the request is handed on.
    fn leave_out(
        &mut self,
        fault: Fault,
        of: impl FnOnce() -> String,
        points: usize,
    ) -> Result<(), DecodeError> {
        match fault {
            Fault::Decode(error) => Err(error),
            Fault::Refused(reason) => {
                let mut series = of();
                series.truncate(
                    (0..=200.min(series.len())).rev().find(|&i| series.is_char_boundary(i)).unwrap_or(0),
                );
                let kind = RejectKind::Invalid;
                self.out.refused.reject(points, || WriteRejection { kind, series, t: None, reason });
                Ok(())
            }
        }
    }

    /// The label of an attribute.
    fn label_name(&mut self, key: &'a [u8]) -> Result<Text, Fault> {
        if let Some(known) = self.label_names.get(key) {
            return known.clone().map_err(Fault::Refused);
        }
        let text = String::from_utf8_lossy(key);
        let name = names::label_name(&text, self.settings);
        self.budget.charge(NAME_BYTES + name.as_ref().map_or_else(String::len, |n| n.len()))?;
        let name = name.map(|name| self.texts.keep(name.as_bytes()));
        self.label_names.insert(key, name.clone());
        name.map_err(Fault::Refused)
    }

    fn joined(&mut self, first: Text, between: &[u8], second: Text) -> Result<Text, DecodeError> {
        let joined = [self.texts.bytes(first), between, self.texts.bytes(second)].concat();
        self.budget.charge(joined.len() + 10)?;
        Ok(self.texts.keep(&joined))
    }

    /// A number as the value of `le` or `quantile`.
    pub(super) fn bound(&mut self, v: f64) -> Result<Text, DecodeError> {
        if let Some(known) = self.bounds.get(&v.to_bits()) {
            return Ok(*known);
        }
        let text = match v {
            _ if v.is_nan() => "NaN".to_owned(),
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            v => v.to_string(),
        };
        self.budget.charge(NAME_BYTES + text.len())?;
        let text = self.texts.keep(text.as_bytes());
        self.bounds.insert(v.to_bits(), text);
        Ok(text)
    }

    /// Makes the labels of the point whose attributes were read: its own, the resource's, the scope's.
    pub(super) fn set_point_labels(&mut self) -> Result<(), Fault> {
        self.set_own_labels(&["__name__"])?;
        for (name, value) in self.resource.promoted.iter() {
            if self.labels.get(&self.texts, name).is_none() {
                self.labels.set(&self.texts, name, value);
            }
        }
        self.set_identity();
        if !self.scope.is_empty() {
            for (name, value) in self.scope.iter() {
                self.labels.set(&self.texts, name, value);
            }
            let empty = self.texts.keep(b"");
            for name in &self.scope_removes {
                self.labels.set(&self.texts, *name, empty);
            }
        }
        Ok(())
    }

    /// `job` and `instance`.
    pub(super) fn set_identity(&mut self) {
        let Words { job, instance, .. } = self.words;
        for (name, value) in [(job, self.resource.job), (instance, self.resource.instance)] {
            if let Some(value) = value.filter(|v| !self.texts.bytes(*v).is_empty()) {
                self.labels.set(&self.texts, name, value);
            }
        }
    }

    /// Labels of the attributes alone, but for `without`. Those that become the same label are joined with `;`.
    pub(super) fn set_own_labels(&mut self, without: &[&str]) -> Result<(), Fault> {
        self.labels.clear();
        if !self.attributes.is_sorted_by(|a, b| a.key <= b.key) {
            self.attributes.sort_by(|a, b| a.key.cmp(b.key));
        }
        let joins = self.settings.translation_strategy.escapes();
        for i in 0..self.attributes.len() {
            let Attribute { key, value } = self.attributes[i];
            if without.iter().any(|name| name.as_bytes() == key) {
                continue;
            }
            let name = self.label_name(key)?;
            let value = match self.labels.get(&self.texts, name) {
                Some(held) if joins => self.joined(held, b";", value)?,
                _ => value,
            };
            self.labels.set(&self.texts, name, value);
        }
        Ok(())
    }

    /// A name with a suffix.
    pub(super) fn suffixed(&mut self, name: Text, suffix: &str) -> Result<Text, DecodeError> {
        let empty = self.texts.keep(b"");
        self.joined(name, suffix.as_bytes(), empty)
    }

    /// Opens a series with the labels made, under this name.
    fn push_series(&mut self, name: Text) -> Result<(), DecodeError> {
        self.budget.charge(SERIES_BYTES + SAMPLE_BYTES)?;
        self.labels.set(&self.texts, self.words.name, name);
        let start = self.sections.pos();
        self.labels.render(&self.texts, &mut self.sections)?;
        self.builder.push_series(start..self.sections.pos());
        Ok(())
    }

    /// Writes a float sample of the series with the labels made, under this name.
    pub(super) fn push(&mut self, name: Text, at: Times, v: f64) -> Result<(), DecodeError> {
        self.push_series(name)?;
        self.builder.push_sample_with_start_ts(Sample { t: at.t, v }, at.start_t);
        Ok(())
    }

    /// As [`Translator::push`], a histogram.
    pub(super) fn push_native(
        &mut self,
        name: Text,
        at: Times,
        histogram: WriteHistogram,
    ) -> Result<(), DecodeError> {
        self.push_series(name)?;
        self.builder.push_histogram_with_start_ts(at.t, histogram, at.start_t);
        Ok(())
    }

    /// Adds exemplars to the series that was pushed last.
    pub(super) fn push_exemplars(&mut self, exemplars: impl IntoIterator<Item = Exemplar>) {
        exemplars.into_iter().for_each(|e| self.builder.push_exemplar(e));
    }

    /// Counts exemplars whose labels cannot be read.
    pub(super) fn drop_exemplar(&mut self) {
        self.out.stats.exemplars_dropped += 1;
    }

    /// Notes the time of a point for `target_info`.
    pub(super) fn note_time(&mut self, nanos: u64) {
        let Resource { earliest, latest, .. } = &mut self.resource;
        *earliest = Some(earliest.map_or(nanos, |e| e.min(nanos)));
        *latest = (*latest).max(nanos);
    }
}

/// When a point was, and since when it counts: milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) t: i64,
    pub(super) start_t: i64,
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
fn count_points(mut message: Cursor<'_>, levels: u32) -> Result<usize, DecodeError> {
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

#[cfg(test)]
mod tests;
