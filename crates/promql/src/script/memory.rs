//! Series in memory, behaving as a TSDB head would: the storage of scripts and of tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronolith_chunk::SampleColumns;
use chronolith_model::histogram::CounterReset;
use chronolith_model::{FloatHistogram, Labels};

use crate::queryable::{
    QueryContext, Queryable, QueryableError, SelectRequest, Series, SeriesData, SeriesSet,
};

/// Series in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    series: BTreeMap<Labels, Stored>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    samples: SampleColumns,
    chunk: Option<HistogramChunk>,
}

/// What the head remembers of a histogram chunk that it appends to.
#[derive(Clone, Debug)]
struct HistogramChunk {
    last: Arc<FloatHistogram>,
    bytes: usize,
    samples: usize,
}

/// Size and fill at which the head cuts a histogram chunk.
const CHUNK_BYTES: usize = 1024;
const CHUNK_SAMPLES_MIN: usize = 10;

impl MemoryStorage {
    /// An empty storage.
    pub fn new() -> Self {
        Self::default()
    }

    /// All series, in label order.
    pub fn series(&self) -> impl Iterator<Item = (&Labels, &SampleColumns)> {
        self.series.iter().map(|(labels, stored)| (labels, &stored.samples))
    }

    /// Appends a float. Errors: the sample is not newer than the newest of its series.
    pub fn append_float(&mut self, labels: &Labels, t: i64, v: f64, st: i64) -> Result<(), String> {
        let stored = self.stored(labels, t)?;
        stored.samples.push_float(t, v);
        stored.samples.set_last_start_ts(st);
        stored.chunk = None;
        Ok(())
    }

    /// Appends a histogram, with the counter reset hint that a reader of a chunk would see.
    pub fn append_histogram(
        &mut self,
        labels: &Labels,
        t: i64,
        mut h: FloatHistogram,
        st: i64,
    ) -> Result<(), String> {
        let stored = self.stored(labels, t)?;
        let gauge = h.counter_reset == CounterReset::Gauge;
        // Timestamps cost little; counts cost up to their width.
        let size = 6 + (h.positive_buckets.len() + h.negative_buckets.len()) * 6;
        let continues = stored.chunk.as_ref().is_some_and(|chunk| {
            let full = chunk.bytes >= CHUNK_BYTES && chunk.samples >= CHUNK_SAMPLES_MIN;
            let last = &chunk.last;
            !full
                && h.counter_reset != CounterReset::Reset
                && gauge == (last.counter_reset == CounterReset::Gauge)
                && h.schema == last.schema
                && h.zero_threshold == last.zero_threshold
                && h.custom_values == last.custom_values
                && (gauge || {
                    let unknown = |h: &FloatHistogram| FloatHistogram {
                        counter_reset: CounterReset::Unknown,
                        ..h.clone()
                    };
                    !unknown(&h).detect_reset(&unknown(last))
                })
        });
        if !gauge {
            h.counter_reset = if continues { CounterReset::NotReset } else { CounterReset::Unknown };
        }
        let h = Arc::new(h);
        match &mut stored.chunk {
            Some(chunk) if continues => {
                chunk.last = Arc::clone(&h);
                chunk.bytes += size;
                chunk.samples += 1;
            }
            chunk => *chunk = Some(HistogramChunk { last: Arc::clone(&h), bytes: size, samples: 1 }),
        }
        stored.samples.push_histogram(t, h);
        stored.samples.set_last_start_ts(st);
        Ok(())
    }

    fn stored(&mut self, labels: &Labels, t: i64) -> Result<&mut Stored, String> {
        let stored = self.series.entry(labels.clone()).or_default();
        match stored.samples.ts.last() {
            Some(last) if *last >= t => Err(format!("{labels}: sample at {t} is not newer than {last}")),
            _ => Ok(stored),
        }
    }
}

impl Queryable for MemoryStorage {
    fn select(
        &self,
        request: &SelectRequest<'_>,
        _cx: &QueryContext,
    ) -> Result<Box<dyn SeriesSet>, QueryableError> {
        let mut found = Vec::new();
        for (labels, stored) in &self.series {
            let matches = |m: &chronolith_model::Matcher| m.matches(labels.get(&m.name).unwrap_or_default());
            if !request.matchers.iter().all(matches) {
                continue;
            }
            let ts = &stored.samples.ts;
            let from = ts.partition_point(|t| *t < request.range.mint);
            let to = ts.partition_point(|t| *t <= request.range.maxt);
            if from < to {
                let mut samples = SampleColumns::default();
                samples.extend_from(&stored.samples, from, to);
                found.push(Series { labels: labels.clone(), data: SeriesData::Columns(samples) });
            }
        }
        Ok(Box::new(Found(found.into_iter())))
    }
}

struct Found(std::vec::IntoIter<Series>);

impl SeriesSet for Found {
    fn next(&mut self) -> Result<Option<Series>, QueryableError> {
        Ok(self.0.next())
    }
}
