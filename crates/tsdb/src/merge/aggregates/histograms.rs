//! Chunks of downsampled histograms, put together of segments.

use std::ops::Range;
use std::sync::Arc;

use chronolith_chunk::{AggrHistogramEncoder, Chunk, ChunkError, Encoding, HistogramWindow};
use chronolith_model::FloatHistogram;
use chronolith_model::histogram::CounterReset;

use super::parse::{Histograms, Parsed};

/// Chunks that may get more segments.
pub(super) struct OpenHistograms {
    /// The chunk itself, as long as there is nothing else in it.
    whole: Option<Chunk>,
    ts: Vec<i64>,
    counts: Vec<f64>,
    sums: Vec<Arc<FloatHistogram>>,
    counters: Vec<Arc<FloatHistogram>>,
    /// The last value of the lane itself, and what is added to it.
    own: Option<Arc<FloatHistogram>>,
    ahead: Option<FloatHistogram>,
}

impl OpenHistograms {
    /// A chunk that begins with a segment, whose values get `ahead` until the next reset.
    pub(super) fn of(
        parsed: &Parsed,
        histograms: &Histograms,
        segment: Range<usize>,
        ahead: Option<FloatHistogram>,
    ) -> Result<Self, ChunkError> {
        let whole = ahead.is_none() && segment.len() == parsed.ts.len();
        let (ts, counts, sums, counters) = Default::default();
        let mut open = OpenHistograms { whole: None, ts, counts, sums, counters, own: None, ahead: None };
        open.extend(parsed, histograms, segment, ahead)?;
        open.whole = whole.then(|| parsed.chunk.clone());
        Ok(open)
    }

    pub(super) fn len(&self) -> usize {
        self.ts.len()
    }

    /// Appends a segment.
    pub(super) fn extend(
        &mut self,
        parsed: &Parsed,
        histograms: &Histograms,
        segment: Range<usize>,
        ahead: Option<FloatHistogram>,
    ) -> Result<(), ChunkError> {
        self.whole = None;
        self.ahead = ahead;
        self.ts.extend_from_slice(&parsed.ts[segment.clone()]);
        self.counts.extend_from_slice(&parsed.counts[segment.clone()]);
        self.sums.extend_from_slice(&histograms.sums[segment.clone()]);
        let from = segment.start;
        for (i, counter) in histograms.counters[segment].iter().enumerate() {
            if i > 0 && counter.detect_reset(&histograms.counters[from + i - 1]) {
                self.ahead = None;
            }
            let value = match &self.ahead {
                None => Arc::clone(counter),
                Some(ahead) => {
                    let mut sum = FloatHistogram::clone(counter);
                    sum.add(ahead).map_err(mixed)?;
                    sum.counter_reset = CounterReset::Unknown;
                    Arc::new(sum)
                }
            };
            self.own = Some(Arc::clone(counter));
            self.counters.push(value);
        }
        Ok(())
    }

    /// How far what was written last is ahead of another lane, so that its values, `next` first, may follow. `own` is the lane's value before
    /// that, and whether it is of the time of what was written; if it is not, the lane saw nothing in between, and only must not seem to be
    /// reset.
    pub(super) fn ahead_of(
        &self,
        (own, same_time): (&FloatHistogram, bool),
        next: &FloatHistogram,
    ) -> Option<FloatHistogram> {
        let written = self.counters.last()?;
        if next.counter_reset == CounterReset::Gauge || compared(next, own) {
            return None;
        }
        let level = match same_time {
            true => own,
            false if compared(next, written) => next,
            false => return None,
        };
        let mut ahead = FloatHistogram::clone(written);
        ahead.sub(level).ok()?;
        ahead.counter_reset = CounterReset::Unknown;
        let buckets = ahead.positive_buckets.iter().chain(&ahead.negative_buckets);
        let differs = buckets.chain([&ahead.count, &ahead.zero_count, &ahead.sum]).any(|v| *v != 0.0);
        differs.then_some(ahead)
    }

    /// What is added to the values of the same lane's next chunk, which begins with `next`.
    pub(super) fn still_ahead(&self, next: &FloatHistogram) -> Option<FloatHistogram> {
        let own = self.own.as_ref()?;
        self.ahead.clone().filter(|_| !next.detect_reset(own))
    }

    pub(super) fn finish(self, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        if let Some(whole) = self.whole {
            out.push(whole);
            return Ok(());
        }
        let mut chunk: Option<AggrHistogramEncoder> = None;
        let histograms = self.sums.iter().zip(&self.counters);
        for ((&t, &count), (sum, counter)) in self.ts.iter().zip(&self.counts).zip(histograms) {
            let mut counter = FloatHistogram::clone(counter);
            if counter.counter_reset != CounterReset::Gauge {
                // Whoever asks compares.
                counter.counter_reset = CounterReset::Unknown;
            }
            let window = HistogramWindow { t, count, sum, counter: &counter };
            let next = match &mut chunk {
                Some(chunk) => chunk.append(window)?,
                None => Some(AggrHistogramEncoder::first(window)?),
            };
            if let Some(next) = next {
                out.extend(chunk.replace(next).map(AggrHistogramEncoder::finish));
            }
        }
        out.extend(chunk.map(AggrHistogramEncoder::finish));
        Ok(())
    }
}

/// True when `now` looks like a reset behind `before`, whatever is said of it.
fn compared(now: &FloatHistogram, before: &FloatHistogram) -> bool {
    match now.counter_reset {
        CounterReset::NotReset | CounterReset::Reset => {
            FloatHistogram { counter_reset: CounterReset::Unknown, ..now.clone() }.detect_reset(before)
        }
        CounterReset::Unknown | CounterReset::Gauge => now.detect_reset(before),
    }
}

fn mixed<E>(_: E) -> ChunkError {
    let reason = "counters of overlapping chunks do not go together";
    ChunkError::Corrupt { encoding: Encoding::FloatHistogram, sample: 0, reason }
}
