//! Caches outside of the process's memory.
//!
//! ```text
//! reader ─ GuardedCache (deadline, breaker, checksums, queue of writes) ─ Backend: disk │ memcached │ Redis
//! ```
//!
//! Knows nothing of blocks: keys are text, values are bytes, and values never change under a key. A cache may lose
//! anything at any time; what it does wrong costs its readers a bounded wait and is otherwise a miss.

mod disk;
mod guard;
mod memcached;
mod redis_client;
mod servers;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use disk::{DiskCache, DiskOptions};
pub use guard::{CacheMetrics, GuardOptions, GuardedCache};
pub use memcached::{Memcached, MemcachedOptions};
pub use redis_client::{RedisCache, RedisOptions};

/// Why a cache did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The connection, or the disk.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Redis or the way to it.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// An answer that is none of the protocol.
    #[error("{0}")]
    Protocol(String),
    /// Settings that cannot work.
    #[error("{0}")]
    Settings(String),
}

/// Where values lie.
#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// The values of keys that are there, in the keys' order.
    async fn get(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, CacheError>;
    /// Keeps values.
    async fn put(&self, items: Vec<(String, Bytes)>) -> Result<(), CacheError>;
}

/// A backend as readers hold it.
pub type SharedBackend = Arc<dyn Backend>;
