//! Label sections, rendered: what the protocols that do not send remote write 1.0's `repeated Label labels = 1` write their
//! labels into.
//!
//! ```text
//! 0x0A len ( 0x0A len name  0x12 len value )    a label; a series' section is its labels one behind the other
//! ```
//!
//! A section is copied together from pieces that begin with their length as a varint, [`Piece`]s, which remote write 2.0
//! has in its symbol table as they are. Short pieces are copied as 32 bytes, whatever their length: what stands behind
//! them is overwritten by the next one.

use bytes::BytesMut;

use super::decode::DecodeError;

/// Copied at once. Most names and values are shorter.
const STRIDE: usize = 32;
/// A label's own bytes besides its pieces: two tags, its tag and its length.
const LABEL_BYTES: usize = 13;
/// The smallest piece of memory that the buffer grows by.
const GROW_BYTES_MIN: usize = 64 << 10;

/// A length as a varint and as many bytes of text, in a buffer that the user knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where the length begins.
    pub(crate) start: u32,
    /// Bytes of the length and the text together.
    pub(crate) len: u32,
}

impl Piece {
    /// The bytes, length included.
    #[inline(always)]
    pub(crate) fn bytes<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        &buf[self.start as usize..(self.start + self.len) as usize]
    }

    /// The text alone.
    pub(crate) fn text<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        let bytes = self.bytes(buf);
        let len_bytes = bytes.iter().position(|b| *b < 0x80).map_or(bytes.len(), |i| i + 1);
        &bytes[len_bytes..]
    }
}

/// Sections, one behind the other.
#[derive(Debug)]
pub(crate) struct Sections<'a> {
    /// Longer than what was written: what it held before needs no clearing.
    buf: &'a mut BytesMut,
    pos: usize,
    /// Where writing must stop to grow or to give up.
    end: usize,
    bytes_max: usize,
}

impl<'a> Sections<'a> {
    /// Sections of at most `bytes_max` bytes (and below 4 GiB), into this buffer.
    pub(crate) fn new(buf: &'a mut BytesMut, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize);
        Sections { end: buf.len().min(bytes_max), buf, pos: 0, bytes_max }
    }

    /// Bytes written so far: where the next section begins.
    #[inline(always)]
    pub(crate) fn pos(&self) -> u32 {
        self.pos as u32
    }

    /// What was written from `start` on.
    pub(crate) fn since(&self, start: u32) -> &[u8] {
        &self.buf[start as usize..self.pos]
    }

    /// Adds a label whose name and value are pieces of `names` and `values`.
    ///
    /// # Errors
    /// When there is no more room.
    #[inline(always)]
    pub(crate) fn label(
        &mut self,
        names: &[u8],
        name: Piece,
        values: &[u8],
        value: Piece,
    ) -> Result<(), DecodeError> {
        let inner = 2 + name.len as usize + value.len as usize;
        let need = inner + LABEL_BYTES + STRIDE;
        if self.pos + need > self.end {
            self.grow(need)?;
        }
        let out = &mut self.buf[self.pos..self.pos + need];
        out[0] = 0x0A;
        let mut at = 1;
        let mut rest = inner;
        while rest >= 0x80 {
            out[at] = rest as u8 | 0x80;
            rest >>= 7;
            at += 1;
        }
        out[at] = rest as u8;
        out[at + 1] = 0x0A;
        at += 2;
        copy(out, at, names, name);
        at += name.len as usize;
        out[at] = 0x12;
        copy(out, at + 1, values, value);
        self.pos += at + 1 + value.len as usize;
        Ok(())
    }

    #[cold]
    fn grow(&mut self, need: usize) -> Result<(), DecodeError> {
        let len = self.pos + need;
        if len > self.bytes_max {
            return Err(DecodeError::TooManyElements { bytes_max: self.bytes_max });
        }
        if len > self.buf.len() {
            let more = len.max(self.buf.len() * 2).max(GROW_BYTES_MIN).min(self.bytes_max);
            self.buf.resize(more, 0);
        }
        self.end = self.buf.len().min(self.bytes_max);
        Ok(())
    }
}

#[inline(always)]
fn copy(out: &mut [u8], at: usize, from: &[u8], piece: Piece) {
    let (start, len) = (piece.start as usize, piece.len as usize);
    if len <= STRIDE
        && let Some(source) = from.get(start..).and_then(|rest| rest.first_chunk::<STRIDE>())
        && let Some(target) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<STRIDE>())
    {
        *target = *source;
        return;
    }
    out[at..at + len].copy_from_slice(&from[start..start + len]);
}

#[cfg(test)]
mod tests {
    use chronolith_model::write::encode_labels;
    use proptest::prelude::*;

    use super::*;

    fn piece(text: &str, buf: &mut Vec<u8>) -> Piece {
        let start = buf.len() as u32;
        prost::encoding::encode_varint(text.len() as u64, buf);
        buf.extend_from_slice(text.as_bytes());
        Piece { start, len: buf.len() as u32 - start }
    }

    proptest! {
        #[test]
        fn sections_are_what_the_model_renders(labels in proptest::collection::vec((".{0,40}", ".{0,300}"), 0..20)) {
            let mut want = Vec::new();
            encode_labels(labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), &mut want);
            let mut texts = Vec::new();
            let pieces: Vec<_> =
                labels.iter().map(|(n, v)| (piece(n, &mut texts), piece(v, &mut texts))).collect();
            let mut buf = BytesMut::from(&b"left over"[..]);
            let mut sections = Sections::new(&mut buf, 1 << 20);
            for (i, (name, value)) in pieces.iter().enumerate() {
                sections.label(&texts, *name, &texts, *value).unwrap();
                prop_assert_eq!(name.text(&texts), labels[i].0.as_bytes());
                prop_assert_eq!(value.text(&texts), labels[i].1.as_bytes());
            }
            prop_assert_eq!(sections.since(0), &want[..]);
        }
    }

    #[test]
    fn memory_is_bounded_whatever_the_buffer_holds() {
        let mut texts = Vec::new();
        let (name, value) = (piece("name", &mut texts), piece(&"v".repeat(100), &mut texts));
        for held in [0, 1 << 20] {
            let mut buf = BytesMut::zeroed(held);
            let mut sections = Sections::new(&mut buf, 10_000);
            let written =
                (0..1000).take_while(|_| sections.label(&texts, name, &texts, value).is_ok()).count();
            assert!((80..100).contains(&written), "{written}");
        }
    }
}
