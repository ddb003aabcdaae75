//! Where a shard keeps the bytes of chunks that grow: each is a chain of equal fragments, so that nothing is ever moved or
//! left over when it grows.

/// Bytes of a fragment: as many as a series' own tail holds.
pub(crate) const FRAGMENT_WORDS: usize = 4;
const FRAGMENT_BYTES: usize = FRAGMENT_WORDS * 8;
/// Fragments on a page: 36 KiB.
const PAGE_SHIFT: u32 = 10;
/// No fragment.
pub(crate) const NO_FRAGMENT: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Fragment {
    /// The fragment before, or the next free one.
    previous: u32,
    bytes: [u8; FRAGMENT_BYTES],
}

/// The fragments of a shard's growing chunks.
pub(crate) struct Fragments {
    pages: Vec<Vec<Fragment>>,
    free: u32,
    used: usize,
}

impl Default for Fragments {
    fn default() -> Self {
        Fragments { pages: Vec::new(), free: NO_FRAGMENT, used: 0 }
    }
}

impl Fragments {
    fn get(&self, id: u32) -> &Fragment {
        &self.pages[(id >> PAGE_SHIFT) as usize][(id & ((1 << PAGE_SHIFT) - 1)) as usize]
    }

    fn get_mut(&mut self, id: u32) -> &mut Fragment {
        &mut self.pages[(id >> PAGE_SHIFT) as usize][(id & ((1 << PAGE_SHIFT) - 1)) as usize]
    }

    /// Keeps words behind `previous`.
    #[inline]
    pub(crate) fn push(&mut self, previous: u32, words: &[u64; FRAGMENT_WORDS]) -> u32 {
        let mut bytes = [0; FRAGMENT_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        self.used += 1;
        let fragment = Fragment { previous, bytes };
        if self.free != NO_FRAGMENT {
            let id = self.free;
            let slot = self.get_mut(id);
            let next_free = slot.previous;
            *slot = fragment;
            self.free = next_free;
            return id;
        }
        if self.pages.last().is_none_or(|p| p.len() == 1 << PAGE_SHIFT) {
            // Small tenants have one page, which grows with them; further pages will be filled.
            let room = if self.pages.is_empty() { 0 } else { 1 << PAGE_SHIFT };
            self.pages.push(Vec::with_capacity(room));
        }
        let page = self.pages.len() - 1;
        let last = &mut self.pages[page];
        last.push(fragment);
        ((page as u32) << PAGE_SHIFT) | (last.len() as u32 - 1)
    }

    /// Copies the `count` fragments that end at `last` to the end of `out`, in order.
    pub(crate) fn read(&self, last: u32, count: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + count * FRAGMENT_BYTES, 0);
        let mut id = last;
        for to in out[start..].rchunks_exact_mut(FRAGMENT_BYTES) {
            let fragment = self.get(id);
            to.copy_from_slice(&fragment.bytes);
            id = fragment.previous;
        }
    }

    /// Loads a fragment and answers with the one before.
    #[inline]
    pub(crate) fn touch(&self, id: u32) -> u32 {
        let fragment = self.get(id);
        std::hint::black_box(fragment.bytes[FRAGMENT_BYTES - 1]);
        fragment.previous
    }

    /// Gives back the `count` fragments that end at `last`.
    pub(crate) fn free(&mut self, last: u32, count: usize) {
        let mut id = last;
        for _ in 0..count {
            let free = self.free;
            let fragment = self.get_mut(id);
            let previous = fragment.previous;
            fragment.previous = free;
            self.free = id;
            id = previous;
        }
        self.used -= count;
        if self.used == 0 {
            *self = Fragments::default();
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().map(|p| p.capacity() * size_of::<Fragment>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_come_back_in_order_and_are_reused() {
        let mut f = Fragments::default();
        let mut last = NO_FRAGMENT;
        for i in 0..3000u64 {
            last = f.push(last, &[i, i + 1, i + 2, i + 3]);
        }
        let mut out = vec![9];
        f.read(last, 3000, &mut out);
        assert_eq!(out.len(), 1 + 3000 * 32);
        assert_eq!(out[1 + 32 * 17..][..8], 17u64.to_be_bytes());
        let pages = f.pages.len();
        f.free(last, 2000);
        let mut again = NO_FRAGMENT;
        for i in 0..2000u64 {
            again = f.push(again, &[i; 4]);
        }
        assert_eq!(f.pages.len(), pages);
        f.free(again, 2000);
        f.free(999, 1000);
        assert_eq!(f.bytes(), 0);
    }
}
