//! A chunk of any encoding.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chronolith_model::{FloatHistogram, SampleValue, TimeRange};

use crate::histogram::{FloatHistogramIter, HistogramIter, ST_SAMPLES_MAX};
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
    /// Integer native histograms with start timestamps; experimental upstream, the layout is that of Prometheus 3.14.0.
    HistogramSt = 5,
    /// Float native histograms with start timestamps; experimental upstream as well.
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

    /// Number of samples of a chunk with this encoding and data, from its header.
    pub fn sample_count(self, data: &[u8]) -> Result<usize, ChunkError> {
        match (self, data.first_chunk::<2>()) {
            (Encoding::HistogramSt | Encoding::FloatHistogramSt, Some(head)) => {
                Ok(usize::from(u16::from_be_bytes(*head) & ST_SAMPLES_MAX))
            }
            (Encoding::Aggregate, _) => Err(unsupported(self)),
            (_, Some(head)) => Ok(usize::from(u16::from_be_bytes(*head))),
            (encoding, None) => Err(ChunkError::Truncated { encoding, len: data.len(), sample: 0 }),
        }
    }

    /// True when samples can have start timestamps.
    pub const fn has_start_ts(self) -> bool {
        matches!(self, Encoding::Xor2 | Encoding::HistogramSt | Encoding::FloatHistogramSt)
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
        self.encoding.sample_count(&self.data)
    }

    /// Appends the samples inside `range` to `out`. On an error `out` is as before.
    pub fn decode_into(&self, range: TimeRange, out: &mut SampleColumns) -> Result<(), ChunkError> {
        match self.encoding {
            Encoding::Xor => crate::xor::decode_into(&self.data, range, out),
            Encoding::Xor2 => crate::xor2::decode_into(&self.data, range, out),
            Encoding::Histogram | Encoding::HistogramSt => {
                let mut it = HistogramIter::new(&self.data, self.encoding)?;
                decode_histograms(range, out, move || {
                    Ok(it
                        .advance()?
                        .map(|t| (t, range.contains(t).then(|| (it.start_ts(), it.float_histogram())))))
                })
            }
            Encoding::FloatHistogram | Encoding::FloatHistogramSt => {
                let mut it = FloatHistogramIter::new(&self.data, self.encoding)?;
                decode_histograms(range, out, move || {
                    Ok(it.advance()?.map(|t| (t, range.contains(t).then(|| (it.start_ts(), it.histogram())))))
                })
            }
            Encoding::Aggregate => Err(unsupported(self.encoding)),
        }
    }

    /// All samples in order.
    pub fn iter(&self) -> Result<ChunkIter<'_>, ChunkError> {
        Ok(ChunkIter(match self.encoding {
            Encoding::Xor => Inner::Xor(XorIter::new(&self.data)?),
            Encoding::Xor2 => Inner::Xor2(Xor2Iter::new(&self.data)?),
            Encoding::Histogram | Encoding::HistogramSt => {
                Inner::Histogram(Box::new(HistogramIter::new(&self.data, self.encoding)?))
            }
            Encoding::FloatHistogram | Encoding::FloatHistogramSt => {
                Inner::FloatHistogram(Box::new(FloatHistogramIter::new(&self.data, self.encoding)?))
            }
            Encoding::Aggregate => return Err(unsupported(self.encoding)),
        }))
    }
}

/// Appends what `next` yields; it makes start timestamp and histogram only for times inside the range.
fn decode_histograms(
    range: TimeRange,
    out: &mut SampleColumns,
    mut next: impl FnMut() -> Result<Option<(i64, Option<(i64, FloatHistogram)>)>, ChunkError>,
) -> Result<(), ChunkError> {
    let before = out.len();
    let had_histograms = out.has_histograms();
    loop {
        match next() {
            Ok(Some((t, Some((st, h))))) => {
                out.push_histogram(t, Arc::new(h));
                if st != 0 {
                    out.set_last_start_ts(st);
                }
            }
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
    let reason = "it has five sub-chunks, of which one must be chosen";
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

impl ChunkIter<'_> {
    /// Start timestamp of the sample that came last; 0 when it has none.
    pub fn start_ts(&self) -> i64 {
        match &self.0 {
            Inner::Xor(_) => 0,
            Inner::Xor2(it) => it.start_ts(),
            Inner::Histogram(it) => it.start_ts(),
            Inner::FloatHistogram(it) => it.start_ts(),
        }
    }
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
