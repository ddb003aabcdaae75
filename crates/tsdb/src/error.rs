//! The crate's error.

use std::io;
use std::path::{Path, PathBuf};

/// Short for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The thing asked for is not there.
    NotFound,
    /// The caller asked for something that cannot be done; the same call will fail again.
    Invalid,
    /// A size bound of a format or a configuration was hit.
    LimitExceeded,
    /// Stored bytes are damaged.
    Corrupt,
    /// The operating system failed; a retry may help.
    Unavailable,
}

/// Why an operation on local TSDB files failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "write", "rename".
        op: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Stored bytes do not follow the format.
    #[error("{file}: corrupt at offset {offset}: {what}")]
    Corrupt {
        /// The file, or the object the bytes came from.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A chunk cannot be decoded.
    #[error("{file}: chunk at offset {offset}")]
    Chunk {
        /// The segment, or the object the chunk came from.
        file: String,
        /// Where the chunk's entry begins.
        offset: u64,
        /// What is wrong with it.
        source: chronolith_chunk::ChunkError,
    },
    /// The format or its version is not one that this build reads.
    #[error("{file}: {what}")]
    Unsupported {
        /// The file.
        file: String,
        /// What it has, and what would be understood.
        what: String,
    },
    /// Input that a writer must not store.
    #[error("{0}")]
    Invalid(String),
    /// A bound of the format was hit while writing.
    #[error("{file}: {what} needs {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// The file being written.
        file: String,
        /// Which part of it.
        what: &'static str,
        /// What it would need.
        bytes: u64,
        /// What the format can hold.
        bytes_max: u64,
    },
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::NotFound,
            Error::Io { .. } => ErrorKind::Unavailable,
            Error::Corrupt { .. } | Error::Chunk { .. } => ErrorKind::Corrupt,
            Error::Unsupported { .. } | Error::Invalid(_) => ErrorKind::Invalid,
            Error::TooLarge { .. } => ErrorKind::LimitExceeded,
        }
    }

    /// For `map_err`: wraps an I/O error with what was tried on which path.
    pub fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { op, path, source }
    }

    /// A [`Error::Corrupt`].
    pub fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { file: file.to_owned(), offset, what: what.into() }
    }
}
