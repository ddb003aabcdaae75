//! Go's regular expression syntax to the form that Rust's engine compiles.
//!
//! The rules and error texts are those of Go's `regexp/syntax` with the flags `Perl`, and `DotNL` where a matcher
//! asks for it. Groups are kept on a stack of their own, so nesting costs heap, and is bounded all the same, since
//! compiling recurses.

use regex_syntax::hir::{
    Capture, Class, ClassUnicode, ClassUnicodeRange, Dot, Hir, HirKind, Look, Repetition,
};

use super::RegexError;
use super::scripts::SCRIPTS;

/// Deepest nesting of groups. Go allows 1000; the engine's compiler recurses, and without optimisation needs 20 KiB of
/// a worker's 2 MiB of stack for each level. No real pattern has 10.
pub(super) const DEPTH_MAX: usize = 50;

/// Go's bound of a repeat count, and of the product of nested ones.
const REPEAT_MAX: u32 = 1000;

/// A parsed pattern.
pub(super) struct Parsed {
    pub(super) hir: Hir,
    /// Names of the groups, by number.
    pub(super) names: Vec<Option<String>>,
}

#[derive(Clone, Copy)]
struct Flags {
    fold_case: bool,
    multi_line: bool,
    dot_newline: bool,
    swap_greed: bool,
}

/// One part of a sequence, and the largest product of repeat counts in it.
struct Item {
    hir: Hir,
    repeats: u32,
}

/// An open group: the alternatives so far, and the one that is being read.
struct Group {
    branches: Vec<Hir>,
    items: Vec<Item>,
    /// Largest product of repeat counts in the branches.
    repeats: u32,
    /// The number of a capturing group; none of others.
    capture: Option<u32>,
    /// The flags before the group, which hold again behind it.
    flags: Flags,
}

struct Parser<'a> {
    pattern: &'a str,
    rest: &'a str,
    flags: Flags,
    groups: Vec<Group>,
    names: Vec<Option<String>>,
}

/// A piece of a pattern as Go's error texts show it.
pub(super) fn excerpt(text: &str) -> String {
    format!("`{text}`")
}

fn error<T>(what: &str, text: &str) -> Result<T, RegexError> {
    Err(RegexError(format!("{what}: {}", excerpt(text))))
}

/// Parses a pattern; `.` matches newlines when `dot_newline`.
pub(super) fn parse(pattern: &str, dot_newline: bool) -> Result<Parsed, RegexError> {
    let flags = Flags { fold_case: false, multi_line: false, dot_newline, swap_greed: false };
    let top = Group { branches: Vec::new(), items: Vec::new(), repeats: 1, capture: None, flags };
    let mut parser = Parser { pattern, rest: pattern, flags, groups: vec![top], names: vec![None] };
    parser.run()?;
    match (parser.groups.pop(), parser.groups.is_empty()) {
        (Some(top), true) => Ok(Parsed { hir: top.close().hir, names: parser.names }),
        _ => error("missing closing )", pattern),
    }
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), RegexError> {
        // Where the repetition operator right before the place at hand starts.
        let mut last_repeat: Option<&'a str> = None;
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeat = None;
            match c {
                '(' if before.starts_with("(?") => self.flags_or_group()?,
                '(' => {
                    self.advance(1);
                    self.names.push(None);
                    self.open(Some(self.names.len() as u32 - 1))?;
                }
                ')' => {
                    if self.groups.len() == 1 {
                        return error("unexpected )", self.pattern);
                    }
                    self.advance(1);
                    self.close_group();
                }
                '|' => {
                    self.advance(1);
                    self.top().end_branch();
                }
                '*' | '+' | '?' => {
                    self.advance(1);
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(min, max, before, last_repeat)?;
                    repeat = Some(before);
                }
                '{' => match repeat_bounds(before) {
                    None => self.literal_char(c),
                    Some((bounds, after)) => {
                        self.rest = after;
                        let text = &before[..before.len() - after.len()];
                        let Some((min, max)) = bounds else { return error("invalid repeat count", text) };
                        self.repeat(min, max, before, last_repeat)?;
                        repeat = Some(before);
                    }
                },
                '[' => {
                    let class = self.class()?;
                    self.push(Hir::class(Class::Unicode(class)));
                }
                '.' => {
                    self.advance(1);
                    let dot = if self.flags.dot_newline { Dot::AnyChar } else { Dot::AnyCharExceptLF };
                    self.push(Hir::dot(dot));
                }
                '^' => {
                    self.advance(1);
                    self.push(Hir::look(if self.flags.multi_line { Look::StartLF } else { Look::Start }));
                }
                '$' => {
                    self.advance(1);
                    self.push(Hir::look(if self.flags.multi_line { Look::EndLF } else { Look::End }));
                }
                '\\' => self.backslash()?,
                c => self.literal_char(c),
            }
            last_repeat = repeat;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn top(&mut self) -> &mut Group {
        self.groups.last_mut().expect("the outermost group stays until the end")
    }

    fn push(&mut self, hir: Hir) {
        self.top().items.push(Item { hir, repeats: 1 });
    }

    fn literal_char(&mut self, c: char) {
        self.advance(c.len_utf8());
        self.push_literal(c);
    }

    fn push_literal(&mut self, c: char) {
        let mut class = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
        if self.flags.fold_case {
            class.case_fold_simple();
        }
        // A class of one character is a literal to the engine.
        self.push(Hir::class(Class::Unicode(class)));
    }

    fn open(&mut self, capture: Option<u32>) -> Result<(), RegexError> {
        if self.groups.len() > DEPTH_MAX {
            return error("expression nests too deeply", self.pattern);
        }
        let flags = self.flags;
        self.groups.push(Group { branches: Vec::new(), items: Vec::new(), repeats: 1, capture, flags });
        Ok(())
    }

    fn close_group(&mut self) {
        let Some(group) = self.groups.pop() else { return };
        self.flags = group.flags;
        let item = group.close();
        self.top().items.push(item);
    }

    /// A repetition operator, which has been read, applied to the last part.
    fn repeat(
        &mut self,
        min: u32,
        max: Option<u32>,
        before: &str,
        last_repeat: Option<&str>,
    ) -> Result<(), RegexError> {
        let mut greedy = !self.flags.swap_greed;
        if self.rest.starts_with('?') {
            self.advance(1);
            greedy = !greedy;
        }
        let operator = &before[..before.len() - self.rest.len()];
        if let Some(last) = last_repeat {
            let both = &last[..last.len() - self.rest.len()];
            return error("invalid nested repetition operator", both);
        }
        let Some(item) = self.top().items.pop() else {
            return error("missing argument to repetition operator", operator);
        };
        let mut repeats = item.repeats;
        if operator.starts_with('{') {
            // `{0}` makes whatever it repeats vanish.
            repeats = if max == Some(0) { 1 } else { repeats.saturating_mul(max.unwrap_or(min).max(1)) };
            if (min >= 2 || max.is_some_and(|max| max >= 2)) && repeats > REPEAT_MAX {
                return error("invalid repeat count", operator);
            }
        }
        let mut sub = item.hir;
        if matches!(sub.kind(), HirKind::Repetition(_)) {
            // The printer sets no parentheses around this: `(?:a+)?` would print as `a+?`. An alternative that never
            // matches makes it do so.
            sub = Hir::alternation(vec![sub, Hir::fail()]);
        }
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(sub) });
        self.top().items.push(Item { hir, repeats });
        Ok(())
    }

    /// `(?i)`, `(?i-s:`, `(?P<name>`, `(?<name>`.
    fn flags_or_group(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        let name_start = if start.len() > 4 && start.starts_with("(?P<") {
            Some(4)
        } else if start.len() > 3 && start.starts_with("(?<") {
            Some(3)
        } else {
            None
        };
        if let Some(from) = name_start {
            let Some(end) = start.find('>') else { return error("invalid named capture", start) };
            let name = &start[from..end];
            if name.is_empty() || !name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) {
                return error("invalid named capture", &start[..=end]);
            }
            self.advance(end + 1);
            self.names.push(Some(name.to_owned()));
            return self.open(Some(self.names.len() as u32 - 1));
        }

        self.advance(2);
        let mut flags = self.flags;
        let (mut on, mut saw_flag) = (true, false);
        while let Some(c) = self.rest.chars().next() {
            self.advance(c.len_utf8());
            match c {
                'i' => flags.fold_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.swap_greed = on,
                '-' if on => {
                    (on, saw_flag) = (false, false);
                    continue;
                }
                ':' | ')' if on || saw_flag => {
                    if c == ':' {
                        self.open(None)?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            saw_flag = true;
        }
        error("invalid or unsupported Perl syntax", &start[..start.len() - self.rest.len()])
    }

    /// What a backslash begins outside brackets.
    fn backslash(&mut self) -> Result<(), RegexError> {
        let start = self.rest;
        let look = match start.as_bytes().get(1) {
            Some(b'A') => Some(Look::Start),
            Some(b'z') => Some(Look::End),
            Some(b'b') => Some(Look::WordAscii),
            Some(b'B') => Some(Look::WordAsciiNegate),
            Some(b'C') => return error("invalid escape sequence", &start[..2]),
            Some(b'Q') => {
                let (quoted, after) = start[2..].split_once("\\E").unwrap_or((&start[2..], ""));
                for c in quoted.chars() {
                    self.push_literal(c);
                }
                self.rest = after;
                return Ok(());
            }
            _ => None,
        };
        if let Some(look) = look {
            self.advance(2);
            self.push(Hir::look(look));
            return Ok(());
        }
        if let Some((class, after)) = self.escaped_class(start)? {
            self.rest = after;
            self.push(Hir::class(Class::Unicode(class)));
            return Ok(());
        }
        let (c, after) = escape(start)?;
        self.rest = after;
        match c {
            Some(c) => self.push_literal(c),
            // A surrogate is in no text.
            None => self.push(Hir::fail()),
        }
        Ok(())
    }

    /// `\d`, `\pL`, ... and what follows.
    fn escaped_class(&self, text: &'a str) -> Result<Option<(ClassUnicode, &'a str)>, RegexError> {
        let Some(kind @ (b'd' | b'D' | b's' | b'S' | b'w' | b'W' | b'p' | b'P')) =
            text.as_bytes().get(1).copied()
        else {
            return Ok(None);
        };
        if matches!(kind, b'p' | b'P') {
            return self.unicode_class(text).map(Some);
        }
        let ranges: &[(char, char)] = match kind.to_ascii_lowercase() {
            b'd' => &[('0', '9')],
            b's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
            _ => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        };
        let class = self.finish_class(ranges, kind.is_ascii_uppercase());
        Ok(Some((class, &text[2..])))
    }

    fn finish_class(&self, ranges: &[(char, char)], negated: bool) -> ClassUnicode {
        let mut class = ClassUnicode::new(ranges.iter().map(|&(a, b)| ClassUnicodeRange::new(a, b)));
        if self.flags.fold_case {
            class.case_fold_simple();
        }
        if negated {
            class.negate();
        }
        class
    }

    /// `\pL`, `\p{Greek}`, `\P{^Lu}` and what follows.
    fn unicode_class(&self, text: &'a str) -> Result<(ClassUnicode, &'a str), RegexError> {
        let mut negated = text.as_bytes()[1] == b'P';
        let Some(first) = text[2..].chars().next() else {
            return error("invalid character class range", text);
        };
        let (mut name, end) = if first == '{' {
            match text.find('}') {
                Some(end) => (&text[3..end], end + 1),
                None => return error("invalid character class range", text),
            }
        } else {
            (&text[2..2 + first.len_utf8()], 2 + first.len_utf8())
        };
        if let Some(rest) = name.strip_prefix('^') {
            negated = !negated;
            name = rest;
        }
        let Some(mut class) = unicode_table(name) else {
            return error("invalid character class range", &text[..end]);
        };
        if self.flags.fold_case {
            class.case_fold_simple();
        }
        if negated {
            class.negate();
        }
        Ok((class, &text[end..]))
    }

    /// A class in brackets, of which nothing has been read.
    fn class(&mut self) -> Result<ClassUnicode, RegexError> {
        let whole = self.rest;
        let mut t = &whole[1..];
        let negated = t.starts_with('^');
        if negated {
            t = &t[1..];
        }
        let mut class = ClassUnicode::empty();
        let mut first = true;
        while first || !t.starts_with(']') {
            first = false;
            if let Some((named, after)) = self.named_class(t)? {
                class.union(&named);
                t = after;
                continue;
            }
            if t.starts_with('\\')
                && let Some((escaped, after)) = self.escaped_class(t)?
            {
                class.union(&escaped);
                t = after;
                continue;
            }
            let start = t;
            let (low, after) = class_char(t, whole)?;
            let mut high = low;
            t = after;
            if t.starts_with('-') && t.len() > 1 && !t.starts_with("-]") {
                let (c, after) = class_char(&t[1..], whole)?;
                high = c;
                t = after;
                if high < low {
                    return error("invalid character class range", &start[..start.len() - t.len()]);
                }
            }
            // Surrogates are in no text: a range loses those at its ends.
            let (low, high) = (char_at_least(low), char_at_most(high));
            if let (Some(low), Some(high)) = (low, high)
                && low <= high
            {
                let mut range = ClassUnicode::new([ClassUnicodeRange::new(low, high)]);
                if self.flags.fold_case {
                    range.case_fold_simple();
                }
                class.union(&range);
            }
        }
        self.rest = &t[1..];
        if negated {
            class.negate();
        }
        Ok(class)
    }

    /// `[:alpha:]` and what follows.
    fn named_class(&self, text: &'a str) -> Result<Option<(ClassUnicode, &'a str)>, RegexError> {
        if !(text.len() > 2 && text.starts_with("[:")) {
            return Ok(None);
        }
        let Some(end) = text[2..].find(":]") else { return Ok(None) };
        let (whole, after) = text.split_at(end + 4);
        let name = &whole[2..whole.len() - 2];
        let (negated, name) = match name.strip_prefix('^') {
            Some(name) => (true, name),
            None => (false, name),
        };
        let ranges: &[(char, char)] = match name {
            "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
            "alpha" => &[('A', 'Z'), ('a', 'z')],
            "ascii" => &[('\0', '\x7f')],
            "blank" => &[('\t', '\t'), (' ', ' ')],
            "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
            "digit" => &[('0', '9')],
            "graph" => &[('!', '~')],
            "lower" => &[('a', 'z')],
            "print" => &[(' ', '~')],
            "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "space" => &[('\t', '\r'), (' ', ' ')],
            "upper" => &[('A', 'Z')],
            "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
            "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
            _ => return error("invalid character class range", whole),
        };
        Ok(Some((self.finish_class(ranges, negated), after)))
    }
}

impl Group {
    fn end_branch(&mut self) {
        let items = std::mem::take(&mut self.items);
        self.repeats = items.iter().map(|item| item.repeats).max().unwrap_or(1).max(self.repeats);
        self.branches.push(Hir::concat(items.into_iter().map(|item| item.hir).collect()));
    }

    fn close(mut self) -> Item {
        self.end_branch();
        let inner = Hir::alternation(self.branches);
        let hir = match self.capture {
            // Names stay here: Rust wants them unique, Go does not.
            Some(index) => Hir::capture(Capture { index, name: None, sub: Box::new(inner) }),
            None => inner,
        };
        Item { hir, repeats: self.repeats }
    }
}

/// The bounds in `{2}`, `{2,}`, `{2,5}` and what follows; `None` when it is none of these and so literal, bounds of
/// `None` when they are not allowed.
#[expect(clippy::type_complexity, reason = "two ways of not being bounds, told apart once")]
fn repeat_bounds(text: &str) -> Option<(Option<(u32, Option<u32>)>, &str)> {
    let (min, mut rest) = repeat_number(&text[1..])?;
    let mut max = Some(min);
    if let Some(after) = rest.strip_prefix(',') {
        if after.starts_with('}') {
            max = None;
            rest = after;
        } else {
            let (number, after) = repeat_number(after)?;
            max = Some(number);
            rest = after;
        }
    }
    let after = rest.strip_prefix('}')?;
    let too_large = min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min);
    Some(((!too_large).then_some((min, max)), after))
}

/// A number without leading zeros; one that is too large for anything stays too large.
fn repeat_number(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || (digits > 1 && text.starts_with('0')) {
        return None;
    }
    Some((text[..digits].parse().unwrap_or(u32::MAX), &text[digits..]))
}

/// A character in brackets, escaped or not; surrogates can be written, so it is a number.
fn class_char<'a>(text: &'a str, whole: &str) -> Result<(u32, &'a str), RegexError> {
    match text.chars().next() {
        None => error("missing closing ]", whole),
        Some('\\') => code_point(text),
        Some(c) => Ok((c as u32, &text[c.len_utf8()..])),
    }
}

fn escape(text: &str) -> Result<(Option<char>, &str), RegexError> {
    code_point(text).map(|(code, rest)| (char::from_u32(code), rest))
}

/// The code point that an escape stands for, and what follows.
fn code_point(text: &str) -> Result<(u32, &str), RegexError> {
    let mut rest = text[1..].chars();
    let Some(c) = rest.next() else { return error("trailing backslash at end of expression", "") };
    let invalid = |after: &str| error("invalid escape sequence", &text[..text.len() - after.len()]);
    let simple = match c {
        '0'..='7' => {
            let next_is_octal = rest.as_str().starts_with(|c| matches!(c, '0'..='7'));
            if c != '0' && !next_is_octal {
                // A back reference, which there is not.
                return invalid(rest.as_str());
            }
            let digits = text[1..].bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
            let code = u32::from_str_radix(&text[1..1 + digits], 8).unwrap_or(0);
            return Ok((code, &text[1 + digits..]));
        }
        'x' => return hexadecimal(text),
        'a' => 0x07,
        'f' => 0x0c,
        'n' => 0x0a,
        'r' => 0x0d,
        't' => 0x09,
        'v' => 0x0b,
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => c as u32,
        _ => return invalid(rest.as_str()),
    };
    Ok((simple, rest.as_str()))
}

/// `\x41`, `\x{1F600}`
fn hexadecimal(text: &str) -> Result<(u32, &str), RegexError> {
    let mut rest = text[2..].chars();
    let invalid = |after: &str| error("invalid escape sequence", &text[..text.len() - after.len()]);
    let Some(c) = rest.next() else { return invalid("") };
    if c == '{' {
        let mut code = 0u32;
        let mut digits = 0;
        loop {
            match rest.next() {
                Some('}') if digits > 0 => return Ok((code, rest.as_str())),
                Some(c) => match c.to_digit(16) {
                    Some(digit) => {
                        code = code * 16 + digit;
                        digits += 1;
                        if code > char::MAX as u32 {
                            return invalid(rest.as_str());
                        }
                    }
                    None => return invalid(rest.as_str()),
                },
                None => return invalid(""),
            }
        }
    }
    let (high, low) = (c.to_digit(16), rest.next().and_then(|c| c.to_digit(16)));
    match (high, low) {
        (Some(high), Some(low)) => Ok((high * 16 + low, rest.as_str())),
        _ => invalid(rest.as_str()),
    }
}

fn char_at_least(code: u32) -> Option<char> {
    char::from_u32(if (0xd800..0xe000).contains(&code) { 0xe000 } else { code })
}

fn char_at_most(code: u32) -> Option<char> {
    char::from_u32(if (0xd800..0xe000).contains(&code) { 0xd7ff } else { code })
}

/// The table of a general category (`L`, `Lu`) or script (`Greek`), by Go's exact spelling.
fn unicode_table(name: &str) -> Option<ClassUnicode> {
    if name == "Any" {
        return Some(ClassUnicode::new([ClassUnicodeRange::new('\0', char::MAX)]));
    }
    // Surrogates are in no text, and Rust has no table of them.
    if name == "Cs" {
        return Some(ClassUnicode::empty());
    }
    let is_category = match name.as_bytes() {
        [a] => b"CLMNPSZ".contains(a),
        [a, b] => a.is_ascii_uppercase() && b.is_ascii_lowercase(),
        _ => false,
    };
    let property = if is_category {
        format!("\\p{{gc={name}}}")
    } else if SCRIPTS.binary_search(&name).is_ok() {
        format!("\\p{{sc={name}}}")
    } else {
        return None;
    };
    let hir = regex_syntax::parse(&property).ok()?;
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
}
