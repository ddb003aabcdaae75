//! What a pattern amounts to without a regex engine: a set of strings, or literals with gaps between them.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// Most strings of a set: `(?i)abc` is 8 of them, and looking up hundreds of postings still beats testing all values.
const SET_LEN_MAX: usize = 256;

/// Most alternatives with gaps: beyond this the engine, which tests them all at once, is faster.
const GLOBS_LEN_MAX: usize = 16;

/// How a pattern is matched.
#[derive(Debug)]
pub(super) enum Shape {
    /// One of these strings, sorted.
    Set(Vec<String>),
    /// One of these.
    Globs(Vec<Glob>),
    /// By the engine.
    Regex,
}

/// Literals with gaps between them: `abc.*def.+`.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    /// `.*`, or `.+` where something must be there.
    Gap {
        non_empty: bool,
    },
}

impl Shape {
    pub(super) fn of(hir: &Hir) -> Shape {
        let Some(globs) = globs_of(strip_anchors(hir)) else { return Shape::Regex };
        if globs.iter().all(|glob| glob.literal().is_some()) {
            let mut set: Vec<String> =
                globs.iter().filter_map(|glob| glob.literal().map(str::to_owned)).collect();
            set.sort_unstable();
            set.dedup();
            return Shape::Set(set);
        }
        if globs.len() <= GLOBS_LEN_MAX { Shape::Globs(globs) } else { Shape::Regex }
    }
}

impl Glob {
    const EMPTY: Glob = Glob { parts: Vec::new() };

    /// The one string that matches.
    fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(literal)] => Some(literal),
            _ => None,
        }
    }

    /// Adds a part at the end; false when the result cannot be expressed.
    fn push(&mut self, part: &Part) -> bool {
        match (self.parts.last_mut(), part) {
            (Some(Part::Literal(last)), Part::Literal(more)) => last.push_str(more),
            (Some(Part::Gap { non_empty: true }), Part::Gap { non_empty: true }) => return false,
            (Some(Part::Gap { non_empty: last }), Part::Gap { non_empty: more }) => *last |= more,
            _ => self.parts.push(part.clone()),
        }
        true
    }

    /// Each literal is looked for as early as it can be; only the last one has its place fixed, at the end.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut rest = text.as_bytes();
        // What the gap before the part at hand allows: nothing, or at least this many bytes.
        let mut gap: Option<usize> = None;
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Gap { non_empty } => gap = Some(usize::from(*non_empty)),
                Part::Literal(literal) => {
                    let literal = literal.as_bytes();
                    let is_last = i + 1 == self.parts.len();
                    rest = match gap {
                        None => match rest.strip_prefix(literal) {
                            Some(after) => after,
                            None => return false,
                        },
                        Some(least) if is_last => {
                            return rest.len() >= least + literal.len() && rest.ends_with(literal);
                        }
                        Some(least) => {
                            let Some(from) = rest.get(least..) else { return false };
                            match memchr::memmem::find(from, literal) {
                                Some(at) => &from[at + literal.len()..],
                                None => return false,
                            }
                        }
                    };
                    gap = None;
                }
            }
        }
        match gap {
            None => rest.is_empty(),
            Some(least) => rest.len() >= least,
        }
    }
}

/// The expression without `^` in front and `$` behind, which say nothing in an anchored pattern.
fn strip_anchors(hir: &Hir) -> &[Hir] {
    let mut parts = match hir.kind() {
        HirKind::Concat(parts) => parts.as_slice(),
        _ => std::slice::from_ref(hir),
    };
    while let Some((first, rest)) = parts.split_first()
        && matches!(first.kind(), HirKind::Look(Look::Start))
    {
        parts = rest;
    }
    while let Some((last, rest)) = parts.split_last()
        && matches!(last.kind(), HirKind::Look(Look::End))
    {
        parts = rest;
    }
    parts
}

/// The alternatives of a sequence.
fn globs_of(parts: &[Hir]) -> Option<Vec<Glob>> {
    parts.iter().try_fold(vec![Glob::EMPTY], |globs, part| product(&globs, &globs_of_one(part)?))
}

fn globs_of_one(hir: &Hir) -> Option<Vec<Glob>> {
    let one = |part| Some(vec![Glob { parts: vec![part] }]);
    match hir.kind() {
        HirKind::Empty => Some(vec![Glob::EMPTY]),
        HirKind::Literal(literal) => one(Part::Literal(std::str::from_utf8(&literal.0).ok()?.to_owned())),
        HirKind::Class(Class::Unicode(class)) => {
            let count: u64 = class.iter().map(|r| u64::from(r.end() as u32 - r.start() as u32) + 1).sum();
            if count == 0 || count > SET_LEN_MAX as u64 {
                return None;
            }
            let chars = class.iter().flat_map(|r| r.start()..=r.end());
            Some(chars.map(|c| Glob { parts: vec![Part::Literal(c.into())] }).collect())
        }
        HirKind::Repetition(Repetition { min: 0 | 1, max: None, sub, .. }) if is_any_char(sub) => {
            one(Part::Gap { non_empty: hir.properties().minimum_len() != Some(0) })
        }
        HirKind::Repetition(Repetition { min: 0, max: Some(1), sub, .. }) => {
            let mut globs = globs_of_one(sub)?;
            globs.push(Glob::EMPTY);
            Some(globs)
        }
        HirKind::Repetition(Repetition { min, max: Some(max), sub, .. }) if min == max && *max <= 16 => {
            let sub = globs_of_one(sub)?;
            (0..*max).try_fold(vec![Glob::EMPTY], |globs, _| product(&globs, &sub))
        }
        HirKind::Capture(capture) => globs_of_one(&capture.sub),
        HirKind::Concat(parts) => globs_of(parts),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(globs_of_one(branch)?);
                if all.len() > SET_LEN_MAX {
                    return None;
                }
            }
            Some(all)
        }
        _ => None,
    }
}

fn product(left: &[Glob], right: &[Glob]) -> Option<Vec<Glob>> {
    if left.len() * right.len() > SET_LEN_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(left.len() * right.len());
    for a in left {
        for b in right {
            let mut glob = a.clone();
            if !b.parts.iter().all(|part| glob.push(part)) {
                return None;
            }
            out.push(glob);
        }
    }
    Some(out)
}

fn is_any_char(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX)
        }
        HirKind::Capture(capture) => is_any_char(&capture.sub),
        _ => false,
    }
}

/// A prefix that every match has.
pub(super) fn prefix(hir: &Hir) -> String {
    leading(hir).0
}

/// A prefix that every match has, and whether it is all there is to match.
fn leading(hir: &Hir) -> (String, bool) {
    let nothing = (String::new(), false);
    match hir.kind() {
        HirKind::Empty => (String::new(), true),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => (text.to_owned(), true),
            Err(_) => nothing,
        },
        // Only at the very start, where it says nothing in an anchored pattern.
        HirKind::Look(Look::Start) => (String::new(), true),
        HirKind::Capture(capture) => leading(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => (leading(&repetition.sub).0, false),
        HirKind::Concat(parts) => {
            let mut prefix = String::new();
            for part in parts {
                let (more, whole) = leading(part);
                prefix.push_str(&more);
                if !whole {
                    return (prefix, false);
                }
            }
            (prefix, true)
        }
        HirKind::Alternation(branches) => {
            let mut branches = branches.iter().map(|branch| leading(branch).0);
            let first = branches.next().unwrap_or_default();
            let common = branches.fold(first, |mut common, other| {
                let length = common
                    .char_indices()
                    .zip(other.chars())
                    .find(|((_, a), b)| a != b)
                    .map_or(common.len().min(other.len()), |((i, _), _)| i);
                common.truncate(length);
                common
            });
            (common, false)
        }
        _ => nothing,
    }
}
