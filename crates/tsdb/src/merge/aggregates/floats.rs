//! Chunks of downsampled floats, put together of segments.

use std::ops::Range;

use chronolith_chunk::{AggrChunk, Aggregate, Chunk, Encoding, XorEncoder};

use super::parse::{Floats, Parsed};

/// A chunk that may get more segments.
pub(super) struct OpenFloats {
    /// The chunk itself, as long as there is nothing else in it.
    whole: Option<Chunk>,
    ts: Vec<i64>,
    counts: Vec<f64>,
    sums: Vec<f64>,
    mins: Vec<f64>,
    maxs: Vec<f64>,
    totals: Vec<f64>,
    first: Option<(i64, f64)>,
    last: Option<f64>,
}

impl OpenFloats {
    /// A chunk that begins with a segment.
    pub(super) fn of(parsed: &Parsed, floats: &Floats, segment: Range<usize>) -> Self {
        let mut open = OpenFloats {
            whole: (segment.len() == parsed.ts.len()).then(|| parsed.chunk.clone()),
            ts: Vec::new(),
            counts: Vec::new(),
            sums: Vec::new(),
            mins: Vec::new(),
            maxs: Vec::new(),
            totals: Vec::new(),
            first: floats.first.filter(|_| segment.start == 0),
            last: None,
        };
        open.push(parsed, floats, segment, 0.0);
        open
    }

    pub(super) fn len(&self) -> usize {
        self.ts.len()
    }

    fn push(&mut self, parsed: &Parsed, floats: &Floats, segment: Range<usize>, offset: f64) {
        self.last = floats.last.filter(|_| segment.end == parsed.ts.len());
        self.ts.extend_from_slice(&parsed.ts[segment.clone()]);
        self.counts.extend_from_slice(&parsed.counts[segment.clone()]);
        self.sums.extend_from_slice(&floats.sums[segment.clone()]);
        self.mins.extend_from_slice(&floats.mins[segment.clone()]);
        self.maxs.extend_from_slice(&floats.maxs[segment.clone()]);
        self.totals.extend(floats.totals[segment].iter().map(|total| total + offset));
    }

    /// Appends a segment, at whose first window the counter has grown by `growth`.
    pub(super) fn extend(&mut self, parsed: &Parsed, floats: &Floats, segment: Range<usize>, growth: f64) {
        self.whole = None;
        let reached = self.totals.last().copied().unwrap_or_default();
        let offset = reached + growth - floats.totals[segment.start];
        self.push(parsed, floats, segment, offset);
    }

    /// True when there is room for the first value of a chunk that begins with the window at `t`.
    pub(super) fn can_end_before(&self, t: i64) -> bool {
        self.ts.last().is_some_and(|last| t > last + 1)
    }

    /// Ends the chunk and gives the next one, at whose first window the counter has grown by `growth`.
    pub(super) fn end_before(
        &mut self,
        parsed: &Parsed,
        floats: &Floats,
        segment: Range<usize>,
        growth: f64,
    ) -> OpenFloats {
        let total = floats.totals[segment.start];
        let mut next = OpenFloats::of(parsed, floats, segment);
        let last_t = self.ts.last().copied().unwrap_or(i64::MIN);
        let (t, v) = match next.first.filter(|(t, _)| *t > last_t) {
            Some(first) => first,
            None => (last_t + 1, total - growth),
        };
        if next.first != Some((t, v)) {
            next.whole = None;
        }
        next.first = Some((t, v));
        let last = v - (growth - (total - v)).max(0.0);
        if self.last != Some(last) {
            (self.last, self.whole) = (Some(last), None);
        }
        next
    }

    pub(super) fn finish(self) -> Chunk {
        if let Some(whole) = self.whole {
            return whole;
        }
        let encoded = |values: &[f64]| {
            let mut encoder = XorEncoder::new();
            self.ts.iter().zip(values).for_each(|(t, v)| encoder.append(*t, *v));
            encoder.finish()
        };
        let (first_t, last_t) = (self.ts[0], self.ts[self.ts.len() - 1]);
        let mut counter = XorEncoder::new();
        if let Some((t, v)) = self.first {
            counter.append(t, v);
        }
        self.ts.iter().zip(&self.totals).for_each(|(t, v)| counter.append(*t, *v));
        counter.append(last_t, self.last.unwrap_or(self.totals[self.totals.len() - 1]));
        AggrChunk::default()
            .with(Aggregate::Count, Encoding::Xor, encoded(&self.counts))
            .with(Aggregate::Sum, Encoding::Xor, encoded(&self.sums))
            .with(Aggregate::Min, Encoding::Xor, encoded(&self.mins))
            .with(Aggregate::Max, Encoding::Xor, encoded(&self.maxs))
            .with(Aggregate::Counter, Encoding::Xor, counter.finish())
            .to_chunk(first_t, last_t)
    }
}
