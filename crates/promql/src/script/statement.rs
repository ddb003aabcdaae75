//! Statements of a script: `load`, `eval`, `clear`, and the expectations of an `eval`.

use std::sync::LazyLock;

use chronolith_model::{Labels, parse_duration_ms};
use regex::Regex;

use crate::parser::{
    SequenceValue, is_start_timestamp_line, parse_series_description, parse_start_timestamps,
};

/// A series of a `load` or an expected one.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<SequenceValue>,
    /// Start timestamps as offsets from the samples, from an `@st` line.
    pub(crate) start_offsets: Vec<Option<i64>>,
}

impl Description {
    fn parse(line: &str) -> Result<Self, String> {
        let d = parse_series_description(line).map_err(|e| e.to_string())?;
        Ok(Description { labels: d.labels, values: d.values, start_offsets: Vec::new() })
    }
}

/// A statement and the line, from 1, that it starts at.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) line: usize,
    pub(crate) kind: StatementKind,
}

#[derive(Debug)]
pub(crate) enum StatementKind {
    Clear,
    Load { step_ms: i64, with_nhcb: bool, series: Vec<Description> },
    Eval(Box<Eval>),
}

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    Instant(i64),
    Range { start: i64, end: i64, step_ms: i64 },
}

/// An expected text.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Any,
    Text(String),
    Regex(Regex),
}

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Text(t) => t == text,
            Pattern::Regex(r) => r.is_match(text),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Eval {
    pub(crate) expr: String,
    pub(crate) when: When,
    pub(crate) fail: Option<Pattern>,
    pub(crate) warnings: Vec<Pattern>,
    pub(crate) infos: Vec<Pattern>,
    pub(crate) no_warn: bool,
    pub(crate) no_info: bool,
    pub(crate) ordered: bool,
    pub(crate) scalar: Option<f64>,
    pub(crate) string: Option<Vec<u8>>,
    /// `expect range vector`: start, end, step.
    pub(crate) range_vector: Option<(i64, i64, i64)>,
    pub(crate) series: Vec<Description>,
}

macro_rules! regex {
    ($name:ident, $re:literal) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($re).expect("the pattern is part of the program"));
    };
}

regex!(LOAD, r"^load(?:_(with_nhcb))?\s+(.+?)$");
regex!(INSTANT, r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$");
regex!(RANGE, r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$");
regex!(EXPECT, r"^expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$");
regex!(RANGE_VECTOR, r"^expect\s+range\s+vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)$");
regex!(STRING, r#"^expect\s+string\s+(.+)$"#);

/// Parses a script. Errors carry `line n:`.
pub(crate) fn parse_script(text: &str) -> Result<Vec<Statement>, String> {
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| {
            let line = line.trim();
            if line.starts_with('#') { "" } else { line }
        })
        .collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let (line, number) = (lines[i], i + 1);
        i += 1;
        if line.is_empty() {
            continue;
        }
        let word = line.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
        let at = |e: String| format!("line {number}: {e}");
        if word == "clear" {
            out.push(Statement { line: number, kind: StatementKind::Clear });
            continue;
        }
        let body_end = (i..lines.len()).find(|j| lines[*j].is_empty()).unwrap_or(lines.len());
        let body = &lines[i..body_end];
        i = body_end;
        let kind = if word.starts_with("load") {
            load(line, body).map_err(at)?
        } else if word.starts_with("eval") {
            StatementKind::Eval(Box::new(eval(line, body).map_err(at)?))
        } else {
            return Err(at(format!("unknown statement {line:?}")));
        };
        out.push(Statement { line: number, kind });
    }
    Ok(out)
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration_ms(text.trim()).ok_or_else(|| format!("bad duration {text:?}"))
}

fn load(line: &str, body: &[&str]) -> Result<StatementKind, String> {
    let c = LOAD.captures(line).ok_or_else(|| format!("bad load statement {line:?}"))?;
    let mut series: Vec<Description> = Vec::new();
    let mut starts = None;
    for line in body {
        if is_start_timestamp_line(line) {
            starts = Some(parse_start_timestamps(line)?);
            continue;
        }
        let mut d = Description::parse(line)?;
        if let Some(starts) = starts.take() {
            if starts.labels != d.labels || starts.offsets_ms.len() != d.values.len() {
                return Err(format!("the @st line of {} is not followed by its samples", starts.labels));
            }
            d.start_offsets = starts.offsets_ms;
        }
        series.retain(|s| s.labels != d.labels);
        series.push(d);
    }
    Ok(StatementKind::Load { step_ms: duration(&c[2])?, with_nhcb: c.get(1).is_some(), series })
}

fn eval(line: &str, body: &[&str]) -> Result<Eval, String> {
    let (variant, when, expr) = if let Some(c) = INSTANT.captures(line) {
        let t = c.get(2).map_or(Ok(0), |t| duration(t.as_str()))?;
        (c.get(1).map(|v| v.as_str()), When::Instant(t), c[3].to_owned())
    } else if let Some(c) = RANGE.captures(line) {
        let (start, end, step_ms) = (duration(&c[2])?, duration(&c[3])?, duration(&c[4])?);
        if end < start {
            return Err("the range ends before it starts".to_owned());
        }
        (c.get(1).map(|v| v.as_str()), When::Range { start, end, step_ms }, c[5].to_owned())
    } else {
        return Err(format!("bad eval statement {line:?}"));
    };
    let mut eval = Eval {
        expr,
        when,
        fail: None,
        warnings: Vec::new(),
        infos: Vec::new(),
        no_warn: false,
        no_info: false,
        ordered: false,
        scalar: None,
        string: None,
        range_vector: None,
        series: Vec::new(),
    };
    match variant {
        Some("fail") => eval.fail = Some(Pattern::Any),
        Some("warn") => eval.warnings.push(Pattern::Any),
        Some("info") => eval.infos.push(Pattern::Any),
        Some("ordered") => eval.ordered = true,
        _ => {}
    }
    for line in body {
        if expectation(&mut eval, line)? {
            continue;
        }
        if let Some(v) = plain_number(line) {
            eval.scalar = Some(v);
            break;
        }
        let d = Description::parse(line)?;
        if matches!(when, When::Instant(_)) && eval.range_vector.is_none() && d.values.len() != 1 {
            return Err(format!("{line:?}: an instant result has one value per series"));
        }
        eval.series.push(d);
    }
    Ok(eval)
}

/// Reads an `expect` line; false when it is not one.
fn expectation(eval: &mut Eval, line: &str) -> Result<bool, String> {
    if let Some(c) = RANGE_VECTOR.captures(line) {
        eval.range_vector = Some((duration(&c[1])?, duration(&c[2])?, duration(&c[3])?));
        return Ok(true);
    }
    if let Some(c) = STRING.captures(line) {
        eval.string =
            Some(crate::parser::unquote(c[1].trim()).ok_or_else(|| format!("bad string in {line:?}"))?);
        return Ok(true);
    }
    if let Some(text) = line.strip_prefix("expected_fail_message ") {
        eval.fail = Some(Pattern::Text(text.trim().to_owned()));
        return Ok(true);
    }
    if let Some(text) = line.strip_prefix("expected_fail_regexp ") {
        eval.fail = Some(Pattern::Regex(Regex::new(text.trim()).map_err(|e| e.to_string())?));
        return Ok(true);
    }
    if line.split(' ').next() != Some("expect") {
        return Ok(false);
    }
    let c = EXPECT.captures(line).ok_or_else(|| format!("bad expectation {line:?}"))?;
    let text = c.get(3).map(|t| t.as_str().trim());
    let pattern = match (c.get(2).map(|k| k.as_str()), text) {
        (Some("msg"), Some(text)) => Pattern::Text(text.to_owned()),
        (Some(_), Some(text)) => Pattern::Regex(Regex::new(text).map_err(|e| e.to_string())?),
        _ => Pattern::Any,
    };
    match &c[1] {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail = Some(pattern),
        "warn" => eval.warnings.push(pattern),
        "info" => eval.infos.push(pattern),
        "no_warn" => eval.no_warn = true,
        _ => eval.no_info = true,
    }
    Ok(true)
}

/// A line that is nothing but a number, as Go reads it.
fn plain_number(line: &str) -> Option<f64> {
    let digits = line.strip_prefix(['+', '-']).unwrap_or(line);
    let sign = if line.starts_with('-') { -1.0 } else { 1.0 };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok().map(|v| sign * v as f64);
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return i64::from_str_radix(digits, 8).ok().map(|v| sign * v as f64);
    }
    digits.parse::<f64>().ok().map(|v| sign * v)
}

/// The single value of an expected series of an instant query.
pub(crate) fn single(d: &Description) -> &SequenceValue {
    d.values.first().unwrap_or(&SequenceValue::Omitted)
}
