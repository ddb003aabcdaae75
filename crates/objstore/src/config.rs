//! Thanos's `objstore.yml`.
//!
//! ```yaml
//! type: S3            # FILESYSTEM, S3, GCS or AZURE, in any case
//! config: {…}         # keys by type, below
//! prefix: team-a      # optional, in front of every key
//! hedging_config: {enabled: true, up_to: 3, quantile: 0.9}   # optional
//! ```
//!
//! An unknown key is an error that names it. A key that Thanos knows and that cannot be honoured here is an error
//! as well, unless leaving it out changes nothing that a user could notice.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::HedgeOptions;
use crate::yaml::{self, go_bool};

mod http;
mod parts;

pub use http::{HttpConfig, TlsConfig};
pub(crate) use parts::{base64, shared_credentials};
use parts::{go_duration, unsupported};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, an unknown key, or a value of the wrong type.
    #[error("objstore config: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A bucket type that is not (yet) supported.
    #[error("objstore config: type {0:?} is not supported; supported are FILESYSTEM, S3, GCS and AZURE")]
    Type(String),
    /// A value that cannot work.
    #[error("objstore config: {0}")]
    Invalid(String),
}

/// A parsed `objstore.yml`.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Where the bucket is.
    pub store: StoreConfig,
    /// Put in front of every key.
    pub prefix: String,
    /// When reads of ranges are repeated; `None` for never.
    pub hedging: Option<HedgeOptions>,
}

/// The supported types with their settings.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// A directory.
    Filesystem(FilesystemConfig),
    /// S3 and what speaks its protocol.
    S3(Box<S3Config>),
    /// Google Cloud Storage.
    Gcs(Box<GcsConfig>),
    /// Azure Blob Storage.
    Azure(Box<AzureConfig>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    config: serde_yaml::Value,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    hedging_config: HedgingConfig,
}

/// Thanos's `hedging_config`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HedgingConfig {
    #[serde(deserialize_with = "go_bool")]
    enabled: bool,
    up_to: usize,
    quantile: f64,
}

impl Default for HedgingConfig {
    fn default() -> Self {
        HedgingConfig { enabled: false, up_to: 3, quantile: 0.9 }
    }
}

impl HedgingConfig {
    fn check(self) -> Result<Option<HedgeOptions>, ConfigError> {
        if !(0.0..=1.0).contains(&self.quantile) {
            return Err(ConfigError::Invalid(format!(
                "hedging_config.quantile {} is not within 0 and 1",
                self.quantile
            )));
        }
        let options = HedgeOptions { repeats_max: self.up_to, quantile: self.quantile };
        Ok(self.enabled.then_some(options))
    }
}

/// Types that Thanos knows beyond ours.
const OTHER_TYPES: [&str; 6] = ["SWIFT", "COS", "ALIYUNOSS", "OBS", "BOS", "OCI"];

/// Reads an `objstore.yml`.
pub fn parse(text: &str) -> Result<BucketConfig, ConfigError> {
    let raw: Raw = yaml::from_str(text)?;
    let config = match raw.config {
        serde_yaml::Value::Null => serde_yaml::Value::Mapping(serde_yaml::Mapping::new()),
        value => value,
    };
    let store = match raw.kind.to_ascii_uppercase().as_str() {
        "FILESYSTEM" => StoreConfig::Filesystem(FilesystemConfig::check(yaml::from_value(config)?)?),
        "S3" => StoreConfig::S3(Box::new(S3Config::check(yaml::from_value(config)?)?)),
        "GCS" => StoreConfig::Gcs(Box::new(GcsConfig::check(yaml::from_value(config)?)?)),
        "AZURE" => StoreConfig::Azure(Box::new(AzureConfig::check(yaml::from_value(config)?)?)),
        "" => return Err(ConfigError::Invalid("type is missing".to_owned())),
        other if OTHER_TYPES.contains(&other) => return Err(ConfigError::Type(other.to_owned())),
        _ => return Err(ConfigError::Type(raw.kind)),
    };
    Ok(BucketConfig {
        store,
        prefix: raw.prefix.trim_matches('/').to_owned(),
        hedging: raw.hedging_config.check()?,
    })
}

impl BucketConfig {
    /// A directory as the bucket.
    pub fn filesystem(directory: &str) -> Self {
        let store = StoreConfig::Filesystem(FilesystemConfig { directory: directory.to_owned() });
        BucketConfig { store, prefix: String::new(), hedging: None }
    }
}

fn required(value: &str, key: &str) -> Result<(), ConfigError> {
    if value.is_empty() { Err(ConfigError::Invalid(format!("config.{key} is missing"))) } else { Ok(()) }
}

/// `type: FILESYSTEM`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesystemConfig {
    /// The directory; made when it is not there.
    pub directory: String,
}

impl FilesystemConfig {
    fn check(self) -> Result<Self, ConfigError> {
        required(&self.directory, "directory")?;
        Ok(self)
    }
}

/// `type: S3`. Keys as in Thanos.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's; those that need a word have one")]
pub struct S3Config {
    pub bucket: String,
    /// `host[:port]`, without a scheme.
    pub endpoint: String,
    pub region: String,
    /// Accepted; addresses are what the resolver says.
    #[serde(deserialize_with = "go_bool")]
    pub disable_dualstack: bool,
    /// Accepted; without keys the chain is environment, shared credentials file, web identity, instance role.
    #[serde(deserialize_with = "go_bool")]
    pub aws_sdk_auth: bool,
    pub access_key: String,
    pub secret_key: String,
    pub session_token: String,
    /// Plain HTTP.
    #[serde(deserialize_with = "go_bool")]
    pub insecure: bool,
    #[serde(deserialize_with = "go_bool")]
    pub signature_version2: bool,
    /// Headers for every written object; `X-Amz-Storage-Class` sets the storage class.
    pub put_user_metadata: BTreeMap<String, String>,
    pub http_config: HttpConfig,
    pub trace: TraceConfig,
    pub list_objects_version: String,
    /// `auto`, `virtual-hosted` or `path`.
    pub bucket_lookup_type: String,
    /// Accepted; bodies are covered by the signature.
    #[serde(deserialize_with = "go_bool")]
    pub send_content_md5: bool,
    #[serde(deserialize_with = "go_bool")]
    pub disable_multipart: bool,
    pub part_size: u64,
    pub sse_config: SseConfig,
    pub sts_endpoint: String,
    pub max_retries: usize,
}

/// `trace` of an S3 bucket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Accepted; requests are logged at debug level anyway.
    #[serde(deserialize_with = "go_bool")]
    pub enable: bool,
}

/// Server-side encryption.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's")]
pub struct SseConfig {
    /// Empty, `SSE-S3`, `SSE-KMS` or `SSE-C`.
    #[serde(rename = "type")]
    pub kind: String,
    pub kms_key_id: String,
    pub kms_encryption_context: BTreeMap<String, String>,
    /// A file with the key of `SSE-C`.
    pub encryption_key: String,
}

impl S3Config {
    fn check(mut self) -> Result<Self, ConfigError> {
        required(&self.bucket, "bucket")?;
        required(&self.endpoint, "endpoint")?;
        self.endpoint = self.endpoint.trim_end_matches('/').to_owned();
        if self.endpoint.contains('/') {
            let text =
                format!("config.endpoint {:?} must be host[:port], without a scheme or path", self.endpoint);
            return Err(ConfigError::Invalid(text));
        }
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            let text = "config.access_key and config.secret_key go together".to_owned();
            return Err(ConfigError::Invalid(text));
        }
        unsupported("signature_version2", self.signature_version2)?;
        unsupported("list_objects_version", self.list_objects_version == "v1")?;
        unsupported("sse_config.kms_encryption_context", !self.sse_config.kms_encryption_context.is_empty())?;
        let one_of = |key: &str, value: &str, known: &[&str]| {
            let text = format!("config.{key} {value:?} is none of {}", known[1..].join(", "));
            if known.contains(&value) { Ok(()) } else { Err(ConfigError::Invalid(text)) }
        };
        one_of("bucket_lookup_type", &self.bucket_lookup_type, &["", "auto", "virtual-hosted", "path"])?;
        one_of("sse_config.type", &self.sse_config.kind, &["", "SSE-S3", "SSE-KMS", "SSE-C"])?;
        self.http_config.check()?;
        Ok(self)
    }

    /// True when the bucket's name goes into the host name: asked for, or one of the big providers with a name
    /// that TLS wildcards cover.
    pub fn virtual_hosted(&self) -> bool {
        match self.bucket_lookup_type.as_str() {
            "virtual-hosted" => true,
            "path" => false,
            _ => {
                let host = self.endpoint.split(':').next().unwrap_or_default();
                let known = [".amazonaws.com", ".amazonaws.com.cn", ".aliyuncs.com"]
                    .iter()
                    .any(|d| host.ends_with(d))
                    || host == "storage.googleapis.com";
                known && (self.insecure || !self.bucket.contains('.'))
            }
        }
    }

    /// The configured region, else the one in an AWS endpoint's name, else S3's default.
    pub fn region_or_default(&self) -> String {
        if !self.region.is_empty() {
            return self.region.clone();
        }
        let host = self.endpoint.split(':').next().unwrap_or_default();
        let name = host.trim_end_matches(".cn").strip_suffix(".amazonaws.com").and_then(|h| {
            h.strip_prefix("s3.dualstack.")
                .or_else(|| h.strip_prefix("s3."))
                .or_else(|| h.strip_prefix("s3-"))
        });
        name.filter(|r| r.contains('-')).unwrap_or("us-east-1").to_owned()
    }
}

/// `type: GCS`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's")]
pub struct GcsConfig {
    pub bucket: String,
    /// The JSON key itself; empty for the application default credentials.
    pub service_account: String,
    #[serde(deserialize_with = "go_bool")]
    pub use_grpc: bool,
    pub grpc_conn_pool_size: u32,
    pub http_config: HttpConfig,
    pub chunk_size_bytes: u64,
    pub max_retries: usize,
    #[serde(deserialize_with = "go_bool")]
    pub no_auth: bool,
}

impl GcsConfig {
    fn check(self) -> Result<Self, ConfigError> {
        required(&self.bucket, "bucket")?;
        unsupported("use_grpc", self.use_grpc)?;
        self.http_config.check()?;
        Ok(self)
    }
}

/// `type: AZURE`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's")]
pub struct AzureConfig {
    pub storage_account: String,
    pub storage_account_key: String,
    pub storage_connection_string: String,
    #[serde(deserialize_with = "go_bool")]
    pub storage_create_container: bool,
    pub container: String,
    /// The suffix behind the account's name; `blob.core.windows.net` when empty.
    pub endpoint: String,
    pub user_assigned_id: String,
    pub max_retries: usize,
    pub reader_config: AzureReaderConfig,
    pub pipeline_config: AzurePipelineConfig,
    pub http_config: HttpConfig,
    pub az_tenant_id: String,
    pub client_id: String,
    pub client_secret: String,
    /// Deprecated in Thanos and without effect.
    pub msi_resource: String,
}

/// `reader_config` of an Azure bucket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureReaderConfig {
    /// Accepted; the client's retries cover reads.
    pub max_retry_requests: usize,
}

/// `pipeline_config` of an Azure bucket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the keys are Thanos's")]
pub struct AzurePipelineConfig {
    pub max_tries: usize,
    #[serde(deserialize_with = "go_duration")]
    pub try_timeout: std::time::Duration,
    #[serde(deserialize_with = "go_duration")]
    pub retry_delay: std::time::Duration,
    #[serde(deserialize_with = "go_duration")]
    pub max_retry_delay: std::time::Duration,
}

/// Account, key and endpoint of an Azure bucket, from the keys or the connection string.
pub(crate) struct AzureAccount {
    pub(crate) name: String,
    pub(crate) key: String,
}

impl AzureConfig {
    fn check(self) -> Result<Self, ConfigError> {
        required(&self.container, "container")?;
        required(&self.account().name, "storage_account")?;
        unsupported("storage_create_container", self.storage_create_container)?;
        self.http_config.check()?;
        Ok(self)
    }

    fn connection_part(&self, name: &str) -> Option<&str> {
        let mut parts = self.storage_connection_string.split(';').filter_map(|p| p.split_once('='));
        parts.find(|(n, _)| n.trim() == name).map(|(_, v)| v.trim())
    }

    pub(crate) fn account(&self) -> AzureAccount {
        let part = |name, own: &String| self.connection_part(name).map_or_else(|| own.clone(), str::to_owned);
        AzureAccount {
            name: part("AccountName", &self.storage_account),
            key: part("AccountKey", &self.storage_account_key),
        }
    }

    pub(crate) fn endpoint_url(&self) -> String {
        if let Some(url) = self.connection_part("BlobEndpoint") {
            return url.trim_end_matches('/').to_owned();
        }
        let account = self.account().name;
        let suffix = match (self.endpoint.as_str(), self.connection_part("EndpointSuffix")) {
            ("", Some(suffix)) => format!("blob.{suffix}"),
            ("", None) => "blob.core.windows.net".to_owned(),
            (endpoint, _) => endpoint.to_owned(),
        };
        format!("https://{account}.{suffix}")
    }
}

#[cfg(test)]
mod tests;
