//! Samples that came out of order, inside the window: chunks of their own, merged by whoever reads.

use chronolith_chunk::{Chunk, encode_floats};
use chronolith_model::{SampleValue, WriteHistogram};

use super::histogram::{is_same, to_value};
use crate::block::encode_values;

/// Samples that are kept sorted before they become a chunk; Prometheus's default.
const OPEN_MAX: usize = 32;

/// One series' samples out of order.
#[derive(Default)]
pub(crate) struct OutOfOrder {
    /// The newest arrivals, sorted by time.
    pub(crate) open: Vec<(i64, f64)>,
    /// The newest arrivals among the histograms, sorted by time.
    pub(crate) histograms: Vec<(i64, WriteHistogram)>,
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
    pub(crate) fn insert(&mut self, t: i64, v: f64) -> Insert {
        match self.open.binary_search_by_key(&t, |s| s.0) {
            Ok(i) if self.open[i].1.to_bits() == v.to_bits() => return Insert::Duplicate,
            Ok(_) => return Insert::Conflict,
            Err(_) if self.histograms.binary_search_by_key(&t, |s| s.0).is_ok() => return Insert::Conflict,
            Err(i) => self.open.insert(i, (t, v)),
        }
        if self.open.len() >= OPEN_MAX {
            self.close();
        }
        Insert::Taken
    }

    pub(crate) fn insert_histogram(&mut self, t: i64, h: WriteHistogram) -> Insert {
        match self.histograms.binary_search_by_key(&t, |s| s.0) {
            Ok(i) if is_same(&to_value(&self.histograms[i].1), &h) => return Insert::Duplicate,
            Ok(_) => return Insert::Conflict,
            Err(_) if self.open.binary_search_by_key(&t, |s| s.0).is_ok() => return Insert::Conflict,
            Err(i) => self.histograms.insert(i, (t, h)),
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
                kept.extend(encode_mixed(&values(&chunk).filter(|s| s.0 >= mint).collect::<Vec<_>>()));
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

    /// True when a sample at `t` with this value is there.
    pub(crate) fn contains(&self, t: i64, v: f64) -> bool {
        let same = |s: &(i64, f64)| s.0 == t && s.1.to_bits() == v.to_bits();
        self.open.iter().any(same)
            || self.closed.iter().any(|c| c.mint <= t && t <= c.maxt && floats(c).any(|s| same(&s)))
    }

    /// True when this histogram is there.
    pub(crate) fn contains_histogram(&self, t: i64, h: &WriteHistogram) -> bool {
        self.histograms.iter().any(|(at, held)| *at == t && is_same(&to_value(held), h))
            || self.closed.iter().any(|c| holds_histogram(c, t, h))
    }
}

/// True when a chunk holds this histogram.
pub(crate) fn holds_histogram(chunk: &Chunk, t: i64, h: &WriteHistogram) -> bool {
    !chunk.encoding.is_float()
        && chunk.mint <= t
        && t <= chunk.maxt
        && values(chunk).any(|(at, value)| at == t && is_same(&value, h))
}

/// The samples of a chunk that was encoded here.
fn values(chunk: &Chunk) -> impl Iterator<Item = (i64, SampleValue)> {
    chunk.iter().into_iter().flatten().map_while(Result::ok)
}

/// Times of the samples of a chunk that was encoded here.
pub(crate) fn times(chunk: &Chunk) -> impl Iterator<Item = i64> {
    values(chunk).map(|(t, _)| t)
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
pub(crate) fn merge(in_order: &[Chunk], late: &[Chunk], range: chronolith_model::TimeRange) -> Vec<Chunk> {
    if in_order.iter().chain(late).any(|c| !c.encoding.is_float()) {
        let all = in_order.iter().chain(late).flat_map(values);
        let mut samples: Vec<(i64, SampleValue)> = all.filter(|s| range.contains(s.0)).collect();
        samples.sort_by_key(|s| s.0);
        samples.dedup_by_key(|s| s.0);
        return encode_mixed(&samples);
    }
    let all = in_order.iter().chain(late).flat_map(floats);
    let mut samples: Vec<(i64, f64)> = all.filter(|s| range.contains(s.0)).collect();
    // The sort is stable, and the samples in order come first.
    samples.sort_by_key(|s| s.0);
    samples.dedup_by_key(|s| s.0);
    encode(&samples)
}

/// Samples of any kind as chunks. What was decoded, or was checked when it came, can be encoded.
fn encode_mixed(samples: &[(i64, SampleValue)]) -> Vec<Chunk> {
    encode_values(samples).unwrap_or_default()
}

fn encode_histograms(samples: &[(i64, WriteHistogram)]) -> Vec<Chunk> {
    encode_mixed(&samples.iter().map(|(t, h)| (*t, to_value(h))).collect::<Vec<_>>())
}

fn encode(samples: &[(i64, f64)]) -> Vec<Chunk> {
    let (ts, vs): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
    if ts.is_empty() { Vec::new() } else { encode_floats(&ts, &vs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_sorted_closed_and_truncated() {
        let mut o = OutOfOrder::default();
        for i in 0..100i64 {
            assert!(matches!(o.insert((i * 37) % 100, i as f64), Insert::Taken));
        }
        assert!(matches!(o.insert((99 * 37) % 100, 99.0), Insert::Duplicate));
        assert!(matches!(o.insert((99 * 37) % 100, 98.0), Insert::Conflict));
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
        o.insert(5, 1.0);
        o.truncate(50, 4);
        assert_eq!(all(&o), [5].into_iter().chain(50..100).collect::<Vec<_>>());
    }
}
