//! OpenTelemetry's metrics over HTTP: OTLP requests as batches, by Prometheus's translation.
//!
//! ```text
//! protobuf ────────┐
//! JSON ─ json ─────┴─ translate ─ points ─ WriteBatch      (names, value, labels, native, exemplar, target_info)
//! ```
//!
//! The request's way before and after is that of remote write (`remote_write::http`).

mod exemplar;
mod json;
mod labels;
mod names;
mod native;
mod points;
mod settings;
mod target_info;
mod translate;
mod value;

pub use json::to_protobuf;
pub use settings::{OtlpSettings, TranslationStrategy};
pub use translate::{Translated, translate};
