//! What tenants have said of their metrics lately. A sender of 2.0 says it with every sample; the heads hear it once a minute,
//! or when it changes.
//!
//! Forgetting costs a repetition. What a write that failed has said is heard again a minute later at most.

use chronolith_model::TenantId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;

use super::label_table::LabelKey;

/// After this it is said again.
const SECONDS: u64 = 60;
/// Metrics of all tenants, 40 bytes each; then the table starts over.
const METRICS_MAX: usize = 1 << 17;

/// By metric, what was said and when, in seconds of the process's own clock.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    by_metric: Mutex<HashMap<u128, (u64, u64), FxBuildHasher>>,
}

/// One tenant's part, for one request.
#[derive(Clone, Copy, Debug)]
pub struct Hearing<'a> {
    heard: &'a Heard,
    tenant: u128,
    now_s: u64,
}

impl Heard {
    /// What a tenant has said, at `now_s`.
    pub(crate) fn of<'a>(&'a self, tenant: &TenantId, key: &LabelKey, now_s: u64) -> Hearing<'a> {
        Hearing { heard: self, tenant: key.hash(tenant.as_str().as_bytes()), now_s }
    }
}

impl Hearing<'_> {
    /// True when the same was said of the metric less than a minute ago. Both are given as keyed hashes.
    pub(crate) fn is_known(&self, metric: u128, says: u64) -> bool {
        let mut by_metric = self.heard.by_metric.lock();
        if by_metric.len() >= METRICS_MAX {
            by_metric.clear();
        }
        let said = by_metric.entry(self.tenant.wrapping_add(metric)).or_insert((!says, 0));
        if said.0 == says && self.now_s.saturating_sub(said.1) < SECONDS {
            return true;
        }
        *said = (says, self.now_s);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_minutes_are_heard() {
        let (heard, key) = (Heard::default(), LabelKey::default());
        let says = |tenant: &str, metric, says, now_s| {
            !heard.of(&TenantId::new(tenant).unwrap(), &key, now_s).is_known(metric, says)
        };
        assert!(says("a", 1, 7, 0) && !says("a", 1, 7, 1));
        assert!(says("b", 1, 7, 1) && says("a", 2, 7, 1), "by tenant and metric");
        assert!(says("a", 1, 8, 2) && says("a", 1, 7, 3), "there and back again");
        assert!(!says("a", 1, 7, 62) && says("a", 1, 7, 63));
    }
}
