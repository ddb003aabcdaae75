//! Tenants as label values of metrics.
//!
//! Clients choose tenants' names, and a metric with a series for each name that was ever sent grows without bound. The first
//! thousand tenants have series of their own, the others share one.

use chronolith_model::TenantId;
use hashbrown::HashSet;
use parking_lot::RwLock;

/// Tenants with series of their own.
const NAMES_MAX: usize = 1000;
/// The value that the others share.
pub const OTHER_TENANTS: &str = "other-tenants";

/// The tenants that have metrics of their own.
#[derive(Debug, Default)]
pub struct TenantNames(RwLock<HashSet<TenantId>>);

impl TenantNames {
    /// The value of a label `tenant`.
    pub fn label(&self, tenant: &TenantId) -> String {
        let known = self.0.read();
        if known.contains(tenant) {
            return tenant.as_str().to_owned();
        }
        if known.len() >= NAMES_MAX {
            return OTHER_TENANTS.to_owned();
        }
        drop(known);
        self.0.write().insert(tenant.clone());
        tenant.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let names = TenantNames::default();
        let label = |i: usize| names.label(&TenantId::new(&format!("t{i}")).unwrap());
        assert_eq!((0..NAMES_MAX).map(label).filter(|l| l.starts_with('t')).count(), NAMES_MAX);
        assert_eq!((label(NAMES_MAX), label(5)), (OTHER_TENANTS.to_owned(), "t5".to_owned()));
    }
}
