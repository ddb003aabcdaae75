//! Label matchers.

use std::fmt;

use crate::{GoRegex, RegexError, go_quote, is_legacy_label_name};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as PromQL writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// Why a matcher was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// The pattern is not valid in Go's RE2 dialect.
    #[error(transparent)]
    Regex(#[from] RegexError),
}

/// A predicate on one label. A label that is not there counts as the empty string. Cheap to clone.
#[derive(Clone)]
pub struct Matcher {
    /// Label name.
    pub name: String,
    /// Comparison.
    pub op: MatchOp,
    /// Value or pattern, as written.
    pub value: String,
    regex: Option<GoRegex>,
}

impl Matcher {
    /// Builds a matcher. Errors: an invalid pattern.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, MatcherError> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(GoRegex::new(value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Matcher { name: name.to_owned(), op, value: value.to_owned(), regex })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Matcher { name: name.to_owned(), op: MatchOp::Equal, value: value.to_owned(), regex: None }
    }

    /// True when a label of this value satisfies the matcher.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => {
                unreachable!("regex matchers are built with a regex")
            }
        }
    }

    /// True when a missing label satisfies the matcher.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The compiled pattern of a regex matcher: its [`GoRegex::set_matches`] and [`GoRegex::prefix`] let an index
    /// avoid testing every value.
    pub fn regex(&self) -> Option<&GoRegex> {
        self.regex.as_ref()
    }

    /// The opposite matcher.
    pub fn inverse(&self) -> Self {
        let op = match self.op {
            MatchOp::Equal => MatchOp::NotEqual,
            MatchOp::NotEqual => MatchOp::Equal,
            MatchOp::Regex => MatchOp::NotRegex,
            MatchOp::NotRegex => MatchOp::Regex,
        };
        Matcher { op, ..self.clone() }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.op, &self.value) == (&other.name, other.op, &other.value)
    }
}

impl Eq for Matcher {}

impl std::hash::Hash for Matcher {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, self.op, &self.value).hash(state);
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = go_quote(self.value.as_bytes());
        if is_legacy_label_name(&self.name) {
            write!(f, "{}{}{value}", self.name, self.op.as_str())
        } else {
            write!(f, "{}{}{value}", go_quote(self.name.as_bytes()), self.op.as_str())
        }
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators() {
        let cases = [
            (MatchOp::Equal, "a", "a", true),
            (MatchOp::Equal, "a", "b", false),
            (MatchOp::NotEqual, "a", "", true),
            (MatchOp::Regex, "a|b.*", "bcd", true),
            (MatchOp::Regex, "b", "abc", false),
            (MatchOp::NotRegex, ".+", "", true),
            (MatchOp::Regex, "a.b", "a\nb", true),
        ];
        for (op, pattern, value, want) in cases {
            let m = Matcher::new(op, "x", pattern).unwrap();
            assert_eq!(m.matches(value), want, "{m} on {value:?}");
            assert_eq!(m.inverse().matches(value), !want, "inverse of {m} on {value:?}");
        }
    }
}
