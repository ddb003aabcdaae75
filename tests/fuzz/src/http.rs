//! The HTTP API's parameters, through the real routes over a small store: any query string gets a JSON envelope and a status of
//! the API's own.
//!
//! Input: the path, a newline, the query string or form.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use chronolith_chunk::encode_floats;
use chronolith_model::Labels;
use chronolith_query::http::{BuildInfo, router};
use chronolith_query::{Config, Features, LocalStore, Process, build};
use chronolith_service::Metrics;
use chronolith_storeapi::{Apis, MemoryStore};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

pub(crate) const WORDS: &[&str] = &[
    "/api/v1/query\n",
    "/api/v1/query_range\n",
    "/api/v1/series\n",
    "/api/v1/labels\n",
    "/api/v1/label/a/values\n",
    "/api/v1/label/U__a_2e_b/values\n",
    "/api/v1/query_exemplars\n",
    "/api/v1/format_query\n",
    "/api/v1/parse_query\n",
    "/api/v1/metadata\n",
    "/federate\n",
    "/api/v1/search/metric_names\n",
    "/api/v1/search/label_names\n",
    "/api/v1/search/label_values\n",
    "query=",
    "&time=",
    "&start=",
    "&end=",
    "&step=",
    "&timeout=",
    "&limit=",
    "&match[]=",
    "&dedup=",
    "&partial_response=",
    "&max_source_resolution=",
    "&replicaLabels[]=",
    "&storeMatch[]=",
    "&lookback_delta=",
    "&stats=all",
    "&analyze=true",
    "&limit_per_metric=",
    "&metric=",
    "&search[]=",
    "&fuzz_threshold=50",
    "&fuzz_alg=jarowinkler",
    "&case_sensitive=0",
    "&sort_by=score",
    "&sort_dir=dsc",
    "&batch_size=1",
    "&label=a",
    "&engine=",
    "1e308",
    "-1",
    "NaN",
    "Inf",
    "9223372036854775807",
    "1970-01-01T00:00:00Z",
    "-292273086-05-16T16:47:06Z",
    "292277025-08-18T07:12:54.999999999Z",
    "5m",
    "99999999999y",
    "1h30m",
    "%00",
    "%ff",
    "%2",
    "%7Ba%3D~%22.%2B%22%7D",
    "up",
    "rate(up[5m])",
    "sum(up)",
    "%5B1h%3A1s%5D",
    "U__",
    "true",
    "0",
];

struct App {
    runtime: Runtime,
    router: Router,
}

fn app() -> &'static App {
    static APP: OnceLock<App> = OnceLock::new();
    APP.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let _entered = runtime.enter();
        let ts: Vec<i64> = (0..100).map(|i| i * 15_000).collect();
        let values: Vec<f64> = ts.iter().map(|t| *t as f64).collect();
        let series = ["1", "2"].map(|a| {
            let labels = Labels::from_pairs([("__name__", "up"), ("a", a)]).expect("valid labels");
            (labels, encode_floats(&ts, &values))
        });
        let external = Labels::from_pairs([("replica", "a")]).expect("valid labels");
        let store = Arc::new(MemoryStore::new(external, series.into()));
        let config = Config {
            http_address: None,
            grpc_address: None,
            replica_labels: vec!["replica".to_owned()],
            samples_max: 20_000,
            timeout: Duration::from_secs(2),
            features: Features { search_api: true, ..Features::default() },
            ..Config::default()
        };
        let local = vec![LocalStore { name: "memory".to_owned(), store, apis: Apis::default() }];
        let built = runtime.block_on(build(&config, local)).expect("a querier without sockets");
        let process = Process {
            status: None,
            deletion: None,
            flags: Vec::new(),
            build: BuildInfo { version: "0", revision: "0" },
            started_ms: 0,
            metrics: Metrics::new(),
            probes: None,
        };
        let router = router(built.api(&config, process));
        drop(_entered);
        App { runtime, router }
    })
}

pub(crate) fn run(data: &[u8]) {
    let split = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let Ok(path) = std::str::from_utf8(&data[..split]) else { return };
    let params = data.get(split + 1..).unwrap_or_default();
    if !path.starts_with('/') {
        return;
    }
    let form = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    send(form.body(Body::from(params.to_vec())));
    if let Ok(query) = std::str::from_utf8(params) {
        send(Request::get(format!("{path}?{query}")).body(Body::empty()));
    }
}

/// Sends a request, if it is one at all, and judges the answer.
fn send(request: Result<Request<Body>, http::Error>) {
    let Ok(request) = request else { return };
    let App { runtime, router } = app();
    let asked = format!("{} {}", request.method(), request.uri());
    let is_query = request.uri().path().starts_with("/api/v1/query");
    let (status, body) = runtime.block_on(async {
        let response = router.clone().oneshot(request).await.expect("the router never fails");
        let (parts, body) = response.into_parts();
        (parts.status, body.collect().await.map(|b| b.to_bytes()).unwrap_or_default())
    });
    let text = String::from_utf8_lossy(&body);
    let known = [
        StatusCode::OK,
        StatusCode::NO_CONTENT,
        StatusCode::BAD_REQUEST,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::UNPROCESSABLE_ENTITY,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    assert!(known.contains(&status), "{asked}: {status} {text}");
    if !is_query {
        return;
    }
    if status == StatusCode::OK || status == StatusCode::BAD_REQUEST {
        let json: serde_json::Value =
            serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{asked}: {e}: {text}"));
        let wanted = if status == StatusCode::OK { "success" } else { "error" };
        assert_eq!(json["status"], wanted, "{asked}: {text}");
    }
}
