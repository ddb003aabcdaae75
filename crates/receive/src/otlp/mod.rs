//! OpenTelemetry's metrics over HTTP: OTLP requests as batches, by Prometheus's translation.
//!
//! ```text
//! protobuf ────────┐
//! JSON ─ json ─────┴─ translate ─ resource ─ metric ─ points ─ series ─ WriteBatch
//!                                                  └ delta (names, value, labels, native, exemplar, target_info)
//! ```
//!
//! The request's way before and after is that of remote write (`remote_write::http`).

mod delta;
mod exemplar;
mod json;
mod labels;
mod metric;
mod names;
mod native;
mod points;
mod resource;
mod series;
mod settings;
mod target_info;
mod translate;
mod value;

pub(crate) use delta::Totals;
pub use delta::{DeltaTotals, Deltas};
pub use json::to_protobuf;
pub use settings::{OtlpSettings, TranslationStrategy};
pub use translate::{Translated, translate};
