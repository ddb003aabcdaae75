//! PromQL: parser, plan, optimiser, operators, script runner.

pub mod annotations;
pub mod engine;
mod exec;
mod functions;
pub mod memory;
pub mod parser;
mod plan;
pub mod push;
pub mod queryable;
pub mod script;
pub mod value;

pub use engine::{Engine, EngineError, EngineErrorKind, EngineOptions};
pub use exec::turns::while_waiting;
pub use memory::{MemoryExceeded, MemoryHold, MemoryPool, MemoryUse, QueryMemory};
pub use push::{FOLD_VERSION, FoldRequest, FoldSteps, Folded, FoldedGroup, FoldedNote, Pushed};
pub use queryable::{
    QueryContext, Queryable, QueryableError, QueryableErrorKind, SelectHints, SelectRequest, Series,
    SeriesData, SeriesSet,
};
pub use value::{
    Analysis, MatrixSeries, OperatorAnalysis, PointValue, QueryResult, QueryStats, QueryTimings, StepSamples,
    Value, VectorSample,
};
