//! A [`Shard`] that takes no memory while nothing is in it: most tenants of a large installation are idle, and a head has
//! eight shards. It reads as an empty one, is made when somebody is about to change it, and goes with its last series.

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use super::shard::Shard;

/// What readers see where there is none.
static EMPTY: LazyLock<Shard> = LazyLock::new(Shard::default);

/// A shard, or nothing in its place.
#[derive(Default)]
pub(crate) struct LazyShard(Option<Box<Shard>>);

impl LazyShard {
    /// Lets the slots of removed series be used again. Without series the shard goes as a whole; where it had been cut does
    /// not matter to the chunks that are to come.
    pub(crate) fn release(&mut self) {
        match &mut self.0 {
            Some(shard) if shard.live > 0 => shard.release(),
            empty => *empty = None,
        }
    }

    #[cfg(test)]
    fn is_made(&self) -> bool {
        self.0.is_some()
    }
}

impl Deref for LazyShard {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        match &self.0 {
            Some(shard) => shard,
            None => &EMPTY,
        }
    }
}

impl DerefMut for LazyShard {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{CutBound, CutCounts, Fingerprint};

    #[test]
    fn a_shard_is_made_with_its_first_series_and_goes_with_its_last() {
        let mut shard = LazyShard::default();
        let fp = Fingerprint { high: 1, low: 2 };
        assert_eq!((shard.find(fp), shard.live, shard.is_made()), (None, 0, false));
        let slot = shard.insert(fp, &[(1, 2)]);
        shard.release();
        assert_eq!((shard.find(fp), shard.is_made()), (Some(slot), true), "it has a series");
        let dead = shard.truncate(CutBound::Before(5), &CutCounts::default(), true);
        assert_eq!(dead, [slot]);
        shard.release();
        assert_eq!((shard.find(fp), shard.slots(), shard.is_made()), (None, 0, false));
    }
}
