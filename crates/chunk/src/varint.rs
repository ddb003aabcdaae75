//! Go's `encoding/binary` varints, in bytes and through bit streams.

use crate::bits::{BitReader, BitTail, WordSink};

/// Longest encoding of 64 bits.
const BYTES_MAX: u32 = 10;

/// Maps a signed number so that small magnitudes are small.
#[inline]
pub(crate) fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(v: u64) -> i64 {
    ((v >> 1) as i64) ^ -((v & 1) as i64)
}

/// Appends an unsigned varint to a bit stream.
pub(crate) fn put_uvarint(tail: &mut BitTail, sink: &mut impl WordSink, mut v: u64) {
    while v >= 0x80 {
        tail.put(sink, (v & 0x7f) | 0x80, 8);
        v >>= 7;
    }
    tail.put(sink, v, 8);
}

/// Appends a signed varint to a bit stream.
pub(crate) fn put_varint(tail: &mut BitTail, sink: &mut impl WordSink, v: i64) {
    put_uvarint(tail, sink, zigzag(v));
}

/// Appends an unsigned varint to bytes.
pub(crate) fn push_uvarint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Splits an unsigned varint off the front of `data`; `None` when it is cut or does not fit 64 bits.
pub(crate) fn split_uvarint(data: &mut &[u8]) -> Option<u64> {
    let mut r = BitReader::new(data);
    let value = take_uvarint(&mut r)?;
    *data = data.get(r.position() / 8..)?;
    Some(value)
}

/// Takes an unsigned varint; `None` when it does not fit 64 bits. A cut one shows as an overrun of the reader.
pub(crate) fn take_uvarint(r: &mut BitReader<'_>) -> Option<u64> {
    let mut value = 0;
    for i in 0..BYTES_MAX {
        let byte = r.take(8);
        if i == BYTES_MAX - 1 && byte > 1 {
            return None;
        }
        value |= (byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Takes a signed varint.
pub(crate) fn take_varint(r: &mut BitReader<'_>) -> Option<i64> {
    take_uvarint(r).map(unzigzag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bits::BitWriter;

    proptest! {
        #[test]
        fn varints_come_back(v in any::<i64>(), shift in 0u32..64) {
            let v = v >> shift;
            let mut w = BitWriter::default();
            w.put(1, 3);
            let (tail, words) = w.parts();
            put_varint(tail, words, v);
            let bytes = w.to_vec();
            let mut r = BitReader::new(&bytes);
            r.skip(3);
            prop_assert_eq!(take_varint(&mut r), Some(v));
        }
    }

    #[test]
    fn too_long_varints_are_refused() {
        assert_eq!(take_uvarint(&mut BitReader::new(&[0xff; 11])), None);
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(take_uvarint(&mut BitReader::new(&max)), Some(u64::MAX));
    }
}
