//! Text to tokens.
//!
//! The lexer is a machine of four states, since what a character means depends on where it stands: in an
//! expression, inside the braces of a selector, right after an opening bracket, and after the first number in
//! brackets (where an expression's rules hold again, but for words). It reads on demand, one token at a time, and
//! stops at the first error; it never allocates but for that error's text.

use super::ast::Span;
use super::ops::BinaryOp;
use super::quote::go_quote_char;
use super::token::{Token, TokenKind};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Statements,
    Braces,
    /// In brackets, before the first number and after each token that is no number.
    Durations,
}

/// The lexer's place in the text.
pub(super) struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    /// Where the token that is being read starts.
    start: usize,
    state: State,
    paren_depth: u32,
    bracket_open: bool,
    got_colon: bool,
    got_duration: bool,
    error: Option<(Span, String)>,
}

/// The end of the input, where a character is expected.
const EOF: Option<char> = None;

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Lexer {
            input,
            pos: 0,
            start: 0,
            state: State::Statements,
            paren_depth: 0,
            bracket_open: false,
            got_colon: false,
            got_duration: false,
            error: None,
        }
    }

    /// The text that is read.
    pub(super) fn input(&self) -> &'a str {
        self.input
    }

    /// The error behind a [`TokenKind::Error`] token.
    pub(super) fn take_error(&mut self) -> Option<(Span, String)> {
        self.error.take()
    }

    /// The next token; [`TokenKind::Eof`] or [`TokenKind::Error`] for ever once the end is reached.
    pub(super) fn next_token(&mut self) -> Token {
        loop {
            self.skip_spaces();
            self.start = self.pos;
            if self.state != State::Durations && self.peek_byte() == Some(b'#') {
                self.skip_comment();
                continue;
            }
            let kind = match self.state {
                State::Statements => self.statement(),
                State::Braces => self.inside_braces(),
                State::Durations => self.duration_expression(),
            };
            return Token { kind, start: self.start as u32, end: self.pos as u32 };
        }
    }

    fn statement(&mut self) -> TokenKind {
        let Some(c) = self.next_char() else {
            return match (self.paren_depth, self.bracket_open) {
                (0, false) => TokenKind::Eof,
                (0, true) => self.fail("unclosed left bracket".to_owned()),
                _ => self.fail("unclosed left parenthesis".to_owned()),
            };
        };
        match c {
            ',' => TokenKind::Comma,
            '*' => TokenKind::Op(BinaryOp::Mul),
            '/' => TokenKind::Op(BinaryOp::Div),
            '%' => TokenKind::Op(BinaryOp::Mod),
            '+' => TokenKind::Op(BinaryOp::Add),
            '-' => TokenKind::Op(BinaryOp::Sub),
            '^' => TokenKind::Op(BinaryOp::Pow),
            '@' => TokenKind::At,
            '=' => match self.peek_byte() {
                Some(b'=') => self.also(TokenKind::Op(BinaryOp::Eq)),
                Some(b'~') => self.fail("unexpected character after '=': '~'".to_owned()),
                _ => TokenKind::Assign,
            },
            '!' => match self.next_char() {
                Some('=') => TokenKind::Op(BinaryOp::Ne),
                other => self.fail(format!("unexpected character after '!': {}", quote_next(other))),
            },
            '<' => match self.peek_byte() {
                Some(b'=') => self.also(TokenKind::Op(BinaryOp::Le)),
                Some(b'/') => self.also(TokenKind::Op(BinaryOp::TrimUpper)),
                _ => TokenKind::Op(BinaryOp::Lt),
            },
            '>' => match self.peek_byte() {
                Some(b'=') => self.also(TokenKind::Op(BinaryOp::Ge)),
                Some(b'/') => self.also(TokenKind::Op(BinaryOp::TrimLower)),
                _ => TokenKind::Op(BinaryOp::Gt),
            },
            '.' | '0'..='9' if c != '.' || self.peek_digit() => {
                self.pos -= 1;
                self.number_or_duration()
            }
            '"' | '\'' => self.string(c),
            '`' => self.raw_string(),
            '(' => self.left_paren(),
            ')' => self.right_paren(),
            '{' => {
                self.state = State::Braces;
                TokenKind::LeftBrace
            }
            '[' if self.bracket_open => self.fail("unexpected left bracket '['".to_owned()),
            '[' => {
                self.got_colon = false;
                // `got_duration` stays as it is: upstream too lets a duration of an earlier bracket count.
                self.bracket_open = true;
                self.state = State::Durations;
                TokenKind::LeftBracket
            }
            ']' if !self.bracket_open => self.fail("unexpected right bracket ']'".to_owned()),
            ']' => {
                self.bracket_open = false;
                TokenKind::RightBracket
            }
            ':' if self.bracket_open => {
                if self.got_colon {
                    return self.fail("unexpected colon ':'".to_owned());
                }
                self.got_colon = true;
                TokenKind::Colon
            }
            _ if self.bracket_open && is_alpha(c) => match self.duration_keyword(c) {
                Some(kind) => kind,
                None => self.fail(format!("unexpected character: {}, expected ':'", go_quote_char(c))),
            },
            _ if is_alpha(c) || c == ':' => self.word(),
            _ => self.fail(format!("unexpected character: {}", go_quote_char(c))),
        }
    }

    fn inside_braces(&mut self) -> TokenKind {
        match self.next_char() {
            EOF => self.fail("unexpected end of input inside braces".to_owned()),
            Some(',') => TokenKind::Comma,
            Some(quote @ ('"' | '\'')) => self.string(quote),
            Some('`') => self.raw_string(),
            Some('=') if self.peek_byte() == Some(b'~') => self.also(TokenKind::RegexEqual),
            Some('=') => TokenKind::Assign,
            Some('!') => match self.next_char() {
                Some('~') => TokenKind::RegexNotEqual,
                Some('=') => TokenKind::Op(BinaryOp::Ne),
                other => {
                    self.fail(format!("unexpected character after '!' inside braces: {}", quote_next(other)))
                }
            },
            Some('{') => self.fail("unexpected left brace '{'".to_owned()),
            Some('}') => {
                self.state = State::Statements;
                TokenKind::RightBrace
            }
            Some(c) if is_alpha(c) => {
                self.skip_while(is_alphanumeric);
                TokenKind::Identifier
            }
            Some(c) => self.fail(format!("unexpected character inside braces: {}", go_quote_char(c))),
        }
    }

    fn duration_expression(&mut self) -> TokenKind {
        let Some(c) = self.next_char() else {
            return self.fail("unexpected end of input in duration expression".to_owned());
        };
        match c {
            ']' => {
                self.bracket_open = false;
                self.got_colon = false;
                self.state = State::Statements;
                TokenKind::RightBracket
            }
            ':' => {
                let problem = if !self.got_duration {
                    "unexpected colon before duration in duration expression"
                } else if self.got_colon {
                    "unexpected repeated colon in duration expression"
                } else {
                    self.got_colon = true;
                    return TokenKind::Colon;
                };
                self.start = self.pos;
                self.fail(problem.to_owned())
            }
            '(' => self.left_paren(),
            ')' => self.right_paren(),
            '+' => TokenKind::Op(BinaryOp::Add),
            '-' => TokenKind::Op(BinaryOp::Sub),
            '*' => TokenKind::Op(BinaryOp::Mul),
            '/' => TokenKind::Op(BinaryOp::Div),
            '%' => TokenKind::Op(BinaryOp::Mod),
            '^' => TokenKind::Op(BinaryOp::Pow),
            ',' => TokenKind::Comma,
            '.' | '0'..='9' if c != '.' || self.peek_digit() => {
                self.pos -= 1;
                self.got_duration = true;
                self.state = State::Statements;
                self.number_or_duration()
            }
            _ => match self.duration_keyword(c) {
                Some(kind) => kind,
                None => {
                    self.fail(format!("unexpected character in duration expression: {}", go_quote_char(c)))
                }
            },
        }
    }

    fn left_paren(&mut self) -> TokenKind {
        self.paren_depth += 1;
        TokenKind::LeftParen
    }

    fn right_paren(&mut self) -> TokenKind {
        match self.paren_depth.checked_sub(1) {
            Some(depth) => {
                self.paren_depth = depth;
                TokenKind::RightParen
            }
            None => {
                self.start = self.pos;
                self.fail("unexpected right parenthesis ')'".to_owned())
            }
        }
    }

    /// `step`, `range`, `min_of`, `max_of` in brackets, of which `c` has been read.
    fn duration_keyword(&mut self, c: char) -> Option<TokenKind> {
        if !matches!(c, 's' | 'S' | 'r' | 'R' | 'm' | 'M') {
            return None;
        }
        self.skip_while(|b| b == b'_' || b.is_ascii_alphabetic());
        let kind = TokenKind::keyword(&self.input.as_bytes()[self.start..self.pos])?;
        matches!(kind, TokenKind::Step | TokenKind::Range | TokenKind::MinOf | TokenKind::MaxOf)
            .then_some(kind)
    }

    /// A keyword or an identifier, of which the first character has been read.
    fn word(&mut self) -> TokenKind {
        self.skip_while(|b| is_alphanumeric(b) || b == b':');
        let word = &self.input.as_bytes()[self.start..self.pos];
        match TokenKind::keyword(word) {
            // The fill modifiers are keywords only before a parenthesis, so that metrics can have these names.
            Some(TokenKind::Fill | TokenKind::FillLeft | TokenKind::FillRight)
                if !self.before_left_paren() =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(&b':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        }
    }

    fn before_left_paren(&self) -> bool {
        self.input.as_bytes()[self.pos..].iter().find(|&&b| !is_space(b)) == Some(&b'(')
    }

    /// A quoted string, of which the opening quote has been read.
    fn string(&mut self, quote: char) -> TokenKind {
        loop {
            match self.next_char() {
                EOF | Some('\n') => return self.fail("unterminated quoted string".to_owned()),
                Some('\u{fffd}') => return self.fail("invalid UTF-8 rune".to_owned()),
                Some('\\') => {
                    if let Err(problem) = self.escape(quote) {
                        return self.fail(problem);
                    }
                }
                Some(c) if c == quote => return TokenKind::String,
                Some(_) => {}
            }
        }
    }

    fn raw_string(&mut self) -> TokenKind {
        loop {
            match self.next_char() {
                EOF => return self.fail("unterminated raw string".to_owned()),
                Some('\u{fffd}') => return self.fail("invalid UTF-8 rune".to_owned()),
                Some('`') => return TokenKind::String,
                Some(_) => {}
            }
        }
    }

    /// An escape sequence, of which the backslash has been read.
    fn escape(&mut self, quote: char) -> Result<(), String> {
        let (count, base, value_max) = match self.next_char() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some('0'..='7') => {
                self.pos -= 1;
                (3, 8, 255)
            }
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, 0x10_ffff),
            Some('U') => (8, 16, 0x10_ffff),
            EOF => return Err("escape sequence not terminated".to_owned()),
            Some(c) => return Err(format!("unknown escape sequence {}", unicode_name(c))),
        };
        let mut value = 0u32;
        for _ in 0..count {
            let Some(c) = self.next_char() else {
                return Err("escape sequence not terminated".to_owned());
            };
            let Some(digit) = c.to_digit(base) else {
                return Err(format!("illegal character {} in escape sequence", unicode_name(c)));
            };
            value = value.wrapping_mul(base).wrapping_add(digit);
        }
        if value > value_max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }

    fn number_or_duration(&mut self) -> TokenKind {
        if self.scan_number() {
            return TokenKind::Number;
        }
        if self.scan_duration_rest() {
            return TokenKind::Duration;
        }
        let text = super::quote::go_quote(&self.input.as_bytes()[self.start..self.pos]);
        self.fail(format!("bad number or duration syntax: {text}"))
    }

    /// What follows the first digits of a duration.
    fn scan_duration_rest(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        // The second letter of `ms`; nonsense like `hs` is found when the duration is parsed.
        self.accept(b"s");
        while self.accept(b"0123456789") {
            self.skip_while(|b| b.is_ascii_digit());
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        if self.peek_byte().is_some_and(is_alphanumeric) {
            self.pos += 1;
            return false;
        }
        true
    }

    /// Numbers of all kinds. What is scanned is not always valid: parsing the number finds that out.
    fn scan_number(&mut self) -> bool {
        let begin = self.pos;
        let mut hex = false;
        if self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            hex = true;
        }
        let digits: &[u8] = if hex { b"0123456789abcdefABCDEF" } else { b"0123456789" };
        self.accept(b".");
        self.accept(digits);
        let (mut dot, mut exponent) = (false, false);
        while let Some(byte) = self.peek_byte() {
            match byte {
                b'.' => {
                    self.pos += 1;
                    if dot || self.accept(b"_.") || hex {
                        return false;
                    }
                    dot = true;
                }
                b'e' | b'E' => {
                    self.pos += 1;
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept(b"+-");
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                b'_' => {
                    self.pos += 1;
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                _ if digits.contains(&byte) => self.skip_while(|b| digits.contains(&b)),
                _ => break,
            }
        }
        self.pos != begin && !self.peek_byte().is_some_and(is_alphanumeric)
    }

    fn fail(&mut self, message: String) -> TokenKind {
        self.error = Some((Span::new(self.start as u32, self.input.len() as u32), message));
        TokenKind::Error
    }

    fn next_char(&mut self) -> Option<char> {
        // Nearly all text is ASCII.
        let byte = *self.input.as_bytes().get(self.pos)?;
        if byte < 0x80 {
            self.pos += 1;
            return Some(char::from(byte));
        }
        let c = self.input[self.pos..].chars().next()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn peek_byte(&self) -> Option<u8> {
        self.input.as_bytes().get(self.pos).copied()
    }

    fn peek_digit(&self) -> bool {
        self.peek_byte().is_some_and(|b| b.is_ascii_digit())
    }

    /// Takes one more byte into the token.
    fn also(&mut self, kind: TokenKind) -> TokenKind {
        self.pos += 1;
        kind
    }

    fn accept(&mut self, set: &[u8]) -> bool {
        let found = self.peek_byte().is_some_and(|b| set.contains(&b));
        self.pos += usize::from(found);
        found
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.peek_byte().is_some_and(&wanted) {
            self.pos += 1;
        }
    }

    fn skip_spaces(&mut self) {
        self.skip_while(is_space);
    }

    fn skip_comment(&mut self) {
        self.skip_while(|b| b != b'\n' && b != b'\r');
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// A character, or the end of the input, as Go's `%q` prints it.
fn quote_next(c: Option<char>) -> String {
    go_quote_char(c.unwrap_or('\u{fffd}'))
}

/// A character as Go's `%#U` prints it: `U+0064 'd'`.
fn unicode_name(c: char) -> String {
    let code = format!("U+{:04X}", c as u32);
    let quoted = go_quote_char(c);
    // Characters that are not printable come without their picture.
    if quoted.len() == c.len_utf8() + 2 || c == '\'' || c == '\\' { format!("{code} '{c}'") } else { code }
}
