//! From samples to chunks.

use crate::{Chunk, ChunkError, FloatHistogramEncoder, SampleColumns, XorEncoder};

/// What Prometheus aims at: 30 minutes of samples at 15 s.
pub const SAMPLES_PER_CHUNK: usize = 120;

/// A histogram chunk of this size ends, once it has [`HISTOGRAMS_MIN`] samples; Prometheus's figure for merged chunks.
const HISTOGRAM_BYTES: usize = 1024;
/// Fewer samples would not pay for the layout in front of them.
const HISTOGRAMS_MIN: usize = 10;

/// Encodes floats into XOR chunks of [`SAMPLES_PER_CHUNK`] samples. The columns must be equally long.
pub fn encode_floats(ts: &[i64], values: &[f64]) -> Vec<Chunk> {
    assert_eq!(ts.len(), values.len(), "columns of one series");
    let chunks = ts.chunks(SAMPLES_PER_CHUNK).zip(values.chunks(SAMPLES_PER_CHUNK));
    chunks
        .map(|(ts, values)| {
            let mut encoder = XorEncoder::new();
            for (&t, &v) in ts.iter().zip(values) {
                encoder.append(t, v);
            }
            encoder.finish_chunk(ts[0], ts[ts.len() - 1])
        })
        .collect()
}

/// Encodes samples of any kind: floats as [`encode_floats`], histograms as float histogram chunks. Start timestamps
/// are not kept.
pub fn encode_columns(samples: &SampleColumns) -> Result<Vec<Chunk>, ChunkError> {
    let mut out = Vec::new();
    let mut from = 0;
    while from < samples.len() {
        let histograms = samples.histogram(from).is_some();
        let run = (from..samples.len()).take_while(|i| samples.histogram(*i).is_some() == histograms).count();
        let to = from + run;
        if histograms {
            encode_histograms(samples, from, to, &mut out)?;
        } else {
            out.extend(encode_floats(&samples.ts[from..to], &samples.values[from..to]));
        }
        from = to;
    }
    Ok(out)
}

fn encode_histograms(
    samples: &SampleColumns,
    from: usize,
    to: usize,
    out: &mut Vec<Chunk>,
) -> Result<(), ChunkError> {
    let mut open: Option<(i64, FloatHistogramEncoder)> = None;
    for i in from..to {
        let (t, Some(h)) = (samples.ts[i], samples.histogram(i)) else { continue };
        let next = match &mut open {
            None => Some(FloatHistogramEncoder::first(None, t, h)?),
            Some((_, e)) if e.bytes_len() > HISTOGRAM_BYTES && e.sample_count() > HISTOGRAMS_MIN => {
                Some(FloatHistogramEncoder::first(Some(e), t, h)?)
            }
            Some((_, e)) => e.append(t, h)?,
        };
        if let Some(next) = next
            && let Some((mint, full)) = open.replace((t, next))
        {
            let maxt = full.last_t();
            out.push(full.finish_chunk(mint, maxt));
        }
    }
    out.extend(open.map(|(mint, last)| {
        let maxt = last.last_t();
        last.finish_chunk(mint, maxt)
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use chronolith_model::TimeRange;

    use super::*;

    #[test]
    fn floats_are_cut_after_120() {
        let ts: Vec<i64> = (0..250).map(|i| i * 15_000).collect();
        let values: Vec<f64> = (0..250).map(f64::from).collect();
        let chunks = encode_floats(&ts, &values);
        let counts: Vec<_> = chunks.iter().map(|c| c.sample_count().unwrap()).collect();
        assert_eq!(counts, [120, 120, 10]);
        let mut out = SampleColumns::default();
        for c in &chunks {
            c.decode_into(TimeRange::ALL, &mut out).unwrap();
        }
        assert_eq!((out.ts, out.values), (ts, values));
    }
}
