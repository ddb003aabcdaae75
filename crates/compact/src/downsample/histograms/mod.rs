//! Native histograms: raw samples to aggregates, and aggregates to coarser ones.
//!
//! ```text
//! chunks ─ samples in buffers that stay ─ run: windows as flat numbers (run.rs) ─ batches ─ aggregate chunks (windows.rs)
//! ```
//!
//! A run is samples that can share a chunk. It is read once: windows depend on time alone, and where chunks begin, how fine
//! their buckets are and which reset of a counter is the last one is known at the run's end. Samples of a chunk have one layout, so
//! they are added number by number; only where the layout changes inside a window are histograms made of them, in the end.
//!
//! A histogram's counter aggregate has no place for raw first and last values, as that of floats has them. Where totals are
//! above the raw values, as they are behind a reset, a reader takes the next chunk's (or block's) lower values for another
//! reset. So totals are carried on from chunk to chunk, and at the last reset of a series they give way to the raw values again,
//! with which the next block begins: the window in which the counter was reset shows the total from before the reset, and
//! the next one, in a new chunk, the raw value, which holds all that was counted since. (Thanos begins anew with each chunk.)
//!
//! All histograms of a chunk have one schema, the coarsest of its batch. Memory: 16 bytes a bucket and window of one run; 1.7 MB for
//! 14 days of 24 buckets at five minutes.

mod run;
mod windows;

use chronolith_chunk::{AggrChunk, Aggregate, Chunk, ChunkError, Encoding, HistogramReader, SampleColumns};
use chronolith_model::{TimeRange, is_stale_nan};

use run::Run;
use windows::Windows;

/// Downsamples histograms, keeping its buffers.
#[derive(Debug, Default)]
pub(super) struct Histograms {
    run: Run,
    windows: Windows,
}

impl Histograms {
    /// Downsamples raw chunks of histograms in time order.
    pub(super) fn raw(
        &mut self,
        chunks: &[Chunk],
        resolution_ms: i64,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        self.run.begin(resolution_ms);
        let mut last_t = i64::MIN;
        for chunk in chunks {
            let Some(mut reader) = HistogramReader::of(chunk)? else { continue };
            let mut layout = None;
            while let Some(t) = reader.advance()? {
                let numbers = reader.numbers();
                if is_stale_nan(numbers[2]) || t <= last_t {
                    continue;
                }
                last_t = t;
                if numbers[2].is_nan() {
                    self.run.add_nan(t);
                    continue;
                }
                let layout = match layout {
                    Some(layout) => layout,
                    None => {
                        if self.run.starts_anew(&reader) {
                            self.raw_run(out)?;
                            self.run.begin(resolution_ms);
                        }
                        *layout.insert(self.run.place(reader.layout()))
                    }
                };
                self.run.add(t, 1.0, (&reader, layout), None);
            }
        }
        self.raw_run(out)
    }

    fn raw_run(&mut self, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        self.run.end();
        self.windows.write(&self.run, &self.run.batches_by_size(), out)
    }

    /// Puts chunks of aggregates of histograms together to coarser ones, at most `size` to one.
    pub(super) fn aggregates(
        &mut self,
        chunks: &[AggrChunk],
        size: usize,
        resolution_ms: i64,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        self.run.begin(resolution_ms);
        let (mut in_group, mut last_t) = (0, i64::MIN);
        let mut counts = SampleColumns::default();
        for chunk in chunks {
            if in_group == size {
                self.run.cut();
                in_group = 0;
            }
            in_group += 1;
            let part = |which| chunk.get(which, 0, 0);
            let (Some(count), Some(sum), Some(counter)) =
                (part(Aggregate::Count), part(Aggregate::Sum), part(Aggregate::Counter))
            else {
                continue;
            };
            counts.clear();
            count.decode_into(TimeRange::ALL, &mut counts)?;
            let (Some(mut sums), Some(mut counters)) =
                (HistogramReader::of(&sum)?, HistogramReader::of(&counter)?)
            else {
                continue;
            };
            let (mut sum_t, mut counter_t) = (sums.advance()?, counters.advance()?);
            let mut layouts = None;
            for (&t, &count) in counts.ts.iter().zip(&counts.values) {
                while sum_t.is_some_and(|x| x < t) {
                    sum_t = sums.advance()?;
                }
                while counter_t.is_some_and(|x| x < t) {
                    counter_t = counters.advance()?;
                }
                let nan = || sums.numbers()[2].is_nan() || counters.numbers()[2].is_nan();
                if t <= last_t || sum_t != Some(t) || counter_t != Some(t) || nan() {
                    continue;
                }
                last_t = t;
                let (sum_layout, counter_layout) = match layouts {
                    Some(layouts) => layouts,
                    None => {
                        if self.run.starts_anew(&counters) {
                            self.aggregate_run(out)?;
                            self.run.begin(resolution_ms);
                            in_group = 1;
                        }
                        *layouts.insert((self.run.place(sums.layout()), self.run.place(counters.layout())))
                    }
                };
                self.run.add(t, count, (&counters, counter_layout), Some((&sums, sum_layout)));
            }
        }
        self.aggregate_run(out)
    }

    fn aggregate_run(&mut self, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        self.run.end();
        self.windows.write(&self.run, &self.run.batches_by_cut(), out)
    }
}

/// Histograms that do not go together, although they were sorted so that they do.
fn mixed<E>(_: E) -> ChunkError {
    let reason = "histograms of one window cannot be put together";
    ChunkError::Corrupt { encoding: Encoding::FloatHistogram, sample: 0, reason }
}
