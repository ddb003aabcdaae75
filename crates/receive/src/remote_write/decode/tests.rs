//! What both forms of remote write mean alike: one table of requests, written and read in each.
//!
//! What only one form knows, and what is protobuf at all, is tested beside its decoder.

use bytes::Bytes;
use chronolith_model::{MetricKind, MetricMetadata, WriteBatchBuilder, WriteHistogram, WriteMetadata, write};
use proptest::prelude::*;
use prost::encoding::encode_varint;

use super::*;
use crate::remote_write::LabelKey;

/// A form of remote write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    One,
    Two,
}

const FORMS: [Form; 2] = [Form::One, Form::Two];

/// A part of a series, where the sender puts it.
#[derive(Clone, Debug)]
enum Part {
    Label(&'static str, Vec<u8>),
    Sample(f64, i64),
    /// Count and time.
    Histogram(u64, i64),
    /// A label's value, the exemplar's value and time.
    Exemplar(Vec<u8>, f64, i64),
    /// Bytes that are a field of neither form.
    Unknown(&'static [u8]),
}
use Part::{Exemplar, Histogram, Label, Sample, Unknown};

const UNKNOWN: [&[u8]; 5] = [
    &[0x38, 0x96, 0x01],
    &[0x3D, 1, 2, 3, 4],
    &[0x39, 1, 2, 3, 4, 5, 6, 7, 8],
    &[0x3A, 2, 9, 9],
    // A group with a group in it.
    &[0x3B, 0x08, 0x01, 0x43, 0x44, 0x3C],
];

fn put(field: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn put_number(field: u8, number: u64, out: &mut Vec<u8>) {
    out.push(field << 3);
    encode_varint(number, out);
}

fn put_double(field: u8, value: f64, out: &mut Vec<u8>) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn sample(value: f64, t: i64) -> Vec<u8> {
    let mut out = Vec::new();
    put_double(1, value, &mut out);
    put_number(2, t as u64, &mut out);
    out
}

/// What is said of a metric: the kind's number, name, help, unit.
type Says<'a> = (u64, &'a str, &'a [u8], &'a str);

/// A request in the making.
struct Writer {
    form: Form,
    symbols: Vec<Vec<u8>>,
    messages: Vec<u8>,
}

impl Writer {
    fn new(form: Form) -> Self {
        Writer { form, symbols: vec![Vec::new()], messages: Vec::new() }
    }

    fn symbol(&mut self, text: &[u8]) -> u64 {
        let known = self.symbols.iter().position(|s| s == text);
        known.unwrap_or_else(|| {
            self.symbols.push(text.to_owned());
            self.symbols.len() - 1
        }) as u64
    }

    fn label(&mut self, name: &str, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match self.form {
            Form::One => {
                let mut label = Vec::new();
                put(1, name.as_bytes(), &mut label);
                put(2, value, &mut label);
                put(1, &label, &mut out);
            }
            Form::Two => {
                encode_varint(self.symbol(name.as_bytes()), &mut out);
                encode_varint(self.symbol(value), &mut out);
            }
        }
        out
    }

    /// A series with what is said of it in the form that says so.
    fn series(&mut self, parts: &[Part], says: Option<&Says<'_>>) {
        let mut out = Vec::new();
        let is_label = |p: &Part| matches!(p, Label(..));
        for parts in parts.chunk_by(|a, b| is_label(a) && is_label(b)) {
            let mut labels = Vec::new();
            for part in parts {
                match part {
                    Label(name, value) => labels.extend(self.label(name, value)),
                    Sample(value, t) => put(2, &sample(*value, *t), &mut out),
                    Histogram(count, t) => {
                        let mut histogram = Vec::new();
                        put_number(1, *count, &mut histogram);
                        put_number(15, *t as u64, &mut histogram);
                        put(if self.form == Form::One { 4 } else { 3 }, &histogram, &mut out);
                    }
                    Exemplar(trace, value, t) => {
                        let mut exemplar = Vec::new();
                        match (self.form, self.label("trace_id", trace)) {
                            (Form::One, label) => exemplar.extend(label),
                            (Form::Two, refs) => put(1, &refs, &mut exemplar),
                        }
                        put_double(2, *value, &mut exemplar);
                        put_number(3, *t as u64, &mut exemplar);
                        put(if self.form == Form::One { 3 } else { 4 }, &exemplar, &mut out);
                    }
                    Unknown(bytes) => out.extend_from_slice(bytes),
                }
            }
            match self.form {
                Form::One => out.extend(labels),
                Form::Two if labels.is_empty() => {}
                Form::Two => put(1, &labels, &mut out),
            }
        }
        if let (Form::Two, Some((kind, _, help, unit))) = (self.form, says) {
            let mut metadata = Vec::new();
            put_number(1, *kind, &mut metadata);
            put_number(3, self.symbol(help), &mut metadata);
            put_number(4, self.symbol(unit.as_bytes()), &mut metadata);
            put(5, &metadata, &mut out);
        }
        put(if self.form == Form::One { 1 } else { 5 }, &out, &mut self.messages);
        if let (Form::One, Some((kind, name, help, unit))) = (self.form, says) {
            let mut metadata = Vec::new();
            put_number(1, *kind, &mut metadata);
            put(2, name.as_bytes(), &mut metadata);
            put(4, help, &mut metadata);
            put(5, unit.as_bytes(), &mut metadata);
            put(3, &metadata, &mut self.messages);
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.form == Form::Two {
            self.symbols.iter().for_each(|s| put(4, s, &mut body));
        }
        body.extend(self.messages);
        body
    }
}

fn body_of(form: Form, series: &[Vec<Part>]) -> Vec<u8> {
    let mut writer = Writer::new(form);
    series.iter().for_each(|parts| writer.series(parts, None));
    writer.finish()
}

/// A series that was read, or is expected: label section, samples, histograms (count, time), exemplars (trace, bits, time).
#[derive(Debug, Default, PartialEq)]
struct Read {
    section: Vec<u8>,
    samples: Vec<(u64, i64)>,
    histograms: Vec<(u64, i64)>,
    exemplars: Vec<(String, u64, i64)>,
}

fn read(form: Form, body: &[u8]) -> Result<(Vec<Read>, WriteBatch, DecodeStats), DecodeError> {
    const BYTES_MAX: usize = 4 << 20;
    let mut builder = WriteBatchBuilder::default();
    let stats = match form {
        Form::One => decode_v1::decode(body, &mut builder)?,
        Form::Two => {
            let (key, mut symbols) = (LabelKey::default(), decode_v2::Symbols::default());
            decode_v2::decode(body, BYTES_MAX, &key, None, &mut symbols, &mut builder)?.stats
        }
    };
    let mut batch = builder.finish(Bytes::copy_from_slice(body));
    batch.render();
    let series = batch.iter().map(|s| Read {
        section: s.labels.to_vec(),
        samples: s.samples.iter().map(|s| (s.v.to_bits(), s.t)).collect(),
        histograms: s
            .histograms
            .iter()
            .map(|(t, h)| match h {
                WriteHistogram::Integer(h) => (h.count, *t),
                WriteHistogram::Float(_) => panic!("none was written"),
            })
            .collect(),
        exemplars: s
            .exemplars
            .iter()
            .map(|e| (e.labels.get("trace_id").unwrap_or("").to_owned(), e.value.to_bits(), e.t))
            .collect(),
    });
    Ok((series.collect(), batch, stats))
}

/// What a series means, and how many of its exemplars cannot be read.
fn meant(parts: &[Part]) -> (Read, usize) {
    let (mut out, mut dropped) = (Read::default(), 0);
    for part in parts {
        match part {
            Label(name, value) => {
                let value = std::str::from_utf8(value).expect("text in these tests");
                write::encode_labels([(*name, value)], &mut out.section);
            }
            Sample(value, t) => out.samples.push((value.to_bits(), *t)),
            Histogram(count, t) => out.histograms.push((*count, *t)),
            Exemplar(trace, value, t) => match String::from_utf8(trace.clone()) {
                Ok(trace) => out.exemplars.push((trace, value.to_bits(), *t)),
                Err(_) => dropped += 1,
            },
            Unknown(_) => {}
        }
    }
    (out, dropped)
}

fn check(series: &[Vec<Part>]) {
    let expected: Vec<(Read, usize)> = series.iter().map(|parts| meant(parts)).collect();
    let dropped: usize = expected.iter().map(|(_, dropped)| dropped).sum();
    let expected: Vec<Read> = expected.into_iter().map(|(read, _)| read).collect();
    for form in FORMS {
        let (series, _, stats) = read(form, &body_of(form, series)).expect("it is well-formed");
        assert_eq!((&series, stats.exemplars_dropped), (&expected, dropped), "{form:?}");
    }
}

fn label(name: &'static str, value: &str) -> Part {
    Label(name, value.as_bytes().to_vec())
}

/// Any parts in any order, with at least one sample.
fn parts() -> impl Strategy<Value = Vec<Part>> {
    let value = || prop_oneof![any::<f64>(), any::<u64>().prop_map(f64::from_bits), Just(0.0)];
    let time = || prop_oneof![any::<i64>(), 0..2_000_000_000_000i64, Just(0)];
    let part = prop_oneof![
        4 => (prop::sample::select(vec!["__name__", "a", "b", "ü"]), "[a-zé]{0,200}")
            .prop_map(|(name, value)| label(name, &value)),
        2 => (value(), time()).prop_map(|(v, t)| Sample(v, t)),
        1 => (1u64.., time()).prop_map(|(count, t)| Histogram(count, t)),
        1 => (prop::collection::vec(any::<u8>(), 1..9), value(), time()).prop_map(|(l, v, t)| Exemplar(l, v, t)),
        1 => prop::sample::select(UNKNOWN.to_vec()).prop_map(Unknown),
    ];
    (prop::collection::vec(part, 0..9), any::<prop::sample::Index>(), value(), time()).prop_map(
        |(mut parts, at, v, t)| {
            parts.insert(at.index(parts.len() + 1), Sample(v, t));
            parts
        },
    )
}

proptest! {
    #[test]
    fn both_forms_read_what_was_meant(series in prop::collection::vec(parts(), 0..5)) {
        check(&series);
    }
}

#[test]
fn labels_in_pieces_are_put_together() {
    let (a, b, c, s) = (label("a", "1"), label("b", "2"), label("c", "3"), Sample(1.0, 7));
    for parts in [
        vec![a.clone(), b.clone(), s.clone()],
        vec![s.clone(), a.clone(), b.clone()],
        vec![a.clone(), s.clone(), b.clone(), s.clone(), c.clone()],
        vec![a.clone(), Unknown(UNKNOWN[0]), b.clone(), c, s.clone()],
        vec![s.clone()],
    ] {
        check(&[parts.clone(), vec![a.clone(), s.clone()], parts]);
    }
}

#[test]
fn a_request_that_is_cut_off_is_refused_or_ends_with_a_whole_message() {
    let series =
        vec![vec![label("a", "b"), Sample(1.5, -1), Histogram(3, 4), Exemplar(b"x".to_vec(), 1.0, 2)]; 3];
    for form in FORMS {
        let body = body_of(form, &series);
        let (whole, ..) = read(form, &body).unwrap();
        for cut in 0..body.len() {
            match read(form, &body[..cut]) {
                Ok((series, ..)) => assert!(whole.starts_with(&series), "{form:?} cut at {cut}"),
                Err(error) => {
                    assert!(matches!(error, DecodeError::Wire(_)), "{form:?} cut at {cut}: {error}")
                }
            }
        }
    }
}

#[test]
fn empty_series_are_bounded() {
    for form in FORMS {
        let error = read(form, &body_of(form, &vec![Vec::new(); 1_000_000])).unwrap_err();
        assert!(matches!(error, DecodeError::TooManyElements { .. }), "{form:?}: {error}");
    }
}

#[test]
fn metadata_is_read_and_bad_parts_do_not_fail_a_request() {
    let good = (2, "m", &b"helps"[..], "s");
    let bad = (1, "n_total", &b"\xFF"[..], "");
    let says = MetricMetadata { kind: MetricKind::Gauge, help: "helps".to_owned(), unit: "s".to_owned() };
    for form in FORMS {
        let mut writer = Writer::new(form);
        let exemplars =
            [b"\xFF".to_vec(), b"\xFE".to_vec(), b"1".to_vec()].map(|trace| Exemplar(trace, 1.0, 2));
        for said in [good, bad] {
            let mut parts = vec![label("__name__", said.1), Sample(1.0, 2)];
            parts.extend(exemplars.clone());
            writer.series(&parts, Some(&said));
        }
        let (series, batch, stats) = read(form, &writer.finish()).unwrap();
        let expected = DecodeStats { metadata: 2, metadata_dropped: 1, exemplars_dropped: 4 };
        assert_eq!((series.len(), stats), (2, expected), "{form:?}");
        assert!(series.iter().all(|s| s.exemplars == [("1".to_owned(), 1f64.to_bits(), 2)]), "{form:?}");
        assert_eq!(
            batch.metadata(),
            [WriteMetadata { metric: "m".to_owned(), says: says.clone() }],
            "{form:?}"
        );
    }
}

#[test]
fn errors_say_where() {
    for (tag, form) in [(0x0A, Form::One), (0x2A, Form::Two)] {
        let error = |sample_len| read(form, &[tag, 5, 0x12, sample_len, 0x09, 1, 2]).unwrap_err().to_string();
        assert_eq!(error(3), "malformed protobuf at byte 5: cut off inside a fixed-size number", "{form:?}");
        assert_eq!(error(9), "malformed protobuf at byte 4: length runs past the end", "{form:?}");
    }
}
