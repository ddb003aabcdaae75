//! Series in an exposition format, as `/federate` sends them: Prometheus's text format, and length-delimited
//! `io.prometheus.client.MetricFamily` messages, which alone can carry native histograms.

use std::fmt::Write as _;

use chronolith_model::histogram::{CounterReset, format_g};
use chronolith_model::{FloatHistogram, Labels};

use crate::ProtoBuf;
use crate::protobuf::put_varint;

/// How names go out that are not of the classic form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escaping {
    /// Anything else becomes `_`.
    #[default]
    Underscores,
    /// Names are quoted.
    Utf8,
    /// `.` becomes `_dot_`, `_` is doubled.
    Dots,
    /// `U__` and code points.
    Values,
}

impl Escaping {
    const NAMES: [(&str, Escaping); 4] = [
        ("underscores", Escaping::Underscores),
        ("allow-utf-8", Escaping::Utf8),
        ("dots", Escaping::Dots),
        ("values", Escaping::Values),
    ];

    fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, e)| *e == self).map_or("", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Text, with its version.
    Text(&'static str),
    /// Messages with a length in front.
    Protobuf,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpositionFormat {
    encoding: Encoding,
    escaping: Escaping,
}

impl ExpositionFormat {
    /// The best of the client's `Accept` header; text 0.0.4 where there is none that is known.
    pub fn negotiate(accept: &str) -> Self {
        let mut clauses: Vec<(f64, Vec<&str>)> = accept.split(',').map(clause).collect();
        clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, parts) in clauses {
            let parameter = |name: &str| {
                let with_name = parts[1..].iter().filter_map(|p| p.split_once('='));
                let mut values = with_name.filter(|(n, _)| n.trim() == name).map(|(_, v)| v.trim());
                values.next().map(|v| v.trim_matches('"'))
            };
            let escaping = parameter("escaping")
                .and_then(|text| Escaping::NAMES.iter().find(|(name, _)| *name == text))
                .map_or(Escaping::default(), |(_, e)| *e);
            let encoding = match (parts[0], parameter("version")) {
                ("application/vnd.google.protobuf", _)
                    if parameter("proto") == Some("io.prometheus.client.MetricFamily")
                        && parameter("encoding") == Some("delimited") =>
                {
                    Encoding::Protobuf
                }
                ("text/plain", None | Some("" | "0.0.4")) => Encoding::Text("0.0.4"),
                ("text/plain", Some("1.0.0")) => Encoding::Text("1.0.0"),
                _ => continue,
            };
            return ExpositionFormat { encoding, escaping };
        }
        ExpositionFormat { encoding: Encoding::Text("0.0.4"), escaping: Escaping::default() }
    }

    /// The reply's `Content-Type`.
    pub fn content_type(self) -> String {
        let escaping = self.escaping.as_str();
        match self.encoding {
            Encoding::Text(version) => {
                format!("text/plain; version={version}; charset=utf-8; escaping={escaping}")
            }
            Encoding::Protobuf => format!(
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited; escaping={escaping}"
            ),
        }
    }
}

/// Quality and parts of one clause of an `Accept` header.
fn clause(text: &str) -> (f64, Vec<&str>) {
    let parts: Vec<&str> = text.split(';').map(str::trim).collect();
    let quality = parts[1..].iter().find_map(|p| p.strip_prefix("q=")?.trim().parse().ok());
    (quality.unwrap_or(1.0), parts)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Untyped,
    Histogram,
    GaugeHistogram,
}

/// A growing exposition. Series come sorted by metric name.
pub struct Exposition {
    format: ExpositionFormat,
    out: Vec<u8>,
    /// The family that is being written.
    family: Option<(String, Kind)>,
    /// Its message, where it is one.
    message: ProtoBuf,
}

impl Exposition {
    /// An empty one.
    pub fn new(format: ExpositionFormat) -> Self {
        Exposition { format, out: Vec::new(), family: None, message: ProtoBuf::new() }
    }

    /// Adds a float, its type unknown. `extra` labels follow the series' own.
    pub fn float(&mut self, labels: &Labels, extra: &[(&str, &str)], t: i64, v: f64) {
        let Some(name) = labels.metric_name() else { return };
        self.start_family(name, Kind::Untyped);
        match self.format.encoding {
            Encoding::Protobuf => self.metric(labels, extra, t, |m| {
                m.message(5, |m| {
                    m.double_always(1, v);
                });
            }),
            Encoding::Text(_) => self.line(name, "", labels, extra, None, v, t),
        }
    }

    /// Adds a native histogram: as it is in protobuf; with custom buckets also in text, as a classic one; otherwise the text
    /// format has no place for it, and it is left out.
    pub fn histogram(&mut self, labels: &Labels, extra: &[(&str, &str)], t: i64, h: &FloatHistogram) {
        let Some(name) = labels.metric_name() else { return };
        let kind =
            if h.counter_reset == CounterReset::Gauge { Kind::GaugeHistogram } else { Kind::Histogram };
        let custom = h.uses_custom_buckets();
        match self.format.encoding {
            Encoding::Protobuf => {
                self.start_family(name, kind);
                self.metric(labels, extra, t, |m| {
                    m.message(7, |m| if custom { put_classic(m, h) } else { put_native(m, h) });
                });
            }
            Encoding::Text(_) if custom => {
                self.start_family(name, kind);
                for (bound, count) in classic_buckets(h).into_iter().chain([(f64::INFINITY, h.count)]) {
                    self.line(name, "_bucket", labels, extra, Some(bound), count, t);
                }
                self.line(name, "_sum", labels, extra, None, h.sum, t);
                self.line(name, "_count", labels, extra, None, h.count, t);
            }
            Encoding::Text(_) => {}
        }
    }

    /// The whole body.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_family();
        self.out
    }

    fn start_family(&mut self, name: &str, kind: Kind) {
        if self.family.as_ref().is_some_and(|(n, k)| n == name && *k == kind) {
            return;
        }
        self.end_family();
        self.family = Some((name.to_owned(), kind));
        let escaped = escape(name, self.format.escaping);
        match self.format.encoding {
            Encoding::Protobuf => {
                let number = match kind {
                    Kind::Untyped => 3,
                    Kind::Histogram => 4,
                    Kind::GaugeHistogram => 5,
                };
                self.message.string(1, &escaped).int64(3, number);
            }
            Encoding::Text(_) => {
                let kind = if kind == Kind::Untyped { "untyped" } else { "histogram" };
                self.out.extend_from_slice(format!("# TYPE {} {kind}\n", quoted(&escaped)).as_bytes());
            }
        }
    }

    fn end_family(&mut self) {
        if self.family.take().is_some() && self.format.encoding == Encoding::Protobuf {
            put_varint(&mut self.out, self.message.bytes.len() as u64);
            self.out.append(&mut self.message.bytes);
        }
    }

    fn metric(&mut self, labels: &Labels, extra: &[(&str, &str)], t: i64, value: impl FnOnce(&mut ProtoBuf)) {
        let escaping = self.format.escaping;
        let mut metric = ProtoBuf::new();
        for (name, text) in pairs(labels, extra) {
            metric.message(1, |m| {
                m.string(1, &escape(name, escaping)).string(2, text);
            });
        }
        value(&mut metric);
        metric.int64(6, t);
        self.message.bytes_field(4, &metric.bytes);
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one line of text")]
    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &Labels,
        extra: &[(&str, &str)],
        le: Option<f64>,
        v: f64,
        t: i64,
    ) {
        let escaped = format!("{}{suffix}", escape(name, self.format.escaping));
        let mut line = String::with_capacity(64);
        let legacy = is_legacy(&escaped);
        if legacy {
            line.push_str(&escaped);
        }
        let mut open = '{';
        if !legacy {
            line.push('{');
            line.push_str(&quoted(&escaped));
            open = ',';
        }
        for (name, text) in pairs(labels, extra) {
            line.push(std::mem::replace(&mut open, ','));
            line.push_str(&quoted(&escape(name, self.format.escaping)));
            line.push_str("=\"");
            push_escaped(&mut line, text);
            line.push('"');
        }
        if let Some(bound) = le {
            line.push(open);
            let _ = write!(line, "le=\"{}\"", format_g(bound));
            open = ',';
        }
        if open == ',' {
            line.push('}');
        }
        let _ = writeln!(line, " {} {t}", format_g(v));
        self.out.extend_from_slice(line.as_bytes());
    }
}

/// The labels besides the name, then the extra ones.
fn pairs<'a>(
    labels: &'a Labels,
    extra: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    labels.iter().filter(|(n, _)| *n != "__name__").chain(extra.iter().copied())
}

/// `io.prometheus.client.Histogram` with buckets as they are.
fn put_native(m: &mut ProtoBuf, h: &FloatHistogram) {
    m.double_always(2, h.sum).double_always(4, h.count).uint64_always(5, zigzag(h.schema));
    m.double_always(6, h.zero_threshold).double_always(8, h.zero_count);
    for (field, spans) in [(9, &h.negative_spans), (12, &h.positive_spans)] {
        for span in spans {
            m.message(field, |m| {
                m.uint64_always(1, zigzag(span.offset)).uint64_always(2, u64::from(span.length));
            });
        }
    }
    // proto2: repeated numbers are not packed.
    for (field, counts) in [(11, &h.negative_buckets), (14, &h.positive_buckets)] {
        for count in counts {
            m.double_always(field, *count);
        }
    }
}

fn zigzag(v: i32) -> u64 {
    u64::from((v << 1 ^ v >> 31) as u32)
}

/// `io.prometheus.client.Histogram` as a classic one; the bucket to +Inf is implied.
fn put_classic(m: &mut ProtoBuf, h: &FloatHistogram) {
    m.double_always(2, h.sum).double_always(4, h.count);
    for (bound, count) in classic_buckets(h) {
        m.message(3, |m| {
            m.double_always(2, bound).double_always(4, count);
        });
    }
}

/// Upper bounds and cumulative counts of a histogram with custom buckets, without the one to +Inf.
fn classic_buckets(h: &FloatHistogram) -> Vec<(f64, f64)> {
    let mut counts = h.positive_counts().peekable();
    let mut sum = 0.0;
    let bounds = h.custom_values.iter().enumerate();
    bounds
        .map(|(i, bound)| {
            while let Some((_, count)) = counts.next_if(|(index, _)| i64::from(*index) <= i as i64) {
                sum += count;
            }
            (*bound, sum)
        })
        .collect()
}

fn is_legacy_char(i: usize, c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':' || (c.is_ascii_digit() && i > 0)
}

fn is_legacy(name: &str) -> bool {
    !name.is_empty() && name.chars().enumerate().all(|(i, c)| is_legacy_char(i, c))
}

fn escape(name: &str, escaping: Escaping) -> String {
    if escaping == Escaping::Utf8 || name.is_empty() || (is_legacy(name) && escaping != Escaping::Dots) {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len() + 8);
    if escaping == Escaping::Values {
        out.push_str("U__");
    }
    for (i, c) in name.chars().enumerate() {
        match (escaping, c) {
            (Escaping::Dots | Escaping::Values, '_') => out.push_str("__"),
            (Escaping::Dots, '.') => out.push_str("_dot_"),
            (_, c) if is_legacy_char(i, c) => out.push(c),
            (Escaping::Values, c) => {
                let _ = write!(out, "_{:x}_", c as u32);
            }
            (Escaping::Dots, _) => out.push_str("__"),
            _ => out.push('_'),
        }
    }
    out
}

/// A name as it stands in the text format: quoted where it is not of the classic form.
fn quoted(name: &str) -> String {
    if is_legacy(name) {
        return name.to_owned();
    }
    let mut out = String::from('"');
    push_escaped(&mut out, name);
    out.push('"');
    out
}

fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::histogram::Span;

    use super::*;

    const PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    fn custom() -> FloatHistogram {
        FloatHistogram {
            schema: -53,
            count: 6.0,
            sum: 10.5,
            custom_values: vec![1.0, 2.5, 10.0],
            positive_spans: vec![Span { offset: 1, length: 1 }, Span { offset: 1, length: 1 }],
            positive_buckets: vec![4.0, 2.0],
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn formats_are_negotiated() {
        let kind = |accept: &str| ExpositionFormat::negotiate(accept).content_type();
        let text = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
        assert_eq!(kind(""), text);
        assert_eq!(kind("application/openmetrics-text;version=1.0.0,*/*;q=0.1"), text);
        assert!(kind(PROTOBUF).starts_with("application/vnd.google.protobuf; proto=io.prometheus.client"));
        // Prometheus's own header, text preferred and protobuf preferred.
        let rest = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5";
        assert_eq!(kind(&format!("{rest},text/plain;version=0.0.4;q=0.3,{PROTOBUF};q=0.2,*/*;q=0.1")), text);
        assert!(kind(&format!("text/plain;version=1.0.0;q=0.3,{PROTOBUF};q=0.6")).contains("delimited"));
        let utf8 = kind("text/plain;version=1.0.0;escaping=allow-utf-8");
        assert_eq!(utf8, "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8");
    }

    #[test]
    fn text_has_floats_and_classic_histograms_only() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        let mut out = Exposition::new(ExpositionFormat::negotiate(""));
        let extra = [("instance", "")];
        out.float(&labels(&[("__name__", "a"), ("x", "q\"\\\n")]), &extra, 5, 1e6);
        out.float(&labels(&[("__name__", "a")]), &[], -5, f64::NEG_INFINITY);
        out.histogram(&labels(&[("__name__", "h")]), &[], 7, &custom());
        let native = FloatHistogram { schema: 0, ..FloatHistogram::default() };
        out.histogram(&labels(&[("__name__", "n")]), &[], 7, &native);
        out.float(&labels(&[("__name__", "z.ü")]), &[], 7, 0.0);
        let text = String::from_utf8(out.finish()).unwrap();
        let want = "# TYPE a untyped\na{x=\"q\\\"\\\\\\n\",instance=\"\"} 1e+06 5\na -Inf -5\n\
                    # TYPE h histogram\nh_bucket{le=\"1\"} 0 7\nh_bucket{le=\"2.5\"} 4 7\n\
                    h_bucket{le=\"10\"} 4 7\nh_bucket{le=\"+Inf\"} 6 7\nh_sum 10.5 7\nh_count 6 7\n\
                    # TYPE z__ untyped\nz__ 0 7\n";
        assert_eq!(text, want);
        let mut out = Exposition::new(ExpositionFormat::negotiate("text/plain;escaping=allow-utf-8"));
        out.float(&labels(&[("__name__", "z.ü"), ("l.x", "1")]), &[], 7, 0.0);
        let text = String::from_utf8(out.finish()).unwrap();
        assert_eq!(text, "# TYPE \"z.ü\" untyped\n{\"z.ü\",\"l.x\"=\"1\"} 0 7\n");
    }

    #[test]
    fn names_are_escaped() {
        for (escaping, name, want) in [
            (Escaping::Underscores, "http.status", "http_status"),
            (Escaping::Underscores, "1a", "_a"),
            (Escaping::Dots, "a_b.c", "a__b_dot_c"),
            (Escaping::Values, "a_b.c", "U__a__b_2e_c"),
            (Escaping::Values, "a_b", "a_b"),
            (Escaping::Utf8, "ü", "ü"),
        ] {
            assert_eq!(escape(name, escaping), want);
        }
    }

    #[test]
    fn messages_have_their_length_in_front() {
        let labels = Labels::from_pairs([("__name__", "up"), ("a", "b")]).unwrap();
        let mut out = Exposition::new(ExpositionFormat::negotiate(PROTOBUF));
        out.float(&labels, &[], 1, 1.0);
        let body = out.finish();
        let want: &[u8] = &[
            29, 0x0a, 2, b'u', b'p', 0x18, 3, 0x22, 21, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b', 0x2a, 9, 0x09,
            0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x30, 1,
        ];
        assert_eq!(body, want);
    }
}
