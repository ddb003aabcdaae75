//! Series by the keys that a decoder calls them by, see [`chronolith_model::write::LabelDictionary`].
//!
//! A key says which label set a series has, as the fingerprint does; the table only spares rendering and hashing the
//! section. Neither can go stale: whether the head still has the series is asked of its shard afterwards. A key is entered
//! when its section was rendered, checked and hashed. In memory only: keys are of this process.
//!
//! What has not been asked for since the last but one cut is forgotten.

use hashbrown::HashTable;

use super::section::Fingerprint;

/// 32 bytes a series, beside the table's own.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u128,
    fp: Fingerprint,
}

/// The table of one head.
#[derive(Debug, Default)]
pub(crate) struct Known {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Found(Fingerprint),
    /// Found, and to be entered again lest it be forgotten.
    Old(Fingerprint),
    Unknown,
}

/// Keys are sums of hashes already.
fn hash(key: u128) -> u64 {
    key as u64
}

impl Known {
    #[inline]
    pub(crate) fn find(&self, key: u128) -> Lookup {
        if let Some(entry) = self.young.find(hash(key), |e| e.key == key) {
            return Lookup::Found(entry.fp);
        }
        self.find_old(key)
    }

    #[cold]
    fn find_old(&self, key: u128) -> Lookup {
        self.old.find(hash(key), |e| e.key == key).map_or(Lookup::Unknown, |e| Lookup::Old(e.fp))
    }

    /// Enters keys. `series` is how many the head has: one series has one key unless senders spell empty labels, so twice
    /// as many means that most belong to series that are gone or were refused.
    pub(crate) fn enter(&mut self, keys: impl IntoIterator<Item = (u128, Fingerprint)>, series: usize) {
        const KEYS_MIN: usize = 4096;
        for (key, fp) in keys {
            if self.young.len() >= (2 * series).max(KEYS_MIN) {
                self.age();
            }
            let same = |e: &Entry| e.key == key;
            if self.young.find(hash(key), same).is_none() {
                self.young.insert_unique(hash(key), Entry { key, fp }, |e| hash(e.key));
            }
        }
    }

    /// Forgets what was old, and calls the rest old.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp(n: u64) -> Fingerprint {
        Fingerprint { low: n, high: !n }
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let mut known = Known::default();
        // Keys with the same low half share a bucket and nothing else.
        let keys: Vec<u128> = (0..100).map(|i| (u128::from(i as u64 / 4) << 64) | (i % 4)).collect();
        known.enter(keys.iter().enumerate().map(|(i, k)| (*k, fp(i as u64))), 100);
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(known.find(*key), Lookup::Found(fp(i as u64)));
        }
        assert_eq!(known.find(1 << 100), Lookup::Unknown);
        known.age();
        assert_eq!(known.find(keys[3]), Lookup::Old(fp(3)));
        known.enter([(keys[3], fp(3))], 100);
        known.age();
        assert_eq!((known.find(keys[3]), known.find(keys[4])), (Lookup::Old(fp(3)), Lookup::Unknown));
    }

    #[test]
    fn the_table_is_bounded_by_the_heads_series() {
        let mut known = Known::default();
        known.enter((0..100_000u128).map(|k| (k * 0x9E37_79B9_7F4A_7C15, fp(1))), 10);
        assert!(known.young.len() + known.old.len() <= 2 * 4096);
    }
}
