//! The settings of memcached and of Redis.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_cache::{GuardOptions, MemcachedOptions, RedisOptions};
use chronolith_objstore::yaml::go_bool;
use chronolith_service::config::{ByteSize, DurationMs};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{CachePlace, duration};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Breaker {
    // Reads always have one; failures in a row open it.
    #[serde(rename = "enabled", deserialize_with = "go_bool")]
    _enabled: bool,
    #[serde(rename = "half_open_max_requests")]
    _half_open: IgnoredAny,
    open_duration: DurationMs,
    #[serde(rename = "min_requests")]
    _min_requests: IgnoredAny,
    consecutive_failures: u32,
    #[serde(rename = "failure_percent")]
    _percent: IgnoredAny,
}

impl Default for Breaker {
    fn default() -> Self {
        let i = IgnoredAny;
        let open_duration = DurationMs(5000);
        Breaker {
            _enabled: false,
            _half_open: i,
            open_duration,
            _min_requests: i,
            consecutive_failures: 5,
            _percent: i,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MemcachedConfig {
    addresses: Vec<String>,
    timeout: DurationMs,
    max_idle_connections: usize,
    max_async_concurrency: usize,
    max_async_buffer_size: usize,
    max_get_multi_concurrency: usize,
    max_get_multi_batch_size: usize,
    max_item_size: ByteSize,
    dns_provider_update_interval: DurationMs,
    #[serde(deserialize_with = "go_bool")]
    auto_discovery: bool,
    set_async_circuit_breaker_config: Breaker,
}

impl Default for MemcachedConfig {
    fn default() -> Self {
        MemcachedConfig {
            addresses: Vec::new(),
            timeout: DurationMs(500),
            max_idle_connections: 100,
            max_async_concurrency: 20,
            max_async_buffer_size: 10_000,
            max_get_multi_concurrency: 100,
            max_get_multi_batch_size: 0,
            max_item_size: ByteSize(1 << 20),
            dns_provider_update_interval: DurationMs(10_000),
            auto_discovery: false,
            set_async_circuit_breaker_config: Breaker::default(),
        }
    }
}

impl MemcachedConfig {
    pub(super) fn place(self, ttl: DurationMs) -> Result<CachePlace, String> {
        for address in &self.addresses {
            if address.starts_with("dnssrv") {
                return Err(format!(
                    "config.addresses: {address:?}: SRV records are not supported, name dns+host:port"
                ));
            }
        }
        if self.addresses.is_empty() {
            return Err("config.addresses is empty".to_owned());
        }
        let options = MemcachedOptions {
            addresses: self.addresses,
            auto_discovery: self.auto_discovery,
            lookup_interval: duration(self.dns_provider_update_interval),
            idle_connections_max: self.max_idle_connections,
            concurrency: self.max_get_multi_concurrency,
            batch_keys_max: self.max_get_multi_batch_size,
            ttl: duration(ttl),
        };
        let breaker = self.set_async_circuit_breaker_config;
        let guard = GuardOptions {
            get_timeout: duration(self.timeout),
            put_timeout: duration(self.timeout).max(Duration::from_secs(1)),
            queue_items_max: self.max_async_buffer_size,
            put_concurrency: self.max_async_concurrency,
            item_bytes_max: usize::try_from(self.max_item_size.0).unwrap_or(usize::MAX),
            failures_max: breaker.consecutive_failures.max(1),
            pause: duration(breaker.open_duration),
        };
        Ok(CachePlace::Memcached(options, guard))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RedisTls {
    ca_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
    server_name: String,
    min_version: String,
    #[serde(deserialize_with = "go_bool")]
    insecure_skip_verify: bool,
}

impl Default for RedisTls {
    fn default() -> Self {
        let (ca_file, cert_file, key_file, server_name, min_version) = Default::default();
        RedisTls { ca_file, cert_file, key_file, server_name, min_version, insecure_skip_verify: false }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RedisConfig {
    addr: String,
    prefix: String,
    username: String,
    password: String,
    db: i64,
    dial_timeout: DurationMs,
    read_timeout: DurationMs,
    write_timeout: DurationMs,
    max_get_multi_concurrency: usize,
    get_multi_batch_size: usize,
    #[serde(rename = "max_set_multi_concurrency")]
    _set_concurrency: IgnoredAny,
    #[serde(rename = "set_multi_batch_size")]
    _set_batch: IgnoredAny,
    #[serde(deserialize_with = "go_bool")]
    tls_enabled: bool,
    tls_config: RedisTls,
    // Our own cache in memory stands before every other.
    #[serde(rename = "cache_size")]
    _cache_size: IgnoredAny,
    master_name: String,
    max_async_buffer_size: usize,
    max_async_concurrency: usize,
    set_async_circuit_breaker_config: Breaker,
}

impl Default for RedisConfig {
    fn default() -> Self {
        let (addr, prefix, username, password, master_name) = Default::default();
        let i = IgnoredAny;
        RedisConfig {
            addr,
            prefix,
            username,
            password,
            db: 0,
            dial_timeout: DurationMs(5000),
            read_timeout: DurationMs(3000),
            write_timeout: DurationMs(3000),
            max_get_multi_concurrency: 100,
            get_multi_batch_size: 100,
            _set_concurrency: i,
            _set_batch: i,
            tls_enabled: false,
            tls_config: RedisTls::default(),
            _cache_size: i,
            master_name,
            max_async_buffer_size: 10_000,
            max_async_concurrency: 20,
            set_async_circuit_breaker_config: Breaker::default(),
        }
    }
}

impl RedisConfig {
    pub(super) fn place(self, ttl: DurationMs) -> Result<CachePlace, String> {
        let tls = self.tls_config;
        let file = |file: PathBuf| Some(file).filter(|file| !file.as_os_str().is_empty());
        let tls_client = match (file(tls.cert_file), file(tls.key_file)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err("config.tls_config: cert_file and key_file belong together".to_owned()),
        };
        // Older protocols than 1.2 are not spoken at all.
        if !matches!(tls.min_version.as_str(), "" | "1.0" | "1.1" | "1.2") {
            return Err(format!(
                "config.tls_config.min_version {:?} is not supported, 1.2 and 1.3 are spoken",
                tls.min_version
            ));
        }
        let addresses: Vec<String> =
            self.addr.split(',').map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()).collect();
        if addresses.is_empty() {
            return Err("config.addr is missing".to_owned());
        }
        let options = RedisOptions {
            addresses,
            master_name: Some(self.master_name).filter(|name| !name.is_empty()),
            prefix: self.prefix,
            username: self.username,
            password: self.password,
            db: self.db,
            dial_timeout: duration(self.dial_timeout),
            read_timeout: duration(self.read_timeout),
            tls: self.tls_enabled,
            tls_insecure: tls.insecure_skip_verify,
            tls_ca_file: file(tls.ca_file),
            tls_client,
            tls_server_name: Some(tls.server_name).filter(|name| !name.is_empty()),
            get_batch: self.get_multi_batch_size,
            get_concurrency: self.max_get_multi_concurrency,
            ttl: duration(ttl),
        };
        let breaker = self.set_async_circuit_breaker_config;
        let guard = GuardOptions {
            get_timeout: duration(self.read_timeout),
            put_timeout: duration(self.write_timeout).max(Duration::from_secs(1)),
            queue_items_max: self.max_async_buffer_size,
            put_concurrency: self.max_async_concurrency,
            // Thanos sets no bound; Redis's own is far above.
            item_bytes_max: 64 << 20,
            failures_max: breaker.consecutive_failures.max(1),
            pause: duration(breaker.open_duration),
        };
        Ok(CachePlace::Redis(Box::new(options), guard))
    }
}
