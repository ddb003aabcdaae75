//! The main job on real input: a Prometheus that scrapes a node_exporter remote-writes into Chronolith; blocks appear in the
//! bucket, promtool accepts them, and range queries over bucket and head answer as that Prometheus does, before and after a
//! restart of every process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Chronolith, NodeExporter, Prometheus, assert_same, promtool};
use chronolith_testkit::{S3Server, free_port, wait_until};

/// Blocks of ten seconds, so that a test sees several.
const BLOCK: &str = "--tsdb.min-block-duration=10s";
const SHIP: &str = "--shipper.interval=1s";
/// What Chronolith adds to a series: the tenant, and the receiver's own label; and what Prometheus adds on the way out.
const ADDED: [&str; 3] = ["tenant_id", "receive", "cluster"];
const PATIENCE: Duration = Duration::from_secs(120);

const QUERIES: [&str; 7] = [
    "up",
    "node_load1",
    "rate(node_cpu_seconds_total[5s])",
    "sum by (mode) (rate(node_cpu_seconds_total[8s]))",
    "avg_over_time(node_memory_MemFree_bytes[7s])",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[10s])))",
    "count by (__name__) ({job=\"node\"})",
];

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs_f64()
}

/// Off the sample grid by an odd fraction: Prometheus 2.42's range windows include their left edge, ours do not.
fn off_grid(t: f64) -> f64 {
    t.floor() + 0.137
}

fn compare(prometheus: &Prometheus, chronolith: &Chronolith, start: f64, end: f64) {
    for query in QUERIES {
        let theirs = prometheus.query_range(query, start, end, 2.0).points(&ADDED);
        assert!(!theirs.is_empty() || query.starts_with("histogram"), "{query}: Prometheus has an answer");
        let ours = chronolith.query_range(query, start, end, 2.0).points(&ADDED);
        assert_same(query, &ours, &theirs);
    }
}

/// Waits until samples newer than `t` of both targets have arrived.
fn wait_for_samples_after(chronolith: &Chronolith, t: f64) {
    wait_until("fresh samples", PATIENCE, || {
        let oldest = chronolith.query("min(timestamp(up))", now_s()).single()?;
        (oldest > t).then_some(())
    });
}

fn block_dirs(bucket: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(bucket).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.join("meta.json").is_file()).collect()
}

/// promtool reads the blocks, and dumps samples out of them. It wants a Prometheus data directory, with a log, so the blocks
/// are copied into one.
fn judge_blocks(bucket: &Path, scratch: &Path) {
    let data = scratch.join("promtool");
    fs::create_dir_all(data.join("wal")).expect("the scratch directory is writable");
    for block in block_dirs(bucket) {
        let to = data.join(block.file_name().expect("a block has a name"));
        fs::create_dir_all(to.join("chunks")).expect("the scratch directory is writable");
        for file in ["meta.json", "index", "chunks/000001"] {
            fs::copy(block.join(file), to.join(file)).expect("a block has this file");
        }
    }
    let path = data.display().to_string();
    let listed = promtool(&["tsdb", "list", &path]);
    for block in block_dirs(&data) {
        let id = block.file_name().expect("a block has a name").to_string_lossy().into_owned();
        assert!(listed.contains(&id), "promtool lists {id}:\n{listed}");
        let analysis = promtool(&["tsdb", "analyze", &path, &id]);
        assert!(analysis.contains(&id), "promtool analyzes {id}:\n{analysis}");
    }
    let dump = promtool(&["tsdb", "dump", &path]);
    assert!(dump.contains("node_load1") && dump.lines().count() > 1000, "promtool dumps samples");
}

#[test]
fn one_process_over_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let exporter = NodeExporter::start();
    let mut chronolith = Chronolith::server(&data, &[BLOCK, SHIP]);
    let prometheus = Prometheus::start(dir.path(), exporter.port, &chronolith.url("/api/v1/receive"));
    let start = off_grid(now_s() + 3.0);

    let bucket = data.join("bucket");
    wait_until("three blocks in the bucket", PATIENCE, || (block_dirs(&bucket).len() >= 3).then_some(()));
    let end = off_grid(now_s());
    wait_for_samples_after(&chronolith, end + 1.0);
    compare(&prometheus, &chronolith, start, end);
    judge_blocks(&bucket, dir.path());

    chronolith.restart();
    compare(&prometheus, &chronolith, start, end);
    chronolith.crash_and_restart();
    compare(&prometheus, &chronolith, start, end);

    // Prometheus has gone on writing meanwhile; the sequel continues without a gap.
    let end = off_grid(now_s());
    wait_for_samples_after(&chronolith, end + 1.0);
    compare(&prometheus, &chronolith, start, end);
    chronolith.flush();
    compare(&prometheus, &chronolith, start, end);
    chronolith.stop();
}

#[test]
fn separate_roles_over_s3() {
    let dir = tempfile::tempdir().unwrap();
    let s3 = S3Server::start();
    let objstore = dir.path().join("objstore.yml");
    fs::write(&objstore, s3.config_yaml()).unwrap();
    let objstore = format!("--objstore.config-file={}", objstore.display());
    let (receive_grpc, store_grpc, write_port) = (free_port(), free_port(), free_port());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut receive = Chronolith::start(
        "receive",
        &[
            format!("--tsdb.path={}", path("receive")),
            format!("--grpc-address=127.0.0.1:{receive_grpc}"),
            format!("--remote-write.address=127.0.0.1:{write_port}"),
            "--label=receive=\"0\"".to_owned(),
            // Local blocks go soon after they are in the bucket, so that the store has to answer.
            "--tsdb.retention=10s".to_owned(),
            BLOCK.to_owned(),
            SHIP.to_owned(),
            objstore.clone(),
        ],
    );
    let mut store = Chronolith::start(
        "store",
        &[
            format!("--data-dir={}", path("store")),
            format!("--grpc-address=127.0.0.1:{store_grpc}"),
            "--sync-block-duration=1s".to_owned(),
            objstore,
        ],
    );
    let mut query = Chronolith::start(
        "query",
        &[
            "--grpc-address=127.0.0.1:0".to_owned(),
            format!("--endpoint=127.0.0.1:{receive_grpc}"),
            format!("--endpoint=127.0.0.1:{store_grpc}"),
        ],
    );
    let exporter = NodeExporter::start();
    let url = format!("http://127.0.0.1:{write_port}/api/v1/receive");
    let prometheus = Prometheus::start(dir.path(), exporter.port, &url);
    let start = off_grid(now_s() + 3.0);

    let in_bucket = || s3.keys().iter().filter(|k| k.ends_with("/meta.json")).count();
    wait_until("three blocks in the bucket", PATIENCE, || (in_bucket() >= 3).then_some(()));
    let end = off_grid(now_s());
    wait_for_samples_after(&query, end + 1.0);
    compare(&prometheus, &query, start, end);

    receive.restart();
    store.restart();
    query.restart();
    wait_for_samples_after(&query, end + 1.0);
    compare(&prometheus, &query, start, end);

    // What the bucket holds is Prometheus's own format.
    let copy = dir.path().join("copy");
    for key in s3.keys() {
        let file = copy.join(&key);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, s3.object(&key).unwrap()).unwrap();
    }
    judge_blocks(&copy, dir.path());

    query.stop();
    store.stop();
    receive.stop();
}
