//! The servers that can be measured, and how each is started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::protocol::Protocol;

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// This project's `chronolith server`.
    Chronolith,
    /// Prometheus as a remote-write receiver; Debian's unless a binary is named.
    Prometheus,
    /// Single-node VictoriaMetrics; Debian's unless a binary is named.
    VictoriaMetrics,
}

/// Which servers take part.
#[derive(Args, Clone, Debug)]
pub(crate) struct Peers {
    /// Chronolith, and peers as Debian packages them.
    #[arg(long, value_delimiter = ',', default_values = ["chronolith", "prometheus", "victoria-metrics"])]
    peers: Vec<Kind>,
    /// A further Prometheus: NAME=PATH of its binary; may be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    prometheus_bin: Vec<String>,
    /// A further VictoriaMetrics: NAME=PATH of its binary; may be repeated.
    #[arg(long, value_name = "NAME=PATH")]
    victoria_bin: Vec<String>,
    /// The chronolith binary; by default the one beside this program.
    #[arg(long)]
    chronolith: Option<PathBuf>,
    /// A further flag of `chronolith server`; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    chronolith_arg: Vec<String>,
}

impl Peers {
    /// The servers in the order of the report's columns.
    pub(crate) fn list(&self) -> Result<Vec<Peer>> {
        let mut peers = Vec::new();
        for kind in &self.peers {
            peers.push(match kind {
                Kind::Chronolith => Peer {
                    kind: *kind,
                    protocol: Protocol::Rw1,
                    title: "Chronolith".to_owned(),
                    program: match &self.chronolith {
                        Some(path) => path.clone(),
                        None => std::env::current_exe()?.with_file_name("chronolith"),
                    },
                    args: self.chronolith_arg.clone(),
                },
                Kind::Prometheus => Peer::foreign(*kind, "Prometheus", "prometheus"),
                Kind::VictoriaMetrics => Peer::foreign(*kind, "VictoriaMetrics", "victoria-metrics"),
            });
        }
        let further = self.prometheus_bin.iter().map(|text| (Kind::Prometheus, text));
        for (kind, text) in further.chain(self.victoria_bin.iter().map(|text| (Kind::VictoriaMetrics, text)))
        {
            let (title, program) =
                text.split_once('=').with_context(|| format!("{text:?} is not NAME=PATH"))?;
            ensure!(Path::new(program).is_file(), "there is no file {program}");
            peers.push(Peer::foreign(kind, title, program));
        }
        ensure!(!peers.is_empty(), "no peer was named");
        Ok(peers)
    }
}

/// One server that takes part.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// What it is.
    pub(crate) kind: Kind,
    /// The column head in reports.
    pub(crate) title: String,
    /// How it is written to.
    pub(crate) protocol: Protocol,
    program: PathBuf,
    args: Vec<String>,
}

impl Peer {
    fn foreign(kind: Kind, title: &str, program: &str) -> Self {
        let protocol = Protocol::Rw1;
        Peer { kind, title: title.to_owned(), protocol, program: program.into(), args: Vec::new() }
    }

    /// The same with further flags, which only a Chronolith takes.
    pub(crate) fn with_args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|a| (*a).to_owned()));
        self
    }

    /// The same, written to by this protocol; `None` when it does not know it.
    pub(crate) fn by(&self, protocol: Protocol) -> Option<Peer> {
        protocol.path(self.kind)?;
        if self.kind == Kind::Prometheus && protocol != Protocol::Rw1 && self.is_version_two() {
            return None;
        }
        let title = format!("{}{}", self.title, protocol.suffix());
        Some(Peer { title, protocol, ..self.clone() })
    }

    /// A Prometheus 2 takes requests of remote write 2.0 for empty ones of 1.0, and acknowledges them.
    fn is_version_two(&self) -> bool {
        let output = Command::new(&self.program).arg("--version").output();
        output.is_ok_and(|o| [o.stdout, o.stderr].iter().any(|t| t.starts_with(b"prometheus, version 2.")))
    }

    /// Where writes go.
    pub(crate) fn write_path(&self) -> &'static str {
        self.protocol.path(self.kind).expect("peers are made for protocols that they know")
    }

    /// Answers 200 once the server is ready.
    pub(crate) fn ready_path(&self) -> &'static str {
        match self.kind {
            Kind::Chronolith | Kind::Prometheus => "/-/ready",
            Kind::VictoriaMetrics => "/health",
        }
    }

    /// `chronolith ROLE` over a data directory; only of a Chronolith.
    pub(crate) fn role(&self, role: &str, data: &Path, address: SocketAddr) -> Command {
        let mut c = Command::new(&self.program);
        c.arg(role).arg(format!("--data-dir={}", data.display()));
        c.arg(format!("--http-address={address}")).arg("--log.level=warn");
        c
    }

    /// The command that serves `dir` at `address`.
    pub(crate) fn command(&self, dir: &Path, address: SocketAddr) -> Result<Command> {
        let data = dir.join("data");
        let by_otlp = matches!(self.protocol, Protocol::Otlp | Protocol::OtlpGzip);
        let mut c = Command::new(&self.program);
        match self.kind {
            Kind::Chronolith => {
                if by_otlp {
                    let config = dir.join("otlp.yml");
                    fs::write(&config, "promote_all_resource_attributes: true\n")?;
                    c.arg("server").arg(format!("--receive.otlp-config-file={}", config.display()));
                } else {
                    c.arg("server");
                }
                c.arg(format!("--data-dir={}", data.display()))
                    .arg(format!("--http-address={address}"))
                    .args(["--grpc-address=127.0.0.1:0", "--self-monitoring=false"])
                    .args(["--web.enable-admin-api", "--log.level=warn"])
                    .args(&self.args)
            }
            Kind::Prometheus => {
                let config = dir.join("prometheus.yml");
                let otlp = "otlp: {promote_all_resource_attributes: true}\n";
                fs::write(&config, if by_otlp { otlp } else { "global: {}\n" })?;
                if by_otlp {
                    c.arg("--web.enable-otlp-receiver");
                }
                c.arg(format!("--config.file={}", config.display()))
                    .arg(format!("--storage.tsdb.path={}", data.display()))
                    .arg(format!("--web.listen-address={address}"))
                    .args([
                        "--web.enable-remote-write-receiver",
                        "--web.enable-admin-api",
                        "--log.level=warn",
                    ])
                    .args(["--storage.tsdb.retention.time=10y", "--query.lookback-delta=5m"])
            }
            Kind::VictoriaMetrics => c
                .arg(format!("-storageDataPath={}", data.display()))
                .arg(format!("-httpListenAddr={address}"))
                .args(["-retentionPeriod=10y", "-loggerLevel=WARN", "-search.latencyOffset=0s"])
                .args(["-search.maxUniqueTimeseries=3000000", "-search.maxSeries=3000000"])
                .args(["-search.disableCache", "-search.maxQueryDuration=120s"]),
        };
        Ok(c)
    }
}
