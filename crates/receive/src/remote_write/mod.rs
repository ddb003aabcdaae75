//! Writes over HTTP: Prometheus remote write, and OTLP on the same way.

mod admission;
mod body;
mod budget;
mod decode;
pub mod decode_v1;
pub mod decode_v2;
mod heard;
mod histogram;
mod http;
mod label_key;
mod metrics;
mod otlp_reply;
mod pool;
mod protocol;
mod replica;
mod reply;
mod sample;
mod sections;
mod tenant;
mod threads;
pub mod wire;

pub(crate) use decode::{
    Budget, EXEMPLAR_BYTES, HISTOGRAM_BYTES, METADATA_BYTES, SAMPLE_BYTES, SERIES_BYTES,
};
pub use decode::{DecodeError, DecodeStats};
pub use heard::Hearing;
pub use http::{RemoteWrite, RemoteWriteOptions};
pub use label_key::LabelKey;
pub use pool::{BatchPool, BatchSlot};
pub use replica::{REPLICA_HEADER, ReplicaHeader};
pub use reply::Refusal;
pub(crate) use sections::{Piece, Sections};
pub use wire::WireError;
pub(crate) use wire::{Cursor, WireType};
