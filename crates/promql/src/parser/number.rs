//! Numbers and durations as PromQL writes them.

use chronolith_model::parse_duration_ms;

use super::quote::go_quote;

/// The longest duration, in seconds: an `i64` of nanoseconds, upstream's representation.
const DURATION_SECONDS_MAX: f64 = 9_223_372_036.854_776;

/// Reads a number: decimal, `0x10`, octal with a leading `0`, underscores between digits, `Inf`, `NaN` in any case.
/// The error is upstream's text.
pub(super) fn parse_number(text: &str) -> Result<f64, String> {
    if let Some(value) = parse_integer(text) {
        return Ok(value as f64);
    }
    let problem = |what| {
        format!("error parsing number: strconv.ParseFloat: parsing {}: {what}", go_quote(text.as_bytes()))
    };
    let plain: String;
    let digits = if text.contains('_') {
        if !underscores_separate_digits(text) {
            return Err(problem("invalid syntax"));
        }
        plain = text.replace('_', "");
        &plain
    } else {
        text
    };
    let value: f64 = digits.parse().map_err(|_| problem("invalid syntax"))?;
    if value.is_infinite() && digits.bytes().any(|b| b.is_ascii_digit()) {
        return Err(problem("value out of range"));
    }
    Ok(value)
}

/// An integer in Go's notation with base prefixes; `None` for anything else, a float among them.
fn parse_integer(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (base, digits) = match bytes {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    };
    if !digits.bytes().all(|b| b == b'_' || char::from(b).is_digit(base)) {
        return None;
    }
    if !digits.contains('_') {
        return i64::from_str_radix(digits, base).ok();
    }
    if !underscores_separate_digits(text) {
        return None;
    }
    i64::from_str_radix(&digits.replace('_', ""), base).ok()
}

/// Go's rule: an underscore stands between digits, or between a base prefix and a digit.
fn underscores_separate_digits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = matches!(bytes, [b'0', b'x' | b'X', ..]);
    let prefixed = hex || matches!(bytes, [b'0', b'b' | b'B' | b'o' | b'O', ..]);
    // What came before: '0' a digit or a prefix, '_' an underscore, '!' something else.
    let mut before = if prefixed { b'0' } else { b'!' };
    for &byte in &bytes[if prefixed { 2 } else { 0 }..] {
        before = match byte {
            b'0'..=b'9' => b'0',
            b'a'..=b'f' | b'A'..=b'F' if hex => b'0',
            b'_' if before != b'0' => return false,
            b'_' => b'_',
            _ if before == b'_' => return false,
            _ => b'!',
        };
    }
    before != b'_'
}

/// Reads a duration literal; the value in seconds, as a number literal has it. The error is upstream's text.
pub(super) fn parse_duration_seconds(text: &str) -> Result<f64, String> {
    match parse_duration_ms(text) {
        Some(ms) => Ok(seconds_of_ms(ms)),
        None => Err(duration_problem(text)),
    }
}

/// What is wrong with a duration: the first thing that upstream's parser of durations meets.
fn duration_problem(text: &str) -> String {
    const UNITS: [&str; 7] = ["y", "w", "d", "h", "m", "s", "ms"];
    let invalid = || format!("not a valid duration string: {}", go_quote(text.as_bytes()));
    let mut next_unit = 0;
    let mut rest = text;
    let mut before = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit_length = rest.bytes().skip(digits).take_while(|b| !b.is_ascii_digit()).count();
        if rest[..digits].parse::<u64>().is_err() || unit_length == 0 {
            return invalid();
        }
        let unit = &rest[digits..digits + unit_length];
        match UNITS.iter().position(|known| *known == unit) {
            None => {
                let (unit, text) = (go_quote(unit.as_bytes()), go_quote(text.as_bytes()));
                return format!("unknown unit {unit} in duration {text}");
            }
            Some(position) if position < next_unit => return invalid(),
            Some(position) => next_unit = position + 1,
        }
        before += digits + unit_length;
        // Valid so far, so it can only be too large.
        if parse_duration_ms(&text[..before]).is_none() {
            return "duration out of range".to_owned();
        }
        rest = &text[before..];
    }
    invalid()
}

/// Milliseconds as Go's `Duration.Seconds` gives them.
pub(super) fn seconds_of_ms(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

/// Seconds to milliseconds by way of whole nanoseconds, as upstream does it: rounded there, cut off here.
pub(super) fn ms_of_seconds(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64 / 1_000_000
}

/// True for a number of seconds that is no duration. NaN is none either; upstream lets it through and goes on with
/// whatever the processor makes of it.
pub(super) fn is_out_of_range(seconds: f64) -> bool {
    seconds.is_nan() || seconds.abs() > DURATION_SECONDS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, want) in [
            ("1", 1.0),
            ("0x10", 16.0),
            ("0xFf", 255.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("1_000", 1000.0),
            ("0x_1F", 31.0),
            ("1e3", 1000.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("9223372036854775808", 9_223_372_036_854_775_808.0),
            ("Inf", f64::INFINITY),
            ("iNf", f64::INFINITY),
        ] {
            assert_eq!(parse_number(text), Ok(want), "{text}");
        }
        assert!(parse_number("nan").unwrap().is_nan());
        assert_eq!(
            parse_number("0x").unwrap_err(),
            "error parsing number: strconv.ParseFloat: parsing \"0x\": invalid syntax"
        );
        assert_eq!(
            parse_number("1e400").unwrap_err(),
            "error parsing number: strconv.ParseFloat: parsing \"1e400\": value out of range"
        );
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration_seconds("1h30m"), Ok(5400.0));
        assert_eq!(parse_duration_seconds("1ms"), Ok(0.001));
        assert_eq!(parse_duration_seconds("5hs").unwrap_err(), "unknown unit \"hs\" in duration \"5hs\"");
        assert_eq!(parse_duration_seconds("1m1h").unwrap_err(), "not a valid duration string: \"1m1h\"");
        assert_eq!(parse_duration_seconds("300y").unwrap_err(), "duration out of range");
        assert_eq!(parse_duration_seconds("9999999999999999999s").unwrap_err(), "duration out of range");
    }
}
