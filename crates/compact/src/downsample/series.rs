//! One series: its chunks sorted into runs of floats and of histograms.

use chronolith_chunk::{AggrChunk, Chunk, ChunkError, Encoding};
use chronolith_model::Resolution;

use super::floats::Floats;
use super::histograms::Histograms;
use super::window;

/// Downsamples series after series, keeping its buffers.
#[derive(Debug)]
pub struct SeriesDownsampler {
    from: Resolution,
    to: Resolution,
    floats: Floats,
    histograms: Histograms,
}

impl SeriesDownsampler {
    /// From blocks of resolution `from` to those of `to`, which is coarser.
    pub fn new(from: Resolution, to: Resolution) -> Self {
        SeriesDownsampler { from, to, floats: Floats::default(), histograms: Histograms::default() }
    }

    /// Appends the aggregate chunks of one series, whose chunks come in time order. Raw chunks may overlap.
    pub fn downsample(&mut self, chunks: Vec<Chunk>, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        if self.from == Resolution::Raw {
            self.raw(chunks, self.to, out)
        } else {
            self.aggregates(chunks, out)
        }
    }

    fn raw(&mut self, chunks: Vec<Chunk>, to: Resolution, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        if chunks.windows(2).any(|w| w[1].mint <= w[0].maxt) {
            return self.overlapping(chunks, to, out);
        }
        for run in chunks.chunk_by(|a, b| a.encoding.is_float() == b.encoding.is_float()) {
            if run[0].encoding.is_float() {
                self.floats.raw(run, to.ms(), out)?;
            } else {
                self.histograms.raw(run, to.ms(), out)?;
            }
        }
        Ok(())
    }

    /// What a foreign block may hold; ours never do.
    fn overlapping(
        &mut self,
        chunks: Vec<Chunk>,
        to: Resolution,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        if chunks.iter().all(|c| c.encoding.is_float()) {
            return self.floats.overlapping(chunks, to.ms(), out);
        }
        let mut samples = chronolith_chunk::SampleColumns::default();
        chronolith_dedup::merge_overlapping(chunks, chronolith_model::TimeRange::ALL, &mut samples)?;
        self.raw(chronolith_chunk::encode_columns(&samples)?, to, out)
    }

    fn aggregates(&mut self, chunks: Vec<Chunk>, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        let mut aggregates = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if chunk.encoding == Encoding::Aggregate {
                aggregates.push(chunk);
            } else if chunk.sample_count()? > 0 {
                // Thanos once let raw chunks into downsampled blocks.
                self.raw(vec![chunk], self.from, &mut aggregates)?;
            }
        }
        if aggregates.windows(2).any(|w| w[1].mint <= w[0].maxt) {
            let reason = "it overlaps the one before it";
            return Err(ChunkError::Corrupt { encoding: Encoding::Aggregate, sample: 0, reason });
        }
        let mut parsed = Vec::with_capacity(aggregates.len());
        for chunk in &aggregates {
            parsed.push((chunk.mint, chunk.maxt, AggrChunk::parse(&chunk.data)?));
        }
        for run in parsed.chunk_by(|a, b| a.2.is_histogram() == b.2.is_histogram()) {
            let mut samples = 0;
            for (_, _, chunk) in run {
                samples += chunk.sample_count()?;
            }
            let (mint, maxt) = (run[0].0, run[run.len() - 1].1);
            let count = window::chunk_count(mint, maxt, self.from.ms(), self.to.ms(), samples);
            let size = (run.len() / count).max(1);
            // Only whole chunks are put together: their first and last counter values are the series' own.
            let run: Vec<AggrChunk> = run.iter().map(|(_, _, chunk)| chunk.clone()).collect();
            if run[0].is_histogram() {
                self.histograms.aggregates(&run, size, self.to.ms(), out)?;
                continue;
            }
            for group in run.chunks(size) {
                out.extend(self.floats.aggregates(group, self.to.ms())?);
            }
        }
        Ok(())
    }
}
