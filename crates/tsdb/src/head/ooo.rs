//! Samples that came out of order, inside the window: chunks of their own, merged by whoever reads.

use chronolith_chunk::{Chunk, Encoding, encode_floats};
use chronolith_model::{SampleValue, TimeRange, WriteHistogram};

use super::histogram::{is_same, to_value};
use crate::block::{AnySample, decode_samples, encode_samples};

/// Samples that are kept sorted before they become a chunk; Prometheus's default.
const OPEN_MAX: usize = 32;

/// A float sample out of order. A start timestamp of 0 is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LateFloat {
    pub(crate) t: i64,
    pub(crate) v: f64,
    pub(crate) start_ts: i64,
}

/// A histogram sample out of order. A start timestamp of 0 is none.
#[derive(Clone, Debug)]
pub(crate) struct LateHistogram {
    pub(crate) t: i64,
    pub(crate) start_ts: i64,
    pub(crate) histogram: WriteHistogram,
}

/// One series' samples out of order.
#[derive(Default)]
pub(crate) struct OutOfOrder {
    /// The newest arrivals, sorted by time.
    pub(crate) open: Vec<LateFloat>,
    /// The newest arrivals among the histograms, sorted by time.
    pub(crate) histograms: Vec<LateHistogram>,
    /// Encoded, in the order of arrival; they may overlap.
    pub(crate) closed: Vec<Chunk>,
}

/// What became of a sample.
pub(crate) enum Insert {
    Taken,
    Duplicate,
    Conflict,
}

impl OutOfOrder {
    pub(crate) fn insert(&mut self, t: i64, v: f64, start_ts: i64) -> Insert {
        match self.open.binary_search_by_key(&t, |s| s.t) {
            Ok(i) if self.open[i].v.to_bits() == v.to_bits() => return Insert::Duplicate,
            Ok(_) => return Insert::Conflict,
            Err(_) if self.histograms.binary_search_by_key(&t, |s| s.t).is_ok() => return Insert::Conflict,
            Err(i) => self.open.insert(i, LateFloat { t, v, start_ts }),
        }
        if self.open.len() >= OPEN_MAX {
            self.close();
        }
        Insert::Taken
    }

    pub(crate) fn insert_histogram(&mut self, t: i64, histogram: WriteHistogram, start_ts: i64) -> Insert {
        match self.histograms.binary_search_by_key(&t, |s| s.t) {
            Ok(i) if is_same(&to_value(&self.histograms[i].histogram), &histogram) => {
                return Insert::Duplicate;
            }
            Ok(_) => return Insert::Conflict,
            Err(_) if self.open.binary_search_by_key(&t, |s| s.t).is_ok() => return Insert::Conflict,
            Err(i) => self.histograms.insert(i, LateHistogram { t, start_ts, histogram }),
        }
        if self.histograms.len() >= OPEN_MAX {
            self.close();
        }
        Insert::Taken
    }

    /// Encodes what is open.
    pub(crate) fn close(&mut self) {
        let samples = std::mem::take(&mut self.open);
        self.closed.extend(encode(&samples));
        let histograms = std::mem::take(&mut self.histograms);
        self.closed.extend(encode_histograms(&histograms));
    }

    /// All chunks as they are now.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Chunk> {
        self.closed.iter().cloned().chain(encode(&self.open)).chain(encode_histograms(&self.histograms))
    }

    /// Drops the samples before `mint` of the first `count` closed chunks.
    pub(crate) fn truncate(&mut self, mint: i64, count: usize) {
        let mut kept = Vec::new();
        for (i, chunk) in self.closed.drain(..).enumerate() {
            if i >= count || chunk.mint >= mint {
                kept.push(chunk);
            } else if chunk.maxt >= mint {
                let mut samples = values(&chunk);
                samples.retain(|s| s.t >= mint);
                kept.extend(encode_any(&samples));
            }
        }
        self.closed = kept;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.histograms.is_empty() && self.closed.is_empty()
    }

    /// Chunks, what is open counting as one of each kind.
    pub(crate) fn chunk_count(&self) -> usize {
        self.closed.len() + usize::from(!self.open.is_empty()) + usize::from(!self.histograms.is_empty())
    }

    /// No more samples than this.
    pub(crate) fn samples_max(&self) -> usize {
        self.closed.len() * OPEN_MAX + self.open.len() + self.histograms.len()
    }

    /// Bytes that it holds, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(|c| size_of::<Chunk>() + c.data.len()).sum();
        size_of::<Self>()
            + closed
            + self.open.capacity() * size_of::<LateFloat>()
            + self.histograms.capacity() * size_of::<LateHistogram>()
    }

    /// True when a sample at `t` with this value is there.
    pub(crate) fn contains(&self, t: i64, v: f64) -> bool {
        let same = |at: i64, value: f64| at == t && value.to_bits() == v.to_bits();
        self.open.iter().any(|s| same(s.t, s.v))
            || self.closed.iter().any(|c| c.mint <= t && t <= c.maxt && floats(c).any(|s| same(s.0, s.1)))
    }

    /// True when this histogram is there.
    pub(crate) fn contains_histogram(&self, t: i64, h: &WriteHistogram) -> bool {
        self.histograms.iter().any(|s| s.t == t && is_same(&to_value(&s.histogram), h))
            || self.closed.iter().any(|c| holds_histogram(c, t, h))
    }
}

/// True when a chunk holds this histogram.
pub(crate) fn holds_histogram(chunk: &Chunk, t: i64, h: &WriteHistogram) -> bool {
    !chunk.encoding.is_float()
        && chunk.mint <= t
        && t <= chunk.maxt
        && values(chunk).iter().any(|s| s.t == t && is_same(&s.value, h))
}

/// The samples of a chunk that was encoded here.
fn values(chunk: &Chunk) -> Vec<AnySample> {
    let mut out = Vec::new();
    // What was encoded here can be decoded; of damage in a spilled chunk the part before it is used.
    let _ = decode_samples(chunk, &mut out);
    out
}

/// Times of the samples of a chunk that was encoded here.
pub(crate) fn times(chunk: &Chunk) -> impl Iterator<Item = i64> {
    chunk.iter().into_iter().flatten().map_while(Result::ok).map(|(t, _)| t)
}

/// The float samples of a chunk that was encoded here.
pub(crate) fn floats(chunk: &Chunk) -> impl Iterator<Item = (i64, f64)> {
    chunk.iter().into_iter().flatten().map_while(Result::ok).filter_map(|(t, v)| match v {
        SampleValue::Float(v) => Some((t, v)),
        SampleValue::Histogram(_) | SampleValue::FloatHistogram(_) => None,
    })
}

/// Merges chunks in order with chunks out of order into chunks without overlap, cut to `range`. Where both have a time,
/// the one in order stays.
pub(crate) fn merge(in_order: &[Chunk], late: &[Chunk], range: TimeRange) -> Vec<Chunk> {
    // The sorts are stable, and the samples in order come first.
    if in_order.iter().chain(late).any(|c| c.encoding != Encoding::Xor) {
        let mut samples: Vec<AnySample> = in_order.iter().chain(late).flat_map(values).collect();
        samples.retain(|s| range.contains(s.t));
        samples.sort_by_key(|s| s.t);
        samples.dedup_by_key(|s| s.t);
        return encode_any(&samples);
    }
    let all = in_order.iter().chain(late).flat_map(floats);
    let mut samples: Vec<(i64, f64)> = all.filter(|s| range.contains(s.0)).collect();
    samples.sort_by_key(|s| s.0);
    samples.dedup_by_key(|s| s.0);
    let (ts, vs): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
    encode_floats(&ts, &vs)
}

/// What was decoded, or was checked when it came, can be encoded.
fn encode_any(samples: &[AnySample]) -> Vec<Chunk> {
    encode_samples(samples).unwrap_or_default()
}

fn encode_histograms(samples: &[LateHistogram]) -> Vec<Chunk> {
    let sample =
        |s: &LateHistogram| AnySample { start_ts: s.start_ts, t: s.t, value: to_value(&s.histogram) };
    encode_any(&samples.iter().map(sample).collect::<Vec<_>>())
}

/// Floats as chunks; with start timestamps where one has one.
pub(crate) fn encode<'a>(samples: impl IntoIterator<Item = &'a LateFloat>) -> Vec<Chunk> {
    let sample = |s: &LateFloat| AnySample { start_ts: s.start_ts, t: s.t, value: SampleValue::Float(s.v) };
    let samples: Vec<AnySample> = samples.into_iter().map(sample).collect();
    if samples.is_empty() { Vec::new() } else { encode_any(&samples) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_sorted_closed_and_truncated() {
        let mut o = OutOfOrder::default();
        for i in 0..100i64 {
            assert!(matches!(o.insert((i * 37) % 100, i as f64, 0), Insert::Taken));
        }
        assert!(matches!(o.insert((99 * 37) % 100, 99.0, 0), Insert::Duplicate));
        assert!(matches!(o.insert((99 * 37) % 100, 98.0, 0), Insert::Conflict));
        assert_eq!((o.closed.len(), o.open.len()), (3, 4));
        let all = |o: &OutOfOrder| {
            let mut ts: Vec<i64> =
                o.chunks().flat_map(|c| floats(&c).map(|s| s.0).collect::<Vec<_>>()).collect();
            ts.sort_unstable();
            ts
        };
        assert_eq!(all(&o), (0..100).collect::<Vec<_>>());
        assert!(o.contains(37, 1.0) && !o.contains(37, 2.0));
        o.close();
        o.insert(5, 1.0, 0);
        o.truncate(50, 4);
        assert_eq!(all(&o), [5].into_iter().chain(50..100).collect::<Vec<_>>());
    }

    #[test]
    fn start_timestamps_stay_with_their_samples() {
        let mut o = OutOfOrder::default();
        for t in (0..80).rev() {
            let start_ts = if t % 3 == 0 { 0 } else { t - 100 };
            assert!(matches!(o.insert(t, 0.5, start_ts), Insert::Taken));
        }
        // A sample is what it was, whatever its start timestamp.
        assert!(matches!(o.insert(1, 0.5, -7), Insert::Duplicate));
        let started = |chunks: &[Chunk]| {
            let mut all: Vec<AnySample> = chunks.iter().flat_map(values).collect();
            all.sort_by_key(|s| s.t);
            all.iter().map(|s| (s.t, s.start_ts)).collect::<Vec<_>>()
        };
        let want: Vec<_> = (0..80).map(|t| (t, if t % 3 == 0 { 0 } else { t - 100 })).collect();
        let late: Vec<Chunk> = o.chunks().collect();
        assert_eq!(started(&late), want);
        let in_order = encode_floats(&[10, 85], &[1.0, 2.0]);
        let merged = merge(&in_order, &late, TimeRange::new(5, 90));
        let mut want = want[5..].to_vec();
        want[5].1 = 0;
        want.push((85, 0));
        assert_eq!(started(&merged), want);
        o.truncate(50, 2);
        assert_eq!(started(&o.closed).first(), Some(&(50, -50)));
    }
}
