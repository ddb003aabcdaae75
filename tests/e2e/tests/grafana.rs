//! What Grafana's Prometheus data source calls (grafana-prometheus and promlib of 2024 to 2026), call by call as it makes them, with
//! the shapes that it reads. README's Grafana section and `examples/grafana/datasource.yml` rest on this.

use chronolith_e2e::{Answer, Chronolith, TestSeries, write_body};
use chronolith_testkit::http::{self, Response};
use serde_json::{Value, json};

const T0: i64 = 1_700_000_000_000;

fn loaded(dir: &std::path::Path) -> Chronolith {
    let server = Chronolith::server(dir, &[]);
    let samples =
        |factor: f64| -> Vec<(i64, f64)> { (0..21).map(|i| (T0 + i * 15_000, factor * i as f64)).collect() };
    let series = [
        TestSeries::new(&[("__name__", "requests_total"), ("job", "a")], &samples(15.0)),
        TestSeries::new(&[("__name__", "requests_total"), ("job", "b")], &samples(30.0)),
        TestSeries::new(&[("__name__", "temperature"), ("room.name", "kitchen")], &samples(0.5)),
    ];
    let reply = server.write(&write_body(&series)).unwrap();
    assert!(reply.status < 300, "{}", reply.text());
    server
}

/// A form as Grafana's Go backend sends it.
fn post(server: &Chronolith, path: &str, pairs: &[(&str, &str)]) -> Response {
    let form: Vec<String> =
        pairs.iter().map(|(n, v)| format!("{}={}", http::encode(n), http::encode(v))).collect();
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept-encoding", "identity"),
        ("user-agent", "Grafana/12.3.0"),
        ("x-dashboard-uid", "abc"),
        ("x-panel-id", "2"),
        ("x-query-group-id", "1"),
    ];
    http::request("POST", &server.url(path), &headers, form.join("&").as_bytes()).expect("the server answers")
}

/// The `data` of a reply that succeeds.
fn data(reply: &Response) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("content-type").is_some_and(|t| t.starts_with("application/json")));
    let body = Answer::of(reply).body;
    assert_eq!(body["status"], "success", "{body}");
    body["data"].clone()
}

#[test]
fn save_and_test() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    // Health check: 1+1 at time 4.
    let health = data(&post(&server, "/api/v1/query", &[("query", "1+1"), ("time", "4")]));
    assert_eq!(health, json!({"resultType": "scalar", "result": [4, "2"]}));
    // Heuristics: which server, which version. A non-empty `features` would make it a Mimir, with a ruler API.
    let build = data(&server.get("/api/v1/status/buildinfo"));
    assert!(build["version"].as_str().is_some_and(|v| !v.is_empty()), "{build}");
    assert!(build["features"].as_object().is_none_or(serde_json::Map::is_empty), "{build}");
    server.stop();
}

#[test]
fn panels_and_explore() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let (start, end) = ("1700000000", "1700000300");
    // A panel: times as float seconds, a step of whole seconds, and what else the backend sends.
    let panel = [
        ("query", "sum by (job) (rate(requests_total[1m]))"),
        ("start", "1700000060.000"),
        ("end", "1700000300.000"),
        ("step", "15"),
        ("timeout", "60s"),
    ];
    let matrix = data(&post(&server, "/api/v1/query_range", &panel));
    assert_eq!(matrix["resultType"], "matrix");
    let series = matrix["result"].as_array().unwrap();
    assert_eq!(series.len(), 2);
    assert_eq!(series[0]["metric"], json!({"job": "a"}));
    assert_eq!(series[0]["values"].as_array().unwrap().len(), 17);
    assert!(series[0]["values"][0][0].is_number() && series[0]["values"][0][1].is_string());
    // A table, and an alert rule's query.
    let vector =
        data(&post(&server, "/api/v1/query", &[("query", "requests_total"), ("time", "1700000300.000")]));
    assert_eq!(vector["resultType"], "vector");
    assert_eq!(vector["result"].as_array().unwrap().len(), 2);
    // Notices: `rate` of something that does not look like a counter.
    let notice = post(&server, "/api/v1/query", &[("query", "rate(temperature[1m])"), ("time", end)]);
    let infos = Answer::of(&notice).body["infos"].clone();
    assert!(infos[0].as_str().is_some_and(|i| i.contains("might not be a counter")), "{infos}");
    // Exemplars on.
    let exemplars = post(
        &server,
        "/api/v1/query_exemplars",
        &[("query", "requests_total"), ("start", start), ("end", end)],
    );
    assert!(data(&exemplars).is_array());
    // The setting "HTTP method: GET".
    let get = server.get("/api/v1/query_range?query=requests_total&start=1700000000&end=1700000300&step=15");
    assert_eq!(data(&get)["result"].as_array().unwrap().len(), 2);
    // What it shows when a query is wrong.
    let wrong = post(
        &server,
        "/api/v1/query_range",
        &[("query", "sum("), ("start", start), ("end", end), ("step", "15")],
    );
    let body = Answer::of(&wrong).body;
    assert_eq!(
        (wrong.status, &body["status"], &body["errorType"]),
        (400, &json!("error"), &json!("bad_data"))
    );
    assert!(body["error"].as_str().is_some_and(|e| e.contains("parse error")), "{body}");
    // Big answers come compressed.
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("accept-encoding", "gzip")];
    let form = b"query=requests_total[1h]&time=1700000300";
    let zipped = http::request("POST", &server.url("/api/v1/query"), &headers, form).unwrap();
    assert_eq!((zipped.status, zipped.header("content-encoding")), (200, Some("gzip")));
    assert_eq!(zipped.body[..2], [0x1f, 0x8b]);
    server.stop();
}

#[test]
fn browser_completion_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let window = "start=1700000000&end=1700000300";
    // Metric names.
    let names = data(&server.get(&format!("/api/v1/label/__name__/values?{window}&limit=40000")));
    assert_eq!(names, json!(["requests_total", "temperature"]));
    // Label names of what is typed so far.
    let times = [("start", "1700000000"), ("end", "1700000300"), ("limit", "40000")];
    let of = |matcher: &'static str| [&times[..], &[("match[]", matcher)]].concat();
    let labels = data(&post(&server, "/api/v1/labels", &of("requests_total{job=\"a\"}")));
    assert_eq!(labels, json!(["__name__", "job", "tenant_id"]));
    assert_eq!(data(&post(&server, "/api/v1/labels", &times)).as_array().unwrap().len(), 4);
    // Values, with a selector; label_values(metric, label).
    let selector = http::encode("{__name__=\"requests_total\"}");
    let values =
        data(&server.get(&format!("/api/v1/label/job/values?{window}&match[]={selector}&limit=40000")));
    assert_eq!(values, json!(["a", "b"]));
    // A label name that is UTF-8, escaped.
    let values = data(&server.get(&format!("/api/v1/label/U__room_2e_name/values?{window}")));
    assert_eq!(values, json!(["kitchen"]));
    // The older way to the same: series.
    let series = data(&post(&server, "/api/v1/series", &of("{__name__=\"temperature\"}")));
    assert_eq!(
        series,
        json!([{"__name__": "temperature", "room.name": "kitchen", "tenant_id": "default-tenant"}])
    );
    // The limit holds, and says so.
    let cut = Answer::of(&server.get(&format!("/api/v1/label/__name__/values?{window}&limit=1"))).body;
    assert_eq!(cut["data"].as_array().unwrap().len(), 1);
    assert!(cut["warnings"][0].as_str().is_some_and(|w| w.contains("truncated")), "{cut}");
    // Types and help texts.
    assert!(data(&server.get("/api/v1/metadata")).is_object());
    assert!(data(&server.get("/api/v1/metadata?limit=1000&limit_per_metric=1")).is_object());
    // query_result() variables, and annotations.
    let result = data(&post(&server, "/api/v1/query", &[("query", "query_result"), ("time", "1700000300")]));
    assert_eq!(result, json!({"resultType": "vector", "result": []}));
    // What has no POST answers 405, upon which Grafana tries GET.
    for path in ["/api/v1/label/job/values", "/api/v1/metadata", "/api/v1/rules"] {
        assert_eq!(post(&server, path, &times).status, 405, "{path}");
    }
    server.stop();
}

#[test]
fn alert_lists() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    assert!(data(&server.get("/api/v1/rules"))["groups"].is_array());
    assert!(data(&server.get("/api/v1/rules?type=alert"))["groups"].is_array());
    assert!(data(&server.get("/api/v1/alerts"))["alerts"].is_array());
    server.stop();
}

#[test]
fn the_provisioning_file_says_what_was_tried() {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/grafana/datasource.yml"
    ))
    .unwrap();
    for line in ["type: prometheus", "url: http://127.0.0.1:9090", "httpMethod: POST"] {
        assert!(text.lines().any(|l| l.trim() == line), "{line}");
    }
}
