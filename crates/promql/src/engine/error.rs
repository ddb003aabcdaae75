//! Why a query failed.

use crate::memory::MemoryExceeded;
use crate::parser::ParseErrors;
use crate::queryable::{QueryableError, QueryableErrorKind};

/// What a caller does about a failed query; the HTTP API's `errorType` derives from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineErrorKind {
    /// The query is not valid: `bad_data`.
    Invalid,
    /// The query failed on its data or a limit: `execution`.
    Execution,
    /// The query ran out of time: `timeout`.
    Timeout,
    /// The query was cancelled: `canceled`.
    Cancelled,
    /// The storage failed: `internal`.
    Storage,
}

/// A failed query; prints with upstream's text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The text is not a valid expression.
    #[error(transparent)]
    Parse(#[from] ParseErrors),
    /// The expression is valid, but not for this kind of query.
    #[error("{0}")]
    Invalid(String),
    /// The evaluation failed.
    #[error("{0}")]
    Execution(String),
    /// The sample budget was exceeded.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// The memory budget was exceeded.
    #[error("{0}")]
    TooMuchMemory(String),
    /// The deadline passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The query was cancelled.
    #[error("query was canceled in expression evaluation")]
    Cancelled,
    /// The storage failed.
    #[error("expanding series: {0}")]
    Storage(QueryableError),
}

impl EngineError {
    /// What a caller does about it.
    pub fn kind(&self) -> EngineErrorKind {
        match self {
            EngineError::Parse(_) | EngineError::Invalid(_) => EngineErrorKind::Invalid,
            EngineError::Execution(_) | EngineError::TooManySamples | EngineError::TooMuchMemory(_) => {
                EngineErrorKind::Execution
            }
            EngineError::Timeout => EngineErrorKind::Timeout,
            EngineError::Cancelled => EngineErrorKind::Cancelled,
            EngineError::Storage(_) => EngineErrorKind::Storage,
        }
    }
}

impl From<QueryableError> for EngineError {
    fn from(err: QueryableError) -> Self {
        match err.kind {
            QueryableErrorKind::Timeout => EngineError::Timeout,
            QueryableErrorKind::Cancelled => EngineError::Cancelled,
            QueryableErrorKind::MemoryExceeded => EngineError::TooMuchMemory(err.message),
            _ => EngineError::Storage(err),
        }
    }
}

impl From<MemoryExceeded> for EngineError {
    fn from(err: MemoryExceeded) -> Self {
        EngineError::TooMuchMemory(err.to_string())
    }
}
