//! PromQL: parser, plan, optimiser, operators, script runner.

#[allow(dead_code)] // The operators that raise them land next.
pub mod annotations;
pub mod engine;
#[allow(dead_code)]
mod functions;
pub mod parser;
pub mod queryable;
pub mod value;

pub use engine::{EngineError, EngineErrorKind, EngineOptions};
pub use queryable::{
    QueryContext, Queryable, QueryableError, QueryableErrorKind, SelectHints, SelectRequest, Series,
    SeriesData, SeriesSet,
};
pub use value::{MatrixSeries, PointValue, QueryResult, QueryStats, Value, VectorSample};
