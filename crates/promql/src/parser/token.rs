//! The words of the language.

use super::ast::Span;
use super::ops::{AggregateOp, BinaryOp};
use super::quote::go_quote;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Eof,
    /// The lexer gave up; the message is with the lexer.
    Error,
    Identifier,
    /// An identifier with a colon.
    MetricIdentifier,
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Assign,
    /// `=~`
    RegexEqual,
    /// `!~`
    RegexNotEqual,
    At,
    /// A binary operator; `+` and `-` are signs too, `!=` is a matcher's operator too.
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Bool,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Offset,
    Anchored,
    Smoothed,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

impl TokenKind {
    /// The keyword of a word, whatever its case.
    pub(super) fn keyword(word: &[u8]) -> Option<TokenKind> {
        // The longest keyword has twelve letters.
        let mut lower = [0u8; 12];
        let lower = lower.get_mut(..word.len())?;
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"and" => TokenKind::Op(BinaryOp::And),
            b"or" => TokenKind::Op(BinaryOp::Or),
            b"unless" => TokenKind::Op(BinaryOp::Unless),
            b"atan2" => TokenKind::Op(BinaryOp::Atan2),
            b"sum" => TokenKind::Aggregate(AggregateOp::Sum),
            b"avg" => TokenKind::Aggregate(AggregateOp::Avg),
            b"count" => TokenKind::Aggregate(AggregateOp::Count),
            b"min" => TokenKind::Aggregate(AggregateOp::Min),
            b"max" => TokenKind::Aggregate(AggregateOp::Max),
            b"group" => TokenKind::Aggregate(AggregateOp::Group),
            b"stddev" => TokenKind::Aggregate(AggregateOp::Stddev),
            b"stdvar" => TokenKind::Aggregate(AggregateOp::Stdvar),
            b"topk" => TokenKind::Aggregate(AggregateOp::Topk),
            b"bottomk" => TokenKind::Aggregate(AggregateOp::Bottomk),
            b"count_values" => TokenKind::Aggregate(AggregateOp::CountValues),
            b"quantile" => TokenKind::Aggregate(AggregateOp::Quantile),
            b"limitk" => TokenKind::Aggregate(AggregateOp::Limitk),
            b"limit_ratio" => TokenKind::Aggregate(AggregateOp::LimitRatio),
            b"offset" => TokenKind::Offset,
            b"smoothed" => TokenKind::Smoothed,
            b"anchored" => TokenKind::Anchored,
            b"by" => TokenKind::By,
            b"without" => TokenKind::Without,
            b"on" => TokenKind::On,
            b"ignoring" => TokenKind::Ignoring,
            b"group_left" => TokenKind::GroupLeft,
            b"group_right" => TokenKind::GroupRight,
            b"fill" => TokenKind::Fill,
            b"fill_left" => TokenKind::FillLeft,
            b"fill_right" => TokenKind::FillRight,
            b"bool" => TokenKind::Bool,
            b"start" => TokenKind::Start,
            b"end" => TokenKind::End,
            b"step" => TokenKind::Step,
            b"range" => TokenKind::Range,
            b"max_of" => TokenKind::MaxOf,
            b"min_of" => TokenKind::MinOf,
            b"inf" | b"nan" => TokenKind::Number,
            _ => return None,
        })
    }

    /// True for the words that can be a metric name.
    pub(super) fn is_metric_name(self) -> bool {
        match self {
            TokenKind::Op(op) => op.is_set(),
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregate(_)
            | TokenKind::By
            | TokenKind::Without
            | TokenKind::Fill
            | TokenKind::FillLeft
            | TokenKind::FillRight
            | TokenKind::Offset
            | TokenKind::Anchored
            | TokenKind::Smoothed => true,
            other => other.is_preprocessor(),
        }
    }

    /// True for the words that can be a label of `by`, `on`, ...; `without` is the keyword that cannot.
    pub(super) fn is_grouping_label(self) -> bool {
        match self {
            TokenKind::Without => false,
            TokenKind::Bool
            | TokenKind::On
            | TokenKind::Ignoring
            | TokenKind::GroupLeft
            | TokenKind::GroupRight
            | TokenKind::Op(BinaryOp::Atan2) => true,
            other => other.is_metric_name(),
        }
    }

    /// `start`, `end`, `step`, `range`, `min_of`, `max_of`.
    pub(super) fn is_preprocessor(self) -> bool {
        matches!(
            self,
            TokenKind::Start
                | TokenKind::End
                | TokenKind::Step
                | TokenKind::Range
                | TokenKind::MinOf
                | TokenKind::MaxOf
        )
    }

    fn is_keyword(self) -> bool {
        matches!(
            self,
            TokenKind::Bool
                | TokenKind::By
                | TokenKind::Without
                | TokenKind::On
                | TokenKind::Ignoring
                | TokenKind::GroupLeft
                | TokenKind::GroupRight
                | TokenKind::Fill
                | TokenKind::FillLeft
                | TokenKind::FillRight
                | TokenKind::Offset
                | TokenKind::Anchored
                | TokenKind::Smoothed
        )
    }
}

/// A token: its kind and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Token {
    pub(super) fn span(self) -> Span {
        Span::new(self.start, self.end)
    }

    pub(super) fn text(self, input: &str) -> &str {
        &input[self.start as usize..self.end as usize]
    }

    /// The token as error texts name it: `identifier "foo"`, `<op:+>`, `end of input`.
    pub(super) fn describe(self, input: &str) -> String {
        let text = self.text(input);
        match self.kind {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Error => "error".to_owned(),
            TokenKind::Identifier => format!("identifier {}", go_quote(text.as_bytes())),
            TokenKind::MetricIdentifier => format!("metric identifier {}", go_quote(text.as_bytes())),
            TokenKind::Number => format!("number {}", shortened(text)),
            TokenKind::Duration => format!("duration {}", shortened(text)),
            TokenKind::String => format!("string {}", shortened(text)),
            TokenKind::Op(_) | TokenKind::At | TokenKind::RegexEqual | TokenKind::RegexNotEqual => {
                format!("<op:{text}>")
            }
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            kind if kind.is_keyword() => format!("<{text}>"),
            _ => shortened(text),
        }
    }
}

/// The text quoted, its first ten characters if it is longer.
fn shortened(text: &str) -> String {
    if text.len() > 10 {
        let end = text.char_indices().nth(10).map_or(text.len(), |(i, _)| i);
        format!("{}...", go_quote(&text.as_bytes()[..end]))
    } else {
        go_quote(text.as_bytes())
    }
}
