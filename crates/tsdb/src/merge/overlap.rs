//! Chunks of one series that overlap in time, made into chunks that do not.

use chronolith_chunk::{Chunk, ChunkError, Encoding, SampleColumns, encode_floats};
use chronolith_dedup::replicas;
use chronolith_model::TimeRange;

use super::Deduplication;
use crate::block::{AnySample, decode_samples, encode_samples, merge_group};

/// A chunk and the input that it is from.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) input: usize,
    pub(super) chunk: Chunk,
}

type Failed = (Option<usize>, ChunkError);

/// Chunks in time order without overlaps. What overlaps nothing is passed on as it is.
pub(super) fn deduplicate(mut pieces: Vec<Piece>, how: Deduplication) -> Result<Vec<Chunk>, Failed> {
    pieces.sort_by_key(|p| p.chunk.mint);
    let mut out = Vec::with_capacity(pieces.len());
    let mut rest = &pieces[..];
    while let Some(first) = rest.first() {
        let mut end = first.chunk.maxt;
        let mut count = 1;
        while let Some(next) = rest.get(count).filter(|p| p.chunk.mint <= end) {
            end = end.max(next.chunk.maxt);
            count += 1;
        }
        let (group, later) = rest.split_at(count);
        merge(group, how, &mut out)?;
        rest = later;
    }
    Ok(out)
}

fn merge(group: &[Piece], how: Deduplication, out: &mut Vec<Chunk>) -> Result<(), Failed> {
    // Copies of one block have equal chunks; they need no decoding.
    if group.iter().all(|p| p.chunk == group[0].chunk) {
        out.push(group[0].chunk.clone());
        return Ok(());
    }
    if let Some(p) = group.iter().find(|p| p.chunk.encoding == Encoding::Aggregate) {
        let reason = "downsampled chunks that overlap cannot be merged";
        return Err((Some(p.input), ChunkError::Unsupported { encoding: p.chunk.encoding, reason }));
    }
    match how {
        Deduplication::OneToOne => {
            let chunks: Vec<Chunk> = group.iter().map(|p| p.chunk.clone()).collect();
            merge_group(&chunks, out).map_err(|e| (None, e))
        }
        Deduplication::Penalty => penalty(group, out),
    }
}

/// Follows one replica; each input is one. Only times decide, so instead of values the columns carry the numbers of the samples,
/// and whatever kind they are of comes back unchanged.
fn penalty(group: &[Piece], out: &mut Vec<Chunk>) -> Result<(), Failed> {
    let mut inputs: Vec<usize> = group.iter().map(|p| p.input).collect();
    inputs.sort_unstable();
    inputs.dedup();
    let floats = group.iter().all(|p| p.chunk.encoding == Encoding::Xor);
    let mut samples: Vec<AnySample> = Vec::new();
    let mut columns = Vec::with_capacity(inputs.len());
    for input in inputs {
        let chunks: Vec<Chunk> = group.iter().filter(|p| p.input == input).map(|p| p.chunk.clone()).collect();
        let failed = |e| (Some(input), e);
        // A block with out-of-order chunks overlaps itself.
        let mut own = Vec::with_capacity(chunks.len());
        if chunks.windows(2).all(|w| w[0].maxt < w[1].mint) {
            own = chunks;
        } else {
            merge_group(&chunks, &mut own).map_err(failed)?;
        }
        let mut replica = SampleColumns::default();
        for chunk in &own {
            if floats {
                chunk.decode_into(TimeRange::ALL, &mut replica).map_err(failed)?;
            } else {
                let from = samples.len();
                decode_samples(chunk, &mut samples).map_err(failed)?;
                for (i, sample) in samples.iter().enumerate().skip(from) {
                    replica.push_float(sample.t, i as f64);
                }
            }
        }
        columns.push(replica);
    }
    // The replica that begins first leads, as it would for a reader of the blocks.
    columns.sort_by_key(|c| c.ts.first().copied());
    let mut chosen = SampleColumns::default();
    replicas::dedup(&columns, false, &mut chosen);
    if floats {
        out.extend(encode_floats(&chosen.ts, &chosen.values));
    } else {
        let chosen: Vec<AnySample> = chosen.values.iter().map(|i| samples[*i as usize].clone()).collect();
        out.extend(encode_samples(&chosen).map_err(|e| (None, e))?);
    }
    Ok(())
}
