//! `analyze --extended`: how full chunks are, and how large. Every chunk of the series looked at is read.

use std::collections::BTreeMap;
use std::io::Write;

use chronolith_chunk::{Chunk, ChunkError, Encoding};
use chronolith_model::SampleValue;
use chronolith_tsdb::block::Block;
use serde_json::{Value, json};

use crate::output::line;
use crate::progress::Progress;
use crate::{Result, ToolError};

/// How often each value occurs.
#[derive(Debug, Default)]
struct Counts(BTreeMap<u64, u64>);

/// What is counted of chunks, with promtool's titles.
#[derive(Debug)]
pub(super) struct Extended {
    chunks: u64,
    counts: [(&'static str, Counts); 5],
}

impl Extended {
    /// Reads the chunks of these series.
    pub(super) fn read(block: &Block, refs: &[u32]) -> Result<Self> {
        let titles = [
            "samples per float chunk",
            "bytes per float chunk",
            "samples per histogram chunk",
            "bytes per histogram chunk",
            "buckets per histogram chunk",
        ];
        let mut all = Extended { chunks: 0, counts: titles.map(|title| (title, Counts::default())) };
        let mut progress = Progress::new("reading series", refs.len());
        for series in block.select_refs(refs.to_vec()) {
            let (labels, chunks) = series?;
            for chunk in &chunks {
                all.add(chunk).map_err(|source| ToolError::Chunk {
                    place: format!("series {labels}, chunk at {}", chunk.mint),
                    source,
                })?;
            }
            progress.step(&labels);
        }
        Ok(all)
    }

    fn add(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        self.chunks += 1;
        // Of a downsampled block's chunks nothing is counted, as promtool does not know them.
        if chunk.encoding == Encoding::Aggregate {
            return Ok(());
        }
        let (samples, bytes) = (chunk.sample_count()? as u64, chunk.data.len() as u64);
        let mut buckets = None;
        for sample in chunk.iter()? {
            let found = match sample?.1 {
                // A chunk holds samples of one kind.
                SampleValue::Float(_) => break,
                SampleValue::Histogram(h) => h.positive_buckets.len() + h.negative_buckets.len(),
                SampleValue::FloatHistogram(h) => h.positive_buckets.len() + h.negative_buckets.len(),
            };
            *buckets.get_or_insert(0) += found as u64;
        }
        let first = if buckets.is_some() { 2 } else { 0 };
        let of_kind = [Some(samples), Some(bytes), buckets];
        for ((_, counts), value) in self.counts[first..].iter_mut().zip(of_kind) {
            if let Some(value) = value {
                *counts.0.entry(value).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Prints all of it as promtool does.
    pub(super) fn print(&self, out: &mut dyn Write) -> Result<()> {
        line(out, format_args!("\nCompaction analysis:\n"))?;
        for (title, counts) in &self.counts {
            let Some((min, avg, max)) = counts.summary() else {
                line(out, format_args!("{title}: N/A\n"))?;
                continue;
            };
            line(out, format_args!("{title} (min/avg/max): {min}/{avg}/{max}"))?;
            let buckets = counts.buckets();
            let width =
                |f: fn(&(u64, u64, u64)) -> u64| buckets.iter().map(f).max().unwrap_or(0).to_string().len();
            let (left, right, count) = (width(|b| b.1), width(|b| b.1), width(|b| b.2));
            for (from, to, n) in &buckets {
                let bar = "#".repeat(usize::try_from(100 * n / self.chunks.max(1)).unwrap_or(100));
                line(out, format_args!("[{:left$}, {to:right$}]: {n:count$} {bar}", from + 1))?;
            }
            line(out, format_args!(""))?;
        }
        Ok(())
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        let of = |(title, counts): &(&str, Counts)| {
            let summary = counts.summary().map(|(min, avg, max)| json!({"min": min, "avg": avg, "max": max}));
            let buckets: Vec<Value> = counts
                .buckets()
                .iter()
                .map(|(from, to, n)| json!({"from": from + 1, "to": to, "count": n}))
                .collect();
            json!({"title": title, "summary": summary, "buckets": buckets})
        };
        Value::Array(self.counts.iter().map(of).collect())
    }
}

impl Counts {
    /// Least, mean and greatest value.
    fn summary(&self) -> Option<(u64, u64, u64)> {
        let (min, max) = (*self.0.keys().next()?, *self.0.keys().next_back()?);
        let (n, sum) =
            self.0.iter().fold((0, 0), |(n, sum), (value, count)| (n + count, sum + value * count));
        Some((min, sum / n, max))
    }

    /// About ten stretches of equal length: first value less one, last value, how many. promtool's.
    fn buckets(&self) -> Vec<(u64, u64, u64)> {
        let Some((min, _, max)) = self.summary() else { return Vec::new() };
        let (tenth, mut step) = ((max - min) / 10, 10);
        while step < tenth && step <= 10_000 {
            step *= 10;
        }
        let (start, end) = (min - min % step, max - max % step + step);
        let mut buckets: Vec<(u64, u64, u64)> =
            (0..=(end - start) / step).map(|i| (start + i * step, start + (i + 1) * step, 0)).collect();
        for (value, count) in &self.0 {
            buckets[((value - start) / step) as usize].2 += count;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_promtools() {
        let counts = Counts([(7, 1), (12, 2), (120, 4)].into());
        assert_eq!(counts.summary(), Some((7, (7 + 24 + 480) / 7, 120)));
        let buckets = counts.buckets();
        assert_eq!((buckets[0], buckets[1]), ((0, 100, 3), (100, 200, 4)));
        assert_eq!(buckets.len(), 3, "promtool prints one more than there is");
        assert_eq!(Counts::default().buckets(), []);
    }
}
