//! Series are deleted, given back, deleted again, and taken out of the bytes, in a real process and with the real tools.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Chronolith, TestSeries, chronolith_binary, write_body};
use chronolith_testkit::http;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn write(server: &Chronolith, tenant: Option<&str>, at_ms: i64) {
    let series = ["kept", "secret"].map(|name| {
        let samples: Vec<(i64, f64)> = (0..10).map(|i| (at_ms + i * 1000, i as f64)).collect();
        TestSeries::new(&[("__name__", name), ("job", "x")], &samples)
    });
    let reply = server.write_as(tenant, &write_body(&series)).unwrap();
    assert!(reply.status < 300, "{}: {}", reply.status, reply.text());
}

/// Samples of both series within the last day, as a tenant sees them.
fn counts(server: &Chronolith, tenant: &str) -> [f64; 2] {
    ["kept", "secret"].map(|name| {
        let query =
            format!("/api/v1/query?query={}", http::encode(&format!("sum(count_over_time({name}[1d]))")));
        let headers = [("THANOS-TENANT", tenant)];
        let reply = http::request("GET", &server.url(&query), &headers, b"").unwrap();
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let value = &body["data"]["result"][0]["value"][1];
        value.as_str().map_or(0.0, |v| v.parse().unwrap())
    })
}

fn delete(server: &Chronolith, method: &str, tenant: &str, query: &str) -> u16 {
    let url = server.url(&format!("/api/v1/admin/tsdb/delete_series?{query}"));
    http::request(method, &url, &[("THANOS-TENANT", tenant)], b"").unwrap().status
}

fn tool(data: &Path, args: &[&str]) -> String {
    let bucket = format!("{{type: FILESYSTEM, config: {{directory: {:?}}}}}", data.join("bucket"));
    let out = Command::new(chronolith_binary())
        .args(["tools", "bucket", "--objstore.config", &bucket])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn deleted_series_are_gone_come_back_when_revoked_and_leave_the_bytes() {
    let tmp = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(tmp.path(), &[]);
    let start = now_ms() - 60_000;
    write(&server, None, start);
    server.flush();
    write(&server, None, start + 20_000);
    assert_eq!(counts(&server, ""), [20.0, 20.0], "ten in a block, ten in the head");

    let secret = format!("match[]={}", http::encode("secret{job=\"x\"}"));
    assert_eq!(delete(&server, "POST", "", ""), 400);
    assert_eq!(delete(&server, "POST", "", &format!("match[]={}", http::encode("{job=~\".*\"}"))), 400);
    assert_eq!(delete(&server, "GET", "", &secret), 405);
    assert_eq!(delete(&server, "POST", "", &secret), 204);
    assert_eq!(counts(&server, ""), [20.0, 0.0]);
    let series = server.get(&format!("/api/v1/series?{secret}")).text();
    assert!(series.contains("\"data\":[]"), "{series}");
    write(&server, None, now_ms() + 1000);
    assert_eq!(counts(&server, "")[1], 0.0, "what is of later is not asked for yet");

    let list = tool(tmp.path(), &["delete", "--list", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let id = list[0]["id"].as_str().unwrap();
    tool(tmp.path(), &["delete", "--revoke", id]);
    server.restart();
    let back = counts(&server, "");
    assert!(back[0] == back[1] && back[1] >= 20.0, "both are as they were: {back:?}");

    assert_eq!(delete(&server, "PUT", "", &secret), 204);
    assert!(counts(&server, "")[1] < 20.0);
    server.flush();
    let done = tool(tmp.path(), &["rewrite", "--no-dry-run", "--delete-blocks"]);
    assert!(done.contains("rewritten as"), "{done}");
    let cleaned = tool(tmp.path(), &["cleanup", "--delete-delay", "0s"]);
    assert!(!cleaned.contains("0 blocks,"), "{cleaned}");
    let list: serde_json::Value =
        serde_json::from_str(&tool(tmp.path(), &["delete", "--list", "-o", "json"])).unwrap();
    tool(tmp.path(), &["delete", "--revoke", list[0]["id"].as_str().unwrap()]);
    let (store, tsdb) = (tmp.path().join("store"), tmp.path().join("tsdb"));
    server.stop();
    // Only the bucket may answer.
    std::fs::remove_dir_all(store).unwrap();
    std::fs::remove_dir_all(tsdb).unwrap();
    server.start_again();
    server.wait_ready();
    let left = counts(&server, "");
    assert!(left[0] >= 20.0 && left[1] < 20.0, "no revoking brings back what left the bytes: {left:?}");
    tool(tmp.path(), &["verify"]);
    server.check_log();
}

#[test]
fn a_tenant_deletes_its_own_series_only() {
    let tmp = tempfile::tempdir().unwrap();
    let server = Chronolith::server(tmp.path(), &["--query.enforce-tenancy"]);
    for tenant in ["a", "b"] {
        write(&server, Some(tenant), now_ms() - 60_000);
    }
    // Naming another tenant does not reach it.
    let query = format!("match[]={}", http::encode("secret{tenant_id=\"b\"}"));
    assert_eq!(delete(&server, "POST", "a", &query), 204);
    assert_eq!((counts(&server, "a"), counts(&server, "b")), ([10.0, 0.0], [10.0, 10.0]));
}
