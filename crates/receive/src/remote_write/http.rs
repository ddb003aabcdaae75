//! `POST /api/v1/receive` (Thanos's path, answers 200) and `POST /api/v1/write` (Prometheus's, answers 204): remote write.
//! `POST /api/v1/otlp/v1/metrics` (Prometheus's) and `POST /api/v1/otlp` (Thanos's): OTLP.
//!
//! ```text
//! protocol ─ identity ─ limits ─ body ──┬─ worker: decompress, decode, limits, tenant, append ─┬─ in_flight ─ reply
//!                       admission: read ┴─ admission: decode, worker ──────────────────────────┘  commit      2xx
//! ```
//!
//! Each step has a file of its own; this one strings them together. The checks come in Prometheus's order: encoding, size,
//! snappy, content type, protobuf. What a request waits for, and how tenants share it, is in `admission`.
//!
//! Decompressing, decoding and appending run on a worker thread, since a large request takes tens of milliseconds and the
//! append may wait for a full log; the listeners' threads stay free. Only the wait for the commit is asynchronous.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::post;
use chronolith_model::{Relabeling, TenantId};
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{WriteInFlight, WriteReport, WriteSink, WriteWay};

use super::admission::Admission;
use super::body;
use super::decode::{Compressed, DecodeStats, Decoded};
use super::metrics::{ReasonLabels, RemoteWriteMetrics, RequestLabels};
use super::otlp_reply;
use super::pool::BatchPool;
use super::protocol::{self, Encoding, Endpoint, Format};
use super::replica::ReplicaHeader;
use super::reply::{self, Refusal};
use super::tenant::{Part, Route, Routed};
use super::threads::WorkThreads;
use crate::limits::{Admitted, Limits, RequestLimits};
use crate::otlp::{DeltaTotals, OtlpSettings};
use crate::tenant::TenantIdentity;

/// Settings of the handler.
#[derive(Clone, Debug)]
pub struct RemoteWriteOptions {
    /// How tenants are told apart.
    pub identity: TenantIdentity,
    /// The tenants' limits.
    pub limits: Arc<Limits>,
    /// `--receive.relabel-config`.
    pub relabeling: Relabeling,
    /// `--receive.split-tenant-label-name`; empty for none.
    pub split_tenant_label: String,
    /// Which replica a request is; `None` does not ask.
    pub replica: Option<ReplicaHeader>,
    /// The status for samples that conflict with what is stored: Prometheus's 400, or Thanos's 409 where there is a hashring.
    pub conflict: StatusCode,
    /// The largest body, compressed as well as decompressed. 32 MiB is Prometheus's bound.
    pub body_bytes_max: u64,
    /// Memory for compressed bodies of all requests in flight.
    pub read_bytes_max: u64,
    /// Memory for decompressed bodies and decoded columns of all requests in flight.
    pub decode_bytes_max: u64,
    /// How OTLP is translated.
    pub otlp: OtlpSettings,
    /// How long a request waits for memory before it is told to come back.
    pub patience: Duration,
}

impl Default for RemoteWriteOptions {
    fn default() -> Self {
        RemoteWriteOptions {
            identity: TenantIdentity::default(),
            limits: Arc::default(),
            relabeling: Relabeling::default(),
            split_tenant_label: String::new(),
            replica: None,
            conflict: StatusCode::BAD_REQUEST,
            body_bytes_max: 32 << 20,
            // Room for 8 of the largest, or some 2,000 usual ones (130 KB).
            read_bytes_max: 256 << 20,
            // Room for 3 of the largest, or some 130 usual ones, which are reserved their worst case (8 MB). Used is
            // about a fifth of it.
            decode_bytes_max: 1 << 30,
            otlp: OtlpSettings::default(),
            // Prometheus gives a request 30 s.
            patience: Duration::from_secs(10),
        }
    }
}

/// The handler. One serves all listeners of a process.
pub struct RemoteWrite {
    sink: Arc<dyn WriteSink>,
    pool: Arc<BatchPool>,
    options: RemoteWriteOptions,
    route: Route,
    pub(super) admission: Admission,
    threads: WorkThreads,
    /// Of OTLP's deltas, where they are added up.
    deltas: Option<DeltaTotals>,
    metrics: RemoteWriteMetrics,
    closed: AtomicBool,
}

impl RemoteWrite {
    /// A handler that writes to `sink`. The sink puts batches back into `pool` where it can.
    pub fn new(
        sink: Arc<dyn WriteSink>,
        pool: Arc<BatchPool>,
        options: RemoteWriteOptions,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let admission = Admission::new(&options);
        let metrics = RemoteWriteMetrics::register(registry, &admission);
        let route = Route {
            limits: Arc::clone(&options.limits),
            relabeling: options.relabeling.clone(),
            split_label: options.split_tenant_label.clone(),
        };
        let deltas = options.otlp.delta_to_cumulative.then(|| DeltaTotals::new(registry));
        let closed = AtomicBool::new(false);
        Arc::new(RemoteWrite {
            sink,
            pool,
            options,
            route,
            admission,
            threads: WorkThreads::default(),
            deltas,
            metrics,
            closed,
        })
    }

    /// All paths.
    pub fn router(self: &Arc<Self>) -> Router {
        let path = |endpoint: Endpoint| {
            let handler = self.clone();
            post(move |request: Request<Body>| async move {
                let (parts, body) = request.into_parts();
                handler.answer(endpoint, &parts, body).await
            })
        };
        Router::new()
            .route("/api/v1/receive", path(Endpoint::Receive))
            .route("/api/v1/write", path(Endpoint::Write))
            .route("/api/v1/otlp/v1/metrics", path(Endpoint::Otlp))
            .route("/api/v1/otlp", path(Endpoint::Otlp))
    }

    /// The limits changed.
    pub fn limits_changed(&self) {
        self.admission.resize_workers();
    }

    /// From now on requests are told to come back.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    async fn answer(self: Arc<Self>, endpoint: Endpoint, parts: &Parts, body: Body) -> Response {
        let _pending = Pending::new(&self.metrics.pending);
        match self.write(endpoint, parts, body).await {
            Ok(done) => {
                let response = match (done.format.is_otlp(), endpoint) {
                    (true, _) => otlp_reply::done(done.format, &done.report),
                    (false, Endpoint::Write) => {
                        reply::done(done.format, &done.report, StatusCode::NO_CONTENT, self.options.conflict)
                    }
                    (false, _) => {
                        reply::done(done.format, &done.report, StatusCode::OK, self.options.conflict)
                    }
                };
                self.observe(&done, response.status());
                response
            }
            Err(refusal) => {
                self.metrics.refused.get_or_create(&ReasonLabels { reason: refusal.reason() }).inc();
                if refusal.status().is_server_error() && !matches!(refusal, Refusal::ShuttingDown) {
                    tracing::warn!(err = %refusal, "write request failed");
                } else {
                    tracing::debug!(err = %refusal, "write request refused");
                }
                let format = protocol::format(endpoint, &parts.headers).ok();
                if endpoint == Endpoint::Otlp {
                    return otlp_reply::refused(format.unwrap_or(Format::OtlpProtobuf), refusal);
                }
                reply::refused(format, refusal)
            }
        }
    }

    fn observe(&self, done: &Done, status: StatusCode) {
        let m = &self.metrics;
        for part in &done.parts {
            let tenant = self.options.limits.names().label(&part.tenant);
            let labels = RequestLabels { code: status.as_u16(), tenant };
            m.series.get_or_create(&labels).observe(part.series as f64);
            m.samples.get_or_create(&labels).observe(part.samples as f64);
        }
        m.samples_written.inc_by(done.report.written as u64);
        m.samples_rejected.inc_by(done.report.rejected as u64);
        m.metadata_dropped.inc_by(done.stats.metadata_dropped as u64);
        m.exemplars_dropped.inc_by(done.stats.exemplars_dropped as u64);
    }

    /// The way of a request: tenant, admission, decoding, appending, commit.
    async fn write(self: &Arc<Self>, endpoint: Endpoint, parts: &Parts, body: Body) -> Result<Done, Refusal> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refusal::ShuttingDown);
        }
        let encoding = protocol::encoding(endpoint, &parts.headers)?;
        let tenant = self.options.identity.of(&parts.headers, &parts.extensions)?;
        let way = match &self.options.replica {
            Some(header) => header.way(&parts.headers)?,
            None => WriteWay::Fresh,
        };
        // The request counts as its tenant's until it is answered.
        let admitted = self.admission.limits.admit(&tenant)?;
        let done = self.write_admitted(&tenant, &admitted, (endpoint, encoding, way), parts, body).await;
        done.map_err(|refusal| match refusal {
            Refusal::TooLarge { bytes, .. } if admitted.check_size(bytes).is_err() => {
                let own = admitted.check_size(bytes).expect_err("just seen");
                self.admission.limits.refused(&tenant, own).into()
            }
            other => other,
        })
    }

    async fn write_admitted(
        self: &Arc<Self>,
        tenant: &TenantId,
        admitted: &Admitted,
        (endpoint, encoding, way): (Endpoint, Encoding, WriteWay),
        parts: &Parts,
        body: Body,
    ) -> Result<Done, Refusal> {
        let bytes_max = admitted.body_bytes_max(self.options.body_bytes_max);
        let (compressed, read_share) = self.read_body(tenant, bytes_max, &parts.headers, body).await?;
        let body_len = body::decompressed_len(encoding, &compressed, bytes_max)?;
        let format = protocol::format(endpoint, &parts.headers)?;
        let memory_max = format.memory_max(body_len, self.options.decode_bytes_max);
        let admission = &self.admission;
        let decode_share = admission.bytes(&admission.decode, tenant, memory_max).await?;
        let worker = admission.worker(tenant).await?;
        let (handler, tenant, limits) = (self.clone(), tenant.clone(), admitted.limits().request);
        let work = move || {
            // The share lives as long as the memory, also when the sender went away meanwhile.
            let body = Compressed { encoding, body: &compressed, len: body_len as usize };
            let totals = handler.deltas.as_ref().filter(|_| format.is_otlp());
            let totals = totals.map(|totals| totals.of(&tenant, Instant::now()));
            let (otlp, pool) = (&handler.options.otlp, &handler.pool);
            let decoded = format.decode(body, memory_max, otlp, &tenant, totals.as_deref(), pool);
            let started = decoded.and_then(|decoded| handler.start(tenant, limits, way, format, decoded));
            drop((compressed, read_share, worker));
            (started, decode_share)
        };
        let (started, _share) = self.threads.run(work).await.map_err(Refusal::Internal)?;
        let Started { mut done, write } = started?;
        if let Some(write) = write {
            done.report.merge(write.await.map_err(Refusal::Sink)?);
        }
        Ok(done)
    }

    /// Runs on a worker thread: from the decoded request to the wait for the commit.
    fn start(
        &self,
        tenant: TenantId,
        limits: RequestLimits,
        way: WriteWay,
        format: Format,
        decoded: Decoded,
    ) -> Result<Started, Refusal> {
        let Decoded { batch, stats, refused } = decoded;
        if let Err(refusal) = limits.check_batch(batch.series_count(), batch.sample_count()) {
            self.pool.put_batch(batch);
            return Err(self.admission.limits.refused(&tenant, refusal).into());
        }
        let Routed { write, parts, mut report } = self.route.start(&self.sink, tenant, batch, way)?;
        report.merge(refused);
        Ok(Started { done: Done { format, parts, stats, report }, write })
    }
}

/// A request on its way.
struct Started {
    done: Done,
    /// `None` when there was nothing to write.
    write: Option<WriteInFlight>,
}

/// What became of a request.
struct Done {
    format: Format,
    parts: Vec<Part>,
    stats: DecodeStats,
    report: WriteReport,
}

struct Pending<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl<'a> Pending<'a> {
    fn new(gauge: &'a prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Pending(gauge)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
