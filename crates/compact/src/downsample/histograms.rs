//! Native histograms: raw samples to aggregates, and aggregates to coarser ones.
//!
//! A histogram's counter aggregate has no place for raw first and last values, as that of floats has them, so that a
//! reader cannot tell a reset between two chunks from one inside the first. Hence a chunk ends where the counter was reset:
//! its totals are then the raw values. The first sample after the reset is a window of its own, so that the reset shows
//! between the chunks as it did between the samples, however much the counter grew until the end of the window. Only where
//! resets are so frequent that chunks would become tiny are they applied within, as Thanos always does.
//!
//! All histograms of a chunk have one schema, the coarsest of its batch. Memory: one histogram a stream, not a series.

use std::borrow::Cow;
use std::sync::Arc;

use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, ChunkError, Encoding, FloatHistogramEncoder, SampleColumns, XorEncoder,
};
use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, SampleValue, TimeRange, is_stale_nan};

use super::window::{self, RAW_INTERVAL_MS};

/// With more resets than one in so many windows, chunks do not end at them.
const WINDOWS_PER_RESET_MIN: i64 = 8;

/// Downsamples raw chunks of histograms in time order.
pub(super) fn raw(chunks: &[Chunk], resolution_ms: i64, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    let mut facts = Vec::new();
    let mut before = None;
    each_raw(chunks, |t, h| {
        facts.push(Fact::of(t, h, &mut before));
        Ok(())
    })?;
    let batches = batches(&facts, resolution_ms);
    let mut batches = batches.iter();
    let (mut i, mut current) = (0, None);
    each_raw(chunks, |t, h| {
        if current.as_ref().is_none_or(|(_, to)| *to == i) {
            let batch: &Batch = batches.next().expect("batches cover all samples");
            if let Some((done, _)) = current.replace((Windows::new(batch, resolution_ms), batch.to)) {
                done.finish(out)?;
            }
        }
        let (windows, _) = current.as_mut().expect("set above");
        i += 1;
        if !h.sum.is_nan() { windows.add(t, 1.0, h, h, out) } else { Ok(()) }
    })?;
    current.map_or(Ok(()), |(last, _)| last.finish(out))
}

/// Puts chunks of aggregates of histograms together to coarser ones, at most `size` to one.
pub(super) fn aggregates(
    chunks: &[AggrChunk],
    size: usize,
    resolution_ms: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), ChunkError> {
    let mut before = None;
    let mut group: Vec<Point> = Vec::new();
    let mut facts: Vec<Fact> = Vec::new();
    let mut in_group = 0;
    for chunk in chunks {
        let from = group.len();
        points(chunk, &mut group)?;
        facts.extend(group[from..].iter().map(|p| Fact::of(p.t, &p.counter, &mut before)));
        let starts = facts.get(from).is_some_and(|f| f.starts || f.reset);
        if in_group >= size || starts && from > 0 {
            let rest = (group.split_off(from), facts.split_off(from));
            coarser(&group, &facts, resolution_ms, out)?;
            (group, facts) = rest;
            in_group = 0;
        }
        in_group += 1;
    }
    coarser(&group, &facts, resolution_ms, out)
}

/// A sample of an aggregate chunk.
struct Point {
    t: i64,
    count: f64,
    sum: Arc<FloatHistogram>,
    counter: Arc<FloatHistogram>,
}

/// Appends the samples of which all three aggregates are there.
fn points(chunk: &AggrChunk, out: &mut Vec<Point>) -> Result<(), ChunkError> {
    let part = |which| {
        let mut samples = SampleColumns::default();
        match chunk.get(which, 0, 0) {
            Some(part) => part.decode_into(TimeRange::ALL, &mut samples).map(|()| samples),
            None => Ok(samples),
        }
    };
    let (counts, sums, counters) =
        (part(Aggregate::Count)?, part(Aggregate::Sum)?, part(Aggregate::Counter)?);
    for (i, &t) in counts.ts.iter().enumerate() {
        let at = |samples: &SampleColumns| {
            let j = samples.ts.binary_search(&t).ok()?;
            samples.histogram(j).filter(|h| !h.sum.is_nan()).cloned()
        };
        let late = out.last().is_some_and(|last| last.t >= t);
        if let (Some(sum), Some(counter), false) = (at(&sums), at(&counters), late) {
            out.push(Point { t, count: counts.values[i], sum, counter });
        }
    }
    Ok(())
}

fn coarser(
    points: &[Point],
    facts: &[Fact],
    resolution_ms: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), ChunkError> {
    let Some(last) = points.last() else { return Ok(()) };
    let schema = points.iter().map(|p| p.sum.schema.min(p.counter.schema)).min().unwrap_or_default();
    let batch = Batch {
        to: points.len(),
        last_t: last.t,
        schema,
        gauge: facts[0].gauge,
        after_reset: facts[0].reset,
    };
    let mut windows = Windows::new(&batch, resolution_ms);
    for p in points {
        windows.add(p.t, p.count, &p.sum, &p.counter, out)?;
    }
    windows.finish(out)
}

/// Calls `f` with each histogram, but for stale markers and those that go back in time.
fn each_raw(
    chunks: &[Chunk],
    mut f: impl FnMut(i64, &Arc<FloatHistogram>) -> Result<(), ChunkError>,
) -> Result<(), ChunkError> {
    for chunk in chunks {
        let mut last_t = i64::MIN;
        for sample in chunk.iter()? {
            let (t, h) = match sample? {
                (t, SampleValue::Histogram(h)) => (t, Arc::new(h.to_float())),
                (t, SampleValue::FloatHistogram(h)) => (t, h),
                (_, SampleValue::Float(_)) => continue,
            };
            if !is_stale_nan(h.sum) && t > last_t {
                last_t = t;
                f(t, &h)?;
            }
        }
    }
    Ok(())
}

/// What is to be known of a sample before the chunks are made.
#[derive(Clone, Copy, Debug)]
struct Fact {
    t: i64,
    schema: i32,
    gauge: bool,
    nan: bool,
    /// It cannot share a chunk with the one before it.
    starts: bool,
    /// The counter was reset before it.
    reset: bool,
}

impl Fact {
    /// Of the sample at `t`; `before` is the last one that was a number, and is replaced.
    fn of(t: i64, h: &Arc<FloatHistogram>, before: &mut Option<Arc<FloatHistogram>>) -> Fact {
        let gauge = h.counter_reset == CounterReset::Gauge;
        let mut fact = Fact { t, schema: h.schema, gauge, nan: h.sum.is_nan(), starts: false, reset: false };
        if fact.nan {
            return fact;
        }
        if let Some(before) = before.replace(Arc::clone(h)) {
            fact.starts = gauge != (before.counter_reset == CounterReset::Gauge)
                || h.uses_custom_buckets() != before.uses_custom_buckets()
                || h.custom_values != before.custom_values;
            fact.reset = !gauge && !fact.starts && h.detect_reset(&before);
        }
        fact
    }
}

/// Samples that become a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Batch {
    /// Index of the first sample behind it.
    to: usize,
    /// Time of the last sample that is a number.
    last_t: i64,
    schema: i32,
    gauge: bool,
    /// The counter was reset before the first sample.
    after_reset: bool,
}

/// Cuts samples into batches: where they cannot go together, at resets, and where a chunk has become long enough, at
/// the end of a window.
fn batches(facts: &[Fact], resolution_ms: i64) -> Vec<Batch> {
    let mut out = Vec::new();
    let (Some(first), Some(last)) = (facts.first(), facts.last()) else { return out };
    let windows = last.t.saturating_sub(first.t) / resolution_ms + 1;
    let resets = facts.iter().filter(|f| f.reset).count() as i64;
    let at_resets = resets.saturating_mul(WINDOWS_PER_RESET_MIN) <= windows.max(WINDOWS_PER_RESET_MIN);
    let mut from = 0;
    while from < facts.len() {
        let cut = |f: &Fact| f.starts || at_resets && f.reset;
        let run = 1 + facts[from + 1..].iter().take_while(|f| !cut(f)).count();
        let run_end = from + run;
        let (mint, maxt) = (facts[from].t, facts[run_end - 1].t);
        let count = window::chunk_count(mint, maxt, RAW_INTERVAL_MS, resolution_ms, run);
        let size = run / count + 1;
        while from < run_end {
            let mut to = (from + size).min(run_end);
            let end = window::end(facts[to - 1].t, resolution_ms);
            to += facts[to..run_end].iter().take_while(|f| f.t <= end).count();
            let numbers = || facts[from..to].iter().filter(|f| !f.nan);
            let gauge = numbers().next().is_some_and(|f| f.gauge);
            let schema = numbers().map(|f| f.schema).min().unwrap_or_default();
            let last_t = numbers().next_back().map_or(i64::MIN, |f| f.t);
            let after_reset = at_resets && facts[from].reset;
            out.push(Batch { to, last_t, schema, gauge, after_reset });
            from = to;
        }
    }
    out
}

/// Makes a batch's samples windows, and the windows chunks.
struct Windows {
    batch: Batch,
    resolution_ms: i64,
    open: Option<Open>,
    counter: Counter,
    chunk: Option<Building>,
}

/// A window that may get more samples.
struct Open {
    end: i64,
    count: f64,
    sum: FloatHistogram,
}

/// The running counter of a batch.
#[derive(Default)]
struct Counter {
    /// What it came to before the last reset.
    before: Option<FloatHistogram>,
    last: Option<Arc<FloatHistogram>>,
}

impl Windows {
    fn new(batch: &Batch, resolution_ms: i64) -> Windows {
        Windows { batch: *batch, resolution_ms, open: None, counter: Counter::default(), chunk: None }
    }

    fn add(
        &mut self,
        t: i64,
        count: f64,
        sum: &FloatHistogram,
        counter: &Arc<FloatHistogram>,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        if self.open.as_ref().is_some_and(|open| t > open.end) {
            self.close(out)?;
        }
        let sum = self.in_schema(sum)?;
        match &mut self.open {
            Some(open) => {
                open.count += count;
                open.sum.add(&sum).map_err(mixed)?;
            }
            None => {
                let alone = std::mem::take(&mut self.batch.after_reset);
                let end = if alone { t } else { window::end(t, self.resolution_ms).min(self.batch.last_t) };
                self.open = Some(Open { end, count, sum: sum.into_owned() });
            }
        }
        self.count(counter)
    }

    /// Goes on with the counter.
    fn count(&mut self, h: &Arc<FloatHistogram>) -> Result<(), ChunkError> {
        if let Some(last) = self.counter.last.replace(Arc::clone(h))
            && !self.batch.gauge
            && h.detect_reset(&last)
        {
            let last = self.in_schema(&last)?;
            match &mut self.counter.before {
                Some(before) => before.add(&last).map(|_| ()).map_err(mixed)?,
                None => self.counter.before = Some(last.into_owned()),
            }
        }
        Ok(())
    }

    fn in_schema<'h>(&self, h: &'h FloatHistogram) -> Result<Cow<'h, FloatHistogram>, ChunkError> {
        if h.schema > self.batch.schema && !h.uses_custom_buckets() {
            h.copy_to_schema(self.batch.schema).map(Cow::Owned).map_err(mixed)
        } else {
            Ok(Cow::Borrowed(h))
        }
    }

    /// Writes the open window.
    fn close(&mut self, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        let (Some(Open { end, count, mut sum }), Some(last)) = (self.open.take(), self.counter.last.clone())
        else {
            return Ok(());
        };
        let mut counter = self.in_schema(&last)?.into_owned();
        if let Some(before) = &self.counter.before {
            counter.add(before).map_err(mixed)?;
        }
        // Sums go up and down, whatever they are of.
        sum.counter_reset = CounterReset::Gauge;
        counter.counter_reset = if self.batch.gauge { CounterReset::Gauge } else { CounterReset::Unknown };
        let point = (end, count, &sum, &counter);
        let next = match &mut self.chunk {
            Some(chunk) => chunk.append(point)?,
            None => Some(Building::new(point)?),
        };
        if let Some(next) = next {
            out.extend(self.chunk.replace(next).map(Building::finish));
        }
        Ok(())
    }

    fn finish(mut self, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        self.close(out)?;
        out.extend(self.chunk.map(Building::finish));
        Ok(())
    }
}

/// Time, count, sum, counter.
type WindowPoint<'a> = (i64, f64, &'a FloatHistogram, &'a FloatHistogram);

/// A chunk that may get more windows.
struct Building {
    mint: i64,
    zero_threshold: f64,
    count: XorEncoder,
    sum: FloatHistogramEncoder,
    counter: FloatHistogramEncoder,
}

impl Building {
    fn new((t, count, sum, counter): WindowPoint<'_>) -> Result<Building, ChunkError> {
        Self::with_counter((t, count, sum, counter), FloatHistogramEncoder::first(None, t, counter)?)
    }

    fn with_counter(
        (t, n, sum, counter): WindowPoint<'_>,
        first: FloatHistogramEncoder,
    ) -> Result<Building, ChunkError> {
        let mut count = XorEncoder::new();
        count.append(t, n);
        Ok(Building {
            mint: t,
            zero_threshold: sum.zero_threshold,
            count,
            sum: FloatHistogramEncoder::first(None, t, sum)?,
            // Thanos's header says "no reset", as if the chunk before it were this one.
            counter: FloatHistogramEncoder::first(Some(&first), t, counter)?,
        })
    }

    /// Appends a window; where it does not fit, the next chunk, which holds it, comes back.
    fn append(&mut self, point: WindowPoint<'_>) -> Result<Option<Building>, ChunkError> {
        let (t, count, sum, counter) = point;
        if sum.zero_threshold != self.zero_threshold {
            return Building::new(point).map(Some);
        }
        if let Some(first) = self.counter.append(t, counter)? {
            return Building::with_counter(point, first).map(Some);
        }
        if self.sum.append(t, sum)?.is_some() {
            return Err(mixed(t));
        }
        self.count.append(t, count);
        Ok(None)
    }

    fn finish(self) -> Chunk {
        let (mint, maxt) = (self.mint, self.counter.last_t());
        AggrChunk::default()
            .with(Aggregate::Count, Encoding::Xor, self.count.finish())
            .with(Aggregate::Sum, Encoding::FloatHistogram, self.sum.finish())
            .with(Aggregate::Counter, Encoding::FloatHistogram, self.counter.finish())
            .to_chunk(mint, maxt)
    }
}

/// Histograms that do not go together, although they were sorted so that they do.
fn mixed<E>(_: E) -> ChunkError {
    let reason = "histograms of one window cannot be put together";
    ChunkError::Corrupt { encoding: Encoding::FloatHistogram, sample: 0, reason }
}
