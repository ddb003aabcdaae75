//! What tenants have said of their metrics lately. A sender of 2.0 says it with every sample; the heads hear it once a minute,
//! or when it changes.
//!
//! Forgetting costs a repetition. What a write that failed has said is heard again a minute later at most.

use chronolith_model::TenantId;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxBuildHasher;

use super::label_key::LabelKey;

/// After this it is said again.
const SECONDS: u64 = 60;
/// Metrics of all tenants, 40 bytes each; with more, the table starts over at the next request.
const METRICS_MAX: usize = 1 << 17;

/// By metric, what was said and when, in seconds of the process's own clock.
type ByMetric = HashMap<u128, (u64, u64), FxBuildHasher>;

/// What all tenants have said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    by_metric: Mutex<ByMetric>,
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

/// A [`Hearing`] while it is asked: nobody else is meanwhile.
pub(super) struct Listening<'a> {
    by_metric: MutexGuard<'a, ByMetric>,
    tenant: u128,
    now_s: u64,
}

impl<'a> Hearing<'a> {
    /// Once a request, for all that it says.
    pub(super) fn listen(self) -> Listening<'a> {
        let mut by_metric = self.heard.by_metric.lock();
        if by_metric.len() >= METRICS_MAX {
            by_metric.clear();
        }
        Listening { by_metric, tenant: self.tenant, now_s: self.now_s }
    }
}

impl Listening<'_> {
    /// True when the same was said of the metric less than a minute ago. Both are given as keyed hashes.
    pub(super) fn is_known(&mut self, metric: u128, says: u64) -> bool {
        let said = self.by_metric.entry(self.tenant.wrapping_add(metric)).or_insert((!says, 0));
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
            !heard.of(&TenantId::new(tenant).unwrap(), &key, now_s).listen().is_known(metric, says)
        };
        assert!(says("a", 1, 7, 0) && !says("a", 1, 7, 1));
        assert!(says("b", 1, 7, 1) && says("a", 2, 7, 1), "by tenant and metric");
        assert!(says("a", 1, 8, 2) && says("a", 1, 7, 3), "there and back again");
        assert!(!says("a", 1, 7, 62) && says("a", 1, 7, 63));
    }
}
