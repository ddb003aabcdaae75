//! prost is the oracle for what is protobuf; a plain reading of its messages is the oracle for what is in it.

use std::collections::HashMap;

use bytes::Bytes;
use chronolith_model::write::encode_labels;
use chronolith_model::{MetricKind, MetricMetadata, WriteBatch};
use proptest::prelude::*;
use prost::Message;

use super::*;

/// The messages of remote write 2.0; symbols as bytes, since text is not checked here.
mod oracle {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub symbols: Vec<Vec<u8>>,
        #[prost(message, repeated, tag = "5")]
        pub timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TimeSeries {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub histograms: Vec<Histogram>,
        #[prost(message, repeated, tag = "4")]
        pub exemplars: Vec<Exemplar>,
        #[prost(message, optional, tag = "5")]
        pub metadata: Option<Metadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
        #[prost(int64, tag = "3")]
        pub start_timestamp: i64,
    }

    /// Enough of it to be one: what is in a histogram is tested with 1.0, which reads it with the same code.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, tag = "1")]
        pub count: u64,
        #[prost(double, tag = "3")]
        pub sum: f64,
        #[prost(int64, tag = "15")]
        pub timestamp: i64,
        #[prost(int64, tag = "17")]
        pub start_timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Exemplar {
        #[prost(uint32, repeated, tag = "1")]
        pub labels_refs: Vec<u32>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(int64, tag = "3")]
        pub timestamp: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metadata {
        #[prost(int32, tag = "1")]
        pub kind: i32,
        #[prost(uint32, tag = "3")]
        pub help_ref: u32,
        #[prost(uint32, tag = "4")]
        pub unit_ref: u32,
    }
}
use oracle::Request;

const BYTES_MAX: usize = 4 << 20;

fn decode_bytes(body: &[u8]) -> Result<(WriteBatch, DecodedV2), DecodeError> {
    let mut builder = WriteBatchBuilder::default();
    let (key, mut symbols) = (LabelKey::default(), Symbols::default());
    let read = decode(body, BYTES_MAX, &key, None, &mut symbols, &mut builder)?;
    let mut batch = builder.finish(Bytes::copy_from_slice(body));
    check_keys(&batch);
    batch.render();
    Ok((batch, read))
}

/// Series have equal keys where they have equal labels, in whatever order, and nowhere else.
fn check_keys(batch: &WriteBatch) {
    let Some(keys) = batch.keys() else { return };
    let mut of_labels: HashMap<Vec<(String, String)>, u128> = HashMap::new();
    let mut buf = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let pairs = chronolith_model::write::decode_labels(batch.section(i, &mut buf));
        // Not all are text in the tests of damaged requests.
        let Ok(mut labels) =
            pairs.map(|p| p.map(|(n, v)| (n.to_owned(), v.to_owned()))).collect::<Result<Vec<_>, _>>()
        else {
            return;
        };
        labels.sort();
        assert_eq!(*of_labels.entry(labels).or_insert(*key), *key);
    }
    let distinct: std::collections::HashSet<_> = of_labels.values().collect();
    assert_eq!(distinct.len(), of_labels.len());
}

/// A series as it should come out: its section, samples (time, bits, start), histograms (time, count, start), exemplars.
type Series = (Vec<u8>, Vec<(i64, u64, i64)>, Vec<(i64, u64, i64)>, Vec<(String, u64, i64)>);

fn series_of(batch: &WriteBatch) -> Vec<Series> {
    let one = |s: chronolith_model::WriteSeries<'_>| {
        let samples =
            s.samples.iter().enumerate().map(|(i, x)| (x.t, x.v.to_bits(), s.start_ts_of_sample(i)));
        let histograms = s.histograms.iter().enumerate().map(|(i, (t, h))| {
            let chronolith_model::WriteHistogram::Integer(h) = h else { panic!("an integer histogram") };
            (*t, h.count, s.start_ts_of_histogram(i))
        });
        let exemplars = s.exemplars.iter().map(|e| (e.labels.to_string(), e.value.to_bits(), e.t));
        (s.labels.to_vec(), samples.collect(), histograms.collect(), exemplars.collect())
    };
    batch.iter().map(one).collect()
}

/// What a request holds, read without cleverness: the good series, and how many samples are in the others.
fn expected(request: &Request) -> (Vec<Series>, usize) {
    let (mut good, mut refused) = (Vec::new(), 0);
    let text = |r: u32| request.symbols.get(r as usize).map(|s| String::from_utf8(s.clone()).unwrap());
    let pairs = |refs: &[u32]| -> Option<Vec<(String, String)>> {
        let all: Option<Vec<String>> = refs.iter().map(|r| text(*r)).collect();
        let all = all?;
        (all.len() % 2 == 0).then(|| all.chunks(2).map(|c| (c[0].clone(), c[1].clone())).collect())
    };
    for series in &request.timeseries {
        let says = series.metadata.clone().unwrap_or_default();
        let count = series.samples.len() + series.histograms.len();
        let metadata_read = text(says.help_ref).is_some() && text(says.unit_ref).is_some();
        let said = says.help_ref != 0 || says.unit_ref != 0;
        let Some(labels) = pairs(&series.labels_refs).filter(|_| count > 0 && (metadata_read || !said))
        else {
            refused += count;
            continue;
        };
        let mut section = Vec::new();
        encode_labels(labels.iter().map(|(n, v)| (n.as_str(), v.as_str())), &mut section);
        let exemplars = series.exemplars.iter().filter_map(|e| {
            let mut builder = LabelsBuilder::new();
            pairs(&e.labels_refs)?.iter().for_each(|(n, v)| _ = builder.add(n, v));
            Some((builder.try_build().ok()?.to_string(), e.value.to_bits(), e.timestamp))
        });
        good.push((
            section,
            series.samples.iter().map(|s| (s.timestamp, s.value.to_bits(), s.start_timestamp)).collect(),
            series.histograms.iter().map(|h| (h.timestamp, h.count, h.start_timestamp)).collect(),
            exemplars.collect(),
        ));
    }
    (good, refused)
}

fn refs() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![
        8 => proptest::collection::vec((0u32..8, 0u32..8), 0..5)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(n, v)| [n, v]).collect()),
        1 => proptest::collection::vec(0u32..12, 0..5),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    // prost leaves out zeros, negative ones too.
    let float = || any::<f64>().prop_map(|v| v + 0.0);
    let sample = (float(), any::<i64>(), prop_oneof![Just(0i64), any::<i64>()])
        .prop_map(|(value, timestamp, start_timestamp)| oracle::Sample { value, timestamp, start_timestamp });
    let histogram = (any::<u64>(), float(), any::<i64>(), prop_oneof![Just(0i64), any::<i64>()]).prop_map(
        |(count, sum, timestamp, start_timestamp)| oracle::Histogram {
            count,
            sum,
            timestamp,
            start_timestamp,
        },
    );
    let exemplar = (refs(), float(), any::<i64>())
        .prop_map(|(labels_refs, value, timestamp)| oracle::Exemplar { labels_refs, value, timestamp });
    let metadata = (0i32..9, 0u32..9, 0u32..9).prop_map(|(kind, help_ref, unit_ref)| oracle::Metadata {
        kind,
        help_ref,
        unit_ref,
    });
    let series = (
        refs(),
        proptest::collection::vec(sample, 0..3),
        proptest::collection::vec(histogram, 0..2),
        proptest::collection::vec(exemplar, 0..2),
        proptest::option::of(metadata),
    )
        .prop_map(|(labels_refs, samples, histograms, exemplars, metadata)| oracle::TimeSeries {
            labels_refs,
            samples,
            histograms,
            exemplars,
            metadata,
        });
    let symbols = proptest::collection::vec("[a-z_é]{0,40}".prop_map(String::into_bytes), 8);
    (symbols, proptest::collection::vec(series, 0..6))
        .prop_map(|(symbols, timeseries)| Request { symbols, timeseries })
}

fn encode_field(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

proptest! {
    #[test]
    fn reads_what_is_there(request in request(), series_first: bool) {
        let body = if series_first {
            // Symbols may stand anywhere.
            let Request { symbols, timeseries } = request.clone();
            let series = Request { symbols: Vec::new(), timeseries }.encode_to_vec();
            [series, Request { symbols, timeseries: Vec::new() }.encode_to_vec()].concat()
        } else {
            request.encode_to_vec()
        };
        let (batch, read) = decode_bytes(&body).unwrap();
        let (series, refused) = expected(&request);
        prop_assert_eq!(series_of(&batch), series);
        prop_assert_eq!(read.refused.rejected, refused);
    }

    #[test]
    fn agrees_with_prost_on_any_bytes(
        request in request(),
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        let mut body = request.encode_to_vec();
        for (at, byte) in changes {
            if !body.is_empty() {
                let at = at % body.len();
                body[at] = byte;
            }
        }
        body.truncate(cut % (body.len() * 4 + 1));
        // Fields that our messages do not name may hold what theirs cannot, and the other way round: prost reads fewer of a
        // histogram's. So the one way only: what we read, prost reads.
        if decode_bytes(&body).is_ok() {
            prop_assert!(Request::decode(&body[..]).is_ok());
        }
    }
}

fn small(symbols: &[&str], labels_refs: Vec<u32>) -> Request {
    let sample = oracle::Sample { value: 1.0, timestamp: 5, start_timestamp: 0 };
    Request {
        symbols: symbols.iter().map(|s| s.as_bytes().to_vec()).collect(),
        timeseries: vec![oracle::TimeSeries {
            labels_refs,
            samples: vec![sample],
            ..oracle::TimeSeries::default()
        }],
    }
}

#[test]
fn bad_series_are_named_and_the_others_stay() {
    let symbols = ["", "__name__", "up", "job"];
    let good = small(&symbols, vec![1, 2]);
    let mut bare = small(&symbols, vec![1, 2]);
    bare.timeseries[0].samples.clear();
    let mut metadata = small(&symbols, vec![1, 2]);
    metadata.timeseries[0].metadata = Some(oracle::Metadata { kind: 1, help_ref: 77, unit_ref: 0 });
    let mut exemplar = small(&symbols, vec![1, 2]);
    exemplar.timeseries[0].exemplars =
        vec![oracle::Exemplar { labels_refs: vec![3], value: 1.0, timestamp: 1 }];
    for (bad, rejected, kept, why) in [
        (small(&symbols, vec![1, 2, 3, 99]), 1, 1, "symbol reference 99 is out of range of 4 symbols"),
        (small(&symbols, vec![1, 2, 3]), 1, 1, "odd number of label references"),
        (bare, 0, 1, "series must contain at least one sample or histogram"),
        (metadata, 1, 1, "symbol reference 77 is out of range of 4 symbols"),
        (exemplar, 0, 2, "exemplar: odd number of label references"),
    ] {
        let mut both = good.clone();
        both.timeseries.extend(bad.timeseries);
        let (batch, read) = decode_bytes(&both.encode_to_vec()).unwrap();
        assert_eq!((batch.series_count(), read.refused.rejected), (kept, rejected), "{why}");
        let first = &read.refused.rejections[0];
        assert_eq!((first.kind, first.reason.as_str()), (RejectKind::Invalid, why));
        assert_eq!(first.series, "{__name__=\"up\"}");
    }
}

#[test]
fn metadata_is_said_once_of_a_metric_and_names_its_family() {
    let symbols = ["", "__name__", "a_bucket", "a_count", "helps", "s", "b_total"];
    let of = |value: u32, kind: i32| {
        let mut request = small(&symbols, vec![1, value, 5, value]);
        request.timeseries[0].metadata = Some(oracle::Metadata { kind, help_ref: 4, unit_ref: 5 });
        request.timeseries.remove(0)
    };
    let timeseries = vec![of(2, 3), of(2, 3), of(3, 3), of(6, 1), of(6, 1)];
    let request = Request { symbols: small(&symbols, vec![]).symbols, timeseries };
    let (batch, read) = decode_bytes(&request.encode_to_vec()).unwrap();
    let said: HashMap<_, _> = batch.metadata().iter().map(|m| (m.metric.as_str(), &m.says)).collect();
    assert_eq!((read.stats.metadata, batch.metadata().len(), said.len()), (3, 3, 2));
    let says = |kind| MetricMetadata { kind, help: "helps".to_owned(), unit: "s".to_owned() };
    assert_eq!(*said["a"], says(MetricKind::Histogram));
    assert_eq!(*said["b_total"], says(MetricKind::Counter));
}

#[test]
fn bombs_are_bounded() {
    // A kilobyte of references to one long symbol stands for a hundred megabytes of labels.
    let long = "x".repeat(200_000);
    let request = small(&["", "__name__", &long], [1, 2].repeat(500));
    assert!(matches!(decode_bytes(&request.encode_to_vec()), Err(DecodeError::TooManyElements { .. })));
    // Nothing but empty series, samples and symbols.
    for body in [
        [0x2A, 0].repeat(1_000_000),
        encode_field(5, &[0x12, 0].repeat(1_000_000)),
        [0x22, 0].repeat(1_000_000),
    ] {
        assert!(matches!(decode_bytes(&body), Err(DecodeError::TooManyElements { .. })));
    }
    // A count that no body can hold.
    let mut lie = vec![0x2A, 0x0A, 0x0A];
    prost::encoding::encode_varint(u64::from(u32::MAX), &mut lie);
    assert!(matches!(decode_bytes(&lie), Err(DecodeError::Wire(_))));
}
