//! A bounds-checked reader over bytes from outside. Every failure says file and offset.

use crate::{Error, Result};

/// Position in some bytes of a file; `base` is where these bytes begin in it.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    file: &'a str,
    base: u64,
    data: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a str, base: u64, data: &'a [u8]) -> Self {
        Cursor { file, base, data, pos: 0 }
    }

    /// Moves to `pos` in the data. Past the end is allowed; the next read fails.
    pub(crate) fn at(mut self, pos: usize) -> Self {
        self.pos = pos;
        self
    }

    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn remaining(&self) -> usize {
        self.data.len().saturating_sub(self.pos)
    }

    /// The error "corrupt here".
    #[cold]
    pub(crate) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::corrupt(self.file, self.base.saturating_add(self.pos as u64), what)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.data.get(self.pos..).and_then(|rest| rest.get(..len)) {
            Some(bytes) => {
                self.pos += len;
                Ok(bytes)
            }
            None => Err(self.corrupt(format!("{len} bytes expected, {} left", self.remaining()))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Go's `binary.Uvarint`: seven bits a byte, low first, at most 10 bytes.
    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u64> {
        match self.data.get(self.pos) {
            Some(&b) if b < 0x80 => {
                self.pos += 1;
                Ok(u64::from(b))
            }
            _ => self.uvarint_long(),
        }
    }

    fn uvarint_long(&mut self) -> Result<u64> {
        let start = *self;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.data.get(self.pos) else {
                return Err(start.corrupt("uvarint cut short"));
            };
            self.pos += 1;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && byte > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(start.corrupt("uvarint overflows 64 bits"))
    }

    pub(crate) fn uvarint32(&mut self) -> Result<u32> {
        let start = *self;
        u32::try_from(self.uvarint()?).map_err(|_| start.corrupt("uvarint overflows 32 bits"))
    }

    /// Go's `binary.Varint`: zigzag.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<i64> {
        let u = self.uvarint()?;
        Ok((u >> 1) as i64 ^ -((u & 1) as i64))
    }

    /// Bytes with a uvarint length before them.
    #[inline]
    pub(crate) fn uvarint_bytes(&mut self) -> Result<&'a [u8]> {
        let start = *self;
        let len = self.uvarint()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.remaining() => self.take(len),
            _ => Err(start.corrupt(format!("length {len} exceeds the {} bytes left", self.remaining()))),
        }
    }
}

/// Appends Go's `binary.PutUvarint`.
pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends Go's `binary.PutVarint`.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length as uvarint and the bytes.
pub(crate) fn put_uvarint_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_bad_ones_are_named() {
        for v in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX, u64::MAX - 1] {
            let mut buf = Vec::new();
            put_uvarint(&mut buf, v);
            put_varint(&mut buf, v as i64);
            let mut c = Cursor::new("f", 0, &buf);
            assert_eq!((c.uvarint().unwrap(), c.varint().unwrap()), (v, v as i64));
            assert_eq!(c.remaining(), 0);
        }
        let long = [0xFF; 11];
        let err = Cursor::new("f", 7, &long).at(1).uvarint().unwrap_err();
        assert_eq!(err.to_string(), "f: corrupt at offset 8: uvarint overflows 64 bits");
        assert!(Cursor::new("f", 0, &[0x80]).uvarint().is_err());
        assert!(Cursor::new("f", 0, &[0xFF, 0xFF, 3]).uvarint_bytes().is_err());
        assert!(Cursor::new("f", 0, &[1]).at(9).u8().is_err());
    }
}
