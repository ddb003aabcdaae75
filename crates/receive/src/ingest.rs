//! The [`WriteSink`] over this receiver's own heads.
//!
//! The append happens in the first poll, on the caller's thread (the remote-write handler polls first on a worker); then
//! the future waits for the log. `Ok` means that the good part is durable by the rules of `--wal.sync`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use chronolith_model::{TenantId, WriteBatch};
use chronolith_service::Probe;
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{
    RejectKind, StoreError, WriteError, WriteRejection, WriteReport, WriteSink, WriteWay,
};
use chronolith_tsdb::head::{RejectReason, Rejection, WriteOutcome};
use chronolith_tsdb::wal::WalError;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

use crate::rejections::Rejections;
use crate::remote_write::BatchPool;
use crate::tenants::Tenants;

/// Writes into the local heads.
pub struct LocalSink {
    tenants: Arc<Tenants>,
    pool: Arc<BatchPool>,
    tenants_max: usize,
    probe: Option<Probe>,
    log_failed: AtomicBool,
    rejections: Rejections,
    exemplars_rejected: Counter,
    metadata_rejected: Counter,
}

impl LocalSink {
    /// A sink over `tenants`, at most `tenants_max` of them. Batches go back to `pool`. When the log fails for good,
    /// `probe` is told.
    pub fn new(
        tenants: Arc<Tenants>,
        pool: Arc<BatchPool>,
        tenants_max: usize,
        probe: Option<Probe>,
        registry: &mut Registry,
    ) -> Self {
        let rejections = Rejections::new(registry);
        let (exemplars_rejected, metadata_rejected) = (Counter::default(), Counter::default());
        let help = "Exemplars refused: out of order, or with labels of more than 128 characters";
        registry.register("chronolith_receive_exemplars_rejected", help, exemplars_rejected.clone());
        let help = "Metadata entries refused: the tenant's are too large";
        registry.register("chronolith_receive_metadata_rejected", help, metadata_rejected.clone());
        LocalSink {
            tenants,
            pool,
            tenants_max,
            probe,
            log_failed: AtomicBool::new(false),
            rejections,
            exemplars_rejected,
            metadata_rejected,
        }
    }

    fn append(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        way: WriteWay,
    ) -> Result<WriteOutcome, WriteError> {
        let db = self.tenants.db()?;
        if db.head(tenant).is_none() && db.tenants().len() >= self.tenants_max {
            return Err(StoreError::limit(format!("limit of {} tenants reached", self.tenants_max)));
        }
        let outcome = match way {
            WriteWay::Late => db.write_late(tenant, &batch),
            WriteWay::Fresh | WriteWay::Replica(_) => db.write(tenant, &batch),
        };
        self.pool.put_batch(batch);
        Ok(outcome)
    }

    fn count(&self, tenant: &TenantId, outcome: &WriteOutcome) {
        self.rejections.note(tenant, self.tenants.limits().names(), outcome);
        let series_limit = RejectReason::SeriesLimit(0).kind();
        if outcome.rejected_by_kind.iter().any(|(kind, _)| *kind == series_limit) {
            self.tenants.limits().head_series_limited(tenant);
        }
        self.exemplars_rejected.inc_by(outcome.exemplars_rejected as u64);
        self.metadata_rejected.inc_by(outcome.metadata_rejected as u64);
    }

    #[cold]
    fn on_log_failure(&self, error: &(dyn std::error::Error + 'static)) {
        if !self.log_failed.swap(true, Ordering::Relaxed) {
            tracing::error!(err = error, "the write-ahead log failed, writes are refused from now on");
        }
        if let Some(probe) = &self.probe {
            probe.not_ready("the write-ahead log failed");
        }
    }
}

#[async_trait]
impl WriteSink for LocalSink {
    fn knows_keys(&self) -> bool {
        true
    }

    async fn write_by(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        way: WriteWay,
    ) -> Result<WriteReport, WriteError> {
        let outcome = self.append(tenant, batch, way)?;
        self.count(tenant, &outcome);
        let report = report(&outcome);
        let (durable, wait) = oneshot::channel();
        outcome.commit.notify(move |result| {
            // The request may have gone away; its samples stay.
            let _ = durable.send(result);
        });
        match wait.await {
            Ok(Ok(())) => Ok(report),
            Ok(Err(error)) => {
                // A full disk passes; the log says so itself, and reads go on.
                if !matches!(error, WalError::Stalled { .. }) {
                    self.on_log_failure(&error);
                }
                Err(StoreError::unavailable("write-ahead log").with_source(error))
            }
            Err(_) => Err(StoreError::internal("the write-ahead log gave no answer")),
        }
    }
}

fn report(outcome: &WriteOutcome) -> WriteReport {
    let rejections = outcome.rejected.iter().take(WriteReport::REJECTIONS_MAX).map(rejection).collect();
    WriteReport {
        written: outcome.written,
        histograms_written: outcome.histograms_written,
        exemplars_written: outcome.exemplars_written,
        exemplars_out_of_order: outcome.exemplars_out_of_order,
        rejected: outcome.rejected_count,
        rejections,
    }
}

fn rejection(from: &Rejection) -> WriteRejection {
    WriteRejection {
        kind: reject_kind(&from.reason),
        series: from.series.clone(),
        t: Some(from.t),
        reason: from.reason.to_string(),
    }
}

fn reject_kind(reason: &RejectReason) -> RejectKind {
    match reason {
        RejectReason::OutOfOrder
        | RejectReason::TooOld
        | RejectReason::OutOfBounds
        | RejectReason::DuplicateTimestamp => RejectKind::Conflict,
        RejectReason::SeriesLimit(_) => RejectKind::LimitExceeded,
        RejectReason::MalformedLabels(_)
        | RejectReason::MissingMetricName
        | RejectReason::DuplicateLabel(_)
        | RejectReason::EmptyLabelName
        | RejectReason::LabelTooLong { .. }
        | RejectReason::TooManyLabels(_)
        | RejectReason::InvalidHistogram(_) => RejectKind::Invalid,
    }
}
