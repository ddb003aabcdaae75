//! `POST /api/v1/receive` (Thanos's path, answers 200) and `POST /api/v1/write` (Prometheus's, answers 204).
//!
//! ```text
//! protocol ─ tenant ─ body ──┬─ worker thread: decompress, decode, append ─┬─ in_flight ── reply
//!            read budget ────┴─ decode budget ─────────────────────────────┘  commit       2xx
//! ```
//!
//! Each step has a file of its own; this one strings them together. The checks come in Prometheus's order: encoding, size, snappy, content type, protobuf. Memory is taken from two
//! budgets, one after the other, before it is allocated: who waits for decode memory does not take read memory meanwhile
//! from anybody who could give him decode memory, so there is no deadlock. Who waits longer than
//! [`RemoteWriteOptions::patience`] is told to come back (503): that is the back-pressure on senders.
//!
//! Decompressing, decoding and appending run on a worker thread, since a large request takes tens of milliseconds and the
//! append may wait for a full log; the listeners' threads stay free. Only the wait for the commit is asynchronous.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, Request, StatusCode};
use axum::response::Response;
use axum::routing::post;
use chronolith_model::TenantId;
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{WriteInFlight, WriteReport, WriteSink, WriteWay};

use super::body;
use super::budget::{ByteBudget, ByteShare};
use super::decode::{DecodeStats, Decoded};
use super::metrics::{ReasonLabels, RemoteWriteMetrics, RequestLabels};
use super::pool::BatchPool;
use super::protocol::{self, Format};
use super::replica::ReplicaHeader;
use super::reply::{self, Refusal};
use super::tenant;

/// Thanos's name for the tenant's header; it is understood whatever name is configured.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("thanos-tenant");

/// Settings of the handler.
#[derive(Clone, Debug)]
pub struct RemoteWriteOptions {
    /// `--receive.tenant-header`.
    pub tenant_header: HeaderName,
    /// `--receive.default-tenant-id`.
    pub default_tenant: TenantId,
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
    /// How long a request waits for memory before it is told to come back.
    pub patience: Duration,
}

impl Default for RemoteWriteOptions {
    fn default() -> Self {
        RemoteWriteOptions {
            tenant_header: TENANT_HEADER,
            default_tenant: TenantId::default(),
            replica: None,
            conflict: StatusCode::BAD_REQUEST,
            body_bytes_max: 32 << 20,
            // Room for 8 of the largest, or some 2,000 usual ones (130 KB).
            read_bytes_max: 256 << 20,
            // Room for 3 of the largest, or some 130 usual ones, which are reserved their worst case (8 MB). Used is
            // about a fifth of it.
            decode_bytes_max: 1 << 30,
            // Prometheus gives a request 30 s.
            patience: Duration::from_secs(10),
        }
    }
}

/// The handler. One serves all listeners of a process.
pub struct RemoteWrite {
    sink: Arc<dyn WriteSink>,
    pool: Arc<BatchPool>,
    pub(super) options: RemoteWriteOptions,
    pub(super) read: ByteBudget,
    decode: ByteBudget,
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
        let (read, decode) =
            (ByteBudget::new(options.read_bytes_max), ByteBudget::new(options.decode_bytes_max));
        let metrics = RemoteWriteMetrics::register(registry, &read, &decode);
        Arc::new(RemoteWrite { sink, pool, options, read, decode, metrics, closed: AtomicBool::new(false) })
    }

    /// Both paths.
    pub fn router(self: &Arc<Self>) -> Router {
        let path = |success: StatusCode| {
            let handler = self.clone();
            post(move |request: Request<Body>| async move {
                let (parts, body) = request.into_parts();
                handler.answer(success, &parts, body).await
            })
        };
        Router::new()
            .route("/api/v1/receive", path(StatusCode::OK))
            .route("/api/v1/write", path(StatusCode::NO_CONTENT))
    }

    /// From now on requests are told to come back.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    async fn answer(self: Arc<Self>, success: StatusCode, parts: &Parts, body: Body) -> Response {
        let _pending = Pending::new(&self.metrics.pending);
        match self.write(parts, body).await {
            Ok(done) => {
                let response = reply::done(done.format, &done.report, success, self.options.conflict);
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
                reply::refused(protocol::format(&parts.headers).ok(), refusal)
            }
        }
    }

    fn observe(&self, done: &Done, status: StatusCode) {
        let m = &self.metrics;
        let labels = RequestLabels { code: status.as_u16(), tenant: done.tenant.as_str().to_owned() };
        m.series.get_or_create(&labels).observe(done.series as f64);
        m.samples.get_or_create(&labels).observe(done.samples as f64);
        m.samples_written.inc_by(done.report.written as u64);
        m.samples_rejected.inc_by(done.report.rejected as u64);
        m.metadata_dropped.inc_by(done.stats.metadata_dropped as u64);
        m.exemplars_dropped.inc_by(done.stats.exemplars_dropped as u64);
    }

    /// The way of a request: tenant, admission, decoding, appending, commit.
    async fn write(self: &Arc<Self>, parts: &Parts, body: Body) -> Result<Done, Refusal> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refusal::ShuttingDown);
        }
        protocol::check_encoding(&parts.headers)?;
        let tenant = tenant::of_request(parts, &self.options)?;
        let way = match &self.options.replica {
            Some(header) => header.way(&parts.headers)?,
            None => WriteWay::Fresh,
        };
        let (compressed, read_share) = self.read_body(&parts.headers, body).await?;
        let body_len = body::decompressed_len(&compressed, self.options.body_bytes_max)?;
        let format = protocol::format(&parts.headers)?;
        let memory_max = format.memory_max(body_len, self.options.decode_bytes_max);
        let decode_share = self.share(&self.decode, memory_max).await?;
        let handler = self.clone();
        let work = move || {
            // The share lives as long as the memory, also when the sender went away meanwhile.
            let decoded = format.decode(&compressed, body_len as usize, memory_max, &handler.pool);
            let started = decoded.map(|decoded| handler.start(tenant, way, format, decoded));
            drop((compressed, read_share));
            (started, decode_share)
        };
        let (started, _share) =
            tokio::task::spawn_blocking(work).await.map_err(|e| Refusal::Internal(e.to_string()))?;
        let mut started = started?;
        started.done.report.merge(started.write.await.map_err(Refusal::Sink)?);
        Ok(started.done)
    }

    /// Runs on a worker thread: from the decoded request to the wait for the commit.
    fn start(&self, tenant: TenantId, way: WriteWay, format: Format, decoded: Decoded) -> Started {
        let Decoded { batch, stats, refused } = decoded;
        let (series, samples) = (batch.series_count(), batch.sample_count());
        let done = Done { tenant: tenant.clone(), format, series, samples, stats, report: refused };
        Started { done, write: WriteInFlight::begin(self.sink.clone(), tenant, batch, way) }
    }

    pub(super) async fn share(&self, budget: &ByteBudget, bytes: u64) -> Result<ByteShare, Refusal> {
        let patience = self.options.patience;
        budget.acquire(bytes, patience).await.ok_or(Refusal::Overload(patience.as_millis()))
    }
}

/// A request on its way.
struct Started {
    done: Done,
    write: WriteInFlight,
}

/// What became of a request.
struct Done {
    tenant: TenantId,
    format: Format,
    series: usize,
    samples: usize,
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
