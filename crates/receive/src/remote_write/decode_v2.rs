//! Remote write 2.0: from a decompressed body into a batch, without an allocation per sample or per label.
//!
//! ```text
//! Request    { 4: symbol*, 5: TimeSeries* }                 symbol 0 is the empty text
//! TimeSeries { 1: label refs (name, value, …), 2: Sample*, 3: Histogram*, 4: Exemplar*, 5: Metadata }
//! Sample     { 1: value, 2: time, 3: start }
//! Exemplar   { 1: label refs, 2: value, 3: time }
//! Metadata   { 1: type, 3: help ref, 4: unit ref }
//! ```
//!
//! The symbols are found first, wherever they stand. A label, a pair of them, is rendered and hashed when it first comes
//! ([`super::label_table`]); a series is then a list of labels by number, and the sum of their hashes is its key
//! ([`chronolith_model::write::LabelDictionary`]). The head knows it by that key; the bytes that remote write 1.0 would
//! have sent come about only where it does not, so that both protocols name a series alike. What is in a section the head
//! checks, when it sees it for the first time.
//!
//! A series whose references point nowhere, or that has no sample, is left out and named in the answer; the others are
//! stored. Bytes that are no protobuf refuse the request as a whole.
//!
//! Two bytes of reference can stand for a symbol of any length, so what columns may grow to, and sections if all of them are
//! rendered, is bounded by the caller.

use bytes::BytesMut;
use chronolith_model::write::decode_labels;
use chronolith_model::{
    Exemplar, LabelsBuilder, MetricKind, MetricMetadata, WriteBatchBuilder, WriteMetadata,
};
use chronolith_storeapi::{RejectKind, WriteRejection, WriteReport};

use super::decode::{
    Budget, DecodeError, DecodeStats, EXEMPLAR_BYTES, METADATA_BYTES, SAMPLE_BYTES, SERIES_BYTES,
};
use super::heard::Hearing;
use super::label_table::{Label, LabelKey, LabelTable, NO_LABEL, Rendering};
use super::sections::{Piece, Sections};
use super::wire::{Cursor, WireError, WireType};
use super::{histogram, sample};

/// A symbol, the first label whose value it is, and what the request last said of the metric of this name.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    piece: Piece,
    labels: u32,
    said: Option<Said>,
}

/// What is known of a request while it is decoded: memory to use again.
#[derive(Debug, Default)]
pub struct Symbols {
    symbols: Vec<Symbol>,
    labels: LabelTable,
}

impl Symbols {
    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        (self.symbols.capacity() * size_of::<Symbol>()).max(self.labels.capacity_bytes())
    }
}

/// Type, help and unit of a metric as they stand in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    kind: u32,
    help: u32,
    unit: u32,
}

/// What was read beside what is in the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DecodedV2 {
    /// Counts.
    pub stats: DecodeStats,
    /// Series and exemplars that were left out, with their reasons.
    pub refused: WriteReport,
}

/// Reads an `io.prometheus.write.v2.Request` into `builder`, which is started over, and its labels into `rendered`;
/// [`WriteBatchBuilder::finish_rendered`] is then given that buffer. Sections, should they be rendered, and columns each
/// take at most `bytes_max`. `key` hashes labels. What `hearing` has heard of a metric before is left out.
///
/// # Errors
/// The builder's content is then of no use; start over.
pub fn decode(
    body: &[u8],
    bytes_max: usize,
    key: &LabelKey,
    hearing: Option<Hearing<'_>>,
    symbols: &mut Symbols,
    rendered: &mut BytesMut,
    builder: &mut WriteBatchBuilder,
) -> Result<DecodedV2, DecodeError> {
    u32::try_from(body.len()).map_err(|_| WireError { offset: 0, what: "body over 4 GiB" })?;
    builder.start(0);
    let mut budget = Budget::new(bytes_max);
    let Symbols { symbols, labels } = symbols;
    labels.clear();
    let Found { name_symbol, mut request } = read_symbols(body, &mut budget, symbols)?;
    let mut decoder = Decoder {
        body,
        symbols,
        labels,
        key,
        hearing,
        name_symbol,
        sections_left: bytes_max as u64,
        sections: Sections::new(rendered, bytes_max),
        builder,
        budget,
        out: DecodedV2::default(),
    };
    while !request.is_empty() {
        match request.key()? {
            (4, _) => _ = request.message()?,
            (5, wire_type) => {
                request.expect(wire_type, WireType::Len)?;
                decoder.series(request.message()?)?;
            }
            (field, wire_type) => request.skip(field, wire_type)?,
        }
    }
    Ok(decoder.out)
}

/// What a first look at a request has found.
struct Found<'a> {
    /// The number of `__name__`.
    name_symbol: u32,
    /// From the first series on.
    request: Cursor<'a>,
}

/// Finds the symbols.
fn read_symbols<'a>(
    body: &'a [u8],
    budget: &mut Budget,
    symbols: &mut Vec<Symbol>,
) -> Result<Found<'a>, DecodeError> {
    let mut name_symbol = u32::MAX;
    let mut first_series = None;
    symbols.clear();
    let mut request = Cursor::new(body);
    while !request.is_empty() {
        let before = request;
        match request.key()? {
            (4, wire_type) => {
                request.expect(wire_type, WireType::Len)?;
                budget.charge(size_of::<Symbol>())?;
                let start = request.pos() as u32;
                let text = request.message()?.rest();
                if text == b"__name__" {
                    name_symbol = symbols.len() as u32;
                }
                let piece = Piece { start, len: request.pos() as u32 - start };
                symbols.push(Symbol { piece, labels: NO_LABEL, said: None });
            }
            (5, WireType::Len) => {
                first_series.get_or_insert(before);
                request.message()?;
            }
            (field, wire_type) => {
                first_series.get_or_insert(before);
                request.skip(field, wire_type)?;
            }
        }
    }
    Ok(Found { name_symbol, request: first_series.unwrap_or(request) })
}

struct Decoder<'a> {
    body: &'a [u8],
    symbols: &'a mut [Symbol],
    labels: &'a mut LabelTable,
    key: &'a LabelKey,
    hearing: Option<Hearing<'a>>,
    name_symbol: u32,
    /// What sections may still take if they are rendered.
    sections_left: u64,
    sections: Sections<'a>,
    builder: &'a mut WriteBatchBuilder,
    budget: Budget,
    out: DecodedV2,
}

/// Why a series, an exemplar or metadata cannot be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A reference beyond the symbols.
    Reference(u32),
    /// A name without a value.
    OddReferences,
    /// Neither sample nor histogram.
    NoSample,
    /// An exemplar's labels.
    ExemplarLabels,
}

impl Decoder<'_> {
    #[inline]
    fn series(&mut self, mut series: Cursor<'_>) -> Result<(), DecodeError> {
        self.budget.charge(SERIES_BYTES + size_of::<u128>())?;
        self.builder.push_keyed_series();
        let mut labels = LabelRefs::default();
        let mut said = None;
        let mut fault = None;
        while !series.is_empty() {
            let (field, wire_type) = series.key()?;
            match field {
                1 => self.labels(&mut series, wire_type, &mut labels)?,
                2 => {
                    series.expect(wire_type, WireType::Len)?;
                    self.budget.charge(SAMPLE_BYTES)?;
                    let (sample, start_t) = sample::read::<true>(series.message()?)?;
                    self.builder.push_sample_with_start_ts(sample, start_t);
                }
                3 => {
                    series.expect(wire_type, WireType::Len)?;
                    let read = histogram::read(series.message()?, true, &mut self.budget)?;
                    self.builder.push_histogram_with_start_ts(read.t, read.histogram, read.start_t);
                }
                4 => {
                    series.expect(wire_type, WireType::Len)?;
                    if let Err(why) = self.exemplar(series.message()?)? {
                        fault = fault.or(Some(why));
                    }
                }
                5 => {
                    series.expect(wire_type, WireType::Len)?;
                    said = Some(metadata(series.message()?, said.unwrap_or_default())?);
                }
                _ => series.skip(field, wire_type)?,
            }
        }
        self.builder.set_key(labels.key);
        let Some(left) = self.sections_left.checked_sub(labels.len) else {
            return Err(self.budget.exceeded());
        };
        self.sections_left = left;
        self.finish_series(labels, said, fault)
    }

    /// Reads the labels that a field of references names. What is wrong with them is kept in `labels`.
    #[inline(always)]
    fn labels(
        &mut self,
        series: &mut Cursor<'_>,
        wire_type: WireType,
        labels: &mut LabelRefs,
    ) -> Result<(), DecodeError> {
        let mut packed = match wire_type {
            WireType::Varint => series.one_varint()?,
            _ => {
                series.expect(wire_type, WireType::Len)?;
                series.message()?
            }
        };
        // In registers, since it is added to at every label.
        let (mut key, mut len) = (labels.key, labels.len);
        while !packed.is_empty() {
            let name = match labels.name.take() {
                // Its value is in another field.
                Some(name) => name,
                None => {
                    let name = packed.varint()? as u32;
                    if packed.is_empty() {
                        labels.name = Some(name);
                        break;
                    }
                    name
                }
            };
            let value = packed.varint()? as u32;
            let first = self.symbols.get(value as usize).map_or(NO_LABEL, |symbol| symbol.labels);
            let label = match self.labels.find(first, name) {
                Some(label) => label,
                None => match self.new_label(name, value)? {
                    Ok(label) => label,
                    Err(fault) => {
                        labels.fault = labels.fault.or(Some(fault));
                        continue;
                    }
                },
            };
            key = key.wrapping_add(label.hash);
            len += u64::from(label.len);
            if name == self.name_symbol {
                labels.metric = value;
            }
            self.builder.dictionary_mut().push_ref(label.number);
        }
        (labels.key, labels.len) = (key, len);
        Ok(())
    }

    #[inline(never)]
    fn new_label(&mut self, name: u32, value: u32) -> Result<Result<Label, Fault>, DecodeError> {
        let Some(name_piece) = self.symbols.get(name as usize).map(|symbol| symbol.piece) else {
            return Ok(Err(Fault::Reference(name)));
        };
        let Some(symbol) = self.symbols.get_mut(value as usize) else {
            return Ok(Err(Fault::Reference(value)));
        };
        let to = Rendering {
            body: self.body,
            sections: &mut self.sections,
            dictionary: self.builder.dictionary_mut(),
            budget: &mut self.budget,
            key: self.key,
        };
        let pieces = (name_piece, symbol.piece);
        self.labels.add(&mut symbol.labels, name, pieces, to).map(Ok)
    }

    /// Keeps the series that was read, or takes it back.
    #[inline(always)]
    fn finish_series(
        &mut self,
        labels: LabelRefs,
        said: Option<Said>,
        exemplar_fault: Option<Fault>,
    ) -> Result<(), DecodeError> {
        let counts = self.builder.open_counts();
        let said_refs = said.map_or(0, |s| s.help.max(s.unit));
        let fault = match labels {
            LabelRefs { fault: Some(fault), .. } => Some(fault),
            LabelRefs { name: Some(name), .. } if name as usize >= self.symbols.len() => {
                Some(Fault::Reference(name))
            }
            LabelRefs { name: Some(_), .. } => Some(Fault::OddReferences),
            _ if said_refs as usize >= self.symbols.len() && said_refs > 0 => {
                Some(Fault::Reference(said_refs))
            }
            _ if counts == (0, 0) => Some(Fault::NoSample),
            _ => None,
        };
        if fault.is_some() || exemplar_fault.is_some() {
            self.refuse(counts, fault, exemplar_fault);
        }
        match said {
            Some(said) if fault.is_none() => self.say(labels.metric, said, counts.1 > 0),
            _ => Ok(()),
        }
    }

    #[cold]
    fn refuse(&mut self, counts: (usize, usize), fault: Option<Fault>, exemplar_fault: Option<Fault>) {
        let symbols = self.symbols.len();
        let mut section = Vec::new();
        self.builder.render_open(self.sections.since(0), &mut section);
        let mut reject = |samples: usize, fault: Fault, of: &str| {
            self.out.refused.reject(samples, || WriteRejection {
                kind: RejectKind::Invalid,
                series: describe(&section),
                t: None,
                reason: format!("{of}{}", fault.text(symbols)),
            });
        };
        match fault {
            None => {
                if let Some(fault) = exemplar_fault {
                    self.out.stats.exemplars_dropped += 1;
                    reject(0, fault, "exemplar: ");
                }
            }
            Some(fault) => {
                reject(counts.0 + counts.1, fault, "");
                self.builder.drop_keyed_series();
            }
        }
    }

    fn exemplar(&mut self, mut exemplar: Cursor<'_>) -> Result<Result<(), Fault>, DecodeError> {
        self.budget.charge(EXEMPLAR_BYTES)?;
        let mut labels = LabelsBuilder::new();
        let (mut value, mut t) = (0.0, 0);
        let mut name: Option<&[u8]> = None;
        let mut fault = None;
        while !exemplar.is_empty() {
            match exemplar.key()? {
                (1, wire_type) => {
                    let mut packed = match wire_type {
                        WireType::Varint => exemplar,
                        _ => {
                            exemplar.expect(wire_type, WireType::Len)?;
                            exemplar.message()?
                        }
                    };
                    while !packed.is_empty() {
                        let reference = packed.varint()? as u32;
                        match (self.symbols.get(reference as usize), name.take()) {
                            (None, _) => fault = fault.or(Some(Fault::Reference(reference))),
                            (Some(symbol), None) => name = Some(symbol.piece.text(self.body)),
                            (Some(symbol), Some(name)) => {
                                let value = symbol.piece.text(self.body);
                                self.budget.charge(name.len() + value.len())?;
                                match (std::str::from_utf8(name), std::str::from_utf8(value)) {
                                    (Ok(name), Ok(value)) => _ = labels.add(name, value),
                                    _ => fault = fault.or(Some(Fault::ExemplarLabels)),
                                }
                            }
                        }
                        if wire_type == WireType::Varint {
                            break;
                        }
                    }
                    if wire_type == WireType::Varint {
                        exemplar = packed;
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
        let fault = fault.or(name.map(|_| Fault::OddReferences));
        Ok(match (labels.try_build(), fault) {
            (Ok(labels), None) => {
                self.builder.push_exemplar(Exemplar { labels, value, t });
                Ok(())
            }
            (_, fault) => Err(fault.unwrap_or(Fault::ExemplarLabels)),
        })
    }

    /// Keeps what was said of a metric, unless the request has said the same before.
    #[inline]
    fn say(&mut self, metric: u32, said: Said, native: bool) -> Result<(), DecodeError> {
        if said == Said::default() {
            return Ok(());
        }
        let Some(symbol) = self.symbols.get_mut(metric as usize).filter(|s| s.said != Some(said)) else {
            return Ok(());
        };
        symbol.said = Some(said);
        let name = symbol.piece.text(self.body);
        self.out.stats.metadata += 1;
        let bytes = |reference: u32| {
            self.symbols.get(reference as usize).map_or(&[][..], |s| s.piece.text(self.body))
        };
        if let Some(hearing) = &self.hearing {
            let hash = |reference: u32| self.key.hash(bytes(reference)) as u64;
            let kind = u64::from(said.kind) << 1 | u64::from(native);
            let says = hash(said.help) ^ hash(said.unit).rotate_left(23) ^ kind;
            if hearing.is_known(self.key.hash(name), says) {
                return Ok(());
            }
        }
        let text = |reference: u32| std::str::from_utf8(bytes(reference)).ok();
        let (Ok(name), Some(help), Some(unit)) =
            (std::str::from_utf8(name), text(said.help), text(said.unit))
        else {
            self.out.stats.metadata_dropped += 1;
            return Ok(());
        };
        self.budget.charge(METADATA_BYTES + name.len() + help.len() + unit.len())?;
        let kind = MetricKind::from_number(u64::from(said.kind));
        let metric = if native { name } else { family(name, kind) };
        self.builder.push_metadata(WriteMetadata {
            metric: metric.to_owned(),
            says: MetricMetadata { kind, help: help.to_owned(), unit: unit.to_owned() },
        });
        Ok(())
    }
}

/// The labels of a series, so far.
#[derive(Clone, Copy, Debug)]
struct LabelRefs {
    /// A name whose value is to come.
    name: Option<u32>,
    /// The value of `__name__`.
    metric: u32,
    /// Sum of the labels' hashes.
    key: u128,
    /// Bytes of the section.
    len: u64,
    fault: Option<Fault>,
}

impl Default for LabelRefs {
    fn default() -> Self {
        LabelRefs { name: None, metric: u32::MAX, key: 0, len: 0, fault: None }
    }
}

impl Fault {
    fn text(self, symbols: usize) -> String {
        match self {
            Fault::Reference(reference) => {
                format!("symbol reference {reference} is out of range of {symbols} symbols")
            }
            Fault::OddReferences => "odd number of label references".to_owned(),
            Fault::NoSample => "series must contain at least one sample or histogram".to_owned(),
            Fault::ExemplarLabels => "invalid labels".to_owned(),
        }
    }
}

/// The metric that a series of classic buckets, quantiles, sums and counts is a part of: in 1.0, metadata names that.
fn family(name: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram => &["_bucket", "_sum", "_count"],
        MetricKind::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricKind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// A section as text, cut to a bounded length.
fn describe(section: &[u8]) -> String {
    const BYTES_MAX: usize = 512;
    let mut out = String::from("{");
    for label in decode_labels(section) {
        let separator = if out.len() > 1 { ", " } else { "" };
        match label {
            Ok((name, value)) if out.len() + name.len() + value.len() < BYTES_MAX => {
                out.push_str(&format!("{separator}{name}={value:?}"));
            }
            _ => {
                out.push_str(separator);
                out.push('…');
                break;
            }
        }
    }
    out.push('}');
    out
}

fn metadata(mut message: Cursor<'_>, mut said: Said) -> Result<Said, WireError> {
    while !message.is_empty() {
        let (field, wire_type) = message.key()?;
        if !matches!(field, 1 | 3 | 4) {
            message.skip(field, wire_type)?;
            continue;
        }
        message.expect(wire_type, WireType::Varint)?;
        let number = message.varint()? as u32;
        match field {
            1 => said.kind = number,
            3 => said.help = number,
            _ => said.unit = number,
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests;
