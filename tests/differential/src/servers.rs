//! The two sides: a Chronolith of this build and a Prometheus given by path, each in a process and a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chronolith_testkit::{Process, free_port, http};
use serde_json::Value;

use crate::data::Series;
use crate::dialect::Dialect;
use crate::otlp::export_body;
use crate::protobuf::write_body;

/// A bound against hanging, not an expectation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Names and labels stay as they are.
const OTLP_CONFIG: &str = "otlp: {translation_strategy: NoTranslation}\n";

/// One side.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    port: u16,
    write_path: &'static str,
    otlp_path: &'static str,
    process: Process,
    /// What it asks.
    behind: Option<Process>,
}

impl Server {
    /// Starts `chronolith server`.
    pub fn chronolith(binary: &Path, dir: &Path, dialect: &Dialect) -> Result<Self> {
        let port = free_port();
        let mut builder = Process::builder(binary)
            .arg("server")
            .arg(format!("--http-address=127.0.0.1:{port}"))
            .args(["--grpc-address=127.0.0.1:0", "--self-monitoring=false", "--web.enable-admin-api"])
            .arg(format!("--data-dir={}", dir.join("chronolith").display()));
        if !dialect.features.is_empty() {
            builder = builder.arg(format!("--enable-feature={}", dialect.features.join(",")));
        }
        if dialect.starts() {
            let config = dir.join("otlp.yml");
            std::fs::write(&config, OTLP_CONFIG).context("cannot write a configuration")?;
            builder = builder.arg(format!("--receive.otlp-config-file={}", config.display()));
        }
        Ok(Self::ready("chronolith", port, ["/api/v1/receive", "/api/v1/otlp/v1/metrics"], builder.spawn()))
    }

    /// Starts a Prometheus that takes remote write and scrapes nothing.
    pub fn prometheus(binary: &Path, dir: &Path, dialect: &Dialect) -> Result<Self> {
        let port = free_port();
        let config = dir.join("prometheus.yml");
        let otlp = if dialect.starts() { OTLP_CONFIG } else { "" };
        std::fs::write(&config, format!("global: {{evaluation_interval: 1m}}\n{otlp}"))
            .context("cannot write a configuration")?;
        let mut builder = Process::builder(binary)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.enable-remote-write-receiver");
        if !dialect.features.is_empty() {
            builder = builder.arg(format!("--enable-feature={}", dialect.features.join(",")));
        }
        if dialect.starts() {
            builder = builder.arg("--web.enable-otlp-receiver");
        }
        let paths = ["/api/v1/write", "/api/v1/otlp/v1/metrics"];
        Ok(Self::ready("prometheus", port, paths, builder.spawn()))
    }

    fn ready(name: &'static str, port: u16, paths: [&'static str; 2], mut process: Process) -> Self {
        process.wait_ready(&format!("http://127.0.0.1:{port}/-/ready"), PATIENCE);
        let [write_path, otlp_path] = paths;
        Server { name, port, write_path, otlp_path, process, behind: None }
    }

    /// Puts what `chronolith server` holds into its bucket and stops it; a store gateway reads the bucket, and a querier asks the
    /// gateway.
    pub fn into_bucket(mut self, binary: &Path, dir: &Path, dialect: &Dialect) -> Result<Self> {
        let url = format!("http://127.0.0.1:{}/api/v1/admin/tsdb/flush", self.port);
        let flushed = http::request("POST", &url, &[], b"")?;
        if flushed.status != 200 {
            bail!("flushing: {} {}", flushed.status, flushed.text());
        }
        self.process.terminate(PATIENCE);
        let (http, grpc, port) = (free_port(), free_port(), free_port());
        let bucket = dir.join("chronolith").join("bucket");
        let config =
            format!("{{type: FILESYSTEM, config: {{directory: {:?}}}}}", bucket.display().to_string());
        let mut store = Process::builder(binary)
            .arg("store")
            .arg(format!("--http-address=127.0.0.1:{http}"))
            .arg(format!("--grpc-address=127.0.0.1:{grpc}"))
            .arg(format!("--data-dir={}", dir.join("store").display()))
            .arg(format!("--objstore.config={config}"))
            .spawn();
        store.wait_ready(&format!("http://127.0.0.1:{http}/-/ready"), PATIENCE);
        let mut query = Process::builder(binary)
            .arg("query")
            .arg(format!("--http-address=127.0.0.1:{port}"))
            .args(["--grpc-address=127.0.0.1:0".to_owned(), format!("--endpoint=127.0.0.1:{grpc}")]);
        if !dialect.features.is_empty() {
            query = query.arg(format!("--enable-feature={}", dialect.features.join(",")));
        }
        let server = Self::ready("chronolith", port, [""; 2], query.spawn());
        Ok(Server { behind: Some(store), ..server })
    }

    /// Writes series by remote write; of those with starts the first point only, so that both sides know all series in their
    /// order, and the rest by OTLP.
    pub fn write(&self, series: &[Series], extra: &[(String, String)]) -> Result<()> {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let plain: Vec<Series> = series
            .iter()
            .map(|s| match s.starts.is_empty() {
                true => s.clone(),
                false => Series { points: s.points[..1].to_vec(), ..s.clone() },
            })
            .collect();
        self.post(self.write_path, &headers, &write_body(&plain, extra))?;
        let with_starts: Vec<&Series> = series.iter().filter(|s| !s.starts.is_empty()).collect();
        if !with_starts.is_empty() {
            let headers = [("content-type", "application/x-protobuf")];
            self.post(self.otlp_path, &headers, &export_body(&with_starts, extra))?;
        }
        Ok(())
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<()> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let reply = http::request("POST", &url, headers, body)?;
        if reply.status >= 300 {
            bail!("{} refused the data: {} {}", self.name, reply.status, reply.text());
        }
        Ok(())
    }

    /// Asks the query API.
    pub fn ask(&self, path: &str, form: &str) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let reply = http::post_form(&url, form).with_context(|| format!("{} does not answer", self.name))?;
        serde_json::from_slice(&reply.body)
            .with_context(|| format!("{}: not JSON: {} {}", self.name, reply.status, reply.text()))
    }

    /// The labels of the first series that are not among those written: what the product adds to everything.
    pub fn added_labels(&self, written: &Series) -> Result<Vec<(String, String)>> {
        let name = &written.labels.iter().find(|(n, _)| n == "__name__").context("a series has a name")?.1;
        let form = format!("match[]={}&start=0", http::encode(&format!("{{__name__=\"{name}\"}}")));
        let reply = self.ask("series", &form)?;
        let labels = reply["data"][0].as_object().with_context(|| format!("no series: {reply}"))?;
        let known = |name: &str| written.labels.iter().any(|(n, _)| n == name);
        Ok(labels
            .iter()
            .filter(|(name, _)| !known(name))
            .map(|(n, v)| (n.clone(), v.as_str().unwrap_or_default().to_owned()))
            .collect())
    }

    /// Lines of the log that a healthy run does not have.
    pub fn errors(&self) -> Vec<String> {
        let behind = self.behind.iter().flat_map(|p| p.unexpected_errors(&[]));
        self.process.unexpected_errors(&[]).into_iter().chain(behind).collect()
    }
}

/// Version of a Prometheus binary.
pub fn version_of(prometheus: &Path) -> Result<(u32, u32)> {
    let out = Command::new(prometheus)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot start {}", prometheus.display()))?;
    // Old ones write it to the error stream.
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Dialect::parse_version(&text)
}

/// The `chronolith` that was built beside this program.
pub fn chronolith_binary() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    // target/PROFILE/PROGRAM, or target/PROFILE/deps/TEST.
    let found = this.ancestors().skip(1).take(2).map(|d| d.join("chronolith")).find(|p| p.is_file());
    found.context("chronolith is missing: run `cargo build --bin chronolith` first")
}
