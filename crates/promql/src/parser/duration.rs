//! Duration expressions: `[5m + step()]`, `offset -(1h / 2)`.
//!
//! In brackets the whole grammar is allowed. After `offset` only one literal, call or parenthesis with a sign is
//! taken, so that `x offset -2 ^ 2` is `(x offset -2) ^ 2`; a parenthesis without a sign may go on with operators.

use super::ast::{DurationId, DurationKind, DurationNode, Span};
use super::number::{is_out_of_range, ms_of_seconds};
use super::ops::{BinaryOp, UnaryOp};
use super::source::{Parser, Stop};
use super::token::{Token, TokenKind};

/// Deepest duration expression: far beyond any real one, and shallow enough to walk by recursion.
pub(super) const DEPTH_MAX: u16 = 200;

/// The binding strength of a sign, that of `*`.
const UNARY_PRECEDENCE: u8 = 5;

/// A duration as a selector keeps it: milliseconds of a literal, or an expression.
pub(super) enum DurationValue {
    Literal(i64),
    Expression(DurationId),
}

impl Parser<'_> {
    /// The expression that a bracket or a subquery step holds; its literal value must be above 0.
    pub(super) fn positive_duration(&mut self) -> Result<DurationValue, Stop> {
        let id = self.duration_expression(0, 0)?;
        let node = *self.duration(id);
        if let DurationKind::Number { value, .. } = node.kind
            && value <= 0.0
        {
            self.error(node.span, "duration must be greater than 0");
        }
        Ok(self.duration_value(id))
    }

    /// What may follow `offset`.
    pub(super) fn offset_duration(&mut self) -> Result<DurationValue, Stop> {
        let token = self.peek();
        let id = match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.take();
                self.duration_literal(token, None)?
            }
            kind if kind.is_preprocessor() => {
                self.take();
                let id = self.duration_call(token, 0)?;
                self.require_enabled(id);
                id
            }
            TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.take();
                self.signed_offset(token, sign(op))?
            }
            _ => self.duration_expression(0, 0)?,
        };
        Ok(self.duration_value(id))
    }

    fn signed_offset(&mut self, op_token: Token, op: UnaryOp) -> Result<DurationId, Stop> {
        let token = self.peek();
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.take();
                self.duration_literal(token, Some((op_token, op)))
            }
            kind if kind.is_preprocessor() => {
                self.take();
                let call = self.duration_call(token, 0)?;
                let span = Span::new(op_token.start, self.duration(call).span.end);
                let id = if op == UnaryOp::Minus {
                    self.push_duration(DurationKind::Unary(op, call), span, false)?
                } else {
                    self.durations[call.0 as usize].span = span;
                    call
                };
                self.require_enabled(id);
                Ok(id)
            }
            TokenKind::LeftParen => {
                self.take();
                let inner = self.duration_expression(0, 1)?;
                self.expect(TokenKind::RightParen)?;
                let span = self.duration(inner).span;
                let wrapped = self.wrap_duration(inner, span)?;
                self.apply_sign(op_token, op, wrapped)
            }
            _ => {
                let operand = self.duration_expression(UNARY_PRECEDENCE + 1, 1)?;
                let first = self.apply_sign(op_token, op, operand)?;
                self.duration_operators(first, 0, 0)
            }
        }
    }

    /// An expression of operators that bind at least as strongly as `precedence_min`.
    fn duration_expression(&mut self, precedence_min: u8, depth: u16) -> Result<DurationId, Stop> {
        if depth > DEPTH_MAX {
            let span = self.peek().span();
            self.error(span, "duration expression is nested too deeply");
            return Err(Stop::Reported);
        }
        let token = self.take();
        let first = match token.kind {
            TokenKind::Number | TokenKind::Duration => self.duration_literal(token, None)?,
            TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                let operand = self.duration_expression(UNARY_PRECEDENCE + 1, depth + 1)?;
                self.apply_sign(token, sign(op), operand)?
            }
            TokenKind::LeftParen => {
                let inner = self.duration_expression(0, depth + 1)?;
                let close = self.expect(TokenKind::RightParen)?;
                self.require_enabled(inner);
                self.wrap_duration(inner, Span::new(token.start, close.end))?
            }
            kind if kind.is_preprocessor() => {
                let id = self.duration_call(token, depth)?;
                self.require_enabled(id);
                id
            }
            _ => return Err(Stop::Syntax),
        };
        self.duration_operators(first, precedence_min, depth)
    }

    fn duration_operators(
        &mut self,
        mut lhs: DurationId,
        precedence_min: u8,
        depth: u16,
    ) -> Result<DurationId, Stop> {
        loop {
            let token = self.peek();
            let op = match token.kind {
                TokenKind::Op(op) if is_duration_operator(op) && op.precedence() >= precedence_min => op,
                _ => return Ok(lhs),
            };
            self.take();
            // `^` is right-associative, the others are not.
            let right_min = op.precedence() + u8::from(op != BinaryOp::Pow);
            let rhs = self.duration_expression(right_min, depth + 1)?;
            self.require_enabled(lhs);
            let zero = matches!(self.duration(rhs).kind, DurationKind::Number { value: 0.0, .. });
            match op {
                BinaryOp::Div if zero => self.error(token.span(), "division by zero"),
                BinaryOp::Mod if zero => self.error(token.span(), "modulo by zero"),
                _ => {}
            }
            let span = Span::new(self.duration(lhs).span.start, self.duration(rhs).span.end);
            lhs = self.push_duration(DurationKind::Binary(op, lhs, rhs), span, false)?;
        }
    }

    fn duration_literal(&mut self, token: Token, sign: Option<(Token, UnaryOp)>) -> Result<DurationId, Stop> {
        let (mut value, duration) = self.literal_value(token);
        let mut span = token.span();
        let mut complaint = span;
        if let Some((op_token, op)) = sign {
            value = if op == UnaryOp::Minus { -value } else { value };
            span.start = op_token.start;
            complaint = op_token.span();
        }
        if is_out_of_range(value) {
            self.error(complaint, "duration out of range");
            value = 0.0;
        }
        self.push_duration(DurationKind::Number { value, duration }, span, false)
    }

    /// `step()`, `range()`, `min_of(a, b)`, `max_of(a, b)`, of which the name has been taken.
    fn duration_call(&mut self, name: Token, depth: u16) -> Result<DurationId, Stop> {
        if matches!(name.kind, TokenKind::Start | TokenKind::End) {
            return Err(Stop::Syntax);
        }
        self.expect(TokenKind::LeftParen)?;
        let kind = match name.kind {
            TokenKind::Step => DurationKind::Step,
            TokenKind::Range => DurationKind::Range,
            kind => {
                let first = self.duration_expression(0, depth + 1)?;
                self.expect(TokenKind::Comma)?;
                let second = self.duration_expression(0, depth + 1)?;
                self.expect(TokenKind::RightParen)?;
                // Upstream places these at their arguments.
                let span = Span::new(self.duration(first).span.start, self.duration(second).span.end);
                let kind = if kind == TokenKind::MinOf {
                    DurationKind::MinOf(first, second)
                } else {
                    DurationKind::MaxOf(first, second)
                };
                return self.push_duration(kind, span, false);
            }
        };
        let close = self.expect(TokenKind::RightParen)?;
        self.push_duration(kind, Span::new(name.start, close.end), false)
    }

    /// A sign before an expression: folded into a literal, dropped where it is a plus.
    fn apply_sign(&mut self, op_token: Token, op: UnaryOp, id: DurationId) -> Result<DurationId, Stop> {
        let node = *self.duration(id);
        match node.kind {
            DurationKind::Number { value, duration } => {
                let value = if op == UnaryOp::Minus { -value } else { value };
                let number = &mut self.durations[id.0 as usize];
                number.kind = DurationKind::Number { value, duration };
                number.span.start = op_token.start;
                Ok(id)
            }
            _ if op == UnaryOp::Minus => {
                let span = Span::new(op_token.start, node.span.end);
                self.push_duration(DurationKind::Unary(op, id), span, false)
            }
            _ => Ok(id),
        }
    }

    /// Marks an expression as parenthesised; a literal becomes an expression by that.
    fn wrap_duration(&mut self, id: DurationId, span: Span) -> Result<DurationId, Stop> {
        let node = &mut self.durations[id.0 as usize];
        match node.kind {
            DurationKind::Number { .. } => {
                self.push_duration(DurationKind::Unary(UnaryOp::Plus, id), span, true)
            }
            _ => {
                node.wrapped = true;
                Ok(id)
            }
        }
    }

    fn require_enabled(&mut self, id: DurationId) {
        if !self.options.duration_expressions {
            let span = self.duration(id).span;
            self.error(span, "experimental duration expression is not enabled");
        }
    }

    fn duration_value(&self, id: DurationId) -> DurationValue {
        match self.duration(id).kind {
            DurationKind::Number { value, .. } => DurationValue::Literal(ms_of_seconds(value)),
            _ => DurationValue::Expression(id),
        }
    }
}

fn sign(op: BinaryOp) -> UnaryOp {
    if op == BinaryOp::Sub { UnaryOp::Minus } else { UnaryOp::Plus }
}

fn is_duration_operator(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Pow
    )
}

/// The value of a duration expression, in seconds.
pub(super) fn evaluate(
    nodes: &[DurationNode],
    id: DurationId,
    step_seconds: f64,
    range_seconds: f64,
) -> Result<f64, String> {
    let node = nodes[id.0 as usize];
    let value = |id| evaluate(nodes, id, step_seconds, range_seconds);
    let place = || format!("{}:{}", node.span.start, node.span.end);
    Ok(match node.kind {
        DurationKind::Number { value, .. } => value,
        DurationKind::Step => step_seconds,
        DurationKind::Range => range_seconds,
        DurationKind::Unary(UnaryOp::Plus, x) => value(x)?,
        DurationKind::Unary(UnaryOp::Minus, x) => -value(x)?,
        DurationKind::MinOf(x, y) => {
            let (x, y) = (value(x)?, value(y)?);
            if x.is_nan() || y.is_nan() { f64::NAN } else { x.min(y) }
        }
        DurationKind::MaxOf(x, y) => {
            let (x, y) = (value(x)?, value(y)?);
            if x.is_nan() || y.is_nan() { f64::NAN } else { x.max(y) }
        }
        DurationKind::Binary(op, x, y) => {
            let (x, y) = (value(x)?, value(y)?);
            match op {
                BinaryOp::Add => x + y,
                BinaryOp::Sub => x - y,
                BinaryOp::Mul => x * y,
                BinaryOp::Div if y == 0.0 => return Err(format!("{}: division by zero", place())),
                BinaryOp::Div => x / y,
                BinaryOp::Mod if y == 0.0 => return Err(format!("{}: modulo by zero", place())),
                BinaryOp::Mod => x % y,
                BinaryOp::Pow => x.powf(y),
                other => return Err(format!("{}: {other} is no operator of durations", place())),
            }
        }
    })
}

/// The value of a duration expression in whole milliseconds, rounded towards zero. The texts, positions included,
/// are upstream's.
pub(super) fn evaluate_ms(
    nodes: &[DurationNode],
    id: DurationId,
    step_ms: i64,
    range_ms: i64,
    negative_allowed: bool,
) -> Result<i64, String> {
    let seconds = evaluate(nodes, id, step_ms as f64 / 1000.0, range_ms as f64 / 1000.0)?;
    let span = nodes[id.0 as usize].span;
    let problem = if !seconds.is_finite() {
        "duration is NaN or infinite"
    } else if seconds <= 0.0 && !negative_allowed {
        "duration must be greater than 0"
    } else if is_out_of_range(seconds) {
        "duration is out of range"
    } else {
        return Ok((seconds * 1000.0) as i64);
    };
    Err(format!("{}:{}: {problem}", span.start, span.end))
}
