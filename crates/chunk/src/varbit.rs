//! Variable-length integers of histogram chunks: a prefix of ones chooses the length.
//!
//! ```text
//! 0 | 10 + 3 | 110 + 6 | 1110 + 9 | 11110 + 12 | 111110 + 18 | 1111110 + 25 | 11111110 + 56 | 11111111 + 64 bits
//! ```
//!
//! Signed payloads of n < 64 bits hold −(2^(n−1)−1) … 2^(n−1).

use crate::bits::{BitReader, BitTail, BitWriter, WINDOW_BITS, WordSink};

/// Payload bits by the number of leading ones.
const BITS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Writes a class: its prefix and the payload's low bits.
#[inline]
fn put_class(tail: &mut BitTail, sink: &mut impl WordSink, v: u64, class: usize) {
    let bits = BITS[class];
    if bits == 64 {
        tail.put(sink, 0xff, 8);
        tail.put(sink, v, 64);
    } else {
        // `class` ones and a zero.
        let prefix = (1u64 << (class + 1)) - 2;
        tail.put(sink, (prefix << bits) | (v & ((1 << bits) - 1)), class as u32 + 1 + bits);
    }
}

/// Appends a signed number to a bit stream.
#[inline]
pub(crate) fn put_varbit_int(tail: &mut BitTail, sink: &mut impl WordSink, v: i64) {
    let fits = |bits: u32| {
        bits == 64 || if bits == 0 { v == 0 } else { -((1 << (bits - 1)) - 1) <= v && v <= 1 << (bits - 1) }
    };
    let class = BITS.iter().position(|&bits| fits(bits)).expect("64 bits fit all");
    put_class(tail, sink, v as u64, class);
}

impl BitWriter {
    pub(crate) fn put_varbit_int(&mut self, v: i64) {
        let (tail, words) = self.parts();
        put_varbit_int(tail, words, v);
    }

    pub(crate) fn put_varbit_uint(&mut self, v: u64) {
        let class = BITS.iter().position(|&bits| bits == 64 || v >> bits == 0).expect("64 bits fit all");
        let (tail, words) = self.parts();
        put_class(tail, words, v, class);
    }
}

/// Takes the payload and its length.
#[inline]
fn take_class(r: &mut BitReader<'_>) -> (u64, u32) {
    let ones = r.window().leading_ones().min(8);
    r.skip((ones + 1).min(8));
    match BITS[ones as usize] {
        0 => (0, 0),
        bits => (r.take(bits), bits),
    }
}

/// Takes a signed number; a cut one shows as an overrun of the reader.
#[inline]
pub(crate) fn take_varbit_int(r: &mut BitReader<'_>) -> i64 {
    let (v, bits) = take_class(r);
    if bits > 0 && bits < 64 && v > 1 << (bits - 1) { v.wrapping_sub(1 << bits) as i64 } else { v as i64 }
}

/// Whole length of a code by its first byte.
const LENGTH: [u8; 256] = {
    let mut lengths = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let ones = (byte as u8).leading_ones() as usize;
        lengths[byte] = if ones == 8 { 72 } else { ones as u8 + 1 + BITS[ones] as u8 };
        byte += 1;
    }
    lengths
};
/// Longest code that one look at the window always shows whole.
const SHORT_BITS: u32 = 32;
/// Of codes by their length: the payload's mask, and the largest number that is not negative.
const PAYLOAD: [(u32, u32); SHORT_BITS as usize + 1] = {
    let mut payload = [(0, 0); SHORT_BITS as usize + 1];
    let mut class = 1;
    while class < 7 {
        let bits = BITS[class];
        payload[class + 1 + bits as usize] = ((1 << bits) - 1, 1 << (bits - 1));
        class += 1;
    }
    payload
};

/// Takes signed numbers of which most are small, one after the other. The bits wait in a register, and no jump depends on a
/// number's length: bucket counts change or not as chance will have it, so jumps would be guessed wrongly.
pub(crate) struct VarbitInts<'r, 'a> {
    r: &'r mut BitReader<'a>,
    window: u64,
    /// Valid bits of the window at least.
    left: u32,
}

impl<'r, 'a> VarbitInts<'r, 'a> {
    #[inline(always)]
    pub(crate) fn new(r: &'r mut BitReader<'a>) -> Self {
        let window = r.window();
        VarbitInts { r, window, left: WINDOW_BITS }
    }

    /// The next number; a cut one shows as an overrun of the reader.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> i64 {
        if self.left < SHORT_BITS {
            self.refill();
        }
        let length = u32::from(LENGTH[(self.window >> 56) as usize]);
        if length > SHORT_BITS {
            let v = take_varbit_int(self.r);
            self.refill();
            return v;
        }
        let (mask, half) = PAYLOAD[length as usize];
        let payload = (self.window >> (64 - length)) as u32 & mask;
        self.window <<= length;
        self.left -= length;
        self.r.skip(length);
        let wraps = if payload > half { i64::from(mask) + 1 } else { 0 };
        i64::from(payload) - wraps
    }

    #[inline(always)]
    fn refill(&mut self) {
        (self.window, self.left) = (self.r.window(), WINDOW_BITS);
    }
}

/// Takes an unsigned number.
#[inline]
pub(crate) fn take_varbit_uint(r: &mut BitReader<'_>) -> u64 {
    take_class(r).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn class_edges_have_their_lengths() {
        for (v, bits) in [
            (0, 1),
            (1, 5),
            (-3, 5),
            (4, 5),
            (-4, 9),
            (5, 9),
            (32, 9),
            (-31, 9),
            (33, 13),
            (256, 13),
            (257, 17),
            (2048, 17),
            (2049, 24),
            (131_072, 24),
            (131_073, 32),
            (16_777_216, 32),
            (16_777_217, 64),
            (1 << 55, 64),
            ((1 << 55) + 1, 72),
            (i64::MIN, 72),
        ] {
            let mut w = BitWriter::default();
            w.put_varbit_int(v);
            assert_eq!(w.bits_len(), bits, "{v}");
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back(v in any::<i64>(), shift in 0u32..64) {
            let mut w = BitWriter::default();
            w.put(1, 1);
            w.put_varbit_int(v >> shift);
            w.put_varbit_uint(v as u64 >> shift);
            let bytes = w.to_vec();
            let mut r = BitReader::new(&bytes);
            r.skip(1);
            prop_assert_eq!(take_varbit_int(&mut r), v >> shift);
            prop_assert_eq!(take_varbit_uint(&mut r), v as u64 >> shift);
            prop_assert!(!r.overrun());
        }

        #[test]
        fn many_numbers_are_those_that_come_one_by_one(
            numbers in prop::collection::vec((any::<i64>(), 0u32..64, any::<bool>()), 0..80),
        ) {
            let numbers: Vec<i64> = numbers.into_iter().map(|(v, s, zero)| if zero { 0 } else { v >> s }).collect();
            let mut w = BitWriter::default();
            w.put(1, 1);
            numbers.iter().for_each(|v| w.put_varbit_int(*v));
            w.put_varbit_int(-77);
            let bytes = w.to_vec();
            let mut r = BitReader::new(&bytes);
            r.skip(1);
            let mut many = VarbitInts::new(&mut r);
            let got: Vec<i64> = numbers.iter().map(|_| many.take()).collect();
            prop_assert_eq!(got, numbers);
            prop_assert_eq!(take_varbit_int(&mut r), -77);
            prop_assert!(!r.overrun());
        }
    }
}
