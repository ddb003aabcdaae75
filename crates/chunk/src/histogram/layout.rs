//! The bucket layout at the start of a histogram chunk.

use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};

use super::is_known_schema;
use crate::bits::{BitReader, BitWriter};
use crate::varbit::{take_varbit_int, take_varbit_uint};
use crate::xor::Stumble;

/// Exponents that the one-byte form of the zero threshold holds, 2^−243 to 2^10, and what is added to them.
const ZERO_EXP_MIN: i32 = -243;
const ZERO_EXP_MAX: i32 = 10;
const ZERO_EXP_BIAS: i32 = 244;
/// The zero threshold follows as eight bytes.
const ZERO_AS_FLOAT: u64 = 255;
/// Largest custom bound, in thousandths, that is written as a number.
const BOUND_MAX: f64 = 33_554_430.0;
/// Spans, buckets and bounds that decoding one chunk may hand out over all its samples, whatever its size. A sample
/// costs its whole layout in memory but may cost only a few bits in the chunk, so the bytes alone are no bound.
const ITEMS_MAX: usize = 1 << 22;
/// The same for large chunks: items for each byte.
const ITEMS_PER_BYTE: usize = 64;

/// What all histograms of a chunk share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramLayout {
    /// Resolution, as in [`chronolith_model::Histogram`].
    pub schema: i32,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Runs of positive, and of negative buckets.
    pub spans: [Vec<Span>; 2],
    /// Upper bounds, of custom buckets only.
    pub custom_values: Vec<f64>,
}

impl HistogramLayout {
    pub(super) fn write(&self, w: &mut BitWriter) {
        write_zero_threshold(w, self.zero_threshold);
        w.put_varbit_int(i64::from(self.schema));
        for spans in &self.spans {
            w.put_varbit_uint(spans.len() as u64);
            for s in spans {
                w.put_varbit_uint(u64::from(s.length));
                w.put_varbit_int(i64::from(s.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            w.put_varbit_uint(self.custom_values.len() as u64);
            for bound in &self.custom_values {
                write_bound(w, *bound);
            }
        }
    }

    /// Reads a layout for `samples` histograms; an overrun of the reader is the caller's to notice.
    pub(super) fn read(r: &mut BitReader<'_>, samples: usize) -> Result<HistogramLayout, Stumble> {
        let budget = ITEMS_MAX.max(r.remaining() / 8 * ITEMS_PER_BYTE);
        let zero_threshold = read_zero_threshold(r);
        let schema = take_varbit_int(r);
        if !is_known_schema(schema) && !r.overrun() {
            return Err("unknown histogram schema");
        }
        let mut layout = HistogramLayout {
            schema: schema as i32,
            zero_threshold,
            spans: [read_spans(r)?, read_spans(r)?],
            ..HistogramLayout::default()
        };
        if layout.schema == CUSTOM_BUCKETS_SCHEMA {
            for _ in 0..take_varbit_uint(r) {
                if r.overrun() {
                    break;
                }
                layout.custom_values.push(read_bound(r));
            }
        }
        let buckets = layout.bucket_count(0) + layout.bucket_count(1);
        // A bucket takes a bit of the first sample at least.
        if buckets > r.remaining() as u64 {
            return Err("spans need more buckets than there is data");
        }
        let items =
            layout.spans[0].len() + layout.spans[1].len() + layout.custom_values.len() + buckets as usize;
        if items.saturating_mul(samples) > budget {
            return Err("layout is out of proportion to the data");
        }
        Ok(layout)
    }

    /// Buckets of a side: 0 is the positive one.
    pub fn bucket_count(&self, side: usize) -> u64 {
        self.spans[side].iter().map(|s| u64::from(s.length)).sum()
    }
}

fn read_spans(r: &mut BitReader<'_>) -> Result<Vec<Span>, Stumble> {
    let mut spans = Vec::new();
    for i in 0..take_varbit_uint(r) {
        let length = take_varbit_uint(r);
        let offset = take_varbit_int(r);
        if r.overrun() {
            break;
        }
        let (Ok(length), Ok(offset)) = (u32::try_from(length), i32::try_from(offset)) else {
            return Err("span does not fit 32 bits");
        };
        if i > 0 && offset < 0 {
            return Err("span goes back");
        }
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

fn write_zero_threshold(w: &mut BitWriter, threshold: f64) {
    let bits = threshold.to_bits();
    let exp = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let power_of_two = bits >> 63 == 0 && bits << 12 == 0;
    if threshold == 0.0 {
        w.put(0, 8);
    } else if power_of_two && (ZERO_EXP_MIN..=ZERO_EXP_MAX).contains(&exp) {
        w.put((exp + ZERO_EXP_BIAS) as u64, 8);
    } else {
        w.put(ZERO_AS_FLOAT, 8);
        w.put_f64(threshold);
    }
}

fn read_zero_threshold(r: &mut BitReader<'_>) -> f64 {
    match r.take(8) {
        0 => 0.0,
        ZERO_AS_FLOAT => r.take_f64(),
        exp => f64::from_bits(((exp as i64 - i64::from(ZERO_EXP_BIAS) + 1023) as u64) << 52),
    }
}

fn write_bound(w: &mut BitWriter, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    // -0.0 passes as 0, as it does upstream.
    if bound * 1000.0 >= 0.0 && bound * 1000.0 <= BOUND_MAX && thousandths / 1000.0 == bound {
        w.put_varbit_uint(thousandths as u64 + 1);
    } else {
        w.put(0, 1);
        w.put_f64(bound);
    }
}

fn read_bound(r: &mut BitReader<'_>) -> f64 {
    match take_varbit_uint(r) {
        0 => r.take_f64(),
        v => (v - 1) as f64 / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_and_bounds_come_back() {
        for (threshold, bytes) in [
            (0.0, 1),
            (2f64.powi(-128), 1),
            (2f64.powi(-243), 1),
            (2f64.powi(10), 1),
            (2f64.powi(-244), 9),
            (2f64.powi(11), 9),
            (0.001, 9),
        ] {
            let mut w = BitWriter::default();
            write_zero_threshold(&mut w, threshold);
            assert_eq!(w.bytes_len(), bytes, "{threshold}");
            assert_eq!(read_zero_threshold(&mut BitReader::new(&w.to_vec())), threshold);
        }
        let bounds = [0.0, 0.005, 1.0, 33_554.43, 33_554.431, -1.0, 0.0001, 1e300];
        let mut w = BitWriter::default();
        bounds.iter().for_each(|b| write_bound(&mut w, *b));
        let bytes = w.to_vec();
        let mut r = BitReader::new(&bytes);
        assert_eq!(bounds.map(|_| read_bound(&mut r)), bounds);
    }
}
