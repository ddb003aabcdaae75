//! What a remote-write request is answered.
//!
//! A sender drops a batch on 4xx and repeats it on 5xx, so a wrong class loses data or blocks the sender for ever: 4xx is
//! for what can never succeed, 5xx for what may. The first line of a text is all that Prometheus logs; it says the
//! most important thing.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chronolith_storeapi::{ErrorKind, RejectKind, WriteError, WriteRejection, WriteReport};

use super::decode::DecodeError;
use super::protocol::Format;
use crate::limits::LimitRefusal;
use crate::tenant::TenantRefusal;

/// How much of a remote write 2.0 request is stored.
const SAMPLES_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-samples-written");
const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
const EXEMPLARS_WRITTEN: HeaderName = HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// The longest text of an answer.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// `Retry-After` of a tenant above its active series: these go away with the next block that is cut, not within seconds.
const LIMIT_RETRY_SECONDS: &str = "30";
/// Bytes of a header's value that are repeated in an answer.
const QUOTED_BYTES_MAX: usize = 64;

/// Why a request was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// `Content-Encoding` is not what the protocol takes.
    #[error("unsupported content encoding {0:?}, want {1}")]
    Encoding(String, &'static str),
    /// `Content-Type` is not remote write 1.0.
    #[error("{0}")]
    ContentType(String),
    /// The tenant cannot be one, or is not named.
    #[error("{0}")]
    Tenant(#[from] TenantRefusal),
    /// A limit of the tenant.
    #[error(transparent)]
    Limit(#[from] LimitRefusal),
    /// The replica number cannot be one.
    #[error("{0}")]
    Replica(String),
    /// The body or what it decompresses to is too large.
    #[error("{what} of {bytes} bytes is larger than the limit of {bytes_max}")]
    TooLarge {
        /// Which of the two.
        what: &'static str,
        /// Its size; for a body without a length, what came until it was cut off.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The connection broke.
    #[error("reading the request body failed: {0}")]
    Body(String),
    /// Not a snappy block.
    #[error("snappy decompression failed: {0}")]
    Snappy(String),
    /// Not gzip.
    #[error("gzip decompression failed: {0}")]
    Gzip(String),
    /// Not OTLP in JSON.
    #[error("malformed JSON: {0}")]
    Json(String),
    /// Not a write request.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Too many requests at a time.
    #[error("too many write requests in flight: waited {waited_ms} ms for {what}")]
    Overload {
        /// How long.
        waited_ms: u128,
        /// What for.
        what: &'static str,
    },
    /// The process is stopping.
    #[error("shutting down")]
    ShuttingDown,
    /// The sink failed.
    #[error("{}", .0.chain())]
    Sink(WriteError),
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Refusal {
    /// A content encoding that is not taken.
    pub(super) fn encoding(value: &HeaderValue, want: &'static str) -> Self {
        Refusal::Encoding(quoted(value), want)
    }

    /// A content type that is not taken.
    pub(super) fn content_type(value: &HeaderValue, why: &str) -> Self {
        Refusal::ContentType(format!("unsupported content type {:?}: {why}", quoted(value)))
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Encoding(..) | Refusal::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Tenant(_)
            | Refusal::Replica(_)
            | Refusal::Snappy(_)
            | Refusal::Gzip(_)
            | Refusal::Json(_)
            | Refusal::Decode(DecodeError::Wire(_)) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge { .. } | Refusal::Decode(DecodeError::TooManyElements { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Refusal::Overload { .. } | Refusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Limit(refusal) => refusal.status(),
            Refusal::Body(_) | Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::Sink(error) => sink_status(error.kind()),
        }
    }

    /// A short constant for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Encoding(..) => "encoding",
            Refusal::ContentType(_) => "content_type",
            Refusal::Tenant(_) => "tenant",
            Refusal::Replica(_) => "replica",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::Body(_) => "body",
            Refusal::Snappy(_) => "snappy",
            Refusal::Gzip(_) => "gzip",
            Refusal::Json(_) => "json",
            Refusal::Decode(DecodeError::Wire(_)) => "protobuf",
            Refusal::Decode(DecodeError::TooManyElements { .. }) => "too_many_elements",
            Refusal::Limit(_) => "limit",
            Refusal::Overload { .. } => "overload",
            Refusal::ShuttingDown => "shutting_down",
            Refusal::Sink(_) => "sink",
            Refusal::Internal(_) => "internal",
        }
    }
}

fn sink_status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        // In doubt 503: a sender that repeats loses nothing.
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Aborted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = text(self.status(), self.to_string());
        let seconds = match &self {
            Refusal::Limit(refusal) => refusal.retry_after_seconds(),
            _ => (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        };
        if let Some(seconds) = seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The answer for a batch that went through: `success`, or 400 with what was rejected while the rest is stored; 429
/// where a tenant's limit was the only reason, and `conflict` where something conflicts with what is stored. 2.0 hears how
/// much was stored, and of exemplars that came too late.
pub(super) fn done(
    format: Format,
    report: &WriteReport,
    success: StatusCode,
    conflict: StatusCode,
) -> Response {
    let late_exemplars = format == Format::V2 && report.exemplars_out_of_order > 0;
    let mut response = if report.rejected == 0 && report.rejections.is_empty() && !late_exemplars {
        success.into_response()
    } else {
        let has = |kind| report.rejections.iter().any(|r| r.kind == kind);
        let status = if has(RejectKind::Conflict) {
            conflict
        } else if has(RejectKind::LimitExceeded) && !has(RejectKind::Invalid) {
            StatusCode::TOO_MANY_REQUESTS
        } else {
            StatusCode::BAD_REQUEST
        };
        text(status, rejections_text(report, late_exemplars))
    };
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(LIMIT_RETRY_SECONDS));
    }
    if format == Format::V2 {
        put_written(&mut response, report);
    }
    response
}

/// The answer for a request that was refused: 2.0 hears that nothing was stored.
pub(super) fn refused(format: Option<Format>, refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    if format == Some(Format::V2) {
        put_written(&mut response, &WriteReport::default());
    }
    response
}

/// Remote write 2.0's headers.
fn put_written(response: &mut Response, report: &WriteReport) {
    for (name, count) in [
        (SAMPLES_WRITTEN, report.written.saturating_sub(report.histograms_written)),
        (HISTOGRAMS_WRITTEN, report.histograms_written),
        (EXEMPLARS_WRITTEN, report.exemplars_written),
    ] {
        response.headers_mut().insert(name, HeaderValue::from(count));
    }
}

pub(super) fn rejections_text(report: &WriteReport, late_exemplars: bool) -> String {
    let total = report.rejected + report.written;
    let mut lines: Vec<String> = report.rejections.iter().map(rejection_text).collect();
    if late_exemplars {
        lines.push(format!("out of order exemplar ({} of them)", report.exemplars_out_of_order));
    }
    if lines.is_empty() {
        lines.push("samples rejected".to_owned());
    }
    if report.rejected > 0 {
        lines[0].push_str(&format!(" ({} of {total} samples rejected)", report.rejected));
    }
    lines.join("\n")
}

fn rejection_text(rejection: &WriteRejection) -> String {
    let WriteRejection { reason, series, t, .. } = rejection;
    match t {
        Some(t) => format!("{reason}: series {series} at {t}"),
        None => format!("{reason}: series {series}"),
    }
}

fn text(status: StatusCode, mut text: String) -> Response {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate((0..=TEXT_BYTES_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0));
        text.push('…');
    }
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

fn quoted(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(kind: RejectKind) -> WriteRejection {
        WriteRejection { kind, series: "{a=\"b\"}".into(), t: Some(7), reason: "out of order sample".into() }
    }

    #[test]
    fn the_first_line_names_the_first_culprit() {
        let mut report = WriteReport { written: 3, ..WriteReport::default() };
        assert_eq!(
            done(Format::V1, &report, StatusCode::NO_CONTENT, StatusCode::BAD_REQUEST).status(),
            StatusCode::NO_CONTENT
        );
        report.reject(1, || rejection(RejectKind::Conflict));
        report.reject(1, || rejection(RejectKind::Invalid));
        let text = rejections_text(&report, false);
        let first = "out of order sample: series {a=\"b\"} at 7 (2 of 5 samples rejected)";
        assert_eq!(text.lines().collect::<Vec<_>>(), [first, "out of order sample: series {a=\"b\"} at 7"]);
        for status in [StatusCode::BAD_REQUEST, StatusCode::CONFLICT] {
            assert_eq!(done(Format::V1, &report, StatusCode::OK, status).status(), status);
        }
    }

    #[test]
    fn only_limits_is_429_and_doubt_is_503() {
        let mut report = WriteReport::default();
        report.reject(1, || rejection(RejectKind::LimitExceeded));
        assert_eq!(
            done(Format::V1, &report, StatusCode::OK, StatusCode::CONFLICT).status(),
            StatusCode::TOO_MANY_REQUESTS
        );
        let refusal = Refusal::Sink(WriteError::unavailable("the log failed"));
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refusal.into_response().headers().contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn two_point_oh_hears_what_was_stored() {
        let header = |response: &Response, name: HeaderName| {
            response.headers().get(name).map(|v| v.to_str().unwrap().to_owned())
        };
        let all = |response: &Response| {
            [SAMPLES_WRITTEN, HISTOGRAMS_WRITTEN, EXEMPLARS_WRITTEN].map(|name| header(response, name))
        };
        let counts = |s: &str, h: &str, e: &str| [s, h, e].map(|c| Some(c.to_owned()));
        let mut report =
            WriteReport { written: 5, histograms_written: 2, exemplars_written: 1, ..WriteReport::default() };
        let response = done(Format::V2, &report, StatusCode::NO_CONTENT, StatusCode::BAD_REQUEST);
        assert_eq!((response.status(), all(&response)), (StatusCode::NO_CONTENT, counts("3", "2", "1")));
        assert_eq!(
            all(&done(Format::V1, &report, StatusCode::NO_CONTENT, StatusCode::BAD_REQUEST)),
            [None, None, None]
        );
        report.exemplars_out_of_order = 2;
        assert_eq!(
            done(Format::V1, &report, StatusCode::OK, StatusCode::BAD_REQUEST).status(),
            StatusCode::OK
        );
        let response = done(Format::V2, &report, StatusCode::OK, StatusCode::BAD_REQUEST);
        assert_eq!((response.status(), all(&response)), (StatusCode::BAD_REQUEST, counts("3", "2", "1")));
        assert_eq!(rejections_text(&report, true), "out of order exemplar (2 of them)");
        // A series that was left out though it had no sample.
        let mut report = WriteReport::default();
        report.reject(0, || rejection(RejectKind::Invalid));
        assert_eq!(
            done(Format::V2, &report, StatusCode::OK, StatusCode::BAD_REQUEST).status(),
            StatusCode::BAD_REQUEST
        );
        let response = refused(Some(Format::V2), Refusal::ShuttingDown);
        assert_eq!(all(&response), counts("0", "0", "0"));
        assert_eq!(all(&refused(None, Refusal::ShuttingDown)), [None, None, None]);
    }
}
