//! Native histograms: the integer form that is written and the float form that PromQL computes with.
//!
//! Source: Prometheus's native histogram specification and `model/histogram`. Exponential schemas −4 … 8 have
//! bucket bounds `2^(index · 2^−schema)`; schema −53 has explicit upper bounds in `custom_values`.

mod arith;
mod bounds;
mod bucket;
mod compact;
mod convert;
mod custom;
mod equal;
mod error;
mod format;
mod kahan;
mod layout;
mod reset;
mod trim;
mod validate;
mod zero;

pub use arith::AddNotes;
pub use bounds::bucket_bound;
pub use bucket::Bucket;
pub use error::HistogramError;
pub use format::format_g;

/// A run of consecutive buckets: `offset` empty buckets after the previous span's end (for the first span: the
/// index of its first bucket), then `length` buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Gap to the previous span, or the first bucket's index.
    pub offset: i32,
    /// Number of buckets in the span.
    pub length: u32,
}

/// What is known about a counter reset between the previous sample and this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterReset {
    /// Must be found out by comparing.
    #[default]
    Unknown,
    /// A reset happened right before this sample.
    Reset,
    /// No reset happened.
    NotReset,
    /// A gauge histogram: resets make no sense.
    Gauge,
}

/// The schema of histograms with custom bucket bounds ("NHCB").
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;
/// Coarsest exponential schema.
pub const EXPONENTIAL_SCHEMA_MIN: i32 = -4;
/// Finest exponential schema.
pub const EXPONENTIAL_SCHEMA_MAX: i32 = 8;

/// Finest schema of upstream's reserve: 9 … 52 are read and reduced to [`EXPONENTIAL_SCHEMA_MAX`].
pub const EXPONENTIAL_SCHEMA_MAX_RESERVED: i32 = 52;
/// Coarsest schema of upstream's reserve.
pub const EXPONENTIAL_SCHEMA_MIN_RESERVED: i32 = -9;

/// True for the schemas −4 … 8.
pub const fn is_exponential_schema(schema: i32) -> bool {
    EXPONENTIAL_SCHEMA_MIN <= schema && schema <= EXPONENTIAL_SCHEMA_MAX
}

/// An integer native histogram, as scraped and stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Reset knowledge.
    pub counter_reset: CounterReset,
    /// Resolution, −4 … 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of all observations; a stale marker here makes the whole sample one.
    pub sum: f64,
    /// Runs of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Runs of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Positive bucket counts: the first absolute, then deltas.
    pub positive_buckets: Vec<i64>,
    /// Negative bucket counts: the first absolute, then deltas.
    pub negative_buckets: Vec<i64>,
    /// Upper bounds, ascending, without +Inf; only for [`CUSTOM_BUCKETS_SCHEMA`].
    pub custom_values: Vec<f64>,
}

/// A float native histogram; bucket counts are absolute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FloatHistogram {
    /// Reset knowledge.
    pub counter_reset: CounterReset,
    /// Resolution, −4 … 8, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of all observations; a stale marker here makes the whole sample one.
    pub sum: f64,
    /// Runs of positive buckets.
    pub positive_spans: Vec<Span>,
    /// Runs of negative buckets.
    pub negative_spans: Vec<Span>,
    /// Positive bucket counts, absolute.
    pub positive_buckets: Vec<f64>,
    /// Negative bucket counts, absolute.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds, ascending, without +Inf; only for [`CUSTOM_BUCKETS_SCHEMA`].
    pub custom_values: Vec<f64>,
}
