//! Start timestamps behind the samples of a chunk: XOR2 and the histogram encodings 5 and 6.
//!
//! ```text
//! header   bit 7: sample 0 has one; bits 6-0: first later sample with data, 0 for none
//! data     sample 0: varint t[0]-st[0]; later: varbit_int t[i-1]-st[i], from the second one on its change
//! ```
//!
//! A sample without data has the start timestamp of sample 0, or none.

use crate::bits::{BitReader, BitTail, WordSink};
use crate::varbit::{put_varbit_int, take_varbit_int};
use crate::varint::{put_varint, take_varint};
use crate::xor::Stumble;

/// The largest sample index that the header can name; that sample carries data in any case.
const CHANGE_MAX: u16 = 127;
const FIRST_KNOWN: u8 = 0x80;

/// Writes the start timestamps of a chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct StartTsWriter {
    header: u8,
    st: i64,
    /// `t[i-1] - st[i]` of the last sample.
    diff: i64,
}

impl StartTsWriter {
    /// The header byte, as of now.
    pub(crate) fn header(&self) -> u8 {
        self.header
    }

    /// Writes the data of sample 0 at `t`; 0 means unknown.
    pub(crate) fn put_first(&mut self, tail: &mut BitTail, sink: &mut impl WordSink, t: i64, st: i64) {
        if st != 0 {
            put_varint(tail, sink, t.wrapping_sub(st));
            self.header |= FIRST_KNOWN;
        }
        self.st = st;
    }

    /// Writes the data of sample `i`, above 0; `before` is the time of the sample in front of it.
    pub(crate) fn put_later(
        &mut self,
        tail: &mut BitTail,
        sink: &mut impl WordSink,
        i: u16,
        before: i64,
        st: i64,
    ) {
        let diff = before.wrapping_sub(st);
        if self.header & !FIRST_KNOWN != 0 {
            put_varbit_int(tail, sink, diff.wrapping_sub(self.diff));
        } else if st != self.st || i == CHANGE_MAX {
            self.header |= i as u8;
            put_varbit_int(tail, sink, diff);
        } else {
            return;
        }
        (self.st, self.diff) = (st, diff);
    }
}

/// Reads the start timestamps of a chunk.
#[derive(Clone, Debug)]
pub(crate) struct StartTsReader {
    header: u8,
    st: i64,
    diff: i64,
}

impl StartTsReader {
    /// A header of 0 says that there are none.
    pub(crate) fn new(header: u8) -> Self {
        StartTsReader { header, st: 0, diff: 0 }
    }

    /// The start timestamp of the last sample, 0 when unknown.
    #[inline(always)]
    pub(crate) fn last(&self) -> i64 {
        self.st
    }

    /// Reads the data of sample 0 at `t`.
    pub(crate) fn take_first(&mut self, r: &mut BitReader<'_>, t: i64) -> Result<(), Stumble> {
        if self.header & FIRST_KNOWN != 0 {
            let diff = take_varint(r).ok_or("start timestamp does not fit 64 bits")?;
            self.st = t.wrapping_sub(diff);
        }
        Ok(())
    }

    /// Reads the data of sample `i`, nothing for 0; `before` is the time of the sample in front of it.
    #[inline(always)]
    pub(crate) fn take_later(&mut self, r: &mut BitReader<'_>, i: usize, before: i64) {
        let change = usize::from(self.header & !FIRST_KNOWN);
        if change > 0 && i >= change {
            let data = take_varbit_int(r);
            self.diff = if i == change { data } else { self.diff.wrapping_add(data) };
            self.st = before.wrapping_sub(self.diff);
        }
    }
}
