//! `/api/v1/status/{buildinfo,runtimeinfo,flags,config,walreplay}` and Thanos's `/api/v1/stores`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use chronolith_httpapi::{Annotations, JsonBuf, success, write_labels};

use super::{Api, EndpointStatus};

/// What this binary is.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// Version of the release.
    pub version: &'static str,
    /// Commit, where known.
    pub revision: &'static str,
}

pub(super) async fn build_info(State(api): State<Api>) -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"version":"#).string(api.build.version).raw(r#","revision":"#).string(api.build.revision);
        j.raw(r#","branch":"","buildUser":"","buildDate":"","goVersion":""}"#);
    })
}

/// What the runtime of a Rust process has in common with upstream's. `goroutineCount` counts tasks, `GOMAXPROCS` worker
/// threads.
pub(super) async fn runtime_info(State(api): State<Api>) -> Response {
    let started = rfc3339(api.started_ms);
    let directory = std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let metrics = tokio::runtime::Handle::current().metrics();
    let retention = api.flags.iter().find(|(name, _)| name == "tsdb.retention").map_or("", |(_, v)| v);
    success(&Annotations::default(), |j| {
        j.raw(r#"{"startTime":"#).string(&started).raw(r#","CWD":"#).string(&directory);
        j.raw(r#","hostname":"#).string(hostname.trim_end());
        j.raw(r#","serverTime":"#).string(&rfc3339(api.clock.now_ms()));
        j.raw(r#","reloadConfigSuccess":true,"lastConfigTime":"#).string(&started);
        j.raw(r#","corruptionCount":0,"goroutineCount":"#).int(metrics.num_alive_tasks() as i64);
        j.raw(r#","GOMAXPROCS":"#).int(metrics.num_workers() as i64);
        j.raw(r#","GOMEMLIMIT":0,"GOGC":"","GODEBUG":"","storageRetention":"#).string(retention).raw("}");
    })
}

pub(super) async fn flags(State(api): State<Api>) -> Response {
    success(&Annotations::default(), |j| {
        j.raw("{");
        for (i, (name, value)) in api.flags.iter().enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(name).raw(":").string(value);
        }
        j.raw("}");
    })
}

pub(super) async fn config(State(api): State<Api>) -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"yaml":"#).string(&api.config_yaml).raw("}");
    })
}

/// Upstream's numbers are segments of its log. Ours is replayed in parallel and counts none; whether it is done is what
/// `/-/ready` says.
pub(super) async fn wal_replay() -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"min":0,"max":0,"current":0}"#);
    })
}

/// Thanos's `/api/v1/stores`: component to its endpoints.
pub(super) async fn stores(State(api): State<Api>) -> Response {
    let mut by_component: BTreeMap<String, Vec<EndpointStatus>> = BTreeMap::new();
    for endpoint in api.endpoints.iter().flat_map(|list| list()) {
        by_component.entry(endpoint.component.clone()).or_default().push(endpoint);
    }
    success(&Annotations::default(), |j| {
        j.raw("{");
        for (i, (component, endpoints)) in by_component.iter().enumerate() {
            j.raw(if i > 0 { "," } else { "" }).string(component).raw(":").array(endpoints, write_endpoint);
        }
        j.raw("}");
    })
}

fn write_endpoint(j: &mut JsonBuf, endpoint: &EndpointStatus) {
    j.raw(r#"{"name":"#)
        .string(&endpoint.name)
        .raw(r#","lastCheck":"#)
        .string(&rfc3339(endpoint.last_check_ms));
    j.raw(r#","lastError":"#);
    match &endpoint.last_error {
        Some(text) => j.string(text),
        None => j.raw("null"),
    };
    j.raw(r#","labelSets":"#).array(&endpoint.label_sets, write_labels);
    j.raw(r#","minTime":"#).int(endpoint.mint).raw(r#","maxTime":"#).int(endpoint.maxt).raw("}");
}

/// A time as JSON replies show it.
pub(super) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|t| t.to_string()).unwrap_or_default()
}
