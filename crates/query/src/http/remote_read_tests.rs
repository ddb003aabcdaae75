use axum::Router;
use chronolith_chunk::SampleColumns;
use chronolith_model::STALE_NAN;
use http::Request;
use std::collections::BTreeMap;

use super::super::testing::{T0, api, api_over, ask, series};
use super::*;
use crate::Config;

fn query(matchers: &[(i32, &str, &str)], start: i64, end: i64) -> proto::Query {
    let matchers = matchers.iter().map(|(kind, name, value)| proto::LabelMatcher {
        r#type: *kind,
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    proto::Query {
        start_timestamp_ms: start,
        end_timestamp_ms: end,
        matchers: matchers.collect(),
        hints: None,
    }
}

async fn post(router: &Router, queries: Vec<proto::Query>, accepted: Vec<i32>) -> (u16, String, Vec<u8>) {
    let message = proto::ReadRequest { queries, accepted_response_types: accepted };
    let body = snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).unwrap();
    let (status, headers, body) = ask(router, Request::post("/api/v1/read").body(body.into()).unwrap()).await;
    let kind = headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
    (status.as_u16(), kind, body)
}

fn sampled_response(body: &[u8]) -> proto::ReadResponse {
    let plain = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    proto::ReadResponse::decode(plain.as_slice()).unwrap()
}

/// Takes frames apart as upstream's reader does.
fn frames(mut body: &[u8]) -> Vec<proto::ChunkedReadResponse> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let len = prost::encoding::decode_varint(&mut body).unwrap() as usize;
        let (sum, rest) = body.split_at(4);
        let (data, rest) = rest.split_at(len);
        let expected = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, data) as u32;
        assert_eq!(u32::from_be_bytes(sum.try_into().unwrap()), expected);
        out.push(proto::ChunkedReadResponse::decode(data).unwrap());
        body = rest;
    }
    out
}

fn names(labels: &[proto::Label]) -> Vec<(&str, &str)> {
    labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect()
}

#[tokio::test]
async fn samples_are_clipped_and_in_the_order_of_queries() {
    let api = api().await;
    let queries = vec![
        query(
            &[(0, "__name__", "up"), (2, "instance", "h[12]"), (0, "cluster", "a")],
            T0 + 15_000,
            T0 + 45_000,
        ),
        query(&[(0, "__name__", "up"), (0, "cluster", "other")], T0, T0 + 45_000),
        query(&[(0, "__name__", "gone")], T0 + 290_000, T0 + 400_000),
        query(&[(0, "__name__", "up")], T0 + 1, T0),
    ];
    let (status, kind, body) = post(&api, queries, vec![7, 0]).await;
    assert_eq!((status, kind.as_str()), (200, "application/x-protobuf"));
    let results = sampled_response(&body).results;
    assert_eq!(results.iter().map(|r| r.timeseries.len()).collect::<Vec<_>>(), [2, 0, 1, 0]);
    let first = &results[0].timeseries[0];
    assert_eq!(
        names(&first.labels),
        [("__name__", "up"), ("cluster", "a"), ("instance", "h1"), ("job", "j")]
    );
    let samples: Vec<_> = first.samples.iter().map(|s| (s.timestamp - T0, s.value)).collect();
    assert_eq!(samples, [(15_000, 1.0), (30_000, 2.0), (45_000, 3.0)]);
    // The stale marker keeps its bits: the reader must see that the series ended.
    assert_eq!(results[2].timeseries[0].samples[0].value.to_bits(), STALE_NAN.to_bits());
}

#[tokio::test]
async fn chunks_come_in_frames() {
    let config = Config {
        remote_read: RemoteReadLimits { frame_bytes_max: 100, ..RemoteReadLimits::default() },
        ..Config::default()
    };
    let long = SampleColumns::from_floats((0..500).map(|i| (T0 + i * 15_000, (i as f64).sqrt())));
    let labels = Labels::from_pairs([("__name__", "long")]).unwrap();
    let mut all = series();
    all.push((labels, long.clone()));
    let api = api_over(config, all, |_| {}).await;
    let queries = vec![
        query(&[(0, "__name__", "up")], T0, T0 + 1),
        query(&[(0, "__name__", "long")], T0, T0 + 10_000_000),
    ];
    let (status, kind, body) = post(&api, queries, vec![1, 0]).await;
    let want = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    assert_eq!((status, kind.as_str()), (200, want));
    let frames = frames(&body);
    assert!(frames.iter().all(|f| f.chunked_series.len() == 1));
    let of = |index: i64| frames.iter().filter(move |f| f.query_index == index).map(|f| &f.chunked_series[0]);
    let instances: Vec<_> = of(0).map(|s| s.labels[2].value.clone()).collect();
    assert_eq!(instances, ["h1", "h2", "h3"]);
    assert!(of(1).count() > 2, "a series of five chunks does not fit a frame of 100 bytes");
    let mut columns = SampleColumns::default();
    for chunk in of(1).flat_map(|s| &s.chunks) {
        let encoding = chronolith_chunk::Encoding::Xor;
        assert_eq!(chunk.r#type, 1);
        let chunk = chronolith_chunk::Chunk {
            mint: chunk.min_time_ms,
            maxt: chunk.max_time_ms,
            encoding,
            data: chunk.data.clone(),
        };
        chunk.decode_into(TimeRange::ALL, &mut columns).unwrap();
    }
    assert_eq!(columns, long);
}

#[tokio::test]
async fn histograms_read_back() {
    let h = FloatHistogram {
        counter_reset: CounterReset::NotReset,
        schema: -1,
        zero_threshold: 0.001,
        zero_count: 1.5,
        count: 8.5,
        sum: -0.5,
        positive_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 3, length: 2 }],
        negative_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![1.0, 2.0, 3.0],
        negative_buckets: vec![1.0],
        custom_values: vec![],
    };
    let mut columns = SampleColumns::default();
    columns.push_histogram(T0, Arc::new(h.clone()));
    let labels = Labels::from_pairs([("__name__", "h")]).unwrap();
    let api = api_over(Config::default(), vec![(labels, columns)], |_| {}).await;
    let (_, _, body) = post(&api, vec![query(&[(0, "__name__", "h")], T0, T0)], vec![]).await;
    let found = sampled_response(&body).results[0].timeseries[0].histograms[0].clone();
    assert_eq!((found.schema, found.zero_threshold, found.sum, found.timestamp), (-1, 0.001, -0.5, T0));
    assert_eq!(found.count, Some(proto::histogram::Count::CountFloat(8.5)));
    assert_eq!(found.zero_count, Some(proto::histogram::ZeroCount::ZeroCountFloat(1.5)));
    assert_eq!((found.positive_counts, found.negative_counts), (h.positive_buckets, h.negative_buckets));
    let spans: Vec<_> = found.positive_spans.iter().map(|s| (s.offset, s.length)).collect();
    assert_eq!(spans, [(-2, 1), (3, 2)]);

    let ints = Histogram {
        schema: 2,
        zero_count: 0,
        count: 6,
        sum: 3.0,
        positive_spans: vec![Span { offset: 1, length: 3 }],
        positive_buckets: vec![2, -1, 2],
        ..Histogram::default()
    };
    let mut m = ProtoBuf::new();
    put_histogram(&mut m, &ints, T0);
    let read = proto::Histogram::decode(m.bytes.as_slice()).unwrap();
    assert_eq!(read.positive_deltas, [2, -1, 2]);
    assert_eq!(read.count, Some(proto::histogram::Count::CountInt(6)));
    assert_eq!(read.zero_count, Some(proto::histogram::ZeroCount::ZeroCountInt(0)));
    let custom = FloatHistogram { schema: -53, custom_values: vec![1.0, 2.0], ..FloatHistogram::default() };
    let mut m = ProtoBuf::new();
    put_float_histogram(&mut m, &custom, T0);
    assert_eq!(proto::Histogram::decode(m.bytes.as_slice()).unwrap().custom_values, [1.0, 2.0]);
}

#[tokio::test]
async fn bad_requests_are_400() {
    let config = Config {
        remote_read: RemoteReadLimits { samples_max: 30, ..RemoteReadLimits::default() },
        ..Config::default()
    };
    let api = api_over(config, series(), |_| {}).await;
    let raw = async |body: Vec<u8>| {
        let (status, _, body) = ask(&api, Request::post("/api/v1/read").body(body.into()).unwrap()).await;
        (status.as_u16(), String::from_utf8(body).unwrap())
    };
    assert_eq!(raw(b"nonsense".to_vec()).await, (400, "snappy: corrupt input\n".to_owned()));
    let bomb = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(raw(bomb).await.1.contains("exceeds limit"), "a length of 4 GiB is not allocated");
    let all = query(&[(0, "__name__", "up")], T0, T0 + 1_000_000);
    let two = query(&[(0, "__name__", "up"), (0, "instance", "h1")], T0, T0 + 1_000_000);
    assert_eq!(post(&api, vec![two.clone(), two], vec![]).await.0, 200, "the limit is a query's");
    let (status, _, body) = post(&api, vec![all.clone()], vec![]).await;
    assert_eq!((status, body.as_slice()), (400, b"exceeded sample limit (30)\n".as_slice()));
    assert_eq!(post(&api, vec![all.clone()], vec![1]).await.0, 200, "streams have no such limit");
    for (bad, want) in [
        (query(&[(9, "a", "b")], 0, 1), "unknown matcher type 9"),
        (query(&[(2, "a", "(")], 0, 1), "matcher on a: "),
        (query(&[], 0, 1), "a query needs a matcher"),
        (query(&[(0, "cluster", "a")], 0, 1), "memory: no matchers specified"),
    ] {
        let (status, _, body) = post(&api, vec![bad], vec![]).await;
        let text = String::from_utf8(body).unwrap();
        assert!(status == 400 && text.starts_with(want), "{status} {text}");
    }
    let (status, _, _) = post(&api, vec![all], vec![5]).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_url_says_how_to_read() {
    let mut all = Vec::new();
    for replica in ["a", "b"] {
        let labels = Labels::from_pairs([("__name__", "m"), ("replica", replica)]).unwrap();
        all.push((labels, SampleColumns::from_floats((0..5).map(|i| (T0 + i * 1000, 1.0)))));
    }
    let api = api_over(Config::default(), all, |_| {}).await;
    let message = proto::ReadRequest {
        queries: vec![query(&[(0, "__name__", "m")], T0, T0 + 10_000)],
        accepted_response_types: vec![],
    };
    let body = snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).unwrap();
    let mut found = BTreeMap::new();
    for path in ["/api/v1/read", "/api/v1/read?replicaLabels[]=replica", "/api/v1/read?dedup=x"] {
        let (status, _, body) = ask(&api, Request::post(path).body(body.clone().into()).unwrap()).await;
        let series = if status == 200 { sampled_response(&body).results[0].timeseries.len() } else { 0 };
        found.insert(path, (status.as_u16(), series));
    }
    assert_eq!(found["/api/v1/read"], (200, 2));
    assert_eq!(found["/api/v1/read?replicaLabels[]=replica"], (200, 1));
    assert_eq!(found["/api/v1/read?dedup=x"], (400, 0));
}

#[tokio::test]
async fn samples_are_counted_by_the_memory_that_they_take() {
    let admission = crate::AdmissionConfig { memory_max_bytes: 2000, ..crate::AdmissionConfig::default() };
    let api = api_over(Config { admission, ..Config::default() }, series(), |_| {}).await;
    let ask = |name: &str| vec![query(&[(0, "__name__", name)], T0, T0 + 285_000)];
    let (status, _, body) = post(&api, ask("up"), vec![]).await;
    assert_eq!(status, 422);
    let body = String::from_utf8(body).unwrap();
    assert!(body.starts_with("query needs more memory than a query may use: 2.0 KiB"), "{body}");
    assert_eq!(post(&api, ask("nothing"), vec![]).await.0, 200);
}
