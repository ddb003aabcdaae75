//! Decoding chunks and encoding them anew, where samples must be merged or left out. Where one of the samples has a start
//! timestamp, all go into the encodings that keep these.

use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, ChunkError, Encoding, FloatHistogramEncoder, HistogramEncoder,
    SAMPLES_PER_CHUNK, SampleColumns, Xor2Encoder, XorEncoder, encode_floats,
};
use chronolith_model::{SampleValue, TimeRange};

/// The samples of `chunk` outside all of the `deleted` ranges, as chunks. Of downsampled data whole windows go, by the times at
/// which they stand.
pub fn without_ranges(chunk: &Chunk, deleted: &[TimeRange]) -> Result<Vec<Chunk>, ChunkError> {
    if chunk.encoding == Encoding::Aggregate {
        return Ok(without_windows(chunk, deleted)?.into_iter().collect());
    }
    let mut samples = Vec::new();
    decode(chunk, &mut samples)?;
    samples.retain(|s| !deleted.iter().any(|r| r.contains(s.t)));
    encode_samples(&samples)
}

/// An aggregate chunk without the windows that stand in `deleted`. The parts must go on to agree about their windows, so one
/// of histograms whose rest does not fit into one chunk goes as a whole.
fn without_windows(chunk: &Chunk, deleted: &[TimeRange]) -> Result<Option<Chunk>, ChunkError> {
    let parts = AggrChunk::parse(&chunk.data)?;
    let is_deleted = |t: i64| deleted.iter().any(|r| r.contains(t));
    let (mut out, mut times) = (AggrChunk::default(), None::<(i64, i64)>);
    for which in Aggregate::ALL {
        let Some(part) = parts.get(which, chunk.mint, chunk.maxt) else { continue };
        let mut samples = Vec::new();
        decode(&part, &mut samples)?;
        // A counter ends with the last value as it came, at the time of the last window: the next chunk goes on from it.
        let (last, before) = match samples.as_slice() {
            [.., before, last] => (Some(last.clone()), Some(before.t)),
            _ => (None, None),
        };
        samples.retain(|s| !is_deleted(s.t));
        let raw_last = last.filter(|l| which == Aggregate::Counter && before == Some(l.t) && is_deleted(l.t));
        if let (Some(raw), Some(kept)) = (raw_last, samples.last()) {
            samples.push(AnySample { t: kept.t, ..raw });
        }
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(None) };
        if which == Aggregate::Count || times.is_none() {
            times = Some((first.t, last.t));
        }
        let part = match floats_in_one(&samples) {
            Some(part) => part,
            None => match <[Chunk; 1]>::try_from(encode_samples(&samples)?) {
                Ok([part]) => part,
                Err(_) => return Ok(None),
            },
        };
        out = out.with(which, part.encoding, part.data);
    }
    Ok(times.map(|(mint, maxt)| out.to_chunk(mint, maxt)))
}

/// Floats as one chunk, however many; `None` where there are others.
fn floats_in_one(samples: &[AnySample]) -> Option<Chunk> {
    let mut encoder = XorEncoder::new();
    for sample in samples {
        let SampleValue::Float(v) = sample.value else { return None };
        encoder.append(sample.t, v);
    }
    Some(encoder.finish_chunk(samples.first()?.t, samples.last()?.t))
}

/// Chunks that overlap as chunks that do not; of equal timestamps the sample of the chunk that begins first stays, and among
/// those the one that comes first in `group`, which is sorted by beginning.
pub(crate) fn merge_group(group: &[Chunk], out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    if group.iter().all(|c| c.encoding == Encoding::Xor) {
        return merge_floats(group, out);
    }
    let mut samples = Vec::new();
    for chunk in group {
        decode(chunk, &mut samples)?;
    }
    samples.sort_by_key(|s| s.t);
    samples.dedup_by_key(|s| s.t);
    out.extend(encode_samples(&samples)?);
    Ok(())
}

/// The same where there are only floats, several times as fast.
fn merge_floats(group: &[Chunk], out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    let mut columns = SampleColumns::default();
    for chunk in group {
        chunk.decode_into(TimeRange::ALL, &mut columns)?;
    }
    let mut samples: Vec<(i64, f64)> =
        columns.ts.iter().copied().zip(columns.values.iter().copied()).collect();
    // The sort finds the runs that the chunks are.
    samples.sort_by_key(|(t, _)| *t);
    samples.dedup_by_key(|(t, _)| *t);
    let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().unzip();
    out.extend(encode_floats(&ts, &values));
    Ok(())
}

/// A decoded sample of any kind.
#[derive(Clone, Debug)]
pub(crate) struct AnySample {
    /// Milliseconds; 0 is none.
    pub(crate) start_ts: i64,
    pub(crate) t: i64,
    pub(crate) value: SampleValue,
}

/// Appends the samples of a chunk.
pub(crate) fn decode(chunk: &Chunk, out: &mut Vec<AnySample>) -> Result<(), ChunkError> {
    let mut samples = chunk.iter()?;
    while let Some(sample) = samples.next() {
        let (t, value) = sample?;
        out.push(AnySample { start_ts: samples.start_ts(), t, value });
    }
    Ok(())
}

/// Samples in time order as chunks of their kinds, of [`SAMPLES_PER_CHUNK`] at the most: what Prometheus does when it encodes
/// outside the head.
pub(crate) fn encode_samples(samples: &[AnySample]) -> Result<Vec<Chunk>, ChunkError> {
    let with_start_ts = samples.iter().any(|s| s.start_ts != 0);
    encode(samples, with_start_ts)
}

/// The chunk being filled. A sample of another kind ends it.
enum Open {
    Float(XorEncoder, i64, i64),
    FloatSt(Xor2Encoder, i64, i64),
    Histogram(HistogramEncoder, i64),
    FloatHistogram(FloatHistogramEncoder, i64),
}

impl Open {
    fn finish(self) -> Chunk {
        match self {
            Open::Float(encoder, mint, maxt) => encoder.finish_chunk(mint, maxt),
            Open::FloatSt(encoder, mint, maxt) => encoder.finish_chunk(mint, maxt),
            Open::Histogram(encoder, mint) => {
                let maxt = encoder.last_t();
                encoder.finish_chunk(mint, maxt)
            }
            Open::FloatHistogram(encoder, mint) => {
                let maxt = encoder.last_t();
                encoder.finish_chunk(mint, maxt)
            }
        }
    }
}

/// The first sample of a histogram chunk of either kind, behind `previous`.
macro_rules! first_histogram {
    ($kind:ty, $previous:expr, $with_start_ts:expr, $st:expr, $t:expr, $h:expr) => {
        if $with_start_ts {
            <$kind>::first_with_start_ts($previous, $st, $t, $h)
        } else {
            <$kind>::first($previous, $t, $h)
        }
    };
}

/// Appends to a histogram encoder of either kind; gives the encoder of the next chunk when one had to begin.
macro_rules! append_histogram {
    ($encoder:ident, $kind:ty, $with_start_ts:expr, $st:expr, $t:expr, $h:expr) => {
        if $encoder.sample_count() >= SAMPLES_PER_CHUNK {
            Some(first_histogram!($kind, Some($encoder), $with_start_ts, $st, $t, $h)?)
        } else {
            // Bucket indices too far apart for one chunk's spans.
            $encoder
                .append_with_start_ts($st, $t, $h)
                .or_else(|_| first_histogram!($kind, None, $with_start_ts, $st, $t, $h).map(Some))?
        }
    };
}

/// The start timestamps are all 0 unless `with_start_ts`.
fn encode(samples: &[AnySample], with_start_ts: bool) -> Result<Vec<Chunk>, ChunkError> {
    let mut out = Vec::new();
    let mut open: Option<Open> = None;
    for AnySample { start_ts: st, t, value } in samples {
        let (st, t) = (*st, *t);
        // The chunk to go on with, when it is not the open one.
        let next = match (&mut open, value) {
            (Some(Open::Float(encoder, _, maxt)), SampleValue::Float(v))
                if encoder.sample_count() < SAMPLES_PER_CHUNK =>
            {
                encoder.append(t, *v);
                *maxt = t;
                None
            }
            (Some(Open::FloatSt(encoder, _, maxt)), SampleValue::Float(v))
                if encoder.sample_count() < SAMPLES_PER_CHUNK =>
            {
                encoder.append(st, t, *v)?;
                *maxt = t;
                None
            }
            (_, SampleValue::Float(v)) if with_start_ts => {
                let mut encoder = Xor2Encoder::new();
                encoder.append(st, t, *v)?;
                Some(Open::FloatSt(encoder, t, t))
            }
            (_, SampleValue::Float(v)) => {
                let mut encoder = XorEncoder::new();
                encoder.append(t, *v);
                Some(Open::Float(encoder, t, t))
            }
            (Some(Open::Histogram(encoder, _)), SampleValue::Histogram(h)) => {
                append_histogram!(encoder, HistogramEncoder, with_start_ts, st, t, h)
                    .map(|next| Open::Histogram(next, t))
            }
            (_, SampleValue::Histogram(h)) => {
                let first = first_histogram!(HistogramEncoder, None, with_start_ts, st, t, h)?;
                Some(Open::Histogram(first, t))
            }
            (Some(Open::FloatHistogram(encoder, _)), SampleValue::FloatHistogram(h)) => {
                append_histogram!(encoder, FloatHistogramEncoder, with_start_ts, st, t, h)
                    .map(|next| Open::FloatHistogram(next, t))
            }
            (_, SampleValue::FloatHistogram(h)) => {
                let first = first_histogram!(FloatHistogramEncoder, None, with_start_ts, st, t, h)?;
                Some(Open::FloatHistogram(first, t))
            }
        };
        if let Some(next) = next {
            out.extend(open.replace(next).map(Open::finish));
        }
    }
    out.extend(open.map(Open::finish));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_chunk::encode_floats;
    use chronolith_model::Histogram;
    use chronolith_model::histogram::Span;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    /// All groups of overlapping chunks merged.
    fn merge_overlapping(mut chunks: Vec<Chunk>) -> Result<Vec<Chunk>, ChunkError> {
        chunks.sort_by_key(|c| c.mint);
        let mut out = Vec::new();
        let mut rest = &chunks[..];
        while let Some(first) = rest.first() {
            let (mut end, mut count) = (first.maxt, 1);
            while rest.get(count).is_some_and(|c| c.mint <= end) {
                end = end.max(rest[count].maxt);
                count += 1;
            }
            let (group, later) = rest.split_at(count);
            match group {
                [one] => out.push(one.clone()),
                [first, others @ ..] if others.iter().all(|c| c == first) => out.push(first.clone()),
                _ => merge_group(group, &mut out)?,
            }
            rest = later;
        }
        Ok(out)
    }

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

    #[test]
    fn overlapping_histograms_merge_beside_floats() {
        let histogram = |i: i64| {
            SampleValue::Histogram(Arc::new(Histogram {
                schema: 1,
                count: 3 * (i as u64 + 1),
                sum: i as f64,
                positive_spans: vec![Span { offset: 0, length: 2 }],
                positive_buckets: vec![i + 1, i + 1],
                ..Histogram::default()
            }))
        };
        let sample = |t, value| AnySample { start_ts: 0, t, value };
        let part = |step: i64| -> Vec<_> {
            (0..400).filter(|i| i % step != 1).map(|i| sample(i, histogram(i))).collect()
        };
        let floats: Vec<_> = (400..500).map(|i| sample(i, SampleValue::Float(i as f64))).collect();
        let mut chunks = encode_samples(&part(3)).unwrap();
        chunks.extend(encode_samples(&part(4)).unwrap());
        chunks.extend(encode_samples(&floats).unwrap());
        let merged = merge_overlapping(chunks).unwrap();
        assert!(merged.windows(2).all(|w| w[0].maxt < w[1].mint));
        let encodings: BTreeSet<u8> = merged.iter().map(|c| c.encoding.as_u8()).collect();
        assert_eq!(encodings, BTreeSet::from([1, 2]), "integer histograms stay integer");
        let got: Vec<_> = merged.iter().flat_map(|c| c.iter().unwrap()).map(Result::unwrap).collect();
        let want: Vec<i64> = (0..500).filter(|i| *i >= 400 || i % 3 != 1 || i % 4 != 1).collect();
        assert_eq!(got.iter().map(|(t, _)| *t).collect::<Vec<_>>(), want);
        for (t, value) in got {
            match value {
                SampleValue::Histogram(h) => assert_eq!((h.count, h.sum), (3 * (t as u64 + 1), t as f64)),
                SampleValue::Float(v) => assert_eq!(v, t as f64),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn start_timestamps_survive_a_merge_and_a_deletion() {
        let histogram = Histogram {
            schema: 1,
            count: 2,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![2],
            ..Histogram::default()
        };
        let value = |t: i64| match t {
            0..200 => SampleValue::Float(t as f64),
            200..400 => SampleValue::FloatHistogram(Arc::new(histogram.to_float())),
            _ => SampleValue::Histogram(Arc::new(histogram.clone())),
        };
        let part = |step: i64, start_ts: fn(i64) -> i64| {
            let times = (0..600).filter(move |t| t % step != 1);
            let samples: Vec<_> =
                times.map(|t| AnySample { start_ts: start_ts(t), t, value: value(t) }).collect();
            encode_samples(&samples).unwrap()
        };
        let decoded = |chunks: &[Chunk]| {
            let mut out = Vec::new();
            chunks.iter().for_each(|c| decode(c, &mut out).unwrap());
            out.into_iter().map(|s| (s.start_ts, s.t)).collect::<Vec<_>>()
        };
        let start_ts = |t: i64| t / 50 * 50 - 1000;
        let mut chunks = part(3, start_ts);
        // The second input knows of none.
        chunks.extend(part(4, |_| 0));
        assert_eq!(
            chunks.iter().map(|c| c.encoding.as_u8()).collect::<BTreeSet<_>>(),
            (1..=6).collect::<BTreeSet<u8>>()
        );
        let merged = merge_overlapping(chunks).unwrap();
        assert!(merged.windows(2).all(|w| w[0].maxt < w[1].mint));
        assert!(merged.iter().all(|c| c.encoding.has_start_ts()), "{merged:?}");
        let got = decoded(&merged);
        let times: Vec<i64> = (0..600).filter(|t| t % 3 != 1 || t % 4 != 1).collect();
        assert_eq!(got.iter().map(|s| s.1).collect::<Vec<_>>(), times);
        // Each input begins some of the chunks; what both have may come from either.
        assert!(got.iter().all(|(st, t)| (t % 4 != 1 && *st == 0) || (t % 3 != 1 && *st == start_ts(*t))));
        assert!(got.iter().any(|(st, t)| t % 4 == 1 && *st == start_ts(*t)));

        let kept: Vec<Chunk> = part(1000, start_ts)
            .iter()
            .flat_map(|c| without_ranges(c, &[TimeRange::new(100, 450)]).unwrap())
            .collect();
        let left = (0..600).filter(|t| *t != 1 && !(100..=450).contains(t));
        assert_eq!(decoded(&kept), left.map(|t| (start_ts(t), t)).collect::<Vec<_>>());
    }

    #[test]
    fn windows_are_cut_out_of_all_aggregates() {
        let part = |samples: &[(i64, f64)]| {
            let mut encoder = XorEncoder::new();
            samples.iter().for_each(|(t, v)| encoder.append(*t, *v));
            encoder.finish()
        };
        let windows = |v: f64| part(&[(10, v), (20, v + 1.0), (30, v + 2.0)]);
        let mut parts = AggrChunk::default();
        for which in [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max] {
            parts = parts.with(which, Encoding::Xor, windows(f64::from(which as u8)));
        }
        // First raw sample, totals, last raw sample.
        let counter = part(&[(3, 5.0), (10, 6.0), (20, 7.0), (30, 9.0), (30, 1.0)]);
        let chunk = parts.with(Aggregate::Counter, Encoding::Xor, counter).to_chunk(10, 30);
        let cut = |mint, maxt| without_ranges(&chunk, &[TimeRange::new(mint, maxt)]).unwrap();
        let read = |chunk: &Chunk, which| {
            let parts = AggrChunk::parse(&chunk.data).unwrap();
            let part = parts.get(which, chunk.mint, chunk.maxt).unwrap();
            let floats = part.iter().unwrap().map(|s| match s.unwrap() {
                (t, SampleValue::Float(v)) => (t, v),
                other => panic!("{other:?}"),
            });
            floats.collect::<Vec<_>>()
        };
        let middle = cut(15, 25);
        assert_eq!((middle[0].mint, middle[0].maxt), (10, 30));
        assert_eq!(read(&middle[0], Aggregate::Max), [(10, 3.0), (30, 5.0)]);
        assert_eq!(read(&middle[0], Aggregate::Counter), [(3, 5.0), (10, 6.0), (30, 9.0), (30, 1.0)]);
        let end = cut(30, 40);
        assert_eq!(read(&end[0], Aggregate::Count), [(10, 0.0), (20, 1.0)]);
        assert_eq!(read(&end[0], Aggregate::Counter), [(3, 5.0), (10, 6.0), (20, 7.0), (20, 1.0)]);
        assert!(cut(0, 100).is_empty());
    }
}
