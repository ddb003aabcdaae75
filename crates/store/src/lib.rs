//! The store role: every block of a bucket behind the StoreAPI.
//!
//! ```text
//! sync loop ─ Fetcher ─ snapshot of blocks by external labels and resolution
//! request ─ choice of blocks ─ BucketBlock::select (a task each) ─ shape ─ merge ─ stream
//! ```
//!
//! [`build`] binds the listeners and hands back the [`chronolith_storeapi::Store`]; [`run()`] syncs and serves until
//! shutdown.

mod blocks;
mod cache_config;
mod caches;
mod config;
mod labels;
mod metrics;
mod report;
mod run;
mod series;
mod source;

pub use cache_config::{CachePlace, ChunkCacheConfig, IndexCacheConfig};
pub use chronolith_bucket::TimeBound;
pub use config::Config;
pub use run::{BuildError, Built, Parts, build, run};
pub use source::{BucketStore, SyncReport};
