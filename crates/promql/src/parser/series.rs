//! Series descriptions: the little language of test scripts and rule unit tests, `metric{a="b"} 0+10x5 _ stale`.
//!
//! A description is a metric and a sequence of items separated by white space. It is read into the expanded list of
//! values. `@st` lines (`metric@st -1m _x3`) give start timestamps as offsets from the samples.

use std::sync::Arc;

use chronolith_model::histogram::{CounterReset, Span as BucketSpan};
use chronolith_model::{FloatHistogram, Labels, LabelsBuilder, METRIC_NAME, STALE_NAN, parse_duration_ms};

use super::ast::Span;
use super::number::parse_number;
use super::quote::{go_quote, into_text};
use super::source::{Parser, Stop};
use super::token::TokenKind;
use super::{ParseErrors, ParseOptions};

/// Longest expanded sequence; scripts have some thousands of values.
const VALUES_MAX: u64 = 1_000_000;

/// A series and its values.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesDescription {
    /// The series.
    pub labels: Labels,
    /// The values, one a step, repeats expanded.
    pub values: Vec<SequenceValue>,
}

/// One place in a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceValue {
    /// `_`: no sample.
    Omitted,
    /// A float; `stale` is [`STALE_NAN`].
    Float(f64),
    /// A histogram.
    Histogram {
        /// The histogram.
        histogram: Arc<FloatHistogram>,
        /// `counter_reset_hint` was written, so it is to be compared.
        hint_written: bool,
    },
}

/// The start timestamps of a series' samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartTimestamps {
    /// The series.
    pub labels: Labels,
    /// Per sample: milliseconds from the sample to its start, usually below 0; none where it has no start.
    pub offsets_ms: Vec<Option<i64>>,
}

/// Parses a metric: `name`, `name{a="b"}`, `{"my.metric", a="b"}`.
pub fn parse_metric(text: &str) -> Result<Labels, ParseErrors> {
    let mut parser = Parser::new(text, ParseOptions::ALL);
    match parse_metric_with(&mut parser) {
        Ok((labels, end)) if text[end..].trim().is_empty() => Ok(labels),
        Ok((_, end)) => {
            let rest = go_quote(&text.as_bytes()[end..]);
            let span = Span::new(end as u32, text.len() as u32);
            parser.error(span, format!("unexpected {rest} after metric"));
            Err(parser.into_errors())
        }
        Err(_) => Err(parser.into_errors()),
    }
}

/// Parses a series description.
pub fn parse_series_description(text: &str) -> Result<SeriesDescription, ParseErrors> {
    let mut parser = Parser::new(text, ParseOptions::ALL);
    let parsed = parse_metric_with(&mut parser).and_then(|(labels, end)| {
        let mut sequence = Sequence { text, pos: end, values: Vec::new() };
        match sequence.read() {
            Ok(()) => Ok(SeriesDescription { labels, values: sequence.values }),
            Err(message) => {
                let pos = sequence.pos.min(text.len()) as u32;
                parser.error(Span::new(pos, text.len() as u32), message);
                Err(Stop::Reported)
            }
        }
    });
    parsed.map_err(|_| parser.into_errors())
}

/// True for a line of start timestamps: its first word ends in `@st`.
pub fn is_start_timestamp_line(line: &str) -> bool {
    let line = line.trim();
    line.find([' ', '\t']).is_some_and(|end| line[..end].ends_with("@st"))
}

/// Parses a line of start timestamps.
pub fn parse_start_timestamps(line: &str) -> Result<StartTimestamps, String> {
    let line = line.trim();
    let (metric, values) = line.split_once([' ', '\t']).ok_or("invalid @st line: missing value sequence")?;
    let metric = metric.strip_suffix("@st").ok_or("invalid @st line: no @st after the metric")?;
    let labels = parse_metric(metric)
        .map_err(|e| format!("invalid @st line metric {}: {e}", go_quote(metric.as_bytes())))?;
    let mut offsets_ms = Vec::new();
    for item in values.split_whitespace() {
        start_timestamp_item(item, &mut offsets_ms).map_err(|problem| {
            format!("invalid @st sequence: invalid ST item {}: {problem}", go_quote(item.as_bytes()))
        })?;
    }
    Ok(StartTimestamps { labels, offsets_ms })
}

fn start_timestamp_item(item: &str, out: &mut Vec<Option<i64>>) -> Result<(), &'static str> {
    let count = |text: &str| {
        let count: u64 = text.parse().map_err(|_| "invalid repeat count")?;
        if count > VALUES_MAX { Err("repeat count too large") } else { Ok(count) }
    };
    if item == "_" {
        out.push(None);
        return Ok(());
    }
    if let Some(times) = item.strip_prefix("_x") {
        let times = count(times)?;
        if times == 0 {
            return Err("invalid repeat count");
        }
        out.extend((0..times).map(|_| None));
        return Ok(());
    }
    let (mut offset, rest) = signed_duration(item)?;
    if rest.is_empty() {
        out.push(Some(offset));
        return Ok(());
    }
    if let Some(times) = rest.strip_prefix('x') {
        out.extend((0..=count(times)?).map(|_| Some(offset)));
        return Ok(());
    }
    let negative = match rest.as_bytes()[0] {
        b'+' => false,
        b'-' => true,
        _ => return Err("unexpected character after duration"),
    };
    let (delta, rest) = signed_duration(&rest[1..])?;
    let delta = if negative { -delta } else { delta };
    let times = rest.strip_prefix('x').ok_or("expected 'x<count>' after step duration")?;
    for _ in 0..=count(times)? {
        out.push(Some(offset));
        offset = offset.saturating_add(delta);
    }
    Ok(())
}

/// A duration of one unit with an optional sign, in milliseconds, and what follows it.
fn signed_duration(text: &str) -> Result<(i64, &str), &'static str> {
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
        None => return Err("empty duration"),
    };
    let digits = body.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err("expected digits in duration");
    }
    let unit = body.bytes().skip(digits).take_while(|b| b.is_ascii_alphabetic() && *b != b'x').count();
    let (duration, rest) = body.split_at(digits + unit);
    let ms = parse_duration_ms(duration).ok_or("not a valid duration")?;
    Ok((if negative { -ms } else { ms }, rest))
}

/// The metric at the start of the text, and where it ends.
fn parse_metric_with(parser: &mut Parser<'_>) -> Result<(Labels, usize), Stop> {
    let first = parser.take();
    let mut labels = LabelsBuilder::new();
    let mut end = first.end;
    if first.kind == TokenKind::LeftBrace {
        end = label_set(parser, &mut labels)?;
    } else if first.kind.is_metric_name() {
        let input = parser.input();
        // Right behind the name or not at all: what follows a space is a value.
        if input.as_bytes().get(end as usize) == Some(&b'{') {
            parser.take();
            end = label_set(parser, &mut labels)?;
        }
        labels.set(METRIC_NAME, first.text(input));
    } else {
        return Err(parser.unexpected("", ""));
    }
    match labels.try_build() {
        Ok(labels) => Ok((labels, end as usize)),
        Err(error) => {
            parser.error(first.span(), error.to_string());
            Err(Stop::Reported)
        }
    }
}

/// The labels after a left brace; gives back where the right brace ends.
fn label_set(parser: &mut Parser<'_>, labels: &mut LabelsBuilder) -> Result<u32, Stop> {
    const CONTEXT: &str = "label set";
    loop {
        let label = parser.take();
        let name = match label.kind {
            TokenKind::RightBrace => return Ok(label.end),
            TokenKind::Identifier => label.text(parser.input()).to_owned(),
            TokenKind::String => into_text(parser.string_bytes(label)),
            _ => return Err(parser.unexpected(CONTEXT, "identifier or \"}\"")),
        };
        if parser.peek().kind == TokenKind::Assign {
            parser.take();
            let value = parser.take();
            if value.kind != TokenKind::String {
                return Err(parser.unexpected(CONTEXT, "string"));
            }
            let value = into_text(parser.string_bytes(value));
            labels.add(&name, &value);
        } else if label.kind == TokenKind::String {
            labels.add(METRIC_NAME, &name);
        } else {
            return Err(parser.unexpected(CONTEXT, "\"=\""));
        }
        let token = parser.take();
        match token.kind {
            TokenKind::Comma => {}
            TokenKind::RightBrace => return Ok(token.end),
            _ => return Err(parser.unexpected(CONTEXT, "\",\" or \"}\"")),
        }
    }
}

/// The values, as far as they have been read.
struct Sequence<'a> {
    text: &'a str,
    pos: usize,
    values: Vec<SequenceValue>,
}

impl Sequence<'_> {
    fn read(&mut self) -> Result<(), String> {
        loop {
            let before = self.pos;
            self.skip_spaces();
            if self.pos == self.text.len() {
                return Ok(());
            }
            if self.pos == before {
                return Err(format!("unexpected {} in series values", self.next_quoted()));
            }
            self.item()?;
        }
    }

    fn item(&mut self) -> Result<(), String> {
        if self.accept("{{") {
            return self.histogram_item();
        }
        if self.accept("_") {
            let count = if self.accept("x") { self.count()? } else { 1 };
            return self.repeat(count, |_| Ok(SequenceValue::Omitted));
        }
        let mut value = self.value()?;
        let mut delta = 0.0;
        if matches!(self.peek(), Some(b'+' | b'-')) {
            delta = self.value()?;
            if self.peek() != Some(b'x') {
                return Err(format!("unexpected {} in series values", self.next_quoted()));
            }
        }
        if !self.accept("x") {
            return self.repeat(1, |_| Ok(SequenceValue::Float(value)));
        }
        let count = self.count()?;
        // Without a step nothing is added, so that a stale marker keeps its bits.
        let step = delta;
        self.repeat(count + 1, |i| {
            if i > 0 && step != 0.0 {
                value += step;
            }
            Ok(SequenceValue::Float(value))
        })
    }

    /// A number with an optional sign, or `stale`.
    fn value(&mut self) -> Result<f64, String> {
        let negative = self.peek() == Some(b'-');
        let signed = negative || self.peek() == Some(b'+');
        if signed {
            self.pos += 1;
        }
        let magnitude = match self.peek() {
            Some(b'0'..=b'9' | b'.') => self.number()?,
            Some(b) if b.is_ascii_alphabetic() => {
                let start = self.pos;
                let word = self.word();
                match word.to_ascii_lowercase().as_str() {
                    "inf" => f64::INFINITY,
                    "nan" => chronolith_model::QUIET_NAN,
                    "stale" if word == "stale" && !signed => STALE_NAN,
                    _ => {
                        let word = go_quote(word.as_bytes());
                        self.pos = start;
                        return Err(format!(
                            "unexpected identifier {word} in series values, expected number or \"stale\""
                        ));
                    }
                }
            }
            _ => return Err(format!("unexpected {} in series values", self.next_quoted())),
        };
        Ok(if negative { -magnitude } else { magnitude })
    }

    /// A decimal number; no hexadecimal one, since `x` repeats.
    fn number(&mut self) -> Result<f64, String> {
        let bytes = self.text.as_bytes();
        let start = self.pos;
        while let Some(byte) = self.peek() {
            match byte {
                b'0'..=b'9' | b'.' | b'_' => self.pos += 1,
                b'e' | b'E' => {
                    self.pos += 1;
                    if matches!(bytes.get(self.pos), Some(b'+' | b'-')) {
                        self.pos += 1;
                    }
                }
                _ => break,
            }
        }
        let text = &self.text[start..self.pos];
        if self.peek().is_some_and(|b| b.is_ascii_alphabetic() && b != b'x') {
            return Err(format!("bad number syntax: {}", go_quote(text.as_bytes())));
        }
        parse_number(text)
    }

    /// How often to repeat.
    fn count(&mut self) -> Result<u64, String> {
        let digits = self.text.as_bytes()[self.pos..].iter().take_while(|b| b.is_ascii_digit()).count();
        let text = &self.text[self.pos..self.pos + digits];
        let count = text
            .parse::<u64>()
            .map_err(|_| format!("invalid repetition in series values: {}", self.next_quoted()))?;
        self.pos += digits;
        Ok(count)
    }

    fn repeat(
        &mut self,
        count: u64,
        mut value: impl FnMut(u64) -> Result<SequenceValue, String>,
    ) -> Result<(), String> {
        if self.values.len() as u64 + count > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values in a series"));
        }
        for i in 0..count {
            self.values.push(value(i)?);
        }
        Ok(())
    }

    /// A histogram literal, of which the opening braces have been read, and its repeats.
    fn histogram_item(&mut self) -> Result<(), String> {
        let (base, mut hint_written) = self.histogram()?;
        let sign = match self.peek() {
            Some(sign @ (b'+' | b'-')) => Some(sign),
            _ => None,
        };
        let Some(sign) = sign else {
            let count = if self.accept("x") { self.count()? + 1 } else { 1 };
            let histogram = Arc::new(base);
            return self.repeat(count, |_| {
                Ok(SequenceValue::Histogram { histogram: histogram.clone(), hint_written })
            });
        };
        self.pos += 1;
        if !self.accept("{{") {
            return Err(format!("unexpected {} in series values", self.next_quoted()));
        }
        let (step, step_hint_written) = self.histogram()?;
        // Upstream remembers the hint of the histogram that was read last.
        hint_written = step_hint_written;
        if !self.accept("x") {
            return Err(format!("unexpected {} in series values", self.next_quoted()));
        }
        let count = self.count()?;
        let mut current = Arc::new(base);
        self.repeat(count + 1, |i| {
            if i > 0 {
                if current.schema > step.schema {
                    return Err(format!(
                        "error combining histograms: cannot merge from schema {} to {}",
                        step.schema, current.schema
                    ));
                }
                let mut next = FloatHistogram::clone(&current);
                let outcome = if sign == b'+' { next.add(&step) } else { next.sub(&step) };
                outcome.map_err(|e| e.to_string())?;
                current = Arc::new(next);
            }
            Ok(SequenceValue::Histogram { histogram: current.clone(), hint_written })
        })
    }

    /// The properties up to the closing braces; and whether a hint is among them.
    fn histogram(&mut self) -> Result<(FloatHistogram, bool), String> {
        let mut h = FloatHistogram::default();
        let (mut offset, mut n_offset) = (0, 0);
        let mut seen: Vec<String> = Vec::new();
        loop {
            self.skip_spaces();
            if self.accept("}}") {
                break;
            }
            let key = self.word().to_ascii_lowercase();
            if key.is_empty() {
                return Err(format!("histogram description incomplete unexpected: {}", self.next_quoted()));
            }
            if !self.accept(":") {
                return Err(format!("missing `:` for histogram descriptor {}", go_quote(key.as_bytes())));
            }
            if seen.contains(&key) {
                return Err(format!("duplicate key \"{key}\" in histogram"));
            }
            match key.as_str() {
                "schema" => h.schema = self.integer()?,
                "sum" => h.sum = self.value()?,
                "count" => h.count = self.value()?,
                "z_bucket" => h.zero_count = self.value()?,
                "z_bucket_w" => h.zero_threshold = self.value()?,
                "custom_values" => h.custom_values = self.list()?,
                "buckets" => h.positive_buckets = self.list()?,
                "n_buckets" => h.negative_buckets = self.list()?,
                "offset" => offset = self.integer()?,
                "n_offset" => n_offset = self.integer()?,
                "counter_reset_hint" => {
                    h.counter_reset = match self.word().to_ascii_lowercase().as_str() {
                        "unknown" => CounterReset::Unknown,
                        "reset" => CounterReset::Reset,
                        "not_reset" => CounterReset::NotReset,
                        "gauge" => CounterReset::Gauge,
                        other => {
                            let other = go_quote(other.as_bytes());
                            return Err(format!("bad histogram descriptor found: {other}"));
                        }
                    };
                }
                _ => {
                    let key = go_quote(key.as_bytes());
                    return Err(format!("bad histogram descriptor found: {key}"));
                }
            }
            seen.push(key);
        }
        h.positive_spans = one_span(offset, &h.positive_buckets);
        h.negative_spans = one_span(n_offset, &h.negative_buckets);
        let hint_written = seen.iter().any(|key| key == "counter_reset_hint");
        Ok((h, hint_written))
    }

    fn integer(&mut self) -> Result<i32, String> {
        let start = self.pos;
        self.accept("-");
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.pos += 1;
        }
        let text = &self.text[start..self.pos];
        text.parse().map_err(|_| format!("error parsing number {}", go_quote(text.as_bytes())))
    }

    /// `[1 2.5 -3]`
    fn list(&mut self) -> Result<Vec<f64>, String> {
        if !self.accept("[") {
            return Err(format!(
                "unexpected {} in histogram description, expected \"[\"",
                self.next_quoted()
            ));
        }
        let mut list = Vec::new();
        loop {
            self.skip_spaces();
            if self.accept("]") {
                return Ok(list);
            }
            list.push(self.value()?);
        }
    }

    fn word(&mut self) -> String {
        let start = self.pos;
        while self.peek().is_some_and(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            self.pos += 1;
        }
        self.text[start..self.pos].to_owned()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn accept(&mut self, what: &str) -> bool {
        let found = self.text.as_bytes()[self.pos..].starts_with(what.as_bytes());
        if found {
            self.pos += what.len();
        }
        found
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
    }

    /// The character at hand, for error texts.
    fn next_quoted(&self) -> String {
        // Every step is over ASCII, so this is always the start of a character.
        match self.text.get(self.pos..).and_then(|rest| rest.chars().next()) {
            Some(c) => go_quote(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => "end of input".to_owned(),
        }
    }
}

fn one_span(offset: i32, buckets: &[f64]) -> Vec<BucketSpan> {
    if buckets.is_empty() {
        return Vec::new();
    }
    vec![BucketSpan { offset, length: buckets.len() as u32 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<SequenceValue> {
        parse_series_description(text).unwrap_or_else(|e| panic!("{text}: {e}")).values
    }

    fn floats(text: &str) -> Vec<Option<f64>> {
        values(text)
            .into_iter()
            .map(|v| match v {
                SequenceValue::Float(v) => Some(v),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn metrics() {
        for (text, want) in [
            ("m 1", r#"{__name__="m"}"#),
            ("m{} 1", r#"{__name__="m"}"#),
            (r#"m{b="1", a='2',} 1"#, r#"{__name__="m", a="2", b="1"}"#),
            (r#"{a="2"} 1"#, r#"{a="2"}"#),
            ("{} 1", "{}"),
            (r#"{"my.metric", "my.label"="x"} 1"#, r#"{__name__="my.metric", "my.label"="x"}"#),
            ("sum 1", r#"{__name__="sum"}"#),
            ("a:b 1", r#"{__name__="a:b"}"#),
            ("m", r#"{__name__="m"}"#),
        ] {
            assert_eq!(parse_series_description(text).unwrap().labels.to_string(), want, "{text}");
        }
    }

    #[test]
    fn sequences() {
        assert_eq!(floats("m 1 2.5 -3 +4 1e3 010 .5"), [1.0, 2.5, -3.0, 4.0, 1000.0, 8.0, 0.5].map(Some));
        assert_eq!(floats("m 7x2"), [7.0, 7.0, 7.0].map(Some));
        assert_eq!(
            floats("m 0+10x2 _x2 1-1x1"),
            [Some(0.0), Some(10.0), Some(20.0), None, None, Some(1.0), Some(0.0)]
        );
        assert_eq!(floats("m -Inf +Inf inf"), [f64::NEG_INFINITY, f64::INFINITY, f64::INFINITY].map(Some));
        let SequenceValue::Float(stale) = values("m stale")[0] else { panic!() };
        assert_eq!(stale.to_bits(), STALE_NAN.to_bits());
        let SequenceValue::Float(nan) = values("m NaN")[0] else { panic!() };
        assert_eq!(nan.to_bits(), chronolith_model::QUIET_NAN.to_bits());
        assert!(values("m").is_empty());
        assert_eq!(values("m   _   "), [SequenceValue::Omitted]);
    }

    #[test]
    fn histograms() {
        let all = values(
            "m {{schema:1 sum:-0.3 count:3.1 z_bucket:7.1 z_bucket_w:0.05 buckets:[5.1 10 7] offset:-3 n_buckets:[4.1 5] n_offset:-5 counter_reset_hint:gauge}} {{}}x1",
        );
        let SequenceValue::Histogram { histogram, hint_written } = &all[0] else { panic!() };
        assert!(hint_written);
        assert_eq!((histogram.schema, histogram.sum, histogram.count), (1, -0.3, 3.1));
        assert_eq!((histogram.zero_count, histogram.zero_threshold), (7.1, 0.05));
        assert_eq!(histogram.positive_spans, [BucketSpan { offset: -3, length: 3 }]);
        assert_eq!(histogram.negative_spans, [BucketSpan { offset: -5, length: 2 }]);
        assert_eq!(histogram.positive_buckets, [5.1, 10.0, 7.0]);
        assert_eq!(histogram.counter_reset, CounterReset::Gauge);
        assert_eq!(all.len(), 3);
        let SequenceValue::Histogram { histogram, hint_written } = &all[2] else { panic!() };
        assert!(!hint_written && histogram.positive_spans.is_empty());

        let sums: Vec<f64> = values("m {{count:1 sum:1 buckets:[1]}}+{{count:2 sum:3 buckets:[2]}}x2")
            .iter()
            .map(|v| match v {
                SequenceValue::Histogram { histogram, .. } => histogram.sum,
                _ => panic!(),
            })
            .collect();
        assert_eq!(sums, [1.0, 4.0, 7.0]);
        let custom = values("m {{schema:-53 sum:1 count:1 custom_values:[1 2.5] buckets:[1 0 Inf]}}");
        let SequenceValue::Histogram { histogram, .. } = &custom[0] else { panic!() };
        assert_eq!(histogram.custom_values, [1.0, 2.5]);
    }

    #[test]
    fn what_is_wrong() {
        for (text, want) in [
            (
                "m 1 2 a",
                "1:7: parse error: unexpected identifier \"a\" in series values, expected number or \"stale\"",
            ),
            ("m 1x", "1:5: parse error: invalid repetition in series values: end of input"),
            ("m 1x99999999999", "1:16: parse error: more than 1000000 values in a series"),
            ("m 1+2", "1:6: parse error: unexpected end of input in series values"),
            ("m 0x10y", "1:7: parse error: unexpected \"y\" in series values"),
            ("m {{schema:1 schema:2}}", "1:21: parse error: duplicate key \"schema\" in histogram"),
            ("m {{nonsense:1}}", "1:14: parse error: bad histogram descriptor found: \"nonsense\""),
            ("m {{", "1:5: parse error: histogram description incomplete unexpected: end of input"),
            ("m{a} 1", "1:4: parse error: unexpected \"}\" in label set, expected \"=\""),
            ("m{a=\"b\" 1", "1:9: parse error: unexpected character inside braces: '1'"),
            ("1", "1:1: parse error: unexpected number \"1\""),
        ] {
            match parse_series_description(text) {
                Err(error) => assert_eq!(error.to_string(), want, "{text}"),
                Ok(got) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn start_timestamps() {
        assert!(is_start_timestamp_line("  m{a=\"b\"}@st -1m"));
        assert!(!is_start_timestamp_line("m{a=\"b\"} 1"));
        let got = parse_start_timestamps("m{a=\"b\"}@st _ -1mx1 _x2 -1m-30sx2 0s+1msx1").unwrap();
        assert_eq!(got.labels.to_string(), r#"{__name__="m", a="b"}"#);
        let min = -60_000;
        assert_eq!(
            got.offsets_ms,
            [
                None,
                Some(min),
                Some(min),
                None,
                None,
                Some(min),
                Some(-90_000),
                Some(-120_000),
                Some(0),
                Some(1)
            ]
        );
        for bad in ["m@st", "m@st _x0", "m@st 1", "m@st 1m+", "m@st 1m+1m", "m@st 1q", "m{@st 1m"] {
            assert!(parse_start_timestamps(bad).is_err(), "{bad}");
        }
    }
}
