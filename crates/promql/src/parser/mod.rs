//! The PromQL parser: text in, [`Ast`] or [`ParseErrors`] out.
//!
//! Grammar, error texts and start positions are those of Prometheus 3.14, since the HTTP API shows them to users.

mod ast;
mod error;
mod functions;
mod ops;

pub use ast::{
    Aggregate, Ast, At, Binary, Call, Cardinality, DurationId, DurationKind, DurationNode, ExprId,
    MatrixSelector, Node, NodeKind, Position, Span, Subquery, ValueType, VectorMatching, VectorSelector,
};
pub use error::{ParseError, ParseErrors};
pub use functions::{FUNCTIONS, Function, FunctionId};
pub use ops::{AggregateOp, BinaryOp, UnaryOp};

/// Which parts of the language are switched on. The default is that of Prometheus 3.14 without feature flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// The functions and aggregators marked experimental.
    pub experimental_functions: bool,
    /// Arithmetic, `step()`, `range()`, ... where a duration is expected.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
}

impl ParseOptions {
    /// Everything on, as in the upstream test scripts.
    pub const ALL: ParseOptions = ParseOptions {
        experimental_functions: true,
        duration_expressions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
    };
}

impl Default for ParseOptions {
    fn default() -> Self {
        ParseOptions {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
        }
    }
}
