//! A bound on bytes in use, waited for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit that is counted: fine enough, and 4 TiB of it fit the semaphore.
const UNIT_BYTES: u64 = 1024;

/// A number of bytes that requests share. Who asks for more than is left waits his turn, first come first served.
#[derive(Clone, Debug)]
pub(super) struct ByteBudget {
    units: Arc<Semaphore>,
    units_max: u32,
}

/// A share of a [`ByteBudget`], given back when dropped.
#[derive(Debug)]
pub(super) struct ByteShare(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl ByteBudget {
    /// A budget of this many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let units = u32::try_from(bytes_max.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let units = units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        ByteBudget { units: Arc::new(Semaphore::new(units as usize)), units_max: units }
    }

    /// Waits for a share, at most `patience`. Who asks for more than the whole gets the whole.
    pub(super) async fn acquire(&self, bytes: u64, patience: Duration) -> Option<ByteShare> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units_max);
        let share = match self.units.clone().try_acquire_many_owned(units) {
            Ok(share) => share,
            Err(_) => tokio::time::timeout(patience, self.units.clone().acquire_many_owned(units))
                .await
                .ok()?
                .ok()?,
        };
        Some(ByteShare(share))
    }

    /// Bytes that are given out.
    pub(super) fn bytes_used(&self) -> u64 {
        (u64::from(self.units_max) - self.units.available_permits() as u64) * UNIT_BYTES
    }

    /// The whole.
    pub(super) fn bytes_max(&self) -> u64 {
        u64::from(self.units_max) * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shares_are_waited_for_and_given_back() {
        let budget = ByteBudget::new(10 << 10);
        let patience = Duration::from_millis(30);
        let whole = budget.acquire(u64::MAX, patience).await.unwrap();
        assert_eq!((budget.bytes_used(), budget.bytes_max()), (10 << 10, 10 << 10));
        assert!(budget.acquire(1, patience).await.is_none());
        let (again, ()) = tokio::join!(budget.acquire(1, patience), async { drop(whole) });
        assert!(again.is_some());
        assert_eq!(budget.bytes_used(), 1024);
    }
}
