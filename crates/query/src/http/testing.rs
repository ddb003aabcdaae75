//! What the tests of the handlers share: an API over series in memory, asked without a socket.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use chronolith_chunk::{SampleColumns, encode_columns};
use chronolith_model::Labels;
use chronolith_service::{ManualClock, Metrics};
use chronolith_storeapi::{Apis, MemoryStore};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Api, BuildInfo, router};
use crate::{Config, LocalStore, Process, build};

/// The first sample of every series.
pub(super) const T0: i64 = 1_700_000_000_000;

/// `up` of three instances and a histogram; 20 samples each, 15 s apart, the external label `cluster="a"`.
pub(super) fn series() -> Vec<(Labels, SampleColumns)> {
    let floats =
        |factor: f64| SampleColumns::from_floats((0..20).map(|i| (T0 + i * 15_000, factor * i as f64)));
    let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
    let mut all: Vec<_> = (1..=3)
        .map(|i| {
            (labels(&[("__name__", "up"), ("instance", &format!("h{i}")), ("job", "j")]), floats(i as f64))
        })
        .collect();
    let mut stale = floats(1.0);
    stale.push_float(T0 + 300_000, chronolith_model::STALE_NAN);
    all.push((labels(&[("__name__", "gone")]), stale));
    all
}

/// The API over these series and whatever `change` makes of it.
pub(super) async fn api_over(
    config: Config,
    series: Vec<(Labels, SampleColumns)>,
    change: impl FnOnce(&mut Api),
) -> Router {
    api_with(config, series, Apis::default(), change).await
}

/// [`api_over`], with what the store answers beside series.
pub(super) async fn api_with(
    config: Config,
    series: Vec<(Labels, SampleColumns)>,
    apis: Apis,
    change: impl FnOnce(&mut Api),
) -> Router {
    let external = Labels::from_pairs([("cluster", "a")]).unwrap();
    let series = series.into_iter().map(|(l, s)| (l, encode_columns(&s).unwrap())).collect();
    let store = Arc::new(MemoryStore::new(external, series));
    let local = vec![LocalStore { name: "memory".to_owned(), store, apis }];
    let config = Config { http_address: None, grpc_address: None, ..config };
    let built = build(&config, local).await.unwrap();
    let process = Process {
        status: None,
        deletion: None,
        flags: vec![("query.timeout".to_owned(), "2m".to_owned())],
        build: BuildInfo { version: "0.0.1", revision: "abc" },
        started_ms: T0,
        metrics: Metrics::new(),
        probes: None,
    };
    let mut api = built.api(&config, process);
    built.endpoints().refresh().await;
    api.clock = Arc::new(ManualClock::new(T0 + 299_000));
    change(&mut api);
    router(api)
}

/// [`api_over`] the usual series.
pub(super) async fn api() -> Router {
    api_over(Config::default(), series(), |_| {}).await
}

/// Asks, and reads the reply to its end.
pub(super) async fn ask(router: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body =
        body.collect().await.map(|b| b.to_bytes().to_vec()).unwrap_or_else(|e| e.to_string().into_bytes());
    (parts.status, parts.headers, body)
}

/// GET of a path.
pub(super) async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    let (status, _, body) = ask(router, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, String::from_utf8(body).unwrap())
}

/// A value in a URL.
pub(super) fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect()
}
