//! Bit streams, most significant bit first, the last byte padded with zeros.
//!
//! The reader loads 64-bit windows at any bit position and may run past the end, where it reads zeros; callers check
//! [`BitReader::overrun`] once a sample. The writer gathers bits in a 64-bit accumulator and hands out whole words, so
//! that an append of a few bits touches no buffer at all.

/// Bits that [`BitReader::window`] always shows.
pub(crate) const WINDOW_BITS: u32 = 57;

/// Reads bits from a slice.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    /// Position in bits. May pass the end; see [`BitReader::overrun`].
    pos: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        BitReader { data, pos: 0 }
    }

    /// True when more bits were taken than there are.
    #[inline(always)]
    pub(crate) fn overrun(&self) -> bool {
        self.pos > self.data.len() * 8
    }

    /// Bits that were taken.
    pub(crate) fn position(&self) -> usize {
        self.pos
    }

    /// Bits that are left.
    #[inline]
    pub(crate) fn remaining(&self) -> usize {
        (self.data.len() * 8).saturating_sub(self.pos)
    }

    /// The next bits, left-aligned; at least the first [`WINDOW_BITS`] are valid.
    #[inline(always)]
    pub(crate) fn window(&self) -> u64 {
        let byte = self.pos >> 3;
        let word = match self.data.get(byte..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => self.tail(byte),
        };
        word << (self.pos & 7)
    }

    /// The last bytes, padded with zeros.
    #[cold]
    fn tail(&self, byte: usize) -> u64 {
        let rest = self.data.get(byte..).unwrap_or(&[]);
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        u64::from_be_bytes(word)
    }

    /// Moves on by `n` bits.
    #[inline(always)]
    pub(crate) fn skip(&mut self, n: u32) {
        self.pos += n as usize;
    }

    /// Takes `n` bits, 1 to 64, right-aligned.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: u32) -> u64 {
        debug_assert!((1..=64).contains(&n));
        let window = self.window();
        let mut value = window >> (64 - n);
        if n > 57 {
            // The window's last (pos & 7) bits are missing; they lead the ninth byte.
            let shift = (self.pos & 7) as u32;
            if shift > 0 && n > 64 - shift {
                let ninth = self.data.get((self.pos >> 3) + 8).copied().unwrap_or(0);
                let full = window | (u64::from(ninth) >> (8 - shift));
                value = full >> (64 - n);
            }
        }
        self.pos += n as usize;
        value
    }

    /// Takes 64 bits as a float.
    #[inline]
    pub(crate) fn take_f64(&mut self) -> f64 {
        f64::from_bits(self.take(64))
    }
}

/// Where whole words of a bit stream go.
pub trait WordSink {
    /// Appends the eight bytes of `word`, most significant first.
    fn push_word(&mut self, word: u64);
}

impl WordSink for Vec<u8> {
    #[inline]
    fn push_word(&mut self, word: u64) {
        self.extend_from_slice(&word.to_be_bytes());
    }
}

/// The end of a bit stream whose whole words already lie in a [`WordSink`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BitTail {
    /// The bits after the last whole word, left-aligned, zeros behind them.
    pub(crate) acc: u64,
    /// Length of the whole stream in bits; `bits % 64` of them are in `acc`.
    pub(crate) bits: u32,
}

impl BitTail {
    /// Length of the stream in bytes, the last one padded.
    pub(crate) fn bytes_len(&self) -> usize {
        self.bits.div_ceil(8) as usize
    }

    /// Appends the low `n` bits of `value`, 1 to 64; the others must be zero.
    #[inline(always)]
    pub(crate) fn put(&mut self, sink: &mut impl WordSink, value: u64, n: u32) {
        debug_assert!((1..=64).contains(&n) && (n == 64 || value >> n == 0));
        let free = 64 - (self.bits & 63);
        self.bits += n;
        if n < free {
            self.acc |= value << (free - n);
            return;
        }
        let rest = n - free;
        sink.push_word(self.acc | (value >> rest));
        // A shift by 64 is not one; with nothing left over the accumulator is empty.
        self.acc = if rest == 0 { 0 } else { value << (64 - rest) };
    }

    /// The bytes that are not in the sink yet, and how many.
    pub(crate) fn pending(&self) -> ([u8; 8], usize) {
        (self.acc.to_be_bytes(), (self.bits & 63).div_ceil(8) as usize)
    }
}

/// A bit stream with a buffer of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitWriter {
    words: Vec<u8>,
    tail: BitTail,
}

impl BitWriter {
    #[inline]
    pub(crate) fn put(&mut self, value: u64, n: u32) {
        self.tail.put(&mut self.words, value, n);
    }

    /// The tail and its sink, for writers that are generic over both.
    #[inline]
    pub(crate) fn parts(&mut self) -> (&mut BitTail, &mut Vec<u8>) {
        (&mut self.tail, &mut self.words)
    }

    #[cfg(test)]
    pub(crate) fn bits_len(&self) -> u32 {
        self.tail.bits
    }

    pub(crate) fn put_f64(&mut self, value: f64) {
        self.put(value.to_bits(), 64);
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.tail.bytes_len()
    }

    /// A copy of the stream, padded to a whole byte.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let (pending, n) = self.tail.pending();
        let mut out = Vec::with_capacity(self.words.len() + n);
        out.extend_from_slice(&self.words);
        out.extend_from_slice(&pending[..n]);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_come_back(fields in prop::collection::vec((any::<u64>(), 1u32..=64), 0..200)) {
            let mut w = BitWriter::default();
            let masked: Vec<_> = fields.iter().map(|&(v, n)| (v >> (64 - n), n)).collect();
            for &(v, n) in &masked {
                w.put(v, n);
            }
            let bytes = w.to_vec();
            prop_assert_eq!(bytes.len(), w.bytes_len());
            let mut r = BitReader::new(&bytes);
            for &(v, n) in &masked {
                prop_assert_eq!(r.take(n), v);
            }
            prop_assert!(!r.overrun() && r.remaining() < 8);
            r.skip(8);
            prop_assert!(r.overrun());
        }
    }
}
