//! Prometheus remote write over HTTP.

mod admission;
mod body;
mod budget;
mod decode;
pub mod decode_v1;
pub mod decode_v2;
mod histogram;
mod http;
mod metrics;
mod pool;
mod protocol;
mod replica;
mod reply;
mod sections;
mod tenant;
pub mod wire;

pub use decode::{DecodeError, DecodeStats};
pub use http::{RemoteWrite, RemoteWriteOptions};
pub use pool::{BatchPool, BatchSlot};
pub use replica::{REPLICA_HEADER, ReplicaHeader};
pub use reply::Refusal;
