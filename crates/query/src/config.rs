//! The settings of the query role, under Thanos's flag names.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_httpapi::JsonBuf;
use chronolith_service::tls::{ClientTlsConfig, ServerTlsConfig};
use chronolith_storeapi::PartialResponse;

use crate::admission::AdmissionConfig;
use crate::features::Features;
use crate::http::{CrossOrigin, RemoteReadLimits, SearchSettings, Settings, Tenancy};

/// Settings of the query role. Every field names its flag.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--http-address`; none where another role's listener serves the routes.
    pub http_address: Option<String>,
    /// `--grpc-address`: the StoreAPI over all endpoints; none where the process offers its own.
    pub grpc_address: Option<String>,
    /// `--grpc-server-tls-*`.
    pub grpc_tls: ServerTlsConfig,
    /// `--grpc-client-tls-*`: how endpoints are called that say nothing else; `None` is plain.
    pub client_tls: Option<ClientTlsConfig>,
    /// `--endpoint`, repeated: `host:port` or `dns+host:port`.
    pub endpoints: Vec<String>,
    /// `--endpoint-strict`, repeated: always asked, a warning or an error when down. Static addresses only.
    pub endpoints_strict: Vec<String>,
    /// `--endpoint-group`, repeated: one name for several equal servers, of which one is asked.
    pub endpoint_groups: Vec<String>,
    /// `--endpoint.sd-config-file`.
    pub sd_config_file: Option<PathBuf>,
    /// `--endpoint.sd-config-reload-interval`.
    pub sd_reload_interval: Duration,
    /// How often endpoints are asked for their Info.
    pub info_interval: Duration,
    /// `--endpoint.info-timeout`.
    pub info_timeout: Duration,
    /// `--store.sd-dns-interval`.
    pub dns_interval: Duration,
    /// `--store.response-timeout`; `None` waits as long as the query may run.
    pub response_timeout: Option<Duration>,
    /// `--query.replica-label`, repeated, each a list separated by commas.
    pub replica_labels: Vec<String>,
    /// `--query.partial-response`.
    pub partial_response: PartialResponse,
    /// `--query.auto-downsampling`.
    pub auto_downsampling: bool,
    /// `--query.instant.default.max_source_resolution`; 0 is raw only.
    pub instant_max_source_resolution_ms: i64,
    /// `--query.dynamic-lookback-delta`.
    pub dynamic_lookback: bool,
    /// `--query.timeout`.
    pub timeout: Duration,
    /// Queue, memory, logs.
    pub admission: AdmissionConfig,
    /// `--enable-feature`.
    pub features: Features,
    /// `--query.max-samples`.
    pub samples_max: usize,
    /// `--query.max-threads`; 0 is as many as there are cores.
    pub threads_max: usize,
    /// `--query.lookback-delta`.
    pub lookback_ms: i64,
    /// `--query.default-evaluation-interval`.
    pub default_evaluation_interval_ms: i64,
    /// `--query.default-step`.
    pub default_step_ms: i64,
    /// `--query.metadata.default-time-range`; 0 is all of time.
    pub metadata_range_ms: i64,
    /// `--query.enforce-tenancy` and what belongs to it; `None` where everyone sees everything.
    pub tenancy: Option<Tenancy>,
    /// `--web.cors.origin`, `--web.disable-cors`.
    pub cross_origin: CrossOrigin,
    /// `--storage.remote.read-*`.
    pub remote_read: RemoteReadLimits,
    /// `--web.search.max-limit`; 0 is no bound.
    pub search_limit_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            http_address: Some("0.0.0.0:10902".to_owned()),
            grpc_address: Some("0.0.0.0:10901".to_owned()),
            grpc_tls: ServerTlsConfig::default(),
            client_tls: None,
            endpoints: Vec::new(),
            endpoints_strict: Vec::new(),
            endpoint_groups: Vec::new(),
            sd_config_file: None,
            sd_reload_interval: Duration::from_secs(300),
            info_interval: Duration::from_secs(5),
            info_timeout: Duration::from_secs(5),
            dns_interval: Duration::from_secs(30),
            response_timeout: None,
            replica_labels: Vec::new(),
            partial_response: PartialResponse::Warn,
            auto_downsampling: false,
            instant_max_source_resolution_ms: 0,
            dynamic_lookback: true,
            timeout: Duration::from_secs(120),
            admission: AdmissionConfig::default(),
            features: Features::default(),
            samples_max: 50_000_000,
            threads_max: 0,
            lookback_ms: 300_000,
            default_evaluation_interval_ms: 60_000,
            default_step_ms: 1000,
            metadata_range_ms: 0,
            tenancy: None,
            cross_origin: CrossOrigin::All,
            remote_read: RemoteReadLimits::default(),
            search_limit_max: 10_000,
        }
    }
}

impl Config {
    /// What the HTTP API needs of it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            default_step_ms: self.default_step_ms,
            metadata_range_ms: self.metadata_range_ms,
            cross_origin: self.cross_origin.clone(),
            remote_read: self.remote_read,
            search: SearchSettings { enabled: self.features.search_api, limit_max: self.search_limit_max },
            tenancy: self.tenancy.clone(),
        }
    }

    /// The endpoints of the command line in the form of the endpoint file, for `/api/v1/status/config`; the file itself may
    /// hold what not everyone should read.
    pub(crate) fn endpoints_yaml(&self) -> String {
        let mut yaml = String::from("endpoints:");
        let all =
            [(&self.endpoints, ""), (&self.endpoints_strict, "strict"), (&self.endpoint_groups, "group")];
        for (addresses, kind) in all {
            for address in addresses {
                // JSON's strings are YAML's.
                let mut quoted = JsonBuf::new();
                quoted.string(address);
                yaml.push_str("\n- address: ");
                yaml.push_str(&String::from_utf8_lossy(&quoted.bytes));
                if !kind.is_empty() {
                    yaml.push_str(&format!("\n  {kind}: true"));
                }
            }
        }
        if yaml.ends_with(':') {
            yaml.push_str(" []");
        }
        yaml.push('\n');
        yaml
    }

    /// The replica labels, one by one.
    pub fn replica_label_names(&self) -> Vec<String> {
        let names = self.replica_labels.iter().flat_map(|flag| flag.split(','));
        names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}
