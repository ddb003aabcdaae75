//! Results of queries.

use std::sync::Arc;
use std::time::Duration;

use chronolith_model::{FloatHistogram, Labels};

use crate::memory::MemoryHold;

/// A value at a time in a vector: a float or a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

/// One series of a matrix: float points and histogram points, each sorted by time; no time is in both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixSeries {
    /// Identity.
    pub labels: Labels,
    /// Times of the float points, milliseconds.
    pub timestamps: Vec<i64>,
    /// Values of the float points.
    pub values: Vec<f64>,
    /// Histogram points.
    pub histograms: Vec<(i64, Arc<FloatHistogram>)>,
}

impl MatrixSeries {
    /// Points of both kinds.
    pub fn point_count(&self) -> usize {
        self.timestamps.len() + self.histograms.len()
    }

    /// The point at exactly this time.
    pub fn at(&self, t: i64) -> Option<PointValue> {
        if let Ok(i) = self.timestamps.binary_search(&t) {
            return Some(PointValue::Float(self.values[i]));
        }
        let i = self.histograms.binary_search_by_key(&t, |(ht, _)| *ht).ok()?;
        Some(PointValue::Histogram(self.histograms[i].1.clone()))
    }
}

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Identity.
    pub labels: Labels,
    /// The evaluation time, milliseconds.
    pub t: i64,
    /// The value.
    pub value: PointValue,
}

/// A query's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Series over time, sorted by labels.
    Matrix(Vec<MatrixSeries>),
    /// Samples at one time, in the order of the outermost operator (`sort`, `topk`), otherwise unspecified.
    Vector(Vec<VectorSample>),
    /// A number.
    Scalar {
        /// The evaluation time, milliseconds.
        t: i64,
        /// The number.
        v: f64,
    },
    /// A string.
    String {
        /// The evaluation time, milliseconds.
        t: i64,
        /// The string, a PromQL byte string read as UTF-8 (invalid bytes replaced).
        s: String,
    },
}

impl Value {
    /// The API's `resultType`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Matrix(_) => "matrix",
            Value::Vector(_) => "vector",
            Value::Scalar { .. } => "scalar",
            Value::String { .. } => "string",
        }
    }
}

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Samples loaded, a sample counted at each step whose window holds it.
    pub samples_total: u64,
    /// Samples read: of ranges each once, of instant selectors at each step.
    pub samples_read: u64,
    /// Most samples held at one time.
    pub samples_peak: u64,
    /// Series read from storage, per selector.
    pub series_read: u64,
}

/// Samples by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSamples {
    /// Samples loaded at each step.
    pub total: Vec<u64>,
    /// Samples read at each step.
    pub read: Vec<u64>,
}

/// How long the parts of a query took, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueryTimings {
    /// Parsing and planning.
    pub prepare_s: f64,
    /// Evaluating, without sorting.
    pub eval_s: f64,
    /// Sorting the result.
    pub sort_s: f64,
}

/// One operator of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorAnalysis {
    /// What it is, in Thanos's manner: `[aggregate] sum by (job)`.
    pub name: String,
    /// Time that it and the operators below it took, on all threads together.
    pub time: Duration,
    /// Series that it yielded.
    pub series: u64,
    /// Samples that it yielded.
    pub samples: u64,
    /// Samples that it and the operators below it loaded, a sample counted at each step whose window holds it.
    pub samples_total: u64,
    /// Most samples that it held at one time, those that it had yielded and that were not used up yet included.
    pub samples_peak: u64,
    /// Most bytes that it held at one time, the vectors that it had yielded included.
    pub memory_peak_bytes: u64,
    /// Indexes of the operators that it reads from.
    pub children: Vec<usize>,
}

/// The operators of a query. A list, since a chain of operators is a deep tree: the first one is the root, children
/// come after their parents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// The operators.
    pub operators: Vec<OperatorAnalysis>,
}

/// A query's value with its annotations, texts as the HTTP API shows them.
#[derive(Debug)]
pub struct QueryResult {
    /// The value.
    pub value: Value,
    /// Warnings, of the storage and of PromQL, without a cap.
    pub warnings: Vec<String>,
    /// Infos, without a cap.
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: QueryStats,
    /// Samples by step, where engine and context ask for it.
    pub steps: Option<StepSamples>,
    /// How long its parts took.
    pub timings: QueryTimings,
    /// What each operator cost, where the context asked for it.
    pub analysis: Option<Analysis>,
    /// The memory of the value, given back when this is dropped.
    pub held: Option<MemoryHold>,
}
