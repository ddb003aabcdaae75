//! From a configuration to a bucket.

use std::sync::{Arc, Once};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut, S3CopyIfNotExists};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Attributes, BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::bucket::{Bucket, Inner, PART_BYTES, user_metadata};
use crate::config::{AzureConfig, BucketConfig, ConfigError, GcsConfig, HttpConfig, S3Config, StoreConfig};
use crate::hedge::Hedge;
use crate::{BucketMetrics, config};

/// Installs the process's TLS provider. Every client and server needs it before its first connection; further
/// calls do nothing.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody else installed one, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// How long a client tries.
#[derive(Clone, Copy)]
enum Patience {
    /// A query waits: three retries within 15 s.
    Query,
    /// Nobody waits: ten retries within three minutes.
    Transfer,
}

impl Patience {
    fn retry(self, retries_max: usize) -> RetryConfig {
        let (max_retries, timeout_s, backoff_s) = match self {
            Patience::Query => (3, 15, 1),
            Patience::Transfer => (10, 180, 15),
        };
        RetryConfig {
            max_retries: if retries_max > 0 { retries_max } else { max_retries },
            retry_timeout: Duration::from_secs(timeout_s),
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(50),
                max_backoff: Duration::from_secs(backoff_s),
                ..BackoffConfig::default()
            },
        }
    }

    /// Bound of one request, its body included. Queries read a few MiB at most at a time, transfers send parts.
    fn request_timeout(self) -> Duration {
        match self {
            Patience::Query => Duration::from_secs(30),
            Patience::Transfer => Duration::from_secs(300),
        }
    }
}

/// Opens the bucket that `config` describes. Nothing is sent yet.
pub fn open(config: &BucketConfig, metrics: BucketMetrics) -> Result<Bucket, ConfigError> {
    install_crypto_provider();
    let clients = |make: &dyn Fn(Patience) -> Result<Arc<dyn ObjectStore>, ConfigError>| {
        Ok::<_, ConfigError>((make(Patience::Query)?, make(Patience::Transfer)?))
    };
    let mut attributes = Attributes::new();
    let (mut part_bytes, mut multipart) = (PART_BYTES, true);
    let (name, (quick, patient)) = match &config.store {
        StoreConfig::Filesystem(c) => {
            std::fs::create_dir_all(&c.directory)
                .map_err(|e| ConfigError::Invalid(format!("directory {:?}: {e}", c.directory)))?;
            let local = LocalFileSystem::new_with_prefix(&c.directory).map_err(client_error)?;
            // An upload counts as durable once it is done, so it must be on the disk by then.
            let local: Arc<dyn ObjectStore> = Arc::new(local.with_fsync(true).with_automatic_cleanup(true));
            (c.directory.clone(), (local.clone(), local))
        }
        StoreConfig::S3(c) => {
            attributes = user_metadata(c.put_user_metadata.clone());
            part_bytes = if c.part_size > 0 { c.part_size.max(5 << 20) } else { PART_BYTES };
            multipart = !c.disable_multipart;
            (c.bucket.clone(), clients(&|p| s3(c, p))?)
        }
        StoreConfig::Gcs(c) => {
            part_bytes = if c.chunk_size_bytes > 0 { c.chunk_size_bytes.max(5 << 20) } else { PART_BYTES };
            (c.bucket.clone(), clients(&|p| gcs(c, p))?)
        }
        StoreConfig::Azure(c) => (c.container.clone(), clients(&|p| azure(c, p))?),
    };
    Ok(Bucket::from_inner(Inner {
        name: Arc::from(name),
        quick,
        patient,
        prefix: Path::from(config.prefix.as_str()),
        metrics,
        attributes,
        part_bytes,
        multipart,
        hedge: config.hedging.map(|options| Arc::new(Hedge::new(options))),
    }))
}

fn client_error(err: object_store::Error) -> ConfigError {
    ConfigError::Invalid(err.to_string())
}

fn client_options(
    http: &HttpConfig,
    patience: Patience,
    allow_http: bool,
) -> Result<ClientOptions, ConfigError> {
    let mut options = ClientOptions::new()
        .with_allow_http(allow_http)
        .with_timeout(patience.request_timeout())
        .with_connect_timeout(http.tls_handshake_timeout)
        .with_read_timeout(http.response_header_timeout)
        .with_pool_idle_timeout(http.idle_conn_timeout)
        .with_pool_max_idle_per_host(http.max_idle_conns_per_host)
        .with_allow_invalid_certificates(http.insecure_skip_verify || http.tls_config.insecure_skip_verify);
    if !http.tls_config.ca_file.is_empty() {
        let file = &http.tls_config.ca_file;
        let pem = std::fs::read(file)
            .map_err(|e| ConfigError::Invalid(format!("tls_config.ca_file {file:?}: {e}")))?;
        let bundle = Certificate::from_pem_bundle(&pem)
            .map_err(|e| ConfigError::Invalid(format!("tls_config.ca_file {file:?}: {e}")))?;
        for certificate in bundle {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn s3(c: &S3Config, patience: Patience) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let scheme = if c.insecure { "http" } else { "https" };
    let virtual_hosted = c.virtual_hosted();
    let endpoint = if virtual_hosted {
        format!("{scheme}://{}.{}", c.bucket, c.endpoint)
    } else {
        format!("{scheme}://{}", c.endpoint)
    };
    let mut builder = AmazonS3Builder::from_env();
    if !c.access_key.is_empty() {
        builder =
            AmazonS3Builder::new().with_access_key_id(&c.access_key).with_secret_access_key(&c.secret_key);
        if !c.session_token.is_empty() {
            builder = builder.with_token(&c.session_token);
        }
    } else if std::env::var_os("AWS_ACCESS_KEY_ID").is_none()
        && let Some((id, secret, token)) = config::shared_credentials()
    {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
    }
    if !c.sts_endpoint.is_empty() {
        builder = builder
            .with_config("aws_endpoint_url_sts".parse().map_err(client_error)?, c.sts_endpoint.clone());
    }
    let sse = &c.sse_config;
    builder = match sse.kind.as_str() {
        "SSE-S3" => {
            builder.with_config("aws_server_side_encryption".parse().map_err(client_error)?, "AES256")
        }
        "SSE-KMS" => builder.with_sse_kms_encryption(&sse.kms_key_id),
        "SSE-C" => {
            let file = &sse.encryption_key;
            let key = std::fs::read(file)
                .map_err(|e| ConfigError::Invalid(format!("sse_config.encryption_key {file:?}: {e}")))?;
            builder.with_ssec_encryption(config::base64(&key))
        }
        _ => builder,
    };
    let store = builder
        .with_bucket_name(&c.bucket)
        .with_region(c.region_or_default())
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(virtual_hosted)
        .with_allow_http(c.insecure)
        .with_client_options(client_options(&c.http_config, patience, c.insecure)?)
        .with_retry(patience.retry(c.max_retries))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart)
        .with_disable_tagging(true)
        .build()
        .map_err(client_error)?;
    Ok(Arc::new(store))
}

fn gcs(c: &GcsConfig, patience: Patience) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&c.bucket);
    if !c.service_account.is_empty() {
        builder = builder.with_service_account_key(&c.service_account);
    }
    let store = builder
        .with_skip_signature(c.no_auth)
        .with_client_options(client_options(&c.http_config, patience, false)?)
        .with_retry(patience.retry(c.max_retries))
        .build()
        .map_err(client_error)?;
    Ok(Arc::new(store))
}

fn azure(c: &AzureConfig, patience: Patience) -> Result<Arc<dyn ObjectStore>, ConfigError> {
    let account = c.account();
    let endpoint = c.endpoint_url();
    let insecure = endpoint.starts_with("http://");
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(&account.name)
        .with_container_name(&c.container)
        .with_endpoint(endpoint)
        .with_allow_http(insecure);
    if !account.key.is_empty() {
        builder = builder.with_access_key(&account.key);
    } else if !c.client_secret.is_empty() {
        builder = builder.with_client_secret_authorization(&c.client_id, &c.client_secret, &c.az_tenant_id);
    } else if !c.user_assigned_id.is_empty() {
        builder = builder.with_client_id(&c.user_assigned_id);
    }
    let retries = c.max_retries.max(c.pipeline_config.max_tries);
    let mut retry = patience.retry(retries);
    if !c.pipeline_config.max_retry_delay.is_zero() {
        retry.backoff.max_backoff = c.pipeline_config.max_retry_delay;
    }
    let store = builder
        .with_client_options(client_options(&c.http_config, patience, insecure)?)
        .with_retry(retry)
        .build()
        .map_err(client_error)?;
    Ok(Arc::new(store))
}
