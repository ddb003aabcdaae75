use chronolith_model::histogram::{CUSTOM_BUCKETS_SCHEMA, Span};
use chronolith_model::{FloatHistogram, Histogram, STALE_NAN};
use proptest::prelude::*;

use super::*;
use crate::{Chunk, ChunkError, Encoding, SampleColumns};
use chronolith_model::TimeRange;

fn spans(s: &[(i32, u32)]) -> Vec<Span> {
    s.iter().map(|&(offset, length)| Span { offset, length }).collect()
}

fn counter(count: u64, positive: &[(i32, u32)], deltas: &[i64]) -> Histogram {
    Histogram {
        schema: 1,
        zero_threshold: 0.001,
        count,
        sum: count as f64 * 1.5,
        positive_spans: spans(positive),
        positive_buckets: deltas.to_vec(),
        ..Histogram::default()
    }
}

fn decode(e: &HistogramEncoder) -> Vec<(i64, Histogram)> {
    let samples = Ints::decode(&e.snapshot(), Encoding::Histogram).unwrap();
    samples.into_iter().map(|(_, t, h)| (t, h)).collect()
}

#[test]
fn new_buckets_recode_the_chunk() {
    let mut e = HistogramEncoder::first(None, 1, &counter(3, &[(0, 2)], &[1, 1])).unwrap();
    assert!(e.append(2, &counter(6, &[(0, 2), (1, 1)], &[1, 1, 1])).unwrap().is_none());
    let got = decode(&e);
    assert_eq!(got[0].1.positive_spans, spans(&[(0, 2), (1, 1)]));
    assert_eq!(got[0].1.positive_buckets, [1, 1, -2]);
    assert_eq!(got[1].1.positive_buckets, [1, 1, 1]);
    assert_eq!(got[1].1.counter_reset, CounterReset::NotReset);
}

#[test]
fn missing_empty_buckets_widen_the_sample() {
    let mut e = HistogramEncoder::first(None, 1, &counter(3, &[(0, 3)], &[1, -1, 2])).unwrap();
    // Bucket 1 is empty and gone, bucket 4 is new.
    assert!(e.append(2, &counter(6, &[(0, 1), (1, 1), (1, 1)], &[1, 1, 1])).unwrap().is_none());
    let got = decode(&e);
    assert_eq!(got[1].1.positive_spans, spans(&[(0, 3), (1, 1)]));
    assert_eq!(got[1].1.positive_buckets, [1, -1, 2, 1]);
}

#[test]
fn what_starts_a_new_chunk() {
    let base = counter(5, &[(0, 2)], &[2, 1]);
    type Change = fn(&mut Histogram);
    let cases: [(&str, Change, CounterReset); 8] = [
        ("count", |h| h.count = 4, CounterReset::Reset),
        ("bucket", |h| h.positive_buckets = vec![2, 0], CounterReset::Reset),
        ("populated bucket gone", |h| h.positive_spans = spans(&[(1, 2)]), CounterReset::Reset),
        ("hint", |h| h.counter_reset = CounterReset::Reset, CounterReset::Reset),
        ("schema", |h| h.schema = 2, CounterReset::Unknown),
        ("zero threshold", |h| h.zero_threshold = 0.01, CounterReset::Unknown),
        ("gauge", |h| h.counter_reset = CounterReset::Gauge, CounterReset::Gauge),
        (
            "custom",
            |h| (h.schema, h.custom_values) = (CUSTOM_BUCKETS_SCHEMA, vec![1.0]),
            CounterReset::Unknown,
        ),
    ];
    for (name, change, header) in cases {
        let mut e = HistogramEncoder::first(None, 1, &base).unwrap();
        let mut h = base.clone();
        h.count += 3;
        change(&mut h);
        let next = e.append(2, &h).unwrap().expect(name);
        assert_eq!(next.counter_reset(), header, "{name}");
        assert_eq!((e.sample_count(), next.sample_count()), (1, 1));
        assert_eq!(header::Header::read(&next.snapshot(), Encoding::Histogram).unwrap().reset, header);
    }
    let mut e = HistogramEncoder::first(None, 1, &base).unwrap();
    let stale = Histogram { sum: STALE_NAN, ..Histogram::default() };
    assert!(e.append(2, &stale).unwrap().is_none());
    assert!(e.append(3, &stale).unwrap().is_none());
    assert_eq!(e.append(4, &base).unwrap().unwrap().counter_reset(), CounterReset::Unknown);
    assert_eq!(decode(&e)[2].1.sum.to_bits(), STALE_NAN.to_bits());
    assert!(e.append(5, &counter(1, &[(0, 3)], &[1])).is_err());
}

#[test]
fn gauges_go_up_and_down() {
    let gauge = |deltas: &[i64], s: &[(i32, u32)]| Histogram {
        counter_reset: CounterReset::Gauge,
        ..counter(9, s, deltas)
    };
    let mut e = HistogramEncoder::first(None, 1, &gauge(&[5], &[(0, 1)])).unwrap();
    assert!(e.append(2, &gauge(&[1], &[(3, 1)])).unwrap().is_none());
    let got = decode(&e);
    assert_eq!(got[0].1.positive_buckets, [5, -5]);
    assert_eq!(got[1].1.positive_spans, spans(&[(0, 1), (2, 1)]));
    assert_eq!(
        (got[1].1.positive_buckets.as_slice(), got[1].1.counter_reset),
        (&[0, 1][..], CounterReset::Gauge)
    );
}

#[test]
fn fine_schemas_are_reduced_and_unknown_ones_refused() {
    for (schema, ok) in [(20, true), (52, true), (-9, true), (53, false), (-10, false), (-52, false)] {
        let h = Histogram { schema, ..counter(4, &[(1, 3)], &[1, 0, 0]) };
        let e = HistogramEncoder::first(None, 1, &h).unwrap();
        let chunk = e.finish_chunk(1, 1);
        let mut out = SampleColumns::default();
        assert_eq!(chunk.decode_into(TimeRange::ALL, &mut out).is_ok(), ok, "{schema}");
        if ok && schema > 8 {
            let h = out.histogram(0).unwrap();
            assert_eq!((h.schema, &h.positive_buckets[..]), (8, &[3.0][..]));
        }
    }
}

#[test]
fn a_start_timestamp_needs_its_encoding_and_room() {
    let h = counter(1, &[(0, 1)], &[1]);
    let mut plain = HistogramEncoder::first(None, 1, &h).unwrap();
    assert!(matches!(plain.append_with_start_ts(1, 2, &h), Err(ChunkError::Unsupported { .. })));
    let mut e = HistogramEncoder::first_with_start_ts(None, 5, 9, &h).unwrap();
    for t in 10..9 + i64::from(ST_SAMPLES_MAX) {
        assert!(e.append_with_start_ts(5, t, &h).unwrap().is_none());
    }
    assert_eq!(e.append(100_000, &h).unwrap_err(), ChunkError::Full(ST_SAMPLES_MAX));
    let chunk = e.finish_chunk(9, 8 + i64::from(ST_SAMPLES_MAX));
    assert_eq!(chunk.sample_count().unwrap(), usize::from(ST_SAMPLES_MAX));
    let mut out = SampleColumns::default();
    chunk.decode_into(TimeRange::new(20, 30), &mut out).unwrap();
    assert_eq!((out.len(), out.start_ts), (11, vec![5; 11]));
}

#[test]
fn a_layout_out_of_proportion_is_refused() {
    // 20,000 bounds, each a few bits, and 65,535 samples of a few bits would be handed out as gigabytes.
    let h = Histogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: (0..20_000).map(f64::from).collect(),
        ..Histogram::default()
    };
    let mut e = HistogramEncoder::first(None, 0, &h).unwrap();
    for t in 1..1000 {
        assert!(e.append(t, &h).unwrap().is_none());
    }
    let chunk = e.finish_chunk(0, 999);
    let err = chunk.decode_into(TimeRange::ALL, &mut SampleColumns::default()).unwrap_err();
    assert!(matches!(err, ChunkError::Corrupt { .. }), "{err}");
}

/// Valid histograms around one another: small layouts, counts that mostly grow.
fn histograms() -> impl Strategy<Value = Vec<(i64, Histogram)>> {
    let side = || prop::collection::vec((0i32..4, 0u32..4), 0..4);
    let one = (
        1i64..20_000,
        side(),
        side(),
        prop::collection::vec(0i64..1000, 32),
        0u64..100,
        any::<u64>(),
        0..12u8,
    );
    prop::collection::vec(one, 1..40).prop_map(|all| {
        let mut t = 0;
        let mut base = 0;
        all.into_iter()
            .map(|(step, p, n, values, zero, sum, special)| {
                t += step;
                base += 1000;
                let buckets = |s: &[(i32, u32)], from: usize| -> Vec<i64> {
                    let n = s.iter().map(|x| x.1 as usize).sum::<usize>();
                    let mut last = 0;
                    values[from..from + n]
                        .iter()
                        .map(|v| {
                            let v = v + base;
                            (v - std::mem::replace(&mut last, v)) as i64
                        })
                        .collect()
                };
                let mut h = Histogram {
                    zero_threshold: 2f64.powi(-128),
                    zero_count: zero + base as u64,
                    count: base as u64 * 50,
                    sum: f64::from_bits(sum),
                    positive_buckets: buckets(&p, 0),
                    negative_buckets: buckets(&n, 16),
                    positive_spans: spans(&p),
                    negative_spans: spans(&n),
                    ..Histogram::default()
                };
                match special {
                    0 => h = Histogram { sum: STALE_NAN, ..Histogram::default() },
                    1 => h.counter_reset = CounterReset::Gauge,
                    2 => h.schema = 3,
                    3 => h.count = u64::MAX,
                    _ => {}
                }
                (t, h)
            })
            .collect()
    })
}

/// Appends all, and returns the chunks. The start timestamps are those of [`start_ts`], or none.
fn encode<K: Kind>(samples: &[(i64, K::Histogram)], with_start_ts: bool) -> Vec<Chunk> {
    let mut out = Vec::new();
    let (t, h) = &samples[0];
    let mut open = match with_start_ts {
        true => Encoder::<K>::first_with_start_ts(None, start_ts(*t), *t, h).unwrap(),
        false => Encoder::<K>::first(None, *t, h).unwrap(),
    };
    let mut mint = samples[0].0;
    for (t, h) in &samples[1..] {
        let st = if with_start_ts { start_ts(*t) } else { 0 };
        if let Some(next) = open.append_with_start_ts(st, *t, h).unwrap() {
            let maxt = open.last_t();
            out.push(std::mem::replace(&mut open, next).finish_chunk(mint, maxt));
            mint = *t;
        }
    }
    let maxt = open.last_t();
    out.push(open.finish_chunk(mint, maxt));
    out
}

/// A start timestamp of any size, for a third of the times none.
fn start_ts(t: i64) -> i64 {
    if t % 3 == 0 { 0 } else { t.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> (t % 64) }
}

fn same(got: &FloatHistogram, want: &FloatHistogram) -> bool {
    let plain = |h: &FloatHistogram| {
        let mut h = FloatHistogram { counter_reset: CounterReset::Unknown, ..h.clone() };
        h.compact(0);
        h
    };
    plain(got).equals(&plain(want))
}

proptest! {
    #[test]
    fn histograms_come_back(samples in histograms()) {
        let floats: Vec<_> = samples.iter().map(|(t, h)| (*t, h.to_float())).collect();
        let all = [false, true].map(|st| [encode::<Ints>(&samples, st), encode::<Floats>(&floats, st)]);
        for chunks in all.into_iter().flatten() {
            let mut out = SampleColumns::default();
            for c in &chunks {
                c.decode_into(TimeRange::ALL, &mut out).unwrap();
                let again = match c.encoding {
                    Encoding::Histogram => HistogramEncoder::resume(&c.data).unwrap().finish(),
                    Encoding::HistogramSt => HistogramEncoder::resume_with_start_ts(&c.data).unwrap().finish(),
                    Encoding::FloatHistogramSt => {
                        FloatHistogramEncoder::resume_with_start_ts(&c.data).unwrap().finish()
                    }
                    _ => FloatHistogramEncoder::resume(&c.data).unwrap().finish(),
                };
                prop_assert_eq!(&again, &c.data);
                prop_assert_eq!(c.iter().unwrap().filter(|s| s.is_ok()).count(), c.sample_count().unwrap());
            }
            prop_assert_eq!(&out.ts, &samples.iter().map(|s| s.0).collect::<Vec<_>>());
            if chunks[0].encoding.has_start_ts() && !out.start_ts.is_empty() {
                prop_assert_eq!(&out.start_ts, &samples.iter().map(|s| start_ts(s.0)).collect::<Vec<_>>());
            }
            for (i, (_, want)) in floats.iter().enumerate() {
                prop_assert!(same(out.histogram(i).unwrap(), want), "sample {} {:?} {:?}", i, out.histogram(i), want);
            }
        }
    }

    #[test]
    fn damaged_chunks_do_not_panic(samples in histograms(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let floats: Vec<_> = samples.iter().map(|(t, h)| (*t, h.to_float())).collect();
        let all = [false, true].map(|st| [encode::<Ints>(&samples, st), encode::<Floats>(&floats, st)]);
        for mut chunks in all.into_iter().flatten() {
            let chunk = chunks.remove(0);
            let mut data = chunk.data.to_vec();
            let at = at.index(data.len());
            let mut out = SampleColumns::default();
            let cut = Chunk { data: data[..at].to_vec().into(), ..chunk.clone() };
            prop_assert!(cut.decode_into(TimeRange::ALL, &mut out).is_err());
            prop_assert!(out.is_empty() && out.histograms.is_empty());
            data[at] ^= 1u8 << bit;
            let _ = Chunk { data: data.into(), ..chunk }.decode_into(TimeRange::ALL, &mut out);
        }
    }

    #[test]
    fn garbage_does_not_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in [2, 3, 4, 5, 6].map(|e| Encoding::try_from(e).unwrap()) {
            let chunk = Chunk { mint: 0, maxt: 0, encoding, data: data.clone().into() };
            let _ = chunk.decode_into(TimeRange::ALL, &mut SampleColumns::default());
        }
    }
}
