//! What a remote-write request is answered.
//!
//! A sender drops a batch on 4xx and repeats it on 5xx, so a wrong class loses data or blocks the sender for ever: 4xx is
//! for what can never succeed, 5xx for what may. The first line of a text is all that Prometheus logs; it says the
//! most important thing.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chronolith_storeapi::{ErrorKind, RejectKind, WriteError, WriteReport};

use super::decode::DecodeError;

/// The longest text of an answer.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Bytes of a header's value that are repeated in an answer.
const QUOTED_BYTES_MAX: usize = 64;

/// Why a request was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// `Content-Encoding` is not snappy.
    #[error("unsupported content encoding {0:?}, want snappy")]
    Encoding(String),
    /// `Content-Type` is not remote write 1.0.
    #[error("{0}")]
    ContentType(String),
    /// The tenant cannot be one.
    #[error("{0}")]
    Tenant(#[from] chronolith_model::IdError),
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
    /// Not a write request.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Too many requests at a time.
    #[error("too many write requests in flight: waited {0} ms for memory")]
    Overload(u128),
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
    pub(super) fn encoding(value: &HeaderValue) -> Self {
        Refusal::Encoding(quoted(value))
    }

    /// A content type that is not taken.
    pub(super) fn content_type(value: &HeaderValue, why: &str) -> Self {
        Refusal::ContentType(format!("unsupported content type {:?}: {why}", quoted(value)))
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Encoding(_) | Refusal::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Tenant(_)
            | Refusal::Replica(_)
            | Refusal::Snappy(_)
            | Refusal::Decode(DecodeError::Wire(_)) => StatusCode::BAD_REQUEST,
            Refusal::TooLarge { .. } | Refusal::Decode(DecodeError::TooManyElements { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Refusal::Overload(_) | Refusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Body(_) | Refusal::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::Sink(error) => sink_status(error.kind()),
        }
    }

    /// A short constant for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Encoding(_) => "encoding",
            Refusal::ContentType(_) => "content_type",
            Refusal::Tenant(_) => "tenant",
            Refusal::Replica(_) => "replica",
            Refusal::TooLarge { .. } => "too_large",
            Refusal::Body(_) => "body",
            Refusal::Snappy(_) => "snappy",
            Refusal::Decode(DecodeError::Wire(_)) => "protobuf",
            Refusal::Decode(DecodeError::TooManyElements { .. }) => "too_many_elements",
            Refusal::Overload(_) => "overload",
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
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The answer for a batch that went through: `success`, or 400 with what was rejected while the rest is stored; 429
/// where a tenant's limit was the only reason, and `conflict` where something conflicts with what is stored.
pub(super) fn done(report: &WriteReport, success: StatusCode, conflict: StatusCode) -> Response {
    if report.rejected == 0 {
        return success.into_response();
    }
    let has = |kind| report.rejections.iter().any(|r| r.kind == kind);
    let status = if has(RejectKind::Conflict) {
        conflict
    } else if has(RejectKind::LimitExceeded) && !has(RejectKind::Invalid) {
        StatusCode::TOO_MANY_REQUESTS
    } else {
        StatusCode::BAD_REQUEST
    };
    text(status, rejections_text(report))
}

fn rejections_text(report: &WriteReport) -> String {
    let total = report.rejected + report.written;
    let mut lines = report.rejections.iter().map(|r| match r.t {
        Some(t) => format!("{}: series {} at {t}", r.reason, r.series),
        None => format!("{}: series {}", r.reason, r.series),
    });
    let first = lines.next().unwrap_or_else(|| "samples rejected".to_owned());
    let mut out = format!("{first} ({} of {total} samples rejected)", report.rejected);
    for line in lines {
        out.push('\n');
        out.push_str(&line);
    }
    out
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
    use chronolith_storeapi::WriteRejection;

    use super::*;

    fn rejection(kind: RejectKind) -> WriteRejection {
        WriteRejection { kind, series: "{a=\"b\"}".into(), t: Some(7), reason: "out of order sample".into() }
    }

    #[test]
    fn the_first_line_names_the_first_culprit() {
        let mut report = WriteReport { written: 3, ..WriteReport::default() };
        assert_eq!(
            done(&report, StatusCode::NO_CONTENT, StatusCode::BAD_REQUEST).status(),
            StatusCode::NO_CONTENT
        );
        report.reject(1, || rejection(RejectKind::Conflict));
        report.reject(1, || rejection(RejectKind::Invalid));
        let text = rejections_text(&report);
        let first = "out of order sample: series {a=\"b\"} at 7 (2 of 5 samples rejected)";
        assert_eq!(text.lines().collect::<Vec<_>>(), [first, "out of order sample: series {a=\"b\"} at 7"]);
        for status in [StatusCode::BAD_REQUEST, StatusCode::CONFLICT] {
            assert_eq!(done(&report, StatusCode::OK, status).status(), status);
        }
    }

    #[test]
    fn only_limits_is_429_and_doubt_is_503() {
        let mut report = WriteReport::default();
        report.reject(1, || rejection(RejectKind::LimitExceeded));
        assert_eq!(
            done(&report, StatusCode::OK, StatusCode::CONFLICT).status(),
            StatusCode::TOO_MANY_REQUESTS
        );
        let refusal = Refusal::Sink(WriteError::unavailable("the log failed"));
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refusal.into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
