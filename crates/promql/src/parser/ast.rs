//! The syntax tree: an arena of nodes.
//!
//! Nodes refer to each other by [`ExprId`], an index into [`Ast`]. Children are pushed before their parents, so a
//! child's id is always smaller than its parent's: a pass bottom-up is a plain loop over the ids, and dropping a
//! tree of any depth is flat. Spans are byte offsets into the query text, which the tree keeps.
//!
//! What a query says (`original_offset_ms`, `at`, duration expressions) and what an evaluation makes of it
//! (`offset_ms`, `timestamp_ms`, ranges out of duration expressions) are separate fields; printing uses the former.

use chronolith_model::Matcher;

use super::functions::Function;
use super::ops::{AggregateOp, BinaryOp, UnaryOp};

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// No value: only of expressions that the parser refuses.
    None,
    /// One number a step.
    Scalar,
    /// One sample a series and step.
    Vector,
    /// A range of samples a series and step.
    Matrix,
    /// A string.
    String,
}

impl ValueType {
    /// The type in upstream's code and JSON: `vector`, `matrix`, ...
    pub const fn as_str(self) -> &'static str {
        match self {
            ValueType::None => "none",
            ValueType::Scalar => "scalar",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
            ValueType::String => "string",
        }
    }

    /// The type in error texts: `instant vector`, `range vector`, ...
    pub const fn documented(self) -> &'static str {
        match self {
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

/// A range of bytes of the query text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes from `start` to before `end`.
    pub const fn new(start: u32, end: u32) -> Self {
        Span { start, end }
    }
}

/// Index of a node in its [`Ast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExprId(pub u32);

impl ExprId {
    /// The index as `usize`, for side tables of the engine.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a node of a duration expression in its [`Ast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DurationId(pub u32);

/// One expression.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Where it stands in the query text.
    pub span: Span,
    /// The type of its value.
    pub value_type: ValueType,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// `sum by (a) (x)`
    Aggregate(Box<Aggregate>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `rate(x[5m])`
    Call(Call),
    /// `x[5m]`
    MatrixSelector(MatrixSelector),
    /// `x[5m:1m]`
    Subquery(Box<Subquery>),
    /// `1`, `5m`; a sign before the literal is folded in.
    Number {
        /// The value; of a duration, in seconds.
        value: f64,
        /// Written as a duration.
        duration: bool,
    },
    /// `"text"`: a byte string, not always UTF-8.
    String(Box<[u8]>),
    /// `(x)`
    Paren(ExprId),
    /// `-x`
    Unary {
        /// The sign.
        op: UnaryOp,
        /// What it applies to.
        expr: ExprId,
    },
    /// `x{a="b"}`
    VectorSelector(Box<VectorSelector>),
}

/// An aggregation.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The aggregator.
    pub op: AggregateOp,
    /// The vector that is aggregated.
    pub expr: ExprId,
    /// The parameter of an aggregator that takes one.
    pub param: Option<ExprId>,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// `without` rather than `by`.
    pub without: bool,
}

/// A binary expression.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left-hand side.
    pub lhs: ExprId,
    /// Right-hand side.
    pub rhs: ExprId,
    /// How the sides' series are matched; there if and only if both are vectors.
    pub matching: Option<VectorMatching>,
    /// `bool`: a comparison gives 0 or 1 rather than filtering.
    pub return_bool: bool,
}

/// Which side of a vector match may have several series per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// Neither.
    OneToOne,
    /// The left one: `group_left`.
    ManyToOne,
    /// The right one: `group_right`.
    OneToMany,
    /// Both: the set operators.
    ManyToMany,
}

/// How the series of two vectors are matched.
#[derive(Clone, Debug)]
pub struct VectorMatching {
    /// Cardinality.
    pub card: Cardinality,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// The labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// `fill` or `fill_left`: the value of a missing left-hand side.
    pub fill_left: Option<f64>,
    /// `fill` or `fill_right`: the value of a missing right-hand side.
    pub fill_right: Option<f64>,
}

impl Default for VectorMatching {
    fn default() -> Self {
        VectorMatching {
            card: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        }
    }
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub func: &'static Function,
    /// Its arguments.
    pub args: Vec<ExprId>,
}

/// The `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// `@ 1.5`, in milliseconds.
    Timestamp(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// A vector selector; also the selector inside a [`MatrixSelector`].
#[derive(Clone, Debug, Default)]
pub struct VectorSelector {
    /// The metric name written before the braces; empty when there is none.
    pub name: String,
    /// The matchers in the order in which they are written; the one of `name` comes last.
    pub matchers: Vec<Matcher>,
    /// `offset` as written, where it is a literal.
    pub original_offset_ms: i64,
    /// `offset` as written, where it is an expression.
    pub original_offset_expr: Option<DurationId>,
    /// The offset that the evaluation uses. The parser leaves here what was written, 0 for an expression.
    pub offset_ms: i64,
    /// `@` as written.
    pub at: Option<At>,
    /// The timestamp that the evaluation uses. The parser leaves here a timestamp that was written.
    pub timestamp_ms: Option<i64>,
    /// `anchored`
    pub anchored: bool,
    /// `smoothed`
    pub smoothed: bool,
    /// The selector may match everything: `info`'s second argument.
    pub may_match_all: bool,
}

/// A range selector.
#[derive(Clone, Debug)]
pub struct MatrixSelector {
    /// The vector selector, which holds offset, `@`, `anchored` and `smoothed` too.
    pub selector: ExprId,
    /// The range; 0 until resolved where it is an expression.
    pub range_ms: i64,
    /// The range as written, where it is an expression.
    pub range_expr: Option<DurationId>,
}

/// A subquery.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// The expression that is evaluated at each step.
    pub expr: ExprId,
    /// The range; 0 until resolved where it is an expression.
    pub range_ms: i64,
    /// The range as written, where it is an expression.
    pub range_expr: Option<DurationId>,
    /// The step; 0 for the default one, and until resolved where it is an expression.
    pub step_ms: i64,
    /// The step as written, where it is an expression.
    pub step_expr: Option<DurationId>,
    /// `offset` as written, where it is a literal.
    pub original_offset_ms: i64,
    /// `offset` as written, where it is an expression.
    pub original_offset_expr: Option<DurationId>,
    /// The offset that the evaluation uses.
    pub offset_ms: i64,
    /// `@` as written.
    pub at: Option<At>,
    /// The timestamp that the evaluation uses.
    pub timestamp_ms: Option<i64>,
}

/// One node of a duration expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DurationNode {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands in the query text.
    pub span: Span,
    /// Written in parentheses.
    pub wrapped: bool,
}

/// What a node of a duration expression is. Values are seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DurationKind {
    /// `5m`, `300`
    Number {
        /// Seconds.
        value: f64,
        /// Written as a duration.
        duration: bool,
    },
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-x`; `+x` stands for a number in parentheses.
    Unary(UnaryOp, DurationId),
    /// `x + y`; only arithmetic operators without `atan2`.
    Binary(BinaryOp, DurationId, DurationId),
    /// `min_of(x, y)`
    MinOf(DurationId, DurationId),
    /// `max_of(x, y)`
    MaxOf(DurationId, DurationId),
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Ast {
    pub(super) nodes: Vec<Node>,
    pub(super) durations: Vec<DurationNode>,
    pub(super) root: ExprId,
    pub(super) query: Box<str>,
}

impl Ast {
    /// The expression as a whole.
    pub fn root(&self) -> ExprId {
        self.root
    }

    /// The query text that the spans refer to.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// A node.
    pub fn node(&self, id: ExprId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A node, to change in place. Its children must keep smaller ids.
    pub fn node_mut(&mut self, id: ExprId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// A node's kind.
    pub fn kind(&self, id: ExprId) -> &NodeKind {
        &self.node(id).kind
    }

    /// A node's span.
    pub fn span(&self, id: ExprId) -> Span {
        self.node(id).span
    }

    /// The type of a node's value.
    pub fn value_type(&self, id: ExprId) -> ValueType {
        self.node(id).value_type
    }

    /// All nodes; children come before their parents. After parsing the root is the last one.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ExprId> + use<> {
        (0..self.nodes.len() as u32).map(ExprId)
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when there is no node; a parsed tree has at least one.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node of a duration expression.
    pub fn duration(&self, id: DurationId) -> &DurationNode {
        &self.durations[id.0 as usize]
    }

    /// The node below any parentheses.
    pub fn unwrap_parens(&self, mut id: ExprId) -> ExprId {
        while let NodeKind::Paren(inner) = self.kind(id) {
            id = *inner;
        }
        id
    }

    /// The vector selector that a vector or matrix selector node stands for.
    pub fn vector_selector(&self, id: ExprId) -> Option<&VectorSelector> {
        match self.kind(id) {
            NodeKind::VectorSelector(selector) => Some(selector),
            NodeKind::MatrixSelector(matrix) => self.vector_selector(matrix.selector),
            _ => None,
        }
    }

    /// The vector selector that a vector or matrix selector node stands for, to change in place.
    pub fn vector_selector_mut(&mut self, id: ExprId) -> Option<&mut VectorSelector> {
        let id = match self.kind(id) {
            NodeKind::MatrixSelector(matrix) => matrix.selector,
            _ => id,
        };
        match &mut self.node_mut(id).kind {
            NodeKind::VectorSelector(selector) => Some(selector),
            _ => None,
        }
    }

    /// `line:column` of a byte of the query, both from 1, columns counted in bytes.
    pub fn position(&self, pos: u32) -> Position {
        Position::of(&self.query, pos as usize)
    }
}

/// A place in a query text; prints as `line:column`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
}

impl Position {
    /// The place of byte `pos` of `query`.
    pub fn of(query: &str, pos: usize) -> Self {
        let before = &query.as_bytes()[..pos.min(query.len())];
        let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
        let column = match before.iter().rposition(|&b| b == b'\n') {
            Some(newline) => pos - newline,
            None => pos + 1,
        };
        Position { line, column }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}
