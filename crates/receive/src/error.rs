//! Why the receive role failed.

use chronolith_model::{BlockId, TenantId};
use chronolith_service::config::ConfigError;
use chronolith_service::http::BindError;
use chronolith_service::tls::TlsError;
use chronolith_storeapi::StoreError;
use chronolith_tsdb::db::DbError;

/// Why the receive role failed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// A setting makes no sense.
    #[error("invalid setting: {0}")]
    Config(String),
    /// A configuration file is wrong.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// TLS cannot be set up.
    #[error("{flags}")]
    Tls {
        /// Whose flags.
        flags: &'static str,
        /// Why.
        source: TlsError,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A block could not be uploaded.
    #[error("tenant {tenant}, block {block}")]
    Ship {
        /// Whose block.
        tenant: TenantId,
        /// Which.
        block: BlockId,
        /// Why.
        source: Box<chronolith_bucket::Error>,
    },
    /// A block was uploaded, but the bucket does not show it.
    #[error("tenant {tenant}, block {block}: uploaded, but the bucket does not show all of it")]
    NotSeen {
        /// Whose block.
        tenant: TenantId,
        /// Which.
        block: BlockId,
    },
    /// Blocks are damaged, so not everything is in the bucket.
    #[error("{0} local blocks are damaged and were not uploaded")]
    Damaged(usize),
    /// Hints for other receivers could not be delivered, so not everything has left this machine.
    #[error("hints for {} could not be delivered", peers.join(", "))]
    HintsLeft {
        /// Addresses of the receivers.
        peers: Vec<String>,
    },
    /// There is no bucket.
    #[error("no object storage is configured")]
    NoBucket,
    /// Not ready, or a listener failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug.
    #[error("a task failed: {0}")]
    Panicked(String),
}
