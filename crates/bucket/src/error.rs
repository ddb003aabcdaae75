//! Errors of blocks in a bucket.

use chronolith_objstore::BucketError;

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object or file is not there.
    NotFound,
    /// The same call will fail again.
    Invalid,
    /// A bound of the request was hit.
    LimitExceeded,
    /// Stored bytes are damaged.
    Corrupt,
    /// Trying again later may help.
    Unavailable,
}

/// Why an operation on a block in a bucket failed. The text names block, object and offset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket failed; the key in it begins with the block.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Bytes of an index, header, meta or local file are damaged or not readable.
    #[error(transparent)]
    Tsdb(#[from] chronolith_tsdb::Error),
    /// A bound of the request was hit.
    #[error("block {block}: {what}: limit of {max} exceeded")]
    Limit {
        /// The block that was read when it happened.
        block: chronolith_model::BlockId,
        /// What was counted.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A local file or directory.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which path.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something that must not be uploaded or marked.
    #[error("block {block}: {what}")]
    Invalid {
        /// The block.
        block: chronolith_model::BlockId,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        use chronolith_objstore::ErrorKind as B;
        use chronolith_tsdb::ErrorKind as T;
        match self {
            Error::Bucket(e) => match e.kind() {
                B::NotFound => ErrorKind::NotFound,
                B::LimitExceeded => ErrorKind::LimitExceeded,
                B::Unavailable => ErrorKind::Unavailable,
                B::Conflict | B::Invalid | B::Denied | B::Unsupported => ErrorKind::Invalid,
            },
            Error::Tsdb(e) => match e.kind() {
                T::NotFound => ErrorKind::NotFound,
                T::Invalid => ErrorKind::Invalid,
                T::LimitExceeded => ErrorKind::LimitExceeded,
                T::Corrupt => ErrorKind::Corrupt,
                T::Unavailable => ErrorKind::Unavailable,
            },
            Error::Limit { .. } => ErrorKind::LimitExceeded,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Error::Io { .. } => ErrorKind::Unavailable,
            Error::Invalid { .. } => ErrorKind::Invalid,
        }
    }

    pub(crate) fn io(op: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { op, path, source }
    }

    pub(crate) fn corrupt(object: &str, offset: u64, what: impl Into<String>) -> Error {
        Error::Tsdb(chronolith_tsdb::Error::corrupt(object, offset, what))
    }

    /// The text with all causes, for logs and warnings.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(e) = cause {
            text.push_str(": ");
            text.push_str(&e.to_string());
            cause = e.source();
        }
        text
    }
}
