//! Queries that ask for too much are refused, cancelled or made to wait, and others go on meanwhile.

use std::time::{Duration, Instant};

use axum::body::Body;
use chronolith_chunk::SampleColumns;
use chronolith_model::Labels;
use chronolith_service::Metrics;
use chronolith_service::http::HttpListener;
use http::{Request, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::testing::{T0, api_over, encode, get};
use super::*;
use crate::{AdmissionConfig, Config, Features};

/// `big`: so many series of 20 samples each, 15 s apart, and `up` of one.
fn many(series: usize) -> Vec<(Labels, SampleColumns)> {
    let samples =
        |v: usize| SampleColumns::from_floats((0..20).map(|i| (T0 + i * 15_000, (v + i as usize) as f64)));
    let mut all: Vec<_> = (0..series)
        .map(|i| {
            let pairs =
                [("__name__", "big".to_owned()), ("instance", format!("h{i:05}")), ("job", "j".to_owned())];
            (Labels::from_pairs(pairs).unwrap(), samples(i))
        })
        .collect();
    all.push((Labels::from_pairs([("__name__", "up"), ("job", "j")]).unwrap(), samples(1)));
    all
}

fn range_path(query: &str, steps: i64) -> String {
    let (start, step) = (T0 / 1000, 15);
    format!(
        "/api/v1/query_range?query={}&start={start}&end={}&step={step}",
        encode(query),
        start + (steps - 1) * step
    )
}

fn instant_path(query: &str) -> String {
    format!("/api/v1/query?query={}&time={}", encode(query), T0 / 1000 + 285)
}

fn error(body: &str) -> (String, String) {
    let reply: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert_eq!(reply["status"], "error", "{body}");
    let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
    (text("errorType"), text("error"))
}

/// Folds for minutes in little memory.
const SLOW: &str =
    "sum(quantile_over_time(0.3, big[30d])) + sum(deriv(big[30d])) + sum(predict_linear(big[30d], 60))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_asks_for_too_much_is_refused_while_others_go_on() {
    let config = Config {
        samples_max: 3_000_000,
        admission: AdmissionConfig { memory_max_bytes: 48 << 20, ..AdmissionConfig::default() },
        ..Config::default()
    };
    let mut admission = None;
    let api = api_over(config, many(10_000), |api| admission = Some(Arc::clone(&api.admission))).await;
    let mut joined = "big".to_owned();
    for _ in 0..12 {
        joined = format!(
            r#"label_join({joined}, "instance", "", "instance", "instance", "instance", "instance", "instance", "instance")"#
        );
    }
    let replaced = format!(r#"label_replace(big, "x", "{}", "instance", "(.*)")"#, "$1".repeat(2000));
    let samples = "query processing would load too many samples into memory in query execution";
    let memory = "(--query.max-memory)";
    let cases = [
        // A hundred million points.
        (range_path("last_over_time(big[30d])", 10_000), "execution", samples),
        (range_path(r#"count_values("v", big + time())"#, 2_000), "execution", samples),
        (instant_path(&joined), "execution", memory),
        (instant_path(&replaced), "execution", memory),
        (
            range_path("last_over_time(big[1d]) + on (instance) group_left () last_over_time(big[1d])", 120),
            "execution",
            samples,
        ),
        (instant_path("big * on (job) group_left () big"), "execution", "many-to-many matching not allowed"),
        (instant_path(r#"big{instance=~"((a{1000}){1000}){1000}"}"#), "bad_data", "parse error"),
        (instant_path("max_over_time(vector(1)[100y:1ms])"), "execution", samples),
    ];
    let stop = CancellationToken::new();
    let (cheap_api, stopped) = (api.clone(), stop.clone());
    let cheap = tokio::spawn(async move {
        let mut slowest = Duration::ZERO;
        let mut answers = 0;
        while !stopped.is_cancelled() {
            let asked = Instant::now();
            let (status, body) = get(&cheap_api, &instant_path("count(up)")).await;
            assert!(status == 200 && body.contains(r#","1"]"#), "{body}");
            slowest = slowest.max(asked.elapsed());
            answers += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (answers, slowest)
    });
    for (path, kind, text) in cases {
        let (status, body) = get(&api, &path).await;
        let (error_type, message) = error(&body);
        assert_eq!(error_type, kind, "{path:.200}: {body:.500}");
        assert_eq!(status, if kind == "bad_data" { 400 } else { 422 }, "{path:.200}");
        assert!(message.contains(text), "{path:.200}: {message:.500}");
    }
    stop.cancel();
    let (answers, slowest) = cheap.await.unwrap();
    assert!(answers > 10, "{answers}");
    assert!(slowest < Duration::from_secs(10), "a cheap query took {slowest:?}");
    assert_eq!(admission.unwrap().memory_held(), 0, "everything was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_is_up_in_the_engine_and_in_the_queue() {
    let config = Config {
        admission: AdmissionConfig { concurrency_max: 1, queue_max: 1, ..AdmissionConfig::default() },
        ..Config::default()
    };
    let api = api_over(config, many(5_000), |_| {}).await;
    let slow = range_path(SLOW, 10_000);
    let (status, body) = get(&api, &format!("{slow}&timeout=200ms")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&body), ("timeout".to_owned(), "query timed out in expression evaluation".to_owned()));

    let (busy, waits) = (api.clone(), api.clone());
    // The others, which ask all the time, may have taken both places just then.
    let running = tokio::spawn(async move {
        while get(&busy, &slow).await.0 == StatusCode::TOO_MANY_REQUESTS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let asked = api.clone();
    // Once the first one runs, one more may wait, and no third one.
    let full_seen = CancellationToken::new();
    let seen = full_seen.clone();
    let waiting = tokio::spawn(async move {
        loop {
            let (status, body) = get(&waits, &format!("{}&timeout=700ms", instant_path("up"))).await;
            // The slow one may not be there yet, or one of the others in its place just then.
            if status == StatusCode::SERVICE_UNAVAILABLE && seen.is_cancelled() {
                return (status, body);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let full = loop {
        let (status, body) = get(&asked, &format!("{}&timeout=1ms", instant_path("up"))).await;
        match status {
            StatusCode::TOO_MANY_REQUESTS => break body,
            // It ran because the slow one was not there yet, or had to wait and gave up.
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(Duration::from_millis(1)).await
            }
            other => panic!("{other}: {body}"),
        }
    };
    full_seen.cancel();
    let (kind, text) = error(&full);
    assert_eq!(kind, "too_many_requests");
    assert_eq!(text, "too many queries: 1 run (--query.max-concurrent) and 1 wait (--query.max-queue)");
    let (status, body) = waiting.await.unwrap();
    assert_eq!(
        (status, error(&body).1.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "query timed out in query queue")
    );
    // The client of the slow one goes away: its place is free soon.
    running.abort();
    let freed = Instant::now();
    loop {
        let (status, _) = get(&asked, &instant_path("count(up)")).await;
        if status == StatusCode::OK {
            break;
        }
    }
    // Some milliseconds where the machine is not busy with other tests.
    assert!(freed.elapsed() < Duration::from_secs(5), "took {:?}", freed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_takes_its_query_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        admission: AdmissionConfig {
            active_query_path: Some(dir.path().to_owned()),
            log_file: Some(dir.path().join("queries.log")),
            ..AdmissionConfig::default()
        },
        ..Config::default()
    };
    let metrics = Metrics::new();
    let app = api_over(config, many(5_000), |api| api.admission.register(&metrics)).await;
    let listener = HttpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(listener.serve(app, shutdown.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let head =
        format!("GET {} HTTP/1.1\r\nHost: x\r\nTHANOS-TENANT: team-a\r\n\r\n", range_path(SLOW, 10_000));
    client.write_all(head.as_bytes()).await.unwrap();
    let active = || std::fs::read_to_string(dir.path().join("queries.active")).unwrap();
    let patience = Instant::now();
    // It waits for its turn where other tests compute.
    let computes = || {
        let text = metrics.text();
        let held = text.lines().find_map(|line| line.strip_prefix("chronolith_query_memory_bytes "));
        held.is_some_and(|bytes| bytes.parse::<f64>().unwrap() > 0.0)
    };
    while !active().contains("quantile_over_time") || !computes() {
        assert!(patience.elapsed() < Duration::from_secs(30), "{}", active());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let running = metrics.text();
    assert!(running.contains("thanos_query_concurrent_gate_queries_in_flight 1.0\n"), "{running}");
    assert!(running.contains("prometheus_engine_queries 1\n"), "{running}");
    drop(client);
    let gone = Instant::now();
    while !metrics.text().contains(r#"chronolith_query_ends_total{outcome="canceled"} 1"#) {
        assert!(gone.elapsed() < Duration::from_secs(5), "{}", metrics.text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What it held goes after it was written down, the file's entry first.
    while !metrics.text().contains("prometheus_engine_queries 0\n") {
        assert!(gone.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!active().contains("quantile_over_time"), "{}", active());
    let log = std::fs::read_to_string(dir.path().join("queries.log")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&line["params"]["query"], &line["params"]["step"]), (&SLOW.into(), &15.into()));
    assert_eq!((&line["errorType"], &line["tenant"]), (&"canceled".into(), &"team-a".into()));
    assert_eq!(
        line["httpRequest"],
        serde_json::json!({ "clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query_range" })
    );
    assert!(line["peakMemoryBytes"].as_u64().unwrap() > 0);
    let text = metrics.text();
    for want in [
        "prometheus_engine_queries 0\n",
        "prometheus_engine_queries_concurrent_max 20.0\n",
        "prometheus_engine_query_log_enabled 1\n",
        "thanos_query_concurrent_gate_queries_max 20.0\n",
        "thanos_query_concurrent_gate_queries_in_flight 0.0\n",
        "thanos_query_concurrent_gate_queries_total 1\n",
        "thanos_query_range_requested_timespan_duration_seconds_count 1\n",
        "chronolith_query_memory_bytes 0.0\n",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn stats_analysis_and_explanations() {
    let config =
        Config { features: Features { step_stats: true, ..Features::default() }, ..Config::default() };
    let api = api_over(config, many(3), |_| {}).await;
    let data = |body: String| -> serde_json::Value {
        let reply: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(reply["status"], "success", "{body}");
        reply
    };
    let path = range_path("sum by (job) (rate(big[1m]))", 3);
    let plain = data(get(&api, &path).await.1);
    assert!(plain["data"].get("stats").is_none() && plain["data"].get("analysis").is_none());
    let reply = data(get(&api, &format!("{path}&stats=all&analyze=true")).await.1);
    let samples = &reply["data"]["stats"]["samples"];
    let t = T0 / 1000;
    assert_eq!(
        samples["totalQueryableSamplesPerStep"],
        serde_json::json!([[t, 3], [t + 15, 6], [t + 30, 9]])
    );
    assert_eq!(samples["samplesReadPerStep"], serde_json::json!([[t, 3], [t + 15, 3], [t + 30, 3]]));
    assert_eq!((&samples["totalQueryableSamples"], &samples["samplesRead"]), (&18.into(), &9.into()));
    assert!(samples["peakSamples"].as_u64().unwrap() > 0);
    let timings = reply["data"]["stats"]["timings"].as_object().unwrap();
    for key in [
        "evalTotalTime",
        "resultSortTime",
        "queryPreparationTime",
        "innerEvalTime",
        "execQueueTime",
        "execTotalTime",
    ] {
        assert!(timings[key].as_f64().unwrap() >= 0.0, "{key}");
    }
    let analysis = &reply["data"]["analysis"];
    assert_eq!(
        (&analysis["name"], &analysis["totalSamples"]),
        (&"[aggregate] sum by (job)".into(), &18.into())
    );
    let rate = &analysis["children"][0];
    assert_eq!((&rate["name"], &rate["series"]), (&"[function] rate".into(), &3.into()));
    assert!(
        rate["executionTime"].as_str().unwrap().ends_with('s')
            && rate["peakMemoryBytes"].as_u64().unwrap() > 0
    );
    assert_eq!(rate["children"][0]["name"], "[matrixSelector] big[1m]");

    let basic = data(get(&api, &format!("{path}&stats=true")).await.1);
    assert!(basic["data"]["stats"]["samples"].get("samplesReadPerStep").is_none());
    let other = data(get(&api, &format!("{path}&stats=yes")).await.1);
    assert!(other["data"].get("stats").is_some());
    assert_eq!(
        other["warnings"][0],
        "value \"yes\" for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\""
    );

    let explain = path.replace("query_range", "query_range_explain");
    assert_eq!(
        data(get(&api, &explain).await.1)["data"],
        serde_json::json!({ "name": "[aggregate] sum by (job)", "children": [
            { "name": "[function] rate", "children": [{ "name": "[matrixSelector] big[1m]" }] }
        ]})
    );
    let explain = data(get(&api, "/api/v1/query_explain?query=1%2Btime()&engine=thanos").await.1);
    assert_eq!(explain["data"]["children"][1]["name"], "[function] time");
    let (status, body) = get(&api, "/api/v1/query_explain?query=sum(").await;
    assert_eq!((status, error(&body).0.as_str()), (StatusCode::BAD_REQUEST, "bad_data"));
}

#[tokio::test]
async fn features_switch_the_language() {
    let query = instant_path("limitk(1, big)");
    let off = api_over(Config::default(), many(3), |_| {}).await;
    let (status, body) = get(&off, &query).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let features = Features::from_flags(&["promql-experimental-functions".to_owned()]);
    let on = api_over(Config { features, ..Config::default() }, many(3), |_| {}).await;
    let (status, body) = get(&on, &query).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let request = Request::get("/api/v1/features").body(Body::empty()).unwrap();
    let (_, _, body) = super::testing::ask(&on, request).await;
    let features: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(features["data"]["promql_operators"]["limitk"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_read_series_without_a_query_have_its_budget() {
    let config = Config {
        admission: AdmissionConfig { memory_max_bytes: 512 << 10, ..AdmissionConfig::default() },
        ..Config::default()
    };
    let mut admission = None;
    let api = api_over(config, many(10_000), |api| admission = Some(Arc::clone(&api.admission))).await;
    let memory = "query needs more memory than a query may use: 512.0 KiB (--query.max-memory)";
    for path in ["/api/v1/series?match[]=big", "/api/v1/label/instance/values", "/federate?match[]=big"] {
        let (status, body) = get(&api, path).await;
        let body = body.get(..500).unwrap_or(&body);
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {body}");
        assert!(body.contains(memory), "{path}: {body}");
    }
    for path in ["/api/v1/series?match[]=up", "/api/v1/label/job/values", "/federate?match[]=up"] {
        assert_eq!(get(&api, path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(admission.unwrap().memory_held(), 0);
}
