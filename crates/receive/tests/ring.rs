//! Several receivers in one hashring over real sockets: replication, quorum, roles, reload of the file.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_objstore::Bucket;
use chronolith_receive::hashring::Algorithm;
use chronolith_receive::{Config, ForwardOptions, ReceiveError};
use chronolith_service::ManualClock;
use chronolith_testkit::free_port;
use common::{Role, config, minutes, series};
use futures::TryStreamExt as _;

/// Aligned to two hours.
const T0: i64 = 1_767_225_600_000;

struct Cluster {
    dir: tempfile::TempDir,
    addresses: Vec<String>,
    factor: usize,
    clock: ManualClock,
    roles: Vec<Option<Role>>,
}

impl Cluster {
    /// `count` receivers, all in the ring.
    async fn start(count: usize, factor: usize) -> Self {
        let addresses = (0..count).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let mut cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            addresses,
            factor,
            clock: ManualClock::new(T0),
            roles: (0..count).map(|_| None).collect(),
        };
        cluster.write_file(&(0..count).collect::<Vec<_>>());
        for i in 0..count {
            cluster.begin(i).await;
        }
        cluster
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("hashrings.json")
    }

    fn write_file(&self, members: &[usize]) {
        let members: Vec<&String> = members.iter().map(|i| &self.addresses[*i]).collect();
        let text = serde_json::json!([{"hashring": "all", "endpoints": members}]).to_string();
        std::fs::write(self.file(), text).unwrap();
    }

    fn config(&self, i: usize) -> Config {
        Config {
            grpc_address: Some(self.addresses[i].clone()),
            labels: vec![("replica".to_owned(), format!("r{i}"))],
            forward: Some(forward(&self.file(), Some(&self.addresses[i]), self.factor)),
            ..config(&self.dir.path().join(format!("r{i}")))
        }
    }

    async fn begin(&mut self, i: usize) {
        self.roles[i] = Some(Role::start(self.config(i), None, &self.clock).await);
    }

    async fn stop(&mut self, i: usize) {
        self.roles[i].take().unwrap().stop().await.unwrap();
    }

    fn role(&self, i: usize) -> &Role {
        self.roles[i].as_ref().unwrap()
    }

    /// Times of a metric's samples on each receiver.
    async fn times(&self, metric: &str) -> Vec<Vec<i64>> {
        let mut all = Vec::new();
        for role in &self.roles {
            let mut times = Vec::new();
            if let Some(role) = role {
                times.extend(role.samples(metric).await.into_iter().map(|s| s.1));
            }
            all.push(times);
        }
        all
    }

    /// Waits until `metric` has these many samples on each receiver.
    async fn wait_for(&self, metric: &str, want: &[usize]) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let counts: Vec<usize> = self.times(metric).await.iter().map(Vec::len).collect();
            if counts == want {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{metric}: {counts:?}, want {want:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        for role in self.roles.into_iter().flatten() {
            role.stop().await.unwrap();
        }
    }
}

fn forward(file: &Path, local: Option<&str>, factor: usize) -> ForwardOptions {
    ForwardOptions {
        file: Some(file.to_owned()),
        algorithm: Algorithm::Ketama,
        local_endpoint: local.map(str::to_owned),
        replication_factor: factor,
        // Tests must pass on slow machines, and wait for no timeout.
        timeout: Duration::from_secs(60),
        backoff_max: Duration::from_millis(200),
        ..ForwardOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_receiver_of_three_keeps_a_copy_and_one_may_be_missing() {
    let mut cluster = Cluster::start(3, 3).await;
    assert_eq!(cluster.role(0).write("team", &minutes("m", T0, 5)).await, (200, String::new()));
    cluster.wait_for("m", &[5, 5, 5]).await;
    cluster.stop(2).await;
    for i in [0, 1] {
        let at = T0 + (10 + i) * 60_000;
        let answer = cluster.role(i as usize).write("team", &minutes("m", at, 1)).await;
        assert_eq!(answer, (200, String::new()));
    }
    cluster.wait_for("m", &[7, 7, 0]).await;
    // What it missed comes when it is back, although newer samples were there before.
    cluster.begin(2).await;
    cluster.wait_for("m", &[7, 7, 7]).await;
    cluster.stop(2).await;
    cluster.stop(1).await;
    let (status, text) = cluster.role(0).write("team", &minutes("alone", T0, 1)).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("too few receivers took the request"), "{text}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_late_survive_the_sender_and_follow_the_ring() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.stop(2).await;
    assert_eq!(cluster.role(0).write("t", &minutes("m", T0, 3)).await.0, 200);
    cluster.wait_for("m", &[3, 3, 0]).await;
    let hinted = |text: String| text.contains("chronolith_receive_handoff_hints_total{result=\"kept\"} 1");
    wait_metrics(cluster.role(0), hinted).await;
    // The sender restarts while the hint waits; then the receiver is back, has newer samples, and takes the older ones.
    cluster.stop(0).await;
    cluster.begin(2).await;
    assert_eq!(cluster.role(1).write("t", &minutes("m", T0 + 600_000, 1)).await.0, 200);
    cluster.wait_for("m", &[0, 4, 1]).await;
    cluster.begin(0).await;
    cluster.wait_for("m", &[4, 4, 4]).await;
    // Replayed hints are gone.
    let empty = |text: String| !text.contains("chronolith_receive_handoff_pending_bytes{");
    wait_metrics(cluster.role(0), empty).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_may_wait_on_the_senders_disk_and_goes_where_the_ring_says() {
    let mut cluster = Cluster::start(3, 1).await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    let (status, text) = cluster.role(0).write("t", &fifty()).await;
    assert_eq!(status, 200, "{text}");
    cluster.begin(1).await;
    // The third never comes back.
    cluster.write_file(&[0, 1]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let counts: Vec<usize> = cluster.times("m").await.iter().map(Vec::len).collect();
        if counts.iter().sum::<usize>() == 50 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.end().await;
}

/// A sample of each of fifty series.
fn fifty() -> Vec<u8> {
    (0..50).flat_map(|i| series(&[("__name__", "m"), ("i", i.to_string().as_str())], &[(T0, 1.0)])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_delivers_its_hints_or_says_that_it_could_not() {
    let mut cluster = Cluster::start(2, 1).await;
    cluster.stop(1).await;
    cluster.stop(0).await;
    let bucket = Bucket::in_memory();
    let drain = Config { drain: true, drain_timeout_ms: 1000, ..cluster.config(0) };
    let role = Role::start(drain.clone(), Some(bucket.clone()), &cluster.clock).await;
    assert_eq!(role.write("t", &fifty()).await.0, 200);
    let own = role.samples("m").await.len();
    assert!((1..50).contains(&own), "{own}");
    let error = role.stop().await.unwrap_err();
    let ReceiveError::HintsLeft { peers } = error else { panic!("{error}") };
    assert_eq!(peers, [cluster.addresses[1].clone()]);
    let objects: Vec<_> = bucket.list("").try_collect().await.unwrap();
    assert!(
        objects.iter().any(|o| o.key.ends_with("/meta.json")),
        "what was in the heads was uploaded nevertheless"
    );
    cluster.begin(1).await;
    let drain = Config { drain_timeout_ms: 120_000, ..drain };
    Role::start(drain, Some(bucket), &cluster.clock).await.stop().await.unwrap();
    cluster.wait_for("m", &[0, 50 - own]).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_are_409_and_the_good_part_stays() {
    let cluster = Cluster::start(3, 3).await;
    assert_eq!(cluster.role(0).write("t", &minutes("m", T0 + 600_000, 1)).await.0, 200);
    cluster.wait_for("m", &[1, 1, 1]).await;
    let mut body = minutes("m", T0, 1);
    body.extend(minutes("good", T0, 2));
    let (status, text) = cluster.role(1).write("t", &body).await;
    assert_eq!(status, 409, "{text}");
    assert!(text.starts_with("out of order sample: series {"), "{text}");
    cluster.wait_for("good", &[2, 2, 2]).await;
    let (status, text) = cluster.role(1).write("t", &series(&[("job", "x")], &[(T0, 1.0)])).await;
    assert_eq!(status, 400, "{text}");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_receivers_share_the_series_and_the_file_may_change() {
    let mut cluster = Cluster::start(4, 2).await;
    let many = |name: &str, t: i64| -> Vec<u8> {
        (0..200)
            .flat_map(|i| series(&[("__name__", name), ("i", i.to_string().as_str())], &[(t, 1.0)]))
            .collect()
    };
    assert_eq!(cluster.role(0).write("t", &many("m", T0)).await.0, 200);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let counts: Vec<usize> = cluster.times("m").await.iter().map(Vec::len).collect();
        if counts.iter().sum::<usize>() == 400 {
            assert!(counts.iter().all(|n| (50..150).contains(n)), "{counts:?}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A wrong file changes nothing, a good one is taken; then the others leave.
    std::fs::write(cluster.file(), "[]").unwrap();
    let refused = |text: String| text.contains("thanos_receive_hashrings_file_errors_total 1");
    wait_metrics(cluster.role(0), refused).await;
    assert_eq!(cluster.role(0).write("t", &many("m", T0 + 1)).await.0, 200);
    cluster.write_file(&[0, 1]);
    for i in 0..2 {
        wait_metrics(cluster.role(i), |text| text.contains("thanos_receive_hashring_nodes{name=\"all\"} 2"))
            .await;
    }
    for i in [2, 3] {
        cluster.stop(i).await;
    }
    assert_eq!(cluster.role(1).write("t", &many("after", T0 + 2)).await.0, 200);
    cluster.wait_for("after", &[200, 200, 0, 0]).await;
    let (status, text) = cluster.role(0).get("/api/v1/status/hashring").await;
    let status_page: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(status_page["data"]["endpoints"][0]["local"], true);
    assert_eq!(status_page["data"]["endpoints"][1]["protocol"], "chronolith");
    cluster.end().await;
}

async fn wait_metrics(role: &Role, has: impl Fn(String) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !has(role.get("/metrics").await.1) {
        assert!(tokio::time::Instant::now() < deadline, "{}", role.get("/metrics").await.1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routers_keep_nothing_and_replicas_are_named_by_a_header() {
    let mut cluster = Cluster::start(3, 2).await;
    let router = Config {
        labels: vec![("replica".to_owned(), "router".to_owned())],
        forward: Some(forward(&cluster.file(), None, 2)),
        ..config(&cluster.dir.path().join("router"))
    };
    let router = Role::start(router, None, &cluster.clock).await;
    assert_eq!(router.write("t", &minutes("m", T0, 3)).await.0, 200);
    let counts = |times: Vec<Vec<i64>>| times.iter().map(Vec::len).sum::<usize>();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while counts(cluster.times("m").await) != 6 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!cluster.dir.path().join("router/wal").exists());
    router.stop().await.unwrap();
    // One replica of two, through any receiver.
    let request = |replica: &str| {
        let body = snap::raw::Encoder::new().compress_vec(&minutes("one", T0, 1)).unwrap();
        let url = format!("http://{}/api/v1/receive", cluster.role(0).remote_write);
        cluster.role(0).client.post(url).header("THANOS-REPLICA", replica).body(body).send()
    };
    assert_eq!(request("2").await.unwrap().status(), 200);
    assert_eq!(counts(cluster.times("one").await), 1);
    assert_eq!(request("3").await.unwrap().status(), 400);
    assert_eq!(request("x").await.unwrap().status(), 400);
    for i in 0..3 {
        cluster.stop(i).await;
    }
}
