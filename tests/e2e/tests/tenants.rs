//! Tenants in a real process: nobody sees another's data, nobody holds up another, limits hold and change without a restart.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Chronolith, TestSeries, write_body, write_request};
use chronolith_testkit::http::{self, Response};
use chronolith_testkit::wait_until;
use serde_json::Value;

/// A bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// When everything is written: lately, as metadata is only of metrics that were.
static T0: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    (now as i64 - 60) * 1000
});

fn t0_s() -> f64 {
    *T0 as f64 / 1000.0
}

fn gauge(name: &str, extra: &[(&str, &str)], value: f64) -> TestSeries {
    let mut labels = vec![("__name__", name)];
    labels.extend_from_slice(extra);
    TestSeries::new(&labels, &[(*T0, value)])
}

fn get_as(server: &Chronolith, tenant: &str, path: &str) -> Response {
    let headers = [("THANOS-TENANT", tenant)];
    http::request("GET", &server.url(path), &headers, b"").expect("the server answers")
}

/// Field 3 of a write request: a gauge's metadata.
fn metadata(metric: &str, help: &str) -> Vec<u8> {
    let mut entry = vec![0x08, 2];
    for (field, text) in [(2u8, metric), (4, help)] {
        entry.extend([field << 3 | 2, text.len() as u8]);
        entry.extend_from_slice(text.as_bytes());
    }
    let mut out = vec![0x1A, entry.len() as u8];
    out.extend(entry);
    out
}

fn varint(mut v: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
    out
}

/// What a tenant reads over remote read with these matchers (type, name, value), as text in which labels can be looked for.
fn remote_read_as(server: &Chronolith, tenant: &str, matchers: &[(u8, &str, &str)]) -> (u16, String) {
    let field = |number: u8, content: &[u8]| [&[number << 3 | 2, content.len() as u8], content].concat();
    let times = [&[0x08][..], &varint(*T0 as u64 - 60_000), &[0x10], &varint(*T0 as u64 + 60_000)].concat();
    let of = |(kind, name, value): &(u8, &str, &str)| {
        let matcher = [&[0x08, *kind][..], &field(2, name.as_bytes()), &field(3, value.as_bytes())].concat();
        field(3, &matcher)
    };
    let query = [times, matchers.iter().flat_map(of).collect()].concat();
    let headers = [("THANOS-TENANT", tenant), ("content-encoding", "snappy")];
    let url = server.url("/api/v1/read");
    let reply =
        http::request("POST", &url, &headers, &snappy(&field(1, &query))).expect("the server answers");
    let body = match reply.status {
        200 => snap::raw::Decoder::new().decompress_vec(&reply.body).expect("snappy"),
        _ => reply.body.clone(),
    };
    (reply.status, String::from_utf8_lossy(&body).into_owned())
}

/// A series with one sample and one exemplar, whose trace is the tenant's.
fn with_exemplar(name: &str, trace: &str) -> Vec<u8> {
    let label = |name: &str, value: &str| {
        let mut one = Vec::new();
        chronolith_model::write::encode_labels([(name, value)], &mut one);
        one
    };
    let timestamp = varint(*T0 as u64);
    let at = |value: f64| [&[0x09][..], &value.to_le_bytes(), &[0x10], &timestamp].concat();
    let sample = at(1.0);
    let exemplar =
        [label("trace_id", trace), [&[0x11][..], &7f64.to_le_bytes(), &[0x18], &timestamp].concat()].concat();
    let mut series = label("__name__", name);
    for (tag, content) in [(0x12u8, sample), (0x1A, exemplar)] {
        series.extend([tag, content.len() as u8]);
        series.extend(content);
    }
    [&[0x0A, series.len() as u8][..], &series].concat()
}

/// What tenant `b` wrote, of which nobody else is to see anything.
const OF_B: [&str; 5] = ["mark-b", "own_b", "label_b", "traced_b", "\"b\""];

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

#[test]
fn a_tenant_sees_its_own_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(dir.path(), &["--query.enforce-tenancy"]);
    for tenant in ["a", "b"] {
        let mark = format!("mark-{tenant}");
        let own = format!("own_{tenant}");
        let body = [
            write_request(&[
                gauge("shared", &[("owner", &mark)], if tenant == "a" { 1.0 } else { 2.0 }),
                gauge(&own, &[(&format!("label_{tenant}"), &mark)], 3.0),
            ]),
            with_exemplar(&format!("traced_{tenant}"), &format!("trace-{mark}")),
            metadata(&own, &format!("help-{mark}")),
        ]
        .concat();
        let reply = server.write_as(Some(tenant), &snappy(&body)).unwrap();
        assert!(reply.status < 300, "{}", reply.text());
    }
    let range = format!("start={}&end={}", t0_s() - 60.0, t0_s() + 60.0);
    let all = http::encode("{__name__=~\".+\"}");
    let forged = http::encode("{tenant_id=\"b\"}");
    let either = http::encode("shared or own_b or {__name__=~\".+\", tenant_id=~\"a|b\"}");
    let paths = [
        format!("/api/v1/query?query={all}&time={}", t0_s()),
        format!("/api/v1/query?query={forged}&time={}", t0_s()),
        format!("/api/v1/query?query={either}&time={}", t0_s()),
        format!("/api/v1/query_range?query={all}&{range}&step=15"),
        format!("/api/v1/series?match[]={all}&{range}"),
        format!("/api/v1/series?match[]={forged}&{range}"),
        format!("/api/v1/labels?{range}"),
        format!("/api/v1/labels?match[]={forged}&{range}"),
        format!("/api/v1/label/__name__/values?{range}"),
        format!("/api/v1/label/owner/values?match[]={forged}&{range}"),
        format!("/api/v1/label/tenant_id/values?{range}"),
        format!("/api/v1/query_exemplars?query={all}&{range}"),
        format!("/api/v1/query_exemplars?query={forged}&{range}"),
        "/api/v1/metadata".to_owned(),
        "/api/v1/metadata?metric=own_b".to_owned(),
        format!("/federate?match[]={all}"),
        format!("/federate?match[]={forged}"),
        "/api/v1/status/tsdb?limit=100".to_owned(),
        format!("/api/v1/status/tsdb?limit=100&match[]={forged}"),
        "/api/v1/status/tsdb/blocks".to_owned(),
    ];
    let every = (2, "__name__", ".+");
    let read = [&[every][..], &[every, (0, "tenant_id", "b")], &[every, (2, "tenant_id", "a|b")]];
    // In the head first, then from the bucket.
    for round in ["head", "blocks"] {
        let mut seen = String::new();
        for path in &paths {
            let reply = get_as(&server, "a", path);
            // What names nothing but a tenant is left without a matcher, which not every path takes.
            assert!(reply.status == 200 || path.contains(&forged), "{round} {path}: {}", reply.text());
            let text = reply.text();
            for trace in OF_B {
                assert!(!text.contains(trace), "{round}: {path} shows {trace}: {text}");
            }
            seen.push_str(&text);
        }
        for matchers in read {
            let (status, text) = remote_read_as(&server, "a", matchers);
            assert_eq!(status, 200, "{round} {matchers:?}: {text}");
            assert!(text.contains("own_a") && text.contains("mark-a"), "{round} {matchers:?}: {text}");
            assert!(!OF_B.iter().any(|trace| text.contains(trace)), "{round} {matchers:?}: {text}");
        }
        assert_eq!(remote_read_as(&server, "a", &[(0, "tenant_id", "b")]).0, 400, "{round}");
        let blocks = |tenant| -> BTreeSet<String> {
            let reply = get_as(&server, tenant, "/api/v1/status/tsdb/blocks");
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            let blocks = body["data"]["blocks"].as_array().unwrap().iter();
            blocks.map(|b| b["ulid"].as_str().unwrap().to_owned()).collect()
        };
        let (of_a, of_b) = (blocks("a"), blocks("b"));
        assert_eq!(
            (of_a.is_empty(), of_b.is_empty()),
            (round == "head", round == "head"),
            "{of_a:?} {of_b:?}"
        );
        assert!(of_a.is_disjoint(&of_b), "{of_a:?} {of_b:?}");
        assert_eq!(blocks("nobody"), BTreeSet::new());
        let mut own = vec!["mark-a", "own_a", "label_a"];
        if round == "head" {
            own.extend(["trace-mark-a", "help-mark-a"]);
        }
        for trace in own {
            assert!(seen.contains(trace), "{round}: {trace} is shown nowhere");
        }
        let value = |tenant| {
            let reply = get_as(&server, tenant, &format!("/api/v1/query?query=shared&time={}", t0_s()));
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            body["data"]["result"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["value"][1].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!((value("a"), value("b")), (vec!["1".into()], vec!["2".into()]), "{round}");
        assert_eq!(value("nobody"), Vec::<Value>::new());
        server.flush();
    }
    server.stop();
}

#[test]
fn limits_hold_and_change_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.yml");
    let limits = |series: u32| {
        format!(
            "write:\n  default:\n    request: {{size_bytes_limit: 20000, series_limit: 5, samples_limit: 8}}\n    \
             head_series_limit: 3\n    labels: {{count_limit: 4}}\n  tenants:\n    free:\n      \
             request: {{size_bytes_limit: 0, series_limit: 0, samples_limit: 0}}\n      head_series_limit: 0\n    \
             slow: {{ingestion: {{samples_per_second: 0.001, burst_samples: 4}}, head_series_limit: {series}}}\n"
        )
    };
    std::fs::write(&file, limits(0)).unwrap();
    let flag = format!("--receive.limits-config-file={}", file.display());
    let mut server =
        Chronolith::server(&dir.path().join("data"), &[&flag, "--receive.limits-config-reload-timer=20ms"]);
    let many = |n: usize, from: usize| -> Vec<TestSeries> {
        (from..from + n).map(|i| gauge("m", &[("i", &i.to_string())], 1.0)).collect()
    };
    let status = |tenant: &str, series: &[TestSeries]| {
        let reply = server.write_as(Some(tenant), &write_body(series)).unwrap();
        (reply.status, reply.header("retry-after").map(str::to_owned), reply.text())
    };
    let (code, retry, text) = status("t", &many(6, 0));
    assert_eq!((code, retry), (413, None), "{text}");
    assert!(text.contains("timeseries of 6 is above the tenant's limit of 5"), "{text}");
    let long = TestSeries { samples: (0..9).map(|i| (*T0 + i, 1.0)).collect(), ..many(1, 0).remove(0) };
    assert!(status("t", &[long]).2.contains("samples of 9 is above the tenant's limit of 8"));
    // A value of 30,000 bytes that compresses to little, and one that does not.
    let noise: String =
        (0..30_000u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect();
    for value in ["x".repeat(30_000), noise] {
        let (code, _, text) = status("t", &[gauge("big", &[("v", &value)], 1.0)]);
        assert_eq!(code, 413, "{text}");
        assert!(text.contains("above the tenant's limit of 20000"), "{text}");
    }
    assert_eq!(status("t", &many(3, 0)).0, 200);
    let (code, retry, text) = status("t", &many(2, 2));
    assert_eq!((code, retry.as_deref()), (429, Some("30")), "{text}");
    assert_eq!(status("t", &many(3, 0)).0, 200, "known series go on");
    let labelled = gauge("l", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")], 1.0);
    assert_eq!(status("free", &[labelled]).0, 400);
    assert_eq!(status("free", &many(50, 0)).0, 200);
    assert_eq!(status("slow", &many(4, 0)).0, 200);
    let (code, retry, text) = status("slow", &many(1, 0));
    assert_eq!((code, retry.as_deref()), (429, Some("60")), "{text}");
    assert!(text.contains("ingestion rate limit"), "{text}");

    let metric = |line: &str| {
        let text = server.get("/metrics").text();
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse::<f64>().ok())
    };
    assert_eq!(metric("thanos_receive_head_series_limit{tenant=\"\"}"), Some(3.0));
    assert_eq!(metric("thanos_receive_head_series_limited_requests_total{tenant=\"t\"}"), Some(1.0));
    assert_eq!(metric("thanos_receive_write_limits{tenant=\"free\",limit=\"series\"}"), Some(0.0));
    let limited = "chronolith_receive_limited_requests_total{tenant=\"slow\",limit=\"ingestion\"}";
    assert_eq!(metric(limited), Some(1.0));

    // A wrong file changes nothing and is heard of; the next right one is taken.
    std::fs::write(&file, "write: {default: {head_series_limt: 9}}").unwrap();
    wait_until("the refusal", PATIENCE, || {
        metric("thanos_receive_limits_config_reload_err_total").filter(|n| *n == 1.0)
    });
    assert_eq!(status("t", &many(1, 3)).0, 429);
    std::fs::write(&file, limits(0).replace("head_series_limit: 3", "head_series_limit: 4")).unwrap();
    wait_until("the new limit", PATIENCE, || (status("t", &many(1, 3)).0 == 200).then_some(()));
    assert!(server.log().contains("unknown field `head_series_limt`"), "{}", server.log());
    server.allow_errors("limits file is refused");
    server.stop();

    std::fs::write(&file, "write: {tenants: {..: {}}}").unwrap();
    let port = chronolith_testkit::free_port();
    let output = std::process::Command::new(chronolith_e2e::chronolith_binary())
        .args(["server", &format!("--http-address=127.0.0.1:{port}"), "--grpc-address=127.0.0.1:0", &flag])
        .arg(format!("--data-dir={}", dir.path().join("data").display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("limits.yml: write.tenants: invalid tenant \"..\""), "{said}");
}

#[test]
fn series_are_relabeled_and_divided_by_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "write: {tenants: {x: {external_labels: {site: edge}, relabel_configs: \
                  [{action: labeldrop, regex: pod}]}}}";
    let mut server = Chronolith::server(
        dir.path(),
        &[
            "--receive.split-tenant-label-name=team",
            "--receive.relabel-config=[{source_labels: [__name__], regex: debug_.*, action: drop}]",
            &format!("--receive.limits-config={limits}"),
        ],
    );
    let body = write_body(&[
        gauge("up", &[("pod", "p"), ("team", "x")], 1.0),
        gauge("up", &[("pod", "p"), ("team", "y")], 2.0),
        gauge("up", &[("pod", "p")], 3.0),
        gauge("debug_up", &[("team", "x")], 4.0),
    ]);
    let reply = server.write_as(Some("own"), &body).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let only_debug = write_body(&[gauge("debug_up", &[], 4.0)]);
    assert_eq!(server.write_as(Some("nobody"), &only_debug).unwrap().status, 200);
    let bad = write_body(&[gauge("down", &[("team", "a/b")], 1.0), gauge("down", &[], 5.0)]);
    let reply = server.write_as(Some("own"), &bad).unwrap();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("the value of label \"team\" is no tenant name"), "{}", reply.text());
    let all = |server: &Chronolith| -> Vec<String> {
        let path = format!("/api/v1/query?query={}&time={}", http::encode("{__name__=~\".+\"}"), t0_s());
        let body: Value = serde_json::from_slice(&server.get(&path).body).unwrap();
        let text = |r: &Value| format!("{} {}", r["metric"], r["value"][1].as_str().unwrap());
        let mut all: Vec<String> = body["data"]["result"].as_array().unwrap().iter().map(text).collect();
        all.sort();
        all
    };
    let want = [
        r#"{"__name__":"down","tenant_id":"own"} 5"#,
        r#"{"__name__":"up","pod":"p","tenant_id":"own"} 3"#,
        r#"{"__name__":"up","pod":"p","tenant_id":"y"} 2"#,
        r#"{"__name__":"up","site":"edge","tenant_id":"x"} 1"#,
    ];
    assert_eq!(all(&server), want);
    server.flush();
    server.restart();
    assert_eq!(all(&server), want, "from the bucket, after a restart");
    let tenants = std::fs::read_dir(dir.path().join("tsdb/tenants")).unwrap();
    let names: Vec<_> = tenants.map(|t| t.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n == "nobody"), "a request of which nothing is left makes no tenant");
    server.stop();
}

#[test]
fn a_tenant_that_floods_does_not_hold_up_another() {
    let dir = tempfile::tempdir().unwrap();
    // Few workers, so that the flood is a queue at them whatever the machine.
    let limits = "write: {global: {max_concurrency: 2}}";
    let mut server = Chronolith::server(dir.path(), &[&format!("--receive.limits-config={limits}")]);
    let large: Vec<TestSeries> = (0..4000).map(|i| gauge("flood", &[("i", &i.to_string())], 1.0)).collect();
    let (large, small) = (write_body(&large), write_body(&[gauge("quiet", &[], 1.0)]));
    let send = |tenant: &str, body: &[u8]| {
        let started = Instant::now();
        let reply = server.write_as(Some(tenant), body).unwrap();
        (reply.status, started.elapsed())
    };
    let (stop, flooded) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut quiet, flood) = std::thread::scope(|scope| {
        let floods: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let mut times = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let (status, time) = send("flood", &large);
                        assert!(status == 200 || status == 503 || status == 429, "{status}");
                        times.push(time);
                        flooded.fetch_add(1, Ordering::Relaxed);
                    }
                    times
                })
            })
            .collect();
        wait_until("the flood", PATIENCE, || (flooded.load(Ordering::Relaxed) > 48).then_some(()));
        let quiet: Vec<Duration> = (0..60)
            .map(|_| {
                let (status, time) = send("quiet", &small);
                assert_eq!(status, 200, "the quiet tenant is served");
                time
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        let flood: Vec<Duration> = floods.into_iter().flat_map(|f| f.join().unwrap()).collect();
        (quiet, flood)
    });
    quiet.sort();
    let mut flood = flood;
    flood.sort();
    let (median, flood_median) = (quiet[quiet.len() / 2], flood[flood.len() / 2]);
    // Whoever floods waits behind some ten requests of its own; the other one behind two at the most.
    assert!(median * 2 < flood_median, "quiet {median:?}, flood {flood_median:?}");
    server.stop();
}
