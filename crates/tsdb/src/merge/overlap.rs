//! Chunks of one series that overlap in time, made into chunks that do not.

use chronolith_chunk::{Chunk, ChunkError, Encoding, SampleColumns, encode_floats};
use chronolith_dedup::replicas;
use chronolith_model::TimeRange;

use super::{Deduplication, aggregates};
use crate::block::{AnySample, decode_samples, encode_samples, merge_group};

/// A chunk and the input that it is from.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) input: usize,
    pub(super) chunk: Chunk,
}

pub(super) type Failed = (Option<usize>, ChunkError);

/// Where a chunk of this resolution (0 is raw) begins: one of windows has all of its first one.
pub(super) fn begins(mint: i64, resolution_ms: i64) -> i64 {
    if resolution_ms > 0 {
        aggregates::window_end(mint, resolution_ms).saturating_sub(resolution_ms - 1)
    } else {
        mint
    }
}

/// Chunks in time order without overlaps. What overlaps nothing is passed on as it is.
pub(super) fn deduplicate(
    mut pieces: Vec<Piece>,
    how: Deduplication,
    resolution_ms: i64,
) -> Result<Vec<Chunk>, Failed> {
    pieces.sort_by_key(|p| p.chunk.mint);
    let mut out = Vec::with_capacity(pieces.len());
    let mut rest = &pieces[..];
    while let Some(first) = rest.first() {
        let mut end = first.chunk.maxt;
        let mut count = 1;
        while let Some(next) = rest.get(count).filter(|p| begins(p.chunk.mint, resolution_ms) <= end) {
            end = end.max(next.chunk.maxt);
            count += 1;
        }
        if count > 1 && first.chunk.encoding == Encoding::Aggregate && !is_copied(&rest[..count]) {
            // What a counter is ahead where inputs take turns goes on behind them.
            count += rest[count..].iter().take_while(|p| p.chunk.encoding == Encoding::Aggregate).count();
        }
        let (group, later) = rest.split_at(count);
        merge(group, how, resolution_ms, &mut out)?;
        rest = later;
    }
    Ok(out)
}

fn merge(
    group: &[Piece],
    how: Deduplication,
    resolution_ms: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), Failed> {
    // Copies of one block have equal chunks; they need no decoding.
    if is_copied(group) {
        out.push(group[0].chunk.clone());
        return Ok(());
    }
    if group.iter().any(|p| p.chunk.encoding == Encoding::Aggregate) {
        return aggregates::merge(group, how, resolution_ms, out);
    }
    match how {
        Deduplication::OneToOne => {
            let chunks: Vec<Chunk> = group.iter().map(|p| p.chunk.clone()).collect();
            merge_group(&chunks, out).map_err(|e| (None, e))
        }
        Deduplication::Penalty => penalty(group, out),
    }
}

fn is_copied(group: &[Piece]) -> bool {
    group.iter().all(|p| p.chunk == group[0].chunk)
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
