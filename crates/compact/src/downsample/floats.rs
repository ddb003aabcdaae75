//! Floats: raw samples to aggregates, and aggregates to coarser ones.

use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, ChunkError, CounterTotals, Encoding, SampleColumns, XorEncoder,
};
use chronolith_model::{TimeRange, is_stale_nan};

use super::window::{self, RAW_INTERVAL_MS};

/// Decoded samples of one series, and scratch space.
#[derive(Debug, Default)]
pub(super) struct Floats {
    samples: SampleColumns,
    ts: Vec<i64>,
    values: Vec<f64>,
}

impl Floats {
    /// Downsamples raw chunks of floats in time order.
    pub(super) fn raw(
        &mut self,
        chunks: &[Chunk],
        resolution_ms: i64,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        self.samples.clear();
        for chunk in chunks {
            append(chunk, &mut self.samples)?;
        }
        self.columns(resolution_ms, out);
        Ok(())
    }

    /// Downsamples overlapping raw chunks of floats: of equal timestamps the sample of the chunk that begins first counts.
    pub(super) fn overlapping(
        &mut self,
        chunks: Vec<Chunk>,
        resolution_ms: i64,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        self.samples.clear();
        chronolith_dedup::merge_overlapping(chunks, TimeRange::ALL, &mut self.samples)?;
        tidy(&mut self.samples, 0);
        self.columns(resolution_ms, out);
        Ok(())
    }

    /// Cuts the samples into batches, each of which becomes a chunk. A batch ends with a window.
    fn columns(&mut self, resolution_ms: i64, out: &mut Vec<Chunk>) {
        let Floats { samples, ts: kept_ts, values: kept_values } = self;
        let (mut ts, mut values) = (&samples.ts[..], &samples.values[..]);
        let Some(range) = samples.time_range() else { return };
        let count = window::chunk_count(range.mint, range.maxt, RAW_INTERVAL_MS, resolution_ms, ts.len());
        let batch = ts.len() / count + 1;
        while !ts.is_empty() {
            let mut to = batch.min(ts.len());
            let end = window::end(ts[to - 1], resolution_ms);
            to += ts[to..].iter().take_while(|t| **t <= end).count();
            let (batch_ts, batch_values) = (&ts[..to], &values[..to]);
            (ts, values) = (&ts[to..], &values[to..]);
            if batch_values.iter().any(|v| v.is_nan()) {
                let kept = batch_ts.iter().zip(batch_values).filter(|(_, v)| !v.is_nan());
                (*kept_ts, *kept_values) = kept.unzip();
                out.extend(aggregate(kept_ts, kept_values, resolution_ms));
            } else {
                out.extend(aggregate(batch_ts, batch_values, resolution_ms));
            }
        }
    }

    /// Puts chunks of aggregates together to one of a coarser resolution. `None` when there is nothing in them.
    pub(super) fn aggregates(
        &mut self,
        chunks: &[AggrChunk],
        resolution_ms: i64,
    ) -> Result<Option<Chunk>, ChunkError> {
        let mut times = Times::default();
        let mut parts = AggrChunk::default();
        for which in [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max] {
            self.samples.clear();
            for part in chunks.iter().filter_map(|c| c.get(which, 0, 0)) {
                append(&part, &mut self.samples)?;
            }
            let SampleColumns { ts, values, .. } = &self.samples;
            let mut encoder = XorEncoder::new();
            each_window(ts, values, resolution_ms, |t, window| {
                times.add(t);
                let v = match which {
                    Aggregate::Min => window.min,
                    Aggregate::Max => window.max,
                    _ => window.sum,
                };
                encoder.append(t, v);
            });
            if encoder.sample_count() > 0 {
                parts = parts.with(which, Encoding::Xor, encoder.finish());
            }
        }
        if let Some(counter) = self.counter(chunks, resolution_ms, &mut times)? {
            parts = parts.with(Aggregate::Counter, Encoding::Xor, counter.finish());
        }
        Ok(times.0.map(|r| parts.to_chunk(r.mint, r.maxt)))
    }

    fn counter(
        &mut self,
        chunks: &[AggrChunk],
        resolution_ms: i64,
        times: &mut Times,
    ) -> Result<Option<XorEncoder>, ChunkError> {
        let mut counter = CounterTotals::default();
        self.ts.clear();
        self.values.clear();
        for part in chunks.iter().filter_map(|c| c.get(Aggregate::Counter, 0, 0)) {
            self.samples.clear();
            part.decode_into(TimeRange::ALL, &mut self.samples)?;
            for (&t, &v) in self.samples.ts.iter().zip(&self.samples.values) {
                if let Some(total) = counter.push(t, v) {
                    self.ts.push(t);
                    self.values.push(total);
                }
            }
        }
        let (Some(first_t), Some(first)) = (self.ts.first(), self.values.first()) else { return Ok(None) };
        let mut encoder = XorEncoder::new();
        encoder.append(*first_t, *first);
        let last_t = each_window(&self.ts, &self.values, resolution_ms, |t, window| {
            times.add(t);
            encoder.append(t, window.counter);
        });
        encoder.append(last_t, counter.last_raw().unwrap_or_default());
        Ok(Some(encoder))
    }
}

/// First and last time of the windows of a chunk.
#[derive(Debug, Default)]
struct Times(Option<TimeRange>);

impl Times {
    fn add(&mut self, t: i64) {
        let range = self.0.get_or_insert(TimeRange::new(t, t));
        *range = TimeRange::new(range.mint.min(t), range.maxt.max(t));
    }
}

/// Appends a chunk's samples, but for stale markers and those that go back in time.
fn append(chunk: &Chunk, out: &mut SampleColumns) -> Result<(), ChunkError> {
    let from = out.len();
    chunk.decode_into(TimeRange::ALL, out)?;
    tidy(out, from);
    Ok(())
}

/// Takes away stale markers and samples that go back in time, behind `from`.
fn tidy(samples: &mut SampleColumns, from: usize) {
    let SampleColumns { ts, values, .. } = samples;
    let ascend = ts[from..].is_sorted();
    // Without a branch for each, as nearly no chunk holds one.
    if ascend && !values[from..].iter().fold(false, |any, v| any | v.is_nan()) {
        return;
    }
    let (mut to, mut last_t) = (from, i64::MIN);
    for i in from..ts.len() {
        if is_stale_nan(values[i]) || ts[i] < last_t {
            continue;
        }
        last_t = ts[i];
        (ts[to], values[to]) = (ts[i], values[i]);
        to += 1;
    }
    samples.truncate(to);
}

/// What became of the samples of a window, and of the counter since the batch began.
#[derive(Clone, Copy, Debug)]
struct Window {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    counter: f64,
}

/// Calls `done` for each window, in order, with the time of its sample. Gives the time of the last one.
#[inline(always)]
fn each_window(ts: &[i64], values: &[f64], resolution_ms: i64, mut done: impl FnMut(i64, &Window)) -> i64 {
    let (Some(&last_t), Some(&first)) = (ts.last(), values.first()) else { return 0 };
    let values = &values[..ts.len()];
    // The first sample sets the counter.
    let (mut counter, mut before) = (first, first);
    let (mut i, mut end) = (0, 0);
    while i < ts.len() {
        end = window::end(ts[i], resolution_ms).min(last_t);
        let (from, mut sum, mut min, mut max) = (i, 0.0, values[i], values[i]);
        if i == 0 {
            sum += first;
            i = 1;
        }
        while i < ts.len() && ts[i] <= end {
            let v = values[i];
            counter += if v < before { v } else { v - before };
            before = v;
            sum += v;
            min = if v < min { v } else { min };
            max = if v > max { v } else { max };
            i += 1;
        }
        done(end, &Window { count: (i - from) as u64, sum, min, max, counter });
    }
    end
}

/// One batch as a chunk; `None` when it is empty.
fn aggregate(ts: &[i64], values: &[f64], resolution_ms: i64) -> Option<Chunk> {
    let (&first_t, &first, &last) = (ts.first()?, values.first()?, values.last()?);
    let mut encoders: [XorEncoder; 5] = Default::default();
    let [count, sum, min, max, counter] = &mut encoders;
    counter.append(first_t, first);
    let mut mint = None;
    let maxt = each_window(ts, values, resolution_ms, |t, window| {
        mint.get_or_insert(t);
        count.append(t, window.count as f64);
        sum.append(t, window.sum);
        min.append(t, window.min);
        max.append(t, window.max);
        counter.append(t, window.counter);
    });
    counter.append(maxt, last);
    let parts = Aggregate::ALL.into_iter().zip(encoders);
    let parts = parts
        .fold(AggrChunk::default(), |all, (which, encoder)| all.with(which, Encoding::Xor, encoder.finish()));
    Some(parts.to_chunk(mint?, maxt))
}
