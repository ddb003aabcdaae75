//! The API of `chronolith server` as a user meets it.

use std::time::Duration;

use chronolith_e2e::{Answer, Chronolith, TestSeries, write_body};
use chronolith_testkit::{http, wait_until};

const T0: i64 = 1_700_000_000_000;

fn loaded(dir: &std::path::Path) -> Chronolith {
    let server = Chronolith::server(dir, &[]);
    let series = |name: &str, job: &str, factor: f64| {
        let samples: Vec<(i64, f64)> = (0..20).map(|i| (T0 + i * 15_000, factor * i as f64)).collect();
        TestSeries::new(&[("__name__", name), ("job", job)], &samples)
    };
    let body = write_body(&[series("requests_total", "a", 15.0), series("requests_total", "b", 30.0)]);
    let reply = server.write(&body).unwrap();
    assert!(reply.status < 300, "{}", reply.text());
    server
}

#[test]
fn queries_labels_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let at = (T0 + 290_000) as f64 / 1000.0;
    let rate = server.query("sum(rate(requests_total[2m]))", at);
    assert!(
        rate.single().is_some_and(|v| (v - 3.0).abs() < 1e-9),
        "1 a second and 2 a second: {:?}",
        rate.single()
    );

    let values = Answer::of(&server.get("/api/v1/label/job/values"));
    assert_eq!(values.strings(), ["a", "b"]);
    let names = Answer::of(&server.get("/api/v1/labels"));
    assert_eq!(names.strings(), ["__name__", "job", "tenant_id"]);
    let series = Answer::of(&server.get("/api/v1/series?match[]=requests_total%7Bjob=%22a%22%7D"));
    let expected =
        serde_json::json!([{"__name__": "requests_total", "job": "a", "tenant_id": "default-tenant"}]);
    assert_eq!(series.body["data"], expected);

    for fine in [
        "/api/v1/query_range?query=up&start=0&end=1",
        "/api/v1/query?query=up%20%2B%20on(job)%20group_left%20up",
        "/api/v1/query?query=1%2B1&time=4",
    ] {
        let reply = server.get(fine);
        assert_eq!(reply.status, 200, "{fine}: {}", reply.text());
    }
    let refused = [
        ("/api/v1/query?query=foo(", "parse error"),
        ("/api/v1/query?query=up&time=x", "invalid parameter \"time\""),
        ("/api/v1/query_range?query=up&start=2&end=1&step=1", "must not be before"),
        ("/api/v1/query_range?query=up&start=0&end=100000&step=1", "11,000 points"),
        ("/api/v1/query_range?query=up&start=0&end=1&step=0", "zero or negative"),
        ("/api/v1/series", "no match[]"),
        ("/api/v1/series?match[]=%7Bjob%3D%22%22%7D", "match"),
        ("/api/v1/query?query=up&limit=-1", "non-negative"),
    ];
    for (path, text) in refused {
        let reply = server.get(path);
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        let body = Answer::of(&reply).body;
        assert_eq!(body["errorType"], "bad_data", "{path}");
        assert!(body["error"].as_str().unwrap().contains(text), "{path}: {body}");
    }
    server.stop();
}

#[test]
fn status_pages_and_probes() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    assert_eq!(server.get("/-/healthy").status, 200);
    assert_eq!(server.get("/-/ready").status, 200);
    let build = Answer::of(&server.get("/api/v1/status/buildinfo"));
    assert_eq!(build.body["data"]["version"], env!("CARGO_PKG_VERSION"));
    let tsdb = Answer::of(&server.get("/api/v1/status/tsdb"));
    assert_eq!(tsdb.body["data"]["headStats"]["numSeries"], 2);
    let by_name = &tsdb.body["data"]["seriesCountByMetricName"][0];
    assert_eq!(by_name, &serde_json::json!({"name": "requests_total", "value": 2}));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("process_cpu_seconds_total"), "{metrics}");
    // Grafana falls back from POST to GET on 405, not on 404.
    let post = http::post_form(&server.url("/api/v1/label/job/values"), "").unwrap();
    assert_eq!(post.status, 405);
    let preflight = http::request("OPTIONS", &server.url("/api/v1/query"), &[], b"").unwrap();
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("*")));
    server.stop();
}

#[test]
fn tenants_are_kept_apart_by_label() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(dir.path(), &[]);
    for (tenant, v) in [("team-a", 1.0), ("team-b", 2.0)] {
        let body = write_body(&[TestSeries::new(&[("__name__", "m")], &[(T0, v)])]);
        assert!(server.write_as(Some(tenant), &body).unwrap().status < 300);
    }
    let at = T0 as f64 / 1000.0 + 1.0;
    assert_eq!(server.query("m{tenant_id=\"team-a\"}", at).single(), Some(1.0));
    assert_eq!(server.query("m{tenant_id=\"team-b\"}", at).single(), Some(2.0));
    assert_eq!(server.query("count(m)", at).single(), Some(2.0));
    let body = write_body(&[TestSeries::new(&[("__name__", "m")], &[(T0, 1.0)])]);
    assert_eq!(server.write_as(Some("../escape"), &body).unwrap().status, 400);
    server.flush();
    assert_eq!(server.query("m{tenant_id=\"team-a\"}", at).single(), Some(1.0));
    server.stop();
}

#[test]
fn its_own_metrics_answer_the_first_query() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        format!("--data-dir={}", dir.path().display()),
        "--grpc-address=127.0.0.1:0".to_owned(),
        "--self-monitoring.interval=1s".to_owned(),
    ];
    let mut server = Chronolith::start("server", &args);
    let found = wait_until("own metrics", Duration::from_secs(30), || {
        let reply = server.get("/api/v1/query?query=process_cpu_seconds_total");
        let points = Answer::of(&reply).points(&[]);
        (!points.is_empty()).then_some(points)
    });
    assert_eq!(found.len(), 1);
    server.stop();
}
