//! prost is the oracle: whatever bytes, both decoders accept or refuse them, and read the same.

use bytes::Bytes;
use chronolith_model::histogram::{CounterReset, Span};
use chronolith_model::{STALE_NAN, WriteBatch, WriteBatchBuilder, WriteHistogram};
use proptest::prelude::*;
use prost::Message;

use super::super::wire::Cursor;
use super::*;

/// The messages of remote write 1.0; labels as bytes, since text is not checked here.
mod oracle {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
        #[prost(message, repeated, tag = "3")]
        pub metadata: Vec<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(bytes = "vec", tag = "2")]
        pub name: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub help: Vec<u8>,
        #[prost(bytes = "vec", tag = "5")]
        pub unit: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub labels: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, repeated, tag = "4")]
        pub histograms: Vec<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(bytes = "vec", tag = "1")]
        pub name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub labels: Vec<Vec<u8>>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Count {
        #[prost(uint64, tag = "1")]
        Int(u64),
        #[prost(double, tag = "2")]
        Float(f64),
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum ZeroCount {
        #[prost(uint64, tag = "6")]
        Int(u64),
        #[prost(double, tag = "7")]
        Float(f64),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(sint32, tag = "1")]
        pub offset: i32,
        #[prost(uint32, tag = "2")]
        pub length: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(oneof = "Count", tags = "1, 2")]
        pub count: Option<Count>,
        #[prost(double, tag = "3")]
        pub sum: f64,
        #[prost(sint32, tag = "4")]
        pub schema: i32,
        #[prost(double, tag = "5")]
        pub zero_threshold: f64,
        #[prost(oneof = "ZeroCount", tags = "6, 7")]
        pub zero_count: Option<ZeroCount>,
        #[prost(message, repeated, tag = "8")]
        pub negative_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "9")]
        pub negative_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "10")]
        pub negative_counts: Vec<f64>,
        #[prost(message, repeated, tag = "11")]
        pub positive_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "12")]
        pub positive_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "13")]
        pub positive_counts: Vec<f64>,
        #[prost(int32, tag = "14")]
        pub reset_hint: i32,
        #[prost(int64, tag = "15")]
        pub timestamp: i64,
        #[prost(double, repeated, tag = "16")]
        pub custom_values: Vec<f64>,
    }
}

fn decode_bytes(body: &[u8]) -> Result<(WriteBatch, DecodeStats), DecodeError> {
    let mut builder = WriteBatchBuilder::default();
    let stats = decode(body, &mut builder)?;
    Ok((builder.finish(Bytes::copy_from_slice(body)), stats))
}

/// The label messages of a section, whatever is in them.
fn label_messages(section: &[u8]) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::new(section);
    let mut out = Vec::new();
    while !cursor.is_empty() {
        assert_eq!(cursor.key().unwrap(), (1, WireType::Len), "a section holds nothing but labels");
        out.push(cursor.message().unwrap().rest().to_vec());
    }
    out
}

/// Compares bit by bit, NaN payloads included.
fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn assert_same_histogram(want: &oracle::Histogram, got: &(i64, WriteHistogram)) {
    let spans = |s: &[oracle::Span]| s.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>();
    let model_spans = |s: &[Span]| s.iter().map(|s| (s.offset, s.length)).collect::<Vec<_>>();
    let reset = match want.reset_hint {
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        3 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    };
    assert_eq!(got.0, want.timestamp);
    match &got.1 {
        WriteHistogram::Float(h) => {
            let Some(oracle::Count::Float(count)) = want.count else { panic!("{want:?}") };
            let zero = if let Some(oracle::ZeroCount::Float(z)) = want.zero_count { z } else { 0.0 };
            let got = [h.count, h.sum, h.zero_threshold, h.zero_count];
            assert_eq!(bits(&got), bits(&[count, want.sum, want.zero_threshold, zero]));
            assert_eq!((h.schema, h.counter_reset), (want.schema, reset));
            assert_eq!(model_spans(&h.positive_spans), spans(&want.positive_spans));
            assert_eq!(model_spans(&h.negative_spans), spans(&want.negative_spans));
            assert_eq!(bits(&h.positive_buckets), bits(&want.positive_counts));
            assert_eq!(bits(&h.negative_buckets), bits(&want.negative_counts));
            assert_eq!(bits(&h.custom_values), bits(&want.custom_values));
        }
        WriteHistogram::Integer(h) => {
            let count = match want.count {
                Some(oracle::Count::Int(n)) => n,
                None => 0,
                Some(oracle::Count::Float(_)) => panic!("{want:?}"),
            };
            let zero = if let Some(oracle::ZeroCount::Int(z)) = want.zero_count { z } else { 0 };
            assert_eq!((h.count, h.zero_count), (count, zero));
            assert_eq!(bits(&[h.sum, h.zero_threshold]), bits(&[want.sum, want.zero_threshold]));
            assert_eq!((h.schema, h.counter_reset), (want.schema, reset));
            assert_eq!(model_spans(&h.positive_spans), spans(&want.positive_spans));
            assert_eq!(model_spans(&h.negative_spans), spans(&want.negative_spans));
            assert_eq!(
                (&h.positive_buckets, &h.negative_buckets),
                (&want.positive_deltas, &want.negative_deltas)
            );
            assert_eq!(bits(&h.custom_values), bits(&want.custom_values));
        }
    }
}

/// Both decoders agree about `body`.
fn check(body: &[u8]) {
    let want = oracle::WriteRequest::decode(body);
    let got = decode_bytes(body);
    let (want, (batch, stats)) = match (want, got) {
        (Ok(want), Ok(got)) => (want, got),
        (Err(_), Err(DecodeError::Wire(_))) => return,
        // prost follows an unknown group to another depth than its own fields; everything else must agree.
        (want, got) => panic!("prost {want:?}, ours {got:?}, body {body:02x?}"),
    };
    assert_eq!(batch.series_count(), want.timeseries.len());
    let mut exemplars = 0;
    for (want, got) in want.timeseries.iter().zip(batch.iter()) {
        assert_eq!(label_messages(got.labels), want.labels);
        let samples = |t: i64, v: f64| (t, v.to_bits());
        let want_samples: Vec<_> = want.samples.iter().map(|s| samples(s.timestamp, s.value)).collect();
        assert_eq!(got.samples.iter().map(|s| samples(s.t, s.v)).collect::<Vec<_>>(), want_samples);
        assert_eq!(got.histograms.len(), want.histograms.len());
        for (want, got) in want.histograms.iter().zip(got.histograms) {
            assert_same_histogram(want, got);
        }
        exemplars += want.exemplars.len();
        for exemplar in got.exemplars {
            let found = want
                .exemplars
                .iter()
                .any(|w| (w.timestamp, w.value.to_bits()) == (exemplar.t, exemplar.value.to_bits()));
            assert!(found, "{exemplar:?} in {want:?}");
        }
    }
    let kept: usize = batch.iter().map(|s| s.exemplars.len()).sum();
    assert_eq!(kept + stats.exemplars_dropped, exemplars);
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let readable = |m: &oracle::Metadata| {
        let says = MetricMetadata {
            kind: MetricKind::from_number(u64::try_from(m.kind).unwrap_or(u64::MAX)),
            help: text(&m.help)?,
            unit: text(&m.unit)?,
        };
        Some(WriteMetadata { metric: text(&m.name).filter(|n| !n.is_empty())?, says })
    };
    assert_eq!(batch.metadata(), want.metadata.iter().filter_map(readable).collect::<Vec<_>>());
    assert_eq!(stats.metadata, want.metadata.len());
    assert_eq!(stats.metadata_dropped, stats.metadata - batch.metadata().len());
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    let text =
        prop_oneof!["[a-z_]{0,12}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..200)];
    (text.clone(), text).prop_map(|(name, value)| oracle::Label { name, value }.encode_to_vec())
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), any::<u64>().prop_map(f64::from_bits), Just(STALE_NAN), Just(0.0)]
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), 0..2_000_000_000_000i64, Just(i64::MIN), Just(i64::MAX), Just(0)]
}

fn spans() -> impl Strategy<Value = Vec<oracle::Span>> {
    prop::collection::vec((any::<i32>(), any::<u32>()), 0..4)
        .prop_map(|v| v.into_iter().map(|(offset, length)| oracle::Span { offset, length }).collect())
}

fn histogram() -> impl Strategy<Value = oracle::Histogram> {
    let count = prop::option::of(prop_oneof![
        any::<u64>().prop_map(oracle::Count::Int),
        value().prop_map(oracle::Count::Float)
    ]);
    let zero = prop::option::of(prop_oneof![
        any::<u64>().prop_map(oracle::ZeroCount::Int),
        value().prop_map(oracle::ZeroCount::Float)
    ]);
    let deltas = || prop::collection::vec(any::<i64>(), 0..6);
    let counts = || prop::collection::vec(value(), 0..6);
    let head = (count, zero, value(), any::<i32>(), value(), time(), 0..5i32);
    (head, spans(), spans(), deltas(), deltas(), counts(), counts(), counts()).prop_map(
        |(head, negative_spans, positive_spans, nd, pd, nc, pc, custom_values)| {
            let (count, zero_count, sum, schema, zero_threshold, timestamp, reset_hint) = head;
            oracle::Histogram {
                count,
                sum,
                schema,
                zero_threshold,
                zero_count,
                negative_spans,
                negative_deltas: nd,
                negative_counts: nc,
                positive_spans,
                positive_deltas: pd,
                positive_counts: pc,
                reset_hint,
                timestamp,
                custom_values,
            }
        },
    )
}

fn series() -> impl Strategy<Value = oracle::TimeSeries> {
    let sample = (value(), time()).prop_map(|(value, timestamp)| oracle::Sample { value, timestamp });
    let exemplar = (prop::collection::vec(label(), 0..3), value(), time())
        .prop_map(|(labels, value, timestamp)| oracle::Exemplar { labels, value, timestamp });
    let (labels, samples) = (prop::collection::vec(label(), 0..6), prop::collection::vec(sample, 0..6));
    (labels, samples, prop::collection::vec(exemplar, 0..2), prop::collection::vec(histogram(), 0..2))
        .prop_map(|(labels, samples, exemplars, histograms)| oracle::TimeSeries {
            labels,
            samples,
            exemplars,
            histograms,
        })
}

fn metadata() -> impl Strategy<Value = oracle::Metadata> {
    let text = || {
        prop_oneof!["[a-z_]{0,12}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)]
    };
    (prop_oneof![any::<i32>(), 0..9i32], text(), text(), text())
        .prop_map(|(kind, name, help, unit)| oracle::Metadata { kind, name, help, unit })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(series(), 0..5), prop::collection::vec(metadata(), 0..3))
        .prop_map(|(timeseries, metadata)| oracle::WriteRequest { timeseries, metadata }.encode_to_vec())
}

/// A message's fields in any order, with unknown ones of every kind among them: what a strange but honest sender may do.
fn shuffled_series() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        label().prop_map(|l| tagged(1, &l)),
        (value(), time())
            .prop_map(|(value, timestamp)| tagged(2, &oracle::Sample { value, timestamp }.encode_to_vec())),
        histogram().prop_map(|h| tagged(4, &h.encode_to_vec())),
        metadata().prop_map(|m| m.encode_to_vec()), // A series' fields with the numbers of another message.
        Just(vec![0x38, 0x96, 0x01]),               // 7: varint
        Just(vec![0x3D, 1, 2, 3, 4]),               // 7: fixed32
        Just(vec![0x39, 1, 2, 3, 4, 5, 6, 7, 8]),   // 7: fixed64
        Just(vec![0x3A, 2, 9, 9]),                  // 7: bytes
        Just(vec![0x3B, 0x08, 0x01, 0x43, 0x44, 0x3C]), // 7: a group with a group in it
    ];
    prop::collection::vec(field, 0..8).prop_map(|fields| tagged(1, &fields.concat()))
}

fn tagged(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn agrees_on_honest_requests(body in body()) {
        check(&body);
    }

    #[test]
    fn agrees_on_fields_in_any_order(series in prop::collection::vec(shuffled_series(), 0..4)) {
        check(&series.concat());
    }

    #[test]
    fn agrees_on_damaged_requests(
        body in prop_oneof![body(), prop::collection::vec(shuffled_series(), 1..3).prop_map(|s| s.concat())],
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut body = body;
        for (at, byte, how) in edits {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match how {
                0 => body[at] = byte,
                1 => body[at] ^= 1 << (byte & 7),
                2 => body.truncate(at),
                _ => body.insert(at, byte),
            }
        }
        check(&body);
    }

    #[test]
    fn agrees_on_noise(body in prop::collection::vec(any::<u8>(), 0..64)) {
        check(&body);
    }
}

#[test]
fn elements_are_bounded_by_the_body() {
    // Two bytes each on the wire, 16 and 32 in memory.
    let samples = tagged(1, &[0x12, 0].repeat(1_000_000));
    assert_eq!(decode_bytes(&samples).unwrap().0.sample_count(), 1_000_000);
    let series = [0x0A, 0].repeat(1_000_000);
    let error = decode_bytes(&series).unwrap_err();
    assert_eq!(error, DecodeError::TooManyElements { bytes_max: 8 * 2_000_000 + (1 << 20) });
    let spans = tagged(1, &tagged(4, &[0x42, 0].repeat(1_000_000)));
    assert!(decode_bytes(&spans).is_ok());
}
