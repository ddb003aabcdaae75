//! Prometheus as it is, as an agent and as a server: what it scrapes arrives by the protocol that it speaks.

use std::path::Path;
use std::time::Duration;

use chronolith_e2e::{Answer, Chronolith};
use chronolith_testkit::{Process, free_port, http, wait_until};
use serde_json::Value;

/// A bound against hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts one that scrapes itself once a second and writes to `url`.
fn agent(binary: &str, dir: &Path, url: &str, flags: &[String], remote_write: &str) -> Process {
    let port = free_port();
    let text = format!(
        "global: {{scrape_interval: 1s}}\n\
         scrape_configs:\n- job_name: agent\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n\
         remote_write:\n- url: {url}\n  queue_config: {{batch_send_deadline: 500ms, max_backoff: 500ms}}\n\
        \x20 metadata_config: {{send_interval: 1s}}\n{remote_write}"
    );
    let config = dir.join("agent.yml");
    std::fs::write(&config, text).expect("the scratch directory is writable");
    let mut process = Process::builder(binary)
        .args(flags)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .spawn();
    process.wait_ready(&format!("http://127.0.0.1:{port}/-/ready"), PATIENCE);
    process
}

fn arrives(server: &Chronolith, with_metadata: bool) {
    let get = |path: &str| http::request("GET", &server.url(path), &[], b"").expect("the server answers");
    let query = http::encode("count_over_time(prometheus_build_info{job=\"agent\"}[5m])");
    wait_until("samples", PATIENCE, || {
        Answer::of(&get(&format!("/api/v1/query?query={query}"))).single().filter(|samples| *samples >= 3.0)
    });
    wait_until("metadata", PATIENCE, || {
        if !with_metadata {
            return Some(());
        }
        let text = get("/api/v1/metadata?metric=prometheus_build_info").body;
        let metadata: Value = serde_json::from_slice(&text).ok()?;
        (metadata["data"]["prometheus_build_info"][0]["type"] == "gauge").then_some(())
    });
    let metrics = get("/metrics").text();
    assert!(metrics.contains("chronolith_receive_samples_rejected_total 0"), "nothing was rejected");
}

#[test]
fn debians_prometheus_as_an_agent_writes_1_0() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(&dir.path().join("data"), &[]);
    let path = format!("--storage.agent.path={}", dir.path().join("agent").display());
    let flags = ["--enable-feature=agent".to_owned(), path];
    let _agent = agent("prometheus", dir.path(), &server.url("/api/v1/receive"), &flags, "");
    arrives(&server, true);
    server.stop();
}

#[test]
fn a_current_prometheus_writes_2_0() {
    let Ok(binary) = std::env::var("CHRONOLITH_CURRENT_PROMETHEUS") else {
        eprintln!("left out: CHRONOLITH_CURRENT_PROMETHEUS names no Prometheus 3");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(&dir.path().join("data"), &[]);
    let message = "  protobuf_message: io.prometheus.write.v2.Request\n";
    let url = server.url("/api/v1/write");
    let path = format!("--storage.tsdb.path={}", dir.path().join("tsdb").display());
    let flags = [path];
    let _server = agent(&binary, dir.path(), &url, &flags, message);
    // What it knows of metrics it does not send by 2.0 (every series has an empty message).
    arrives(&server, false);
    server.stop();
}
