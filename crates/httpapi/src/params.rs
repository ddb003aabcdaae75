//! Request parameters: URL query and form body, times, durations, booleans, label names.

use std::borrow::Cow;

use axum::extract::Request;
use chronolith_model::{go_quote, parse_duration_ms};
use http::{Method, header};
use http_body_util::{BodyExt, Limited};

use crate::{ApiError, ErrorKind};

/// The longest form body: Go's `http.Request.ParseForm` stops at 10 MB, too.
const FORM_BYTES_MAX: usize = 10 << 20;

/// The parameters of a request, values of a form body before those of the URL.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// Reads the parameters of a GET or POST request. Errors: a body that is too long or breaks off.
    pub async fn read(request: Request) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let mut pairs = Vec::new();
        let is_form = parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.trim_start().starts_with("application/x-www-form-urlencoded"));
        if parts.method == Method::POST && is_form {
            let body = Limited::new(body, FORM_BYTES_MAX).collect().await.map_err(|e| {
                ApiError::new(
                    ErrorKind::BadData,
                    format!("error parsing form values: {e} (at most {FORM_BYTES_MAX} bytes)"),
                )
            })?;
            pairs.extend(owned(&body.to_bytes()));
        }
        if let Some(query) = parts.uri.query() {
            pairs.extend(owned(query.as_bytes()));
        }
        Ok(Params { pairs })
    }

    /// Parameters of a URL query string.
    pub fn from_query(query: &str) -> Self {
        Params { pairs: owned(query.as_bytes()).collect() }
    }

    /// The first value, or the empty string, as Go's `FormValue`.
    pub fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All values of a repeated parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time in milliseconds, or `default` when the parameter is absent.
    pub fn time(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_time(text)
                .map_err(|e| ApiError::parameter(name, format!("invalid time value for '{name}': {e}"))),
        }
    }

    /// A time in milliseconds that must be there.
    pub fn required_time(&self, name: &str) -> Result<i64, ApiError> {
        parse_time(self.get(name)).map_err(|e| ApiError::parameter(name, e))
    }

    /// A duration in milliseconds, `None` when absent.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration(text).map(Some).map_err(|e| ApiError::parameter(name, e)),
        }
    }

    /// A boolean, or `default` when absent.
    pub fn bool(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_bool(text).map_err(|e| ApiError::parameter(name, e)),
        }
    }

    /// `limit`: 0 or absent is none.
    pub fn limit(&self) -> Result<Option<usize>, ApiError> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(None);
        }
        let n = parse_int(text).map_err(|e| ApiError::parameter("limit", e))?;
        match usize::try_from(n) {
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(ApiError::parameter("limit", "limit must be non-negative")),
        }
    }
}

fn owned(encoded: &[u8]) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(encoded).map(|(n, v)| (n.into_owned(), v.into_owned()))
}

/// Upstream's default start of a time range: `i64::MIN / 1000` seconds and 62,135,596,801 more.
pub const TIME_MIN_MS: i64 = (i64::MIN / 1000 + 62_135_596_801) * 1000;
/// Upstream's default end of a time range.
pub const TIME_MAX_MS: i64 = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;

/// Float seconds (rounded to milliseconds) or RFC 3339, into milliseconds since the epoch.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let invalid = || format!("cannot parse {} to a valid timestamp", go_quote(text.as_bytes()));
    if let Ok(seconds) = text.parse::<f64>() {
        return in_millis(seconds).ok_or_else(invalid);
    }
    // How upstream prints its own earliest and latest time; neither fits a calendar library.
    match text {
        "-292273086-05-16T16:47:06Z" => return Ok(TIME_MIN_MS),
        "292277025-08-18T07:12:54.999999999Z" => return Ok(TIME_MAX_MS),
        _ => {}
    }
    if !has_rfc3339_form(text.as_bytes()) {
        return Err(invalid());
    }
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| invalid())?;
    i64::try_from(timestamp.as_nanosecond().div_euclid(1_000_000)).map_err(|_| invalid())
}

/// `2006-01-02T15:04:05[.9…](Z|±07:00)`: the calendar library takes more forms than that, and a leap second.
fn has_rfc3339_form(text: &[u8]) -> bool {
    let fits = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text.iter().zip(form).all(|(c, f)| if *f == b'0' { c.is_ascii_digit() } else { c == f })
    };
    let Some((head, rest)) = text.split_at_checked(19) else { return false };
    if !fits(head, b"0000-00-00T00:00:00") || head[17] > b'5' {
        return false;
    }
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    zone == b"Z" || fits(zone, b"+00:00") || fits(zone, b"-00:00")
}

/// A whole number; errors read as those of Go's `strconv.Atoi`.
pub fn parse_int(text: &str) -> Result<i64, String> {
    text.parse::<i64>().map_err(|e| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match e.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", go_quote(text.as_bytes()))
    })
}

/// Float seconds or a Prometheus duration, into milliseconds.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        // Upstream's bound is an int64 of nanoseconds.
        if seconds.is_nan() || seconds.abs() * 1e9 >= i64::MAX as f64 {
            let quoted = go_quote(text.as_bytes());
            return Err(format!("cannot parse {quoted} to a valid duration. It overflows int64"));
        }
        return Ok((seconds * 1000.0) as i64);
    }
    parse_duration_ms(text)
        .ok_or_else(|| format!("cannot parse {} to a valid duration", go_quote(text.as_bytes())))
}

fn in_millis(seconds: f64) -> Option<i64> {
    let ms = (seconds * 1000.0).round();
    (ms.is_finite() && ms.abs() < i64::MAX as f64).then_some(ms as i64)
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", go_quote(text.as_bytes()))),
    }
}

/// Undoes the `U__` escaping that clients use for UTF-8 label names in a path; other names come back as they are.
pub fn decode_label_name(name: &str) -> Cow<'_, str> {
    let Some(escaped) = name.strip_prefix("U__") else { return Cow::Borrowed(name) };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let decoded = rest.split_once('_').filter(|(hex, _)| hex.len() <= 6).and_then(|(hex, after)| {
            let code = u32::from_str_radix(hex, 16).ok()?;
            Some((char::from_u32(code)?, after))
        });
        // A malformed escape makes the whole name stand for itself, as upstream's UnescapeName does.
        let Some((c, after)) = decoded else { return Cow::Borrowed(name) };
        out.push(c);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        for (text, ms) in [
            ("0", 0),
            ("1435781430.781", 1_435_781_430_781),
            ("-5", -5000),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
            ("2015-06-03T14:21:58.555+01:00", 1_433_337_718_555),
            ("1e3", 1_000_000),
            ("1969-12-31T23:59:59.9995Z", -1),
            ("-292273086-05-16T16:47:06Z", TIME_MIN_MS),
            ("292277025-08-18T07:12:54.999999999Z", TIME_MAX_MS),
        ] {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            "foo",
            "30s",
            "NaN",
            "Inf",
            "1e300",
            "2015-13-03T13:21:58Z",
            "2015-06-03",
            "2015-06-03 13:21:58Z",
            "2015-06-03T13:21:60Z",
            "2015-06-03T13:21:58",
            "2015-06-03T13:21Z",
            "2015-06-03T13:21:58.Z",
            "2015-06-03T13:21:58+01",
            "2015-06-03T13:21:58Z[UTC]",
        ] {
            let want = format!("cannot parse {bad:?} to a valid timestamp");
            assert_eq!(parse_time(bad), Err(want), "{bad}");
        }
        for (text, ms) in [("1", 1000), ("0.5", 500), ("5m", 300_000), ("1h30m", 5_400_000)] {
            assert_eq!(parse_duration(text), Ok(ms));
        }
        assert!(parse_duration("1e10").unwrap_err().contains("overflows"));
        assert!(parse_duration("5x").is_err());
    }

    #[test]
    fn the_body_comes_before_the_url() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let request = http::Request::post("/x?query=url&only=url")
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(axum::body::Body::from("query=a%2Bb&match[]=x&match%5B%5D=y"))
            .unwrap();
        let params = runtime.block_on(Params::read(request)).unwrap();
        assert_eq!((params.get("query"), params.get("only"), params.get("none")), ("a+b", "url", ""));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn limits() {
        assert_eq!(Params::from_query("limit=0").limit().unwrap(), None);
        assert_eq!(Params::from_query("limit=7").limit().unwrap(), Some(7));
        assert!(Params::from_query("limit=-1").limit().unwrap_err().message.contains("non-negative"));
        let text = Params::from_query("limit=x").limit().unwrap_err().message;
        assert_eq!(text, r#"invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#);
    }

    #[test]
    fn escaped_label_names() {
        for (escaped, name) in [
            ("job", "job"),
            ("U__http_2e_status__code", "http.status_code"),
            ("U__label_with_1f631_", "U__label_with_1f631_"),
            ("U___1f631_", "\u{1f631}"),
        ] {
            assert_eq!(decode_label_name(escaped), name, "{escaped}");
        }
    }
}
