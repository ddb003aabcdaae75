//! Why a limit refused a request, and what is answered.

use std::time::Duration;

use axum::http::StatusCode;

/// A request that a limit refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitRefusal {
    /// Thanos's per-request limits.
    #[error("{what} of {found} is above the tenant's limit of {limit} per request")]
    Request {
        /// "write request size in bytes", "timeseries", "samples".
        what: &'static str,
        /// As much as was seen.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Samples a second.
    #[error("ingestion rate limit of {samples_per_second} samples per second exceeded, come back in {} s", retry.as_secs())]
    Rate {
        /// The limit.
        samples_per_second: u64,
        /// When there will be room.
        retry: Duration,
    },
    /// Requests at a time.
    #[error("limit of {0} concurrent requests of the tenant reached")]
    Concurrency(usize),
    /// Too many requests of the tenant wait already.
    #[error("{0} requests of the tenant wait already")]
    Queue(usize),
}

impl LimitRefusal {
    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            LimitRefusal::Request { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            LimitRefusal::Rate { .. } | LimitRefusal::Concurrency(_) => StatusCode::TOO_MANY_REQUESTS,
            // Nothing that was configured: the machine is busy, and a sender that repeats loses nothing.
            LimitRefusal::Queue(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `Retry-After`, in seconds.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            LimitRefusal::Request { .. } => None,
            // A whole second at the least; and nobody should stay away for longer than it takes to raise a limit.
            LimitRefusal::Rate { retry, .. } => Some((retry.as_secs() + 1).min(60)),
            LimitRefusal::Concurrency(_) | LimitRefusal::Queue(_) => Some(1),
        }
    }

    /// A short constant for metrics, the file's key.
    pub fn reason(&self) -> &'static str {
        match self {
            LimitRefusal::Request { what: "timeseries", .. } => "series_limit",
            LimitRefusal::Request { what: "samples", .. } => "samples_limit",
            LimitRefusal::Request { .. } => "size_bytes_limit",
            LimitRefusal::Rate { .. } => "ingestion",
            LimitRefusal::Concurrency(_) => "concurrent_requests_limit",
            LimitRefusal::Queue(_) => "queue",
        }
    }
}
