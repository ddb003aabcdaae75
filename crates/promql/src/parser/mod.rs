//! The PromQL parser: text in, [`Ast`] or [`ParseErrors`] out.
//!
//! Grammar, error texts and start positions are those of Prometheus 3.14, since the HTTP API shows them to users.

mod ast;
mod check;
mod duration;
mod error;
mod expr;
mod functions;
mod json;
mod lexer;
mod number;
mod ops;
mod postfix;
mod pretty;
mod print;
mod quote;
mod selector;
mod series;
mod source;
mod token;
mod visit;

use chronolith_model::Matcher;

pub use ast::{
    Aggregate, Ast, At, Binary, Call, Cardinality, DurationId, DurationKind, DurationNode, ExprId,
    MatrixSelector, Node, NodeKind, Position, Span, Subquery, ValueType, VectorMatching, VectorSelector,
};
pub use error::{ParseError, ParseErrors};
pub use functions::{FUNCTIONS, Function, FunctionId};
pub use ops::{AggregateOp, BinaryOp, UnaryOp};
pub(crate) use print::{aggregate_text, operator_text};
pub use quote::unquote;
pub use series::{
    SequenceValue, SeriesDescription, StartTimestamps, is_start_timestamp_line, parse_metric,
    parse_series_description, parse_start_timestamps,
};

use source::{Parser, Stop};
use token::TokenKind;

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

/// Longest text that is parsed: byte offsets are 32 bits wide.
const TEXT_BYTES_MAX: usize = u32::MAX as usize;

/// Parses and checks a query.
pub fn parse(query: &str, options: &ParseOptions) -> Result<Ast, ParseErrors> {
    let mut parser = parser_of(query, *options)?;
    let root = parser.expression();
    if let Some(root) = root
        && parser.errors.is_empty()
    {
        parser.check(root);
    }
    parser.finish(root)
}

/// Parses a series selector, as `match[]` takes it: `up`, `up{a="b"}`, `{a=~"b"}`. A selector that matches everything
/// is for the caller to refuse.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseErrors> {
    let mut parser = parser_of(text, ParseOptions::default())?;
    let mut matchers = Vec::new();
    let outcome = parse_selector_with(&mut parser, &mut matchers);
    if outcome == Err(Stop::Syntax) {
        parser.unexpected("", "");
    }
    if parser.errors.is_empty() { Ok(matchers) } else { Err(parser.into_errors()) }
}

fn parse_selector_with(parser: &mut Parser<'_>, matchers: &mut Vec<Matcher>) -> Result<(), Stop> {
    let first = parser.take();
    if first.kind != TokenKind::LeftBrace && !first.kind.is_metric_name() {
        return Err(Stop::Syntax);
    }
    let id = parser.vector_selector(first)?;
    parser.expect(TokenKind::Eof)?;
    if let NodeKind::VectorSelector(selector) = &mut parser.node_mut(id).kind {
        *matchers = std::mem::take(&mut selector.matchers);
    }
    Ok(())
}

fn parser_of(text: &str, options: ParseOptions) -> Result<Parser<'_>, ParseErrors> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("query of {} bytes is too long", text.len());
        return Err(ParseErrors(vec![ParseError { span: Span::default(), position: None, message }]));
    }
    Ok(Parser::new(text, options))
}
