//! What an OTLP request is answered: the specification's messages, in the request's own encoding.
//!
//! ```text
//! ExportMetricsServiceResponse { 1: partial success { 1: rejected points, 2: text } }     200, empty when all is well
//! Status { 1: code, 2: text }                                                             everything else
//! ```
//!
//! A part that was refused is a partial success; where nothing was stored, it is 400, as in Prometheus, since most SDKs
//! look at nothing but the status. 429 and 503 are what a sender repeats.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chronolith_storeapi::{RejectKind, WriteReport};

use super::protocol::Format;
use super::reply::{Refusal, rejections_text};

/// gRPC's numbers for what goes wrong.
const INVALID_ARGUMENT: u64 = 3;
const RESOURCE_EXHAUSTED: u64 = 8;
const INTERNAL: u64 = 13;
const UNAVAILABLE: u64 = 14;

/// The answer for a batch that went through, wholly or in part.
pub(super) fn done(format: Format, report: &WriteReport) -> Response {
    if report.rejected == 0 && report.rejections.is_empty() {
        return reply(format, StatusCode::OK, Vec::new(), || serde_json::json!({}));
    }
    let text = rejections_text(report, false);
    let has = |kind| report.rejections.iter().any(|r| r.kind == kind);
    if has(RejectKind::LimitExceeded) && !has(RejectKind::Invalid) && !has(RejectKind::Conflict) {
        return status(format, StatusCode::TOO_MANY_REQUESTS, text);
    }
    if report.written == 0 {
        return status(format, StatusCode::BAD_REQUEST, text);
    }
    let mut partial = Vec::new();
    put_number(1, report.rejected as u64, &mut partial);
    put_bytes(2, text.as_bytes(), &mut partial);
    let mut message = Vec::new();
    put_bytes(1, &partial, &mut message);
    reply(format, StatusCode::OK, message, || {
        let rejected = report.rejected.to_string();
        serde_json::json!({"partialSuccess": {"rejectedDataPoints": rejected, "errorMessage": text}})
    })
}

/// The answer for a request that was refused. What remote write calls an unsupported type is a bad request here, as in
/// Prometheus.
pub(super) fn refused(format: Format, refusal: Refusal) -> Response {
    let code = match refusal.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
        code => code,
    };
    status(format, code, refusal.to_string())
}

fn status(format: Format, code: StatusCode, text: String) -> Response {
    let number = match code {
        StatusCode::TOO_MANY_REQUESTS => RESOURCE_EXHAUSTED,
        StatusCode::SERVICE_UNAVAILABLE => UNAVAILABLE,
        code if code.is_server_error() => INTERNAL,
        _ => INVALID_ARGUMENT,
    };
    let mut message = Vec::new();
    put_number(1, number, &mut message);
    put_bytes(2, text.as_bytes(), &mut message);
    let mut response = reply(format, code, message, || serde_json::json!({"code": number, "message": text}));
    if matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn reply(
    format: Format,
    code: StatusCode,
    protobuf: Vec<u8>,
    json: impl FnOnce() -> serde_json::Value,
) -> Response {
    match format {
        Format::OtlpJson => {
            (code, [(header::CONTENT_TYPE, "application/json")], json().to_string()).into_response()
        }
        _ => (code, [(header::CONTENT_TYPE, "application/x-protobuf")], protobuf).into_response(),
    }
}

/// A field of numbers.
fn put_number(field: u8, v: u64, out: &mut Vec<u8>) {
    out.push(field << 3);
    put_varint(v, out);
}

/// A field of text or of a message.
fn put_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}
