//! The hashring file: Thanos's JSON, checked field by field so that what is wrong is named with its place.
//!
//! ```json
//! [{"hashring": "a", "tenants": ["t*"], "tenant_matcher_type": "glob", "algorithm": "ketama",
//!   "endpoints": ["r1:10901", {"address": "r2:10901", "az": "b"}], "external_labels": {"ring": "a"},
//!   "shuffle_sharding_config": {"shard_size": 2, "overrides": [{"shard_size": 3, "tenants": ["big"], "tenant_matcher_type": "exact"}]}}]
//! ```
//!
//! As in Thanos, the first entry that matches a tenant wins, and one without tenants takes everybody. Unlike Thanos, a field, an
//! algorithm or a matcher type that is not known is refused: a slip there would move series silently.

use std::fmt;

use chronolith_model::Labels;
use hashbrown::HashSet;
use serde_json::Value;

use super::glob::Glob;

/// The largest file that is read.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 20;
/// The most endpoints of a file: their numbers are 16 bits wide.
const ENDPOINTS_MAX: usize = 10_000;
/// Shards remembered a ring where the file does not say; Thanos's number.
const SHARDS_CACHED: usize = 100;

/// How a ring places series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The hash modulo the number of endpoints: any change of the file moves almost every series.
    #[default]
    Hashmod,
    /// Consistent hashing.
    Ketama,
}

impl Algorithm {
    /// The name in flags and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hashmod => "hashmod",
            Algorithm::Ketama => "ketama",
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hashmod" => Ok(Algorithm::Hashmod),
            "ketama" => Ok(Algorithm::Ketama),
            _ => Err(format!("{text:?} is no hashring algorithm, want hashmod or ketama")),
        }
    }
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// `host:port` of its gRPC; the text is what is hashed.
    pub address: String,
    /// `host:port` of Cap'n Proto, which is not spoken; kept because the local endpoint may be named by it.
    pub capnproto_address: String,
    /// Availability zone; empty for none.
    pub az: String,
}

impl EndpointConfig {
    /// Whether `--receive.local-endpoint` means this one.
    pub fn is_at(&self, address: &str) -> bool {
        self.address == address || self.capnproto_address == address
    }
}

/// One ring.
#[derive(Clone, Debug, PartialEq)]
pub struct HashringConfig {
    /// Its name, for metrics; may be empty.
    pub name: String,
    /// Whose series it takes.
    pub tenants: TenantPatterns,
    /// Its receivers.
    pub endpoints: Vec<EndpointConfig>,
    /// How it places series; `None` is `--receive.hashrings-algorithm`.
    pub algorithm: Option<Algorithm>,
    /// Labels that its tenants' series get.
    pub external_labels: Labels,
    /// Shards of tenants.
    pub shuffle: ShuffleConfig,
}

impl HashringConfig {
    /// Whether the ring takes a tenant.
    pub fn takes(&self, tenant: &str) -> bool {
        self.tenants.is_empty() || self.tenants.take(tenant)
    }
}

/// `shuffle_sharding_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShuffleConfig {
    /// Endpoints of a tenant; 0 means no shards.
    pub shard_size: usize,
    /// Shards remembered.
    pub cache_size: usize,
    /// Draw from all zones as one.
    pub zone_awareness_disabled: bool,
    /// Other sizes for some tenants; the first that matches counts.
    pub overrides: Vec<ShardOverride>,
}

/// An entry of `overrides`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardOverride {
    /// Endpoints of a tenant.
    pub shard_size: usize,
    /// Of which tenants.
    pub tenants: TenantPatterns,
}

/// A list of tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantPatterns {
    /// Names, without a word on how they match: as they are.
    Unspecified(Vec<String>),
    /// Names.
    Exact(Vec<String>),
    /// Patterns as text and read.
    Glob(Vec<(String, GlobPattern)>),
}

/// A pattern that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobPattern(Glob);

impl TenantPatterns {
    /// No tenants are listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tenants or patterns listed.
    pub fn len(&self) -> usize {
        match self {
            TenantPatterns::Unspecified(names) | TenantPatterns::Exact(names) => names.len(),
            TenantPatterns::Glob(patterns) => patterns.len(),
        }
    }

    /// Names or patterns as the file has them.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            TenantPatterns::Unspecified(names) | TenantPatterns::Exact(names) => {
                names.iter().map(String::as_str).collect()
            }
            TenantPatterns::Glob(patterns) => patterns.iter().map(|(text, _)| text.as_str()).collect(),
        }
    }

    /// `exact` or `glob`.
    pub fn matcher_type(&self) -> &'static str {
        match self {
            TenantPatterns::Unspecified(_) | TenantPatterns::Exact(_) => "exact",
            TenantPatterns::Glob(_) => "glob",
        }
    }

    pub(super) fn take(&self, tenant: &str) -> bool {
        match self {
            TenantPatterns::Unspecified(names) | TenantPatterns::Exact(names) => {
                names.iter().any(|n| n == tenant)
            }
            TenantPatterns::Glob(patterns) => patterns.iter().any(|(_, p)| p.0.matches(tenant)),
        }
    }
}

/// What is wrong with a hashring file, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashringError(String);

impl HashringError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        HashringError(text.into())
    }

    pub(crate) fn of_endpoint(address: &str, why: &str) -> Self {
        HashringError(format!("endpoint {address}: {why}"))
    }

    pub(super) fn too_few(endpoints: usize, replication_factor: usize) -> Self {
        HashringError(format!(
            "{endpoints} endpoints are fewer than the replication factor, {replication_factor}"
        ))
    }

    /// The same within the `i`-th entry, counted from 0.
    pub(super) fn in_ring(self, i: usize, name: &str) -> Self {
        let named = if name.is_empty() { String::new() } else { format!(" ({name:?})") };
        HashringError(format!("hashring {}{named}: {}", i + 1, self.0))
    }

    fn within(self, place: &str) -> Self {
        HashringError(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for HashringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HashringError {}

type Parsed<T> = Result<T, HashringError>;

/// Reads a file's text.
pub fn parse(text: &str) -> Parsed<Vec<HashringConfig>> {
    if text.trim().is_empty() {
        return Err(HashringError::new("the hashring configuration is empty"));
    }
    let value: Value =
        serde_json::from_str(text).map_err(|e| HashringError::new(format!("not valid JSON: {e}")))?;
    let Value::Array(entries) = value else {
        return Err(HashringError::new(format!("want a list of hashrings, got {}", kind(&value))));
    };
    if entries.is_empty() {
        return Err(HashringError::new("the list of hashrings is empty"));
    }
    let mut rings = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let name = entry.get("hashring").and_then(Value::as_str).unwrap_or("");
        rings.push(ring(entry).map_err(|e| e.in_ring(i, name))?);
    }
    let endpoints: usize = rings.iter().map(|r| r.endpoints.len()).sum();
    if endpoints > ENDPOINTS_MAX {
        return Err(HashringError::new(format!(
            "{endpoints} endpoints are more than the limit of {ENDPOINTS_MAX}"
        )));
    }
    Ok(rings)
}

fn ring(value: &Value) -> Parsed<HashringConfig> {
    let fields = object(
        value,
        &[
            "hashring",
            "tenants",
            "tenant_matcher_type",
            "endpoints",
            "algorithm",
            "external_labels",
            "shuffle_sharding_config",
        ],
    )?;
    let mut endpoints = Vec::new();
    let mut seen = HashSet::new();
    for (i, value) in list(&fields, "endpoints")?.iter().enumerate() {
        let endpoint = endpoint(value).map_err(|e| e.within(&format!("endpoint {}", i + 1)))?;
        if !seen.insert(endpoint.address.clone()) {
            return Err(HashringError::new(format!("endpoint {} is listed twice", endpoint.address)));
        }
        endpoints.push(endpoint);
    }
    if endpoints.is_empty() {
        return Err(HashringError::new("no endpoints"));
    }
    let algorithm = match text(&fields, "algorithm")?.as_str() {
        "" => None,
        name => Some(name.parse().map_err(|e: String| HashringError::new(format!("algorithm: {e}")))?),
    };
    let shuffle = match fields.get("shuffle_sharding_config") {
        None => ShuffleConfig::default(),
        Some(value) => shuffle(value).map_err(|e| e.within("shuffle_sharding_config"))?,
    };
    Ok(HashringConfig {
        name: text(&fields, "hashring")?,
        tenants: patterns(&fields)?,
        endpoints,
        algorithm,
        external_labels: labels(&fields)?,
        shuffle,
    })
}

fn endpoint(value: &Value) -> Parsed<EndpointConfig> {
    let (address, capnproto, az) = match value {
        Value::String(address) => (address.clone(), String::new(), String::new()),
        Value::Object(_) => {
            let fields = object(value, &["address", "capnproto_address", "az"])?;
            (text(&fields, "address")?, text(&fields, "capnproto_address")?, text(&fields, "az")?)
        }
        other => {
            return Err(HashringError::new(format!("want an address or an object, got {}", kind(other))));
        }
    };
    if address.is_empty() {
        return Err(HashringError::new("address must be set"));
    }
    let host = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => host,
        _ => return Err(HashringError::new(format!("{address:?} is no address, want host:port"))),
    };
    // Thanos's default port of Cap'n Proto.
    let capnproto_address = if capnproto.is_empty() { format!("{host}:19391") } else { capnproto };
    Ok(EndpointConfig { address, capnproto_address, az })
}

fn shuffle(value: &Value) -> Parsed<ShuffleConfig> {
    let fields = object(value, &["shard_size", "cache_size", "zone_awareness_disabled", "overrides"])?;
    let zone_awareness_disabled = match fields.get("zone_awareness_disabled") {
        None => false,
        Some(Value::Bool(b)) => *b,
        Some(other) => return Err(wrong("zone_awareness_disabled", "true or false", other)),
    };
    let mut overrides = Vec::new();
    for (i, value) in list(&fields, "overrides")?.iter().enumerate() {
        let over = shard_override(value).map_err(|e| e.within(&format!("override {}", i + 1)))?;
        overrides.push(over);
    }
    let shard_size = number(&fields, "shard_size")?;
    if shard_size == 0 && !overrides.is_empty() {
        return Err(HashringError::new("overrides need a shard_size above 0"));
    }
    let cache_size = match number(&fields, "cache_size")? {
        0 => SHARDS_CACHED,
        n => n,
    };
    Ok(ShuffleConfig { shard_size, cache_size, zone_awareness_disabled, overrides })
}

fn shard_override(value: &Value) -> Parsed<ShardOverride> {
    let fields = object(value, &["shard_size", "tenants", "tenant_matcher_type"])?;
    let shard_size = number(&fields, "shard_size")?;
    if shard_size == 0 {
        return Err(HashringError::new("shard_size must be above 0"));
    }
    Ok(ShardOverride { shard_size, tenants: patterns(&fields)? })
}

type Fields<'a> = std::collections::BTreeMap<String, &'a Value>;

/// The fields of an object, by names in small letters since Go does not tell them apart; a null is as good as nothing.
fn object<'a>(value: &'a Value, known: &[&str]) -> Parsed<Fields<'a>> {
    let Value::Object(entries) = value else {
        return Err(HashringError::new(format!("want an object, got {}", kind(value))));
    };
    let mut fields = Fields::new();
    for (name, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
        let name = name.to_ascii_lowercase();
        if !known.contains(&name.as_str()) {
            return Err(HashringError::new(format!(
                "unknown field {name:?}, want one of {}",
                known.join(", ")
            )));
        }
        fields.insert(name, value);
    }
    Ok(fields)
}

fn text(fields: &Fields<'_>, name: &str) -> Parsed<String> {
    match fields.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(name, "a text", other)),
    }
}

fn number(fields: &Fields<'_>, name: &str) -> Parsed<usize> {
    match fields.get(name) {
        None => Ok(0),
        Some(value) => value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= 1_000_000)
            .ok_or_else(|| wrong(name, "a number from 0 to 1000000", value)),
    }
}

fn list<'a>(fields: &Fields<'a>, name: &str) -> Parsed<&'a [Value]> {
    match fields.get(name) {
        None => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(other) => Err(wrong(name, "a list", other)),
    }
}

fn patterns(fields: &Fields<'_>) -> Parsed<TenantPatterns> {
    let mut names = Vec::new();
    for value in list(fields, "tenants")? {
        match value {
            Value::String(name) if !name.is_empty() => names.push(name.clone()),
            Value::String(_) => return Err(HashringError::new("tenants: a tenant is empty")),
            other => return Err(wrong("tenants", "texts", other)),
        }
    }
    match text(fields, "tenant_matcher_type")?.as_str() {
        "" => Ok(TenantPatterns::Unspecified(names)),
        "exact" => Ok(TenantPatterns::Exact(names)),
        "glob" => {
            let read = |name: String| match Glob::parse(&name) {
                Some(glob) => Ok((name, GlobPattern(glob))),
                None => Err(HashringError::new(format!("tenants: {name:?} is no glob pattern"))),
            };
            Ok(TenantPatterns::Glob(names.into_iter().map(read).collect::<Parsed<_>>()?))
        }
        other => Err(HashringError::new(format!("tenant_matcher_type: {other:?}, want exact or glob"))),
    }
}

fn labels(fields: &Fields<'_>) -> Parsed<Labels> {
    let Some(value) = fields.get("external_labels") else { return Ok(Labels::default()) };
    let Value::Object(entries) = value else { return Err(wrong("external_labels", "an object", value)) };
    let mut pairs = Vec::new();
    for (name, value) in entries {
        let Value::String(value) = value else {
            return Err(wrong(&format!("external_labels: {name}"), "a text", value));
        };
        if !chronolith_model::is_legacy_label_name(name) {
            return Err(HashringError::new(format!("external_labels: {name:?} is no label name")));
        }
        pairs.push((name, value));
    }
    Labels::from_pairs(pairs).map_err(|e| HashringError::new(format!("external_labels: {e}")))
}

fn wrong(field: &str, want: &str, got: &Value) -> HashringError {
    HashringError::new(format!("{field}: want {want}, got {}", kind(got)))
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
