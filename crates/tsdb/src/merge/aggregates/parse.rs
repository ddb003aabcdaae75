//! Aggregate chunks taken apart.

use std::sync::Arc;

use chronolith_chunk::{AggrChunk, Aggregate, Chunk, ChunkError, Encoding, SampleColumns};
use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, TimeRange};

/// A chunk and what is in it. All columns have a value for each of the times.
pub(super) struct Parsed {
    pub(super) chunk: Chunk,
    pub(super) ts: Vec<i64>,
    pub(super) counts: Vec<f64>,
    pub(super) data: Data,
}

pub(super) enum Data {
    Floats(Floats),
    Histograms(Histograms),
}

/// Floats without their counts.
pub(super) struct Floats {
    pub(super) sums: Vec<f64>,
    pub(super) mins: Vec<f64>,
    pub(super) maxs: Vec<f64>,
    pub(super) totals: Vec<f64>,
    /// The counter's first raw value, and its time.
    pub(super) first: Option<(i64, f64)>,
    /// The counter's last raw value.
    pub(super) last: Option<f64>,
}

impl Floats {
    /// What the counter grew by up to the first window's end, behind a chunk with this last raw value.
    pub(super) fn growth_behind(&self, last_raw: Option<f64>) -> f64 {
        let first = self.first.map_or(self.totals[0], |(_, v)| v);
        let between = match last_raw {
            None => 0.0,
            Some(last) if first >= last => first - last,
            Some(_) => first,
        };
        between + self.totals[0] - first
    }

    /// The value with which the next chunk is compared.
    pub(super) fn last_raw(&self) -> f64 {
        self.last.or(self.totals.last().copied()).unwrap_or_default()
    }
}

/// Histograms without their counts.
pub(super) struct Histograms {
    pub(super) sums: Vec<Arc<FloatHistogram>>,
    pub(super) counters: Vec<Arc<FloatHistogram>>,
}

impl Parsed {
    pub(super) fn of(chunk: &Chunk) -> Result<Parsed, ChunkError> {
        let parts = AggrChunk::parse(&chunk.data)?;
        let part = |which| {
            let mut samples = SampleColumns::default();
            if let Some(part) = parts.get(which, chunk.mint, chunk.maxt) {
                part.decode_into(TimeRange::ALL, &mut samples)?;
            }
            Ok::<_, ChunkError>(samples)
        };
        let counts = part(Aggregate::Count)?;
        if parts.is_histogram() {
            return Ok(histograms(chunk, counts, &part(Aggregate::Sum)?, &part(Aggregate::Counter)?));
        }
        let column = |which| {
            let samples = part(which)?;
            if samples.ts == counts.ts && !samples.has_histograms() {
                Ok(samples.values)
            } else {
                Err(disagree())
            }
        };
        let (sums, mins, maxs) = (column(Aggregate::Sum)?, column(Aggregate::Min)?, column(Aggregate::Max)?);
        let counter = part(Aggregate::Counter)?;
        let (mut ts, mut totals) = (&counter.ts[..], &counter.values[..]);
        let (mut first, mut last) = (None, None);
        if ts.len() > counts.len()
            && let ([.., a, b], [rest @ .., v]) = (ts, totals)
            && a == b
        {
            last = Some(*v);
            (ts, totals) = (&ts[..rest.len()], rest);
        }
        if ts.len() > counts.len()
            && let ([t, later @ ..], [v, rest @ ..]) = (ts, totals)
        {
            first = Some((*t, *v));
            (ts, totals) = (later, rest);
        }
        if ts != counts.ts {
            return Err(disagree());
        }
        let totals = totals.to_vec();
        let data = Data::Floats(Floats { sums, mins, maxs, totals, first, last });
        Ok(Parsed { chunk: chunk.clone(), ts: counts.ts, counts: counts.values, data })
    }

    pub(super) fn histograms(&self) -> Option<&Histograms> {
        match &self.data {
            Data::Histograms(h) => Some(h),
            Data::Floats(_) => None,
        }
    }
}

/// The windows that have all three; stale ones mean nothing.
fn histograms(
    chunk: &Chunk,
    counts: SampleColumns,
    sums: &SampleColumns,
    counters: &SampleColumns,
) -> Parsed {
    let mut out = Histograms { sums: Vec::new(), counters: Vec::new() };
    let (mut ts, mut kept) = (Vec::new(), Vec::new());
    for (&t, &count) in counts.ts.iter().zip(&counts.values) {
        let at = |samples: &SampleColumns| {
            let i = samples.ts.binary_search(&t).ok()?;
            samples.histogram(i).filter(|h| !h.sum.is_nan()).cloned()
        };
        if let (Some(mut sum), Some(counter)) = (at(sums), at(counters)) {
            if sum.counter_reset != CounterReset::Gauge {
                Arc::make_mut(&mut sum).counter_reset = CounterReset::Gauge;
            }
            ts.push(t);
            kept.push(count);
            out.sums.push(sum);
            out.counters.push(counter);
        }
    }
    Parsed { chunk: chunk.clone(), ts, counts: kept, data: Data::Histograms(out) }
}

fn disagree() -> ChunkError {
    let reason = "its aggregates are of different windows";
    ChunkError::Corrupt { encoding: Encoding::Aggregate, sample: 0, reason }
}
