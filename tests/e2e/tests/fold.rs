//! Aggregations below the merge, between real processes: two receivers of different clusters fold for a querier, a replica is read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Chronolith, TestSeries, write_body};
use chronolith_testkit::{free_port, http, wait_until};
use serde_json::Value;

/// A bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

struct Receiver {
    process: Chronolith,
    grpc: u16,
    writes: u16,
}

fn receiver(dir: &std::path::Path, name: &str, labels: &[&str]) -> Receiver {
    let (grpc, writes) = (free_port(), free_port());
    let mut args = vec![
        format!("--tsdb.path={}", dir.join(name).display()),
        format!("--grpc-address=127.0.0.1:{grpc}"),
        format!("--remote-write.address=127.0.0.1:{writes}"),
    ];
    args.extend(labels.iter().map(|label| format!("--label={label}")));
    Receiver { process: Chronolith::start("receive", &args), grpc, writes }
}

/// Writes a counter of so many series.
fn write(receiver: &Receiver, series: usize, now_ms: i64) {
    let one = |i: usize| {
        let samples: Vec<_> =
            (0..60).map(|k| (now_ms - (60 - k) * 5_000, (k * (i as i64 + 1)) as f64)).collect();
        TestSeries::new(&[("__name__", "requests_total"), ("i", &i.to_string())], &samples)
    };
    let body = write_body(&(0..series).map(one).collect::<Vec<_>>());
    let url = format!("http://127.0.0.1:{}/api/v1/receive", receiver.writes);
    let reply = http::request("POST", &url, &[("Content-Encoding", "snappy")], &body).unwrap();
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
}

#[test]
fn receivers_of_different_clusters_fold_and_replicas_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let a = receiver(dir.path(), "a", &[r#"cluster="a""#, r#"replica="0""#]);
    let b = receiver(dir.path(), "b", &[r#"cluster="b""#, r#"replica="0""#]);
    let mirror = receiver(dir.path(), "mirror", &[r#"cluster="b""#, r#"replica="1""#]);
    for (receiver, series) in [(&a, 3), (&b, 5), (&mirror, 5)] {
        write(receiver, series, now_s * 1000);
    }
    let mut query = Chronolith::start(
        "query",
        &[
            "--grpc-address=127.0.0.1:0".to_owned(),
            "--query.replica-label=replica".to_owned(),
            format!("--endpoint=127.0.0.1:{}", a.grpc),
            format!("--endpoint=127.0.0.1:{}", b.grpc),
            format!("--endpoint=127.0.0.1:{}", mirror.grpc),
        ],
    );
    let ask = |text: &str, more: &str| -> Value {
        let path = format!("/api/v1/query?query={text}&time={now_s}&analyze=true{more}");
        let reply = http::request("GET", &query.url(&path), &[], b"").unwrap();
        serde_json::from_slice(&reply.body).unwrap()
    };
    let counts = |reply: &Value| -> Vec<String> {
        let rows = reply["data"]["result"].as_array().unwrap();
        let row = |r: &Value| format!("{} {}", r["metric"]["cluster"], r["value"][1]);
        let mut rows: Vec<String> = rows.iter().map(row).collect();
        // The order of an instant vector is free.
        rows.sort();
        rows
    };
    let count = "count+by+(cluster)+(rate(requests_total[4m]))";
    // Without removal of replicas all three are apart.
    let reply = wait_until("all receivers answer", PATIENCE, || {
        let reply = ask(count, "&dedup=false");
        (counts(&reply) == [r#""a" "3""#, r#""b" "10""#]).then_some(reply)
    });
    assert!(reply.to_string().contains("(folded by 3 stores)"), "{reply}");
    // With it, the two that hold the same are read.
    let reply = ask(count, "");
    assert_eq!(counts(&reply), [r#""a" "3""#, r#""b" "5""#], "{reply}");
    assert!(reply.to_string().contains("(folded by 1 store)"), "{reply}");
    // Only one of the two is asked.
    let reply = ask("max+by+(cluster)+(rate(requests_total%7Breplica=%221%22%7D[4m]))", "&dedup=false");
    assert!(reply.to_string().contains("(folded by 1 store)"), "{reply}");
    query.stop();
    for mut receiver in [a, b, mirror] {
        receiver.process.stop();
    }
}
