//! Thanos's YAML of the index cache and of the caching bucket, and a type of our own, `DISK`.
//!
//! ```yaml
//! type: MEMCACHED          # IN-MEMORY, MEMCACHED, REDIS or DISK, in any case
//! config: {addresses: ["cache:11211"]}
//! enabled_items: [Postings, Series, ExpandedPostings]   # index cache
//! chunk_subrange_size: 16000                            # caching bucket
//! ```
//!
//! An unknown key is an error that names it. Keys that concern what this store keeps elsewhere (metas, listings, sizes) are
//! taken and have no effect; keys that would change what a cache does and cannot be honoured are errors.

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::{CachedItems, ChunkCacheOptions};
use chronolith_cache::{DiskOptions, GuardOptions, MemcachedOptions, RedisOptions};
use chronolith_objstore::yaml::{self, go_bool};
use chronolith_service::config::{ByteSize, DurationMs};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Where cached values lie.
#[derive(Clone, Debug)]
pub enum CachePlace {
    /// In the process's memory.
    Memory {
        /// Bytes at the most.
        bytes_max: u64,
        /// Nothing larger is kept.
        item_bytes_max: u64,
    },
    /// On a local disk.
    Disk(DiskOptions),
    /// On memcached servers.
    Memcached(MemcachedOptions, GuardOptions),
    /// In Redis.
    Redis(Box<RedisOptions>, GuardOptions),
}

/// `--index-cache.config`.
#[derive(Clone, Debug)]
pub struct IndexCacheConfig {
    /// Where.
    pub place: CachePlace,
    /// What.
    pub items: CachedItems,
}

/// `--store.caching-bucket.config`.
#[derive(Clone, Debug)]
pub struct ChunkCacheConfig {
    /// Where.
    pub place: CachePlace,
    /// Sizes of pieces and requests.
    pub options: ChunkCacheOptions,
}

impl IndexCacheConfig {
    /// Reads the YAML text. The error names the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawIndex = yaml::from_str(text).map_err(|e| e.to_string())?;
        let mut items = CachedItems { postings: false, series: false, expanded: false };
        for item in &raw.enabled_items {
            match item.as_str() {
                "Postings" => items.postings = true,
                "Series" => items.series = true,
                "ExpandedPostings" => items.expanded = true,
                _ => {
                    return Err(format!(
                        "enabled_items: {item:?} is none of Postings, Series, ExpandedPostings"
                    ));
                }
            }
        }
        if raw.enabled_items.is_empty() {
            items = CachedItems::default();
        }
        Ok(IndexCacheConfig { place: place(&raw.kind, raw.config, raw.ttl)?, items })
    }
}

impl ChunkCacheConfig {
    /// Reads the YAML text. The error names the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawChunks = yaml::from_str(text).map_err(|e| e.to_string())?;
        if raw.chunk_subrange_size == 0 {
            return Err("chunk_subrange_size must be more than 0".to_owned());
        }
        let options = ChunkCacheOptions {
            piece_bytes: raw.chunk_subrange_size,
            requests_max: raw.max_chunks_get_range_requests,
        };
        Ok(ChunkCacheConfig { place: place(&raw.kind, raw.config, raw.chunk_subrange_ttl)?, options })
    }
}

const DAY: DurationMs = DurationMs(86_400_000);

fn day() -> DurationMs {
    DAY
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    config: serde_yaml::Value,
    #[serde(default)]
    enabled_items: Vec<String>,
    #[serde(default = "day")]
    ttl: DurationMs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawChunks {
    #[serde(rename = "type")]
    kind: String,
    config: serde_yaml::Value,
    chunk_subrange_size: u64,
    max_chunks_get_range_requests: usize,
    chunk_subrange_ttl: DurationMs,
    // Sizes are in meta.json, metas on the local disk, and listings are short with the bucket index.
    #[serde(rename = "chunk_object_attrs_ttl")]
    _attributes_ttl: IgnoredAny,
    #[serde(rename = "blocks_iter_ttl")]
    _iter_ttl: IgnoredAny,
    #[serde(rename = "metafile_exists_ttl")]
    _exists_ttl: IgnoredAny,
    #[serde(rename = "metafile_doesnt_exist_ttl")]
    _missing_ttl: IgnoredAny,
    #[serde(rename = "metafile_content_ttl")]
    _content_ttl: IgnoredAny,
    #[serde(rename = "metafile_max_size")]
    _metafile_size: IgnoredAny,
}

impl Default for RawChunks {
    fn default() -> Self {
        let ChunkCacheOptions { piece_bytes, requests_max } = ChunkCacheOptions::default();
        let i = IgnoredAny;
        RawChunks {
            kind: String::new(),
            config: serde_yaml::Value::Null,
            chunk_subrange_size: piece_bytes,
            max_chunks_get_range_requests: requests_max,
            chunk_subrange_ttl: DAY,
            _attributes_ttl: i,
            _iter_ttl: i,
            _exists_ttl: i,
            _missing_ttl: i,
            _content_ttl: i,
            _metafile_size: i,
        }
    }
}

fn place(kind: &str, config: serde_yaml::Value, ttl: DurationMs) -> Result<CachePlace, String> {
    let config = match config {
        serde_yaml::Value::Null => serde_yaml::Value::Mapping(serde_yaml::Mapping::new()),
        config => config,
    };
    fn read<T: serde::de::DeserializeOwned>(config: serde_yaml::Value) -> Result<T, String> {
        yaml::from_value(config).map_err(|e| format!("config: {e}"))
    }
    match kind.to_ascii_uppercase().as_str() {
        "IN-MEMORY" => {
            let c: Memory = read(config)?;
            Ok(CachePlace::Memory { bytes_max: c.max_size.0, item_bytes_max: c.max_item_size.0 })
        }
        "DISK" => {
            let c: Disk = read(config)?;
            Ok(CachePlace::Disk(DiskOptions { directory: c.directory, bytes_max: c.max_size.0 }))
        }
        "MEMCACHED" => read::<MemcachedConfig>(config)?.place(ttl),
        "REDIS" => read::<RedisConfig>(config)?.place(ttl),
        "" => Err("type is missing".to_owned()),
        _ => {
            Err(format!("type {kind:?} is not supported; supported are IN-MEMORY, DISK, MEMCACHED and REDIS"))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Memory {
    max_size: ByteSize,
    max_item_size: ByteSize,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { max_size: ByteSize(250 << 20), max_item_size: ByteSize(125 << 20) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    directory: PathBuf,
    #[serde(default = "gigabyte")]
    max_size: ByteSize,
}

fn gigabyte() -> ByteSize {
    ByteSize(1 << 30)
}

fn duration(d: DurationMs) -> Duration {
    Duration::from_millis(d.0.unsigned_abs())
}

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
struct MemcachedConfig {
    addresses: Vec<String>,
    timeout: DurationMs,
    max_idle_connections: usize,
    max_async_concurrency: usize,
    max_async_buffer_size: usize,
    max_get_multi_concurrency: usize,
    max_get_multi_batch_size: usize,
    max_item_size: ByteSize,
    #[serde(rename = "dns_provider_update_interval")]
    _dns_interval: IgnoredAny,
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
            _dns_interval: IgnoredAny,
            auto_discovery: false,
            set_async_circuit_breaker_config: Breaker::default(),
        }
    }
}

impl MemcachedConfig {
    fn place(self, ttl: DurationMs) -> Result<CachePlace, String> {
        if self.auto_discovery {
            return Err("config.auto_discovery is not supported".to_owned());
        }
        let mut addresses = Vec::new();
        for address in self.addresses {
            if address.starts_with("dnssrv") {
                return Err(format!(
                    "config.addresses: {address:?}: SRV records are not supported, name host:port"
                ));
            }
            // Names are looked up with every connection.
            addresses.push(address.strip_prefix("dns+").unwrap_or(&address).to_owned());
        }
        if addresses.is_empty() {
            return Err("config.addresses is empty".to_owned());
        }
        let options = MemcachedOptions {
            addresses,
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
    #[serde(rename = "server_name")]
    server_name: String,
    #[serde(deserialize_with = "go_bool")]
    insecure_skip_verify: bool,
}

impl Default for RedisTls {
    fn default() -> Self {
        let (ca_file, cert_file, key_file, server_name) = Default::default();
        RedisTls { ca_file, cert_file, key_file, server_name, insecure_skip_verify: false }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RedisConfig {
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
    fn place(self, ttl: DurationMs) -> Result<CachePlace, String> {
        let tls = self.tls_config;
        for (key, used) in [
            ("cert_file", !tls.cert_file.as_os_str().is_empty()),
            ("key_file", !tls.key_file.as_os_str().is_empty()),
            ("server_name", !tls.server_name.is_empty()),
        ] {
            if used {
                return Err(format!("config.tls_config.{key} is not supported"));
            }
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
            tls_ca_file: Some(tls.ca_file).filter(|file| !file.as_os_str().is_empty()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thanos_files_are_read() {
        let text =
            "type: IN-MEMORY\nconfig:\n  max_size: 10MB\n  max_item_size: 1KB\nenabled_items: [Postings]";
        let c = IndexCacheConfig::parse(text).unwrap();
        let CachePlace::Memory { bytes_max, item_bytes_max } = c.place else { panic!("{c:?}") };
        assert_eq!((bytes_max, item_bytes_max), (10 << 20, 1 << 10));
        assert_eq!(c.items, CachedItems { postings: true, series: false, expanded: false });
        assert_eq!(IndexCacheConfig::parse("type: in-memory").unwrap().items, CachedItems::default());

        let text = "type: MEMCACHED\nttl: 1h\nconfig:\n  addresses: ['dns+b:1', 'a:2']\n  timeout: 300ms\n  \
                    max_item_size: 2MiB\n  set_async_circuit_breaker_config: {enabled: true, open_duration: 1s}";
        let c = IndexCacheConfig::parse(text).unwrap();
        let CachePlace::Memcached(o, guard) = c.place else { panic!("{c:?}") };
        assert_eq!(
            (o.addresses, o.ttl),
            (vec!["b:1".to_owned(), "a:2".to_owned()], Duration::from_secs(3600))
        );
        assert_eq!((guard.get_timeout, guard.item_bytes_max), (Duration::from_millis(300), 2 << 20));
        assert_eq!((guard.failures_max, guard.pause), (5, Duration::from_secs(1)));

        let text = "type: REDIS\nconfig: {addr: 'a:1,b:2', master_name: m, password: p, tls_enabled: yes}\n\
                    chunk_subrange_size: 8000\nmetafile_exists_ttl: 2h\nblocks_iter_ttl: 5m\nmetafile_max_size: 1MiB";
        let c = ChunkCacheConfig::parse(text).unwrap();
        assert_eq!(c.options, ChunkCacheOptions { piece_bytes: 8000, requests_max: 3 });
        let CachePlace::Redis(o, guard) = c.place else { panic!("{c:?}") };
        assert_eq!((o.addresses.len(), o.master_name.as_deref(), o.tls), (2, Some("m"), true));
        assert_eq!(guard.get_timeout, Duration::from_secs(3));

        let c = ChunkCacheConfig::parse("type: DISK\nconfig: {directory: /cache, max_size: 10GB}").unwrap();
        let CachePlace::Disk(o) = c.place else { panic!("{c:?}") };
        assert_eq!(o.bytes_max, 10 << 30);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (text, want) in [
            ("config: {}", "type is missing"),
            ("type: GROUPCACHE", "\"GROUPCACHE\" is not supported"),
            ("type: IN-MEMORY\nconfig: {max_sizes: 1}", "max_sizes"),
            ("type: IN-MEMORY\nconf: {}", "conf"),
            ("type: IN-MEMORY\nenabled_items: [Chunks]", "Chunks"),
            ("type: MEMCACHED", "addresses"),
            ("type: MEMCACHED\nconfig: {addresses: ['dnssrv+a']}", "SRV"),
            ("type: MEMCACHED\nconfig: {addresses: [a], auto_discovery: true}", "auto_discovery"),
            ("type: REDIS", "addr"),
            ("type: REDIS\nconfig: {addr: a, tls_config: {cert_file: x}}", "cert_file"),
        ] {
            let err = IndexCacheConfig::parse(text).unwrap_err();
            assert!(err.contains(want), "{text:?}: {err}");
        }
        let err = ChunkCacheConfig::parse("type: IN-MEMORY\nchunk_subrange_size: 0").unwrap_err();
        assert!(err.contains("chunk_subrange_size"), "{err}");
    }
}
