//! What an API call fails with.

use http::StatusCode;

/// Upstream's `errorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A missing or invalid parameter, a parse error.
    BadData,
    /// Evaluation failed.
    Execution,
    /// The client went away.
    Canceled,
    /// The query ran out of time.
    Timeout,
    /// Storage failed, and everything else.
    Internal,
    /// The feature is off, or the server is not ready for it.
    Unavailable,
    /// Too many queries wait already; not upstream's, which lets them wait without a bound.
    TooManyRequests,
    /// No such thing.
    NotFound,
}

impl ErrorKind {
    /// The text in the envelope.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::BadData => "bad_data",
            ErrorKind::Execution => "execution",
            ErrorKind::Canceled => "canceled",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Internal => "internal",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::TooManyRequests => "too_many_requests",
            ErrorKind::NotFound => "not_found",
        }
    }

    /// The status code. `unavailable` is 500, as upstream's own mapping has it.
    pub fn status(self) -> StatusCode {
        match self {
            ErrorKind::BadData => StatusCode::BAD_REQUEST,
            ErrorKind::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Canceled => StatusCode::from_u16(499).expect("499 is between 100 and 999"),
            ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal | ErrorKind::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// A failed API call: a kind and a text for the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong in kind.
    pub kind: ErrorKind,
    /// What went wrong in words.
    pub message: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        ApiError { kind, message: message.into() }
    }

    /// A missing or invalid parameter, with a text of its own, status 400.
    pub fn bad_data(message: impl Into<String>) -> Self {
        ApiError::new(ErrorKind::BadData, message)
    }

    /// `invalid parameter "name": why`, status 400.
    pub fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        ApiError::new(ErrorKind::BadData, format!("invalid parameter {name:?}: {why}"))
    }
}
