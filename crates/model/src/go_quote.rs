//! Quoting as Go's `%q` does: error texts, label sets and printed queries show strings this way.

use std::fmt::Write as _;

/// A byte string in double quotes, with Go's escapes: control characters and what is not printable escaped, bytes
/// that are not UTF-8 as `\xff`.
pub fn go_quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    write_go_quoted(&mut out, bytes);
    out
}

/// Appends what [`go_quote`] gives.
pub fn write_go_quoted(out: &mut String, bytes: &[u8]) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_escaped(out, c, '"');
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a string");
        }
    }
    out.push('"');
}

/// A character in single quotes, with Go's escapes.
pub fn go_quote_char(c: char) -> String {
    let mut out = String::with_capacity(6);
    out.push('\'');
    write_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

fn write_escaped(out: &mut String, c: char, quote: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        _ if c == quote => {
            out.push('\\');
            out.push(c);
        }
        ' '..='~' => out.push(c),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        '\0'..='\x7f' => write!(out, "\\x{:02x}", c as u32).expect("writing to a string"),
        _ if is_print(c) => out.push(c),
        '\u{80}'..='\u{ffff}' => write!(out, "\\u{:04x}", c as u32).expect("writing to a string"),
        _ => write!(out, "\\U{:08x}", c as u32).expect("writing to a string"),
    }
}

/// Go's `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space. Rust's `escape_debug`
/// knows the same classes, but for the grapheme extenders, which it escapes and Go prints; those it leaves alone
/// when they are not first.
fn is_print(c: char) -> bool {
    // Two characters, so that a combining mark is not in first place.
    let mut text = String::from("a");
    text.push(c);
    text.escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        let cases: [(&[u8], &str); 14] = [
            (b"", r#""""#),
            (b"abc", r#""abc""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"a'b", r#""a'b""#),
            (b"\x07\x08\x0c\n\r\t\x0b\0\x1f\x7f", r#""\a\b\f\n\r\t\v\x00\x1f\x7f""#),
            (b"a\xc5z", r#""a\xc5z""#),
            ("é😀".as_bytes(), "\"é😀\""),
            ("\u{a0}".as_bytes(), r#""\u00a0""#),
            ("\u{200b}".as_bytes(), r#""\u200b""#),
            ("\u{feff}".as_bytes(), r#""\ufeff""#),
            ("\u{301}".as_bytes(), "\"\u{301}\""),
            ("\u{fffd}".as_bytes(), "\"\u{fffd}\""),
            ("\u{e0001}".as_bytes(), r#""\U000e0001""#),
            ("\u{3000}".as_bytes(), r#""\u3000""#),
        ];
        for (bytes, want) in cases {
            assert_eq!(go_quote(bytes), want);
        }
        assert_eq!(go_quote_char('\''), r"'\''");
        assert_eq!(go_quote_char('"'), "'\"'");
        assert_eq!(go_quote_char('\n'), r"'\n'");
    }
}
