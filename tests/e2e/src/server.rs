//! A running `chronolith` process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_testkit::http::{self, Response};
use chronolith_testkit::{Process, free_port};

use crate::Answer;

/// How long a process may take to become ready or to stop; a bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: built by `make test` before the tests run.
///
/// # Panics
/// When it was not built.
pub fn chronolith_binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/TEST
    let binary = test.parent().and_then(Path::parent).expect("a test lies in deps/").join("chronolith");
    assert!(binary.is_file(), "{} is missing: run `cargo build --bin chronolith` first", binary.display());
    binary
}

/// One role in a process of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Chronolith {
    args: Vec<String>,
    /// The HTTP port.
    pub port: u16,
    process: Process,
    /// ERROR lines that a test provokes on purpose.
    allowed: Vec<&'static str>,
}

impl Chronolith {
    /// Starts `chronolith ROLE --http-address=127.0.0.1:PORT ARGS…` and waits until it is ready.
    pub fn start(role: &str, args: &[String]) -> Self {
        let port = free_port();
        let mut all = vec![role.to_owned(), format!("--http-address=127.0.0.1:{port}")];
        all.extend_from_slice(args);
        let process = spawn(&all, port);
        Chronolith { args: all, port, process, allowed: Vec::new() }
    }

    /// `chronolith server` over a directory, with further flags.
    pub fn server(data: &Path, args: &[&str]) -> Self {
        let mut all = vec![
            format!("--data-dir={}", data.display()),
            "--grpc-address=127.0.0.1:0".to_owned(),
            "--self-monitoring=false".to_owned(),
            "--web.enable-admin-api".to_owned(),
        ];
        all.extend(args.iter().map(|a| (*a).to_owned()));
        Self::start("server", &all)
    }

    /// ERROR lines that contain `text` are expected.
    pub fn allow_errors(&mut self, text: &'static str) {
        self.allowed.push(text);
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Posts a remote-write body.
    pub fn write(&self, body: &[u8]) -> std::io::Result<Response> {
        self.write_as(None, body)
    }

    /// Posts a remote-write body for a tenant.
    pub fn write_as(&self, tenant: Option<&str>, body: &[u8]) -> std::io::Result<Response> {
        let mut headers = vec![("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        headers.extend(tenant.map(|t| ("THANOS-TENANT", t)));
        http::request("POST", &self.url("/api/v1/receive"), &headers, body)
    }

    /// Asks an instant query.
    pub fn query(&self, query: &str, time_s: f64) -> Answer {
        let form = format!("query={}&time={time_s}", http::encode(query));
        Answer::of(&http::post_form(&self.url("/api/v1/query"), &form).expect("the server answers"))
    }

    /// Asks a range query.
    pub fn query_range(&self, query: &str, start_s: f64, end_s: f64, step_s: f64) -> Answer {
        let query = http::encode(query);
        let form = format!("query={query}&start={start_s}&end={end_s}&step={step_s}");
        Answer::of(&http::post_form(&self.url("/api/v1/query_range"), &form).expect("the server answers"))
    }

    /// GET of a path.
    pub fn get(&self, path: &str) -> Response {
        http::get(&self.url(path)).expect("the server answers")
    }

    /// Uploads everything that was written so far.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn flush(&self) {
        let reply = http::post_form(&self.url("/api/v1/admin/tsdb/flush"), "").expect("the server answers");
        assert!(reply.status < 300, "flush answered {}: {}", reply.status, reply.text());
    }

    /// SIGTERM, wait, start again with the same flags.
    pub fn restart(&mut self) {
        self.stop();
        self.process = spawn(&self.args, self.port);
    }

    /// `kill -9`, start again with the same flags.
    pub fn crash_and_restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.args, self.port);
    }

    /// `kill -9`.
    pub fn crash(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; the process must end by itself, with success and without an unexpected ERROR line.
    pub fn stop(&mut self) {
        let status = self.process.terminate(PATIENCE);
        assert!(status.success(), "ended with {status}:\n{}", self.process.log_text());
        self.check_log();
    }

    /// Fails when the log has an ERROR line that no test allowed.
    pub fn check_log(&self) {
        let errors = self.process.unexpected_errors(&self.allowed);
        assert!(errors.is_empty(), "unexpected errors: {errors:#?}");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log_text()
    }
}

fn spawn(args: &[String], port: u16) -> Process {
    let mut process = Process::builder(chronolith_binary()).args(args).spawn();
    process.wait_ready(&format!("http://127.0.0.1:{port}/-/ready"), PATIENCE);
    process
}
