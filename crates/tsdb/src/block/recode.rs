//! Decoding chunks and encoding them anew, where samples must be merged or left out.

use chronolith_chunk::{Chunk, ChunkError, Encoding, XorEncoder};
use chronolith_model::{SampleValue, TimeRange};

/// The samples of `chunk` outside all of the `deleted` ranges, as chunks.
pub(super) fn without_ranges(chunk: &Chunk, deleted: &[TimeRange]) -> Result<Vec<Chunk>, ChunkError> {
    let mut samples = Vec::new();
    for sample in chunk.iter()? {
        let (t, value) = sample?;
        if !deleted.iter().any(|r| r.contains(t)) {
            samples.push((t, value));
        }
    }
    encode(&samples)
}

/// One series' chunks out of several blocks as chunks in time order that do not overlap. Chunks that overlap no
/// other are passed on as they are; of equal timestamps the sample of the chunk that begins first stays, and among
/// those the one that comes first in `chunks`.
pub(crate) fn merge_overlapping(mut chunks: Vec<Chunk>) -> Result<Vec<Chunk>, ChunkError> {
    chunks.sort_by_key(|c| c.mint);
    if chunks.windows(2).all(|w| w[0].maxt < w[1].mint) {
        return Ok(chunks);
    }
    let mut out = Vec::with_capacity(chunks.len());
    let mut rest = &mut chunks[..];
    while !rest.is_empty() {
        let mut end = rest[0].maxt;
        let mut count = 1;
        while count < rest.len() && rest[count].mint <= end {
            end = end.max(rest[count].maxt);
            count += 1;
        }
        let (group, later) = rest.split_at_mut(count);
        merge_group(group, &mut out)?;
        rest = later;
    }
    Ok(out)
}

fn merge_group(group: &[Chunk], out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    // Replicas of one block send equal chunks; they need no decoding.
    if group.iter().all(|c| *c == group[0]) {
        out.push(group[0].clone());
        return Ok(());
    }
    let mut samples = Vec::new();
    for chunk in group {
        for sample in chunk.iter()? {
            samples.push(sample?);
        }
    }
    samples.sort_by_key(|(t, _)| *t);
    samples.dedup_by_key(|(t, _)| *t);
    out.extend(encode(&samples)?);
    Ok(())
}

/// Chunk size at which a new one begins, as Prometheus does when it encodes outside the head: a chunk of 1024 bytes
/// less what the largest sample may still need.
const XOR_BYTES_MAX: usize = 1024 - 19;

fn encode(samples: &[(i64, SampleValue)]) -> Result<Vec<Chunk>, ChunkError> {
    let mut out = Vec::new();
    let mut floats: Option<(XorEncoder, i64, i64)> = None;
    for (t, value) in samples {
        match value {
            SampleValue::Float(v) => {
                if floats.as_ref().is_some_and(|(e, ..)| e.bytes_len() > XOR_BYTES_MAX)
                    && let Some((encoder, mint, maxt)) = floats.take()
                {
                    out.push(encoder.finish_chunk(mint, maxt));
                }
                let (encoder, _, maxt) = floats.get_or_insert_with(|| (XorEncoder::new(), *t, *t));
                encoder.append(*t, *v);
                *maxt = *t;
            }
            SampleValue::Histogram(_) | SampleValue::FloatHistogram(_) => {
                return Err(ChunkError::Unsupported {
                    encoding: Encoding::Histogram,
                    reason: "overlapping histogram chunks cannot be merged yet",
                });
            }
        }
    }
    if let Some((encoder, mint, maxt)) = floats.take() {
        out.push(encoder.finish_chunk(mint, maxt));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_chunk::encode_floats;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn samples(chunks: &[Chunk]) -> Vec<(i64, u64)> {
        let all = chunks.iter().flat_map(|c| c.iter().unwrap());
        all.map(|s| match s.unwrap() {
            (t, SampleValue::Float(v)) => (t, v.to_bits()),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    proptest! {
        #[test]
        fn merging_keeps_each_time_once(
            series in prop::collection::vec(prop::collection::btree_map(0i64..5000, -9i32..9, 1..400), 1..4)
        ) {
            let mut chunks = Vec::new();
            for s in &series {
                let ts: Vec<i64> = s.keys().copied().collect();
                let vs: Vec<f64> = s.values().map(|v| f64::from(*v)).collect();
                chunks.extend(encode_floats(&ts, &vs));
            }
            let merged = merge_overlapping(chunks).unwrap();
            prop_assert!(merged.windows(2).all(|w| w[0].maxt < w[1].mint));
            let got = samples(&merged);
            let mut possible: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
            for (t, v) in series.iter().flatten() {
                possible.entry(*t).or_default().push(f64::from(*v).to_bits());
            }
            prop_assert_eq!(got.len(), possible.len());
            for (t, v) in got {
                prop_assert!(possible[&t].contains(&v));
            }
            for c in &merged {
                let s = samples(std::slice::from_ref(c));
                prop_assert_eq!((s[0].0, s[s.len() - 1].0), (c.mint, c.maxt));
            }
        }
    }

    #[test]
    fn chunks_without_overlap_stay_as_they_are() {
        let ts: Vec<i64> = (0..300).collect();
        let vs: Vec<f64> = ts.iter().map(|t| *t as f64).collect();
        let chunks = encode_floats(&ts, &vs);
        let mut twice = chunks.clone();
        twice.reverse();
        twice.extend(chunks.clone());
        assert_eq!(merge_overlapping(twice).unwrap(), chunks);
        let kept = without_ranges(&chunks[0], &[TimeRange::new(0, 5), TimeRange::new(100, 500)]).unwrap();
        assert_eq!((kept[0].mint, kept[0].maxt, kept.len()), (6, 99, 1));
    }
}
