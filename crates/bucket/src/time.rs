//! Moments as meta.json writes them.

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn format_rfc3339(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => t.to_string(),
        Err(_) => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// Milliseconds of an RFC 3339 moment; `None` for Go's zero time and for what is none.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let t: jiff::Timestamp = text.parse().ok()?;
    Some(t.as_millisecond()).filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_round_trip() {
        assert_eq!(format_rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_rfc3339("2023-11-14T22:13:20.123456789+00:00"), Some(1_700_000_000_123));
        assert_eq!(parse_rfc3339("0001-01-01T00:00:00Z"), None);
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
