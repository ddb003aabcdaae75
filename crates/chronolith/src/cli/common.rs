//! Flags that several roles share, Thanos's names and meanings.

use std::net::SocketAddr;
use std::path::PathBuf;

use chronolith_bucket::Discovery;
use chronolith_objstore::BucketConfig;
use chronolith_service::config::{inline_or_file, parse_label_flag};
use chronolith_service::exit::Exit;
use chronolith_service::logging::{self, LogFormat, LogLevel};
use chronolith_service::tls::{ServerTlsConfig, TlsVersion};
use clap::Args;

/// How the process speaks.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Least severity that is logged: error, warn, info, debug, trace.
    #[arg(long = "log.level", default_value = "info", global = true, help_heading = "Logging")]
    pub(crate) level: LogLevel,
    /// Form of a log line: logfmt or json.
    #[arg(long = "log.format", default_value = "logfmt", global = true, help_heading = "Logging")]
    pub(crate) format: LogFormat,
}

impl LogArgs {
    /// Installs the log writer.
    pub(crate) fn init(&self) {
        logging::init(self.level, self.format);
    }
}

/// Where the bucket is. Global, so that tools take it before and behind their own names.
#[derive(Args, Clone, Debug)]
pub(crate) struct ObjstoreArgs {
    /// File with the bucket's configuration, Thanos's objstore.yml.
    #[arg(
        long = "objstore.config-file",
        value_name = "FILE",
        global = true,
        help_heading = "Object storage"
    )]
    pub(crate) config_file: Option<PathBuf>,
    /// The same as YAML on the command line.
    #[arg(
        long = "objstore.config",
        value_name = "YAML",
        global = true,
        conflicts_with = "config_file",
        help_heading = "Object storage"
    )]
    pub(crate) config: Option<String>,
}

impl ObjstoreArgs {
    /// The bucket's configuration, `None` when neither flag is given.
    pub(crate) fn load(&self) -> Result<Option<BucketConfig>, Exit> {
        let Some((origin, text)) =
            inline_or_file("objstore.config", self.config.as_deref(), self.config_file.as_deref())?
        else {
            return Ok(None);
        };
        let parsed = chronolith_objstore::config::parse(&text);
        parsed
            .map(Some)
            .map_err(|e| Exit::Usage(format!("{origin}: {}", chronolith_service::exit::error_chain(&e))))
    }
}

/// TLS of the gRPC listener.
#[derive(Args, Clone, Debug)]
pub(crate) struct GrpcServerTlsArgs {
    /// Certificate of the gRPC server; without it connections are plain. Read again when it changes.
    #[arg(long = "grpc-server-tls-cert", value_name = "FILE", help_heading = "TLS")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long = "grpc-server-tls-key", value_name = "FILE", help_heading = "TLS")]
    key: Option<PathBuf>,
    /// Authorities whose certificates clients must show; without it they need none.
    #[arg(long = "grpc-server-tls-client-ca", value_name = "FILE", help_heading = "TLS")]
    client_ca: Option<PathBuf>,
    /// Oldest protocol: 1.2 or 1.3.
    #[arg(
        long = "grpc-server-tls-min-version",
        default_value = "1.3",
        value_name = "VERSION",
        help_heading = "TLS"
    )]
    min_version: TlsVersion,
}

impl GrpcServerTlsArgs {
    /// The files.
    pub(crate) fn config(&self) -> ServerTlsConfig {
        ServerTlsConfig {
            cert_file: given(&self.cert),
            key_file: given(&self.key),
            client_ca_file: given(&self.client_ca),
            min_version: self.min_version,
        }
    }
}

/// An empty file name is none, as in Thanos.
pub(crate) fn given(file: &Option<PathBuf>) -> Option<PathBuf> {
    file.clone().filter(|path| !path.as_os_str().is_empty())
}

/// `--http-address` and `--grpc-address` must be `host:port`; a wrong one is a usage error, not a failed bind.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let resolved = text.parse::<SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if resolved { Ok(text.to_owned()) } else { Err("want HOST:PORT, like 0.0.0.0:10902".to_owned()) }
}

/// One `--label`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    parse_label_flag(text)
}

/// `--block-discovery-strategy`.
pub(crate) fn discovery(text: &str) -> Result<Discovery, String> {
    match text {
        "recursive" => Ok(Discovery::Recursive),
        "concurrent" => Ok(Discovery::Concurrent),
        _ => Err("want recursive or concurrent".to_owned()),
    }
}
