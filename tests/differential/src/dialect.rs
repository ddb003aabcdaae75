//! What a peer speaks: its version and its feature flags, and from both what the generator may write.

use anyhow::{Context, Result};

/// A peer's version and flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Major and minor version.
    pub version: (u32, u32),
    /// `--enable-feature` of both sides.
    pub features: Vec<String>,
    /// Whether native histograms are part of the data.
    pub native: bool,
}

impl Dialect {
    /// The version that this project follows.
    pub const OURS: (u32, u32) = (3, 14);

    /// Reads `prometheus, version 2.42.0+ds (branch: ...`. A build that was not told its version is taken for a current one.
    pub fn parse_version(text: &str) -> Result<(u32, u32)> {
        let word = text.split("version ").nth(1).context("no version in the reply")?;
        if word.starts_with(" (branch: ") {
            return Ok(Self::OURS);
        }
        let mut numbers = word.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
            _ => anyhow::bail!("no version in {text:?}"),
        }
    }

    /// The peer is the version that we follow: nothing is excused.
    pub fn is_current(&self) -> bool {
        self.version >= Self::OURS
    }

    /// Range windows include their left end (before 3.0).
    pub fn closed_windows(&self) -> bool {
        self.version < (3, 0)
    }

    /// A feature flag is set on both sides.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }

    /// Samples have start timestamps, stored and used. OTLP, which carries them, makes its own `__type__`.
    pub fn starts(&self) -> bool {
        self.has("use-start-timestamps") && self.has("st-storage") && !self.has("type-and-unit-labels")
    }

    /// Experimental functions and aggregators are on.
    pub fn experimental(&self) -> bool {
        self.has("promql-experimental-functions")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let parse = |text| Dialect::parse_version(text).ok();
        assert_eq!(parse("prometheus, version 2.42.0+ds (branch: debian/sid"), Some((2, 42)));
        assert_eq!(parse("prometheus, version 3.14.0 (branch: HEAD"), Some((3, 14)));
        assert_eq!(parse("prometheus, version  (branch: , revision: unknown)"), Some(Dialect::OURS));
        assert_eq!(parse("no such thing"), None);
    }
}
