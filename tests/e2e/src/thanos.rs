//! Thanos's roles, from the binary that `CHRONOLITH_THANOS` names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronolith_testkit::http;
use chronolith_testkit::{Answer, Process, free_port, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, or `None` after a line that says so: no package ships one, so tests against it are optional.
pub fn thanos_binary() -> Option<PathBuf> {
    let found = std::env::var_os("CHRONOLITH_THANOS").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: CHRONOLITH_THANOS names no binary (docs/operating/thanos.md)");
    }
    found
}

/// One role in a process of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Thanos {
    /// `host:port` of its gRPC.
    pub grpc: String,
    http: String,
    write: Option<String>,
    process: Process,
}

impl Thanos {
    /// Starts `thanos ROLE ARGS…` on free ports and waits until it is ready.
    pub fn start(binary: &Path, role: &str, args: &[String]) -> Self {
        Self::start_on(binary, role, &format!("127.0.0.1:{}", free_port()), args)
    }

    /// The same at a certain gRPC address.
    pub fn start_on(binary: &Path, role: &str, grpc: &str, args: &[String]) -> Self {
        let http = format!("127.0.0.1:{}", free_port());
        let mut builder = Process::builder(binary)
            .arg(role)
            .arg(format!("--http-address={http}"))
            .arg(format!("--grpc-address={grpc}"))
            // What is asked twice may be under way when it stops.
            .args(["--http-grace-period=1s", "--grpc-grace-period=1s"]);
        let mut write = None;
        if role == "receive" {
            let address = format!("127.0.0.1:{}", free_port());
            builder = builder.args([
                format!("--remote-write.address={address}"),
                format!("--receive.capnproto-address=127.0.0.1:{}", free_port()),
            ]);
            write = Some(address);
        }
        let mut process = builder.args(args).spawn();
        process.wait_ready(&format!("http://{http}/-/ready"), PATIENCE);
        Thanos { grpc: grpc.to_owned(), http, write, process }
    }

    /// Remote-writes a body for a tenant; the status and what was said.
    pub fn write(&self, tenant: &str, body: &[u8]) -> (u16, String) {
        let address = self.write.as_ref().expect("a receiver");
        write_to(address, tenant, body)
    }

    /// Asks the HTTP API.
    pub fn get(&self, path: &str) -> Answer {
        Answer::of(&http::get(&format!("http://{}{path}", self.http)).expect("Thanos answers"))
    }

    /// Stops it as a service manager would; a receiver uploads what it has.
    pub fn stop(&mut self) {
        self.process.terminate(PATIENCE);
    }
}

/// Remote-writes a body for a tenant to `host:port`; the status and what was said.
pub fn write_to(address: &str, tenant: &str, body: &[u8]) -> (u16, String) {
    let headers = [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
        ("thanos-tenant", tenant),
    ];
    let url = format!("http://{address}/api/v1/receive");
    // Thanos is ready a little before it takes writes.
    let reply = wait_until("the receiver to take a write", PATIENCE, || {
        http::request("POST", &url, &headers, body).ok().filter(|reply| reply.status != 503)
    });
    (reply.status, reply.text())
}
