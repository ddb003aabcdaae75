//! The outside judges: Debian's prometheus, promtool and node_exporter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chronolith_testkit::http::{self, Response};
use chronolith_testkit::{Answer, Process, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running node_exporter.
#[derive(Debug)]
pub struct NodeExporter {
    /// Where it listens.
    pub port: u16,
    _process: Process,
}

impl NodeExporter {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let port = free_port();
        let mut process = Process::builder("prometheus-node-exporter")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--no-collector.systemd", "--no-collector.timex"])
            .spawn();
        process.wait_ready(&format!("http://127.0.0.1:{port}/metrics"), PATIENCE);
        NodeExporter { port, _process: process }
    }
}

/// A running Prometheus that scrapes once a second and remote-writes.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    _process: Process,
}

impl Prometheus {
    /// Starts one that scrapes `target` and itself and writes to `remote_write`.
    pub fn start(dir: &Path, target: u16, remote_write: &str) -> Self {
        let port = free_port();
        let text = format!(
            "global: {{scrape_interval: 1s, external_labels: {{cluster: test}}}}\n\
             scrape_configs:\n\
             - job_name: node\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n\
             - job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n\
             remote_write:\n\
             - url: {remote_write}\n  queue_config: {{batch_send_deadline: 500ms, max_backoff: 500ms}}\n"
        );
        Self::on_port(port, dir, &text, &[])
    }

    /// Starts one with this configuration and these further flags.
    pub fn with_config(dir: &Path, config: &str, args: &[&str]) -> Self {
        Self::on_port(free_port(), dir, config, args)
    }

    /// As [`Prometheus::with_config`], of this binary.
    pub fn of_binary(binary: &str, dir: &Path, config: &str, args: &[&str]) -> Self {
        Self::run(binary, free_port(), dir, config, args)
    }

    fn on_port(port: u16, dir: &Path, text: &str, args: &[&str]) -> Self {
        Self::run("prometheus", port, dir, text, args)
    }

    fn run(binary: &str, port: u16, dir: &Path, text: &str, args: &[&str]) -> Self {
        let config = dir.join("prometheus.yml");
        std::fs::write(&config, text).expect("the scratch directory is writable");
        let mut process = Process::builder(binary)
            .args(args.iter().copied())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus-data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .spawn();
        process.wait_ready(&format!("http://127.0.0.1:{port}/-/ready"), PATIENCE);
        Prometheus { port, _process: process }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Posts a form.
    pub fn post(&self, path: &str, form: &str) -> std::io::Result<Response> {
        http::post_form(&self.url(path), form)
    }

    /// Asks a range query.
    pub fn query_range(&self, query: &str, start_s: f64, end_s: f64, step_s: f64) -> Answer {
        let query = http::encode(query);
        let form = format!("query={query}&start={start_s}&end={end_s}&step={step_s}");
        let url = self.url("/api/v1/query_range");
        Answer::of(&http::post_form(&url, &form).expect("Prometheus answers"))
    }
}

/// Runs promtool and gives what it printed.
///
/// # Panics
/// When it fails.
pub fn promtool(args: &[&str]) -> String {
    let out =
        Command::new("promtool").args(args).output().expect("promtool is installed (make test does it)");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "promtool {args:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// The Python of the virtual environment that has the client libraries.
///
/// # Panics
/// When it was not made.
pub fn clients_python() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).expect("a test lies in deps/");
    let python = target.join("clients/bin/python");
    assert!(python.is_file(), "{} is missing: run `cargo xtask clients` first", python.display());
    python
}
