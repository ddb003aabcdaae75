//! What becomes of requests, written in JSON: every kind of point, every setting, and what is refused.

use chronolith_model::{MetricKind, WriteBatch, WriteHistogram, is_stale_nan};
use proptest::prelude::*;
use serde_json::{Value, json};

mod deltas;

use super::*;
use crate::otlp::{TranslationStrategy, to_protobuf};

const BYTES_MAX: usize = 8 << 20;

fn decode(body: &[u8], settings: &OtlpSettings) -> Result<(WriteBatch, Translated), DecodeError> {
    let (mut builder, mut rendered) = (WriteBatchBuilder::default(), BytesMut::new());
    let read = translate(body, settings, None, BYTES_MAX, &mut rendered, &mut builder)?;
    Ok((builder.finish_rendered(rendered.freeze()), read))
}

/// Series as lines: labels, then samples `value @ time (start)`, then exemplars.
fn lines(batch: &WriteBatch) -> Vec<String> {
    let one = |s: chronolith_model::WriteSeries<'_>| {
        let labels: Result<Vec<_>, _> = chronolith_model::write::decode_labels(s.labels).collect();
        let labels: Vec<_> = labels.unwrap().into_iter().map(|(n, v)| format!("{n}={v}")).collect();
        let mut line = format!("{{{}}}", labels.join(","));
        for (i, sample) in s.samples.iter().enumerate() {
            let v = if is_stale_nan(sample.v) { "stale".to_owned() } else { sample.v.to_string() };
            line.push_str(&format!(" {v}@{}({})", sample.t, s.start_ts_of_sample(i)));
        }
        for (i, (t, h)) in s.histograms.iter().enumerate() {
            let WriteHistogram::Integer(h) = h else { panic!("an integer histogram") };
            let spans = |s: &[chronolith_model::histogram::Span]| {
                s.iter().map(|s| format!("{}+{}", s.offset, s.length)).collect::<Vec<_>>().join(" ")
            };
            line.push_str(&format!(
                " [{} n={} sum={} zero={} +({}){:?} -({}){:?} {:?}]@{t}({})",
                h.schema,
                h.count,
                if is_stale_nan(h.sum) { "stale".to_owned() } else { h.sum.to_string() },
                h.zero_count,
                spans(&h.positive_spans),
                h.positive_buckets,
                spans(&h.negative_spans),
                h.negative_buckets,
                h.custom_values,
                s.start_ts_of_histogram(i)
            ));
        }
        for e in s.exemplars {
            line.push_str(&format!(" # {} {}@{}", e.labels, e.value, e.t));
        }
        line
    };
    batch.iter().map(one).collect()
}

/// A request with one resource, one scope and these metrics.
fn request(resource: Value, metrics: Value) -> Vec<u8> {
    let scope =
        json!({"name": "lib", "version": "1", "attributes": [{"key": "k", "value": {"stringValue": "v"}}]});
    let json = json!({"resourceMetrics": [{
        "resource": {"attributes": resource},
        "scopeMetrics": [{"scope": scope, "metrics": metrics}],
    }]});
    to_protobuf(json.to_string().as_bytes()).unwrap()
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn service() -> Value {
    json!([
        attribute("service.name", "shop"),
        attribute("service.namespace", "eu"),
        attribute("service.instance.id", "i-1"),
    ])
}

#[track_caller]
fn check(resource: Value, metrics: Value, settings: &OtlpSettings, want: &[&str]) {
    let (batch, read) = decode(&request(resource, metrics), settings).unwrap();
    assert_eq!(read.refused.rejections, [], "nothing is refused");
    assert_eq!(lines(&batch), want);
}

fn gauge(attributes: Value) -> Value {
    let point = json!({"timeUnixNano": "1000000000", "asDouble": 1.5, "attributes": attributes});
    json!([{"name": "queue.size", "unit": "1", "gauge": {"dataPoints": [point]}}])
}

#[test]
fn gauges_and_sums() {
    let attributes =
        json!([attribute("z", "1"), attribute("a.b", "2"), attribute("a_b", "3"), attribute("e", "")]);
    check(
        service(),
        gauge(attributes),
        &OtlpSettings::default(),
        &["{__name__=queue_size_ratio,a_b=2;3,instance=i-1,job=eu/shop,z=1} 1.5@1000(0)"],
    );
    let exemplar = json!({"timeUnixNano": "900000000", "asInt": "3", "traceId": "0102", "spanId": "00",
        "filteredAttributes": [attribute("user", "x")]});
    let points = json!([
        {"timeUnixNano": "1000000000", "startTimeUnixNano": "500000000", "asInt": "7", "exemplars": [exemplar]},
        {"timeUnixNano": "2000000000", "asInt": "8", "flags": 1},
    ]);
    let sum = |monotonic: bool| {
        json!([{"name": "requests", "unit": "By/s", "description": "Requests.", "sum": {
            "aggregationTemporality": 2, "isMonotonic": monotonic, "dataPoints": points}}])
    };
    check(
        json!([]),
        sum(true),
        &OtlpSettings::default(),
        &[
            "{__name__=requests_bytes_per_second_total} 7@1000(500) # {trace_id=\"0102\", user=\"x\"} 3@900",
            "{__name__=requests_bytes_per_second_total} stale@2000(0)",
        ],
    );
    let (batch, read) = decode(&request(json!([]), sum(false)), &OtlpSettings::default()).unwrap();
    assert_eq!((batch.series_count(), read.stats.metadata), (2, 1));
    let says = &batch.metadata()[0];
    assert_eq!(says.metric, "requests_bytes_per_second");
    assert_eq!((says.says.kind, says.says.help.as_str()), (MetricKind::Gauge, "Requests."));
    assert_eq!(says.says.unit, "bytes_per_second");
}

#[test]
fn histograms_and_summaries() {
    let exemplars = json!([
        {"timeUnixNano": "1000000", "asDouble": 0.05},
        {"timeUnixNano": "2000000", "asDouble": 50.0},
    ]);
    let point = json!({"timeUnixNano": "3000000", "startTimeUnixNano": "1000000", "count": "6", "sum": 9.5,
        "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.1, 5], "exemplars": exemplars});
    let metric = |temporality: u8| {
        json!([{"name": "latency", "unit": "s", "histogram": {
        "aggregationTemporality": temporality, "dataPoints": [point]}}])
    };
    check(
        json!([]),
        metric(2),
        &OtlpSettings::default(),
        &[
            "{__name__=latency_seconds_sum} 9.5@3(1)",
            "{__name__=latency_seconds_count} 6@3(1)",
            "{__name__=latency_seconds_bucket,le=0.1} 1@3(1) # {} 0.05@1",
            "{__name__=latency_seconds_bucket,le=5} 3@3(1)",
            "{__name__=latency_seconds_bucket,le=+Inf} 6@3(1) # {} 50@2",
        ],
    );
    let custom =
        OtlpSettings { convert_histograms_to_nhcb: true, native_delta: true, ..OtlpSettings::default() };
    check(
        json!([]),
        metric(1),
        &custom,
        &[
            "{__name__=latency_seconds} [-53 n=6 sum=9.5 zero=0 +(0+3)[1, 1, 1] -()[] [0.1, 5.0]]@3(1) # {} 0.05@1 # {} 50@2",
        ],
    );
    let summary = json!([{"name": "s", "summary": {"dataPoints": [{"timeUnixNano": "3000000", "count": "2",
        "sum": 3, "quantileValues": [{"quantile": 0.5, "value": 1}, {"quantile": 1, "value": 2}]}]}}]);
    check(
        json!([]),
        summary,
        &OtlpSettings::default(),
        &[
            "{__name__=s_sum} 3@3(0)",
            "{__name__=s_count} 2@3(0)",
            "{__name__=s,quantile=0.5} 1@3(0)",
            "{__name__=s,quantile=1} 2@3(0)",
        ],
    );
}

#[test]
fn exponential_histograms_are_native_ones() {
    let point = |scale: i64, flags: u8| {
        json!({"timeUnixNano": "3000000", "count": "9", "sum": 9.5, "scale": scale,
        "zeroCount": "2", "positive": {"offset": -1, "bucketCounts": ["4", "2"]},
        "negative": {"offset": 3, "bucketCounts": ["1"]}, "flags": flags})
    };
    let metric = |points: Value| {
        json!([{"name": "e", "exponentialHistogram": {
        "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE", "dataPoints": points}}])
    };
    check(
        json!([]),
        metric(json!([point(3, 0), point(9, 0), point(3, 1)])),
        &OtlpSettings::default(),
        &[
            "{__name__=e} [3 n=9 sum=9.5 zero=2 +(0+2)[4, -2] -(4+1)[1] []]@3(0)",
            "{__name__=e} [8 n=9 sum=9.5 zero=2 +(0+2)[4, -2] -(2+1)[1] []]@3(0)",
            "{__name__=e} [3 n=0 sum=stale zero=0 +()[] -()[] []]@3(0)",
        ],
    );
    let (batch, read) =
        decode(&request(json!([]), metric(json!([point(-5, 0), point(-4, 0)]))), &OtlpSettings::default())
            .unwrap();
    assert_eq!((batch.series_count(), read.refused.rejected), (1, 1));
    assert_eq!(read.refused.rejections[0].reason, "scale must be at least -4, was -5");
}

#[test]
fn resources_and_scopes() {
    let mut resource = service();
    resource.as_array_mut().unwrap().push(attribute("host.name", "h1"));
    resource.as_array_mut().unwrap().push(json!({"key": "cpus", "value": {"intValue": "8"}}));
    let point = gauge(json!([attribute("host_name", "own")]));
    let info = "{__name__=target_info,cpus=8,host_name=h1,instance=i-1,job=eu/shop} 1@1000(0)";
    let defaults = OtlpSettings::default();
    let series = "{__name__=queue_size_ratio,host_name=own,instance=i-1,job=eu/shop} 1.5@1000(0)";
    check(resource.clone(), point.clone(), &defaults, &[series, info]);
    let promoted = OtlpSettings {
        promote_resource_attributes: ["cpus", "host.name"].map(str::to_owned).into(),
        target_info: false,
        ..defaults.clone()
    };
    check(
        resource.clone(),
        point.clone(),
        &promoted,
        &["{__name__=queue_size_ratio,cpus=8,host_name=own,instance=i-1,job=eu/shop} 1.5@1000(0)"],
    );
    let all = OtlpSettings {
        promote_all_resource_attributes: true,
        ignore_resource_attributes: ["cpus".to_owned()].into(),
        keep_identifying_resource_attributes: true,
        ..defaults.clone()
    };
    check(
        resource.clone(),
        point.clone(),
        &all,
        &[
            "{__name__=queue_size_ratio,host_name=own,instance=i-1,job=eu/shop,service_instance_id=i-1,\
         service_name=shop,service_namespace=eu} 1.5@1000(0)",
            "{__name__=target_info,cpus=8,host_name=h1,instance=i-1,job=eu/shop,service_instance_id=i-1,\
         service_name=shop,service_namespace=eu} 1@1000(0)",
        ],
    );
    let utf8 = OtlpSettings {
        translation_strategy: TranslationStrategy::NoTranslation,
        promote_scope_metadata: true,
        target_info: false,
        ..defaults
    };
    check(
        resource,
        gauge(json!([attribute("http.method", "GET")])),
        &utf8,
        &[
            "{__name__=queue.size,http.method=GET,instance=i-1,job=eu/shop,otel_scope_k=v,otel_scope_name=lib,\
         otel_scope_version=1} 1.5@1000(0)",
        ],
    );
}

#[test]
fn target_info_spans_the_points_and_no_more_than_a_day() {
    let mut resource = service();
    resource.as_array_mut().unwrap().push(attribute("host.name", "h1"));
    let at = |seconds: &[u64]| {
        let points: Vec<_> = seconds
            .iter()
            .map(|s| json!({"timeUnixNano": (s * 1_000_000_000).to_string(), "asInt": 1}))
            .collect();
        json!([{"name": "g", "gauge": {"dataPoints": points}}])
    };
    let infos = |seconds: &[u64]| {
        let (batch, _) = decode(&request(resource.clone(), at(seconds)), &OtlpSettings::default()).unwrap();
        batch.series(batch.series_count() - 1).samples.iter().map(|s| s.t / 1000).collect::<Vec<_>>()
    };
    assert_eq!(infos(&[1000, 1400]), [1000, 1150, 1300, 1400]);
    assert_eq!(infos(&[0, 1_700_000_000]).len(), 24 * 24 + 1);
    // Two resources that differ in nothing that is kept write it once.
    let one = json!({"resource": {"attributes": resource}, "scopeMetrics": [{"metrics": at(&[1000])}]});
    let both = to_protobuf(json!({"resourceMetrics": [one, one]}).to_string().as_bytes()).unwrap();
    let (batch, _) = decode(&both, &OtlpSettings::default()).unwrap();
    assert_eq!((batch.series_count(), batch.metadata().len()), (3, 2));
}

#[test]
fn what_is_wrong_is_named_and_the_rest_stays() {
    let point = json!({"timeUnixNano": "1000000", "asInt": 1});
    let sum = |name: &str, temporality: u8| {
        json!({"name": name, "sum": {
        "aggregationTemporality": temporality, "dataPoints": [point, point]}})
    };
    let bad_label = json!({"timeUnixNano": "1000000", "asInt": 1, "attributes": [attribute("", "x")]});
    let metrics = json!([
        sum("good", 2),
        sum("delta", 1),
        sum("odd", 7),
        {"name": "...", "gauge": {"dataPoints": [point]}},
        {"name": "labels", "gauge": {"dataPoints": [bad_label, point]}},
        {"name": "nothing"},
    ]);
    let (batch, read) = decode(&request(json!([]), metrics), &OtlpSettings::default()).unwrap();
    assert_eq!((batch.sample_count(), read.refused.rejected), (3, 6));
    let said: Vec<_> =
        read.refused.rejections.iter().map(|r| (r.series.as_str(), r.reason.as_str())).collect();
    assert_eq!(
        said,
        [
            ("delta", "delta temporality is not supported, send cumulative points"),
            ("odd", "invalid aggregation temporality"),
            ("...", "normalization for metric \"...\" resulted in empty name"),
            ("labels", "label name is empty"),
        ]
    );
}

#[test]
fn bombs_are_bounded() {
    let wrap = |tag: u8, content: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    };
    let metric = |data: Vec<u8>| wrap(0x0A, &wrap(0x12, &wrap(0x12, &[wrap(0x0A, b"m"), data].concat())));
    let points = metric(wrap(0x2A, &[0x0A, 0].repeat(1_000_000)));
    let attributes = metric(wrap(0x2A, &wrap(0x0A, &[0x3A, 0].repeat(1_000_000))));
    // A resource attribute of a megabyte on each of a thousand points.
    let resource =
        wrap(0x0A, &wrap(0x0A, &[wrap(0x0A, b"a"), wrap(0x12, &wrap(0x0A, &vec![b'x'; 1 << 20]))].concat()));
    let inner = wrap(0x12, &wrap(0x12, &[wrap(0x0A, b"m"), wrap(0x2A, &[0x0A, 0].repeat(1000))].concat()));
    let promoted = wrap(0x0A, &[resource, inner].concat());
    let settings = OtlpSettings { promote_all_resource_attributes: true, ..OtlpSettings::default() };
    for body in [points, attributes, promoted] {
        assert!(matches!(decode(&body, &settings), Err(DecodeError::TooManyElements { .. })));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in any::<usize>(),
    ) {
        let mut body = request(service(), json!([
            {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": "3000000",
                "count": "6", "sum": 1, "bucketCounts": ["1", "2"], "explicitBounds": [1],
                "exemplars": [{"asInt": 1, "traceId": "01"}]}]}},
            {"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [{"count": "6",
                "scale": 3, "positive": {"offset": 1, "bucketCounts": ["1", "2"]}}]}},
        ]));
        for (at, byte) in changes {
            let at = at % body.len();
            body[at] = byte;
        }
        body.truncate(cut % (body.len() * 2));
        if let Ok((batch, read)) = decode(&body, &OtlpSettings::default()) {
            prop_assert!(read.refused.rejected == 0 || !read.refused.rejections.is_empty());
            prop_assert!(batch.iter().all(|s| !s.samples.is_empty() || !s.histograms.is_empty()));
        }
    }
}
