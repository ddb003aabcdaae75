//! Selectors and label lists: what stands in braces and after `by`, `on`, ...

use chronolith_model::{METRIC_NAME, MatchOp, Matcher, MatcherError};

use super::ast::{ExprId, NodeKind, Span, ValueType, VectorSelector};
use super::ops::BinaryOp;
use super::quote::{go_quote, into_text, unquote};
use super::source::{Parser, Stop};
use super::token::{Token, TokenKind};

impl Parser<'_> {
    /// A vector selector of which the metric name, or the left brace of a nameless one, has been taken.
    pub(super) fn vector_selector(&mut self, first: Token) -> Result<ExprId, Stop> {
        let mut selector = VectorSelector::default();
        let mut span = first.span();
        if first.kind == TokenKind::LeftBrace {
            span.end = self.label_matchers(&mut selector.matchers)?;
        } else {
            selector.name = first.text(self.input()).to_owned();
            if self.peek().kind == TokenKind::LeftBrace {
                self.take();
                span.end = self.label_matchers(&mut selector.matchers)?;
            }
            selector.matchers.reserve_exact(1);
            selector.matchers.push(Matcher::equal(METRIC_NAME, &selector.name));
        }
        Ok(self.push(NodeKind::VectorSelector(Box::new(selector)), span, ValueType::Vector))
    }

    /// The matchers after a left brace; gives back where the right brace ends.
    fn label_matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<u32, Stop> {
        const CONTEXT: &str = "label matching";
        loop {
            let label = self.take();
            match label.kind {
                TokenKind::RightBrace => return Ok(label.end),
                TokenKind::Identifier | TokenKind::String => self.label_matcher(label, matchers)?,
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            }
            let token = self.take();
            match token.kind {
                TokenKind::Comma => {}
                TokenKind::RightBrace => return Ok(token.end),
                _ => return Err(self.unexpected(CONTEXT, "\",\" or \"}\"")),
            }
        }
    }

    fn label_matcher(&mut self, label: Token, matchers: &mut Vec<Matcher>) -> Result<(), Stop> {
        let quoted = label.kind == TokenKind::String;
        let name =
            if quoted { into_text(self.string_bytes(label)) } else { label.text(self.input()).to_owned() };
        let op = match self.peek().kind {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            TokenKind::RegexEqual => MatchOp::Regex,
            TokenKind::RegexNotEqual => MatchOp::NotRegex,
            // A string by itself is the metric's name.
            _ if quoted => {
                matchers.push(Matcher::equal(METRIC_NAME, &name));
                return Ok(());
            }
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.take();
        let value = self.take();
        if value.kind != TokenKind::String {
            return Err(self.unexpected("label matching", "string"));
        }
        // Label values are UTF-8, so what is not cannot match; only its text differs.
        let text = into_text(self.string_bytes(value));
        match Matcher::new(op, &name, &text) {
            Ok(matcher) => matchers.push(matcher),
            Err(MatcherError::Regex(error)) => {
                self.error(Span::new(label.start, value.end), error.to_string());
            }
        }
        Ok(())
    }

    /// What a string token stands for.
    pub(super) fn string_bytes(&mut self, token: Token) -> Vec<u8> {
        let text = token.text(self.input());
        unquote(text).unwrap_or_else(|| {
            let message = format!("error unquoting string {}: invalid syntax", go_quote(text.as_bytes()));
            self.error(token.span(), message);
            Vec::new()
        })
    }

    /// `(a, b, "c.d")` after `by`, `without`, `on`, `ignoring`, `group_left`, `group_right`.
    pub(super) fn grouping_labels(&mut self) -> Result<Vec<String>, Stop> {
        const CONTEXT: &str = "grouping opts";
        let mut labels = Vec::new();
        if self.take().kind != TokenKind::LeftParen {
            return Err(self.unexpected(CONTEXT, "\"(\""));
        }
        if self.peek().kind == TokenKind::RightParen {
            self.take();
            return Ok(labels);
        }
        loop {
            let token = self.take();
            match token.kind {
                TokenKind::String => {
                    let bytes = self.string_bytes(token);
                    match String::from_utf8(bytes) {
                        Ok(name) if !name.is_empty() => labels.push(name),
                        Ok(_) => self.error(token.span(), "invalid label name for grouping: \"\""),
                        Err(e) => {
                            let name = go_quote(e.as_bytes());
                            self.error(token.span(), format!("invalid label name for grouping: {name}"));
                        }
                    }
                }
                kind if kind.is_grouping_label() => labels.push(token.text(self.input()).to_owned()),
                _ => return Err(self.unexpected(CONTEXT, "label")),
            }
            match self.take().kind {
                TokenKind::RightParen => return Ok(labels),
                TokenKind::Comma => {
                    if self.peek().kind == TokenKind::RightParen {
                        self.take();
                        return Ok(labels);
                    }
                }
                _ => return Err(self.unexpected(CONTEXT, "\",\" or \")\"")),
            }
        }
    }
}
