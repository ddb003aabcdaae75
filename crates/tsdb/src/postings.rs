//! Postings: sorted, unique lists of series references, and the way from matchers to one such list.
//!
//! [`Plan`] turns matchers into look-ups without touching any source, so that a source that must fetch lists first
//! (a bucket) knows what to fetch; [`resolve_matchers`] runs a plan over a source that answers at once (head, block).
//!
//! The rule behind every shortcut: a series matches when each matcher accepts its value of that label, the empty
//! string if it has none. So a matcher that refuses the empty string *intersects* with the union of the accepted
//! values' lists; one that accepts it *subtracts* the union of the refused values' lists.

use std::borrow::Cow;

use chronolith_model::{MatchOp, Matcher, SeriesRef};

/// A series reference as a postings list holds it.
pub trait PostingRef: Copy + Ord + Send + Sync + 'static {
    /// As a number.
    fn to_u64(self) -> u64;
    /// Back from a number that [`PostingRef::to_u64`] gave.
    fn from_u64(n: u64) -> Self;
}

impl PostingRef for u32 {
    fn to_u64(self) -> u64 {
        u64::from(self)
    }
    fn from_u64(n: u64) -> Self {
        n as u32
    }
}

impl PostingRef for u64 {
    fn to_u64(self) -> u64 {
        self
    }
    fn from_u64(n: u64) -> Self {
        n
    }
}

impl PostingRef for SeriesRef {
    fn to_u64(self) -> u64 {
        self.0
    }
    fn from_u64(n: u64) -> Self {
        SeriesRef(n)
    }
}

/// One list, borrowed from its source where it can be.
pub type Postings<'a, R> = Cow<'a, [R]>;

/// An inverted index that answers at once. Lists are ascending and unique.
pub trait PostingsSource {
    /// The source's series reference.
    type Ref: PostingRef;
    /// Why it may fail.
    type Error;

    /// All series.
    fn all(&self) -> Result<Postings<'_, Self::Ref>, Self::Error>;

    /// The series with a label pair; empty when there are none.
    fn postings(&self, name: &str, value: &str) -> Result<Postings<'_, Self::Ref>, Self::Error>;

    /// The lists of those values of `name` that begin with `prefix` and that `keep` accepts, in any order.
    fn postings_matching(
        &self,
        name: &str,
        prefix: &str,
        keep: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Postings<'_, Self::Ref>>, Self::Error>;
}

/// What has to be looked up for one matcher. Values are never empty strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup<'m> {
    /// The lists of these values.
    Values(Vec<&'m str>),
    /// The lists of all values of the name.
    AnyValue,
    /// The lists of the values with `prefix` for which `matcher.matches(value) == accept`.
    Scan {
        /// The predicate.
        matcher: &'m Matcher,
        /// Which answer selects a value.
        accept: bool,
        /// Every selected value begins with it.
        prefix: &'m str,
    },
}

impl Lookup<'_> {
    /// True when a value of the name is selected.
    pub fn selects(&self, value: &str) -> bool {
        match self {
            Lookup::Values(values) => values.contains(&value),
            Lookup::AnyValue => true,
            Lookup::Scan { matcher, accept, prefix } => {
                value.starts_with(prefix) && matcher.matches(value) == *accept
            }
        }
    }

    /// Cheap ones first: an empty intersection ends the work.
    fn cost(&self) -> usize {
        match self {
            Lookup::Values(values) => values.len(),
            Lookup::Scan { prefix, .. } if !prefix.is_empty() => usize::MAX - 2,
            Lookup::AnyValue => usize::MAX - 1,
            Lookup::Scan { .. } => usize::MAX,
        }
    }
}

/// The union of some lists of one label name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'m> {
    /// Label name.
    pub name: &'m str,
    /// Which of its values.
    pub lookup: Lookup<'m>,
}

/// What a set of matchers asks of an inverted index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan<'m> {
    /// No series can match.
    pub nothing: bool,
    /// A series must be in each of these; when there are none, start from all series. Cheap ones first.
    pub intersect: Vec<Group<'m>>,
    /// A series must be in none of these.
    pub subtract: Vec<Group<'m>>,
}

impl<'m> Plan<'m> {
    /// Sorts matchers into look-ups.
    pub fn new(matchers: &'m [Matcher]) -> Plan<'m> {
        let mut plan = Plan::default();
        for m in matchers {
            // A name set by another matcher may let this one intersect (usually the smaller side).
            let must_be_set = !m.matches_empty()
                || matchers.iter().any(|other| other.name == m.name && !other.matches_empty());
            plan.add(m, must_be_set);
        }
        plan.intersect.sort_by_key(|g| g.lookup.cost());
        plan
    }

    fn add(&mut self, m: &'m Matcher, must_be_set: bool) {
        let positive = matches!(m.op, MatchOp::Equal | MatchOp::Regex);
        // `.*` in both signs: nothing to look up.
        if matches!(m.op, MatchOp::Regex | MatchOp::NotRegex) && m.value == ".*" {
            self.nothing |= !positive;
            return;
        }
        if m.name.is_empty() {
            // No series has a label with an empty name, so its value is the empty string.
            self.nothing |= !m.matches_empty();
            return;
        }
        // `a=~"b|"` beside `a!=""` can intersect; `a!="b"` is better subtracted even then.
        let intersect = !m.matches_empty() || (must_be_set && positive);
        let lookup = match values_of(m) {
            // The listed values are the accepted ones of a positive matcher, the refused ones of a negative one.
            Some(values) if positive == intersect => Lookup::Values(values),
            Some(values) if values.is_empty() => Lookup::AnyValue,
            _ if m.value == ".+" => Lookup::AnyValue,
            _ => {
                // A prefix is a property of the strings that match the pattern.
                let prefix = if positive == intersect { m.regex().map_or("", |r| r.prefix()) } else { "" };
                Lookup::Scan { matcher: m, accept: intersect, prefix }
            }
        };
        let group = Group { name: &m.name, lookup };
        if intersect { self.intersect.push(group) } else { self.subtract.push(group) }
    }
}

/// The non-empty strings that a matcher's pattern (signs aside) accepts, when they are few and known.
fn values_of(m: &Matcher) -> Option<Vec<&str>> {
    let mut values: Vec<&str> = match m.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&m.value],
        MatchOp::Regex | MatchOp::NotRegex => m.regex()?.set_matches()?.iter().map(String::as_str).collect(),
    };
    values.retain(|v| !v.is_empty());
    values.sort_unstable();
    values.dedup();
    Some(values)
}

/// The series of `source` that satisfy all matchers, ascending: Prometheus's `PostingsForMatchers`. No matchers
/// select all series.
pub fn resolve_matchers<S: PostingsSource + ?Sized>(
    source: &S,
    matchers: &[Matcher],
) -> Result<Vec<S::Ref>, S::Error> {
    let plan = Plan::new(matchers);
    if plan.nothing {
        return Ok(Vec::new());
    }
    let mut lists = Vec::with_capacity(plan.intersect.len());
    for group in &plan.intersect {
        let list = group_list(source, group)?;
        if list.is_empty() {
            return Ok(Vec::new());
        }
        lists.push(list);
    }
    // The shortest leads: only it is copied, and the others are galloped through.
    lists.sort_by_key(|list| list.len());
    let mut lists = lists.into_iter();
    let mut result = match lists.next() {
        Some(list) => list.into_owned(),
        None => source.all()?.into_owned(),
    };
    for list in lists {
        intersect(&mut result, &list);
    }
    for group in &plan.subtract {
        if result.is_empty() {
            break;
        }
        subtract(&mut result, &group_list(source, group)?);
    }
    Ok(result)
}

fn group_list<'s, S: PostingsSource + ?Sized>(
    source: &'s S,
    group: &Group<'_>,
) -> Result<Postings<'s, S::Ref>, S::Error> {
    let mut lists = match &group.lookup {
        Lookup::Values(values) => {
            values.iter().map(|value| source.postings(group.name, value)).collect::<Result<Vec<_>, _>>()?
        }
        Lookup::AnyValue => source.postings_matching(group.name, "", &mut |_| true)?,
        Lookup::Scan { matcher, accept, prefix } => {
            source.postings_matching(group.name, prefix, &mut |v| matcher.matches(v) == *accept)?
        }
    };
    match lists.len() {
        0 => Ok(Cow::Owned(Vec::new())),
        1 => Ok(lists.pop().expect("one list")),
        _ => Ok(Cow::Owned(union(&lists))),
    }
}

/// Keeps in `a` what is in `b` too.
pub fn intersect<R: PostingRef>(a: &mut Vec<R>, b: &[R]) {
    if b.len() * GALLOP_RATIO < a.len() {
        let mut rest = &a[..];
        let kept: Vec<R> = b.iter().copied().filter(|x| advance(&mut rest, *x)).collect();
        *a = kept;
        return;
    }
    let mut rest = b;
    a.retain(|x| advance(&mut rest, *x));
}

/// Removes from `a` what is in `b`.
pub fn subtract<R: PostingRef>(a: &mut Vec<R>, b: &[R]) {
    let mut rest = b;
    a.retain(|x| !advance(&mut rest, *x));
}

/// How much longer the other list must be before the roles are swapped so that the short one leads.
const GALLOP_RATIO: usize = 4;

/// Drops what is below `target` from `rest` by galloping; true when `target` is then its first.
#[inline]
fn advance<R: PostingRef>(rest: &mut &[R], target: R) -> bool {
    let list = *rest;
    let mut step = 1;
    let mut below = 0;
    while below + step <= list.len() && list[below + step - 1] < target {
        below += step;
        step *= 2;
    }
    // The first not below target is in [below, below + step).
    let end = (below + step).min(list.len());
    let first = below + list[below..end].partition_point(|x| *x < target);
    *rest = &list[first..];
    rest.first() == Some(&target)
}

/// What is in any of the lists.
pub fn union<R: PostingRef, L: AsRef<[R]>>(lists: &[L]) -> Vec<R> {
    let total: usize = lists.iter().map(|l| l.as_ref().len()).sum();
    let firsts = lists.iter().filter_map(|l| l.as_ref().first());
    let lasts = lists.iter().filter_map(|l| l.as_ref().last());
    let (Some(first), Some(last)) = (firsts.min(), lasts.max()) else { return Vec::new() };
    let (first, last) = (first.to_u64(), last.to_u64());
    // References of one index are dense (a series has a few times 16 bytes), so a bitmap of their span is small
    // and linear to fill and read; sorting is for lists that are few and far apart.
    if last.saturating_sub(first) / BITMAP_SPREAD <= total as u64 && first <= last {
        return union_by_bitmap(lists, first, last, total);
    }
    let mut out = Vec::with_capacity(total);
    for list in lists {
        out.extend_from_slice(list.as_ref());
    }
    // The stable sort finds the ascending runs and merges them.
    out.sort();
    out.dedup();
    out
}

/// Up to so many positions for each reference the bitmap is not larger than the references themselves.
const BITMAP_SPREAD: u64 = 64;

fn union_by_bitmap<R: PostingRef, L: AsRef<[R]>>(lists: &[L], first: u64, last: u64, total: usize) -> Vec<R> {
    let mut words = vec![0u64; ((last - first) / 64 + 1) as usize];
    for list in lists {
        for r in list.as_ref() {
            // An unsorted list out of a damaged file may hold anything: what is outside is dropped.
            let at = r.to_u64().wrapping_sub(first);
            if let Some(word) = words.get_mut((at / 64) as usize) {
                *word |= 1 << (at % 64);
            }
        }
    }
    let mut out = Vec::with_capacity(total);
    for (i, mut word) in words.into_iter().enumerate() {
        while word != 0 {
            out.push(R::from_u64(first + i as u64 * 64 + u64::from(word.trailing_zeros())));
            word &= word - 1;
        }
    }
    out
}

#[cfg(test)]
mod tests;
