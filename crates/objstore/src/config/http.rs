//! `http_config`: the client's settings.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::parts::{go_duration, unsupported};
use crate::yaml::go_bool;

/// `http_config`, with Thanos's defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's; those that need a word have one")]
pub struct HttpConfig {
    #[serde(deserialize_with = "go_duration")]
    pub idle_conn_timeout: Duration,
    /// Bounds every wait for bytes of an answer, the header included.
    #[serde(deserialize_with = "go_duration")]
    pub response_header_timeout: Duration,
    #[serde(deserialize_with = "go_bool")]
    pub insecure_skip_verify: bool,
    /// Bounds the whole of connecting.
    #[serde(deserialize_with = "go_duration")]
    pub tls_handshake_timeout: Duration,
    /// Accepted; the client never waits for a 100.
    #[serde(deserialize_with = "go_duration")]
    pub expect_continue_timeout: Duration,
    /// Accepted; the bound per host is the one that counts with one host.
    pub max_idle_conns: usize,
    pub max_idle_conns_per_host: usize,
    /// Accepted; requests are bounded where they are made.
    pub max_conns_per_host: usize,
    pub tls_config: TlsConfig,
    /// Accepted; nothing is compressed in transit.
    #[serde(deserialize_with = "go_bool")]
    pub disable_compression: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            idle_conn_timeout: Duration::from_secs(90),
            response_header_timeout: Duration::from_secs(120),
            insecure_skip_verify: false,
            tls_handshake_timeout: Duration::from_secs(10),
            expect_continue_timeout: Duration::from_secs(1),
            max_idle_conns: 100,
            max_idle_conns_per_host: 100,
            max_conns_per_host: 0,
            tls_config: TlsConfig::default(),
            disable_compression: false,
        }
    }
}

/// `tls_config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's")]
pub struct TlsConfig {
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
    pub server_name: String,
    #[serde(deserialize_with = "go_bool")]
    pub insecure_skip_verify: bool,
}

impl HttpConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let tls = &self.tls_config;
        unsupported("http_config.tls_config.cert_file", !tls.cert_file.is_empty())?;
        unsupported("http_config.tls_config.key_file", !tls.key_file.is_empty())?;
        unsupported("http_config.tls_config.server_name", !tls.server_name.is_empty())
    }
}
