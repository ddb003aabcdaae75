//! XOR chunks: delta-of-delta timestamps, XORed floats.
//!
//! ```text
//! u16 n | varint t0 | v0 (64) | uvarint t1-t0 | vdelta(v1) | [ dod(t) | vdelta(v) ]...
//!
//! dod     0                       same distance as before
//!         10 + 14, 110 + 17, 1110 + 20 bits, 1111 + 64 bits
//! vdelta  0                       same value
//!         10 + bits               reuse the window (leading, trailing) of the last value
//!         11 + 5 leading + 6 count + bits
//! ```

mod decode;

use bytes::Bytes;

pub(crate) use decode::decode_into;

use crate::bits::{BitReader, BitTail, WordSink};
use crate::varint::{put_uvarint, put_varint, take_uvarint, take_varint};
use crate::{Chunk, ChunkError, Encoding};

/// `leading` before the first window.
pub(crate) const NO_WINDOW: u8 = 0xff;

/// The state of a growing XOR chunk without its bytes: 40 bytes, so that a head can keep it beside a series' other hot
/// fields and own the buffers itself.
///
/// Whole words go to the [`WordSink`]; up to 63 bits wait here. The sample count, the chunk's first two bytes, is kept
/// here too and zero in the sink until [`XorState::finish`] or [`XorState::snapshot`] fills it in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct XorState {
    t: i64,
    t_delta: u64,
    v: f64,
    // A `BitTail` taken apart: as a field of its own it would be padded by four bytes.
    acc: u64,
    bits: u32,
    samples: u16,
    leading: u8,
    trailing: u8,
}

impl Default for XorState {
    fn default() -> Self {
        XorState::new()
    }
}

impl XorState {
    /// A chunk without samples; the sink must be empty.
    pub const fn new() -> Self {
        XorState { t: 0, t_delta: 0, v: 0.0, acc: 0, bits: 0, samples: 0, leading: NO_WINDOW, trailing: 0 }
    }

    fn tail(&self) -> BitTail {
        BitTail { acc: self.acc, bits: self.bits }
    }

    /// The state as bytes, for a snapshot; [`XorState::from_bytes`] reads them.
    pub fn to_bytes(&self) -> [u8; 40] {
        let mut out = [0; 40];
        out[..8].copy_from_slice(&self.t.to_le_bytes());
        out[8..16].copy_from_slice(&self.t_delta.to_le_bytes());
        out[16..24].copy_from_slice(&self.v.to_bits().to_le_bytes());
        out[24..32].copy_from_slice(&self.acc.to_le_bytes());
        out[32..36].copy_from_slice(&self.bits.to_le_bytes());
        out[36..38].copy_from_slice(&self.samples.to_le_bytes());
        out[38] = self.leading;
        out[39] = self.trailing;
        out
    }

    /// The state that [`XorState::to_bytes`] gave. Other bytes give a state whose chunk may not decode.
    pub fn from_bytes(bytes: &[u8; 40]) -> Self {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        // Shifts by these must stay shifts.
        let (leading, trailing) = (bytes[38], bytes[39]);
        let window = leading < 32 && trailing < 64 && leading + trailing < 64;
        XorState {
            t: u64_at(0) as i64,
            t_delta: u64_at(8),
            v: f64::from_bits(u64_at(16)),
            acc: u64_at(24),
            bits: u64_at(32) as u32,
            samples: u16::from_le_bytes([bytes[36], bytes[37]]),
            leading: if window { leading } else { NO_WINDOW },
            trailing: if window { trailing } else { 0 },
        }
    }

    /// Timestamp of the last sample; 0 when there is none.
    #[inline]
    pub fn last_t(&self) -> i64 {
        self.t
    }

    /// Value of the last sample.
    #[inline]
    pub fn last_v(&self) -> f64 {
        self.v
    }

    /// Number of samples.
    #[inline]
    pub fn sample_count(&self) -> usize {
        usize::from(self.samples)
    }

    /// Length of the chunk in bytes.
    #[inline]
    pub fn bytes_len(&self) -> usize {
        self.tail().bytes_len()
    }

    /// Appends a sample. Times need not ascend (the format does not care), though readers rely on it.
    ///
    /// The caller cuts before 65,535 samples; beyond, this panics.
    #[inline]
    pub fn append(&mut self, sink: &mut impl WordSink, t: i64, v: f64) {
        let mut tail = self.tail();
        match self.samples {
            0 => {
                tail.put(sink, 0, 16);
                put_varint(&mut tail, sink, t);
                tail.put(sink, v.to_bits(), 64);
            }
            1 => {
                self.t_delta = t.wrapping_sub(self.t) as u64;
                put_uvarint(&mut tail, sink, self.t_delta);
                self.put_value(&mut tail, sink, v);
            }
            n => {
                assert!(n < u16::MAX, "a chunk holds at most 65,535 samples");
                let delta = t.wrapping_sub(self.t) as u64;
                let dod = delta.wrapping_sub(self.t_delta) as i64;
                self.t_delta = delta;
                if dod == 0 && v.to_bits() == self.v.to_bits() {
                    tail.put(sink, 0, 2);
                } else {
                    put_dod(&mut tail, sink, dod);
                    self.put_value(&mut tail, sink, v);
                }
            }
        }
        (self.acc, self.bits) = (tail.acc, tail.bits);
        self.t = t;
        self.v = v;
        self.samples += 1;
    }

    #[inline]
    fn put_value(&mut self, tail: &mut BitTail, sink: &mut impl WordSink, v: f64) {
        put_xor(tail, sink, v.to_bits() ^ self.v.to_bits(), &mut self.leading, &mut self.trailing);
    }

    /// The chunk's bytes so far; `words` is what the sink was given.
    pub fn snapshot(&self, words: &[u8]) -> Bytes {
        let (pending, n) = self.tail().pending();
        let mut out = Vec::with_capacity(words.len() + n);
        out.extend_from_slice(words);
        out.extend_from_slice(&pending[..n]);
        self.put_count(&mut out, 0);
        Bytes::from(out)
    }

    /// Completes `words`, what the sink was given, to the chunk's bytes.
    pub fn finish(&self, words: &mut Vec<u8>) {
        self.finish_at(words, 0);
    }

    /// As [`XorState::finish`], for a chunk that begins at `start` of a longer buffer.
    pub fn finish_at(&self, words: &mut Vec<u8>, start: usize) {
        let (pending, n) = self.tail().pending();
        words.extend_from_slice(&pending[..n]);
        self.put_count(words, start);
    }

    fn put_count(&self, out: &mut Vec<u8>, start: usize) {
        // A chunk without samples is its count alone.
        out.resize(out.len().max(start + 2), 0);
        out[start..start + 2].copy_from_slice(&self.samples.to_be_bytes());
    }
}

/// Writes one of the delta-of-delta classes.
#[inline]
fn put_dod(tail: &mut BitTail, sink: &mut impl WordSink, dod: i64) {
    const fn fits(v: i64, bits: u32) -> bool {
        -((1 << (bits - 1)) - 1) <= v && v <= 1 << (bits - 1)
    }
    let low = |bits: u32| (dod as u64) & ((1 << bits) - 1);
    match dod {
        0 => tail.put(sink, 0, 1),
        _ if fits(dod, 14) => tail.put(sink, (0b10 << 14) | low(14), 16),
        _ if fits(dod, 17) => tail.put(sink, (0b110 << 17) | low(17), 20),
        _ if fits(dod, 20) => tail.put(sink, (0b1110 << 20) | low(20), 24),
        _ => {
            tail.put(sink, 0b1111, 4);
            tail.put(sink, dod as u64, 64);
        }
    }
}

/// Writes a value as the XOR with its predecessor; also used, with windows of its own, by float histograms.
#[inline]
pub(crate) fn put_xor(
    tail: &mut BitTail,
    sink: &mut impl WordSink,
    xor: u64,
    leading: &mut u8,
    trailing: &mut u8,
) {
    if xor == 0 {
        return tail.put(sink, 0, 1);
    }
    // Five bits hold the count of leading zeros.
    let new_leading = xor.leading_zeros().min(31) as u8;
    let new_trailing = xor.trailing_zeros() as u8;
    if *leading != NO_WINDOW && new_leading >= *leading && new_trailing >= *trailing {
        let bits = 64 - u32::from(*leading) - u32::from(*trailing);
        let payload = xor >> *trailing;
        if bits <= 62 {
            tail.put(sink, (0b10 << bits) | payload, bits + 2);
        } else {
            tail.put(sink, 0b10, 2);
            tail.put(sink, payload, bits);
        }
        return;
    }
    (*leading, *trailing) = (new_leading, new_trailing);
    let bits = 64 - u32::from(new_leading) - u32::from(new_trailing);
    // 64 does not fit six bits; 0 stands for it, since a XOR of no bits is written as `0` above.
    let head = (0b11 << 11) | (u64::from(new_leading) << 6) | u64::from(bits & 63);
    let payload = xor >> new_trailing;
    if bits <= 51 {
        tail.put(sink, (head << bits) | payload, bits + 13);
    } else {
        tail.put(sink, head, 13);
        tail.put(sink, payload, bits);
    }
}

/// Builds an XOR chunk in a buffer of its own.
#[derive(Clone, Debug, Default)]
pub struct XorEncoder {
    state: XorState,
    words: Vec<u8>,
}

impl XorEncoder {
    /// An empty chunk.
    pub fn new() -> Self {
        XorEncoder::default()
    }

    /// An encoder that continues `data`, an XOR chunk.
    pub fn resume(data: &[u8]) -> Result<Self, ChunkError> {
        let mut encoder = XorEncoder::new();
        for sample in XorIter::new(data)? {
            let (t, v) = sample?;
            encoder.append(t, v);
        }
        Ok(encoder)
    }

    /// Appends a sample; at most 65,535 of them.
    #[inline]
    pub fn append(&mut self, t: i64, v: f64) {
        self.state.append(&mut self.words, t, v);
    }

    /// The state, for its last sample and sizes.
    pub fn state(&self) -> &XorState {
        &self.state
    }

    /// Number of samples.
    pub fn sample_count(&self) -> usize {
        self.state.sample_count()
    }

    /// Length of the chunk in bytes.
    pub fn bytes_len(&self) -> usize {
        self.state.bytes_len()
    }

    /// A copy of the chunk's bytes so far.
    pub fn snapshot(&self) -> Bytes {
        self.state.snapshot(&self.words)
    }

    /// The chunk's bytes.
    pub fn finish(mut self) -> Bytes {
        self.state.finish(&mut self.words);
        Bytes::from(self.words)
    }

    /// The chunk, covering `mint` to `maxt`.
    pub fn finish_chunk(self, mint: i64, maxt: i64) -> Chunk {
        Chunk { mint, maxt, encoding: Encoding::Xor, data: self.finish() }
    }
}

/// Reads samples one after the other.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    r: BitReader<'a>,
    t: i64,
    t_delta: i64,
    v: XorValue,
}

/// What a cursor can stumble over; the caller knows encoding and sample.
pub(crate) type Stumble = &'static str;

impl<'a> Cursor<'a> {
    fn new(data: &'a [u8]) -> Self {
        let mut r = BitReader::new(data);
        r.skip(16);
        Cursor { r, t: 0, t_delta: 0, v: XorValue::default() }
    }

    /// Reads sample `i`, which must be 0 or 1.
    fn head(&mut self, i: usize) -> Result<(), Stumble> {
        if i == 0 {
            self.t = take_varint(&mut self.r).ok_or("timestamp does not fit 64 bits")?;
            self.v.bits = self.r.take(64);
            return Ok(());
        }
        self.t_delta = take_uvarint(&mut self.r).ok_or("time delta does not fit 64 bits")? as i64;
        self.t = self.t.wrapping_add(self.t_delta);
        self.v.take(&mut self.r)
    }

    /// Reads any later sample.
    #[inline(always)]
    fn next(&mut self) -> Result<(), Stumble> {
        // One window holds the time (up to 24 bits but for the rare 68) and the head of the value (up to 13).
        let mut window = self.r.window();
        let used;
        if window >> 63 == 0 {
            used = 1;
            window <<= 1;
        } else {
            let (dod, bits);
            match window.leading_ones() {
                1 => (dod, bits) = (odd_range(window << 2, 14), 16),
                2 => (dod, bits) = (odd_range(window << 3, 17), 20),
                3 => (dod, bits) = (odd_range(window << 4, 20), 24),
                _ => {
                    self.r.skip(4);
                    dod = self.r.take(64) as i64;
                    window = self.r.window();
                    bits = 0;
                }
            }
            self.t_delta = self.t_delta.wrapping_add(dod);
            window <<= bits;
            used = bits;
        }
        self.t = self.t.wrapping_add(self.t_delta);
        self.v.take_at(&mut self.r, window, used)
    }
}

/// A value that is written as the XOR with its predecessor, and the window of significant bits that goes with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct XorValue {
    pub(crate) bits: u64,
    pub(crate) leading: u32,
    pub(crate) trailing: u32,
}

impl XorValue {
    /// Reads the next value: `window` holds its head, `used` bits before it are consumed already.
    #[inline(always)]
    fn take_at(&mut self, r: &mut BitReader<'_>, window: u64, used: u32) -> Result<(), Stumble> {
        if window >> 63 == 0 {
            r.skip(used + 1);
            return Ok(());
        }
        r.skip(used + 2);
        if window >> 62 == 0b11 {
            return self.take_new_window(r, window << 2);
        }
        self.take_reusing(r);
        Ok(())
    }

    /// Reads the next value.
    #[inline]
    pub(crate) fn take(&mut self, r: &mut BitReader<'_>) -> Result<(), Stumble> {
        let window = r.window();
        self.take_at(r, window, 0)
    }

    /// Reads the bits of the last window.
    #[inline(always)]
    pub(crate) fn take_reusing(&mut self, r: &mut BitReader<'_>) {
        let bits = 64 - self.leading - self.trailing;
        self.bits ^= r.take(bits) << self.trailing;
    }

    /// Reads a window, whose head `window` shows, and its bits.
    #[inline(always)]
    pub(crate) fn take_new_window(&mut self, r: &mut BitReader<'_>, window: u64) -> Result<(), Stumble> {
        let leading = (window >> 59) as u32;
        let count = match (window >> 53) as u32 & 63 {
            0 => 64,
            n => n,
        };
        if leading + count > 64 {
            return Err("value window is wider than 64 bits");
        }
        self.leading = leading;
        self.trailing = 64 - leading - count;
        r.skip(11);
        self.take_reusing(r);
        Ok(())
    }
}

/// Sign-extends the leading `bits` of `window` into the range −(2^(bits−1)−1) … 2^(bits−1).
#[inline(always)]
fn odd_range(window: u64, bits: u32) -> i64 {
    let v = (window >> (64 - bits)) as i64;
    if v > 1 << (bits - 1) { v - (1 << bits) } else { v }
}

pub(crate) fn count(data: &[u8], encoding: Encoding) -> Result<usize, ChunkError> {
    let head =
        data.first_chunk::<2>().ok_or(ChunkError::Truncated { encoding, len: data.len(), sample: 0 })?;
    Ok(usize::from(u16::from_be_bytes(*head)))
}

/// Turns what reading sample `sample` came to into an error that says where.
pub(crate) fn check(
    r: &BitReader<'_>,
    done: Result<(), Stumble>,
    encoding: Encoding,
    len: usize,
    sample: usize,
) -> Result<(), ChunkError> {
    // An overrun comes first: the zeros behind the end may look like a contradiction.
    if r.overrun() {
        return Err(ChunkError::Truncated { encoding, len, sample });
    }
    done.map_err(|reason| ChunkError::Corrupt { encoding, sample, reason })
}

/// The samples of an XOR chunk.
#[derive(Clone, Debug)]
pub(crate) struct XorIter<'a> {
    data: &'a [u8],
    cursor: Cursor<'a>,
    next: usize,
    samples: usize,
}

impl<'a> XorIter<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Result<Self, ChunkError> {
        let samples = count(data, Encoding::Xor)?;
        Ok(XorIter { data, cursor: Cursor::new(data), next: 0, samples })
    }
}

impl Iterator for XorIter<'_> {
    type Item = Result<(i64, f64), ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.samples {
            return None;
        }
        let i = self.next;
        let c = &mut self.cursor;
        let done = if i < 2 { c.head(i) } else { c.next() };
        self.next += 1;
        if let Err(err) = check(&c.r, done, Encoding::Xor, self.data.len(), i) {
            self.next = self.samples;
            return Some(Err(err));
        }
        Some(Ok((c.t, f64::from_bits(c.v.bits))))
    }
}

#[cfg(test)]
pub(crate) mod tests;
