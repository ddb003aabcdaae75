//! Clients that people use, against the real server: `promtool query` (Debian's) and `prometheus-api-client` (PyPI's).

use std::process::Command;

use chronolith_e2e::{Chronolith, TestSeries, clients_python, promtool, write_body};

const T0: i64 = 1_700_000_000_000;
/// Samples every 15 s from `T0` on, the last one five minutes later.
const LAST_S: i64 = T0 / 1000 + 300;

fn loaded(dir: &std::path::Path) -> Chronolith {
    let server = Chronolith::server(dir, &[]);
    let series = |job: &str, factor: f64| {
        let samples: Vec<(i64, f64)> = (0..21).map(|i| (T0 + i * 15_000, factor * i as f64)).collect();
        TestSeries::new(&[("__name__", "requests_total"), ("job", job)], &samples)
    };
    let reply = server.write(&write_body(&[series("a", 15.0), series("b", 30.0)])).unwrap();
    assert!(reply.status < 300, "{}", reply.text());
    server
}

#[test]
fn promtool_asks() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let url = server.url("");
    let last = LAST_S.to_string();
    let time = format!("--time={last}");

    let instant = promtool(&["query", "instant", &time, &url, "sum by (job) (requests_total)"]);
    assert_eq!(
        instant.lines().collect::<Vec<_>>(),
        [format!("{{job=\"a\"}} => 300 @[{last}]"), format!("{{job=\"b\"}} => 600 @[{last}]")]
    );
    assert_eq!(promtool(&["query", "instant", &time, &url, "1 + 1"]).trim(), format!("scalar: 2 @[{last}]"));
    let raw = promtool(&["query", "instant", &time, &url, "requests_total{job=\"a\"}[1m]"]);
    assert_eq!(raw.lines().count(), 5, "the series and four samples: {raw}");
    let json = promtool(&["query", "-o", "json", "instant", &time, &url, "sum(requests_total)"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json, serde_json::json!([{"metric": {}, "value": [LAST_S, "900"]}]));

    let start = format!("--start={}", T0 / 1000);
    let end = format!("--end={last}");
    let range = promtool(&["query", "range", &start, &end, "--step=1m", &url, "sum(requests_total)"]);
    assert_eq!(range.lines().count(), 7, "a series and six points: {range}");
    assert!(range.contains(&format!("900 @[{last}]")), "{range}");

    let series = promtool(&["query", "series", "--match=requests_total{job=\"b\"}", &start, &end, &url]);
    assert_eq!(series.trim(), "{__name__=\"requests_total\", job=\"b\", tenant_id=\"default-tenant\"}");
    assert_eq!(promtool(&["query", "labels", &start, &end, &url, "job"]), "a\nb\n");

    let bad = Command::new("promtool").args(["query", "instant", &url, "sum("]).output().unwrap();
    let text = String::from_utf8_lossy(&bad.stderr);
    assert!(!bad.status.success() && text.contains("bad_data") && text.contains("parse error"), "{text}");
    server.stop();
}

#[test]
fn prometheus_api_client_asks() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/prometheus_api_client_test.py");
    let out =
        Command::new(clients_python()).args([script, &server.url(""), &LAST_S.to_string()]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
    assert_eq!(text(&out.stdout), "ok\n");
    server.stop();
}
