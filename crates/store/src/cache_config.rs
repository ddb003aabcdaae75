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

mod servers;

use std::path::PathBuf;
use std::time::Duration;

use chronolith_bucket::{CachedItems, ChunkCacheOptions};
use chronolith_cache::{DiskOptions, GuardOptions, MemcachedOptions, RedisOptions};
use chronolith_objstore::yaml;
use chronolith_service::config::{ByteSize, DurationMs};
use serde::Deserialize;
use serde::de::IgnoredAny;

use servers::{MemcachedConfig, RedisConfig};

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

#[cfg(test)]
mod tests;
