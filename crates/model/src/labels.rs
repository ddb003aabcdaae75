//! Label sets.
//!
//! A label set is one immutable, reference-counted buffer:
//!
//! ```text
//! ┌────────────┬──────┬─────────────┬───────┬───
//! │ name len 3B│ name │ value len 3B│ value │ …      sorted by name, names unique
//! └────────────┴──────┴─────────────┴───────┴───
//! ```
//!
//! A length is three 7-bit groups, least significant first, so that every length byte is ASCII and the whole
//! buffer is valid UTF-8: names and values are sliced out of it without a check and without `unsafe`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The label that carries a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Bytes of one encoded length.
const LEN_BYTES: usize = 3;

/// An immutable label set, sorted by name bytewise, names unique, no empty values.
///
/// Ordering is Prometheus's `labels.Compare`: pairwise name, then value, bytewise; a prefix is smaller.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<str>);

/// Why a label set was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// The same name stands twice.
    #[error("duplicate label name {0:?}")]
    Duplicate(String),
    /// A name or value is longer than [`Labels::PART_BYTES_MAX`].
    #[error("label {name:?} has a part of {bytes} bytes, more than {max}", max = Labels::PART_BYTES_MAX)]
    TooLong {
        /// The label's name, cut to 64 bytes.
        name: String,
        /// Length of the offending part.
        bytes: usize,
    },
}

impl Labels {
    /// The longest name or value that fits a length field (2 MiB − 1).
    pub const PART_BYTES_MAX: usize = (1 << 21) - 1;

    /// The empty label set.
    pub fn empty() -> Self {
        thread_local!(static EMPTY: Labels = Labels(Arc::from("")));
        EMPTY.with(Clone::clone)
    }

    /// Builds a set from pairs in any order. Pairs with an empty value are left out, as an empty value means
    /// "no such label" everywhere in Prometheus.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelsError>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.add(name.as_ref(), value.as_ref());
        }
        builder.try_build()
    }

    /// As [`Labels::from_pairs`] for pairs that are known to be sorted, unique, non-empty and short enough.
    ///
    /// # Panics
    /// In debug builds, when they are not.
    pub fn from_sorted<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let bytes = pairs.clone().map(|(n, v)| n.len() + v.len() + 2 * LEN_BYTES).sum();
        let mut buf = String::with_capacity(bytes);
        let mut last: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(last.is_none_or(|l| l < name), "labels are sorted and unique");
            last = Some(name);
            push_part(&mut buf, name);
            push_part(&mut buf, value);
        }
        if buf.is_empty() { Labels::empty() } else { Labels(Arc::from(buf)) }
    }

    /// Appends one pair to `buf` as a set holds it, for [`Labels::from_encoded_pairs`].
    pub fn encode_pair(name: &str, value: &str, buf: &mut String) {
        push_part(buf, name);
        push_part(buf, value);
    }

    /// The set of the pairs that [`Labels::encode_pair`] wrote into `encoded`, sorted, unique and without empty values.
    /// Whoever builds many sets of the same pairs encodes each pair once.
    ///
    /// # Panics
    /// In debug builds, when they are not.
    pub fn from_encoded_pairs(encoded: &str) -> Self {
        if encoded.is_empty() {
            return Labels::empty();
        }
        let labels = Labels(Arc::from(encoded));
        debug_assert!(labels.iter().zip(labels.iter().skip(1)).all(|(a, b)| a.0 < b.0), "sorted and unique");
        labels
    }

    /// The pairs in name order.
    #[inline]
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.0 }
    }

    /// The value of `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, v) in self.iter() {
            match n.as_bytes().cmp(name.as_bytes()) {
                Ordering::Less => {}
                Ordering::Equal => return Some(v),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The metric name, if there is one.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True for the empty set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of the buffer, for accounting.
    pub fn encoded_len(&self) -> usize {
        self.0.len()
    }

    /// The encoded buffer: injective, so it can serve as a map key; its byte order is *not* the label order.
    pub fn as_encoded(&self) -> &str {
        &self.0
    }

    /// A set of the labels for which `keep` says yes.
    pub fn filter(&self, mut keep: impl FnMut(&str, &str) -> bool) -> Self {
        let mut buf = String::with_capacity(self.0.len());
        for (name, value) in self.iter() {
            if keep(name, value) {
                push_part(&mut buf, name);
                push_part(&mut buf, value);
            }
        }
        if buf.len() == self.0.len() {
            self.clone()
        } else if buf.is_empty() {
            Labels::empty()
        } else {
            Labels(Arc::from(buf))
        }
    }

    /// This set with `over` put over it: where both have a label, `over` wins. Copies encoded labels as they are, so it
    /// costs one comparison of names a label.
    pub fn overlay(&self, over: &Labels) -> Self {
        let (mut own, mut rest) = (&*self.0, &*over.0);
        let mut buf = String::with_capacity(own.len() + rest.len());
        while !own.is_empty() && !rest.is_empty() {
            let (name, label, tail) = split_label(own);
            let (over_name, over_label, over_tail) = split_label(rest);
            match name.cmp(over_name) {
                Ordering::Less => {
                    buf.push_str(label);
                    own = tail;
                }
                Ordering::Equal => own = tail,
                Ordering::Greater => {
                    buf.push_str(over_label);
                    rest = over_tail;
                }
            }
        }
        buf.push_str(own);
        buf.push_str(rest);
        if buf.is_empty() { Labels::empty() } else { Labels(Arc::from(buf)) }
    }

    /// This set without the label `name`.
    pub fn without(&self, name: &str) -> Self {
        self.filter(|n, _| n != name)
    }

    /// This set with the given labels set or, where the value is empty, removed.
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut builder = LabelsBuilder::from(self);
        for (name, value) in changes {
            builder.set(name, value);
        }
        builder.build()
    }

    /// `labels.Labels.Hash` of Prometheus as it is released (its build `stringlabels`): xxhash64 over names and values, each
    /// after its length, in one byte below 255, else in 0xFF and three bytes.
    pub fn length_prefixed_hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh64::Xxh64::new(0);
        for (name, value) in self.iter() {
            for part in [name, value] {
                let [a, b, c, ..] = (part.len() as u32).to_le_bytes();
                if part.len() < 255 {
                    hasher.update(&[a]);
                } else {
                    hasher.update(&[255, a, b, c]);
                }
                hasher.update(part.as_bytes());
            }
        }
        hasher.digest()
    }

    /// `labels.Labels.Hash` of Prometheus's build `slicelabels`: xxhash64 over `name 0xFF value 0xFF …`.
    pub fn stable_hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh64::Xxh64::new(0);
        for (name, value) in self.iter() {
            hasher.update(name.as_bytes());
            hasher.update(&[0xFF]);
            hasher.update(value.as_bytes());
            hasher.update(&[0xFF]);
        }
        hasher.digest()
    }
}

fn push_part(buf: &mut String, part: &str) {
    let len = part.len();
    debug_assert!(len <= Labels::PART_BYTES_MAX, "label part fits its length field");
    for shift in [0, 7, 14] {
        buf.push(char::from(((len >> shift) & 0x7F) as u8));
    }
    buf.push_str(part);
}

#[inline]
fn part_len(b: &[u8]) -> usize {
    usize::from(b[0]) | usize::from(b[1]) << 7 | usize::from(b[2]) << 14
}

#[inline]
fn take_part(rest: &str) -> (&str, &str) {
    rest[LEN_BYTES..].split_at(part_len(rest.as_bytes()))
}

/// The first label of a buffer: its name, all its bytes, and what comes behind.
#[inline]
fn split_label(buf: &str) -> (&str, &str, &str) {
    let (name, rest) = take_part(buf);
    let (_, rest) = take_part(rest);
    let (label, rest) = buf.split_at(buf.len() - rest.len());
    (name, label, rest)
}

/// Iterator over `(name, value)`.
#[derive(Clone, Debug)]
pub struct LabelsIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = take_part(self.rest);
        let (value, rest) = take_part(rest);
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;

    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let at = common_prefix(a, b);
        if at == a.len().min(b.len()) {
            // The shorter buffer ends where a label ends, so it has the same labels and fewer.
            return a.len().cmp(&b.len());
        }
        // Up to `at` both have the same parts; the part that holds `at` decides.
        let mut part = 0;
        loop {
            let text = part + LEN_BYTES;
            let end = text + part_len(&a[part..]);
            if at < text {
                // The lengths differ, so one text may begin with the other.
                let other_end = text + part_len(&b[part..]);
                return a[text..end].cmp(&b[text..other_end]);
            }
            if at < end {
                return a[at].cmp(&b[at]);
            }
            part = end;
        }
    }
}

/// Number of bytes that two buffers share at their start, sixteen at a time: the labels of neighbours in a merge are
/// alike for a hundred bytes and more.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STRIDE: usize = 16;
    let strides = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE)).take_while(|(x, y)| x == y).count();
    let from = strides * STRIDE;
    from + a[from..].iter().zip(&b[from..]).take_while(|(x, y)| x == y).count()
}

/// `{__name__="up", job="x"}`, values quoted as Go's `%q` does, names quoted only where they must be.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                write!(f, "{name}={value:?}")?;
            } else {
                write!(f, "{name:?}={value:?}")?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// True for a name that needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Collects labels in any order and builds a [`Labels`].
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// An empty builder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair without looking for an earlier one of the same name; [`LabelsBuilder::try_build`] reports a
    /// double.
    pub fn add(&mut self, name: &str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.pairs.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sets a label, replacing an earlier value; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.remove(name);
        self.add(name, value)
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.pairs.retain(|(n, _)| n != name);
        self
    }

    /// The current value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Builds the set. Errors: a double name, an over-long part.
    pub fn try_build(mut self) -> Result<Labels, LabelsError> {
        self.pairs.sort_unstable();
        if let Some(w) = self.pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(LabelsError::Duplicate(w[0].0.clone()));
        }
        if let Some((n, v)) = self.pairs.iter().find(|(n, v)| n.len().max(v.len()) > Labels::PART_BYTES_MAX) {
            let cut = n.char_indices().take_while(|(i, _)| *i < 64).map(|(_, c)| c).collect();
            return Err(LabelsError::TooLong { name: cut, bytes: n.len().max(v.len()) });
        }
        Ok(Labels::from_sorted(self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
    }

    /// Builds the set from labels that came from other [`Labels`] and so are known to fit.
    ///
    /// # Panics
    /// When a name stands twice or a part is over-long.
    pub fn build(self) -> Labels {
        self.try_build().expect("labels set one by one from checked parts are unique and short")
    }
}

impl From<&Labels> for LabelsBuilder {
    fn from(labels: &Labels) -> Self {
        LabelsBuilder { pairs: labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn sorts_looks_up_and_drops_empty_values() {
        let l = labels(&[("job", "x"), ("__name__", "up"), ("gone", "")]);
        assert_eq!(l.iter().collect::<Vec<_>>(), [("__name__", "up"), ("job", "x")]);
        assert_eq!((l.get("job"), l.get("gone"), l.metric_name()), (Some("x"), None, Some("up")));
        assert_eq!(l.to_string(), r#"{__name__="up", job="x"}"#);
    }

    #[test]
    fn order_is_pairwise_not_by_buffer() {
        // By buffer the longer value would come later because of its length bytes.
        assert!(labels(&[("a", "bbb")]) < labels(&[("a", "c")]));
        assert!(labels(&[("a", "b")]) < labels(&[("a", "b"), ("c", "d")]));
        assert!(labels(&[("a", "b"), ("z", "1")]) < labels(&[("b", "a")]));
    }

    #[test]
    fn order_is_that_of_the_pairs_for_all_small_sets() {
        let parts = ["a", "ab", "b", "abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyy", "é"];
        let mut sets = vec![Labels::empty()];
        for n in parts {
            for v in parts {
                sets.push(labels(&[(n, v)]));
                sets.extend(parts.iter().filter(|m| **m != n).map(|m| labels(&[(n, v), (m, "x")])));
            }
        }
        for x in &sets {
            for y in &sets {
                let pairs =
                    |l: &Labels| l.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<Vec<_>>();
                assert_eq!(x.cmp(y), pairs(x).cmp(&pairs(y)), "{x} and {y}");
            }
        }
    }

    #[test]
    fn an_overlay_wins() {
        let own = labels(&[("b", "own"), ("d", "own"), ("f", "own")]);
        for over in [
            &[][..],
            &[("a", "1")],
            &[("d", "1")],
            &[("g", "1")],
            &[("a", "1"), ("b", "2"), ("e", "3"), ("z", "4")],
        ] {
            let over = labels(over);
            let mut builder = LabelsBuilder::from(&own);
            for (n, v) in &over {
                builder.set(n, v);
            }
            assert_eq!(own.overlay(&over), builder.build());
        }
        assert_eq!(Labels::empty().overlay(&own), own);
    }

    #[test]
    fn long_parts_keep_their_length() {
        let long = "é".repeat(100_000);
        let l = labels(&[("a", &long), ("b", "x")]);
        assert_eq!(l.get("a"), Some(long.as_str()));
        assert_eq!(l.get("b"), Some("x"));
        let too_long = "x".repeat(Labels::PART_BYTES_MAX + 1);
        assert!(matches!(Labels::from_pairs([("a", too_long)]), Err(LabelsError::TooLong { .. })));
    }

    #[test]
    fn sets_of_encoded_pairs_equal_those_of_strings() {
        let mut buf = String::new();
        for (name, value) in [("__name__", "up"), ("job", "é")] {
            Labels::encode_pair(name, value, &mut buf);
        }
        assert_eq!(Labels::from_encoded_pairs(&buf), labels(&[("job", "é"), ("__name__", "up")]));
        assert_eq!(Labels::from_encoded_pairs(""), Labels::empty());
    }

    #[test]
    fn doubles_are_named() {
        assert_eq!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(LabelsError::Duplicate("a".to_owned())));
    }
}
