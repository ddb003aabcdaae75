//! `/api/v1/openapi.yaml`: what the API answers, in the form of OpenAPI 3.1, or 3.2 with `openapi_version=3.2`.
//!
//! One table holds paths, methods and parameters; a test holds it to the router. Replies are described as far as they are all
//! alike: the envelope.

use std::fmt::Write as _;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use chronolith_httpapi::{ApiError, Params};
use http::header;

use super::Api;

/// A path below `/api/v1`.
struct Path {
    path: &'static str,
    /// `GET`, `POST` or both; parameters of a `POST` come in a form.
    methods: &'static [&'static str],
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    /// Takes Thanos's parameters, too.
    reads: bool,
}

const GET: &[&str] = &["get"];
const GET_POST: &[&str] = &["get", "post"];
const POST: &[&str] = &["post"];
const POST_PUT: &[&str] = &["post", "put"];

/// Thanos's parameters of whatever reads stores.
const READ: [&str; 6] =
    ["dedup", "replicaLabels[]", "partial_response", "max_source_resolution", "storeMatch[]", "shard_info"];
/// Parameters that a request must have.
const REQUIRED: [&str; 4] = ["query", "start of query_range", "end of query_range", "label"];
const SEARCH: &[&str] = &[
    "match[]",
    "search[]",
    "fuzz_threshold",
    "fuzz_alg",
    "case_sensitive",
    "sort_by",
    "sort_dir",
    "include_score",
    "include_metadata",
    "start",
    "end",
    "limit",
    "batch_size",
];

macro_rules! paths {
    ($($path:literal $methods:ident $tag:literal $reads:literal [$($parameter:literal)*] $summary:literal;)*) => {
        &[$(Path {
            path: $path,
            methods: $methods,
            tag: $tag,
            summary: $summary,
            parameters: &[$($parameter),*],
            reads: $reads,
        }),*]
    };
}

const PATHS: &[Path] = paths! {
    "query" GET_POST "query" true ["query" "time" "timeout" "limit" "lookback_delta" "stats" "analyze"] "Evaluate a query at one time";
    "query_range" GET_POST "query" true ["query" "start" "end" "step" "timeout" "limit" "lookback_delta" "stats" "analyze"] "Evaluate a query over a range of time";
    "query_explain" GET_POST "query" true ["query" "time"] "The operators of a query at one time";
    "query_range_explain" GET_POST "query" true ["query" "start" "end" "step"] "The operators of a query over a range of time";
    "query_exemplars" GET_POST "query" true ["query" "start" "end"] "Exemplars of the series that a query reads";
    "format_query" GET_POST "query" false ["query"] "Format a query";
    "parse_query" GET_POST "query" false ["query"] "The syntax tree of a query";
    "features" GET "status" false [] "What is on and what is off";
    "series" GET_POST "labels" true ["match[]" "start" "end" "limit"] "Series that match";
    "labels" GET_POST "labels" true ["match[]" "start" "end" "limit"] "Label names";
    "label/{name}/values" GET "labels" true ["match[]" "start" "end" "limit"] "Values of a label";
    "search/metric_names" GET_POST "labels" true [] "Metric names that fit what was typed, one JSON object a line";
    "search/label_names" GET_POST "labels" true [] "Label names that fit what was typed, one JSON object a line";
    "search/label_values" GET_POST "labels" true ["label"] "Values of a label that fit what was typed, one JSON object a line";
    "read" POST "remote" true [] "Prometheus's remote read";
    "metadata" GET "labels" true ["metric" "limit" "limit_per_metric"] "Type, help and unit of metrics";
    "scrape_pools" GET "targets" false [] "Empty: nothing is scraped";
    "scrape_pools/config" GET "targets" false ["scrapePool"] "400: there is no pool";
    "targets" GET "targets" true ["state" "scrapePool"] "Targets of the endpoints that have some";
    "targets/metadata" GET "targets" false ["match_target" "metric" "limit"] "Empty: nothing is scraped";
    "targets/relabel_steps" GET "targets" false ["scrapePool" "labels"] "400: there is no pool";
    "alertmanagers" GET "rules" false [] "Empty: no alerts are sent";
    "rules" GET "rules" true ["type" "rule_name[]" "rule_group[]" "file[]" "match[]" "exclude_alerts" "group_limit" "group_next_token"] "Rules of the endpoints that have some";
    "alerts" GET "rules" true [] "Active alerts of these rules";
    "stores" GET "status" false [] "Endpoints by component";
    "status/config" GET "status" false [] "Endpoints of the command line";
    "status/buildinfo" GET "status" false [] "Version";
    "status/runtimeinfo" GET "status" false [] "What the process is doing";
    "status/flags" GET "status" false [] "Flags of the process";
    "status/self_metrics" GET "status" false ["metric_name_pattern"] "This process's own metrics";
    "status/tsdb" GET "status" true ["limit" "match[]"] "Cardinality of the heads of all endpoints";
    "admin/tsdb/delete_series" POST_PUT "admin" false ["match[]" "start" "end"] "Delete series: a request that all readers of the bucket honour";
    "status/tsdb/blocks" GET "status" false [] "Blocks on this process's own disk";
    "status/walreplay" GET "status" false [] "Progress of replaying the log";
    "notifications" GET "status" false [] "What is not as it should be";
    "notifications/live" GET "status" false [] "The same as server-sent events";
    "openapi.yaml" GET "status" false ["openapi_version"] "This document";
};

pub(super) async fn openapi(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let params = Params::read(request).await?;
    let version = if params.get("openapi_version").starts_with("3.2") { "3.2.0" } else { "3.1.0" };
    let headers = [
        (header::CONTENT_TYPE, "application/yaml; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    Ok((headers, document(version, api.build.version)).into_response())
}

fn document(version: &str, build: &str) -> String {
    let mut out = format!(
        "openapi: {version}\ninfo:\n  title: Chronolith\n  description: Prometheus's HTTP API with Thanos's parameters\n  version: {build:?}\npaths:\n"
    );
    for path in PATHS {
        let _ = writeln!(out, "  \"/api/v1/{}\":", path.path);
        for method in path.methods {
            operation(&mut out, path, method);
        }
    }
    out.push_str(
        "components:\n  schemas:\n    Reply:\n      type: object\n      required: [status]\n      properties:\n        \
         status: {type: string, enum: [success, error]}\n        data: {}\n        errorType: {type: string}\n        \
         error: {type: string}\n        warnings: {type: array, items: {type: string}}\n        \
         infos: {type: array, items: {type: string}}\n",
    );
    out
}

fn operation(out: &mut String, path: &Path, method: &str) {
    let id: String =
        path.path.chars().filter(|c| !"{}.".contains(*c)).map(|c| if c == '/' { '_' } else { c }).collect();
    let _ = writeln!(out, "    {method}:\n      operationId: {method}_{id}\n      tags: [{}]", path.tag);
    let _ = writeln!(out, "      summary: {:?}", path.summary);
    let form = method == "post" && path.path != "read";
    let mut parameters: Vec<&str> = path.parameters.to_vec();
    if path.path.starts_with("search/") {
        parameters.extend(
            SEARCH.iter().filter(|p| **p != "include_metadata" || path.path.ends_with("metric_names")),
        );
    }
    if path.reads {
        parameters.extend(READ);
    }
    let in_path = path.path.contains("{name}");
    if in_path || (!form && !parameters.is_empty()) {
        out.push_str("      parameters:\n");
    }
    if in_path {
        out.push_str("      - {name: name, in: path, required: true, schema: {type: string}}\n");
    }
    if form {
        out.push_str(
            "      requestBody:\n        content:\n          application/x-www-form-urlencoded:\n            schema:\n              type: object\n              properties:\n",
        );
    }
    for name in parameters {
        let kind =
            if name.ends_with("[]") { "{type: array, items: {type: string}}" } else { "{type: string}" };
        if form {
            let _ = writeln!(out, "                \"{name}\": {kind}");
        } else {
            let required =
                REQUIRED.contains(&name) || REQUIRED.contains(&format!("{name} of {}", path.path).as_str());
            let _ = writeln!(
                out,
                "      - {{name: \"{name}\", in: query, required: {required}, schema: {kind}}}"
            );
        }
    }
    let content = match path.path {
        "read" => "application/x-protobuf: {}".to_owned(),
        "openapi.yaml" => "application/yaml: {}".to_owned(),
        "notifications/live" => "text/event-stream: {}".to_owned(),
        p if p.starts_with("search/") => "application/x-ndjson: {}".to_owned(),
        _ => "application/json: {schema: {$ref: \"#/components/schemas/Reply\"}}".to_owned(),
    };
    let error = "application/json: {schema: {$ref: \"#/components/schemas/Reply\"}}";
    let _ =
        writeln!(out, "      responses:\n        \"200\": {{description: success, content: {{{content}}}}}");
    let _ = writeln!(out, "        default: {{description: error, content: {{{error}}}}}");
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::testing::{api, get};
    use super::*;

    #[tokio::test]
    async fn the_document_is_yaml_and_knows_the_routes() {
        let api = api().await;
        for (path, version) in [("", "3.1.0"), ("?openapi_version=3.2", "3.2.0")] {
            let (status, body) = get(&api, &format!("/api/v1/openapi.yaml{path}")).await;
            assert_eq!(status, StatusCode::OK);
            assert!(body.starts_with(&format!("openapi: {version}\n")), "{body}");
        }
        for path in PATHS.iter().filter(|p| p.path != "notifications/live") {
            let url = format!("/api/v1/{}", path.path.replace("{name}", "job"));
            let (status, body) = get(&api, &url).await;
            let known = status != StatusCode::NOT_FOUND || body.starts_with('{');
            let allowed = path.methods.contains(&"get") == (status != StatusCode::METHOD_NOT_ALLOWED);
            assert!(known && allowed, "{url}: {status} {body}");
        }
        let routes = include_str!("mod.rs").split(".route(\"/api/v1/").skip(1);
        for route in routes.filter_map(|r| r.split('"').next()).filter(|r| *r != "{*rest}") {
            assert!(PATHS.iter().any(|p| p.path == route), "{route} is not in the document");
        }
    }

    #[test]
    fn it_reads_as_yaml() {
        let text = document("3.1.0", "1.2.3");
        let yaml: serde_json::Value = chronolith_service::config::load_yaml("openapi", &text).unwrap();
        assert_eq!(yaml["paths"]["/api/v1/query"]["get"]["parameters"][0]["name"], "query");
    }
}
