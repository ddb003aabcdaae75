//! The limits file as it is written, and the way from there to [`LimitsConfig`].
//!
//! Unknown keys are errors, as are keys of Thanos's that we do not honour: a limit that somebody believes in and that is not
//! there is worse than a process that does not start.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronolith_model::TenantId;
use chronolith_service::config::{ConfigError, DurationMs, GoString, load_yaml};
use chronolith_service::relabel::{RelabelConfig, relabeling};
use serde::Deserialize;

use super::config::{LimitsConfig, RateLimit, TenantLimits};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Root {
    write: Option<Write>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Write {
    global: Option<Global>,
    default: Option<Tenant>,
    tenants: Option<BTreeMap<GoString, Option<Tenant>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Global {
    max_concurrency: Option<i64>,
    meta_monitoring_url: Option<GoString>,
    meta_monitoring_http_client: Option<serde::de::IgnoredAny>,
    meta_monitoring_limit_query: Option<GoString>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tenant {
    request: Option<Request>,
    head_series_limit: Option<i64>,
    // Ours from here on.
    labels: Option<Labels>,
    ingestion: Option<Ingestion>,
    concurrent_requests_limit: Option<i64>,
    retention: Option<DurationMs>,
    out_of_order_time_window: Option<DurationMs>,
    relabel_configs: Option<Vec<RelabelConfig>>,
    external_labels: Option<BTreeMap<String, GoString>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Request {
    size_bytes_limit: Option<i64>,
    series_limit: Option<i64>,
    samples_limit: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Labels {
    count_limit: Option<i64>,
    name_bytes_limit: Option<i64>,
    value_bytes_limit: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ingestion {
    samples_per_second: Option<f64>,
    burst_samples: Option<f64>,
}

/// What a label set may have at most whatever a file says: the bounds that the head's formats and memory stand for.
pub(crate) const LABELS_MAX: usize = 4096;
const NAME_BYTES_MAX: i64 = 64 << 10;
const VALUE_BYTES_MAX: i64 = 1 << 20;

impl LimitsConfig {
    /// Reads a file's content; `origin` (the file or the flag) is named in errors. `tenant_label` cannot be an external
    /// label.
    pub fn parse(origin: &str, text: &str, tenant_label: &str) -> Result<Self, ConfigError> {
        let root: Option<Root> = load_yaml(origin, text)?;
        let write = root.and_then(|root| root.write).unwrap_or_default();
        check(write, tenant_label).map_err(|text| ConfigError::invalid(origin, text))
    }
}

fn check(write: Write, tenant_label: &str) -> Result<LimitsConfig, String> {
    let global = write.global.unwrap_or_default();
    let max_concurrency = count("write.global.max_concurrency", global.max_concurrency)?.unwrap_or(0);
    let meta_monitoring = [
        ("meta_monitoring_url", global.meta_monitoring_url.is_some_and(|url| !url.0.is_empty())),
        ("meta_monitoring_http_client", global.meta_monitoring_http_client.is_some()),
        ("meta_monitoring_limit_query", global.meta_monitoring_limit_query.is_some_and(|q| !q.0.is_empty())),
    ];
    if let Some((key, _)) = meta_monitoring.iter().find(|(_, given)| *given) {
        return Err(format!(
            "write.global.{key}: not supported: each receiver counts its own active series exactly; leave it out, and \
             divide head_series_limit by the number of receivers that a tenant's series are spread over"
        ));
    }
    let default = write.default.unwrap_or_default();
    let checked = tenant("write.default", &default, None, tenant_label)?;
    let mut tenants = std::collections::HashMap::new();
    for (name, own) in write.tenants.unwrap_or_default() {
        let at = format!("write.tenants.{}", name.0);
        let id = TenantId::new(&name.0).map_err(|e| format!("write.tenants: {e}"))?;
        let own = tenant(&at, &own.unwrap_or_default(), Some(&checked), tenant_label)?;
        tenants.insert(id, Arc::new(own));
    }
    Ok(LimitsConfig {
        max_concurrency: usize::try_from(max_concurrency).unwrap_or(usize::MAX),
        default: Arc::new(checked),
        tenants,
    })
}

/// A tenant's limits: its own keys, and the default's where it has none.
fn tenant(
    at: &str,
    own: &Tenant,
    default: Option<&TenantLimits>,
    tenant_label: &str,
) -> Result<TenantLimits, String> {
    let mut limits = default.cloned().unwrap_or_default();
    let key = |name: &str| format!("{at}.{name}");
    let request = own.request.clone().unwrap_or_default();
    for (name, given, limit) in [
        ("request.size_bytes_limit", request.size_bytes_limit, &mut limits.request.size_bytes),
        ("request.series_limit", request.series_limit, &mut limits.request.series),
        ("request.samples_limit", request.samples_limit, &mut limits.request.samples),
        ("head_series_limit", own.head_series_limit, &mut limits.head_series),
    ] {
        if let Some(n) = count(&key(name), given)? {
            *limit = n;
        }
    }
    let labels = own.labels.clone().unwrap_or_default();
    for (name, given, max, limit) in [
        ("labels.count_limit", labels.count_limit, LABELS_MAX as i64, &mut limits.labels.count),
        ("labels.name_bytes_limit", labels.name_bytes_limit, NAME_BYTES_MAX, &mut limits.labels.name_bytes),
        (
            "labels.value_bytes_limit",
            labels.value_bytes_limit,
            VALUE_BYTES_MAX,
            &mut limits.labels.value_bytes,
        ),
    ] {
        match given {
            None => {}
            Some(n) if (1..=max).contains(&n) => *limit = usize::try_from(n).ok(),
            Some(n) => return Err(format!("{}: {n} is not between 1 and {max}", key(name))),
        }
    }
    if let Some(ingestion) = &own.ingestion {
        limits.rate = rate(&key("ingestion"), ingestion, limits.rate)?;
    }
    if let Some(n) = count(&key("concurrent_requests_limit"), own.concurrent_requests_limit)? {
        limits.concurrent_requests = usize::try_from(n).unwrap_or(usize::MAX);
    }
    if let Some(retention) = own.retention {
        limits.retention_ms = Some(retention.0);
    }
    if let Some(window) = own.out_of_order_time_window {
        limits.out_of_order_window_ms = Some(window.0);
    }
    if let Some(rules) = &own.relabel_configs {
        limits.relabeling =
            relabeling(rules.clone()).map_err(|e| format!("{}: {e}", key("relabel_configs")))?;
    }
    if let Some(external) = &own.external_labels {
        limits.external_labels = external_labels(&key("external_labels"), external, tenant_label)?;
    }
    Ok(limits)
}

fn count(key: &str, given: Option<i64>) -> Result<Option<u64>, String> {
    match given {
        None => Ok(None),
        Some(n) => u64::try_from(n).map(Some).map_err(|_| format!("{key}: {n} is negative; 0 is no limit")),
    }
}

/// A rate of 0 is none. Without a burst of its own it is that of one second, or the default's where that is larger.
fn rate(key: &str, own: &Ingestion, default: Option<RateLimit>) -> Result<Option<RateLimit>, String> {
    let sane = |name: &str, n: f64| {
        if n.is_finite() && n >= 0.0 {
            Ok(n)
        } else {
            Err(format!("{key}.{name}: {n} is no number of samples"))
        }
    };
    let per_second = match own.samples_per_second {
        Some(n) => sane("samples_per_second", n)?,
        None => default.map_or(0.0, |d| d.samples_per_second),
    };
    let burst = own.burst_samples.map(|n| sane("burst_samples", n)).transpose()?;
    if per_second == 0.0 {
        return match burst {
            Some(burst) if burst > 0.0 => {
                Err(format!("{key}.burst_samples: there is no samples_per_second that it belongs to"))
            }
            _ => Ok(None),
        };
    }
    if burst == Some(0.0) {
        return Err(format!("{key}.burst_samples: 0 would let nothing pass"));
    }
    let inherited = default.map_or(0.0, |d| d.burst_samples);
    let burst_samples = burst.unwrap_or_else(|| per_second.max(inherited));
    Ok(Some(RateLimit { samples_per_second: per_second, burst_samples }))
}

fn external_labels(
    key: &str,
    given: &BTreeMap<String, GoString>,
    tenant_label: &str,
) -> Result<Vec<(String, String)>, String> {
    let mut labels = Vec::with_capacity(given.len());
    for (name, value) in given {
        if !chronolith_model::is_legacy_label_name(name) {
            return Err(format!("{key}: {name:?} is no label name"));
        }
        if name == tenant_label || name.starts_with("__") {
            return Err(format!("{key}: {name} cannot be set here"));
        }
        if value.0.is_empty() {
            return Err(format!("{key}: {name} is empty"));
        }
        labels.push((name.clone(), value.0.clone()));
    }
    Ok(labels)
}
