//! Strings: unquoting PromQL literals, quoting as Go does (see [`chronolith_model::go_quote`]).

pub(super) use chronolith_model::{go_quote, go_quote_char};

/// What a PromQL string literal, quotes included, stands for: `"…"` and `'…'` with Go's escapes, `` `…` `` raw. The
/// result is a byte string: `"\xff"` is one byte. `None` for anything else than a literal.
pub fn unquote(literal: &str) -> Option<Vec<u8>> {
    let bytes = literal.as_bytes();
    let (&quote, &last) = (bytes.first()?, bytes.last()?);
    if bytes.len() < 2 || quote != last {
        return None;
    }
    let body = &bytes[1..bytes.len() - 1];
    match quote {
        b'`' if body.contains(&b'`') => return None,
        b'`' => return Some(body.to_vec()),
        b'"' | b'\'' => {}
        _ => return None,
    }
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'\\' => unescape(tail, quote, &mut out)?,
            b'\n' => return None,
            _ if byte == quote => return None,
            _ => {
                out.push(byte);
                tail
            }
        };
    }
    Some(out)
}

/// Appends what the escape after a backslash stands for; gives back what follows it.
fn unescape<'a>(rest: &'a [u8], quote: u8, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&byte, tail) = rest.split_first()?;
    let simple = match byte {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' => b'\\',
        _ if byte == quote => quote,
        b'0'..=b'7' => {
            let value = digits(rest, 3, 8)?;
            out.push(u8::try_from(value).ok()?);
            return rest.get(3..);
        }
        b'x' => {
            out.push(digits(tail, 2, 16)? as u8);
            return tail.get(2..);
        }
        b'u' | b'U' => {
            let count = if byte == b'u' { 4 } else { 8 };
            let c = char::from_u32(digits(tail, count, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return tail.get(count..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(tail)
}

/// The number in the first `count` digits.
fn digits(text: &[u8], count: usize, base: u32) -> Option<u32> {
    let mut value = 0u32;
    for &byte in text.get(..count)? {
        value = value.checked_mul(base)?.checked_add(char::from(byte).to_digit(base)?)?;
    }
    Some(value)
}

/// A byte string as text; bytes that are not UTF-8 become the replacement character.
pub(super) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoting() {
        let cases: [(&str, Option<&[u8]>); 22] = [
            (r#""""#, Some(b"")),
            (r#""a""#, Some(b"a")),
            (r#"'a"b'"#, Some(b"a\"b")),
            (r#"'a\'b'"#, Some(b"a'b")),
            (r#""a\'b""#, None),
            (r#""\xff""#, Some(b"\xff")),
            (r#""\377\101""#, Some(b"\xffA")),
            (r#""\400""#, None),
            (r#""\u00e9\U0001F600""#, Some("é😀".as_bytes())),
            (r#""\ud800""#, None),
            (r#""\U00110000""#, None),
            (r#""\a\b\f\n\r\t\v\\""#, Some(b"\x07\x08\x0c\n\r\t\x0b\\")),
            (r#""\d""#, None),
            (r#""\x1""#, None),
            (r"`\d+`", Some(br"\d+")),
            ("`a\nb`", Some(b"a\nb")),
            ("\"a\nb\"", None),
            ("`a", None),
            ("\"", None),
            ("a", None),
            ("", None),
            ("'é'", Some("é".as_bytes())),
        ];
        for (literal, want) in cases {
            assert_eq!(unquote(literal).as_deref(), want, "{literal}");
        }
    }
}
