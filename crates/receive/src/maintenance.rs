//! What goes on in the background: cutting due heads into blocks, shipping blocks, forgetting tenants that have stopped, and
//! the flush that an operator or a drain asks for.
//!
//! Cutting and shipping are two loops, so that a bucket that hangs does not keep the heads from being cut.

use std::sync::Arc;
use std::time::Duration;

use chronolith_service::shutdown::CancellationToken;
use chronolith_tsdb::block::BlockMeta;
use tokio::sync::Mutex;

use crate::error::ReceiveError;
use crate::ship::{ShipReport, Shipper, blocking};
use crate::tenants::Tenants;

/// The longest pause between two tries while the bucket fails.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The first pause.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// The background work of a receiver.
#[derive(Debug)]
pub struct Maintenance {
    tenants: Arc<Tenants>,
    shipper: Shipper,
    interval: Duration,
    /// One cut at a time.
    cutting: Mutex<()>,
}

impl Maintenance {
    /// Looks for work every `interval`.
    pub fn new(tenants: Arc<Tenants>, shipper: Shipper, interval: Duration) -> Self {
        Maintenance { tenants, shipper, interval, cutting: Mutex::new(()) }
    }

    /// Cuts heads that are due, until `stop`.
    pub async fn cut_loop(self: Arc<Self>, stop: CancellationToken) {
        while pause(self.interval, &stop).await {
            if let Err(error) = self.cut_due().await {
                tracing::error!(err = &error as &dyn std::error::Error, "cutting a block failed");
            }
        }
    }

    /// Ships blocks, until `stop`; sooner and later again while the bucket fails.
    pub async fn ship_loop(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let wait = if failures == 0 { self.interval } else { retry_pause(failures) };
            if !pause(wait, &stop).await {
                return;
            }
            let round = tokio::select! {
                round = self.shipper.ship() => round,
                // An upload that is cut off is repeated as a whole at the next start.
                () = stop.cancelled() => return,
            };
            match round {
                Ok(_) => {
                    failures = 0;
                    if let Err(error) = self.forget_idle().await {
                        tracing::error!(err = &error as &dyn std::error::Error, "forgetting a tenant failed");
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(
                        err = &error as &dyn std::error::Error,
                        failures,
                        "shipping blocks failed, they wait"
                    );
                }
            }
        }
    }

    /// Cuts what is due, and all of the tenants that have been idle for as long as it takes to become due.
    pub async fn cut_due(&self) -> Result<(), ReceiveError> {
        let _alone = self.cutting.lock().await;
        let db = Arc::clone(self.tenants.db()?);
        let cut = blocking(move || {
            let mut cut = db.cut_due()?;
            let block = db.options().block_range_ms;
            cut.extend(db.cut_idle(block + block / 2)?);
            Ok(cut)
        })
        .await?;
        for block in &cut {
            self.on_cut(block.tenant.as_str(), &block.meta);
        }
        Ok(())
    }

    /// Forgets the tenants that got no samples for longer than the retention and have nothing here any more, as Thanos does.
    pub async fn forget_idle(&self) -> Result<(), ReceiveError> {
        let retention_ms = self.shipper.retention_ms();
        if retention_ms == 0 {
            return Ok(());
        }
        let db = Arc::clone(self.tenants.db()?);
        for tenant in blocking(move || Ok(db.forget_idle(retention_ms)?)).await? {
            self.shipper.forget(&tenant).await;
            tracing::info!(
                tenant = tenant.as_str(),
                "tenant forgotten: no samples for longer than the retention"
            );
        }
        Ok(())
    }

    /// Cuts everything that is in the heads.
    pub async fn cut_all(&self) -> Result<(), ReceiveError> {
        let _alone = self.cutting.lock().await;
        let db = Arc::clone(self.tenants.db()?);
        for block in blocking(move || Ok(db.cut_every()?)).await? {
            self.on_cut(block.tenant.as_str(), &block.meta);
        }
        Ok(())
    }

    fn on_cut(&self, tenant: &str, meta: &BlockMeta) {
        self.shipper.trust(meta.ulid);
        tracing::info!(
            tenant,
            block = %meta.ulid,
            min_time = meta.min_time,
            max_time = meta.max_time,
            series = meta.stats.num_series,
            samples = meta.stats.num_samples,
            "block cut"
        );
    }

    /// One round of the shipper.
    pub async fn ship(&self) -> Result<ShipReport, ReceiveError> {
        self.shipper.ship().await
    }

    /// Returns when everything that was written before is in the bucket. While the bucket fails it goes on trying for
    /// `patience`.
    pub async fn flush(&self, patience: Duration) -> Result<ShipReport, ReceiveError> {
        if !self.shipper.has_bucket() {
            return Err(ReceiveError::NoBucket);
        }
        let deadline = tokio::time::Instant::now() + patience;
        self.cut_all().await?;
        let mut failures = 0;
        loop {
            match self.shipper.ship().await {
                Ok(report) if report.damaged > 0 => return Err(ReceiveError::Damaged(report.damaged)),
                Ok(report) => return Ok(report),
                Err(error) => {
                    failures += 1;
                    let next = tokio::time::Instant::now() + retry_pause(failures);
                    if next >= deadline {
                        return Err(error);
                    }
                    tracing::warn!(
                        err = &error as &dyn std::error::Error,
                        failures,
                        "flush waits for the bucket"
                    );
                    tokio::time::sleep_until(next).await;
                }
            }
        }
    }
}

/// False when it is time to stop.
async fn pause(wait: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => true,
        () = stop.cancelled() => false,
    }
}

/// 1 s, 2 s, 4 s … 60 s.
fn retry_pause(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let seconds: Vec<_> = [1, 2, 3, 7, 100].map(|n| retry_pause(n).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }
}
