//! The Prometheus HTTP API's common ground: parameters, times and durations, the reply envelope, error kinds and
//! their status codes, the JSON of query results written straight from the columns, exposition formats.
//!
//! Knows HTTP and JSON, and the values of PromQL; knows nothing of storage. Source: Prometheus `web/api/v1` and
//! `util/jsonutil`, as the project's contract pages describe them.

mod error;
mod exposition;
mod insight_json;
mod json;
mod params;
mod protobuf;
mod reply;
mod value_json;

pub use error::{ApiError, ErrorKind};
pub use exposition::{Exposition, ExpositionFormat};
pub use insight_json::{StepTimes, seconds, write_analysis, write_explanation, write_stats, write_timings};
pub use json::{JsonBuf, format_float};
pub use params::{
    Params, TIME_MAX_MS, TIME_MIN_MS, decode_label_name, parse_bool, parse_duration, parse_int, parse_time,
};
pub use protobuf::{ProtoBuf, put_varint};
pub use reply::{Annotations, failure, success, try_success};
pub use value_json::{value_bytes, write_labels, write_value, write_value_while};
