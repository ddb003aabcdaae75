//! Downsampled blocks against the raw samples that they were made of.

use std::sync::Arc;

use chronolith_chunk::{
    AggrChunk, Aggregate, Chunk, CounterTotals, Encoding, FloatHistogramEncoder, SampleColumns, encode_floats,
};
use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterReset, Span};
use chronolith_model::{FloatHistogram, Resolution, TimeRange};
use proptest::prelude::*;

use super::SeriesDownsampler;

const DAY: i64 = 86_400_000;

fn downsampled(chunks: Vec<Chunk>, from: Resolution, to: Resolution) -> Vec<Chunk> {
    let mut out = Vec::new();
    SeriesDownsampler::new(from, to).downsample(chunks, &mut out).unwrap();
    assert!(out.windows(2).all(|w| w[0].maxt < w[1].mint), "{out:?}");
    out
}

fn to_five_minutes(chunks: Vec<Chunk>) -> Vec<Chunk> {
    downsampled(chunks, Resolution::Raw, Resolution::FiveMinutes)
}

fn to_one_hour(chunks: Vec<Chunk>) -> Vec<Chunk> {
    downsampled(chunks, Resolution::FiveMinutes, Resolution::OneHour)
}

/// All samples of an aggregate.
fn part(chunks: &[Chunk], which: Aggregate) -> SampleColumns {
    let mut out = SampleColumns::default();
    for chunk in chunks {
        let part = AggrChunk::parse(&chunk.data).unwrap().get(which, 0, 0).unwrap();
        part.decode_into(TimeRange::ALL, &mut out).unwrap();
    }
    out
}

fn floats(chunks: &[Chunk], which: Aggregate) -> Vec<(i64, f64)> {
    let samples = part(chunks, which);
    samples.ts.into_iter().zip(samples.values).collect()
}

/// What a counter grew by between its first sample and its last.
fn growth(samples: &[(i64, f64)]) -> f64 {
    let mut counter = CounterTotals::default();
    let totals: Vec<f64> = samples.iter().filter_map(|(t, v)| counter.push(*t, *v)).collect();
    totals.last().unwrap() - totals.first().unwrap()
}

/// The same of histograms, by the rule of PromQL's `increase`.
fn histogram_growth(histograms: &[Arc<FloatHistogram>]) -> f64 {
    let pairs = histograms.windows(2);
    pairs.map(|w| if w[1].detect_reset(&w[0]) { w[1].count } else { w[1].count - w[0].count }).sum()
}

fn histograms(chunks: &[Chunk]) -> Vec<Arc<FloatHistogram>> {
    let samples = part(chunks, Aggregate::Counter);
    (0..samples.len()).map(|i| samples.histogram(i).unwrap().clone()).collect()
}

fn encode_histograms(samples: &[(i64, FloatHistogram)]) -> Vec<Chunk> {
    let mut columns = SampleColumns::default();
    for (t, h) in samples {
        columns.push_histogram(*t, Arc::new(h.clone()));
    }
    chronolith_chunk::encode_columns(&columns).unwrap()
}

fn exponential(schema: i32, buckets: &[f64]) -> FloatHistogram {
    FloatHistogram {
        schema,
        count: buckets.iter().sum(),
        sum: buckets.iter().sum::<f64>() * 1.5,
        positive_spans: vec![Span { offset: 0, length: buckets.len() as u32 }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counters_grow_by_the_same_at_every_level(
        steps in prop::collection::vec((1i64..400_000, 0u32..1_000, prop::bool::weighted(0.02)), 1..1_500),
    ) {
        let (mut t, mut v) = (1_700_000_000_000, 0.0);
        let samples: Vec<(i64, f64)> = steps.iter().map(|(gap, more, reset)| {
            t += gap;
            v = if *reset { f64::from(*more) } else { v + f64::from(*more) };
            (t, v)
        }).collect();
        let (ts, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
        let five = to_five_minutes(encode_floats(&ts, &values));
        let hour = to_one_hour(five.clone());
        let want = growth(&samples);
        prop_assert_eq!(growth(&floats(&five, Aggregate::Counter)), want);
        prop_assert_eq!(growth(&floats(&hour, Aggregate::Counter)), want);
        for level in [&five, &hour] {
            let count: f64 = part(level, Aggregate::Count).values.iter().sum();
            prop_assert_eq!(count, samples.len() as f64);
            let sum: f64 = part(level, Aggregate::Sum).values.iter().sum();
            prop_assert_eq!(sum, values.iter().sum::<f64>());
            let max = part(level, Aggregate::Max).values.iter().copied().fold(f64::MIN, f64::max);
            prop_assert_eq!(max, values.iter().copied().fold(f64::MIN, f64::max));
            let min = part(level, Aggregate::Min).values.iter().copied().fold(f64::MAX, f64::min);
            prop_assert_eq!(min, values.iter().copied().fold(f64::MAX, f64::min));
        }
    }

    #[test]
    fn histogram_counters_grow_by_the_same_at_every_level(
        steps in prop::collection::vec((1i64..600_000, 0usize..6, prop::bool::weighted(0.01)), 1..600),
    ) {
        let (mut t, mut buckets) = (1_700_000_000_000, vec![1.0; 4]);
        // Resets in the first and in the last window are counted by the neighbouring blocks.
        let inner = 24..steps.len().max(48) - 24;
        let samples: Vec<(i64, FloatHistogram)> = steps.iter().enumerate().map(|(i, (gap, bucket, reset))| {
            t += if inner.contains(&i) { *gap } else { 310_000 };
            if *reset && inner.contains(&i) {
                buckets = vec![0.0; 4];
            }
            if *bucket == buckets.len() {
                buckets.push(0.0);
            }
            if let Some(b) = buckets.get_mut(*bucket) {
                *b += 2.0;
            }
            (t, exponential(1, &buckets))
        }).collect();
        let raw: Vec<Arc<FloatHistogram>> = samples.iter().map(|(_, h)| Arc::new(h.clone())).collect();
        let five = to_five_minutes(encode_histograms(&samples));
        let hour = to_one_hour(five.clone());
        // Before its first sample, at the first window's end, a counter aggregate of histograms knows nothing.
        let want = histogram_growth(&raw);
        for level in [&five, &hour] {
            let first_t = part(level, Aggregate::Counter).ts[0];
            let before: Vec<_> =
                samples.iter().filter(|(t, _)| *t <= first_t).map(|(_, h)| Arc::new(h.clone())).collect();
            prop_assert_eq!(histogram_growth(&histograms(level)), want - histogram_growth(&before));
            let count: f64 = part(level, Aggregate::Count).values.iter().sum();
            prop_assert_eq!(count, samples.len() as f64);
            // With the raw value, a block goes over into the next one.
            prop_assert_eq!(histograms(level).last().unwrap().count, raw.last().unwrap().count);
        }
    }
}

#[test]
fn a_chunk_of_histograms_ends_at_the_last_reset_only() {
    let samples: Vec<_> = (0..5_760usize)
        .map(|i| (i as i64 * 15_000, exponential(0, &[(i % 1_130) as f64 + 1.0, 3.0])))
        .collect();
    // A day has 288 windows of five minutes, which is three chunks by Thanos's reckoning.
    let chunks = to_five_minutes(encode_histograms(&samples));
    assert_eq!(chunks.len(), 4);
    let counters = part(&chunks, Aggregate::Counter);
    let at = |i: usize| counters.histogram(i).unwrap().count;
    // Sample 5,650 is the fifth reset, in window 282: that one shows the total of the 1,130 samples between two resets each, and
    // the next one what there was since.
    assert_eq!(counters.ts[282], 283 * 300_000 - 1);
    assert_eq!((at(282), at(283)), (5.0 * 1_133.0, 30.0 + 3.0));
    let raw: Vec<_> = samples.into_iter().map(|(_, h)| Arc::new(h)).collect();
    assert_eq!(histogram_growth(&histograms(&chunks)), histogram_growth(&raw[19..]));
}

#[test]
fn finer_buckets_are_merged_into_the_coarsest_of_a_chunk() {
    let samples: Vec<_> = (0..40i64)
        .map(|i| {
            let n = i as f64;
            let fine = exponential(1, &[n, n, n, n]);
            (i * 15_000, if i < 20 { fine } else { fine.copy_to_schema(0).unwrap() })
        })
        .collect();
    let chunks = to_five_minutes(encode_histograms(&samples));
    assert_eq!(chunks.len(), 1);
    let counters = histograms(&chunks);
    assert!(counters.iter().all(|h| h.schema == 0));
    let counts: Vec<f64> = counters.iter().map(|h| h.count).collect();
    assert_eq!(counts, [4.0 * 19.0, 4.0 * 39.0]);
    assert!(counters[0].equals(&samples[19].1.copy_to_schema(0).unwrap()));
}

#[test]
fn custom_buckets_are_downsampled_and_kept_apart_by_their_bounds() {
    let custom = |bounds: &[f64], n: f64| FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 2.0 * n,
        sum: n,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![n, n],
        custom_values: bounds.to_vec(),
        ..FloatHistogram::default()
    };
    let bounds = |i: i64| if i < 30 { vec![1.0, 2.0] } else { vec![1.0, 5.0] };
    let samples: Vec<_> = (0..60i64).map(|i| (i * 15_000, custom(&bounds(i), i as f64))).collect();
    let five = to_five_minutes(encode_histograms(&samples));
    assert_eq!(five.len(), 2);
    for level in [five.clone(), to_one_hour(five)] {
        let counters = histograms(&level);
        let last = counters.last().unwrap();
        assert_eq!((last.count, last.custom_values.as_slice()), (118.0, &[1.0, 5.0][..]));
        assert_eq!(part(&level, Aggregate::Count).values.iter().sum::<f64>(), 60.0);
    }
}

#[test]
fn a_wider_zero_bucket_begins_a_chunk() {
    let samples: Vec<_> = (0..40i64)
        .map(|i| {
            let h = exponential(0, &[i as f64]);
            (i * 15_000, FloatHistogram { zero_threshold: if i < 20 { 0.25 } else { 0.5 }, ..h })
        })
        .collect();
    let chunks = to_five_minutes(encode_histograms(&samples));
    assert_eq!(chunks.len(), 2);
    assert_eq!(histogram_growth(&histograms(&chunks)), 39.0 - 19.0);
}

#[test]
fn gauges_of_histograms_stay_gauges() {
    let samples: Vec<_> = (0..100i64)
        .map(|i| {
            let h = exponential(0, &[(i % 7) as f64, 1.0]);
            (i * 60_000, FloatHistogram { counter_reset: CounterReset::Gauge, ..h })
        })
        .collect();
    let five = to_five_minutes(encode_histograms(&samples));
    let hour = to_one_hour(five.clone());
    for level in [five, hour] {
        assert_eq!(level.len(), 1);
        assert!(histograms(&level).iter().all(|h| h.counter_reset == CounterReset::Gauge));
    }
}

#[test]
fn infinities_are_the_smallest_and_largest_where_there_is_nothing_else() {
    let inf = f64::INFINITY;
    let chunks = to_five_minutes(encode_floats(&[0, 1_000, 400_000], &[inf, inf, -inf]));
    assert_eq!(floats(&chunks, Aggregate::Min), [(299_999, inf), (400_000, -inf)]);
    assert_eq!(floats(&chunks, Aggregate::Max), [(299_999, inf), (400_000, -inf)]);
}

#[test]
fn overlapping_raw_chunks_count_each_time_once() {
    let ts: Vec<i64> = (0..240).map(|i| i * 15_000).collect();
    let values = vec![1.0; 240];
    let a = encode_floats(&ts[..120], &values[..120]);
    let b = encode_floats(&ts[60..], &values[60..]);
    let chunks = to_five_minutes([a, b].concat());
    assert_eq!(part(&chunks, Aggregate::Count).values.iter().sum::<f64>(), 240.0);
}

#[test]
fn raw_and_empty_chunks_among_aggregates_are_put_right() {
    let raw = |from: i64| {
        let ts: Vec<i64> = (0..120).map(|i| from + i * 15_000).collect();
        encode_floats(&ts, &vec![2.0; 120])
    };
    let empty = Chunk { mint: DAY, maxt: DAY, encoding: Encoding::Xor, data: vec![0, 0].into() };
    let chunks = [to_five_minutes(raw(0)), raw(10 * 3_600_000), vec![empty]].concat();
    let hour = to_one_hour(chunks);
    assert_eq!(part(&hour, Aggregate::Count).values.iter().sum::<f64>(), 240.0);
    assert_eq!(part(&hour, Aggregate::Sum).values.iter().sum::<f64>(), 480.0);
}

#[test]
fn overlapping_aggregates_are_refused() {
    let one = to_five_minutes(encode_floats(&[0, 400_000], &[1.0, 2.0]));
    let two = to_five_minutes(encode_floats(&[1, 400_001], &[1.0, 2.0]));
    let mut out = Vec::new();
    let mut downsampler = SeriesDownsampler::new(Resolution::FiveMinutes, Resolution::OneHour);
    let err = downsampler.downsample([one, two].concat(), &mut out).unwrap_err();
    assert!(err.to_string().contains("overlaps"), "{err}");
}

#[test]
fn an_encoder_begins_with_its_first_histogram() {
    // The header that Thanos writes says "no reset" of a counter's first histogram.
    let chunks = to_five_minutes(encode_histograms(&[(0, exponential(0, &[1.0]))]));
    let counter = AggrChunk::parse(&chunks[0].data).unwrap().get(Aggregate::Counter, 0, 0).unwrap();
    let resumed = FloatHistogramEncoder::resume(&counter.data).unwrap();
    assert_eq!(resumed.counter_reset(), CounterReset::NotReset);
}
