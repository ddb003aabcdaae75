//! The windows of a run as aggregate chunks.

use std::borrow::Cow;

use chronolith_chunk::{AggrHistogramEncoder, Chunk, ChunkError, HistogramWindow};
use chronolith_model::FloatHistogram;
use chronolith_model::histogram::CounterReset;

use super::mixed;
use super::run::{Batch, Place, Reset, Run};

/// A histogram of a run with memory that stays.
#[derive(Debug, Default)]
struct Scratch {
    h: FloatHistogram,
    /// The layout that it has, where that is one of the run's.
    layout: Option<usize>,
}

impl Scratch {
    fn load(&mut self, run: &Run, place: Place, batch: &Batch) -> Result<(), ChunkError> {
        run.load(place, &mut self.h, &mut self.layout);
        if let Cow::Owned(reduced) = in_schema(&self.h, batch.schema)? {
            (self.h, self.layout) = (reduced, None);
        }
        Ok(())
    }
}

/// Writes windows, keeping its buffers.
#[derive(Debug, Default)]
pub(super) struct Windows {
    sum: Scratch,
    /// What is added to it where layouts are mixed.
    part: Scratch,
    counter: Scratch,
    /// What the counter came to before the resets that are applied.
    before: Option<FloatHistogram>,
    /// The last total, where the next one is a raw value again.
    gives_way: Option<FloatHistogram>,
    chunk: Option<AggrHistogramEncoder>,
}

impl Windows {
    /// Appends the chunks of a run.
    pub(super) fn write(
        &mut self,
        run: &Run,
        batches: &[Batch],
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        (self.before, self.gives_way, self.chunk) = Default::default();
        // Layouts of another run have the same numbers.
        (self.sum.layout, self.part.layout, self.counter.layout) = (None, None, None);
        let mut resets = run.resets.iter().enumerate().peekable();
        for batch in batches {
            for (i, w) in run.windows.iter().enumerate().take(batch.to).skip(batch.from) {
                // The total from before the reset in this window, if that is the run's last one.
                let mut frozen = None;
                while let Some((n, reset)) = resets.next_if(|(_, r)| r.window == i) {
                    self.reset(run, batch, reset, n + 1 == run.resets.len(), &mut frozen)?;
                }
                if w.has_numbers {
                    self.window(run, batch, i, frozen, out)?;
                }
            }
            out.extend(self.chunk.take().map(AggrHistogramEncoder::finish));
        }
        Ok(())
    }

    /// Applies a reset.
    fn reset(
        &mut self,
        run: &Run,
        batch: &Batch,
        reset: &Reset,
        last: bool,
        frozen: &mut Option<FloatHistogram>,
    ) -> Result<(), ChunkError> {
        self.total(run, batch, reset.before)?;
        let total = self.counter.h.clone();
        if !last {
            self.before = Some(total);
            return Ok(());
        }
        self.before = None;
        // Between two windows, the one before ended with it.
        *(if reset.between_windows { &mut self.gives_way } else { frozen }) = Some(total);
        Ok(())
    }

    /// Puts a raw value with what was before into `counter`.
    fn total(&mut self, run: &Run, batch: &Batch, raw: Place) -> Result<(), ChunkError> {
        self.counter.load(run, raw, batch)?;
        if let Some(before) = &self.before {
            self.counter.layout = None;
            self.counter.h.add(in_schema(before, batch.schema)?.as_ref()).map_err(mixed)?;
        }
        // Whoever asks compares.
        let gauge = run.gauge == Some(true);
        self.counter.h.counter_reset = if gauge { CounterReset::Gauge } else { CounterReset::Unknown };
        Ok(())
    }

    /// Writes a window.
    fn window(
        &mut self,
        run: &Run,
        batch: &Batch,
        i: usize,
        frozen: Option<FloatHistogram>,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        let w = &run.windows[i];
        let mut ends_chunk = false;
        if let Some(total) = frozen {
            self.gives_way = Some(total.clone());
            self.counter = Scratch { h: total, layout: None };
        } else {
            self.total(run, batch, w.last)?;
            if let Some(before) = self.gives_way.take() {
                // Where the counter has already grown over it, nobody would see the reset.
                ends_chunk = self.counter.h.detect_reset(&before);
                if !ends_chunk {
                    self.before = Some(before);
                    self.total(run, batch, w.last)?;
                }
            }
        }
        self.sum.load(run, w.sum, batch)?;
        for part in run.parts(i) {
            self.part.load(run, *part, batch)?;
            self.sum.h.add(&self.part.h).map_err(mixed)?;
            self.sum.layout = None;
        }
        // Sums go up and down, whatever they are of.
        self.sum.h.counter_reset = CounterReset::Gauge;
        let t = w.end.min(batch.last_t);
        let point = HistogramWindow { t, count: w.count, sum: &self.sum.h, counter: &self.counter.h };
        let next = match &mut self.chunk {
            Some(chunk) if !ends_chunk => chunk.append(point)?,
            _ => Some(AggrHistogramEncoder::first(point)?),
        };
        if let Some(next) = next {
            out.extend(self.chunk.replace(next).map(AggrHistogramEncoder::finish));
        }
        Ok(())
    }
}

fn in_schema(h: &FloatHistogram, schema: i32) -> Result<Cow<'_, FloatHistogram>, ChunkError> {
    if h.schema > schema && !h.uses_custom_buckets() {
        h.copy_to_schema(schema).map(Cow::Owned).map_err(mixed)
    } else {
        Ok(Cow::Borrowed(h))
    }
}
