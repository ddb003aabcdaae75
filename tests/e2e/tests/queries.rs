//! Queries under a real process: what a crash leaves behind, what goes on beside a query that asks for too much.

use std::time::Duration;

use chronolith_e2e::{Chronolith, TestSeries, write_body};
use chronolith_testkit::{http, wait_until};

/// A bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);
const T0: i64 = 1_700_000_000_000;

/// Folds for minutes in little memory.
const SLOW: &str =
    "sum(quantile_over_time(0.3, load[30d])) + sum(deriv(load[30d])) + sum(predict_linear(load[30d], 60))";

#[test]
fn queries_in_flight_at_a_crash_are_named_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--query.max-memory=32MiB", "--query.log-queries-longer-than=1ms"];
    let mut server = Chronolith::server(dir.path(), &flags);
    for part in 0..10 {
        let series: Vec<TestSeries> = (0..500)
            .map(|i| {
                let instance = format!("{part}-{i}");
                let samples: Vec<(i64, f64)> = (0..20).map(|n| (T0 + n * 15_000, (n * i) as f64)).collect();
                TestSeries::new(&[("__name__", "load"), ("instance", &instance)], &samples)
            })
            .collect();
        let reply = server.write(&write_body(&series)).unwrap();
        assert!(reply.status < 300, "{}", reply.text());
    }
    let t = T0 as f64 / 1000.0;
    let refused = server.query_range("last_over_time(load[30d])", t, t + 150_000.0, 15.0);
    assert_eq!(refused.status, 422);
    let text = refused.body["error"].as_str().unwrap_or_default();
    assert!(text.contains("(--query.max-memory)") && text.contains("vectors"), "{text}");

    let form = format!("query={}&start={t}&end={}&step=15", http::encode(SLOW), t + 150_000.0);
    let url = server.url("/api/v1/query_range");
    let client = std::thread::spawn(move || http::post_form(&url, &form));
    let file = dir.path().join("query").join("queries.active");
    wait_until("the query", PATIENCE, || {
        std::fs::read_to_string(&file).ok().filter(|text| text.contains("predict_linear"))
    });
    let answer = server.query("count(load)", t + 285.0);
    assert_eq!(answer.single(), Some(5000.0), "others go on meanwhile");
    server.crash_and_restart();
    assert!(client.join().unwrap().is_err(), "the client lost its connection");
    let log = server.log();
    let line = log.lines().find(|l| l.contains("these queries were in flight when the last run ended"));
    assert!(line.is_some_and(|l| l.contains("predict_linear") && !l.contains("count(load)")), "{log}");
    // A clean stop leaves nothing behind.
    server.restart();
    assert!(!server.log().contains("were in flight"), "{}", server.log());
    assert_eq!(server.query("count(load)", t + 285.0).single(), Some(5000.0));
    wait_until("the log of a slow query", PATIENCE, || server.log().contains("slow query").then_some(()));
    server.stop();
}
