//! A decoded request, by tenant: relabeled, divided, and begun to be written.
//!
//! ```text
//! rules of the process ─ split by label ─┬─ tenant a: own rules ─ rate ─ sink ─┐
//!                                        └─ tenant b: own rules ─ rate ─ sink ─┴─ one report
//! ```

use std::sync::Arc;

use chronolith_model::{Relabeling, TenantId, WriteBatch};
use chronolith_storeapi::{
    ErrorKind, RejectKind, WriteError, WriteInFlight, WriteRejection, WriteReport, WriteSink, WriteWay,
};
use futures::future::join_all;

use super::reply::Refusal;
use crate::limits::Limits;
use crate::relabel::relabel;
use crate::tenant::{Split, split};

/// What happens to every request before it is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    pub(super) limits: Arc<Limits>,
    /// `--receive.relabel-config`.
    pub(super) relabeling: Relabeling,
    /// `--receive.split-tenant-label-name`; empty for none.
    pub(super) split_label: String,
}

/// What is written for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) tenant: TenantId,
    pub(super) series: usize,
    pub(super) samples: usize,
}

/// A request on its way to the sink.
pub(super) struct Routed {
    /// `None` when nothing is left to be written.
    pub(super) write: Option<WriteInFlight>,
    pub(super) parts: Vec<Part>,
    /// What was refused on the way.
    pub(super) report: WriteReport,
}

impl Route {
    /// Begins to write a batch of `tenant`'s.
    pub(super) fn start(
        &self,
        sink: &Arc<dyn WriteSink>,
        tenant: TenantId,
        mut batch: WriteBatch,
        way: WriteWay,
    ) -> Result<Routed, Refusal> {
        if !sink.knows_keys() {
            batch.render();
        }
        if self.split_label.is_empty() {
            let own = self.limits.of(&tenant);
            relabel(&mut batch, &[&self.relabeling, &own.relabeling]);
            let part = Part::of(&tenant, &batch);
            let nothing = is_nothing(&batch);
            if !nothing {
                self.limits.take_rate(&tenant, part.samples)?;
            }
            let write = (!nothing).then(|| WriteInFlight::begin(sink.clone(), tenant, batch, way));
            return Ok(Routed { write, parts: vec![part], report: WriteReport::default() });
        }
        relabel(&mut batch, &[&self.relabeling]);
        let Split { parts: mut divided, refused: mut report } = split(&tenant, batch, &self.split_label);
        let mut parts = Vec::with_capacity(divided.len());
        divided.retain_mut(|(tenant, batch)| {
            relabel(batch, &[&self.limits.of(tenant).relabeling]);
            let part = Part::of(tenant, batch);
            if is_nothing(batch) {
                return false;
            }
            // The other tenants' parts are none of this one's business.
            if let Err(refusal) = self.limits.take_rate(tenant, part.samples) {
                report.reject(part.samples, || WriteRejection {
                    kind: RejectKind::LimitExceeded,
                    series: format!("all of tenant {tenant}"),
                    t: None,
                    reason: refusal.to_string(),
                });
                return false;
            }
            parts.push(part);
            true
        });
        let write = match divided.pop() {
            None => None,
            Some((tenant, batch)) if divided.is_empty() => {
                Some(WriteInFlight::begin(sink.clone(), tenant, batch, way))
            }
            Some(last) => {
                divided.push(last);
                Some(WriteInFlight::of(write_all(sink.clone(), divided, way)))
            }
        };
        Ok(Routed { write, parts, report })
    }
}

impl Part {
    fn of(tenant: &TenantId, batch: &WriteBatch) -> Self {
        Part { tenant: tenant.clone(), series: batch.series_count(), samples: batch.sample_count() }
    }
}

/// True when relabeling, or the sender, left nothing that could be stored: no tenant is made for it.
fn is_nothing(batch: &WriteBatch) -> bool {
    batch.series_count() == 0 && batch.metadata().is_empty()
}

/// Writes all parts at the same time. A part that fails does not keep the others from being stored; the answer is then that
/// of the failure which a sender should repeat, where there is one.
async fn write_all(
    sink: Arc<dyn WriteSink>,
    parts: Vec<(TenantId, WriteBatch)>,
    way: WriteWay,
) -> Result<WriteReport, WriteError> {
    let writes = parts.into_iter().map(|(tenant, batch)| {
        let sink = sink.clone();
        async move { sink.write_by(&tenant, batch, way).await }
    });
    let mut report = WriteReport::default();
    let mut failed: Option<WriteError> = None;
    for result in join_all(writes).await {
        match result {
            Ok(part) => report.merge(part),
            Err(error)
                if failed.as_ref().is_none_or(|f| !comes_back(f.kind()) && comes_back(error.kind())) =>
            {
                failed = Some(error);
            }
            Err(_) => {}
        }
    }
    failed.map_or(Ok(report), Err)
}

/// A failure that a repetition may mend.
fn comes_back(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Aborted)
}
