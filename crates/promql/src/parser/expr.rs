//! The expression parser: operator precedence over an explicit stack.
//!
//! There is no recursion: open parentheses, calls, aggregations, signs and operators whose right-hand side is still to
//! come are [`Frame`]s on the heap. A query of a million characters cannot overflow the stack of a worker thread,
//! and [`DEPTH_MAX`] bounds what the engine has to nest.

use super::ast::{Aggregate, Binary, Call, Cardinality, ExprId, NodeKind, Span, ValueType, VectorMatching};
use super::functions::{FUNCTIONS, Function};
use super::number::{parse_duration_seconds, parse_number};
use super::ops::{AggregateOp, BinaryOp, UnaryOp};
use super::quote::go_quote;
use super::source::{Parser, Stop};
use super::token::{Token, TokenKind};

/// How deep parentheses, calls, aggregations, signs and right-hand sides of `^` may nest. Upstream has no limit but
/// its memory; chains of other operators are no nesting and have none here either.
pub(super) const DEPTH_MAX: usize = 10_000;

/// The binding strength of a sign, that of `*`.
const UNARY_PRECEDENCE: u8 = 5;

/// Something that waits for an operand.
enum Frame {
    Paren {
        start: u32,
    },
    Call {
        name: Token,
        args: Vec<ExprId>,
    },
    Aggregate(Box<OpenAggregate>),
    /// The right-hand side is still to come.
    Binary(Box<Binary>),
    Unary {
        op: UnaryOp,
        start: u32,
    },
}

struct OpenAggregate {
    op: AggregateOp,
    start: u32,
    /// The modifier, where it stands before the arguments.
    grouping: Option<Grouping>,
    args: Vec<ExprId>,
}

/// What is open, innermost last, and how deep it nests.
#[derive(Default)]
struct Frames {
    list: Vec<Frame>,
    depth: usize,
}

impl Frames {
    fn push(&mut self, frame: Frame) {
        self.depth += usize::from(frame.nests());
        self.list.push(frame);
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.list.pop()?;
        self.depth -= usize::from(frame.nests());
        Some(frame)
    }
}

struct Grouping {
    labels: Vec<String>,
    without: bool,
}

/// What comes after a token or an operand.
enum Next {
    Operand,
    Operator(ExprId),
    End(ExprId),
}

impl Parser<'_> {
    /// The whole text as one expression; `None` when there are errors.
    pub(super) fn expression(&mut self) -> Option<ExprId> {
        if self.peek().kind == TokenKind::Eof {
            self.error(Span::default(), "no expression found in input");
            return None;
        }
        let mut frames = Frames::default();
        match self.run(&mut frames) {
            Ok(root) => Some(root),
            Err(Stop::Reported) => None,
            Err(Stop::Syntax) => {
                let aggregation = frames.list.iter().any(|f| matches!(f, Frame::Aggregate(_)));
                self.unexpected(if aggregation { "aggregation" } else { "" }, "");
                None
            }
        }
    }

    fn run(&mut self, frames: &mut Frames) -> Result<ExprId, Stop> {
        let mut next = Next::Operand;
        loop {
            next = match next {
                Next::Operand => self.operand(frames)?,
                Next::Operator(operand) => self.after_operand(operand, frames)?,
                Next::End(root) => return Ok(root),
            };
            if frames.depth > DEPTH_MAX {
                let span = self.peek().span();
                self.error(span, format!("expression is nested too deeply, at most {DEPTH_MAX} levels"));
                return Err(Stop::Reported);
            }
        }
    }

    /// Reads an operand, or opens a frame.
    fn operand(&mut self, frames: &mut Frames) -> Result<Next, Stop> {
        let token = self.take();
        let operand = match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let (value, duration) = self.literal_value(token);
                let kind = NodeKind::Number { value, duration };
                self.push(kind, token.span(), ValueType::Scalar)
            }
            TokenKind::String => {
                let bytes = self.string_bytes(token);
                self.push(NodeKind::String(bytes.into()), token.span(), ValueType::String)
            }
            TokenKind::LeftParen => {
                frames.push(Frame::Paren { start: token.start });
                return Ok(Next::Operand);
            }
            TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                let op = if op == BinaryOp::Sub { UnaryOp::Minus } else { UnaryOp::Plus };
                frames.push(Frame::Unary { op, start: token.start });
                return Ok(Next::Operand);
            }
            TokenKind::LeftBrace => self.vector_selector(token)?,
            TokenKind::Aggregate(op)
                if matches!(self.peek().kind, TokenKind::By | TokenKind::Without | TokenKind::LeftParen) =>
            {
                return self.open_aggregate(op, token, frames);
            }
            kind if (kind == TokenKind::Identifier || kind.is_preprocessor())
                && self.peek().kind == TokenKind::LeftParen =>
            {
                self.take();
                if self.peek().kind == TokenKind::RightParen {
                    self.take();
                    self.call(token, Vec::new())
                } else {
                    frames.push(Frame::Call { name: token, args: Vec::new() });
                    return Ok(Next::Operand);
                }
            }
            kind if kind.is_metric_name() => self.vector_selector(token)?,
            _ => return Err(Stop::Syntax),
        };
        Ok(Next::Operator(operand))
    }

    fn open_aggregate(&mut self, op: AggregateOp, token: Token, frames: &mut Frames) -> Result<Next, Stop> {
        let grouping = match self.peek().kind {
            TokenKind::LeftParen => None,
            _ => Some(self.grouping()?),
        };
        // Pushed before the parenthesis is asked for: if it is missing, that is an error in an aggregation.
        let open = OpenAggregate { op, start: token.start, grouping, args: Vec::new() };
        frames.push(Frame::Aggregate(Box::new(open)));
        self.expect(TokenKind::LeftParen)?;
        if self.peek().kind != TokenKind::RightParen {
            return Ok(Next::Operand);
        }
        self.take();
        match frames.pop() {
            Some(Frame::Aggregate(open)) => Ok(Next::Operator(self.aggregate(*open)?)),
            _ => Err(Stop::Syntax),
        }
    }

    /// `by (…)` or `without (…)`.
    fn grouping(&mut self) -> Result<Grouping, Stop> {
        let without = self.take().kind == TokenKind::Without;
        Ok(Grouping { labels: self.grouping_labels()?, without })
    }

    /// Reads what follows an operand: modifiers, an operator, or the end of what is open.
    fn after_operand(&mut self, operand: ExprId, frames: &mut Frames) -> Result<Next, Stop> {
        let token = self.peek();
        match token.kind {
            TokenKind::LeftBracket => return Ok(Next::Operator(self.brackets(operand)?)),
            TokenKind::Offset => {
                self.offset(operand)?;
                return Ok(Next::Operator(operand));
            }
            TokenKind::At => {
                self.at(operand)?;
                return Ok(Next::Operator(operand));
            }
            TokenKind::Anchored | TokenKind::Smoothed => {
                self.extended(operand);
                return Ok(Next::Operator(operand));
            }
            TokenKind::Op(op) => {
                let lhs = self.reduce(operand, op.precedence(), op == BinaryOp::Pow, frames);
                self.take();
                let binary = self.binary_modifiers(op, lhs)?;
                frames.push(Frame::Binary(Box::new(binary)));
                return Ok(Next::Operand);
            }
            _ => {}
        }
        let operand = self.reduce(operand, 0, false, frames);
        let args = match frames.list.last_mut() {
            None if token.kind == TokenKind::Eof => return Ok(Next::End(operand)),
            Some(&mut Frame::Paren { start }) => {
                let close = self.expect(TokenKind::RightParen)?;
                frames.pop();
                let value_type = self.node(operand).value_type;
                let span = Span::new(start, close.end);
                return Ok(Next::Operator(self.push(NodeKind::Paren(operand), span, value_type)));
            }
            Some(Frame::Call { args, .. }) => args,
            Some(Frame::Aggregate(open)) => &mut open.args,
            _ => return Err(Stop::Syntax),
        };
        args.push(operand);
        self.after_argument(frames)
    }

    /// Reads what follows an argument: a comma and another one, or the closing parenthesis.
    fn after_argument(&mut self, frames: &mut Frames) -> Result<Next, Stop> {
        loop {
            let token = self.peek();
            match token.kind {
                TokenKind::Comma => {
                    self.take();
                    if self.peek().kind.starts_operand() {
                        return Ok(Next::Operand);
                    }
                    self.error(token.span(), "trailing commas not allowed in function call args");
                }
                TokenKind::RightParen => {
                    self.take();
                    let operand = match frames.pop() {
                        Some(Frame::Call { name, args }) => self.call(name, args),
                        Some(Frame::Aggregate(open)) => self.aggregate(*open)?,
                        _ => return Err(Stop::Syntax),
                    };
                    return Ok(Next::Operator(operand));
                }
                _ => return Err(Stop::Syntax),
            }
        }
    }

    /// Completes the signs and operators that bind an operand more strongly than the operator that follows it.
    fn reduce(
        &mut self,
        mut operand: ExprId,
        precedence: u8,
        right_associative: bool,
        frames: &mut Frames,
    ) -> ExprId {
        loop {
            let binds = match frames.list.last() {
                Some(Frame::Binary(binary)) => binary.op.precedence(),
                Some(Frame::Unary { .. }) => UNARY_PRECEDENCE,
                _ => return operand,
            };
            if binds < precedence || (binds == precedence && right_associative) {
                return operand;
            }
            operand = match frames.pop() {
                Some(Frame::Binary(mut binary)) => {
                    binary.rhs = operand;
                    self.binary(binary)
                }
                Some(Frame::Unary { op, start }) => self.unary(op, start, operand),
                _ => operand,
            };
        }
    }

    fn unary(&mut self, op: UnaryOp, start: u32, operand: ExprId) -> ExprId {
        let node = self.node_mut(operand);
        if let NodeKind::Number { value, .. } = &mut node.kind {
            if op == UnaryOp::Minus {
                *value = -*value;
            }
            node.span.start = start;
            return operand;
        }
        let (span, value_type) = (Span::new(start, node.span.end), node.value_type);
        self.push(NodeKind::Unary { op, expr: operand }, span, value_type)
    }

    fn binary(&mut self, binary: Box<Binary>) -> ExprId {
        let (lhs, rhs) = (self.node(binary.lhs), self.node(binary.rhs));
        let span = Span::new(lhs.span.start, rhs.span.end);
        let scalars = lhs.value_type == ValueType::Scalar && rhs.value_type == ValueType::Scalar;
        let value_type = if scalars { ValueType::Scalar } else { ValueType::Vector };
        if !self.options.fill_modifiers && binary.matching.as_ref().is_some_and(VectorMatching::fills) {
            self.error(span, "binop fill modifiers are experimental and not enabled");
        }
        self.push(NodeKind::Binary(binary), span, value_type)
    }

    /// `bool`, `on`, `ignoring`, `group_left`, `group_right`, `fill`, ... after an operator.
    fn binary_modifiers(&mut self, op: BinaryOp, lhs: ExprId) -> Result<Binary, Stop> {
        let mut return_bool = false;
        let mut matching = VectorMatching::default();
        if self.peek().kind == TokenKind::Bool {
            self.take();
            return_bool = true;
        }
        if let kind @ (TokenKind::On | TokenKind::Ignoring) = self.peek().kind {
            self.take();
            matching.on = kind == TokenKind::On;
            matching.labels = self.grouping_labels()?;
            if let kind @ (TokenKind::GroupLeft | TokenKind::GroupRight) = self.peek().kind {
                self.take();
                matching.card = if kind == TokenKind::GroupLeft {
                    Cardinality::ManyToOne
                } else {
                    Cardinality::OneToMany
                };
                let next = self.peek().kind;
                // Upstream: what can neither be labels nor the right-hand side is an error about labels.
                if next == TokenKind::LeftParen || !next.starts_operand() {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        let first = self.peek().kind;
        if matches!(first, TokenKind::Fill | TokenKind::FillLeft | TokenKind::FillRight) {
            let value = self.fill_value()?;
            if first != TokenKind::FillRight {
                matching.fill_left = Some(value);
            }
            if first != TokenKind::FillLeft {
                matching.fill_right = Some(value);
            }
            match (first, self.peek().kind) {
                (TokenKind::FillLeft, TokenKind::FillRight) => {
                    matching.fill_right = Some(self.fill_value()?);
                }
                (TokenKind::FillRight, TokenKind::FillLeft) => {
                    matching.fill_left = Some(self.fill_value()?);
                }
                _ => {}
            }
        }
        Ok(Binary { op, lhs, rhs: lhs, matching: Some(matching), return_bool })
    }

    /// `fill(-1)`, of which nothing has been taken.
    fn fill_value(&mut self) -> Result<f64, Stop> {
        self.take();
        self.expect(TokenKind::LeftParen)?;
        let mut sign = 1.0;
        let mut token = self.take();
        if let TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) = token.kind {
            sign = if op == BinaryOp::Sub { -1.0 } else { 1.0 };
            token = self.take();
        }
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(Stop::Syntax);
        }
        let (value, _) = self.literal_value(token);
        self.expect(TokenKind::RightParen)?;
        Ok(sign * value)
    }

    /// The value of a number or duration token, and whether it is a duration.
    pub(super) fn literal_value(&mut self, token: Token) -> (f64, bool) {
        let text = token.text(self.input());
        let duration = token.kind == TokenKind::Duration;
        let value = if duration { parse_duration_seconds(text) } else { parse_number(text) };
        let value = value.unwrap_or_else(|message| {
            self.error(token.span(), message);
            0.0
        });
        (value, duration)
    }

    fn call(&mut self, name: Token, args: Vec<ExprId>) -> ExprId {
        let text = name.text(self.input());
        let func = Function::get(text);
        match func {
            None => {
                let quoted = go_quote(text.as_bytes());
                self.error(name.span(), format!("unknown function with name {quoted}"));
            }
            Some(func) if func.experimental && !self.options.experimental_functions => {
                self.error(name.span(), format!("function {:?} is not enabled", func.name));
            }
            Some(_) => {}
        }
        // Any function will do for a tree that is thrown away.
        let func = func.unwrap_or(&FUNCTIONS[0]);
        let span = Span::new(name.start, self.last_closing);
        self.push(NodeKind::Call(Call { func, args }), span, func.return_type)
    }

    /// An aggregation whose arguments are complete.
    fn aggregate(&mut self, mut open: OpenAggregate) -> Result<ExprId, Stop> {
        let mut end = self.last_closing;
        if open.grouping.is_none() && matches!(self.peek().kind, TokenKind::By | TokenKind::Without) {
            open.grouping = Some(self.grouping()?);
            end = self.last_closing;
        }
        let span = Span::new(open.start, end);
        let count = open.args.len();
        let wanted = 1 + usize::from(open.op.takes_param());
        let problem = if count == 0 {
            "no arguments for aggregate expression provided".to_owned()
        } else if open.op.is_experimental() && !self.options.experimental_functions {
            format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                open.op
            )
        } else if count != wanted {
            format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {count}"
            )
        } else {
            let grouping = open.grouping.unwrap_or(Grouping { labels: Vec::new(), without: false });
            let aggregate = Aggregate {
                op: open.op,
                expr: open.args[count - 1],
                param: open.op.takes_param().then(|| open.args[0]),
                grouping: grouping.labels,
                without: grouping.without,
            };
            let kind = NodeKind::Aggregate(Box::new(aggregate));
            return Ok(self.push(kind, span, ValueType::Vector));
        };
        self.error(span, problem);
        // A stand-in for a tree that is thrown away.
        Ok(self.push(NodeKind::String(Box::default()), span, ValueType::Vector))
    }
}

impl Frame {
    /// True when the frame makes the tree deeper for certain: chains of left-associative operators do not.
    fn nests(&self) -> bool {
        !matches!(self, Frame::Binary(binary) if binary.op != BinaryOp::Pow)
    }
}

impl TokenKind {
    /// True for what an operand can begin with.
    fn starts_operand(self) -> bool {
        matches!(
            self,
            TokenKind::Number
                | TokenKind::Duration
                | TokenKind::String
                | TokenKind::LeftParen
                | TokenKind::LeftBrace
                | TokenKind::Op(BinaryOp::Add | BinaryOp::Sub)
        ) || self.is_metric_name()
    }
}
