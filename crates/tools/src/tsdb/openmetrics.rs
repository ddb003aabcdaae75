//! OpenMetrics text, line by line: as much of it as samples need.
//!
//! ```text
//! # TYPE name type │ # HELP … │ # UNIT … │ name{label="value",…} value timestamp [# exemplar] │ # EOF
//! ```
//!
//! Timestamps are seconds and become whole milliseconds, what is below cut off, as in Prometheus. `le` and `quantile` are
//! spelled canonically (`1` becomes `1.0`) where the type says what they are.
//!
//! Text has the same series again and again, so [`Series`] remembers what a series' text was found to mean: of a line that names a known
//! one only the value and the time are parsed.

use std::collections::HashMap;
use std::io::BufRead;

use chronolith_model::histogram::format_g;
use chronolith_model::{Labels, LabelsBuilder};

/// A sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// The series, see [`Series::labels`].
    pub(super) series: usize,
    pub(super) t: i64,
    pub(super) value: f64,
}

/// The series of a text by number, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Series {
    labels: Vec<Labels>,
    by_labels: HashMap<Labels, usize>,
    /// As they are written, since the last line that says a type: what a text means depends on it.
    by_text: HashMap<String, usize>,
}

impl Series {
    /// The labels of series by number.
    pub(super) fn labels(&self) -> &[Labels] {
        &self.labels
    }

    fn number(&mut self, text: &str, kind: &Kind) -> Result<usize, String> {
        if let Some(number) = self.by_text.get(text) {
            return Ok(*number);
        }
        let labels = labels(text, kind)?;
        let number = match self.by_labels.get(&labels) {
            Some(number) => *number,
            None => {
                self.labels.push(labels.clone());
                self.by_labels.insert(labels, self.labels.len() - 1);
                self.labels.len() - 1
            }
        };
        self.by_text.insert(text.to_owned(), number);
        Ok(number)
    }
}

/// The last name that got a type, and the type.
type Kind = (String, String);

/// Prometheus's NaN that is not a staleness marker.
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;
/// A longer line is damage.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads all samples in their order and gives them to `each`. Errors name the line.
pub(super) fn parse(
    mut input: impl BufRead,
    all: &mut Series,
    each: &mut dyn FnMut(Sample) -> Result<(), String>,
) -> Result<(), String> {
    let (mut line, mut number, mut kind, mut ended) = (Vec::new(), 0u64, Kind::default(), false);
    all.by_text.clear();
    loop {
        line.clear();
        number += 1;
        let at = |e: String| format!("line {number}: {e}");
        let read = std::io::Read::take(&mut input, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if read.map_err(|e| at(e.to_string()))? == 0 {
            break;
        }
        if ended {
            return Err(at("text behind # EOF".to_owned()));
        }
        if line.pop_if(|b| *b == b'\n').is_none() && line.len() >= LINE_BYTES_MAX {
            return Err(at("it is too long".to_owned()));
        }
        let text = std::str::from_utf8(&line).map_err(|e| at(e.to_string()))?;
        if text == "# EOF" {
            ended = true;
        } else if let Some(comment) = text.strip_prefix("# ") {
            if let Some(rest) = comment.strip_prefix("TYPE ") {
                let (name, of) =
                    rest.rsplit_once(' ').ok_or_else(|| at("a type without a name".to_owned()))?;
                kind = (name.trim_matches('"').to_owned(), of.to_owned());
                all.by_text.clear();
            }
        } else if text.starts_with('#') || text.is_empty() {
            return Err(at(format!("neither a sample nor a known comment: {text:?}")));
        } else {
            each(sample(text, &kind, all).map_err(at)?).map_err(at)?;
        }
    }
    if ended { Ok(()) } else { Err("data does not end with # EOF".to_owned()) }
}

fn sample(text: &str, kind: &Kind, all: &mut Series) -> Result<Sample, String> {
    let (series, rest) = text.split_at(series_end(text)?);
    let series_text = series;
    let series = all.number(series, kind)?;
    let mut c = Scanner { rest };
    if !c.eat(' ') {
        return Err("no value".to_owned());
    }
    let value = number(c.take_while(|ch| ch != ' '))?;
    if !c.eat(' ') || c.rest.starts_with('#') {
        return Err(format!("expected timestamp for series {series_text:?}, got none"));
    }
    let seconds = number(c.take_while(|ch| ch != ' '))?;
    if !seconds.is_finite() {
        return Err("a timestamp that is no time".to_owned());
    }
    if !c.rest.is_empty() && !c.rest.starts_with(" # ") {
        return Err(format!("{:?} behind the timestamp", c.rest));
    }
    Ok(Sample { series, t: (seconds * 1000.0) as i64, value })
}

/// Where a series' text ends: behind the brace that closes its labels, or before the first space.
fn series_end(text: &str) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let Some(brace) = bytes.iter().position(|b| matches!(b, b'{' | b' ')).filter(|at| bytes[*at] == b'{')
    else {
        return Ok(bytes.iter().position(|b| *b == b' ').unwrap_or(bytes.len()));
    };
    let (mut at, mut quoted) = (brace + 1, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(at + 1),
            _ => {}
        }
        at += 1;
    }
    Err(if quoted { "a string does not end" } else { "labels do not end" }.to_owned())
}

/// The labels that a series' text means.
fn labels(text: &str, kind: &Kind) -> Result<Labels, String> {
    let mut c = Scanner { rest: text };
    let mut labels = LabelsBuilder::new();
    let mut name = String::new();
    if !text.starts_with('{') {
        name = c.take_while(|ch| ch != '{' && ch != ' ').to_owned();
        if name.is_empty() {
            return Err("no metric name".to_owned());
        }
    }
    if c.eat('{') {
        loop {
            if c.eat('}') {
                break;
            }
            let quoted = c.rest.starts_with('"');
            let label = if quoted {
                c.quoted()?
            } else {
                c.take_while(|ch| !matches!(ch, '=' | ',' | '}')).to_owned()
            };
            if quoted && name.is_empty() && !c.rest.starts_with('=') {
                // A metric name that must be quoted stands between the braces.
                name = label;
            } else {
                if label.is_empty() || !c.eat('=') {
                    return Err(format!("label {label:?} without a value"));
                }
                let value = c.quoted()?;
                if labels.get(&label).is_some() {
                    return Err(format!("label {label:?} is there twice"));
                }
                labels.add(&label, &canonical(&label, value, &name, kind));
            }
            if !c.eat(',') && !c.rest.starts_with('}') {
                return Err("labels are not separated by commas".to_owned());
            }
        }
    }
    if name.is_empty() {
        return Err("no metric name".to_owned());
    }
    labels.add("__name__", &name);
    labels.try_build().map_err(|e| e.to_string())
}

/// Bounds and quantiles in the one spelling that Prometheus stores.
fn canonical(label: &str, value: String, name: &str, (of, kind): &Kind) -> String {
    let numeric =
        matches!((label, kind.as_str()), ("le", "histogram" | "gaugehistogram") | ("quantile", "summary"));
    if !numeric || !name.starts_with(of.as_str()) {
        return value;
    }
    match value.parse::<f64>() {
        Ok(f) => {
            let text = format_g(f);
            let whole = f.is_finite() && !text.contains(['.', 'e']);
            if whole { format!("{text}.0") } else { text }
        }
        Err(_) => value,
    }
}

fn number(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    Ok(if value.is_nan() { f64::from_bits(NORMAL_NAN) } else { value })
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn eat(&mut self, ch: char) -> bool {
        match self.rest.strip_prefix(ch) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|ch| !keep(ch)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// A string in quotes with `\\`, `\"` and `\n`.
    fn quoted(&mut self) -> Result<String, String> {
        if !self.eat('"') {
            return Err("a label value must be quoted".to_owned());
        }
        let mut out = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, ch)) = chars.next() {
            match ch {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, ch @ ('"' | '\\'))) => out.push(ch),
                    Some((_, ch)) => out.extend(['\\', ch]),
                    None => break,
                },
                ch => out.push(ch),
            }
        }
        Err("a string does not end".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<String>, String> {
        let (mut out, mut series) = (Vec::new(), Series::default());
        parse(text.as_bytes(), &mut series, &mut |s| {
            out.push(s);
            Ok(())
        })?;
        let text = |s: Sample| format!("{} {} {}", series.labels()[s.series], format_g(s.value), s.t);
        Ok(out.into_iter().map(text).collect())
    }

    #[test]
    fn samples_with_their_labels() {
        let text = "# HELP a Something.\n# TYPE a histogram\n# UNIT a seconds\n\
                    a_bucket{le=\"1\",x=\"q\\\"\\n\"} 3 1.5 # {t=\"x\"} 1 2\n\
                    a_bucket{le=\"+Inf\"} 1e3 -2\n\
                    b NaN 1700000000.123\n\
                    {\"with.dot\",\"l.l\"=\"é\",} +Inf 0\n\
                    # EOF\n";
        let want = [
            r#"{__name__="a_bucket", le="1.0", x="q\"\n"} 3 1500"#,
            r#"{__name__="a_bucket", le="+Inf"} 1000 -2000"#,
            r#"{__name__="b"} NaN 1700000000123"#,
            r#"{__name__="with.dot", "l.l"="é"} +Inf 0"#,
        ];
        assert_eq!(all(text).unwrap(), want);
    }

    #[test]
    fn a_series_is_one_however_it_is_written() {
        let text = "a{x=\"1\",y=\"}\"} 1 1\na{y=\"}\",x=\"1\"} 2 2\na{x=\"1\",y=\"}\"} 3 3\n\
                    # TYPE a summary\na{quantile=\"1\"} 1 1\n# TYPE b gauge\na{quantile=\"1\"} 1 1\n# EOF";
        let mut series = Series::default();
        let mut seen = Vec::new();
        parse(text.as_bytes(), &mut series, &mut |s| {
            seen.push(s.series);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [0, 0, 0, 1, 2]);
        assert_eq!(series.labels()[1].get("quantile"), Some("1.0"));
        assert_eq!(series.labels()[2].get("quantile"), Some("1"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, error) in [
            ("a 1 1\n", "data does not end with # EOF"),
            ("a 1\n# EOF\n", "line 1: expected timestamp"),
            ("a 1 1\n\n# EOF\n", "line 2: neither"),
            ("a{b=\"c\" 1 1\n# EOF", "line 1: labels do not end"),
            ("a{b=\"c\" d=\"e\"} 1 1\n# EOF", "line 1: labels are not separated"),
            ("a{b=\"c\",b=\"d\"} 1 1\n# EOF", "line 1: label \"b\" is there twice"),
            ("a{b=\"c} 1 1\n# EOF", "line 1: a string does not end"),
            ("a x 1\n# EOF", "line 1: \"x\" is no number"),
            ("a 1 1 2\n# EOF", "line 1: \" 2\" behind"),
            ("# EOF\na 1 1\n", "line 2: text behind # EOF"),
            ("{b=\"c\"} 1 1\n# EOF", "line 1: no metric name"),
        ] {
            let got = all(text).unwrap_err();
            assert!(got.starts_with(error), "{text:?}: {got}");
        }
    }
}
