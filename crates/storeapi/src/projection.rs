//! Series with some of their labels only, for queries that do not look at the others.
//!
//! What is left out is replaced by one label, a hash of the whole label set (without replica labels), so that series stay apart
//! and those of several stores still find each other: order, merge and removal of replicas work on the projected labels as they
//! do on whole ones. That takes one function for all stores, so it is asked of those only that announce ours. 128 bits: among a
//! billion series that project to the same labels, two share a hash with a probability below 2e-21.

use chronolith_model::Labels;
use xxhash_rust::xxh3::xxh3_128;

/// The label that stands for those left out.
pub const SERIES_HASH_LABEL: &str = "__series_hash__";
/// The name of the function, as endpoints announce it and requests ask for it.
pub(crate) const SERIES_HASH: &str = "xxh3-128";

/// The labels that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Projection {
    keep: Vec<String>,
}

impl Projection {
    /// Keeps these. `None` where one is the label that stands for the others.
    pub fn new(mut keep: Vec<String>) -> Option<Self> {
        keep.sort_unstable();
        keep.dedup();
        keep.iter().all(|name| name != SERIES_HASH_LABEL).then_some(Projection { keep })
    }

    /// The names, sorted.
    pub fn names(&self) -> &[String] {
        &self.keep
    }

    /// True when this label stays.
    pub fn keeps(&self, name: &str) -> bool {
        self.keep.binary_search_by(|kept| kept.as_str().cmp(name)).is_ok()
    }

    /// The labels that are kept, and the hash of all.
    pub fn apply(&self, labels: &Labels) -> Labels {
        let mut all = Vec::with_capacity(labels.encoded_len() + 2 * labels.len());
        for (name, value) in labels {
            for part in [name, value] {
                all.extend_from_slice(part.as_bytes());
                all.push(0xFF);
            }
        }
        let hash = hex(xxh3_128(&all));
        let hash = (SERIES_HASH_LABEL, std::str::from_utf8(&hash).unwrap_or_default());
        // In one go, in order: a store does this for every series that it sends.
        let kept = labels.iter().filter(|(name, _)| self.keeps(name));
        let before = kept.clone().take_while(|(name, _)| *name < SERIES_HASH_LABEL);
        let after = kept.skip_while(|(name, _)| *name < SERIES_HASH_LABEL);
        Labels::from_sorted(before.chain([hash]).chain(after))
    }
}

/// The digits of a number, the highest first.
fn hex(number: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|i| DIGITS[(number >> (124 - 4 * i)) as usize & 15])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_stay_apart_and_alike_ones_together() {
        let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        let projection = Projection::new(vec!["job".into(), "__name__".into()]).unwrap();
        let a = projection.apply(&labels(&[("__name__", "up"), ("job", "a"), ("pod", "1")]));
        let b = projection.apply(&labels(&[("__name__", "up"), ("job", "a"), ("pod", "2")]));
        assert_ne!(a, b);
        assert_eq!(a, projection.apply(&labels(&[("pod", "1"), ("job", "a"), ("__name__", "up")])));
        let kept = |l: &Labels| l.filter(|name, _| name != SERIES_HASH_LABEL).to_string();
        assert_eq!(kept(&a), r#"{__name__="up", job="a"}"#);
        // Part of the protocol: stores of different versions must agree.
        assert_eq!(a.get(SERIES_HASH_LABEL), Some("27e59591355638bb812b09df1b383ef5"));
        assert!(Projection::new(vec![SERIES_HASH_LABEL.into()]).is_none());
    }
}
