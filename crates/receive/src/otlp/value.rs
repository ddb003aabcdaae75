//! Attribute values as text, as OpenTelemetry's own library prints them.
//!
//! ```text
//! AnyValue { 1: text, 2: bool, 3: int, 4: double, 5: ArrayValue { 1: AnyValue* }, 6: KeyValueList { 1: KeyValue* }, 7: bytes }
//! KeyValue { 1: key, 2: AnyValue }
//! ```

use std::fmt::Write;

use super::labels::{Text, Texts};
use crate::remote_write::{Budget, Cursor, DecodeError, WireType};

/// Arrays in arrays that are followed.
const DEPTH_MAX: u32 = 32;

/// An attribute: its key where it lies in the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Text,
}

/// Reads a `KeyValue`.
pub(super) fn attribute<'a>(
    mut message: Cursor<'a>,
    texts: &mut Texts<'_>,
    budget: &mut Budget,
) -> Result<Attribute<'a>, DecodeError> {
    budget.charge(size_of::<Attribute<'_>>())?;
    let mut key: &[u8] = &[];
    let mut value = None;
    while !message.is_empty() {
        match message.key()? {
            (1, wire_type) => {
                message.expect(wire_type, WireType::Len)?;
                key = message.message()?.rest();
            }
            (2, wire_type) => {
                message.expect(wire_type, WireType::Len)?;
                value = Some(message.message()?);
            }
            (field, wire_type) => message.skip(field, wire_type)?,
        }
    }
    let value = match value {
        Some(value) => any_text(value, texts, budget)?,
        None => texts.keep(b""),
    };
    Ok(Attribute { key, value })
}

/// The text of an `AnyValue`; a text itself is not copied.
fn any_text(
    mut message: Cursor<'_>,
    texts: &mut Texts<'_>,
    budget: &mut Budget,
) -> Result<Text, DecodeError> {
    let whole = message;
    // The form of nearly all: one text and nothing else.
    if message.take_byte(0x0A) {
        let start = message.pos();
        message.message()?;
        if message.is_empty() {
            return Ok(Texts::of_body(start, message.pos()));
        }
    }
    let text = match read_any(whole, DEPTH_MAX)? {
        Any::Text(text) => text.to_vec(),
        Any::Bytes(bytes) => base64(bytes).into_bytes(),
        Any::Empty => Vec::new(),
        Any::Double(v) if !v.is_finite() => {
            format!("json: unsupported value: {}", non_finite(v)).into_bytes()
        }
        other => {
            let mut out = String::new();
            other.write_json(&mut out);
            out.into_bytes()
        }
    };
    budget.charge(text.len() + 10)?;
    Ok(texts.keep(&text))
}

/// A value that was read.
enum Any<'a> {
    Empty,
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Vec<Any<'a>>),
    Map(Vec<(&'a [u8], Any<'a>)>),
    Bytes(&'a [u8]),
}

fn read_any<'a>(mut message: Cursor<'a>, depth: u32) -> Result<Any<'a>, DecodeError> {
    let mut any = Any::Empty;
    while !message.is_empty() {
        let (field, wire_type) = message.key()?;
        let want = match field {
            1 | 5 | 6 | 7 => WireType::Len,
            2 | 3 => WireType::Varint,
            4 => WireType::Fixed64,
            _ => {
                message.skip(field, wire_type)?;
                continue;
            }
        };
        message.expect(wire_type, want)?;
        any = match field {
            1 => Any::Text(message.message()?.rest()),
            2 => Any::Bool(message.varint()? != 0),
            3 => Any::Int(message.varint()? as i64),
            4 => Any::Double(message.double()?),
            7 => Any::Bytes(message.message()?.rest()),
            _ if depth == 0 => return Err(message.error("attribute values nested too deeply").into()),
            _ => read_list(message.message()?, field == 6, depth - 1)?,
        };
    }
    Ok(any)
}

fn read_list<'a>(mut list: Cursor<'a>, is_map: bool, depth: u32) -> Result<Any<'a>, DecodeError> {
    let (mut values, mut pairs) = (Vec::new(), Vec::new());
    while !list.is_empty() {
        let (field, wire_type) = list.key()?;
        if field != 1 {
            list.skip(field, wire_type)?;
            continue;
        }
        list.expect(wire_type, WireType::Len)?;
        let mut one = list.message()?;
        if !is_map {
            values.push(read_any(one, depth)?);
            continue;
        }
        let (mut key, mut value): (&[u8], Any<'_>) = (&[], Any::Empty);
        while !one.is_empty() {
            match one.key()? {
                (1, wire_type) => {
                    one.expect(wire_type, WireType::Len)?;
                    key = one.message()?.rest();
                }
                (2, wire_type) => {
                    one.expect(wire_type, WireType::Len)?;
                    value = read_any(one.message()?, depth)?;
                }
                (field, wire_type) => one.skip(field, wire_type)?,
            }
        }
        pairs.push((key, value));
    }
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    Ok(if is_map { Any::Map(pairs) } else { Any::Array(values) })
}

impl Any<'_> {
    fn write_json(&self, out: &mut String) {
        match self {
            Any::Empty => out.push_str("null"),
            Any::Text(text) => write_text(text, out),
            Any::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
            Any::Int(v) => _ = write!(out, "{v}"),
            Any::Double(v) if v.is_finite() => write_double(*v, out),
            Any::Double(v) => write_text(non_finite(*v).as_bytes(), out),
            Any::Bytes(bytes) => write_text(base64(bytes).as_bytes(), out),
            Any::Array(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write_json(out);
                }
                out.push(']');
            }
            Any::Map(pairs) => {
                out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

/// As Go's encoder: what could end a script is escaped, too.
fn write_text(text: &[u8], out: &mut String) {
    out.push('"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => _ = write!(out, "\\u{:04x}", c as u32),
            c if (c as u32) < 0x20 => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The shortest form; exponents for what is very small or large, as in JavaScript.
fn write_double(v: f64, out: &mut String) {
    let size = v.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{v:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => {
                _ = write!(out, "{digits}e+{exponent}");
            }
            _ => out.push_str(&text),
        }
    } else {
        _ = write!(out, "{v}");
    }
}

fn non_finite(v: f64) -> &'static str {
    if v.is_nan() {
        "NaN"
    } else if v > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().enumerate().fold(0u32, |word, (i, b)| word | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= three.len() { digit as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(any: &[u8]) -> String {
        let mut texts = Texts::new(any);
        let mut budget = Budget::new(1 << 20);
        let text = any_text(Cursor::new(any), &mut texts, &mut budget).unwrap();
        String::from_utf8(texts.bytes(text).to_vec()).unwrap()
    }

    fn double(v: f64) -> Vec<u8> {
        [&[0x21][..], &v.to_le_bytes()].concat()
    }

    #[test]
    fn values_print_as_opentelemetry_prints_them() {
        for (any, want) in [
            (vec![], ""),
            (vec![0x0A, 2, b'h', b'i'], "hi"),
            (vec![0x0A, 0], ""),
            (vec![0x10, 1], "true"),
            (vec![0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1], "-1"),
            (double(1.0), "1"),
            (double(0.1), "0.1"),
            (double(1e21), "1e+21"),
            (double(1.5e-7), "1.5e-7"),
            (double(f64::NAN), "json: unsupported value: NaN"),
            (vec![0x3A, 3, b'a', b'b', b'c'], "YWJj"),
            (vec![0x3A, 1, b'a'], "YQ=="),
            // [ "a<", 7, {} ]
            (
                vec![0x2A, 14, 0x0A, 4, 0x0A, 2, b'a', b'<', 0x0A, 2, 0x18, 7, 0x0A, 2, 0x32, 0],
                "[\"a\\u003c\",7,{}]",
            ),
            // { "k": true }, behind an earlier alternative
            (vec![0x18, 1, 0x32, 9, 0x0A, 7, 0x0A, 1, b'k', 0x12, 2, 0x10, 1], "{\"k\":true}"),
        ] {
            assert_eq!(text(&any), want);
        }
        let wrap = |tag: u8, content: &[u8]| {
            let mut out = vec![tag];
            prost::encoding::encode_varint(content.len() as u64, &mut out);
            out.extend_from_slice(content);
            out
        };
        for (levels, good) in [(30, true), (40, false)] {
            let deep = (0..levels).fold(vec![0x18, 1], |deep, _| wrap(0x2A, &wrap(0x0A, &deep)));
            let read = any_text(Cursor::new(&deep), &mut Texts::new(&deep), &mut Budget::new(1000));
            assert_eq!(read.is_ok(), good, "{levels}");
        }
    }
}
