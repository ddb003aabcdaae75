//! `POST /api/v1/read`: Prometheus's remote read, sampled and streamed.
//!
//! A request is a snappy block of `prometheus.ReadRequest`, for at most [`REQUEST_BYTES_MAX`] bytes. The first response type
//! that it accepts decides:
//!
//! - SAMPLES: one snappy block of `ReadResponse`, samples clipped to the range, at most `--storage.remote.read-sample-limit`
//!   a query;
//! - STREAMED_XOR_CHUNKS: frames `uvarint(length) ‖ CRC-32C, big-endian ‖ ChunkedReadResponse`. A frame has one series and
//!   some of its chunks, a series may span frames, and chunks are not clipped. A reading thread makes frames while the
//!   client takes them; one that takes none for [`CLIENT_PATIENCE`] loses its place.
//!
//! A querier has no external labels of its own: those of the stores are labels of their series, so matchers on them hold and
//! nothing is added. Thanos's parameters (`replicaLabels[]`, `dedup`, `storeMatch[]`, `max_source_resolution`,
//! `partial_response`) are taken from the URL. The protocol has no place for a warning; see [`read_whole`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chronolith_httpapi::ProtoBuf;
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{FloatHistogram, Histogram, Labels, MatchOp, Matcher, SampleValue, TimeRange};
use chronolith_promql::{
    MemoryUse, QueryContext, Queryable, QueryableError, QueryableErrorKind, SelectHints, SelectRequest,
    Series,
};
use chronolith_storeapi::proto::prometheus as proto;
use http::{StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::samples::{CancelOnDrop, for_each_sample, into_known_chunks, read_whole, status_of};
use super::{Api, Params, ReadOptions};
use crate::admission::Running;

/// Upstream's bound on a request, compressed and not.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Frames are handed over in pieces of about this size, so that a thousand small series are not a thousand writes.
const PIECE_BYTES: usize = 64 << 10;

/// Pieces made ahead of the client.
const PIECES_AHEAD: usize = 4;

/// How long a client may take nothing.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// Bounds of remote read, under Prometheus's flag names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteReadLimits {
    /// `--storage.remote.read-sample-limit`: samples of one query of a sampled answer; 0 is no bound.
    pub samples_max: usize,
    /// `--storage.remote.read-concurrent-limit`: reads at a time, others wait; 0 is no bound.
    pub concurrency_max: usize,
    /// `--storage.remote.read-max-bytes-in-frame`.
    pub frame_bytes_max: usize,
}

impl Default for RemoteReadLimits {
    fn default() -> Self {
        RemoteReadLimits { samples_max: 50_000_000, concurrency_max: 10, frame_bytes_max: 1 << 20 }
    }
}

/// Errors are plain text, as upstream's.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Refusal(StatusCode::BAD_REQUEST, text.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

impl From<QueryableError> for Refusal {
    fn from(error: QueryableError) -> Self {
        Refusal(status_of(&error), error.message)
    }
}

pub(super) async fn read(State(api): State<Api>, request: Request) -> Response {
    answer(api, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(api: Api, request: Request) -> Result<Response, Refusal> {
    let permit = api.remote_read_gate.clone().acquire_owned().await;
    let permit = permit.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let tenant = api.settings.tenancy.as_ref().map(|t| t.matcher(request.headers()));
    let params = Params::from_query(request.uri().query().unwrap_or(""));
    let options = read_whole(&api, &params).map_err(|e| Refusal::bad(e.message))?;
    let options = ReadOptions { tenant, ..options };
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let body = body.map_err(|e| Refusal::bad(format!("reading the body: {e}")))?.to_bytes();
    let decoded = decode(&body)?;
    let streamed = wants_stream(&decoded.accepted_response_types)?;
    let queries: Vec<Query> = decoded.queries.into_iter().map(Query::new).collect::<Result<_, _>>()?;
    let limits = api.settings.remote_read;
    let running = Running::new(&api.admission.metrics.remote_reads, queries.len());
    let cx = QueryContext::new().with_memory(api.admission.budget());
    let guard = CancelOnDrop(cx.clone());
    let queryable = (api.queryable)(&options);
    if !streamed {
        let work = tokio::task::spawn_blocking(move || {
            let _held = (permit, running);
            sampled(queryable.as_ref(), &queries, limits.samples_max, &cx)
        });
        let body = work.await.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))??;
        drop(guard);
        let headers =
            [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
        return Ok((headers, body).into_response());
    }
    let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
    let mut sink = Sink { sender, runtime: Handle::current(), held: Vec::new() };
    let mut reading = tokio::task::spawn_blocking(move || {
        let _held = (permit, running);
        let read = stream(&queryable, &queries, limits.frame_bytes_max, &cx, &mut sink);
        match read.and_then(|()| sink.flush()) {
            Ok(()) => {}
            Err(error) => sink.fail(error),
        }
    });
    // Until the first piece is there, an error still has a status.
    let first = pieces.recv().await;
    if let Some(Err(error)) = first {
        return Err(error.into());
    }
    let body = async_stream::stream! {
        let _guard = guard;
        let mut next = first;
        while let Some(piece) = next {
            yield piece.map_err(|e: QueryableError| std::io::Error::other(e));
            next = pieces.recv().await;
        }
        // A thread that panicked must not look like the end of the answer.
        if let Err(panic) = (&mut reading).await {
            yield Err(std::io::Error::other(panic));
        }
    };
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

fn decode(body: &[u8]) -> Result<proto::ReadRequest, Refusal> {
    let corrupt = || Refusal::bad("snappy: corrupt input");
    let length = snap::raw::decompress_len(body).map_err(|_| corrupt())?;
    if length > REQUEST_BYTES_MAX {
        let text = format!("snappy: decoded length {length} exceeds limit {REQUEST_BYTES_MAX}");
        return Err(Refusal::bad(text));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(|_| corrupt())?;
    proto::ReadRequest::decode(plain.as_slice()).map_err(|e| Refusal::bad(format!("proto: {e}")))
}

/// The first accepted type that is known; none named is SAMPLES.
fn wants_stream(accepted: &[i32]) -> Result<bool, Refusal> {
    use proto::read_request::ResponseType;
    let known = accepted.iter().find_map(|t| ResponseType::try_from(*t).ok());
    match known {
        Some(ResponseType::StreamedXorChunks) => Ok(true),
        Some(ResponseType::Samples) => Ok(false),
        None if accepted.is_empty() => Ok(false),
        None => Err(Refusal::bad(format!(
            "server does not support any of the requested response types: {accepted:?}; supported: SAMPLES, STREAMED_XOR_CHUNKS"
        ))),
    }
}

struct Query {
    range: TimeRange,
    matchers: Vec<Matcher>,
    hints: SelectHints,
}

impl Query {
    fn new(query: proto::Query) -> Result<Self, Refusal> {
        use proto::label_matcher::Type;
        let matcher = |m: proto::LabelMatcher| {
            let op = match Type::try_from(m.r#type) {
                Ok(Type::Eq) => MatchOp::Equal,
                Ok(Type::Neq) => MatchOp::NotEqual,
                Ok(Type::Re) => MatchOp::Regex,
                Ok(Type::Nre) => MatchOp::NotRegex,
                Err(_) => return Err(Refusal::bad(format!("unknown matcher type {}", m.r#type))),
            };
            Matcher::new(op, &m.name, &m.value)
                .map_err(|e| Refusal::bad(format!("matcher on {}: {e}", m.name)))
        };
        let matchers: Vec<Matcher> = query.matchers.into_iter().map(matcher).collect::<Result<_, _>>()?;
        if matchers.is_empty() {
            return Err(Refusal::bad("a query needs a matcher"));
        }
        let range = TimeRange::new(query.start_timestamp_ms, query.end_timestamp_ms);
        let hints = match query.hints {
            None => SelectHints { start: range.mint, end: range.maxt, ..SelectHints::default() },
            Some(h) => SelectHints {
                start: h.start_ms,
                end: h.end_ms,
                step_ms: h.step_ms,
                range_ms: h.range_ms,
                func: Some(h.func).filter(|f| !f.is_empty()),
                by: h.by,
                grouping: h.grouping,
                newest_only: false,
                keep_labels: None,
            },
        };
        Ok(Query { range, matchers, hints })
    }

    fn read(
        &self,
        queryable: &dyn Queryable,
        cx: &QueryContext,
        mut each: impl FnMut(Series) -> Result<(), QueryableError>,
    ) -> Result<(), QueryableError> {
        if self.range.is_empty() {
            return Ok(());
        }
        let request = SelectRequest { matchers: &self.matchers, range: self.range, hints: &self.hints };
        let mut set = queryable.select(&request, cx)?;
        while let Some(series) = set.next()? {
            each(series)?;
        }
        for warning in set.take_warnings() {
            tracing::warn!(warning, "remote read answered with less than everything, as its URL allows");
        }
        Ok(())
    }
}

/// The snappy block of a `ReadResponse`.
fn sampled(
    queryable: &dyn Queryable,
    queries: &[Query],
    samples_max: usize,
    cx: &QueryContext,
) -> Result<Vec<u8>, Refusal> {
    let mut response = ProtoBuf::new();
    let mut held = cx.memory.hold(MemoryUse::Reply, 0).map_err(QueryableError::from)?;
    for query in queries {
        let (mut result, mut count) = (ProtoBuf::new(), 0usize);
        let (mut floats, mut histograms) = (ProtoBuf::new(), ProtoBuf::new());
        let mut over = false;
        let read = query.read(queryable, cx, |series| {
            floats.bytes.clear();
            histograms.bytes.clear();
            for_each_sample(&series.data, query.range, |t, value| {
                count += 1;
                if samples_max > 0 && count > samples_max {
                    over = true;
                    let text = format!("exceeded sample limit ({samples_max})");
                    return Err(QueryableError::new(QueryableErrorKind::LimitExceeded, text));
                }
                match value {
                    SampleValue::Float(v) => floats.message(2, |m| {
                        m.double(1, v).int64(2, t);
                    }),
                    SampleValue::Histogram(h) => histograms.message(4, |m| put_histogram(m, &h, t)),
                    SampleValue::FloatHistogram(h) => {
                        histograms.message(4, |m| put_float_histogram(m, &h, t))
                    }
                };
                Ok(())
            })?;
            if !floats.bytes.is_empty() || !histograms.bytes.is_empty() {
                result.message(1, |m| {
                    put_labels(m, &series.labels);
                    m.bytes.extend_from_slice(&floats.bytes);
                    m.bytes.extend_from_slice(&histograms.bytes);
                });
            }
            let buffers = [&response, &result, &floats, &histograms];
            held.resize(buffers.iter().map(|b| b.bytes.capacity()).sum())?;
            Ok(())
        });
        match read {
            Err(error) if over => return Err(Refusal::bad(error.message)),
            other => other?,
        }
        let twice = result.bytes.len() + response.bytes.capacity();
        held.resize(held.bytes().max(twice)).map_err(QueryableError::from)?;
        response.bytes_field(1, &result.bytes);
    }
    let compressed_max = snap::raw::max_compress_len(response.bytes.len());
    held.resize(response.bytes.capacity() + compressed_max).map_err(QueryableError::from)?;
    let compressed = snap::raw::Encoder::new().compress_vec(&response.bytes);
    compressed.map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("compressing the answer: {e}")))
}

/// Frames of all queries, in their order.
fn stream(
    queryable: &Arc<dyn Queryable>,
    queries: &[Query],
    frame_bytes_max: usize,
    cx: &QueryContext,
    sink: &mut Sink,
) -> Result<(), QueryableError> {
    for (index, query) in queries.iter().enumerate() {
        query.read(queryable.as_ref(), cx, |series| {
            let mut labels = ProtoBuf::new();
            put_labels(&mut labels, &series.labels);
            let chunk_bytes_max = frame_bytes_max.saturating_sub(labels.bytes.len());
            let mut chunks = ProtoBuf::new();
            let mut frame = |chunks: &mut ProtoBuf| {
                let mut response = ProtoBuf::new();
                response.message(1, |m| {
                    m.bytes.extend_from_slice(&labels.bytes);
                    m.bytes.append(&mut chunks.bytes);
                });
                response.int64(2, index as i64);
                sink.push_frame(&response.bytes)
            };
            for chunk in into_known_chunks(series.data)? {
                chunks.message(2, |m| {
                    m.int64(1, chunk.mint).int64(2, chunk.maxt).int64(3, i64::from(chunk.encoding.as_u8()));
                    m.bytes_field(4, &chunk.data);
                });
                if chunks.bytes.len() >= chunk_bytes_max {
                    frame(&mut chunks)?;
                }
            }
            if chunks.bytes.is_empty() { Ok(()) } else { frame(&mut chunks) }
        })?;
    }
    Ok(())
}

/// Where a reading thread puts its frames.
struct Sink {
    sender: mpsc::Sender<Result<Bytes, QueryableError>>,
    runtime: Handle,
    held: Vec<u8>,
}

impl Sink {
    fn push_frame(&mut self, data: &[u8]) -> Result<(), QueryableError> {
        chronolith_httpapi::put_varint(&mut self.held, data.len() as u64);
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32;
        self.held.extend_from_slice(&sum.to_be_bytes());
        self.held.extend_from_slice(data);
        if self.held.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), QueryableError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.held));
        let sent = self.runtime.block_on(tokio::time::timeout(CLIENT_PATIENCE, self.sender.send(Ok(piece))));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(QueryableError::new(QueryableErrorKind::Cancelled, "the client went away")),
            Err(_) => {
                let text = format!("the client took nothing for {CLIENT_PATIENCE:?}");
                Err(QueryableError::new(QueryableErrorKind::Timeout, text))
            }
        }
    }

    /// Ends the answer in the middle, so that the client sees that it is not whole.
    fn fail(&mut self, error: QueryableError) {
        let _ = self.runtime.block_on(tokio::time::timeout(CLIENT_PATIENCE, self.sender.send(Err(error))));
    }
}

fn put_labels(m: &mut ProtoBuf, labels: &Labels) {
    for (name, value) in labels.iter() {
        m.message(1, |m| {
            m.string(1, name).string(2, value);
        });
    }
}

fn put_spans(m: &mut ProtoBuf, field: u32, spans: &[Span]) {
    for span in spans {
        m.message(field, |m| {
            m.sint64(1, i64::from(span.offset)).int64(2, i64::from(span.length));
        });
    }
}

fn reset_number(reset: CounterReset) -> i64 {
    match reset {
        CounterReset::Unknown => 0,
        CounterReset::Reset => 1,
        CounterReset::NotReset => 2,
        CounterReset::Gauge => 3,
    }
}

fn put_histogram(m: &mut ProtoBuf, h: &Histogram, t: i64) {
    // Members of a oneof are written even where they are zero.
    m.uint64_always(1, h.count).double(3, h.sum).sint64(4, i64::from(h.schema)).double(5, h.zero_threshold);
    m.uint64_always(6, h.zero_count);
    put_spans(m, 8, &h.negative_spans);
    m.packed_sint64(9, &h.negative_buckets);
    put_spans(m, 11, &h.positive_spans);
    m.packed_sint64(12, &h.positive_buckets);
    m.int64(14, reset_number(h.counter_reset)).int64(15, t).packed_double(16, &h.custom_values);
}

fn put_float_histogram(m: &mut ProtoBuf, h: &FloatHistogram, t: i64) {
    m.double_always(2, h.count).double(3, h.sum).sint64(4, i64::from(h.schema)).double(5, h.zero_threshold);
    m.double_always(7, h.zero_count);
    put_spans(m, 8, &h.negative_spans);
    m.packed_double(10, &h.negative_buckets);
    put_spans(m, 11, &h.positive_spans);
    m.packed_double(13, &h.positive_buckets);
    m.int64(14, reset_number(h.counter_reset)).int64(15, t).packed_double(16, &h.custom_values);
}

#[cfg(test)]
#[path = "remote_read_tests.rs"]
mod tests;
