//! The engine: query text in, [`QueryResult`](crate::value::QueryResult) out.

mod error;
mod options;

pub use error::{EngineError, EngineErrorKind};
pub use options::EngineOptions;
