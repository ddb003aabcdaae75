//! `/`: where things are. Clients ask for it to see whether a server is there (`prometheus-api-client`'s connection check).

use axum::extract::State;
use axum::response::Html;

use super::Api;

pub(super) async fn index(State(api): State<Api>) -> Html<String> {
    let version = api.build.version;
    // Links are relative, so that they hold behind a prefix.
    Html(format!(
        "<!doctype html><title>Chronolith</title><h1>Chronolith {version}</h1>\
         <p>This address is for a Grafana data source of type Prometheus. PromQL: <code>api/v1/query</code>, \
         <code>api/v1/query_range</code>.</p>\
         <ul><li><a href=\"api/v1/stores\">stores</a><li><a href=\"api/v1/status/flags\">flags</a>\
         <li><a href=\"metrics\">metrics</a><li><a href=\"-/ready\">ready</a></ul>\n"
    ))
}
