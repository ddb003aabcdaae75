//! Regular expressions in Go's RE2 dialect, anchored, with the shortcuts an index needs.
//!
//! A pattern is parsed by rules of Go's `regexp/syntax` ([`parse`]), so that what Go refuses is refused in Go's words,
//! and what Go reads differently from Rust's `regex` is read as Go reads it. Patterns that are lists of literals or
//! literals with `.*` and `.+` between them ([`shape`]) never reach a regex engine. Compiled patterns are kept in a
//! bounded cache of the process ([`cache`]), since compiling costs a thousand times what matching does.

mod cache;
mod expand;
mod parse;
mod scripts;
mod shape;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use regex_syntax::hir::{Hir, Look};

use shape::Shape;

/// Why a pattern was refused, in Go's words where Go has words for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {0}")]
pub struct RegexError(pub String);

/// Largest compiled pattern. Go has no such bound on what repeats and Unicode classes multiply to; ordinary patterns
/// stay below a hundredth of it.
const COMPILED_BYTES_MAX: usize = 16 << 20;

/// Largest compiled pattern that is worth a place in the cache, so that the cache as a whole stays in bounds.
const CACHED_BYTES_MAX: usize = 512 << 10;

/// A compiled pattern, anchored at both ends, `.` matching newlines too: `^(?s:pattern)$`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GoRegex(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    /// The pattern as the engine takes it.
    translated: String,
    /// Names of the groups, by number; the whole match has none.
    names: Vec<Option<String>>,
    shape: Shape,
    prefix: String,
    /// Compiled from the start where the shape needs it, else when groups are asked for.
    regex: OnceLock<Option<regex::Regex>>,
    /// Small enough for the cache.
    cacheable: bool,
}

impl GoRegex {
    /// Compiles a pattern, or finds it in the cache.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        if let Some(found) = cache::get(pattern) {
            return Ok(found);
        }
        let parsed = parse::parse(pattern, true)?;
        let shape = Shape::of(&parsed.hir);
        let prefix = shape::prefix(&parsed.hir);
        let anchored = Hir::concat(vec![Hir::look(Look::Start), parsed.hir, Hir::look(Look::End)]);
        let compiled = Compiled::new(pattern, anchored, parsed.names, shape, prefix)?;
        let regex = GoRegex(Arc::new(compiled));
        if regex.0.cacheable {
            cache::put(pattern, &regex);
        }
        Ok(regex)
    }

    /// Compiles a pattern that may match anywhere in a text, and whose `.` matches no newline: Go's
    /// `regexp.Compile(pattern)`. It is not cached.
    pub fn unanchored(pattern: &str) -> Result<Self, RegexError> {
        let parsed = parse::parse(pattern, false)?;
        let compiled = Compiled::new(pattern, parsed.hir, parsed.names, Shape::Regex, String::new())?;
        Ok(GoRegex(Arc::new(compiled)))
    }

    /// True when the whole of `text` matches (or, of an unanchored pattern, a part).
    pub fn is_match(&self, text: &str) -> bool {
        match &self.0.shape {
            Shape::Set(set) if set.len() <= 4 => set.iter().any(|s| s == text),
            Shape::Set(set) => set.binary_search_by(|s| s.as_str().cmp(text)).is_ok(),
            Shape::Globs(globs) => globs.iter().any(|glob| glob.matches(text)),
            Shape::Regex => {
                text.starts_with(&self.0.prefix) && self.regex().is_some_and(|r| r.is_match(text))
            }
        }
    }

    /// The finite set of strings that match, sorted, when the pattern is one (`a|b|c`, `prod-(eu|us)`).
    pub fn set_matches(&self) -> Option<&[String]> {
        match &self.0.shape {
            Shape::Set(set) => Some(set),
            _ => None,
        }
    }

    /// A prefix that every match has; empty when there is none.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// Replaces `template`'s `$1`, `${name}`, ... by the groups of a match of the text, by the rules of Go's `Expand`;
    /// `None` when the text does not match.
    pub fn expand(&self, text: &str, template: &str) -> Option<String> {
        let mut out = String::new();
        self.expand_into(text, template, &mut out).then_some(out)
    }

    /// As [`GoRegex::expand`], behind what `out` holds; false, and nothing appended, when the text does not match.
    pub fn expand_into(&self, text: &str, template: &str, out: &mut String) -> bool {
        if !self.is_match(text) {
            return false;
        }
        let Some(captures) = self.regex().and_then(|regex| regex.captures(text)) else { return false };
        expand::expand(template, &captures, &self.0.names, out);
        true
    }

    fn regex(&self) -> Option<&regex::Regex> {
        self.0.regex.get_or_init(|| build(&self.0.translated, COMPILED_BYTES_MAX).ok()).as_ref()
    }
}

impl Compiled {
    fn new(
        pattern: &str,
        hir: Hir,
        names: Vec<Option<String>>,
        shape: Shape,
        prefix: String,
    ) -> Result<Self, RegexError> {
        let translated = hir.to_string();
        let regex = OnceLock::new();
        let mut cacheable = true;
        if matches!(shape, Shape::Regex) {
            let small = build(&translated, CACHED_BYTES_MAX);
            cacheable = small.is_ok();
            let built = small.or_else(|_| build(&translated, COMPILED_BYTES_MAX)).map_err(|error| {
                RegexError(match error {
                    regex::Error::CompiledTooBig(_) => {
                        format!("expression too large: {}", parse::excerpt(pattern))
                    }
                    other => other.to_string(),
                })
            })?;
            regex.get_or_init(|| Some(built));
        }
        Ok(Compiled { translated, names, shape, prefix, regex, cacheable })
    }
}

fn build(translated: &str, bytes_max: usize) -> Result<regex::Regex, regex::Error> {
    // The parser above has bounded the nesting already; the printed form nests deeper by a constant factor.
    regex::RegexBuilder::new(translated)
        .size_limit(bytes_max)
        .nest_limit(10 * parse::DEPTH_MAX as u32)
        .build()
}
