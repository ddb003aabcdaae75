//! Series by the keys that a decoder calls them by, see [`chronolith_model::write::LabelDictionary`].
//!
//! A key says which label set a series has, as the fingerprint does; the table spares rendering and hashing the section, and
//! looking for the fingerprint. It can go stale in one way: the series leaves the head, and another may get its slot. So
//! whoever has locked the shard asks it whether the series is still there. A key is entered when its section was
//! rendered, checked and hashed, and the series found or made. In memory only: keys are of this process.
//!
//! What has not been asked for since the last but one cut is forgotten.

use std::hint::black_box;

use super::section::Fingerprint;
use super::shard::Slot;

/// Keys whose lines are fetched before the first of them is looked at.
const AHEAD: usize = 32;

/// Where a series was when it was last looked for: its slot, and 96 bits of its fingerprint. They name the shard, and tell
/// the series from another one that has the slot since; only for that may they be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    low: u64,
    high: u32,
    slot: Slot,
}

impl Place {
    /// The place of a series.
    #[inline]
    pub(crate) fn new(fp: Fingerprint, slot: Slot) -> Self {
        Place { low: fp.low, high: fp.high as u32, slot }
    }

    /// The part of the fingerprint that is known. It chooses the shard as the whole does.
    #[inline]
    pub(crate) fn fingerprint(self) -> Fingerprint {
        Fingerprint { low: self.low, high: u64::from(self.high) }
    }

    /// The slot.
    #[inline]
    pub(crate) fn slot(self) -> Slot {
        self.slot
    }
}

/// 32 bytes a series; of a free one the key is 0, which no series has but by a chance of 2^-128, and then it is rendered.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u128,
    place: Place,
}

/// Open addressing with linear probing: a look-up touches one line of memory, and look-ups do not wait for each other.
#[derive(Debug, Default)]
struct Table {
    /// A power of two, or none.
    entries: Vec<Entry>,
    len: usize,
}

impl Table {
    /// Loads the lines where these keys are looked for, all at once: look-ups that branch on what they find would wait for
    /// memory one after the other.
    fn fetch(&self, keys: &[u128]) {
        let Some(mask) = self.entries.len().checked_sub(1) else { return };
        black_box(keys.iter().fold(0, |x, key| x ^ self.entries[*key as usize & mask].key as u64));
    }

    #[inline]
    fn find(&self, key: u128) -> Option<Place> {
        if key == 0 || self.entries.is_empty() {
            return None;
        }
        let mask = self.entries.len() - 1;
        // Keys are sums of hashes already.
        let mut at = key as usize & mask;
        loop {
            let entry = &self.entries[at];
            if entry.key == key {
                return Some(entry.place);
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

    /// False when the key was there; its place is then the new one.
    fn put(&mut self, entry: Entry) -> bool {
        let mask = self.entries.len() - 1;
        let mut at = entry.key as usize & mask;
        while self.entries[at].key != 0 && self.entries[at].key != entry.key {
            at = (at + 1) & mask;
        }
        let is_new = self.entries[at].key == 0;
        self.entries[at] = entry;
        is_new
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
    Found(Place),
    /// Found, and to be entered again lest it be forgotten.
    Old(Place),
    Unknown,
}

impl Known {
    /// Looks for keys, and tells of each.
    #[inline]
    pub(crate) fn find_all(&self, keys: &[u128], mut tell: impl FnMut(usize, Lookup)) {
        for (chunk, keys) in keys.chunks(AHEAD).enumerate() {
            self.young.fetch(keys);
            for (i, key) in keys.iter().enumerate() {
                tell(chunk * AHEAD + i, self.find(*key));
            }
        }
    }

    #[inline]
    fn find(&self, key: u128) -> Lookup {
        match self.young.find(key) {
            Some(place) => Lookup::Found(place),
            None => self.find_old(key),
        }
    }

    #[cold]
    fn find_old(&self, key: u128) -> Lookup {
        self.old.find(key).map_or(Lookup::Unknown, Lookup::Old)
    }

    /// Enters keys. `series` is how many the head has: one series has one key unless senders spell empty labels, so twice
    /// as many means that most belong to series that are gone or were refused.
    pub(crate) fn enter(&mut self, keys: impl IntoIterator<Item = (u128, Place)>, series: usize) {
        const KEYS_MIN: usize = 4096;
        for (key, place) in keys {
            if self.young.len >= (2 * series).max(KEYS_MIN) {
                self.age();
            }
            if key != 0 {
                self.young.insert(Entry { key, place });
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

    fn place(n: u64) -> Place {
        Place::new(Fingerprint { low: n, high: !n }, n as u32)
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let mut known = Known::default();
        // Keys with the same low half share a bucket and nothing else.
        let keys: Vec<u128> =
            (0..100u64).map(|i| (u128::from(i / 4 + 1) << 64) | u128::from(i % 4)).collect();
        known.enter(keys.iter().enumerate().map(|(i, k)| (*k, place(i as u64))), 100);
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(known.find(*key), Lookup::Found(place(i as u64)));
        }
        let mut found = Vec::new();
        known.find_all(&keys, |i, lookup| found.push((i, lookup)));
        assert!(found.into_iter().eq((0..100).map(|i| (i, Lookup::Found(place(i as u64))))));
        assert_eq!(known.find(1 << 100), Lookup::Unknown);
        known.enter([(keys[7], place(700))], 100);
        assert_eq!(known.find(keys[7]), Lookup::Found(place(700)), "it has moved");
        known.age();
        assert_eq!(known.find(keys[3]), Lookup::Old(place(3)));
        known.enter([(keys[3], place(3))], 100);
        known.age();
        assert_eq!((known.find(keys[3]), known.find(keys[4])), (Lookup::Old(place(3)), Lookup::Unknown));
    }

    #[test]
    fn the_table_is_bounded_by_the_heads_series() {
        let mut known = Known::default();
        known.enter((0..100_000u128).map(|k| (k * 0x9E37_79B9_7F4A_7C15, place(1))), 10);
        assert!(known.young.len + known.old.len <= 2 * 4096);
    }
}
