//! Label sections of a write: validation, canonical form, fingerprint.
//!
//! The canonical form (see `chronolith_model::write`) gives a label set exactly one byte string, so a keyed 128-bit
//! hash of the bytes is the identity of the series. Senders that follow the remote-write specification send it, and
//! a hit needs no parsing. Everything else is brought into that form first.

use chronolith_model::METRIC_NAME;
use chronolith_model::write::{decode_labels, encode_labels};
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::outcome::RejectReason;
use crate::db::Limits;

/// Bytes of the hash's secret; xxh3 asks for at least 136.
pub(crate) const KEY_BYTES: usize = 192;

/// The key of all fingerprints of one data directory. It is random, so that nobody outside can make series collide.
#[derive(Clone)]
pub(crate) struct Key(pub(crate) Box<[u8; KEY_BYTES]>);

/// The identity of a series: the keyed hash of its canonical label section.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fingerprint {
    /// The part that chooses the bucket of a shard's table.
    pub(crate) low: u64,
    /// The part that chooses the shard.
    pub(crate) high: u64,
}

impl Key {
    #[inline]
    pub(crate) fn fingerprint(&self, section: &[u8]) -> Fingerprint {
        let h = xxh3_128_with_secret(section, &self.0[..]);
        Fingerprint { low: h as u64, high: (h >> 64) as u64 }
    }
}

/// Checks a section and appends its canonical form to `out`.
pub(crate) fn canonicalise(section: &[u8], limits: &Limits, out: &mut Vec<u8>) -> Result<(), RejectReason> {
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(16);
    for pair in decode_labels(section) {
        let (name, value) = pair.map_err(|e| RejectReason::MalformedLabels(e.to_string()))?;
        if value.is_empty() {
            continue;
        }
        if name.is_empty() {
            return Err(RejectReason::EmptyLabelName);
        }
        let too_long = if name.len() > limits.label_name_bytes_max { name.len() } else { value.len() };
        if name.len() > limits.label_name_bytes_max || value.len() > limits.label_value_bytes_max {
            return Err(RejectReason::LabelTooLong { name: cut(name, 64), bytes: too_long });
        }
        if pairs.len() >= limits.labels_max {
            return Err(RejectReason::TooManyLabels(decode_labels(section).count()));
        }
        pairs.push((name, value));
    }
    if !pairs.is_sorted() {
        pairs.sort_unstable();
    }
    if let Some(w) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        return Err(RejectReason::DuplicateLabel(w[0].0.to_owned()));
    }
    if !pairs.iter().any(|(n, _)| *n == METRIC_NAME) {
        return Err(RejectReason::MissingMetricName);
    }
    encode_labels(pairs, out);
    Ok(())
}

/// A section as text for a message, cut to a bounded length.
pub(crate) fn describe(section: &[u8]) -> String {
    const BYTES_MAX: usize = 512;
    let mut out = String::from("{");
    for (i, pair) in decode_labels(section).enumerate() {
        if out.len() > BYTES_MAX {
            out.push('…');
            break;
        }
        if i > 0 {
            out.push_str(", ");
        }
        match pair {
            Ok((name, value)) => {
                out.push_str(&format!("{}={:?}", cut(name, 128), cut(value, 128)));
            }
            Err(_) => out.push_str("<unreadable>"),
        }
    }
    out.push('}');
    out
}

fn cut(text: &str, bytes_max: usize) -> String {
    match text.char_indices().find(|(i, c)| i + c.len_utf8() > bytes_max) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_labels(pairs.iter().copied(), &mut out);
        out
    }

    fn canonical(pairs: &[(&str, &str)]) -> Result<Vec<u8>, RejectReason> {
        let mut out = Vec::new();
        canonicalise(&section(pairs), &Limits::default(), &mut out).map(|()| out)
    }

    #[test]
    fn sections_are_sorted_and_checked() {
        let want = section(&[("__name__", "up"), ("a", "1")]);
        assert_eq!(canonical(&[("__name__", "up"), ("a", "1")]).unwrap(), want);
        assert_eq!(canonical(&[("a", "1"), ("z", ""), ("__name__", "up")]).unwrap(), want);
        let long = "x".repeat(70_000);
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("a", "1")], "missing_metric_name"),
            (&[("__name__", "")], "missing_metric_name"),
            (&[("__name__", "up"), ("a", "1"), ("a", "2")], "duplicate_label"),
            (&[("__name__", "up"), ("", "2")], "empty_label_name"),
            (&[("__name__", "up"), ("a", &long)], "label_too_long"),
        ];
        for (pairs, kind) in cases {
            assert_eq!(canonical(pairs).unwrap_err().kind(), kind);
        }
        let mut out = Vec::new();
        let bad = canonicalise(&[0x0A, 0xFF], &Limits::default(), &mut out).unwrap_err();
        assert_eq!(bad.kind(), "malformed_labels");
        assert!(describe(&section(&[("a", &long)])).len() < 1024);
    }
}
