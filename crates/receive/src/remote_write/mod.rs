//! Prometheus remote write over HTTP.

mod body;
mod budget;
mod decode;
pub mod decode_v1;
mod http;
mod in_flight;
mod metrics;
mod pool;
mod protocol;
mod reply;
mod tenant;
pub mod wire;

pub use decode::{DecodeError, DecodeStats};
pub use http::{RemoteWrite, RemoteWriteOptions, TENANT_HEADER};
pub use pool::{BatchPool, BatchSlot};
pub use reply::Refusal;
