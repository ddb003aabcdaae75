//! A bound on bytes in use, shared fairly by tenants and waited for.

use std::time::Duration;

use chronolith_model::TenantId;

use crate::limits::{FairQueue, FairShare, QueueRefusal};

/// The unit that is counted.
const UNIT_BYTES: u64 = 1024;
/// The part of the whole that one tenant may hold: what is left for all others while it sends slowly.
const TENANT_PART: u64 = 2;

/// A number of bytes that requests share, see [`FairQueue`].
#[derive(Clone, Debug)]
pub(super) struct ByteBudget(FairQueue);

/// A share of a [`ByteBudget`], given back when dropped.
#[derive(Debug)]
pub(super) struct ByteShare(#[expect(dead_code, reason = "held for its drop")] FairShare);

impl ByteBudget {
    /// A budget of this many bytes; `waiting_max` requests of a tenant may wait.
    pub(super) fn new(bytes_max: u64, waiting_max: usize) -> Self {
        let units = bytes_max.div_ceil(UNIT_BYTES);
        ByteBudget(FairQueue::new(units, units / TENANT_PART, waiting_max))
    }

    /// Waits for a share, at most `patience`. Who asks for more than the whole gets the whole.
    pub(super) async fn acquire(
        &self,
        tenant: &TenantId,
        bytes: u64,
        patience: Duration,
    ) -> Result<ByteShare, QueueRefusal> {
        self.0.acquire(tenant, bytes.div_ceil(UNIT_BYTES), patience).await.map(ByteShare)
    }

    /// Bytes that are given out.
    pub(super) fn bytes_used(&self) -> u64 {
        self.0.used() * UNIT_BYTES
    }

    /// The whole.
    pub(super) fn bytes_max(&self) -> u64 {
        self.0.units() * UNIT_BYTES
    }

    /// Requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shares_are_waited_for_and_given_back() {
        let (budget, tenant) = (ByteBudget::new(10 << 10, 10), TenantId::default());
        let patience = Duration::from_millis(30);
        let whole = budget.acquire(&tenant, u64::MAX, patience).await.unwrap();
        assert_eq!((budget.bytes_used(), budget.bytes_max()), (10 << 10, 10 << 10));
        assert!(budget.acquire(&tenant, 1, patience).await.is_err());
        let (again, ()) = tokio::join!(budget.acquire(&tenant, 1, patience), async { drop(whole) });
        assert!(again.is_ok());
        assert_eq!(budget.bytes_used(), 1024);
    }
}
