//! `--min-time` and `--max-time`: a moment, or a distance from now.

use std::fmt;
use std::str::FromStr;

use chronolith_model::{format_duration_ms, parse_duration_ms};

/// An end of the time of blocks that a role takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeBound {
    /// Milliseconds since the epoch.
    At(i64),
    /// Milliseconds relative to now; negative is past.
    FromNow(i64),
}

impl TimeBound {
    /// The moment.
    pub fn at_ms(self, now_ms: i64) -> i64 {
        match self {
            TimeBound::At(ms) => ms,
            TimeBound::FromNow(ms) => now_ms.saturating_add(ms),
        }
    }
}

/// RFC 3339, or a duration with an optional sign (`-6w`).
impl FromStr for TimeBound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(t) = text.parse::<jiff::Timestamp>() {
            return Ok(TimeBound::At(t.as_millisecond()));
        }
        // Thanos's default, `9999-12-31T23:59:59Z`, lies behind the last moment that the library knows.
        if text.starts_with("9999-12-3")
            && text.trim_end_matches('Z').parse::<jiff::civil::DateTime>().is_ok()
        {
            return Ok(TimeBound::At(i64::MAX));
        }
        let (sign, length) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let ms = parse_duration_ms(length);
        ms.map(|ms| TimeBound::FromNow(sign * ms)).ok_or_else(|| {
            format!("{text:?} is neither a moment (2026-01-02T15:04:05Z) nor a distance from now (-6w)")
        })
    }
}

impl fmt::Display for TimeBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimeBound::At(ms) => match jiff::Timestamp::from_millisecond(*ms) {
                Ok(t) => fmt::Display::fmt(&t, f),
                Err(_) => write!(f, "{ms}"),
            },
            TimeBound::FromNow(ms) => f.write_str(&format_duration_ms(*ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_distances() {
        let at = |text: &str| text.parse::<TimeBound>().map(|b| b.at_ms(1_000_000));
        assert_eq!(at("1970-01-01T00:00:05Z"), Ok(5000));
        assert_eq!(at("-10s"), Ok(990_000));
        assert_eq!(at("1h"), Ok(4_600_000));
        assert!(at("0000-01-01T00:00:00Z").unwrap() < 0);
        assert!(at("9999-12-31T23:59:59Z").unwrap() > 0);
        assert!(at("yesterday").unwrap_err().contains("\"yesterday\""));
    }
}
