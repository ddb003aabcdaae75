//! What label sets are called by the decoders of one process.
//!
//! A label's hash is the product of an odd number made of its name and a number made of its value, and a set's key is the sum
//! of its labels' hashes, all of 128 bits. Names and values are hashed with secrets of their own: with one for both, `a="b"`
//! and `b="a"` were the same label. For whoever does not know the secrets, the numbers are random, and two sets that
//! differ share a key with a chance of about 2^-121 (the product by an odd number loses nothing; sums of odd numbers may be
//! even).

use rand::Rng;
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Bytes of a hash's secret; xxh3 asks for at least 136.
const SECRET_BYTES: usize = 192;

/// The secrets. They are random and never leave the process, so that nobody outside can make the keys of two series equal.
#[derive(Debug)]
pub struct LabelKey {
    texts: Box<[u8; SECRET_BYTES]>,
    names: Box<[u8; SECRET_BYTES]>,
}

impl Default for LabelKey {
    fn default() -> Self {
        let secret = || {
            let mut secret = Box::new([0; SECRET_BYTES]);
            rand::rng().fill_bytes(&mut secret[..]);
            secret
        };
        LabelKey { texts: secret(), names: secret() }
    }
}

impl LabelKey {
    /// The keyed hash of these bytes; of a label's value.
    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &self.texts[..])
    }

    /// The odd number of a label's name.
    #[inline]
    pub(super) fn name(&self, name: &[u8]) -> u128 {
        xxh3_128_with_secret(name, &self.names[..]) | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_name_and_what_a_value_matters() {
        let key = LabelKey::default();
        let set = |pairs: &[(&str, &str)]| {
            let label = |(n, v): &(&str, &str)| key.name(n.as_bytes()).wrapping_mul(key.hash(v.as_bytes()));
            pairs.iter().map(label).fold(0, u128::wrapping_add)
        };
        assert_ne!(set(&[("a", "b")]), set(&[("b", "a")]));
        let (forward, back) = ([("a", "b"), ("b", "c"), ("c", "a")], [("b", "a"), ("c", "b"), ("a", "c")]);
        assert_ne!(set(&forward), set(&back));
        assert_ne!(set(&[("a", "x"), ("b", "y")]), set(&[("a", "y"), ("b", "x")]));
        assert_eq!(set(&[("a", "x"), ("b", "y")]), set(&[("b", "y"), ("a", "x")]));
        assert_ne!(LabelKey::default().hash(b"a"), key.hash(b"a"), "a secret of each process");
    }
}
