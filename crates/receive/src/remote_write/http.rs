//! `POST /api/v1/receive` (Thanos's path, answers 200) and `POST /api/v1/write` (Prometheus's, answers 204).
//!
//! ```text
//! headers ── read budget ── body ── decode budget ──┬─ worker thread: snappy, decode, append ─┬── commit ── 2xx
//!                                                   └─ (bounded by the decode budget)         ┘
//! ```
//!
//! The checks come in Prometheus's order: encoding, size, snappy, content type, protobuf. Memory is taken from two
//! budgets, one after the other, before it is allocated: who waits for decode memory does not take read memory meanwhile
//! from anybody who could give him decode memory, so there is no deadlock. Who waits longer than
//! [`RemoteWriteOptions::patience`] is told to come back (503): that is the back-pressure on senders.
//!
//! Decompressing, decoding and appending run on a worker thread, since a large request takes tens of milliseconds and the
//! append may wait for a full log; the listeners' threads stay free. Only the wait for the commit is asynchronous.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use chronolith_model::{TenantId, WriteBatch};
use chronolith_service::metrics::Registry;
use chronolith_storeapi::{WriteError, WriteReport, WriteSink};
use futures::StreamExt;

use super::budget::{ByteBudget, ByteShare};
use super::decode_v1::{self, DecodeStats};
use super::metrics::{ReasonLabels, RemoteWriteMetrics, RequestLabels};
use super::pool::{BatchPool, BatchSlot};
use super::reply::{self, Refusal};

/// Thanos's name for the tenant's header; it is understood whatever name is configured.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("thanos-tenant");

/// Snappy's densest element is a copy of 64 bytes written in 3. A length beyond that is a lie.
const SNAPPY_EXPANSION_MAX: u64 = 22;

/// Settings of the handler.
#[derive(Clone, Debug)]
pub struct RemoteWriteOptions {
    /// `--receive.tenant-header`.
    pub tenant_header: HeaderName,
    /// `--receive.default-tenant-id`.
    pub default_tenant: TenantId,
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
    options: RemoteWriteOptions,
    read: ByteBudget,
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
            post(
                move |headers: HeaderMap, body: Body| async move { handler.answer(success, headers, body).await },
            )
        };
        Router::new()
            .route("/api/v1/receive", path(StatusCode::OK))
            .route("/api/v1/write", path(StatusCode::NO_CONTENT))
    }

    /// From now on requests are told to come back.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    async fn answer(self: Arc<Self>, success: StatusCode, headers: HeaderMap, body: Body) -> Response {
        let _pending = Pending::new(&self.metrics.pending);
        let done = self.write(&headers, body).await;
        match done {
            Ok(done) => {
                let response = reply::done(&done.report, success);
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
                refusal.into_response()
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
        if let Some(first) = done.report.rejections.first() {
            let (tenant, rejected) = (done.tenant.as_str(), done.report.rejected);
            tracing::debug!(
                tenant,
                rejected,
                series = first.series,
                reason = first.reason,
                "samples rejected"
            );
        }
    }

    async fn write(self: &Arc<Self>, headers: &HeaderMap, body: Body) -> Result<Done, Refusal> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Refusal::ShuttingDown);
        }
        check_encoding(headers)?;
        let tenant = self.tenant(headers)?;
        let (compressed, read_share) = self.read_body(headers, body).await?;
        let body_len = self.decompressed_len(&compressed)?;
        check_content_type(headers)?;
        let memory = body_len + decode_v1::columns_bytes_max(body_len as usize) as u64;
        let decode_share = self.share(&self.decode, memory).await?;
        let handler = self.clone();
        let work = move || {
            // The share lives as long as the memory, also when the sender went away meanwhile.
            let started = handler.start(tenant, &compressed, body_len as usize);
            drop((compressed, read_share));
            (started, decode_share)
        };
        let (started, _share) =
            tokio::task::spawn_blocking(work).await.map_err(|e| Refusal::Internal(e.to_string()))?;
        let mut started = started?;
        started.done.report = started.write.await.map_err(Refusal::Sink)?;
        Ok(started.done)
    }

    /// The request's tenant: the configured header, Thanos's own, or the default.
    fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal> {
        let named = headers.get(&self.options.tenant_header).or_else(|| headers.get(TENANT_HEADER));
        match named.filter(|v| !v.is_empty()) {
            None => Ok(self.options.default_tenant.clone()),
            Some(value) => Ok(TenantId::new(&String::from_utf8_lossy(value.as_bytes()))?),
        }
    }

    async fn share(&self, budget: &ByteBudget, bytes: u64) -> Result<ByteShare, Refusal> {
        let patience = self.options.patience;
        budget.acquire(bytes, patience).await.ok_or(Refusal::Overload(patience.as_millis()))
    }

    /// Reads the whole body into memory that was reserved for it: its announced length or, without one, the maximum.
    async fn read_body(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, ByteShare), Refusal> {
        let bytes_max = self.options.body_bytes_max;
        let too_large = |bytes| Refusal::TooLarge { what: "body", bytes, bytes_max };
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if let Some(bytes) = announced.filter(|&bytes| bytes > bytes_max) {
            return Err(too_large(bytes));
        }
        let share = self.share(&self.read, announced.unwrap_or(bytes_max)).await?;
        let mut pieces = body.into_data_stream();
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| Refusal::Body(e.to_string()))?;
            let so_far = (first.len() + whole.len() + piece.len()) as u64;
            if so_far > bytes_max {
                return Err(too_large(so_far));
            }
            if first.is_empty() && whole.is_empty() {
                first = piece; // Often the only one: no copy.
                continue;
            }
            if whole.is_empty() {
                whole.reserve(announced.map_or(first.len() + piece.len(), |len| len as usize));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
        }
        Ok((if whole.is_empty() { first } else { whole.freeze() }, share))
    }

    /// What the body says it decompresses to, checked before anything is allocated for it.
    fn decompressed_len(&self, compressed: &[u8]) -> Result<u64, Refusal> {
        // An empty body is not a snappy block: even nothing compresses to a length of zero.
        if compressed.is_empty() {
            return Err(Refusal::Snappy("empty body".to_owned()));
        }
        let bytes = snap::raw::decompress_len(compressed).map_err(|e| Refusal::Snappy(e.to_string()))? as u64;
        let bytes_max = self.options.body_bytes_max;
        if bytes > bytes_max {
            return Err(Refusal::TooLarge { what: "decompressed body", bytes, bytes_max });
        }
        if bytes > compressed.len() as u64 * SNAPPY_EXPANSION_MAX {
            let text = format!("{} bytes cannot decompress to {bytes}", compressed.len());
            return Err(Refusal::Snappy(text));
        }
        Ok(bytes)
    }

    /// Runs on a worker thread: everything up to the wait for the commit.
    fn start(&self, tenant: TenantId, compressed: &[u8], body_len: usize) -> Result<Started, Refusal> {
        let mut slot = self.pool.take();
        match decompress_and_decode(&mut slot, compressed, body_len) {
            Err(refusal) => {
                self.pool.put(slot);
                Err(refusal)
            }
            Ok(stats) => {
                let batch = slot.builder.finish(slot.body.freeze());
                let report = WriteReport::default();
                let (series, samples) = (batch.series_count(), batch.sample_count());
                let done = Done { tenant: tenant.clone(), series, samples, stats, report };
                Ok(Started { done, write: WriteInFlight::start(self.sink.clone(), tenant, batch) })
            }
        }
    }
}

fn decompress_and_decode(
    slot: &mut BatchSlot,
    compressed: &[u8],
    body_len: usize,
) -> Result<DecodeStats, Refusal> {
    // What the last request left in the buffer needs no clearing; only growth does.
    slot.body.resize(body_len, 0);
    let read = snap::raw::Decoder::new()
        .decompress(compressed, &mut slot.body)
        .map_err(|e| Refusal::Snappy(e.to_string()))?;
    slot.body.truncate(read);
    Ok(decode_v1::decode(&slot.body, &mut slot.builder)?)
}

/// A request on its way.
struct Started {
    done: Done,
    write: WriteInFlight,
}

/// What became of a request.
struct Done {
    tenant: TenantId,
    series: usize,
    samples: usize,
    stats: DecodeStats,
    report: WriteReport,
}

/// A write that a worker thread has begun: the sink's future was polled there once, which is where a local sink appends.
/// The rest, waiting for the log, is awaited elsewhere.
enum WriteInFlight {
    Ready(Option<Result<WriteReport, WriteError>>),
    Waiting(Pin<Box<dyn Future<Output = Result<WriteReport, WriteError>> + Send>>),
}

impl WriteInFlight {
    fn start(sink: Arc<dyn WriteSink>, tenant: TenantId, batch: WriteBatch) -> Self {
        let mut write = Box::pin(async move { sink.write(&tenant, batch).await });
        match write.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => WriteInFlight::Ready(Some(result)),
            Poll::Pending => WriteInFlight::Waiting(write),
        }
    }
}

impl Future for WriteInFlight {
    type Output = Result<WriteReport, WriteError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            WriteInFlight::Ready(result) => {
                Poll::Ready(result.take().expect("polled once after it was ready"))
            }
            // Its first poll left no waker; this one leaves ours.
            WriteInFlight::Waiting(write) => write.as_mut().poll(cx),
        }
    }
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(value) if !value.is_empty() && value.as_bytes() != b"snappy" => Err(Refusal::encoding(value)),
        _ => Ok(()),
    }
}

/// A missing content type is remote write 1.0; so is `application/x-protobuf` without or with `proto=prometheus.WriteRequest`.
fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(header::CONTENT_TYPE).filter(|v| !v.is_empty()) else { return Ok(()) };
    let refuse = |why| Err(Refusal::content_type(value, why));
    let Ok(text) = value.to_str() else { return refuse("not text") };
    let mut parts = text.split(';').map(str::trim);
    if !parts.next().unwrap_or("").eq_ignore_ascii_case("application/x-protobuf") {
        return refuse("want application/x-protobuf");
    }
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { return refuse("malformed parameter") };
        if !name.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        match value.trim().trim_matches('"') {
            "prometheus.WriteRequest" => {}
            "io.prometheus.write.v2.Request" => {
                return refuse("remote write 2.0 is not supported yet, send prometheus.WriteRequest");
            }
            _ => return refuse("unknown message, want prometheus.WriteRequest"),
        }
    }
    Ok(())
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
