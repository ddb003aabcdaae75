//! A running `chronolith` process.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::http::{self, Response};
use crate::{Answer, Process, free_port};

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

/// How a role is started, and started again.
#[derive(Clone, Debug)]
pub struct Launch {
    args: Vec<String>,
    host: String,
    port: u16,
    wrapper: Vec<String>,
    envs: Vec<(String, String)>,
    log_file: Option<PathBuf>,
}

impl Launch {
    /// `chronolith ROLE --http-address=HOST:PORT ARGS…` on a free port of `host`.
    pub fn new(role: &str, host: &str, args: &[String]) -> Self {
        let port = free_port();
        let mut all = vec![role.to_owned(), format!("--http-address={host}:{port}")];
        all.extend_from_slice(args);
        Launch {
            args: all,
            host: host.to_owned(),
            port,
            wrapper: Vec::new(),
            envs: Vec::new(),
            log_file: None,
        }
    }

    /// Runs it under a program that ends by `exec`ing its arguments (`ip netns exec NAME`).
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Appends what it logs to a file, too: restarts included.
    pub fn log_file(mut self, path: &Path) -> Self {
        self.log_file = Some(path.to_owned());
        self
    }

    /// Starts it, without waiting for anything.
    pub fn spawn(self) -> Chronolith {
        let process = self.process();
        Chronolith { port: self.port, launch: self, process, allowed: Vec::new() }
    }

    fn process(&self) -> Process {
        let binary = chronolith_binary();
        let mut builder = match self.wrapper.split_first() {
            None => Process::builder(binary),
            Some((program, args)) => Process::builder(program).args(args).arg(binary),
        };
        builder = builder.args(&self.args);
        for (name, value) in &self.envs {
            builder = builder.env(name, value);
        }
        if let Some(path) = &self.log_file {
            builder = builder.log_file(path);
        }
        builder.spawn()
    }
}

/// One role in a process of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Chronolith {
    launch: Launch,
    /// The HTTP port.
    pub port: u16,
    process: Process,
    /// ERROR lines that a test provokes on purpose.
    allowed: Vec<&'static str>,
}

impl Chronolith {
    /// Starts `chronolith ROLE --http-address=127.0.0.1:PORT ARGS…` and waits until it is ready.
    pub fn start(role: &str, args: &[String]) -> Self {
        let mut started = Launch::new(role, "127.0.0.1", args).spawn();
        started.wait_ready();
        started
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

    /// Waits until it is ready.
    ///
    /// # Panics
    /// With the log when it ends before or takes too long.
    pub fn wait_ready(&mut self) {
        let url = self.url("/-/ready");
        self.process.wait_ready(&url, PATIENCE);
    }

    /// ERROR lines that contain `text` are expected.
    pub fn allow_errors(&mut self, text: &'static str) {
        self.allowed.push(text);
    }

    /// Replaces or adds a flag, `--name=value`, for the next start.
    pub fn set_flag(&mut self, name: &str, value: &str) {
        let prefix = format!("{name}=");
        self.launch.args.retain(|a| !a.starts_with(&prefix));
        self.launch.args.push(format!("{prefix}{value}"));
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.launch.host, self.port)
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

    /// The sum of a metric over its label sets; 0 where it has none.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let of_name = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        text.lines().filter(of_name).filter_map(value).sum()
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
        self.start_again();
        self.wait_ready();
    }

    /// `kill -9`, start again with the same flags.
    pub fn crash_and_restart(&mut self) {
        self.crash();
        self.start_again();
        self.wait_ready();
    }

    /// Starts it again after [`Chronolith::stop`] or [`Chronolith::crash`], without waiting for anything.
    pub fn start_again(&mut self) {
        self.process = self.launch.process();
    }

    /// `kill -9`.
    pub fn crash(&mut self) {
        self.process.kill();
    }

    /// Stops all its threads where they are, or lets them go on.
    pub fn pause(&self, paused: bool) {
        self.process.pause(paused);
    }

    /// Sends SIGTERM and does not wait.
    pub fn signal_stop(&mut self) {
        self.process.signal_stop();
    }

    /// SIGTERM; the process must end by itself, with success and without an unexpected ERROR line.
    pub fn stop(&mut self) {
        let status = self.process.terminate(PATIENCE);
        assert!(status.success(), "ended with {status}:\n{}", self.process.log_text());
        self.check_log();
    }

    /// Waits for the end of a process that was told to stop.
    pub fn wait_stopped(&mut self) -> ExitStatus {
        self.process.wait(PATIENCE)
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
