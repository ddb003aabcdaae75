//! Native histogram chunks.
//!
//! ```text
//! header (3 bytes) | layout | samples
//!
//! layout        zero threshold | schema | positive spans | negative spans | [custom bounds]
//! int sample    t, count, zero count, sum, buckets (deltas between neighbours); later ones as deltas of deltas, the
//!               sum as XOR
//! float sample  t, count, zero count, sum, buckets (absolute); later ones as XOR, each with a window of its own
//! ```
//!
//! Encodings 2 and 3 are that; in 5 and 6 a start timestamp follows each sample, see [`crate::start_ts`], and the header is
//! another one, see [`header`]. Upstream calls these two experimental: the bytes are those of Prometheus 3.14.0.
//!
//! The layout is written once; [`encoder`] holds the rules by which a histogram with other buckets is fitted in.

mod encoder;
mod float;
mod header;
mod int;
mod layout;
mod reader;
mod union;

use encoder::Encoder;
#[cfg(test)]
use encoder::Kind;
use float::Floats;
use int::Ints;

use chronolith_model::histogram::{
    CounterReset, EXPONENTIAL_SCHEMA_MAX, EXPONENTIAL_SCHEMA_MAX_RESERVED, EXPONENTIAL_SCHEMA_MIN_RESERVED,
};

pub(crate) use float::FloatHistogramIter;
pub(crate) use header::ST_SAMPLES_MAX;
pub(crate) use int::HistogramIter;
pub use layout::HistogramLayout;
pub use reader::HistogramReader;

/// Builds chunks of integer histograms.
pub type HistogramEncoder = Encoder<Ints>;
/// Builds chunks of float histograms.
pub type FloatHistogramEncoder = Encoder<Floats>;

/// What a reader is told about sample `i`. The first one of a counter chunk is unknown whatever the header says: the
/// chunk before it may be gone, or another one may have come between.
fn hint(header: CounterReset, i: usize) -> CounterReset {
    match header {
        CounterReset::Gauge => CounterReset::Gauge,
        _ if i > 0 => CounterReset::NotReset,
        _ => CounterReset::Unknown,
    }
}

/// True for schemas that readers accept; finer ones than 8 are reduced.
fn is_known_schema(schema: i64) -> bool {
    let reserved = EXPONENTIAL_SCHEMA_MIN_RESERVED..=EXPONENTIAL_SCHEMA_MAX_RESERVED;
    i32::try_from(schema)
        .is_ok_and(|s| s == chronolith_model::histogram::CUSTOM_BUCKETS_SCHEMA || reserved.contains(&s))
}

fn must_reduce(schema: i32) -> bool {
    schema > EXPONENTIAL_SCHEMA_MAX
}

#[cfg(test)]
mod tests;
