//! OTLP from outside: the OpenTelemetry SDK writes, queries answer; the same requests to a current Prometheus give the same.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Answer, Chronolith, Prometheus, clients_python};
use chronolith_testkit::http::{self, Response};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/otlp/v1/metrics";

fn get(url: &str) -> Response {
    http::request("GET", url, &[], b"").expect("the server answers")
}

fn instant(url: &str, query: &str, time_s: u64) -> Answer {
    Answer::of(&get(&format!("{url}/api/v1/query?query={}&time={time_s}", http::encode(query))))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn the_opentelemetry_sdk_writes() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(dir.path(), &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/opentelemetry_test.py");
    let out = Command::new(clients_python()).args([script, &server.url(PATH)]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    let url = server.url("");
    for (query, want) in [
        ("http_server_requests_total{http_method=\"GET\",job=\"eu/shop\",instance=\"i-1\"}", 55.0),
        ("http_server_active", 6.0),
        ("process_memory_bytes", 42.0),
        ("http_server_duration_seconds_count", 10.0),
        ("http_server_duration_seconds_bucket{le=\"+Inf\"}", 10.0),
        ("histogram_count(payload_size_bytes)", 10.0),
        ("histogram_sum(payload_size_bytes)", 5500.0),
        ("target_info{deployment_environment=\"test\"}", 1.0),
    ] {
        assert_eq!(instant(&url, query, now_s() + 1).single(), Some(want), "{query}");
    }
    let metadata: Value = serde_json::from_slice(&get(&format!("{url}/api/v1/metadata")).body).unwrap();
    let requests = &metadata["data"]["http_server_requests_total"][0];
    assert_eq!((&requests["type"], &requests["help"]), (&json!("counter"), &json!("Requests served.")));
    assert_eq!(metadata["data"]["payload_size_bytes"][0]["type"], "histogram");
    server.stop();
}

/// Every kind of point, and attributes that collide, with times just now.
fn payload(now_s: u64) -> Value {
    let at = |ago_s: u64| ((now_s - ago_s) * 1_000_000_000).to_string();
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let attributes = json!([text("http.method", "GET"), text("http_method", "get"), text("9", "nine"),
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"doubleValue": 0.5}]}}}]);
    let number = |ago_s: u64, v: i64| {
        json!({"startTimeUnixNano": at(600), "timeUnixNano": at(ago_s),
        "asInt": v.to_string(), "attributes": attributes})
    };
    let exemplar = json!({"timeUnixNano": at(30), "asDouble": 0.3, "traceId": "0102030405060708090a0b0c0d0e0f10",
        "spanId": "0102030405060708", "filteredAttributes": [text("user", "x")]});
    let classic = json!({"startTimeUnixNano": at(600), "timeUnixNano": at(30), "count": "6", "sum": 9.25,
        "bucketCounts": ["1", "2", "3"], "explicitBounds": [0.25, 2.5], "exemplars": [exemplar]});
    let native = json!({"startTimeUnixNano": at(600), "timeUnixNano": at(30), "count": "10", "sum": 12.5, "scale": 10,
        "zeroCount": "1", "positive": {"offset": -3, "bucketCounts": ["1", "0", "2", "0", "0", "0", "0", "4"]},
        "negative": {"offset": 40, "bucketCounts": ["2"]}});
    let summary = json!({"timeUnixNano": at(30), "count": "4", "sum": 2.5,
        "quantileValues": [{"quantile": 0.5, "value": 0.25}, {"quantile": 0.99, "value": 1.5}]});
    let metrics = json!([
        {"name": "requests", "unit": "1", "sum": {"aggregationTemporality": 2, "isMonotonic": true,
            "dataPoints": [number(90, 5), number(30, 9)]}},
        {"name": "in.flight", "unit": "{req}", "sum": {"aggregationTemporality": 2, "dataPoints": [number(30, 3)]}},
        {"name": "cpu.ratio", "unit": "1", "gauge": {"dataPoints": [number(30, 1)]}},
        {"name": "latency", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [classic]}},
        {"name": "size", "unit": "By", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [native]}},
        {"name": "old.summary", "unit": "ms", "summary": {"dataPoints": [summary]}},
    ]);
    json!({"resourceMetrics": [{
        "resource": {"attributes": [text("service.name", "shop"), text("service.namespace", "eu"),
            text("service.instance.id", "i-1"), text("host.name", "h1"), {"key": "cpus", "value": {"intValue": "8"}}]},
        "scopeMetrics": [{"scope": {"name": "lib", "version": "1.2"}, "metrics": metrics}],
    }]})
}

/// What both must answer alike: all series with their newest values.
const QUERIES: [&str; 4] = [
    "{__name__=~\".+\",job=\"eu/shop\"}",
    "{__name__=~\"size_bytes|size\"}",
    "count_over_time({__name__=~\"requests.*|target_info\"}[10m])",
    "rate({__name__=~\"requests.*\"}[10m])",
];

/// Sends the same to a current Prometheus and to us, both with these settings, and compares.
fn compare(binary: &str, otlp: &str, ours: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("otlp.yml");
    std::fs::write(&settings, otlp).unwrap();
    let file = format!("--receive.otlp-config-file={}", settings.display());
    let mut args = vec![file.as_str()];
    args.extend_from_slice(ours);
    let mut server = Chronolith::server(&dir.path().join("ours"), &args);
    let theirs = dir.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    let config = format!("otlp:\n  {}\n", otlp.replace('\n', "\n  "));
    let prometheus = Prometheus::of_binary(
        binary,
        &theirs,
        &config,
        &["--web.enable-otlp-receiver", "--enable-feature=exemplar-storage"],
    );
    let now_s = now_s();
    let body = payload(now_s).to_string();
    for url in [server.url(PATH), prometheus.url(PATH)] {
        let reply =
            http::request("POST", &url, &[("content-type", "application/json")], body.as_bytes()).unwrap();
        assert_eq!(reply.status, 200, "{url}: {}", reply.text());
    }
    let results = |url: &str, query: &str| {
        let mut series =
            instant(url, query, now_s).body["data"]["result"].as_array().expect("a vector").clone();
        for one in &mut series {
            one["metric"].as_object_mut().expect("labels").remove("tenant_id");
            // The instant of the question.
            let place = if one["value"].is_null() { "histogram" } else { "value" };
            one[place][0] = Value::Null;
        }
        series.sort_by_key(|s| s["metric"].to_string());
        series
    };
    for query in QUERIES {
        let (ours, theirs) = (results(&server.url(""), query), results(&prometheus.url(""), query));
        assert!(!ours.is_empty() || query.starts_with("rate"), "{query}");
        assert_eq!(ours, theirs, "{query} with {otlp}");
    }
    server.stop();
}

#[test]
fn a_current_prometheus_translates_the_same() {
    let Ok(binary) = std::env::var("CHRONOLITH_CURRENT_PROMETHEUS") else {
        eprintln!("left out: CHRONOLITH_CURRENT_PROMETHEUS names no Prometheus 3");
        return;
    };
    assert!(Path::new(&binary).is_file(), "{binary}");
    for otlp in [
        "{}",
        "promote_resource_attributes: [host.name]\npromote_scope_metadata: true",
        "promote_all_resource_attributes: true\nkeep_identifying_resource_attributes: true",
        "convert_histograms_to_nhcb: true\ntranslation_strategy: UnderscoreEscapingWithoutSuffixes",
        "translation_strategy: NoUTF8EscapingWithSuffixes",
        "translation_strategy: NoTranslation\npromote_scope_metadata: true",
        "label_name_underscore_sanitization: false\nlabel_name_preserve_multiple_underscores: false",
    ] {
        compare(&binary, otlp, &[]);
    }
}
