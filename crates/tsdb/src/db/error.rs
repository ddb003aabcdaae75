//! Why a database operation failed.

use std::io;
use std::path::PathBuf;

use chronolith_model::{BlockId, TenantId};

use crate::wal::WalError;

/// Why a database operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// A file operation failed.
    #[error("{op} {}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// A setting makes no sense.
    #[error("invalid setting: {0}")]
    InvalidOption(String),
    /// A file that every start needs is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A block could not be written or read.
    #[error("tenant {tenant}")]
    Block {
        /// Whose block.
        tenant: TenantId,
        /// What happened.
        source: crate::Error,
    },
    /// No such tenant.
    #[error("no tenant {0}")]
    UnknownTenant(TenantId),
    /// No such block.
    #[error("tenant {tenant} has no block {block}")]
    UnknownBlock {
        /// Whose block.
        tenant: TenantId,
        /// Which.
        block: BlockId,
    },
}

impl DbError {
    pub(crate) fn io(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DbError {
        let path = path.into();
        move |source| DbError::Io { op, path, source }
    }
}
