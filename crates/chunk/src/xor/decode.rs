//! Whole chunks into columns, at a handful of nanoseconds a sample.
//!
//! What a mispredicted branch costs is more than a sample otherwise takes, and whether a value stands still, fits the
//! last window or brings a new one is anybody's guess. So values are read without a branch: all three readings are
//! computed and one is chosen. Whether the distance of times changed is a branch, as it is nearly always the same one:
//! then the processor need not wait for the bits of the time to know where the value begins.
//!
//! Reads go past a sample's end, so that the last bytes of a chunk are read from a padded copy. Whatever is found to be
//! wrong is left to the reader of single samples, which says what it is and where.

use chronolith_model::TimeRange;

use super::{Cursor, XorIter, count};
use crate::{ChunkError, Encoding, SampleColumns};

/// No sample takes so many bytes, the eight and one more of the last load included: 4 + 64 bits of time, 13 + 64 of value.
const REACH: usize = 32;

/// Appends the samples inside `range` to `out`; on an error `out` is as before.
pub(crate) fn decode_into(data: &[u8], range: TimeRange, out: &mut SampleColumns) -> Result<(), ChunkError> {
    let samples = count(data, Encoding::Xor)?;
    let before = out.len();
    // A sample after the second takes two bits at least, so that a forged count reserves no more than the data's worth.
    let room = samples.min(2 + data.len() * 4);
    out.ts.resize(before + room, 0);
    out.values.resize(before + room, 0.0);
    let mut columns =
        Columns { ts: &mut out.ts[before..], values: &mut out.values[before..], n: 0, range, ended: false };
    let decoded = fill(data, samples, &mut columns);
    let n = if decoded.is_ok() { columns.n } else { 0 };
    out.ts.truncate(before + n);
    out.values.truncate(before + n);
    if !out.histograms.is_empty() {
        out.histograms.resize(before + n, None);
    }
    if !out.start_ts.is_empty() {
        out.start_ts.resize(before + n, 0);
    }
    decoded
}

/// Where samples go.
struct Columns<'a> {
    ts: &'a mut [i64],
    values: &'a mut [f64],
    n: usize,
    range: TimeRange,
    /// A sample was after the range.
    ended: bool,
}

impl Columns<'_> {
    /// Takes a sample. False when no more are wanted, or when there is no room.
    #[inline(always)]
    fn push(&mut self, t: i64, bits: u64) -> bool {
        if t > self.range.maxt {
            self.ended = true;
            return false;
        }
        let (Some(to_t), Some(to_v)) = (self.ts.get_mut(self.n), self.values.get_mut(self.n)) else {
            return false;
        };
        *to_t = t;
        *to_v = f64::from_bits(bits);
        self.n += usize::from(t >= self.range.mint);
        true
    }
}

fn fill(data: &[u8], samples: usize, out: &mut Columns<'_>) -> Result<(), ChunkError> {
    let mut head = Cursor::new(data);
    for i in 0..samples.min(2) {
        if head.head(i).is_err() || head.r.overrun() {
            return Err(what_is_wrong(data));
        }
        if !out.push(head.t, head.v.bits) {
            return if out.ended { Ok(()) } else { Err(what_is_wrong(data)) };
        }
    }
    let mut c = State {
        at: head.r.position(),
        t: head.t,
        t_delta: head.t_delta,
        bits: head.v.bits,
        // With the leading zeros, 64 bits always.
        last: 63 - head.v.leading - head.v.trailing,
        trailing: head.v.trailing,
        left: samples.saturating_sub(2),
        bad: false,
    };
    c.run(data, (data.len() * 8).saturating_sub(REACH * 8), out);
    if c.left > 0 && !c.bad && !out.ended {
        let from = (c.at / 8).min(data.len());
        let rest = &data[from..];
        let mut tail = [0; 2 * REACH + 8];
        // The rest is longer only where the columns are full.
        let len = rest.len().min(REACH + 1);
        tail[..len].copy_from_slice(&rest[..len]);
        c.at -= from * 8;
        c.run(&tail, len * 8, out);
        c.bad |= c.at > len * 8;
    }
    if c.bad || (c.left > 0 && !out.ended) {
        return Err(what_is_wrong(data));
    }
    Ok(())
}

/// The error of the first sample that cannot be read.
#[cold]
fn what_is_wrong(data: &[u8]) -> ChunkError {
    let found = XorIter::new(data).map(|samples| samples.filter_map(Result::err).next());
    found.unwrap_or_else(Some).unwrap_or(ChunkError::Truncated {
        encoding: Encoding::Xor,
        len: data.len(),
        sample: 0,
    })
}

/// Where reading is.
struct State {
    /// Position in bits.
    at: usize,
    t: i64,
    t_delta: i64,
    bits: u64,
    /// Significant bits of the value's window, less one.
    last: u32,
    trailing: u32,
    left: usize,
    /// A window does not fit 64 bits.
    bad: bool,
}

/// The next bits at a position, left-aligned; at least the first 57 are valid.
#[inline(always)]
fn window(data: &[u8], at: usize) -> u64 {
    let byte = at >> 3;
    let word = data.get(byte..byte + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    word << (at & 7)
}

/// All of the next 64 bits at a position.
#[inline(always)]
fn full_window(data: &[u8], at: usize) -> u64 {
    let byte = at >> 3;
    let Some(bytes) = data.get(byte..byte + 9) else { return 0 };
    let word: [u8; 8] = std::array::from_fn(|i| bytes[i]);
    u64::from_be_bytes(word) << (at & 7) | u64::from(bytes[8]) >> (8 - (at & 7))
}

impl State {
    /// Reads samples that begin at or before `limit`.
    #[inline(always)]
    fn run(&mut self, data: &[u8], limit: usize, out: &mut Columns<'_>) {
        let State { mut at, mut t, mut t_delta, mut bits, mut last, mut trailing, mut left, mut bad } = *self;
        while left > 0 && at <= limit {
            let mut head = window(data, at);
            if head >> 63 == 0 {
                head <<= 1;
                at += 1;
            } else {
                let ones = head.leading_ones();
                if ones < 4 {
                    // 14, 17 or 20 bits behind the prefix, in the range −(2^(n−1)−1) … 2^(n−1).
                    let n = 11 + 3 * ones;
                    let v = ((head << (ones + 1)) >> (64 - n)) as i64;
                    t_delta = t_delta.wrapping_add(v - (i64::from(v > 1 << (n - 1)) << n));
                    let used = 12 + 4 * ones;
                    head <<= used;
                    at += used as usize;
                } else {
                    t_delta = t_delta.wrapping_add(full_window(data, at + 4) as i64);
                    at += 68;
                    head = window(data, at);
                }
            }
            t = t.wrapping_add(t_delta);
            let changed = head >> 63;
            let fresh = head >> 62 == 0b11;
            let leading = (head >> 57) as u32 & 31;
            // 64 is written as 0.
            let fresh_last = ((head >> 51) as u32).wrapping_sub(1) & 63;
            bad |= fresh && leading + fresh_last > 63;
            let fresh_trailing = 63u32.wrapping_sub(leading + fresh_last) & 63;
            last = if fresh { fresh_last } else { last };
            trailing = if fresh { fresh_trailing } else { trailing };
            at += 1 + changed as usize + if fresh { 11 } else { 0 };
            let payload = full_window(data, at) >> (63 - last);
            let mask = changed.wrapping_neg();
            bits ^= (payload << trailing) & mask;
            at += (last as usize + 1) & mask as usize;
            if bad || !out.push(t, bits) {
                break;
            }
            left -= 1;
        }
        *self = State { at, t, t_delta, bits, last, trailing, left, bad };
    }
}
