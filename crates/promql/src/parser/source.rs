//! What every part of the parser works on: tokens with one of lookahead, the growing tree, the errors.

use super::ParseOptions;
use super::ast::{
    Ast, DurationId, DurationKind, DurationNode, ExprId, Node, NodeKind, Position, Span, ValueType,
};
use super::error::{ParseError, ParseErrors};
use super::lexer::Lexer;
use super::token::{Token, TokenKind};

/// Why parsing stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// An error is in the list.
    Reported,
    /// The token that was read last fits nowhere; who knows what was being parsed says so.
    Syntax,
}

/// The parser's state. Tokens are read as late as upstream's reads them: errors of the lexer and errors about what
/// was read before come in the order in which they are found, and the first is the one that users see.
pub(super) struct Parser<'a> {
    pub(super) lexer: Lexer<'a>,
    pub(super) options: ParseOptions,
    lookahead: Option<Token>,
    /// The token that was read last, taken or not: the one that a syntax error names.
    last: Token,
    /// End of the last token read that can close an expression; end positions come from it.
    pub(super) last_closing: u32,
    pub(super) errors: Vec<ParseError>,
    pub(super) nodes: Vec<Node>,
    pub(super) durations: Vec<DurationNode>,
    /// Depth of each duration node's subtree.
    pub(super) duration_depths: Vec<u16>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(input: &'a str, options: ParseOptions) -> Self {
        Parser {
            lexer: Lexer::new(input),
            options,
            lookahead: None,
            last: Token { kind: TokenKind::Eof, start: 0, end: 0 },
            last_closing: 0,
            errors: Vec::new(),
            nodes: Vec::new(),
            durations: Vec::new(),
            duration_depths: Vec::new(),
        }
    }

    pub(super) fn input(&self) -> &'a str {
        self.lexer.input()
    }

    /// The next token, left where it is.
    pub(super) fn peek(&mut self) -> Token {
        if let Some(token) = self.lookahead {
            return token;
        }
        let token = self.lexer.next_token();
        match token.kind {
            TokenKind::Error => {
                if let Some((span, message)) = self.lexer.take_error() {
                    self.error(span, message);
                }
            }
            TokenKind::RightBrace
            | TokenKind::RightParen
            | TokenKind::RightBracket
            | TokenKind::Duration
            | TokenKind::Number => self.last_closing = token.end,
            _ => {}
        }
        self.lookahead = Some(token);
        self.last = token;
        token
    }

    /// The next token, consumed.
    pub(super) fn take(&mut self) -> Token {
        let token = self.peek();
        self.lookahead = None;
        token
    }

    /// Consumes the next token if it is of this kind, else stops.
    pub(super) fn expect(&mut self, kind: TokenKind) -> Result<Token, Stop> {
        if self.peek().kind == kind { Ok(self.take()) } else { Err(Stop::Syntax) }
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(ParseError { span, position: None, message: message.into() });
    }

    /// Reports the token that was read last as unexpected; errors of the lexer have been reported already.
    pub(super) fn unexpected(&mut self, context: &str, expected: &str) -> Stop {
        if self.last.kind != TokenKind::Error {
            let mut message = format!("unexpected {}", self.last.describe(self.input()));
            if !context.is_empty() {
                message.push_str(" in ");
                message.push_str(context);
            }
            if !expected.is_empty() {
                message.push_str(", expected ");
                message.push_str(expected);
            }
            self.error(self.last.span(), message);
        }
        Stop::Reported
    }

    /// Adds a node.
    pub(super) fn push(&mut self, kind: NodeKind, span: Span, value_type: ValueType) -> ExprId {
        let id = ExprId(self.nodes.len() as u32);
        self.nodes.push(Node { kind, span, value_type });
        id
    }

    pub(super) fn node(&self, id: ExprId) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn node_mut(&mut self, id: ExprId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    pub(super) fn span(&self, id: ExprId) -> Span {
        self.node(id).span
    }

    /// Adds a node of a duration expression.
    pub(super) fn push_duration(
        &mut self,
        kind: DurationKind,
        span: Span,
        wrapped: bool,
    ) -> Result<DurationId, Stop> {
        let depth_of = |id: DurationId| self.duration_depths[id.0 as usize];
        let depth = 1 + match kind {
            DurationKind::Number { .. } | DurationKind::Step | DurationKind::Range => 0,
            DurationKind::Unary(_, x) => depth_of(x),
            DurationKind::Binary(_, x, y) | DurationKind::MinOf(x, y) | DurationKind::MaxOf(x, y) => {
                depth_of(x).max(depth_of(y))
            }
        };
        if depth > super::duration::DEPTH_MAX {
            self.error(span, "duration expression is nested too deeply");
            return Err(Stop::Reported);
        }
        let id = DurationId(self.durations.len() as u32);
        self.durations.push(DurationNode { kind, span, wrapped });
        self.duration_depths.push(depth);
        Ok(id)
    }

    pub(super) fn duration(&self, id: DurationId) -> &DurationNode {
        &self.durations[id.0 as usize]
    }

    /// The tree, or the errors with their positions filled in.
    pub(super) fn finish(self, root: Option<ExprId>) -> Result<Ast, ParseErrors> {
        let query = self.lexer.input();
        match root {
            Some(root) if self.errors.is_empty() => {
                Ok(Ast { nodes: self.nodes, durations: self.durations, root, query: query.into() })
            }
            _ => Err(self.into_errors()),
        }
    }

    /// The errors with their positions filled in.
    pub(super) fn into_errors(mut self) -> ParseErrors {
        let query = self.lexer.input();
        for error in &mut self.errors {
            error.position = (!query.is_empty()).then(|| Position::of(query, error.span.start as usize));
        }
        ParseErrors(self.errors)
    }
}
