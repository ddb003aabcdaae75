//! A store's process that ends and comes back: what it had cached on disk is not read from the bucket again.

use std::time::Duration;

use chronolith_e2e::{Chronolith, TestSeries, write_body};
use chronolith_testkit::{S3Operation, S3Server, free_port, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const T0_S: i64 = 1_700_000_000;

/// Blocks in the bucket, made by a server that is gone.
fn fill(s3: &S3Server, objstore: &str, dir: &std::path::Path) {
    let mut server = Chronolith::server(dir, &[objstore, "--compact=false"]);
    let series = |i: i64| {
        let samples: Vec<(i64, f64)> = (0..480).map(|n| ((T0_S + n * 15) * 1000, (n * i) as f64)).collect();
        TestSeries::new(&[("__name__", "cached"), ("i", &i.to_string())], &samples)
    };
    assert!(server.write(&write_body(&(0..50).map(series).collect::<Vec<_>>())).unwrap().status < 300);
    server.flush();
    server.stop();
    assert!(s3.keys().iter().any(|key| key.ends_with("/meta.json")), "{:?}", s3.keys());
}

#[test]
fn caches_on_disk_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let file = dir.path().join("objstore.yml");
    std::fs::write(&file, s3.config_yaml()).unwrap();
    let objstore = format!("--objstore.config-file={}", file.display());
    fill(&s3, &objstore, &dir.path().join("server"));

    let grpc = format!("127.0.0.1:{}", free_port());
    let on_disk = |name: &str| {
        format!("{{type: DISK, config: {{directory: {}, max_size: 64MB}}}}", dir.path().join(name).display())
    };
    let mut store = Chronolith::start(
        "store",
        &[
            format!("--data-dir={}", dir.path().join("store").display()),
            format!("--grpc-address={grpc}"),
            format!("--index-cache.config={}", on_disk("index")),
            format!("--store.caching-bucket.config={}", on_disk("chunks")),
            objstore,
        ],
    );
    let query_args = ["--grpc-address=127.0.0.1:0".to_owned(), format!("--endpoint={grpc}")];
    let query = Chronolith::start("query", &query_args);
    let ask = || query.query("sum by (i) (sum_over_time(cached[3h]))", (T0_S + 480 * 15) as f64);
    let found = wait_until("the store to answer", PATIENCE, || {
        let answer = ask();
        (answer.points(&[]).len() == 50).then(|| answer.points(&[]))
    });
    let reads = || {
        s3.clear_requests();
        assert_eq!(ask().points(&[]), found);
        s3.requests().iter().filter(|r| r.operation == S3Operation::GetObject).count()
    };
    wait_until("everything to be in the caches", PATIENCE, || (reads() == 0).then_some(()));

    // An orderly end, and one that is none.
    for crash in [false, true] {
        s3.clear_requests();
        if crash {
            store.crash_and_restart();
        } else {
            store.restart();
        }
        wait_until("the querier to find the store again", PATIENCE, || {
            (ask().points(&[]).len() == 50).then_some(())
        });
        let read: Vec<String> = s3
            .requests()
            .into_iter()
            .filter(|r| r.target.contains("/index") || r.target.contains("/chunks/"))
            .map(|r| format!("{} {:?}", r.target, r.range))
            .collect();
        assert_eq!(read, [""; 0], "read again after a {}", if crash { "crash" } else { "restart" });
        assert_eq!(ask().points(&[]), found);
    }
    store.stop();
}
