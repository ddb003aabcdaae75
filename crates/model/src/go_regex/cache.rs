//! Compiled patterns of the whole process, found by their source.
//!
//! Two generations of bounded size: what is used moves to the young one, and when that is full it becomes the old
//! one and what was there is dropped. So a pattern survives as long as it is used once per generation.

use std::sync::LazyLock;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::GoRegex;

/// Patterns per generation. With the bound on a pattern's compiled size, the worst case is 256 MiB; an ordinary
/// pattern has some 10 KiB.
const GENERATION_LEN_MAX: usize = 256;

/// Patterns longer than this are not kept: they are generated, one for each query.
const PATTERN_BYTES_MAX: usize = 16 << 10;

#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, GoRegex>,
    old: HashMap<Box<str>, GoRegex>,
}

static CACHE: LazyLock<Mutex<Generations>> = LazyLock::new(Mutex::default);

pub(super) fn get(pattern: &str) -> Option<GoRegex> {
    let mut cache = CACHE.lock();
    if let Some(found) = cache.young.get(pattern) {
        return Some(found.clone());
    }
    let (key, found) = cache.old.remove_entry(pattern)?;
    cache.insert(key, found.clone());
    Some(found)
}

pub(super) fn put(pattern: &str, regex: &GoRegex) {
    if pattern.len() <= PATTERN_BYTES_MAX {
        CACHE.lock().insert(pattern.into(), regex.clone());
    }
}

impl Generations {
    fn insert(&mut self, key: Box<str>, regex: GoRegex) {
        if self.young.len() >= GENERATION_LEN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, regex);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let kept = GoRegex::new("kept-a.*b").unwrap();
        for i in 0..3 * GENERATION_LEN_MAX {
            GoRegex::new(&format!("other-{i}-a.*b")).unwrap();
            let again = GoRegex::new("kept-a.*b").unwrap();
            assert!(std::sync::Arc::ptr_eq(&kept.0, &again.0), "after {i} others");
        }
        let cache = CACHE.lock();
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_LEN_MAX);
    }
}
