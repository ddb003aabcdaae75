//! Series by the keys that a decoder calls them by, see [`chronolith_model::write::LabelDictionary`].
//!
//! A key says which label set a series has, as the fingerprint does; the table only spares rendering and hashing the
//! section. Neither can go stale: whether the head still has the series is asked of its shard afterwards. A key is entered
//! when its section was rendered, checked and hashed. In memory only: keys are of this process.
//!
//! What has not been asked for since the last but one cut is forgotten.

use super::section::Fingerprint;

/// 32 bytes a series; of a free one the key is 0, which no series has but by a chance of 2^-128, and then it is rendered.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u128,
    fp: Fingerprint,
}

/// Open addressing with linear probing: a look-up touches one line of memory, and look-ups do not wait for each other.
#[derive(Debug, Default)]
struct Table {
    /// A power of two, or none.
    entries: Vec<Entry>,
    len: usize,
}

impl Table {
    #[inline]
    fn find(&self, key: u128) -> Option<Fingerprint> {
        if key == 0 || self.entries.is_empty() {
            return None;
        }
        let mask = self.entries.len() - 1;
        // Keys are sums of hashes already.
        let mut at = key as usize & mask;
        loop {
            let entry = &self.entries[at];
            if entry.key == key {
                return Some(entry.fp);
            }
            if entry.key == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, entry: Entry) {
        // At most three quarters full: there is always a free entry to end at.
        if self.len * 4 >= self.entries.len() * 3 {
            let grown = vec![Entry::default(); (self.entries.len() * 2).max(64)];
            let held = std::mem::replace(&mut self.entries, grown);
            held.into_iter().filter(|e| e.key != 0).for_each(|e| _ = self.put(e));
        }
        self.len += usize::from(self.put(entry));
    }

    /// False when the key was there.
    fn put(&mut self, entry: Entry) -> bool {
        let mask = self.entries.len() - 1;
        let mut at = entry.key as usize & mask;
        while self.entries[at].key != 0 {
            if self.entries[at].key == entry.key {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
        true
    }
}

/// The table of one head.
#[derive(Debug, Default)]
pub(crate) struct Known {
    young: Table,
    old: Table,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Found(Fingerprint),
    /// Found, and to be entered again lest it be forgotten.
    Old(Fingerprint),
    Unknown,
}

impl Known {
    #[inline]
    pub(crate) fn find(&self, key: u128) -> Lookup {
        match self.young.find(key) {
            Some(fp) => Lookup::Found(fp),
            None => self.find_old(key),
        }
    }

    #[cold]
    fn find_old(&self, key: u128) -> Lookup {
        self.old.find(key).map_or(Lookup::Unknown, Lookup::Old)
    }

    /// Enters keys. `series` is how many the head has: one series has one key unless senders spell empty labels, so twice
    /// as many means that most belong to series that are gone or were refused.
    pub(crate) fn enter(&mut self, keys: impl IntoIterator<Item = (u128, Fingerprint)>, series: usize) {
        const KEYS_MIN: usize = 4096;
        for (key, fp) in keys {
            if self.young.len >= (2 * series).max(KEYS_MIN) {
                self.age();
            }
            if key != 0 {
                self.young.insert(Entry { key, fp });
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
        let keys: Vec<u128> =
            (0..100u64).map(|i| (u128::from(i / 4 + 1) << 64) | u128::from(i % 4)).collect();
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
        assert!(known.young.len + known.old.len <= 2 * 4096);
    }
}
