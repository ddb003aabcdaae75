//! Errors of bucket operations.

use std::fmt;

/// What a caller should do about a failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such object.
    NotFound,
    /// The object is there already (a create), or another writer was faster.
    Conflict,
    /// The key, the range or the configuration is wrong; trying again will not help.
    Invalid,
    /// The credentials are missing, wrong or not sufficient.
    Denied,
    /// The object is larger than the caller allows.
    LimitExceeded,
    /// The store did not answer, or answered with a failure of its own; trying again later may help.
    Unavailable,
    /// The store cannot do this.
    Unsupported,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::NotFound => "object not found",
            ErrorKind::Conflict => "object already exists",
            ErrorKind::Invalid => "invalid request",
            ErrorKind::Denied => "access denied",
            ErrorKind::LimitExceeded => "object too large",
            ErrorKind::Unavailable => "bucket unavailable",
            ErrorKind::Unsupported => "not supported by the bucket",
        })
    }
}

/// A failed bucket operation: which one, on which key, and what the store said.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {key:?}: {kind}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct BucketError {
    /// Name of the operation, as in the metrics.
    pub operation: &'static str,
    /// Object key or prefix, as the caller gave it.
    pub key: String,
    kind: ErrorKind,
    detail: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BucketError {
    /// What a caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// True when there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    pub(crate) fn new(
        operation: &'static str,
        key: &str,
        kind: ErrorKind,
        detail: impl Into<String>,
    ) -> Self {
        BucketError { operation, key: key.to_owned(), kind, detail: Some(detail.into()), source: None }
    }

    pub(crate) fn io(operation: &'static str, key: &str, err: std::io::Error) -> Self {
        let kind = match err.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Unavailable,
        };
        let detail = Some("local file".to_owned());
        BucketError { operation, key: key.to_owned(), kind, detail, source: Some(Box::new(err)) }
    }

    pub(crate) fn from_store(operation: &'static str, key: &str, err: object_store::Error) -> Self {
        use object_store::Error;
        let kind = match &err {
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => ErrorKind::Conflict,
            Error::NotModified { .. } => ErrorKind::Conflict,
            Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorKind::Denied,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Unavailable,
        };
        BucketError { operation, key: key.to_owned(), kind, detail: None, source: Some(Box::new(err)) }
    }
}
