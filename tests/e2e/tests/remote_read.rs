//! Remote read and federation, judged by Prometheus: one that has the samples itself against one that reads them from us.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Answer, Chronolith, Prometheus, TestSeries, assert_same, write_body};
use chronolith_testkit::http;

/// The labels that are ours alone.
const OURS: [&str; 1] = ["tenant_id"];

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Two hours of 40 series, one of which ends with a stale marker, up to a minute ago.
fn load() -> Vec<TestSeries> {
    // Not on a whole second: 2.42 counts a sample on the left edge of a window, 3.x does not, and no edge is to fall on one.
    let last = (now_s() - 60) * 1000 + 137;
    let times = || (0..480i64).map(move |i| last - (479 - i) * 15_000);
    let mut all = Vec::new();
    for i in 0..40 {
        let labels = [
            ("__name__", if i % 2 == 0 { "requests_total" } else { "temperature" }),
            ("instance", &*format!("host{i:02}")),
            ("job", if i % 3 == 0 { "a" } else { "b" }),
        ];
        let value = |n: usize| match i % 2 {
            0 => ((n * (i + 1)) % 5000) as f64,
            _ => (n as f64 / 7.0).sin() * i as f64,
        };
        let samples: Vec<_> = times().enumerate().map(|(n, t)| (t, value(n))).collect();
        all.push(TestSeries::new(&labels, &samples));
    }
    all[3].samples.push((last + 1000, f64::from_bits(0x7ff0_0000_0000_0002)));
    all
}

const QUERIES: [&str; 9] = [
    "requests_total",
    "sum by (job) (rate(requests_total[5m]))",
    "avg_over_time(temperature[10m])",
    "topk(3, temperature)",
    "requests_total{instance=~\"host1.\"} / on (instance) requests_total",
    "count({__name__=~\".+\"})",
    "max_over_time(rate(requests_total[2m])[30m:1m])",
    "temperature{instance=\"host03\"}",
    "increase(requests_total{job!=\"a\"}[1h])",
];

#[test]
fn a_prometheus_that_reads_from_us_answers_like_one_that_has_the_samples() {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let mut server =
        Chronolith::server(&sub("chronolith"), &["--storage.remote.read-max-bytes-in-frame=2000"]);
    let owner = Prometheus::with_config(&sub("owner"), "{}\n", &["--web.enable-remote-write-receiver"]);
    let series = load();
    let body = write_body(&series);
    assert!(server.write(&body).unwrap().status < 300);
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    let reply = http::request("POST", &owner.url("/api/v1/write"), &headers, &body).unwrap();
    assert!(reply.status < 300, "{}", reply.text());

    let config = |params: &str| {
        format!("remote_read: [{{url: \"{}{params}\", read_recent: true}}]\n", server.url("/api/v1/read"))
    };
    let reader = Prometheus::with_config(&sub("reader"), &config(""), &[]);
    let stripped = Prometheus::with_config(&sub("stripped"), &config("?replicaLabels[]=tenant_id"), &[]);
    let end = (now_s() - 60) as f64;
    // The second round reads blocks: what was written goes into the bucket.
    for round in ["head", "bucket"] {
        for query in QUERIES {
            let what = format!("{query} from the {round}");
            let want = owner.query_range(query, end - 6000.0, end, 60.0).points(&[]);
            assert!(!want.is_empty(), "{what}");
            let all_labels = reader.query_range(query, end - 6000.0, end, 60.0);
            assert_same(&what, &all_labels.points(&OURS), &want);
            let stripped = stripped.query_range(query, end - 6000.0, end, 60.0);
            assert_same(&format!("{what}, stripped"), &stripped.points(&[]), &want);
        }
        server.flush();
    }

    // Federation: the same lines but for the label that is ours.
    let federate = |url: String| {
        let accept = [("accept", "text/plain;version=0.0.4")];
        let reply =
            http::request("GET", &format!("{url}?match[]=%7Bjob%3D~%22.%2B%22%7D"), &accept, b"").unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text()
    };
    let (ours, theirs) = (federate(server.url("/federate")), federate(owner.url("/federate")));
    let lines = |text: &str| -> BTreeMap<String, String> {
        let without = text.replace(",tenant_id=\"default-tenant\"", "");
        let samples = without.lines().filter(|l| !l.starts_with('#'));
        samples.map(|l| l.split_once(' ').unwrap()).map(|(s, v)| (s.to_owned(), v.to_owned())).collect()
    };
    assert_eq!(lines(&ours), lines(&theirs));
    assert_eq!(lines(&ours).len(), 39, "one series has ended");
    let types =
        |text: &str| text.lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(types(&ours), types(&theirs));
    server.stop();
}

/// The parts of the API on which 2.42 and 3.14 agree, asked of both.
#[test]
fn refusals_and_empty_answers_are_prometheus_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(&dir.path().join("chronolith"), &[]);
    std::fs::create_dir(dir.path().join("prometheus")).unwrap();
    let owner = Prometheus::with_config(
        &dir.path().join("prometheus"),
        "{}\n",
        &["--web.enable-remote-write-receiver"],
    );
    let body = write_body(&load());
    assert!(server.write(&body).unwrap().status < 300);
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    assert!(http::request("POST", &owner.url("/api/v1/write"), &headers, &body).unwrap().status < 300);

    let same_reply = [
        "query?query=1%2B1&time=4",
        "query?query=up&time=x",
        "query?query=up&timeout=x",
        "query?query=sum(&time=4",
        "query?query=%22text%22&time=2015-07-01T20:10:51.781Z",
        "query?query=vector(1)&time=1e3",
        "query_range?query=up&start=x&end=1&step=1",
        "query_range?query=up&start=2&end=1&step=1",
        "query_range?query=up&start=1&end=2&step=x",
        "query_range?query=up&start=1&end=2&step=0",
        "query_range?query=up&start=0&end=11001&step=1",
        "query_range?query=up&start=1&end=2&step=9223372037",
        "query_range?query=vector(time())&start=0&end=3&step=1.5",
        "query_exemplars?query=up",
        "query_exemplars?query=up&start=2&end=1",
        "query_exemplars?query=up{",
        "format_query?query=sum(rate(a[5m]))%20by%20(b)",
        "series",
        "series?match[]=up{",
        "series?match[]=%7Bx%3D%22%22%7D",
        "series?match[]=none",
        "series?match[]=requests_total&start=x",
        "labels?match[]=%7Bx%3D%22%22%7D",
        "labels?start=x",
        "label/instance/values",
        "label/instance/values?match[]=temperature",
        "label/none/values",
        "metadata",
        "metadata?limit=x",
        "targets",
        "targets?state=active",
        "targets/metadata",
        "targets/metadata?limit=x",
        "targets/metadata?match_target=%7B",
        "rules",
        "rules?type=x",
        "alerts",
        "alertmanagers",
    ];
    for path in same_reply {
        let path = format!("/api/v1/{path}");
        let theirs = http::get(&owner.url(&path)).unwrap();
        let ours = server.get(&path);
        assert_eq!(ours.status, theirs.status, "{path}: {} and {}", ours.text(), theirs.text());
        if theirs.body.is_empty() {
            assert!(ours.body.is_empty(), "{path}");
            continue;
        }
        let (mut ours, mut theirs) = (Answer::of(&ours).body, Answer::of(&theirs).body);
        // What changed after 2.42.
        if let Some(text) = theirs["error"].as_str() {
            theirs["error"] = text.replace("Invalid time value", "invalid time value").into();
        }
        if let Some(data) = ours["data"].as_object_mut() {
            data.remove("droppedTargetCounts");
        }
        if let Some(data) = theirs["data"].as_object_mut() {
            data.remove("droppedTargetCounts");
        }
        if path.contains("/targets") {
            // 2.42 says null where there is none.
            for reply in [&mut ours, &mut theirs] {
                for list in ["activeTargets", "droppedTargets"] {
                    if reply["data"][list].is_null() && reply["data"].is_object() {
                        reply["data"][list] = serde_json::json!([]);
                    }
                }
            }
        }
        assert_eq!(ours, theirs, "{path}");
    }
    let same_status = [
        ("GET", "/api/v1/nothing"),
        ("POST", "/api/v1/nothing"),
        ("POST", "/api/v1/label/job/values"),
        ("GET", "/api/v1/read"),
        ("POST", "/api/v1/read"),
        ("OPTIONS", "/api/v1/query"),
        ("OPTIONS", "/api/v1/nothing"),
        ("GET", "/federate?match[]=%7B"),
        ("GET", "/federate"),
        ("GET", "/api/v1/status/config"),
        ("GET", "/api/v1/status/flags"),
        ("GET", "/api/v1/status/walreplay"),
    ];
    for (method, path) in same_status {
        let theirs = http::request(method, &owner.url(path), &[], b"").unwrap();
        let ours = http::request(method, &server.url(path), &[], b"").unwrap();
        assert_eq!(ours.status, theirs.status, "{method} {path}: {} and {}", ours.text(), theirs.text());
    }
    for encoding in ["gzip", "deflate"] {
        let headers = [("accept-encoding", encoding)];
        let url = server.url("/api/v1/label/instance/values");
        let reply = http::request("GET", &url, &headers, b"").unwrap();
        assert_eq!(reply.header("content-encoding"), Some(encoding));
    }
    server.stop();
}
