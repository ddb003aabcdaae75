//! Series descriptions: `metric{a="b"} 1+2x3 _ stale {{schema:0 count:1}}`.

use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{FloatHistogram, Labels, MatchOp, STALE_NAN};

use crate::parser::parse_selector;

/// One position of an expanded sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceValue {
    /// No sample here.
    Omitted,
    /// A float.
    Float(f64),
    /// A histogram.
    Histogram {
        /// The histogram.
        histogram: Box<FloatHistogram>,
        /// Its `counter_reset_hint` was written.
        hint_written: bool,
    },
}

/// A parsed description.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) labels: Labels,
    /// An `@st` line: start timestamps as offsets from the samples, `None` where there is none.
    pub(crate) start_offsets: Option<Vec<Option<i64>>>,
    pub(crate) values: Vec<SequenceValue>,
}

/// Longest sequence that is expanded: far above any script, far below what hurts.
const SEQUENCE_MAX: usize = 10_000_000;

/// Parses a line.
pub(crate) fn parse_description(line: &str) -> Result<Description, String> {
    let end = metric_end(line);
    let (metric, rest) = line.split_at(end);
    let (metric, is_st) = match metric.strip_suffix("@st") {
        Some(metric) => (metric, true),
        None => (metric, false),
    };
    let labels = parse_labels(metric)?;
    if is_st {
        let offsets = parse_offsets(rest)?;
        return Ok(Description { labels, start_offsets: Some(offsets), values: Vec::new() });
    }
    let values = Reader { rest }.sequence()?;
    Ok(Description { labels, start_offsets: None, values })
}

/// Where the metric ends: the first white space outside braces and quotes.
fn metric_end(line: &str) -> usize {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (i, c) in line.char_indices() {
        match quote {
            Some(q) => {
                if escaped {
                    escaped = false;
                } else if c == '\\' && q != '`' {
                    escaped = true;
                } else if c == q {
                    quote = None;
                }
            }
            None => match c {
                '"' | '\'' | '`' => quote = Some(c),
                '{' => depth += 1,
                '}' => depth -= 1,
                c if c.is_whitespace() && depth == 0 => {
                    // `metric {a="b"}` is one metric as well.
                    let rest = line[i..].trim_start();
                    if !rest.starts_with('{') || rest.starts_with("{{") || line[..i].ends_with('}') {
                        return i;
                    }
                }
                _ => {}
            },
        }
    }
    line.len()
}

fn parse_labels(metric: &str) -> Result<Labels, String> {
    let matchers = parse_selector(metric).map_err(|e| e.to_string())?;
    if let Some(m) = matchers.iter().find(|m| m.op != MatchOp::Equal) {
        return Err(format!("{m} is not a label"));
    }
    Labels::from_pairs(matchers.iter().map(|m| (&m.name, &m.value))).map_err(|e| e.to_string())
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn sequence(&mut self) -> Result<Vec<SequenceValue>, String> {
        let mut out = Vec::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() {
                return Ok(out);
            }
            if self.rest.starts_with("{{") {
                self.histograms(&mut out)?;
            } else if self.eat("stale") {
                out.push(SequenceValue::Float(STALE_NAN));
            } else if self.eat("_") {
                let n = if self.eat("x") { self.count()? } else { 1 };
                extend(&mut out, n, |_| SequenceValue::Omitted)?;
            } else {
                self.floats(&mut out)?;
            }
            if !self.rest.is_empty() && !self.rest.starts_with(char::is_whitespace) {
                return Err(format!("unexpected {:?} in a sequence", self.rest));
            }
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn count(&mut self) -> Result<usize, String> {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        number.parse().map_err(|_| format!("bad repeat count {number:?}"))
    }

    /// A number with an optional sign.
    fn number(&mut self) -> Result<f64, String> {
        let b = self.rest.as_bytes();
        let mut i = usize::from(b.first().is_some_and(|c| matches!(c, b'+' | b'-')));
        let letters = b[i..].iter().take_while(|c| c.is_ascii_alphabetic()).count();
        let word = self.rest[i..i + letters].to_ascii_lowercase();
        if let Some(name) = ["inf", "nan"].into_iter().find(|n| word.starts_with(n)) {
            i += name.len();
        } else {
            while i < b.len() && (b[i].is_ascii_digit() || b[i] == b'.') {
                i += 1;
            }
            if i < b.len() && matches!(b[i], b'e' | b'E') {
                i += 1;
                if i < b.len() && matches!(b[i], b'+' | b'-') {
                    i += 1;
                }
                while i < b.len() && b[i].is_ascii_digit() {
                    i += 1;
                }
            }
        }
        let (text, rest) = self.rest.split_at(i);
        self.rest = rest;
        parse_number(text).ok_or_else(|| format!("bad number {text:?}"))
    }

    fn floats(&mut self, out: &mut Vec<SequenceValue>) -> Result<(), String> {
        let mut value = self.number()?;
        let mut delta = 0.0;
        let mut repeats = self.eat("x");
        if !repeats && self.rest.starts_with(['+', '-']) {
            delta = self.number()?;
            if !self.eat("x") {
                return Err("a step needs a repeat count".to_owned());
            }
            repeats = true;
        }
        let n = if repeats { self.count()? + 1 } else { 1 };
        extend(out, n, |i| {
            if i > 0 {
                value += delta;
            }
            SequenceValue::Float(value)
        })
    }

    fn histograms(&mut self, out: &mut Vec<SequenceValue>) -> Result<(), String> {
        let (mut value, mut hint_written) = self.histogram()?;
        let mut step = None;
        for (sign, negative) in [("+", false), ("-", true)] {
            if self.rest.starts_with(&format!("{sign}{{{{")) {
                self.eat(sign);
                let (h, written) = self.histogram()?;
                hint_written = written;
                step = Some((h, negative));
                break;
            }
        }
        let n = if self.eat("x") { self.count()? + 1 } else { 1 };
        let mut failure = None;
        extend(out, n, |i| {
            if i > 0
                && let Some((step, negative)) = &step
            {
                if value.schema > step.schema {
                    failure = Some(format!(
                        "error combining histograms: cannot merge from schema {} to {}",
                        step.schema, value.schema
                    ));
                } else {
                    let result = if *negative { value.sub(step) } else { value.add(step) };
                    if let Err(err) = result {
                        failure = Some(err.to_string());
                    }
                }
            }
            SequenceValue::Histogram { histogram: Box::new(value.clone()), hint_written }
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn histogram(&mut self) -> Result<(FloatHistogram, bool), String> {
        let Some(end) = self.rest.find("}}") else { return Err("histogram without end".to_owned()) };
        let body = &self.rest[2..end];
        self.rest = &self.rest[end + 2..];
        parse_histogram(body)
    }
}

fn extend(
    out: &mut Vec<SequenceValue>,
    n: usize,
    mut value: impl FnMut(usize) -> SequenceValue,
) -> Result<(), String> {
    if out.len() + n > SEQUENCE_MAX {
        return Err(format!("sequence of more than {SEQUENCE_MAX} values"));
    }
    out.extend((0..n).map(&mut value));
    Ok(())
}

fn parse_number(text: &str) -> Option<f64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let value = match lower.as_str() {
        "inf" => f64::INFINITY,
        "nan" => chronolith_model::QUIET_NAN,
        d if d.len() > 1 && d.starts_with('0') && d.bytes().all(|b| b.is_ascii_digit()) => {
            i64::from_str_radix(d, 8).ok()? as f64
        }
        d if d.starts_with(|c: char| c.is_ascii_digit() || c == '.') => d.parse().ok()?,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

fn parse_histogram(body: &str) -> Result<(FloatHistogram, bool), String> {
    let mut h = FloatHistogram::default();
    let mut hint_written = false;
    let (mut offset, mut n_offset) = (0, 0);
    let mut rest = body.trim();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once(':') else {
            return Err(format!("bad histogram property {rest:?}"));
        };
        let after = after.trim_start();
        let (value, next) = if let Some(list) = after.strip_prefix('[') {
            list.split_once(']').ok_or_else(|| format!("list without end in {rest:?}"))?
        } else {
            after.split_once(char::is_whitespace).unwrap_or((after, ""))
        };
        let number = || parse_number(value).ok_or_else(|| format!("bad number {value:?}"));
        let integer = || value.parse::<i32>().map_err(|_| format!("bad integer {value:?}"));
        let list = || -> Result<Vec<f64>, String> {
            let number = |v: &str| parse_number(v).ok_or_else(|| format!("bad number {v:?}"));
            value.split_whitespace().map(number).collect()
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "schema" => h.schema = integer()?,
            "sum" => h.sum = number()?,
            "count" => h.count = number()?,
            "z_bucket" => h.zero_count = number()?,
            "z_bucket_w" => h.zero_threshold = number()?,
            "buckets" => h.positive_buckets = list()?,
            "n_buckets" => h.negative_buckets = list()?,
            "offset" => offset = integer()?,
            "n_offset" => n_offset = integer()?,
            "custom_values" => h.custom_values = list()?,
            "counter_reset_hint" => {
                hint_written = true;
                h.counter_reset = match value {
                    "unknown" => CounterReset::Unknown,
                    "reset" => CounterReset::Reset,
                    "not_reset" => CounterReset::NotReset,
                    "gauge" => CounterReset::Gauge,
                    other => return Err(format!("bad counter reset hint {other:?}")),
                };
            }
            other => return Err(format!("bad histogram property {other:?}")),
        }
        rest = next.trim_start();
    }
    let span = |offset, buckets: &[f64]| {
        if buckets.is_empty() { Vec::new() } else { vec![Span { offset, length: buckets.len() as u32 }] }
    };
    h.positive_spans = span(offset, &h.positive_buckets);
    h.negative_spans = span(n_offset, &h.negative_buckets);
    Ok((h, hint_written))
}

/// The sequence of an `@st` line.
fn parse_offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut out = Vec::new();
    for item in text.split_whitespace() {
        if let Some(rest) = item.strip_prefix('_') {
            let n = match rest.strip_prefix('x') {
                Some(n) => n.parse().map_err(|_| format!("bad repeat count in {item:?}"))?,
                None => 1,
            };
            out.extend(std::iter::repeat_n(None, n));
            continue;
        }
        let (durations, n) = match item.rsplit_once('x') {
            Some((d, n)) => (d, n.parse::<usize>().map_err(|_| format!("bad repeat count in {item:?}"))? + 1),
            None => (item, 1),
        };
        let split = durations[1..].find(['+', '-']).map_or(durations.len(), |i| i + 1);
        let (first, step) = durations.split_at(split);
        let mut value = signed_duration(first)?;
        let step = if step.is_empty() { 0 } else { signed_duration(step)? };
        for _ in 0..n {
            out.push(Some(value));
            value += step;
        }
    }
    Ok(out)
}

fn signed_duration(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let ms = chronolith_model::parse_duration_ms(digits).ok_or_else(|| format!("bad duration {text:?}"))?;
    Ok(sign * ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(text: &str) -> Vec<Option<f64>> {
        let values = parse_description(text).unwrap().values;
        let float = |v| match v {
            SequenceValue::Omitted => None,
            SequenceValue::Float(v) => Some(v),
            SequenceValue::Histogram { .. } => panic!("a float was meant"),
        };
        values.into_iter().map(float).collect()
    }

    #[test]
    fn sequences_expand() {
        assert_eq!(floats("m 1 -2 _ 3x1"), [Some(1.0), Some(-2.0), None, Some(3.0), Some(3.0)]);
        assert_eq!(floats("m 0+10x2 _x2 1e-1"), [Some(0.0), Some(10.0), Some(20.0), None, None, Some(0.1)]);
        assert_eq!(floats("m -2-4x1 010 -Inf"), [Some(-2.0), Some(-6.0), Some(8.0), Some(f64::NEG_INFINITY)]);
        assert!(parse_description("m 1+1").is_err() && parse_description("m y").is_err());
    }

    #[test]
    fn labels_and_histograms() {
        let d = parse_description(r#"{"my.m", a="x y}"} {{schema:1 sum:-0.3 buckets:[5.1 10] offset:-3}}x1"#);
        let d = d.unwrap();
        assert_eq!((d.labels.metric_name(), d.labels.get("a")), (Some("my.m"), Some("x y}")));
        let [SequenceValue::Histogram { histogram: h, hint_written: false }, _] = d.values.as_slice() else {
            panic!("two histograms were meant: {:?}", d.values)
        };
        assert_eq!((h.schema, h.sum, h.positive_spans[0]), (1, -0.3, Span { offset: -3, length: 2 }));
        let st = parse_description("m@st _x2 -1m -2m-1mx1").unwrap();
        assert_eq!(st.start_offsets.unwrap(), [None, None, Some(-60_000), Some(-120_000), Some(-180_000)]);
    }
}
