//! Native histograms: raw samples to aggregates, and aggregates to coarser ones.
//!
//! A histogram's counter aggregate has no place for raw first and last values, as that of floats has them. Where totals are
//! above the raw values, as they are behind a reset, a reader takes the next chunk's (or block's) lower values for another
//! reset. So totals are carried on from chunk to chunk, and at the last reset of a series they give way to the raw values again,
//! with which the next block begins: the window in which the counter was reset shows the total from before the reset, and
//! the next one, in a new chunk, the raw value, which holds all that was counted since. (Thanos begins anew with each chunk.)
//!
//! All histograms of a chunk have one schema, the coarsest of its batch. Memory: one histogram a stream, not a series.

use std::borrow::Cow;
use std::sync::Arc;

use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, ChunkError, Encoding, FloatHistogramEncoder, SampleColumns, XorEncoder,
};
use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, TimeRange, is_stale_nan};

use super::window::{self, RAW_INTERVAL_MS};

/// Downsamples raw chunks of histograms in time order.
pub(super) fn raw(chunks: &[Chunk], resolution_ms: i64, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    let mut facts = Facts::default();
    each_raw(chunks, |t, h| {
        facts.add(t, h);
        Ok(())
    })?;
    let facts = facts.finish();
    let mut batches = batches(&facts, resolution_ms).into_iter().peekable();
    let mut windows = Windows::new(resolution_ms);
    let mut facts = facts.iter().enumerate();
    each_raw(chunks, |t, h| {
        let (i, fact) = facts.next().expect("the same samples as before");
        if let Some(batch) = batches.next_if(|batch| batch.from == i) {
            windows.begin(batch, fact.starts, out)?;
        }
        if fact.nan { Ok(()) } else { windows.add((t, 1.0, h, h), fact.last_reset, out) }
    })?;
    windows.end(out)
}

/// Puts chunks of aggregates of histograms together to coarser ones, at most `size` to one.
pub(super) fn aggregates(
    chunks: &[AggrChunk],
    size: usize,
    resolution_ms: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), ChunkError> {
    let mut facts = Facts::default();
    let mut last_t = i64::MIN;
    // Where each chunk's samples end.
    let mut ends = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        for p in points(chunk, &mut last_t)? {
            facts.add(p.t, &p.counter);
        }
        ends.push(facts.list.len());
    }
    let facts = facts.finish();
    let mut windows = Windows::new(resolution_ms);
    let (mut from, mut in_group) = (0, size);
    last_t = i64::MIN;
    for (i, chunk) in chunks.iter().enumerate() {
        let starts = facts.get(from).is_some_and(|f| f.starts);
        if in_group == size || starts {
            let more = (i + 1..chunks.len().min(i + size))
                .take_while(|j| facts.get(ends[j - 1]).is_none_or(|f| !f.starts));
            let group_end = more.last().unwrap_or(i);
            windows.begin(Batch::of(&facts, from, ends[group_end]), starts, out)?;
            in_group = 0;
        }
        in_group += 1;
        for (p, fact) in points(chunk, &mut last_t)?.iter().zip(&facts[from..]) {
            windows.add((p.t, p.count, &p.sum, &p.counter), fact.last_reset, out)?;
        }
        from = ends[i];
    }
    windows.end(out)
}

/// A sample of an aggregate chunk.
struct Point {
    t: i64,
    count: f64,
    sum: Arc<FloatHistogram>,
    counter: Arc<FloatHistogram>,
}

/// The samples after `last_t`, which goes on, of which all three aggregates are there.
fn points(chunk: &AggrChunk, last_t: &mut i64) -> Result<Vec<Point>, ChunkError> {
    let part = |which| {
        let mut samples = SampleColumns::default();
        match chunk.get(which, 0, 0) {
            Some(part) => part.decode_into(TimeRange::ALL, &mut samples).map(|()| samples),
            None => Ok(samples),
        }
    };
    let (counts, sums, counters) =
        (part(Aggregate::Count)?, part(Aggregate::Sum)?, part(Aggregate::Counter)?);
    let mut out = Vec::with_capacity(counts.len());
    for (i, &t) in counts.ts.iter().enumerate() {
        let at = |samples: &SampleColumns| {
            let j = samples.ts.binary_search(&t).ok()?;
            samples.histogram(j).filter(|h| !h.sum.is_nan()).cloned()
        };
        if let (Some(sum), Some(counter), true) = (at(&sums), at(&counters), t > *last_t) {
            *last_t = t;
            out.push(Point { t, count: counts.values[i], sum, counter });
        }
    }
    Ok(out)
}

/// Calls `f` with each histogram, but for stale markers and those that go back in time.
fn each_raw(
    chunks: &[Chunk],
    mut f: impl FnMut(i64, &Arc<FloatHistogram>) -> Result<(), ChunkError>,
) -> Result<(), ChunkError> {
    for chunk in chunks {
        let mut last_t = i64::MIN;
        chunk.each_histogram(|t, h| {
            if is_stale_nan(h.sum) || t <= last_t {
                return Ok(());
            }
            last_t = t;
            f(t, &h)
        })?;
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
    /// The counter was reset before it, and not again before the next one that starts.
    last_reset: bool,
}

/// Gathers them.
#[derive(Default)]
struct Facts {
    list: Vec<Fact>,
    /// The last one that was a number.
    before: Option<Arc<FloatHistogram>>,
    last_reset: Option<usize>,
}

impl Facts {
    fn add(&mut self, t: i64, h: &Arc<FloatHistogram>) {
        let gauge = h.counter_reset == CounterReset::Gauge;
        let nan = h.sum.is_nan();
        let mut fact = Fact { t, schema: h.schema, gauge, nan, starts: false, last_reset: false };
        if !nan && let Some(before) = self.before.replace(Arc::clone(h)) {
            fact.starts = gauge != (before.counter_reset == CounterReset::Gauge)
                || h.uses_custom_buckets() != before.uses_custom_buckets()
                || h.custom_values != before.custom_values;
            if fact.starts {
                self.close();
            } else if !gauge && h.detect_reset(&before) {
                self.last_reset = Some(self.list.len());
            }
        }
        self.list.push(fact);
    }

    fn close(&mut self) {
        if let Some(i) = self.last_reset.take() {
            self.list[i].last_reset = true;
        }
    }

    fn finish(mut self) -> Vec<Fact> {
        self.close();
        self.list
    }
}

/// Samples that become a chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Batch {
    /// Index of the first sample.
    from: usize,
    /// Time of the last sample that is a number.
    last_t: i64,
    schema: i32,
    gauge: bool,
}

impl Batch {
    fn of(facts: &[Fact], from: usize, to: usize) -> Batch {
        let numbers = || facts[from..to].iter().filter(|f| !f.nan);
        Batch {
            from,
            last_t: numbers().next_back().map_or(i64::MIN, |f| f.t),
            schema: numbers().map(|f| f.schema).min().unwrap_or_default(),
            gauge: numbers().next().is_some_and(|f| f.gauge),
        }
    }
}

/// Cuts samples into batches: where they cannot go together, and where a chunk has become long enough, at the end of a
/// window.
fn batches(facts: &[Fact], resolution_ms: i64) -> Vec<Batch> {
    let mut out = Vec::new();
    let mut from = 0;
    while from < facts.len() {
        let run_end = from + 1 + facts[from + 1..].iter().take_while(|f| !f.starts).count();
        let (mint, maxt, run) = (facts[from].t, facts[run_end - 1].t, run_end - from);
        let count = window::chunk_count(mint, maxt, RAW_INTERVAL_MS, resolution_ms, run);
        let size = run / count + 1;
        while from < run_end {
            let mut to = (from + size).min(run_end);
            let end = window::end(facts[to - 1].t, resolution_ms);
            to += facts[to..run_end].iter().take_while(|f| f.t <= end).count();
            out.push(Batch::of(facts, from, to));
            from = to;
        }
    }
    out
}

/// Makes samples windows, and the windows of a batch chunks.
struct Windows {
    resolution_ms: i64,
    batch: Batch,
    open: Option<Open>,
    counter: Counter,
    chunk: Option<Building>,
}

/// A window that may get more samples.
struct Open {
    end: i64,
    count: f64,
    sum: FloatHistogram,
    /// The counter's total from before its last reset, where that is in this window.
    frozen: Option<FloatHistogram>,
}

/// A counter with its resets applied.
#[derive(Default)]
struct Counter {
    /// What it came to before the resets that are applied.
    before: Option<FloatHistogram>,
    last: Option<Arc<FloatHistogram>>,
    /// The last total, where the next one is a raw value again.
    gives_way: Option<FloatHistogram>,
}

impl Windows {
    fn new(resolution_ms: i64) -> Windows {
        let batch = Batch { from: 0, last_t: i64::MIN, schema: 0, gauge: false };
        Windows { resolution_ms, batch, open: None, counter: Counter::default(), chunk: None }
    }

    /// Ends a batch, and begins the next one; with a counter of its own where its samples do not go with those before.
    fn begin(&mut self, batch: Batch, starts: bool, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        self.end(out)?;
        self.batch = batch;
        if starts {
            self.counter = Counter::default();
        }
        Ok(())
    }

    fn add(
        &mut self,
        (t, count, sum, counter): (i64, f64, &FloatHistogram, &Arc<FloatHistogram>),
        last_reset: bool,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        if self.open.as_ref().is_some_and(|open| t > open.end) {
            self.close(out)?;
        }
        let before_reset = self.count(counter, last_reset)?;
        let sum = self.in_schema(sum)?;
        match &mut self.open {
            Some(open) => {
                open.count += count;
                open.sum.add(&sum).map_err(mixed)?;
                open.frozen = before_reset.or(open.frozen.take());
            }
            None => {
                let end = window::end(t, self.resolution_ms).min(self.batch.last_t);
                self.open = Some(Open { end, count, sum: sum.into_owned(), frozen: None });
                // The window before ended with it.
                self.counter.gives_way = before_reset.or(self.counter.gives_way.take());
            }
        }
        Ok(())
    }

    /// Goes on with the counter. Gives the total from before the last reset.
    fn count(
        &mut self,
        h: &Arc<FloatHistogram>,
        last_reset: bool,
    ) -> Result<Option<FloatHistogram>, ChunkError> {
        let Some(last) = self.counter.last.replace(Arc::clone(h)) else { return Ok(None) };
        if self.batch.gauge || !h.detect_reset(&last) {
            return Ok(None);
        }
        let total = self.total(&last)?;
        if last_reset {
            self.counter.before = None;
            return Ok(Some(total));
        }
        self.counter.before = Some(total);
        Ok(None)
    }

    /// A raw value with what was before.
    fn total(&self, raw: &FloatHistogram) -> Result<FloatHistogram, ChunkError> {
        let mut total = self.in_schema(raw)?.into_owned();
        if let Some(before) = &self.counter.before {
            total.add(self.in_schema(before)?.as_ref()).map_err(mixed)?;
        }
        // Whoever asks compares.
        total.counter_reset = if self.batch.gauge { CounterReset::Gauge } else { CounterReset::Unknown };
        Ok(total)
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
        let (Some(open), Some(last)) = (self.open.take(), self.counter.last.clone()) else { return Ok(()) };
        let Open { end, count, mut sum, frozen } = open;
        let mut ends_chunk = false;
        let counter = match frozen {
            Some(total) => {
                self.counter.gives_way = Some(total.clone());
                total
            }
            None => {
                let mut counter = self.total(&last)?;
                if let Some(before) = self.counter.gives_way.take() {
                    // Where the counter has already grown over it, nobody would see the reset.
                    ends_chunk = counter.detect_reset(&before);
                    if !ends_chunk {
                        self.counter.before = Some(before);
                        counter = self.total(&last)?;
                    }
                }
                counter
            }
        };
        // Sums go up and down, whatever they are of.
        sum.counter_reset = CounterReset::Gauge;
        let point = (end, count, &sum, &counter);
        let next = match &mut self.chunk {
            Some(chunk) if !ends_chunk => chunk.append(point)?,
            _ => Some(Building::new(point)?),
        };
        if let Some(next) = next {
            out.extend(self.chunk.replace(next).map(Building::finish));
        }
        Ok(())
    }

    /// Ends a batch.
    fn end(&mut self, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        self.close(out)?;
        out.extend(self.chunk.take().map(Building::finish));
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
