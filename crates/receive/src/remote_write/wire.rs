//! Reading protobuf's wire format in place.
//!
//! A [`Cursor`] keeps absolute positions in the whole body, so that byte ranges can be recorded and errors say where.
//! It accepts what `prost` accepts and refuses what `prost` refuses (the property test in `decode_v1` compares them).

/// A protobuf body that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf at byte {offset}: {what}")]
pub struct WireError {
    /// Position in the decompressed body.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Len,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// Nesting of groups that is followed, as in prost.
const GROUP_DEPTH_MAX: u32 = 100;

/// The lower seven bits of each byte, side by side.
fn join_sevens(word: u64) -> u64 {
    let x = word & 0x7F7F_7F7F_7F7F_7F7F;
    let x = x & 0x007F_007F_007F_007F | (x & 0x7F00_7F00_7F00_7F00) >> 1;
    let x = x & 0x0000_3FFF_0000_3FFF | (x & 0x3FFF_0000_3FFF_0000) >> 2;
    x & 0x0FFF_FFFF | (x & 0x0FFF_FFFF_0000_0000) >> 4
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    /// The body up to the end of the message that is read.
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Cursor { buf: body, pos: 0 }
    }

    #[inline(always)]
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.pos >= self.buf.len()
    }

    /// The next byte, without taking it.
    #[inline(always)]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.buf.get(self.pos).copied()
    }

    #[cold]
    pub(crate) fn error(&self, what: &'static str) -> WireError {
        WireError { offset: self.pos, what }
    }

    /// Takes the next byte if it is `byte`.
    #[inline(always)]
    pub(crate) fn take_byte(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.pos += usize::from(hit);
        hit
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        match self.buf.get(self.pos..) {
            Some([byte, ..]) if *byte < 0x80 => {
                self.pos += 1;
                Ok(u64::from(*byte))
            }
            Some([low, high, ..]) if *high < 0x80 => {
                self.pos += 2;
                Ok(u64::from(*high) << 7 | u64::from(*low & 0x7F))
            }
            _ => self.varint_long(),
        }
    }

    /// Numbers of three bytes and more; times have six.
    fn varint_long(&mut self) -> Result<u64, WireError> {
        const LAST: u64 = 0x8080_8080_8080_8080;
        let rest = &self.buf[self.pos.min(self.buf.len())..];
        if let Some(bytes) = rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*bytes);
            let last = !word & LAST;
            if last != 0 {
                self.pos += last.trailing_zeros() as usize / 8 + 1;
                return Ok(join_sevens(word & (last ^ (last - 1))));
            }
        }
        let mut out = 0u64;
        for (i, &byte) in rest.iter().take(10).enumerate() {
            out |= u64::from(byte & 0x7F) << (7 * i);
            if byte < 0x80 {
                if i == 9 && byte > 1 {
                    return Err(self.error("varint does not fit 64 bits"));
                }
                self.pos += i + 1;
                return Ok(out);
            }
        }
        Err(self.error(if rest.len() < 10 {
            "cut off inside a varint"
        } else {
            "varint does not fit 64 bits"
        }))
    }

    /// A field's number and layout.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Result<(u32, WireType), WireError> {
        let key = self.varint()?;
        let Ok(key) = u32::try_from(key) else { return Err(self.error("field number out of range")) };
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Len,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(self.error("unknown wire type")),
        };
        match key >> 3 {
            0 => Err(self.error("field number 0")),
            field => Ok((field, wire_type)),
        }
    }

    /// The length prefix of a field and a cursor over its content; this cursor moves behind it.
    #[inline(always)]
    pub(crate) fn message(&mut self) -> Result<Cursor<'a>, WireError> {
        let len = self.varint()?;
        let left = (self.buf.len() - self.pos) as u64;
        if len > left {
            return Err(self.error("length runs past the end"));
        }
        let end = self.pos + len as usize;
        let inner = Cursor { buf: &self.buf[..end], pos: self.pos };
        self.pos = end;
        Ok(inner)
    }

    /// A cursor over the number that comes; this one moves behind it.
    pub(crate) fn one_varint(&mut self) -> Result<Cursor<'a>, WireError> {
        let pos = self.pos;
        self.varint()?;
        Ok(Cursor { buf: &self.buf[..self.pos], pos })
    }

    /// What is left, as bytes.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.buf[self.pos..]
    }

    #[inline(always)]
    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        match self.buf.get(self.pos..).and_then(|b| b.first_chunk::<8>()) {
            Some(bytes) => {
                self.pos += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.error("cut off inside a fixed-size number")),
        }
    }

    #[inline(always)]
    pub(crate) fn double(&mut self) -> Result<f64, WireError> {
        // From bits: the payload of a NaN is data (staleness markers).
        self.fixed64().map(f64::from_bits)
    }

    /// Zig-zag.
    #[inline(always)]
    pub(crate) fn sint64(&mut self) -> Result<i64, WireError> {
        self.varint().map(|v| (v >> 1) as i64 ^ -((v & 1) as i64))
    }

    #[inline(always)]
    pub(crate) fn sint32(&mut self) -> Result<i32, WireError> {
        self.varint().map(|v| {
            let v = v as u32;
            (v >> 1) as i32 ^ -((v & 1) as i32)
        })
    }

    /// Fails unless a known field has the layout that it must have.
    #[inline(always)]
    pub(crate) fn expect(&self, got: WireType, want: WireType) -> Result<(), WireError> {
        if got == want { Ok(()) } else { Err(self.error("field has the wrong wire type")) }
    }

    /// Moves behind an unknown field.
    #[cold]
    pub(crate) fn skip(&mut self, field: u32, wire_type: WireType) -> Result<(), WireError> {
        self.skip_nested(field, wire_type, GROUP_DEPTH_MAX)
    }

    fn skip_nested(&mut self, field: u32, wire_type: WireType, depth: u32) -> Result<(), WireError> {
        match wire_type {
            WireType::Varint => self.varint().map(|_| ()),
            WireType::Fixed64 => self.fixed64().map(|_| ()),
            WireType::Len => self.message().map(|_| ()),
            WireType::Fixed32 => {
                if self.buf.len() - self.pos < 4 {
                    return Err(self.error("cut off inside a fixed-size number"));
                }
                self.pos += 4;
                Ok(())
            }
            WireType::StartGroup => {
                if depth == 0 {
                    return Err(self.error("groups nested too deeply"));
                }
                loop {
                    let (inner, inner_type) = self.key()?;
                    if inner_type == WireType::EndGroup {
                        return if inner == field {
                            Ok(())
                        } else {
                            Err(self.error("unexpected end of group"))
                        };
                    }
                    self.skip_nested(inner, inner_type, depth - 1)?;
                }
            }
            WireType::EndGroup => Err(self.error("unexpected end of group")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_of_any_length_are_read(v: u64, bits in 0u32..64, behind in proptest::collection::vec(any::<u8>(), 0..9)) {
            let v = v >> bits;
            let mut body = Vec::new();
            prost::encoding::encode_varint(v, &mut body);
            let len = body.len();
            body.extend(&behind);
            let mut cursor = Cursor::new(&body);
            prop_assert_eq!((cursor.varint(), cursor.pos()), (Ok(v), len));
            // Cut off, it is no number.
            prop_assert!(Cursor::new(&body[..len - 1]).varint().is_err());
        }
    }
}
