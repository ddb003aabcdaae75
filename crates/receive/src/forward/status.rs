//! `GET /api/v1/status/hashring`: the rings, and how this receiver sees the others.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use chronolith_storeapi::PeerForm;
use serde_json::{Value, json};

use super::sink::RingSink;

/// The route.
pub(crate) fn router(sink: Arc<RingSink>) -> Router {
    let handler = move || {
        let sink = Arc::clone(&sink);
        async move { axum::Json(json!({"status": "success", "data": status(&sink)})).into_response() }
    };
    Router::new().route("/api/v1/status/hashring", get(handler))
}

fn status(sink: &RingSink) -> Value {
    let Some(rings) = sink.rings() else {
        return json!({"replicationFactor": sink.options().replication_factor, "hashrings": [], "endpoints": []});
    };
    let default = sink.options().algorithm;
    let hashrings: Vec<Value> = rings
        .configs()
        .map(|c| {
            json!({
                "name": c.name,
                "algorithm": c.algorithm.unwrap_or(default).as_str(),
                "tenants": c.tenants.texts(),
                "tenantMatcherType": c.tenants.matcher_type(),
                "endpoints": c.endpoints.iter().map(|e| e.address.as_str()).collect::<Vec<_>>(),
                "shardSize": c.shuffle.shard_size,
            })
        })
        .collect();
    let peers = sink.peers();
    let endpoints: Vec<Value> = rings
        .endpoints()
        .iter()
        .map(|e| {
            let Some(peer) = peers.iter().find(|p| p.address() == e.address) else {
                return json!({"address": e.address, "az": e.az, "local": sink.is_local(&e.address), "health": "up"});
            };
            let state = peer.state();
            json!({
                "address": e.address,
                "az": e.az,
                "local": false,
                "health": if state.backoff.is_some() { "down" } else if state.form == PeerForm::Unknown { "unknown" } else { "up" },
                "protocol": match state.form {
                    PeerForm::Unknown => "unknown",
                    PeerForm::Thanos => "thanos",
                    PeerForm::Own => "chronolith",
                },
                "backoffSeconds": state.backoff.as_ref().map_or(0.0, |b| b.0.as_secs_f64()),
                "lastError": state.backoff.map_or_else(String::new, |b| b.1),
                "queueShares": state.queue_shares,
                "queueBytes": state.queue_bytes,
                "queueBytesMax": state.queue_bytes_max,
                "hintsPendingBytes": sink.hints(&e.address).bytes,
            })
        })
        .collect();
    json!({
        "replicationFactor": rings.replication_factor(),
        "localEndpoint": sink.options().local_endpoint,
        "hashrings": hashrings,
        "endpoints": endpoints,
    })
}
