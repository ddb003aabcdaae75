//! A chunk of any encoding.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::{FloatHistogram, SampleValue, TimeRange};

use crate::histogram::{FloatHistogramIter, HistogramIter};
use crate::xor::XorIter;
use crate::xor2::Xor2Iter;
use crate::{ChunkError, SampleColumns};

/// How a chunk's data is laid out; the numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Floats, Gorilla-like.
    Xor = 1,
    /// Integer native histograms.
    Histogram = 2,
    /// Float native histograms.
    FloatHistogram = 3,
    /// Floats with start timestamps and cheap stale markers.
    Xor2 = 4,
    /// Integer native histograms with start timestamps; upstream's layout is not settled.
    HistogramSt = 5,
    /// Float native histograms with start timestamps; upstream's layout is not settled.
    FloatHistogramSt = 6,
    /// Thanos's five aggregates of downsampled data, see [`crate::AggrChunk`].
    Aggregate = 255,
}

impl Encoding {
    /// The byte on disk.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// True when the samples are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, Encoding::Xor | Encoding::Xor2)
    }
}

impl TryFrom<u8> for Encoding {
    type Error = ChunkError;

    fn try_from(byte: u8) -> Result<Self, ChunkError> {
        Ok(match byte {
            1 => Encoding::Xor,
            2 => Encoding::Histogram,
            3 => Encoding::FloatHistogram,
            4 => Encoding::Xor2,
            5 => Encoding::HistogramSt,
            6 => Encoding::FloatHistogramSt,
            255 => Encoding::Aggregate,
            other => return Err(ChunkError::UnknownEncoding(other)),
        })
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Encoding::Xor => "XOR",
            Encoding::Histogram => "histogram",
            Encoding::FloatHistogram => "floathistogram",
            Encoding::Xor2 => "XOR2",
            Encoding::HistogramSt => "histogramST",
            Encoding::FloatHistogramSt => "floathistogramST",
            Encoding::Aggregate => "aggregate",
        })
    }
}

/// Encoded samples of one series, and the time they cover.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// First timestamp.
    pub mint: i64,
    /// Last timestamp, included.
    pub maxt: i64,
    /// Layout of `data`.
    pub encoding: Encoding,
    /// The chunk's bytes without length, encoding and checksum.
    pub data: Bytes,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk[{}, {}]({}, {} bytes)", self.mint, self.maxt, self.encoding, self.data.len())
    }
}

impl Chunk {
    /// The closed range of the chunk's samples.
    pub fn time_range(&self) -> TimeRange {
        TimeRange::new(self.mint, self.maxt)
    }

    /// Number of samples, from the chunk's own header.
    pub fn sample_count(&self) -> Result<usize, ChunkError> {
        match (self.encoding, self.data.first_chunk::<2>()) {
            (Encoding::HistogramSt | Encoding::FloatHistogramSt, Some(head)) => {
                Ok(usize::from(u16::from_be_bytes(*head) & 0x3fff))
            }
            (Encoding::Aggregate, _) => Err(unsupported(self.encoding)),
            (_, Some(head)) => Ok(usize::from(u16::from_be_bytes(*head))),
            (encoding, None) => Err(ChunkError::Truncated { encoding, len: self.data.len(), sample: 0 }),
        }
    }

    /// Appends the samples inside `range` to `out`. On an error `out` is as before.
    pub fn decode_into(&self, range: TimeRange, out: &mut SampleColumns) -> Result<(), ChunkError> {
        match self.encoding {
            Encoding::Xor => crate::xor::decode_into(&self.data, range, out),
            Encoding::Xor2 => crate::xor2::decode_into(&self.data, range, out),
            Encoding::Histogram => {
                let mut it = HistogramIter::new(&self.data)?;
                decode_histograms(range, out, move || {
                    Ok(it.advance()?.map(|t| (t, range.contains(t).then(|| it.float_histogram()))))
                })
            }
            Encoding::FloatHistogram => {
                let mut it = FloatHistogramIter::new(&self.data)?;
                decode_histograms(range, out, move || {
                    Ok(it.advance()?.map(|t| (t, range.contains(t).then(|| it.histogram()))))
                })
            }
            other => Err(unsupported(other)),
        }
    }

    /// All samples in order.
    pub fn iter(&self) -> Result<ChunkIter<'_>, ChunkError> {
        Ok(ChunkIter(match self.encoding {
            Encoding::Xor => Inner::Xor(XorIter::new(&self.data)?),
            Encoding::Xor2 => Inner::Xor2(Xor2Iter::new(&self.data)?),
            Encoding::Histogram => Inner::Histogram(Box::new(HistogramIter::new(&self.data)?)),
            Encoding::FloatHistogram => Inner::FloatHistogram(Box::new(FloatHistogramIter::new(&self.data)?)),
            other => return Err(unsupported(other)),
        }))
    }
}

/// Appends what `next` yields; it makes a histogram only for times inside the range.
fn decode_histograms(
    range: TimeRange,
    out: &mut SampleColumns,
    mut next: impl FnMut() -> Result<Option<(i64, Option<FloatHistogram>)>, ChunkError>,
) -> Result<(), ChunkError> {
    let before = out.len();
    let had_histograms = out.has_histograms();
    loop {
        match next() {
            Ok(Some((t, Some(h)))) => out.push_histogram(t, Arc::new(h)),
            Ok(Some((t, None))) if t <= range.maxt => {}
            Ok(_) => return Ok(()),
            Err(err) => {
                out.truncate(before);
                if !had_histograms {
                    out.histograms.clear();
                }
                return Err(err);
            }
        }
    }
}

fn unsupported(encoding: Encoding) -> ChunkError {
    let reason = match encoding {
        Encoding::Aggregate => "it has five sub-chunks, of which one must be chosen",
        _ => "its layout is experimental upstream and may change",
    };
    ChunkError::Unsupported { encoding, reason }
}

/// The samples of a chunk, one by one. After an error it ends.
#[derive(Debug)]
pub struct ChunkIter<'a>(Inner<'a>);

#[derive(Debug)]
enum Inner<'a> {
    Xor(XorIter<'a>),
    Xor2(Xor2Iter<'a>),
    Histogram(Box<HistogramIter<'a>>),
    FloatHistogram(Box<FloatHistogramIter<'a>>),
}

impl Iterator for ChunkIter<'_> {
    type Item = Result<(i64, SampleValue), ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Inner::Xor(it) => it.next().map(|s| s.map(|(t, v)| (t, SampleValue::Float(v)))),
            Inner::Xor2(it) => it.next().map(|s| s.map(|(_, t, v)| (t, SampleValue::Float(v)))),
            Inner::Histogram(it) => {
                let t = it.advance().transpose()?;
                Some(t.map(|t| (t, SampleValue::Histogram(Arc::new(it.histogram())))))
            }
            Inner::FloatHistogram(it) => {
                let t = it.advance().transpose()?;
                Some(t.map(|t| (t, SampleValue::FloatHistogram(Arc::new(it.histogram())))))
            }
        }
    }
}
