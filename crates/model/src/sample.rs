//! Samples and exemplars.

use std::sync::Arc;

use crate::{FloatHistogram, Histogram, Labels};

/// A float sample: milliseconds since the epoch and a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Milliseconds since the Unix epoch.
    pub t: i64,
    /// The value; the exact bits matter, see [`crate::STALE_NAN`].
    pub v: f64,
}

/// The value of a sample of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// An integer native histogram.
    Histogram(Arc<Histogram>),
    /// A float native histogram.
    FloatHistogram(Arc<FloatHistogram>),
}

/// An exemplar: a value with labels of its own (a trace id, usually).
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The exemplar's labels, not the series'.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    pub t: i64,
}
