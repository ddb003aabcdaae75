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
//! The symbols come first and are hashed, each once ([`symbols`]). A series keeps its references where they lie in the body;
//! its key is the sum of its labels' hashes, each made of those of a name and a value ([`super::label_key`]). The head
//! knows it by that key, and then no byte of a label was touched; the bytes that remote write 1.0 would have sent come
//! about only where it does not, so that both protocols name a series alike. What is in a section the head checks, when it
//! sees it for the first time.
//!
//! A series whose references point nowhere, or that has no sample, is left out and named in the answer; the others are
//! stored. Bytes that are no protobuf refuse the request as a whole.
//!
//! Two bytes of reference can stand for a symbol of any length, so what columns may grow to, and sections if all of them are
//! rendered, is bounded by the caller.

mod said;
mod symbols;

use std::ops::Range;

use chronolith_model::write::decode_labels;
use chronolith_model::{Exemplar, LabelsBuilder, WriteBatchBuilder};
use chronolith_storeapi::{RejectKind, WriteRejection, WriteReport};

use super::decode::{Budget, DecodeError, DecodeStats, EXEMPLAR_BYTES, SAMPLE_BYTES, SERIES_BYTES};
use super::heard::Hearing;
use super::label_key::LabelKey;
use super::wire::{Cursor, WireError, WireType};
use super::{histogram, sample};
use said::Said;
pub use symbols::Symbols;
use symbols::{Found, Scan};

/// What was read beside what is in the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DecodedV2 {
    /// Counts.
    pub stats: DecodeStats,
    /// Series and exemplars that were left out, with their reasons.
    pub refused: WriteReport,
}

/// Reads an `io.prometheus.write.v2.Request` into `builder`, which is started over. `body` must be the very bytes that
/// [`WriteBatchBuilder::finish`] is given afterwards. Sections, should they be rendered, and columns each take at most
/// `bytes_max`. `key` hashes labels. What `hearing` has heard of a metric before is left out.
///
/// # Errors
/// The builder's content is then of no use; start over.
pub fn decode(
    body: &[u8],
    bytes_max: usize,
    key: &LabelKey,
    hearing: Option<Hearing<'_>>,
    symbols: &mut Symbols,
    builder: &mut WriteBatchBuilder,
) -> Result<DecodedV2, DecodeError> {
    let body_len = u32::try_from(body.len()).map_err(|_| WireError { offset: 0, what: "body over 4 GiB" })?;
    let mut attempt = |scan| {
        builder.start(body_len);
        let mut budget = Budget::new(bytes_max);
        let found = symbols.read(body, scan, key, &mut budget, builder.dictionary_mut())?;
        let mut decoder = Decoder {
            body,
            symbols: &mut *symbols,
            key,
            name_symbol: found.name_symbol,
            sections_left: bytes_max as u64,
            joined: Vec::new(),
            builder: &mut *builder,
            budget,
            out: DecodedV2::default(),
        };
        Ok::<_, DecodeError>(decoder.request(found, scan)?.then_some((decoder.budget, decoder.out)))
    };
    let read = match attempt(Scan::Leading)? {
        None => attempt(Scan::Whole)?,
        read => read,
    };
    let (mut budget, mut out) = read.expect("a scan of the whole has found all symbols");
    symbols.tell(body, hearing, &mut budget, builder, &mut out.stats)?;
    Ok(out)
}

struct Decoder<'a> {
    body: &'a [u8],
    symbols: &'a mut Symbols,
    key: &'a LabelKey,
    name_symbol: u32,
    /// What sections may still take if they are rendered.
    sections_left: u64,
    /// References of the open series that came in pieces.
    joined: Vec<u8>,
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

/// Exemplars of a series that were left out.
#[derive(Clone, Copy, Debug, Default)]
struct BadExemplars {
    count: usize,
    /// Why the first one was.
    first: Option<Fault>,
}

impl Decoder<'_> {
    /// Reads the series. False when symbols stand behind them that have not been found.
    fn request(&mut self, found: Found<'_>, scan: Scan) -> Result<bool, DecodeError> {
        let mut request = found.request;
        while !request.is_empty() {
            match request.key()? {
                (5, wire_type) => {
                    request.expect(wire_type, WireType::Len)?;
                    self.series(request.message()?)?;
                }
                (4, _) if scan == Scan::Leading => return Ok(false),
                (4, _) => _ = request.message()?,
                (field, wire_type) => request.skip(field, wire_type)?,
            }
        }
        Ok(true)
    }

    #[inline]
    fn series(&mut self, mut series: Cursor<'_>) -> Result<(), DecodeError> {
        self.budget.charge(SERIES_BYTES + size_of::<u128>())?;
        self.builder.push_keyed_series();
        let mut labels = LabelRefs::default();
        let mut said = None;
        let mut bad_exemplars = BadExemplars::default();
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
                        bad_exemplars.count += 1;
                        bad_exemplars.first.get_or_insert(why);
                    }
                }
                5 => {
                    series.expect(wire_type, WireType::Len)?;
                    said = Some(said::read(series.message()?, said.unwrap_or_default())?);
                }
                _ => series.skip(field, wire_type)?,
            }
        }
        match labels.is_joined {
            false => self.builder.set_labels(labels.at.clone()),
            true => self.builder.set_labels_bytes(&self.joined),
        }
        self.builder.set_key(labels.key);
        let Some(left) = self.sections_left.checked_sub(labels.len) else {
            return Err(self.budget.exceeded());
        };
        self.sections_left = left;
        self.finish_series(labels, said, bad_exemplars)
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
        let at = packed.pos() as u32..series.pos() as u32;
        match labels.at.is_empty() && !labels.is_joined {
            true => labels.at = at,
            false => self.join(labels, at)?,
        }
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
            match self.symbols.label(self.body, self.key, name, value) {
                Ok(label) => {
                    key = key.wrapping_add(label.hash);
                    len += label.len;
                }
                Err(fault) => labels.fault = labels.fault.or(Some(fault)),
            }
            if name == self.name_symbol {
                labels.metric = value;
            }
        }
        (labels.key, labels.len) = (key, len);
        Ok(())
    }

    /// Puts references together that lie in several fields. No sender that we know of writes such.
    #[cold]
    fn join(&mut self, labels: &mut LabelRefs, at: Range<u32>) -> Result<(), DecodeError> {
        if !labels.is_joined {
            self.joined.clear();
            self.joined.extend_from_slice(&self.body[labels.at.start as usize..labels.at.end as usize]);
            labels.is_joined = true;
        }
        let more = &self.body[at.start as usize..at.end as usize];
        self.budget.charge(more.len())?;
        self.joined.extend_from_slice(more);
        Ok(())
    }

    /// Keeps the series that was read, or takes it back.
    #[inline(always)]
    fn finish_series(
        &mut self,
        labels: LabelRefs,
        said: Option<Said>,
        bad_exemplars: BadExemplars,
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
        if fault.is_some() || bad_exemplars.count > 0 {
            self.refuse(&labels, counts, fault, bad_exemplars);
        }
        match said {
            Some(said) if fault.is_none() => {
                self.symbols.statements.note(labels.metric, said, counts.1 > 0, &mut self.budget)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn refuse(
        &mut self,
        labels: &LabelRefs,
        counts: (usize, usize),
        fault: Option<Fault>,
        bad_exemplars: BadExemplars,
    ) {
        let symbols = self.symbols.len();
        let refs = match labels.is_joined {
            false => &self.body[labels.at.start as usize..labels.at.end as usize],
            true => &self.joined,
        };
        let (body, dictionary) = (self.body, self.builder.dictionary());
        let mut reject = |samples: usize, fault: Fault, of: &str| {
            self.out.refused.reject(samples, || {
                let mut section = Vec::new();
                dictionary.render(body, refs, &mut section);
                WriteRejection {
                    kind: RejectKind::Invalid,
                    series: describe(&section),
                    t: None,
                    reason: format!("{of}{}", fault.text(symbols)),
                }
            });
        };
        match fault {
            None => {
                self.out.stats.exemplars_dropped += bad_exemplars.count;
                if let Some(fault) = bad_exemplars.first {
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
                        match (self.symbols.text(self.body, reference), name.take()) {
                            (None, _) => fault = fault.or(Some(Fault::Reference(reference))),
                            (Some(text), None) => name = Some(text),
                            (Some(value), Some(name)) => {
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
}

/// The labels of a series, so far.
#[derive(Clone, Debug)]
struct LabelRefs {
    /// Where in the body the first field of them lies.
    at: Range<u32>,
    /// There is more than one field, see [`Decoder::joined`].
    is_joined: bool,
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
        LabelRefs { at: 0..0, is_joined: false, name: None, metric: u32::MAX, key: 0, len: 0, fault: None }
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

#[cfg(test)]
mod tests;
