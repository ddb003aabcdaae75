//! The parameters that Thanos added to Prometheus's API.

use chronolith_httpapi::{ApiError, Params, parse_bool, parse_duration};
use chronolith_model::{MatchOp, Matcher, Resolution};
use chronolith_promql::parser::parse_selector;
use chronolith_storeapi::{PartialResponse, ShardInfo};
use http::HeaderMap;
use serde::Deserialize;

/// How one request wants the stores to be read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Remove replicas; has an effect only with replica labels.
    pub dedup: bool,
    /// Labels that tell replicas apart.
    pub replica_labels: Vec<String>,
    /// Answer with a warning, or fail, when a store fails.
    pub partial_response: PartialResponse,
    /// The coarsest downsampling that will do; 0 is raw only. As a default it speaks of instant queries
    /// (`--query.instant.default.max_source_resolution`).
    pub max_source_resolution_ms: i64,
    /// Choose the resolution by the step where the request does not (`--query.auto-downsampling`).
    pub auto_downsampling: bool,
    /// Look back further where samples may be further apart (`--query.dynamic-lookback-delta`).
    pub dynamic_lookback: bool,
    /// Only stores that fit one of these selectors; empty means all.
    pub store_matchers: Vec<Vec<Matcher>>,
    /// One shard of the series only.
    pub shard: Option<ShardInfo>,
    /// Holds for every selector of the request: a tenant sees what it wrote.
    pub tenant: Option<Matcher>,
}

/// How requests are kept to their tenant (`--query.enforce-tenancy`).
#[derive(Clone, Debug)]
pub struct Tenancy {
    /// `--query.tenant-header`.
    pub header: String,
    /// `--query.default-tenant-id`: the tenant of a request that names none.
    pub default_tenant: String,
    /// `--query.tenant-label-name`.
    pub label: String,
}

impl Tenancy {
    /// The matcher that every selector of a request with these headers gets.
    pub fn matcher(&self, headers: &HeaderMap) -> Matcher {
        let named = headers.get(&self.header).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty());
        Matcher::equal(&self.label, named.unwrap_or(&self.default_tenant))
    }
}

/// The `shard_info` parameter, the JSON that Thanos's query frontend sends.
#[derive(Deserialize)]
struct ShardParam {
    #[serde(default)]
    shard_index: i64,
    #[serde(default)]
    total_shards: i64,
    #[serde(default)]
    by: bool,
    #[serde(default)]
    labels: Vec<String>,
}

impl ReadOptions {
    /// These options with what the request says. `step_ms` is 0 outside range queries.
    pub(super) fn with_params(&self, params: &Params, step_ms: i64) -> Result<Self, ApiError> {
        let mut options = self.clone();
        options.dedup = bool_param(params, "dedup", self.dedup)?;
        let replica_labels: Vec<String> = params.all("replicaLabels[]").map(str::to_owned).collect();
        if !replica_labels.is_empty() {
            options.replica_labels = replica_labels;
        }
        options.partial_response = partial_response(params, self.partial_response)?;
        let auto = if step_ms > 0 { step_ms / 5 } else { self.max_source_resolution_ms };
        options.max_source_resolution_ms = match params.get("max_source_resolution") {
            "auto" => auto,
            "" if self.auto_downsampling || step_ms == 0 => auto,
            "" => 0,
            text => parse_duration(text)
                .map_err(|e| ApiError::bad_data(format!("'max_source_resolution' parameter: {e}")))?,
        };
        if options.max_source_resolution_ms < 0 {
            let text = "negative 'max_source_resolution' is not accepted. Try a positive integer";
            return Err(ApiError::bad_data(text));
        }
        for selector in params.all("storeMatch[]") {
            let matchers = parse_selector(selector).map_err(|e| ApiError::parameter("storeMatch[]", e))?;
            options.store_matchers.push(matchers);
        }
        // There is one engine, and both names of Thanos's two stand for it.
        if !matches!(params.get("engine"), "" | "prometheus" | "thanos") {
            return Err(ApiError::bad_data(format!("'{}' bad engine", params.get("engine"))));
        }
        options.shard = shard(params.get("shard_info"))?;
        Ok(options)
    }

    /// The lookback delta of a query that names none, where the usual one is `usual_ms`: it reaches over the distance between
    /// two samples of the coarsest resolution that may answer, and a fifth more, as the last sample of a chunk may stand
    /// earlier than its window ends.
    pub fn lookback_ms(&self, usual_ms: i64) -> i64 {
        let may_answer = |r: &Resolution| r.ms() <= self.max_source_resolution_ms;
        let coarsest = [Resolution::OneHour, Resolution::FiveMinutes].into_iter().find(may_answer);
        match coarsest {
            Some(resolution) if self.dynamic_lookback => usual_ms.max(resolution.ms() / 5 * 6),
            _ => usual_ms,
        }
    }

    /// The replica labels that are to be taken away.
    pub fn without_replica_labels(&self) -> Vec<String> {
        if self.dedup { self.replica_labels.clone() } else { Vec::new() }
    }

    /// `matchers` with the tenant's in place of any other on that label.
    pub fn enforced(&self, mut matchers: Vec<Matcher>) -> Vec<Matcher> {
        if let Some(tenant) = &self.tenant {
            enforce(tenant, &mut matchers);
        }
        matchers
    }
}

/// Puts `tenant` in place of what a request says of that label: naming another tenant must not reach it, and a
/// negative matcher must not hide one's own series.
pub(crate) fn enforce(tenant: &Matcher, matchers: &mut Vec<Matcher>) {
    debug_assert_eq!(tenant.op, MatchOp::Equal);
    matchers.retain(|m| m.name != tenant.name);
    matchers.push(tenant.clone());
}

/// `partial_response`, or `default`.
pub(super) fn partial_response(
    params: &Params,
    default: PartialResponse,
) -> Result<PartialResponse, ApiError> {
    let warn = bool_param(params, "partial_response", default == PartialResponse::Warn)?;
    Ok(if warn { PartialResponse::Warn } else { PartialResponse::Abort })
}

/// A boolean parameter; errors as Thanos words them.
pub(super) fn bool_param(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    match params.get(name) {
        "" => Ok(default),
        text => parse_bool(text).map_err(|e| ApiError::bad_data(format!("'{name}' parameter: {e}"))),
    }
}

fn shard(text: &str) -> Result<Option<ShardInfo>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let refuse = |why: String| ApiError::bad_data(format!("could not unmarshal parameter shard_info: {why}"));
    let ShardParam { shard_index, total_shards, by, labels } =
        serde_json::from_str(text).map_err(|e| refuse(e.to_string()))?;
    if total_shards < 1 {
        return Ok(None);
    }
    if !(0..total_shards).contains(&shard_index) {
        return Err(refuse(format!("shard_index {shard_index} is not below total_shards {total_shards}")));
    }
    Ok(Some(ShardInfo { index: shard_index as u64, count: total_shards as u64, by, labels }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_and_how_far_they_look_back() {
        const MINUTE: i64 = 60_000;
        let read = |defaults: &ReadOptions, text: &str, step_ms: i64| {
            let params = Params::from_query(text);
            defaults.with_params(&params, step_ms).unwrap().max_source_resolution_ms
        };
        let hour = 60 * MINUTE;
        let raw = ReadOptions { max_source_resolution_ms: hour, ..ReadOptions::default() };
        let auto = ReadOptions { auto_downsampling: true, ..raw.clone() };
        // The default speaks of instant queries, which have no step to go by.
        assert_eq!((read(&raw, "", 0), read(&raw, "", hour)), (hour, 0));
        assert_eq!((read(&auto, "", 0), read(&auto, "", hour)), (hour, 12 * MINUTE));
        assert_eq!(read(&raw, "max_source_resolution=auto", hour), 12 * MINUTE);
        assert_eq!(read(&auto, "max_source_resolution=0s", hour), 0);
        assert_eq!(read(&auto, "max_source_resolution=300", hour), 5 * MINUTE);

        let lookback = |max_source_resolution_ms: i64, dynamic_lookback: bool, usual_ms: i64| {
            ReadOptions { max_source_resolution_ms, dynamic_lookback, ..ReadOptions::default() }
                .lookback_ms(usual_ms)
        };
        let cases = [
            (0, true, 5 * MINUTE),
            // Only raw data is as fine as that.
            (4 * MINUTE, true, 5 * MINUTE),
            (5 * MINUTE, true, 6 * MINUTE),
            (59 * MINUTE, true, 6 * MINUTE),
            (hour, true, 72 * MINUTE),
            (hour, false, 5 * MINUTE),
        ];
        for (resolution, dynamic, want) in cases {
            assert_eq!(lookback(resolution, dynamic, 5 * MINUTE), want, "{resolution}");
        }
        assert_eq!(lookback(hour, true, 3 * hour), 3 * hour);
    }

    #[test]
    fn shards_and_tenants() {
        let shard_of = |text: &str| shard(text).map_err(|e| e.message);
        assert_eq!(shard_of(""), Ok(None));
        assert_eq!(shard_of(r#"{"total_shards":0}"#), Ok(None));
        let two = ShardInfo { index: 1, count: 2, by: true, labels: vec!["pod".to_owned()] };
        let text = r#"{"shard_index":1,"total_shards":2,"by":true,"labels":["pod"]}"#;
        assert_eq!(shard_of(text), Ok(Some(two)));
        for bad in [r#"{"shard_index":2,"total_shards":2}"#, "{", "[]x", r#"{"labels":3}"#] {
            assert!(
                shard_of(bad).unwrap_err().starts_with("could not unmarshal parameter shard_info: "),
                "{bad}"
            );
        }
        let tenant = Some(Matcher::equal("tenant_id", "a"));
        let options = ReadOptions { tenant, ..ReadOptions::default() };
        let asked = vec![Matcher::equal("tenant_id", "b"), Matcher::equal("x", "y")];
        let enforced = options.enforced(asked);
        assert_eq!(enforced, [Matcher::equal("x", "y"), Matcher::equal("tenant_id", "a")]);
    }
}
