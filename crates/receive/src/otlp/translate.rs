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
use chronolith_model::WriteBatchBuilder;
use chronolith_storeapi::{RejectKind, WriteRejection, WriteReport};
use hashbrown::{HashMap, HashSet};

use super::delta::Deltas;
use super::labels::{LabelSet, Text, Texts};
use super::metric::{Named, count_points};
use super::names::NameKind;
use super::resource::{Resource, Scope};
use super::settings::OtlpSettings;
use super::value::Attribute;
use crate::remote_write::{Budget, Cursor, DecodeError, DecodeStats, Sections, WireError, WireType};

/// Bytes that an entry of a cache of names is charged, beside its text.
pub(super) const NAME_BYTES: usize = 96;

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
/// `bytes_max`. Points of delta temporality are added up in `totals` where there are any.
///
/// # Errors
/// The builder's content is then of no use; start over.
pub fn translate<'a>(
    body: &'a [u8],
    settings: &'a OtlpSettings,
    totals: Option<Deltas<'a>>,
    bytes_max: usize,
    rendered: &'a mut BytesMut,
    builder: &'a mut WriteBatchBuilder,
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
        scope: Scope::default(),
        totals,
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
    pub(super) scope: [Text; 3],
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

pub(super) struct Translator<'a> {
    pub(super) settings: &'a OtlpSettings,
    pub(super) texts: Texts<'a>,
    pub(super) words: Words,
    pub(super) label_names: HashMap<&'a [u8], Result<Text, String>>,
    pub(super) metrics: HashMap<(&'a [u8], &'a [u8], NameKind), Named>,
    /// Bounds of buckets and quantiles as text, by their bits.
    pub(super) bounds: HashMap<u64, Text>,
    /// Samples of `target_info` that were written: hash of the labels, milliseconds.
    pub(super) infos: HashSet<(u64, i64)>,
    /// Metadata of `target_info` was said.
    pub(super) info_said: bool,
    pub(super) sections: Sections<'a>,
    pub(super) builder: &'a mut WriteBatchBuilder,
    pub(super) budget: Budget,
    pub(super) resource: Resource<'a>,
    pub(super) scope: Scope,
    pub(super) totals: Option<Deltas<'a>>,
    pub(super) labels: LabelSet,
    /// Of the point that is read.
    pub(super) attributes: Vec<Attribute<'a>>,
    pub(super) out: Translated,
}

impl<'a> Translator<'a> {
    fn resource_metrics(&mut self, message: Cursor<'a>) -> Result<(), DecodeError> {
        self.read_resource(message)?;
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

    /// Notes what is left out; what refuses the request is handed on.
    pub(super) fn leave_out(
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

    /// Counts exemplars whose labels cannot be read.
    pub(super) fn drop_exemplar(&mut self) {
        self.out.stats.exemplars_dropped += 1;
    }
}

#[cfg(test)]
mod tests;
