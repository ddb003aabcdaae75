//! The bucket client and its configuration.
//!
//! [`config`] reads Thanos's `objstore.yml`, [`Bucket`] is the handle that every other crate holds: object keys in,
//! bytes out, with retries, timeouts, a key prefix and metrics. Nothing here knows what a block is.

mod bucket;
mod client;
pub mod config;
pub mod contract;
mod error;
mod hedge;
mod metrics;
mod transfer;
pub mod yaml;

pub use bucket::{Bucket, ObjectInfo, PutOutcome};
pub use client::{install_crypto_provider, open};
pub use config::{BucketConfig, ConfigError};
pub use error::{BucketError, ErrorKind};
pub use hedge::HedgeOptions;
pub use metrics::BucketMetrics;
