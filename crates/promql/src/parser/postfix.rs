//! What follows an operand: `[range]`, `[range:step]`, `offset`, `@`, `anchored`, `smoothed`.

use super::ast::{At, ExprId, MatrixSelector, NodeKind, Span, Subquery, ValueType};
use super::duration::DurationValue;
use super::ops::BinaryOp;
use super::source::{Parser, Stop};
use super::token::{Token, TokenKind};

/// Where a modifier of an expression is kept.
enum Carrier {
    /// The vector selector of a vector or matrix selector.
    Selector(ExprId),
    Subquery,
}

impl Parser<'_> {
    /// `[…]` after an operand.
    pub(super) fn brackets(&mut self, operand: ExprId) -> Result<ExprId, Stop> {
        let open = self.take();
        let range = match self.positive_duration() {
            Err(Stop::Syntax) => {
                let expected = "number, duration, step(), or range()";
                return Err(self.unexpected("subquery or range selector", expected));
            }
            other => other?,
        };
        let token = self.take();
        match token.kind {
            TokenKind::RightBracket => Ok(self.matrix_selector(operand, range, open, token)),
            TokenKind::Colon => self.subquery(operand, range),
            _ => Err(self.unexpected("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn matrix_selector(
        &mut self,
        operand: ExprId,
        range: DurationValue,
        open: Token,
        close: Token,
    ) -> ExprId {
        let problem = match &self.node(operand).kind {
            NodeKind::VectorSelector(selector) => {
                if selector.original_offset_ms != 0 || selector.original_offset_expr.is_some() {
                    Some("no offset modifiers allowed before range")
                } else if selector.at.is_some() {
                    Some("no @ modifiers allowed before range")
                } else {
                    None
                }
            }
            _ => Some("ranges only allowed for vector selectors"),
        };
        if let Some(problem) = problem {
            self.error(Span::new(open.start, close.end), problem);
        }
        let (range_ms, range_expr) = split(range);
        let span = Span::new(self.span(operand).start, self.last_closing);
        let kind = NodeKind::MatrixSelector(MatrixSelector { selector: operand, range_ms, range_expr });
        self.push(kind, span, ValueType::Matrix)
    }

    fn subquery(&mut self, operand: ExprId, range: DurationValue) -> Result<ExprId, Stop> {
        let step = if self.peek().kind == TokenKind::RightBracket {
            DurationValue::Literal(0)
        } else {
            match self.positive_duration() {
                Err(Stop::Syntax) => {
                    let expected = "number, duration, step(), range(), or \"]\"";
                    return Err(self.unexpected("subquery selector", expected));
                }
                other => other?,
            }
        };
        let close = self.take();
        if close.kind != TokenKind::RightBracket {
            return Err(self.unexpected("subquery selector", "\"]\""));
        }
        let (range_ms, range_expr) = split(range);
        let (step_ms, step_expr) = split(step);
        let subquery = Subquery {
            expr: operand,
            range_ms,
            range_expr,
            step_ms,
            step_expr,
            original_offset_ms: 0,
            original_offset_expr: None,
            offset_ms: 0,
            at: None,
            timestamp_ms: None,
        };
        let span = Span::new(self.span(operand).start, close.end);
        Ok(self.push(NodeKind::Subquery(Box::new(subquery)), span, ValueType::Matrix))
    }

    /// `offset …` after an operand.
    pub(super) fn offset(&mut self, operand: ExprId) -> Result<(), Stop> {
        self.take();
        let duration = match self.offset_duration() {
            Err(Stop::Syntax) => {
                return Err(self.unexpected("offset", "number, duration, step(), or range()"));
            }
            other => other?,
        };
        let (offset_ms, offset_expr) = split(duration);
        let Some(carrier) = self.carrier(operand, "offset modifier") else { return Ok(()) };
        let (ms, expr, resolved) = match carrier {
            Carrier::Selector(id) => match &mut self.node_mut(id).kind {
                NodeKind::VectorSelector(s) => {
                    (&mut s.original_offset_ms, &mut s.original_offset_expr, &mut s.offset_ms)
                }
                _ => return Ok(()),
            },
            Carrier::Subquery => match &mut self.node_mut(operand).kind {
                NodeKind::Subquery(s) => {
                    (&mut s.original_offset_ms, &mut s.original_offset_expr, &mut s.offset_ms)
                }
                _ => return Ok(()),
            },
        };
        if *ms != 0 || expr.is_some() {
            self.error(self.span(operand), "offset may not be set multiple times");
        } else {
            (*ms, *expr, *resolved) = (offset_ms, offset_expr, offset_ms);
        }
        self.close_at_last(operand);
        Ok(())
    }

    /// `@ …` after an operand.
    pub(super) fn at(&mut self, operand: ExprId) -> Result<(), Stop> {
        self.take();
        let at = match self.at_value() {
            Err(Stop::Syntax) => return Err(self.unexpected("@", "timestamp")),
            other => other?,
        };
        let at = match at {
            AtValue::Seconds(seconds) => {
                // 2^63, upstream's bound for seconds.
                if seconds.is_nan() || seconds.abs() >= 9_223_372_036_854_775_808.0 {
                    let text = super::print::fixed(seconds, 6);
                    let message = format!("timestamp out of bounds for @ modifier: {text}");
                    self.error(self.span(operand), message);
                }
                At::Timestamp((seconds * 1000.0).round() as i64)
            }
            AtValue::Start => At::Start,
            AtValue::End => At::End,
        };
        let Some(carrier) = self.carrier(operand, "@ modifier") else { return Ok(()) };
        let (slot, resolved) = match carrier {
            Carrier::Selector(id) => match &mut self.node_mut(id).kind {
                NodeKind::VectorSelector(s) => (&mut s.at, &mut s.timestamp_ms),
                _ => return Ok(()),
            },
            Carrier::Subquery => match &mut self.node_mut(operand).kind {
                NodeKind::Subquery(s) => (&mut s.at, &mut s.timestamp_ms),
                _ => return Ok(()),
            },
        };
        if slot.is_some() {
            self.error(self.span(operand), "@ <timestamp> may not be set multiple times");
            return Ok(());
        }
        *slot = Some(at);
        if let At::Timestamp(ms) = at {
            *resolved = Some(ms);
        }
        self.close_at_last(operand);
        Ok(())
    }

    fn at_value(&mut self) -> Result<AtValue, Stop> {
        let token = self.take();
        match token.kind {
            TokenKind::Number | TokenKind::Duration => Ok(AtValue::Seconds(self.literal_value(token).0)),
            TokenKind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                let token = self.take();
                if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
                    return Err(Stop::Syntax);
                }
                let value = self.literal_value(token).0;
                Ok(AtValue::Seconds(if op == BinaryOp::Sub { -value } else { value }))
            }
            TokenKind::Start | TokenKind::End => {
                self.expect(TokenKind::LeftParen)?;
                self.expect(TokenKind::RightParen)?;
                Ok(if token.kind == TokenKind::Start { AtValue::Start } else { AtValue::End })
            }
            _ => Err(Stop::Syntax),
        }
    }

    /// `anchored` or `smoothed` after an operand.
    pub(super) fn extended(&mut self, operand: ExprId) {
        let anchored = self.take().kind == TokenKind::Anchored;
        let word = if anchored { "anchored" } else { "smoothed" };
        let span = self.span(operand);
        if !self.options.extended_range_selectors {
            self.error(span, format!("{word} modifier is experimental and not enabled"));
            return;
        }
        let id = match &self.node(operand).kind {
            NodeKind::VectorSelector(_) => operand,
            NodeKind::MatrixSelector(matrix) => matrix.selector,
            NodeKind::Subquery(_) => {
                self.error(span, format!("{word} modifier is not supported for subqueries"));
                return;
            }
            _ => {
                self.error(span, format!("{word} modifier not implemented"));
                return;
            }
        };
        let NodeKind::VectorSelector(selector) = &mut self.node_mut(id).kind else { return };
        let other = if anchored {
            selector.anchored = true;
            selector.smoothed
        } else {
            selector.smoothed = true;
            selector.anchored
        };
        if other {
            self.error(span, "anchored and smoothed modifiers cannot be used together");
        }
    }

    /// Where the operand keeps its modifiers; an operand that cannot have any is reported.
    fn carrier(&mut self, operand: ExprId, modifier: &str) -> Option<Carrier> {
        let problem = match &self.node(operand).kind {
            NodeKind::VectorSelector(_) => return Some(Carrier::Selector(operand)),
            NodeKind::Subquery(_) => return Some(Carrier::Subquery),
            NodeKind::MatrixSelector(matrix) => match self.node(matrix.selector).kind {
                NodeKind::VectorSelector(_) => return Some(Carrier::Selector(matrix.selector)),
                _ => "ranges only allowed for vector selectors".to_owned(),
            },
            _ => format!(
                "{modifier} must be preceded by an instant vector selector or range vector selector or a subquery"
            ),
        };
        self.error(self.span(operand), problem);
        None
    }

    fn close_at_last(&mut self, operand: ExprId) {
        self.node_mut(operand).span.end = self.last_closing;
    }
}

enum AtValue {
    Seconds(f64),
    Start,
    End,
}

fn split(value: DurationValue) -> (i64, Option<super::ast::DurationId>) {
    match value {
        DurationValue::Literal(ms) => (ms, None),
        DurationValue::Expression(id) => (0, Some(id)),
    }
}
