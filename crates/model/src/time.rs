//! Time ranges, and Prometheus durations.

use std::fmt;

/// Closed range of milliseconds: both ends belong to it. Blocks and heads hold half-open ranges; they convert at
/// their own edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond of the range.
    pub mint: i64,
    /// Last millisecond of the range, included.
    pub maxt: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: TimeRange = TimeRange { mint: i64::MIN, maxt: i64::MAX };

    /// The range from `mint` to `maxt`, both included.
    pub const fn new(mint: i64, maxt: i64) -> Self {
        TimeRange { mint, maxt }
    }

    /// True when no time is in it.
    pub const fn is_empty(&self) -> bool {
        self.maxt < self.mint
    }

    /// True when `t` is in it.
    pub const fn contains(&self, t: i64) -> bool {
        self.mint <= t && t <= self.maxt
    }

    /// True when the two have a millisecond in common.
    pub const fn overlaps(&self, other: &TimeRange) -> bool {
        self.mint <= other.maxt && other.mint <= self.maxt
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.mint, self.maxt)
    }
}

const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 24 * 3600 * 1000),
    ("w", 7 * 24 * 3600 * 1000),
    ("d", 24 * 3600 * 1000),
    ("h", 3600 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// Parses a Prometheus duration (`1h30m`, `500ms`, `0`) into milliseconds.
///
/// Units `y w d h m s ms` in this order, each at most once, whole numbers; a year has 365 days. `None` when the
/// text is anything else or does not fit an `i64` of nanoseconds, which is Prometheus's own bound.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: i64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest.get(..digits).filter(|d| !d.is_empty())?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit =
            UNITS.iter().position(|(name, _)| *name == &rest[..letters]).filter(|i| *i >= next_unit)?;
        next_unit = unit + 1;
        total = total.checked_add(number.checked_mul(UNITS[unit].1)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty() && total <= i64::MAX / 1_000_000).then_some(total)
}

/// Prints milliseconds as Prometheus does (`1h30m`, `0s`); weeks and years only where they divide evenly.
pub fn format_duration_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = if ms < 0 { "-".to_owned() } else { String::new() };
    let mut rest = ms.unsigned_abs();
    for (name, unit) in UNITS {
        let unit = unit as u64;
        let exact_only = matches!(name, "y" | "w");
        if exact_only && !rest.is_multiple_of(unit) {
            continue;
        }
        let n = rest / unit;
        if n > 0 {
            out.push_str(&format!("{n}{name}"));
            rest -= n * unit;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms) in
            [("0", 0), ("5m", 300_000), ("1h30m", 5_400_000), ("1y", 31_536_000_000), ("1ms", 1)]
        {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for bad in ["", "1", "1.5h", "m", "1m1h", "1m1m", "5M", "-5m", "300y", "99999999999999999999s"] {
            assert_eq!(parse_duration_ms(bad), None, "{bad}");
        }
        for (ms, text) in
            [(0, "0s"), (90_000, "1m30s"), (604_800_000, "1w"), (691_200_000, "8d"), (-1, "-1ms")]
        {
            assert_eq!(format_duration_ms(ms), text);
        }
    }

    #[test]
    fn ranges_are_closed() {
        let r = TimeRange::new(10, 20);
        assert!(r.contains(10) && r.contains(20) && !r.contains(21));
        assert!(r.overlaps(&TimeRange::new(20, 30)) && !r.overlaps(&TimeRange::new(21, 30)));
    }
}
