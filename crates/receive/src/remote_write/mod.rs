//! Prometheus remote write over HTTP.

mod budget;
pub mod decode_v1;
mod http;
mod metrics;
mod pool;
mod reply;
pub mod wire;

pub use http::{RemoteWrite, RemoteWriteOptions, TENANT_HEADER};
pub use pool::{BatchPool, BatchSlot};
pub use reply::Refusal;
