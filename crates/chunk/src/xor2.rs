//! XOR2 chunks: XOR with joint control bits for time and value, one-bit-class stale markers, and start timestamps.
//!
//! ```text
//! u16 n | ST header u8 | varint t0 | v0 (64) | [varint t0-st0] | uvarint t1-t0 | v2(v1) | [ST] | { joint | [ST] }...
//!
//! joint   0                       same distance, same value
//!         10 + nn                 same distance
//!         110 + 13, 1110 + 20, 11110 + 64 bits of delta-of-delta, then v2
//!         11111                   same distance, stale marker
//! v2      0 same value | 10 reuse window | 110 new window | 111 stale marker
//! nn      0 reuse window | 1 new window
//!
//! ```
//!
//! The header and data of start timestamps (ST) are those of [`crate::start_ts`].
//! "Same value" means the last one that was no stale marker (0 when there was none).

use bytes::Bytes;
use chronolith_model::{STALE_NAN, TimeRange, is_stale_nan};

use crate::bits::{BitReader, BitWriter};
use crate::start_ts::{StartTsReader, StartTsWriter};
use crate::varint::{put_uvarint, put_varint, take_uvarint, take_varint};
use crate::xor::{NO_WINDOW, Stumble, XorValue, check, count};
use crate::{Chunk, ChunkError, Encoding, SampleColumns};

/// Bytes before the first sample: the count and the ST header.
const HEADER_BITS: u32 = 24;

/// Builds an XOR2 chunk.
#[derive(Clone, Debug)]
pub struct Xor2Encoder {
    w: BitWriter,
    samples: u16,
    t: i64,
    t_delta: u64,
    /// The last value that was no stale marker.
    v: f64,
    leading: u8,
    trailing: u8,
    start_ts: StartTsWriter,
}

impl Default for Xor2Encoder {
    fn default() -> Self {
        let mut w = BitWriter::default();
        w.put(0, HEADER_BITS);
        Xor2Encoder {
            w,
            samples: 0,
            t: 0,
            t_delta: 0,
            v: 0.0,
            leading: NO_WINDOW,
            trailing: 0,
            start_ts: StartTsWriter::default(),
        }
    }
}

impl Xor2Encoder {
    /// An empty chunk.
    pub fn new() -> Self {
        Xor2Encoder::default()
    }

    /// An encoder that continues `data`, an XOR2 chunk.
    pub fn resume(data: &[u8]) -> Result<Self, ChunkError> {
        let mut encoder = Xor2Encoder::new();
        for sample in Xor2Iter::new(data)? {
            let (st, t, v) = sample?;
            encoder.append(st, t, v)?;
        }
        Ok(encoder)
    }

    /// Number of samples.
    pub fn sample_count(&self) -> usize {
        usize::from(self.samples)
    }

    /// Length of the chunk in bytes.
    pub fn bytes_len(&self) -> usize {
        self.w.bytes_len()
    }

    /// Appends a sample; `st` is its start timestamp, 0 when unknown.
    pub fn append(&mut self, st: i64, t: i64, v: f64) -> Result<(), ChunkError> {
        let (tail, words) = self.w.parts();
        let mut t_delta = 0;
        match self.samples {
            0 => {
                put_varint(tail, words, t);
                tail.put(words, v.to_bits(), 64);
                self.start_ts.put_first(tail, words, t, st);
            }
            1 => {
                t_delta = t.wrapping_sub(self.t) as u64;
                put_uvarint(tail, words, t_delta);
                self.put_value(v);
            }
            u16::MAX => return Err(ChunkError::Full(u16::MAX)),
            _ => {
                t_delta = t.wrapping_sub(self.t) as u64;
                self.put_joint(t_delta.wrapping_sub(self.t_delta) as i64, v);
            }
        }
        if self.samples > 0 {
            let (tail, words) = self.w.parts();
            self.start_ts.put_later(tail, words, self.samples, self.t, st);
        }
        self.t = t;
        self.t_delta = t_delta;
        if !is_stale_nan(v) {
            self.v = v;
        }
        self.samples += 1;
        Ok(())
    }

    fn put_joint(&mut self, dod: i64, v: f64) {
        let xor = v.to_bits() ^ self.v.to_bits();
        let (tail, words) = self.w.parts();
        let low = |bits: u32| dod as u64 & ((1 << bits) - 1);
        match dod {
            0 if is_stale_nan(v) => return tail.put(words, 0b11111, 5),
            0 if xor == 0 => return tail.put(words, 0, 1),
            0 => {
                tail.put(words, 0b10, 2);
                return self.put_xor(xor, (0, 1), (1, 1));
            }
            -0x1000..=0xfff => tail.put(words, (0b110 << 13) | low(13), 16),
            -0x8_0000..=0x7_ffff => tail.put(words, (0b1110 << 20) | low(20), 24),
            _ => {
                tail.put(words, 0b11110, 5);
                tail.put(words, dod as u64, 64);
            }
        }
        self.put_value(v);
    }

    fn put_value(&mut self, v: f64) {
        let xor = v.to_bits() ^ self.v.to_bits();
        let (tail, words) = self.w.parts();
        if is_stale_nan(v) {
            tail.put(words, 0b111, 3);
        } else if xor == 0 {
            tail.put(words, 0, 1);
        } else {
            self.put_xor(xor, (0b10, 2), (0b110, 3));
        }
    }

    /// Writes a changed value behind the prefix for the last window or for a new one.
    fn put_xor(&mut self, xor: u64, reuse: (u64, u32), new: (u64, u32)) {
        let leading = xor.leading_zeros().min(31) as u8;
        let trailing = xor.trailing_zeros() as u8;
        let (tail, words) = self.w.parts();
        if self.leading == NO_WINDOW || leading < self.leading || trailing < self.trailing {
            (self.leading, self.trailing) = (leading, trailing);
            let bits = 64 - u64::from(leading) - u64::from(trailing);
            tail.put(words, (new.0 << 11) | (u64::from(leading) << 6) | (bits & 63), new.1 + 11);
        } else {
            tail.put(words, reuse.0, reuse.1);
        }
        tail.put(words, xor >> self.trailing, 64 - u32::from(self.leading) - u32::from(self.trailing));
    }

    /// The chunk's bytes so far.
    pub fn snapshot(&self) -> Bytes {
        let mut out = self.w.to_vec();
        out[..2].copy_from_slice(&self.samples.to_be_bytes());
        out[2] = self.start_ts.header();
        Bytes::from(out)
    }

    /// The chunk, covering `mint` to `maxt`.
    pub fn finish_chunk(self, mint: i64, maxt: i64) -> Chunk {
        Chunk { mint, maxt, encoding: Encoding::Xor2, data: self.snapshot() }
    }
}

/// The samples of an XOR2 chunk: start timestamp, timestamp, value.
#[derive(Clone, Debug)]
pub(crate) struct Xor2Iter<'a> {
    r: BitReader<'a>,
    len: usize,
    samples: usize,
    next: usize,
    t: i64,
    t_delta: i64,
    v: XorValue,
    start_ts: StartTsReader,
}

impl<'a> Xor2Iter<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Result<Self, ChunkError> {
        let samples = count(data, Encoding::Xor2)?;
        let mut r = BitReader::new(data);
        r.skip(HEADER_BITS);
        let start_ts = StartTsReader::new(data.get(2).copied().unwrap_or(0));
        let v = XorValue::default();
        Ok(Xor2Iter { r, len: data.len(), samples, next: 0, t: 0, t_delta: 0, v, start_ts })
    }

    /// Reads sample `i` and returns its value.
    #[inline(always)]
    fn read(&mut self, i: usize) -> Result<f64, Stumble> {
        let before = self.t;
        let v = match i {
            0 => self.first()?,
            1 => {
                self.t_delta = take_uvarint(&mut self.r).ok_or("time delta does not fit 64 bits")? as i64;
                self.t = self.t.wrapping_add(self.t_delta);
                self.value()?
            }
            _ => self.joint()?,
        };
        self.start_ts.take_later(&mut self.r, i, before);
        Ok(v)
    }

    fn first(&mut self) -> Result<f64, Stumble> {
        self.t = take_varint(&mut self.r).ok_or("timestamp does not fit 64 bits")?;
        let v = self.r.take_f64();
        if !is_stale_nan(v) {
            self.v.bits = v.to_bits();
        }
        self.start_ts.take_first(&mut self.r, self.t)?;
        Ok(v)
    }

    #[inline(always)]
    fn joint(&mut self) -> Result<f64, Stumble> {
        let window = self.r.window();
        let plain = |bits: u32, at: u32| ((window << at) as i64) >> (64 - bits);
        let dod = match window.leading_ones() {
            0 => {
                self.r.skip(1);
                self.t = self.t.wrapping_add(self.t_delta);
                return Ok(self.last_value());
            }
            1 => {
                self.t = self.t.wrapping_add(self.t_delta);
                self.r.skip(3);
                if window << 2 >> 63 == 0 {
                    self.v.take_reusing(&mut self.r);
                } else {
                    self.v.take_new_window(&mut self.r, window << 3)?;
                }
                return Ok(self.last_value());
            }
            2 => {
                self.r.skip(16);
                plain(13, 3)
            }
            3 => {
                self.r.skip(24);
                plain(20, 4)
            }
            4 => {
                self.r.skip(5);
                self.r.take(64) as i64
            }
            _ => {
                self.r.skip(5);
                self.t = self.t.wrapping_add(self.t_delta);
                return Ok(STALE_NAN);
            }
        };
        self.t_delta = self.t_delta.wrapping_add(dod);
        self.t = self.t.wrapping_add(self.t_delta);
        self.value()
    }

    #[inline(always)]
    fn value(&mut self) -> Result<f64, Stumble> {
        let window = self.r.window();
        match window.leading_ones() {
            0 => self.r.skip(1),
            1 => {
                self.r.skip(2);
                self.v.take_reusing(&mut self.r);
            }
            2 => {
                self.r.skip(3);
                self.v.take_new_window(&mut self.r, window << 3)?;
            }
            _ => {
                self.r.skip(3);
                return Ok(STALE_NAN);
            }
        }
        Ok(self.last_value())
    }

    /// The sample's start timestamp, 0 when unknown.
    pub(crate) fn start_ts(&self) -> i64 {
        self.start_ts.last()
    }

    fn last_value(&self) -> f64 {
        f64::from_bits(self.v.bits)
    }
}

impl Iterator for Xor2Iter<'_> {
    type Item = Result<(i64, i64, f64), ChunkError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.samples {
            return None;
        }
        let i = self.next;
        let read = self.read(i);
        self.next += 1;
        if read.is_err() || self.r.overrun() {
            self.next = self.samples;
            let done = read.map(|_| ());
            return check(&self.r, done, Encoding::Xor2, self.len, i).err().map(Err);
        }
        read.ok().map(|v| Ok((self.start_ts.last(), self.t, v)))
    }
}

/// Appends the samples inside `range` to `out`; on an error `out` is as before.
pub(crate) fn decode_into(data: &[u8], range: TimeRange, out: &mut SampleColumns) -> Result<(), ChunkError> {
    let before = out.len();
    let mut it = Xor2Iter::new(data)?;
    // A sample takes a bit at least.
    out.reserve(it.samples.min(2 + data.len() * 8));
    for sample in &mut it {
        match sample {
            Ok((_, t, _)) if t < range.mint => {}
            Ok((_, t, _)) if t > range.maxt => break,
            Ok((st, t, v)) => {
                out.push_float(t, v);
                if st != 0 {
                    out.set_last_start_ts(st);
                }
            }
            Err(err) => {
                out.truncate(before);
                return Err(err);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
