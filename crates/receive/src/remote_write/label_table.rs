//! The labels of one request by remote write 2.0: each pair of symbols that stands for a label, rendered and hashed once.
//!
//! A label is found through the symbol of its value: few values stand under more than one name, so these are kept in a
//! short chain. A chain is followed only so far: a sender who puts one value under many names has its labels rendered
//! again, and pays for their memory.

use chronolith_model::write::LabelDictionary;
use rand::Rng;
use xxhash_rust::xxh3::xxh3_128_with_secret;

use super::decode::{Budget, DecodeError};
use super::sections::{Piece, Sections};

/// Labels of the same value that are looked at.
const CHAIN_MAX: usize = 8;
/// No label yet.
pub(super) const NO_LABEL: u32 = u32::MAX;
/// Bytes of the hash's secret; xxh3 asks for at least 136.
const KEY_BYTES: usize = 192;

/// The key of the labels' hashes. It is random and never leaves the process, so that nobody outside can make the keys of two
/// series equal.
#[derive(Debug)]
pub struct LabelKey(Box<[u8; KEY_BYTES]>);

impl Default for LabelKey {
    fn default() -> Self {
        let mut key = Box::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(&mut key[..]);
        LabelKey(key)
    }
}

impl LabelKey {
    /// The keyed hash of these bytes.
    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &self.0[..])
    }
}

/// A label: its hash, the symbol of its name, and the next label of the same value.
#[derive(Clone, Copy, Debug)]
struct Pair {
    hash: u128,
    name: u32,
    next: u32,
    /// Bytes when rendered.
    len: u32,
}

/// A label that was found or made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) number: u32,
    pub(super) hash: u128,
    /// Bytes when rendered.
    pub(super) len: u32,
}

/// What memory a label is charged beside its text.
const PAIR_BYTES: usize = size_of::<Pair>() + 8;

/// Labels by number, as the batch's [`LabelDictionary`] numbers them.
#[derive(Debug, Default)]
pub(super) struct LabelTable {
    pairs: Vec<Pair>,
}

/// Where a new label is written to.
pub(super) struct Rendering<'a, 'b> {
    pub(super) body: &'a [u8],
    pub(super) sections: &'a mut Sections<'b>,
    pub(super) dictionary: &'a mut LabelDictionary,
    pub(super) budget: &'a mut Budget,
    pub(super) key: &'a LabelKey,
}

impl LabelTable {
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
    }

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.pairs.capacity() * size_of::<Pair>()
    }

    /// The label of this name whose value's chain begins at `first`.
    #[inline(always)]
    pub(super) fn find(&self, first: u32, name: u32) -> Option<Label> {
        let mut at = first;
        for _ in 0..CHAIN_MAX {
            let pair = self.pairs.get(at as usize)?;
            if pair.name == name {
                return Some(Label { number: at, hash: pair.hash, len: pair.len });
            }
            at = pair.next;
        }
        None
    }

    /// Renders a label, which becomes the first of its value's chain.
    #[inline]
    pub(super) fn add(
        &mut self,
        first: &mut u32,
        name_symbol: u32,
        (name, value): (Piece, Piece),
        to: Rendering<'_, '_>,
    ) -> Result<Label, DecodeError> {
        let Rendering { body, sections, dictionary, budget, key } = to;
        budget.charge(PAIR_BYTES)?;
        let start = sections.pos();
        sections.label(body, name, body, value)?;
        let hash = key.hash(sections.since(start));
        let end = sections.pos();
        let len = end - start;
        self.pairs.push(Pair { hash, name: name_symbol, next: *first, len });
        *first = dictionary.add(start..end);
        Ok(Label { number: *first, hash, len })
    }
}
