use axum::body::Body;
use chronolith_model::{GoRegex, Labels, Matcher, MetricKind, MetricMetadata};
use chronolith_service::Probes;
use chronolith_storeapi::{
    ActiveTarget, AlertInstance, AlertState, Alerting, Apis, Exemplars, ExemplarsAnswer, ExemplarsRequest,
    Metadata, MetadataAnswer, MetadataRequest, Rule, RuleGroup, Rules, RulesAnswer, RulesRequest,
    SeriesExemplars, TargetHealth, Targets, TargetsAnswer, TargetsRequest,
};
use http::Request;
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use super::testing::{T0, api, api_over, api_with, ask, encode, get, series};
use super::*;
use crate::Config;

fn data(body: &str) -> serde_json::Value {
    let reply: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert_eq!(reply["status"], "success", "{body}");
    reply["data"].clone()
}

#[tokio::test]
async fn every_endpoint_answers_in_its_form() {
    let api = api().await;
    let at = T0 / 1000 + 285;
    let sorted = |path: &str| path.replace("AT", &at.to_string());
    let cases = [
        ("/api/v1/query?query=1%2B1&time=4", r#"{"resultType":"scalar","result":[4,"2"]}"#),
        (
            "/api/v1/query?query=count(up)&time=AT",
            r#"{"resultType":"vector","result":[{"metric":{},"value":[AT,"3"]}]}"#,
        ),
        ("/api/v1/query?query=%22x%22&time=1.5", r#"{"resultType":"string","result":[1.500,"x"]}"#),
        ("/api/v1/query_exemplars?query=up", "[]"),
        ("/api/v1/format_query?query=a%2Bb", r#""a + b""#),
        ("/api/v1/parse_query?query=1", r#"{"type":"numberLiteral","val":"1"}"#),
        ("/api/v1/labels", r#"["__name__","cluster","instance","job"]"#),
        ("/api/v1/labels?match[]=gone", r#"["__name__","cluster"]"#),
        ("/api/v1/labels?limit=2", r#"["__name__","cluster"]"#),
        ("/api/v1/label/instance/values", r#"["h1","h2","h3"]"#),
        ("/api/v1/label/instance/values?limit=1", r#"["h1"]"#),
        ("/api/v1/label/U__cluster/values", r#"["a"]"#),
        // Replica labels are listed, deduplicated or not.
        ("/api/v1/labels?match[]=gone&replicaLabels[]=cluster", r#"["__name__","cluster"]"#),
        ("/api/v1/label/cluster/values?replicaLabels[]=cluster", r#"["a"]"#),
        ("/api/v1/series?match[]=gone&replicaLabels[]=cluster", r#"[{"__name__":"gone"}]"#),
        ("/api/v1/label/none/values", "[]"),
        ("/api/v1/series?match[]=gone", r#"[{"__name__":"gone","cluster":"a"}]"#),
        ("/api/v1/series?match[]=gone&start=0&end=1", "[]"),
        ("/api/v1/metadata", "{}"),
        ("/api/v1/targets", r#"{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}"#),
        ("/api/v1/targets/metadata", "[]"),
        ("/api/v1/scrape_pools", r#"{"scrapePools":[]}"#),
        ("/api/v1/rules", r#"{"groups":[]}"#),
        ("/api/v1/alerts", r#"{"alerts":[]}"#),
        ("/api/v1/alertmanagers", r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#),
        ("/api/v1/status/flags", r#"{"query.timeout":"2m"}"#),
        ("/api/v1/status/config", r#"{"yaml":"endpoints: []\n"}"#),
        ("/api/v1/status/walreplay", r#"{"min":0,"max":0,"current":0}"#),
        ("/api/v1/status/tsdb/blocks", r#"{"blocks":[]}"#),
        ("/api/v1/notifications", "[]"),
    ];
    for (path, want) in cases {
        let (status, body) = get(&api, &sorted(path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        let want: serde_json::Value = serde_json::from_str(&sorted(want)).unwrap();
        assert_eq!(data(&body), want, "{path}");
    }
    let (_, body) = get(&api, "/api/v1/features").await;
    let features = data(&body);
    assert_eq!(features["promql_functions"]["rate"], true);
    assert_eq!(features["promql_functions"]["mad_over_time"], false);
    assert_eq!(features["promql_operators"]["limitk"], false);
    let (_, body) = get(&api, "/api/v1/status/runtimeinfo").await;
    let info = data(&body);
    assert_eq!(info["startTime"], "2023-11-14T22:13:20Z");
    assert!(info["GOMAXPROCS"].as_i64().unwrap() >= 1);
    let (_, body) = get(&api, "/api/v1/status/self_metrics?metric_name_pattern=chronolith_bu.*fo").await;
    let version = env!("CARGO_PKG_VERSION");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    let labels = serde_json::json!([{"name": "version", "value": version}, {"name": "rust", "value": rust}]);
    let family = serde_json::json!([{
        "name": "chronolith_build_info", "help": "Version of this program.", "type": "GAUGE",
        "metric": [{"label": labels, "gauge": {"value": 1}}],
    }]);
    assert_eq!(data(&body), family);
    let (_, body) = get(&api, "/api/v1/status/self_metrics?metric_name_pattern=none_").await;
    assert_eq!(data(&body), serde_json::json!([]));
    let (status, body) = get(&api, "/api/v1/status/self_metrics?metric_name_pattern=%5Binvalid").await;
    assert!(status == 400 && body.contains("bad_data") && body.contains("metric_name_pattern"), "{body}");
    let (status, body) = get(&api, "/api/v1/query_exemplars?query=1").await;
    assert_eq!((status.as_u16(), body.as_str()), (204, ""));
    let (_, body) = get(&api, "/api/v1/label/instance/values?limit=1").await;
    assert!(body.contains(r#""warnings":["results truncated due to limit"]"#), "{body}");
    let (_, body) = get(&api, "/api/v1/label/instance/values?limit=3").await;
    assert!(!body.contains("warnings"), "{body}");
}

#[tokio::test]
async fn refusals_have_upstreams_words() {
    let api = api().await;
    let cases = [
        (
            "query?query=up&time=x",
            r#"invalid parameter "time": invalid time value for 'time': cannot parse "x" to a valid timestamp"#,
        ),
        ("query?query=up&limit=x", r#"invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax"#),
        ("query?query=up&limit=-1", r#"invalid parameter "limit": limit must be non-negative"#),
        ("query?query=up&timeout=x", r#"invalid parameter "timeout": cannot parse "x" to a valid duration"#),
        (
            "query?query=up&lookback_delta=x",
            r#"error parsing lookback delta duration: cannot parse "x" to a valid duration"#,
        ),
        ("query?query=up&dedup=x", r#"'dedup' parameter: strconv.ParseBool: parsing "x": invalid syntax"#),
        (
            "query?query=up&partial_response=2",
            r#"'partial_response' parameter: strconv.ParseBool: parsing "2": invalid syntax"#,
        ),
        ("query?query=up&engine=x", "'x' bad engine"),
        (
            "query?query=up&max_source_resolution=-1s",
            r#"'max_source_resolution' parameter: cannot parse "-1s" to a valid duration"#,
        ),
        (
            "query?query=up&max_source_resolution=-1",
            "negative 'max_source_resolution' is not accepted. Try a positive integer",
        ),
        (
            "query_range?query=up&end=1&step=1",
            r#"invalid parameter "start": cannot parse "" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&start=1&end=x&step=1",
            r#"invalid parameter "end": cannot parse "x" to a valid timestamp"#,
        ),
        (
            "query_range?query=up&start=2&end=1&step=1",
            r#"invalid parameter "end": end timestamp must not be before start time"#,
        ),
        (
            "query_range?query=up&start=1&end=2&step=0",
            r#"invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer"#,
        ),
        (
            "query_range?query=up&start=0&end=11001&step=1",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ),
        ("query_exemplars?query=up&start=2&end=1", "end timestamp must not be before start timestamp"),
        ("series", "no match[] parameter provided"),
        (
            "series?match[]={a=%22%22}",
            r#"invalid parameter "match[]": match[] must contain at least one non-empty matcher"#,
        ),
        ("labels?match[]={a=%22%22}", "match[] must contain at least one non-empty matcher"),
        ("metadata?limit=x", "limit must be a number"),
        ("rules?type=x", r#"invalid parameter "type": not supported value "x""#),
        ("rules?match[]={a=%22%22}", "match[] must contain at least one non-empty matcher"),
        ("metadata?limit_per_metric=x", "limit_per_metric must be a number"),
        ("targets/metadata?limit=x", "limit must be a number"),
        ("scrape_pools/config", "no scrapePool parameter provided"),
        ("targets/relabel_steps?scrapePool=a", "no labels parameter provided"),
    ];
    for (path, want) in cases {
        let (status, body) = get(&api, &format!("/api/v1/{path}")).await;
        assert_eq!(status, 400, "{path}: {body}");
        let reply: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (reply["errorType"].as_str(), reply["error"].as_str()),
            (Some("bad_data"), Some(want)),
            "{path}"
        );
    }
    let (_, body) = get(&api, "/api/v1/query?query=up%20and").await;
    assert!(body.contains(r#"invalid parameter \"query\": 1:7: parse error: "#), "{body}");
    for (method, path, want) in [
        ("GET", "nothing", 404),
        ("POST", "nothing/else", 404),
        ("POST", "label/job/values", 405),
        ("GET", "read", 405),
        ("OPTIONS", "query", 204),
        ("OPTIONS", "nothing", 204),
    ] {
        let request = Request::builder().method(method).uri(format!("/api/v1/{path}"));
        let (status, headers, _) = ask(&api, request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, want, "{method} {path}");
        assert_eq!(headers["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn origins_tenants_and_readiness_are_kept() {
    let matching = CrossOrigin::Matching(GoRegex::new("https?://good").unwrap());
    let config = Config { cross_origin: matching, ..Config::default() };
    let probes = Probes::new();
    let probe = probes.register("receive");
    let api = api_over(config, series(), |api| api.probes = Some(probes.clone())).await;
    let from = async |origin: &str| {
        let request = Request::get("/api/v1/query?query=1").header("origin", origin);
        let (status, headers, _) = ask(&api, request.body(Body::empty()).unwrap()).await;
        let allowed = headers.get("access-control-allow-origin").map(|v| v.to_str().unwrap().to_owned());
        (status.as_u16(), allowed, headers.get("x-prometheus-stopping").is_some())
    };
    assert_eq!(from("http://good").await, (503, Some("http://good".to_owned()), true));
    let (status, body) = get(&api, "/api/v1/notifications").await;
    assert_eq!((status.as_u16(), &data(&body)[0]["text"]), (200, &"Not ready: receive: starting".into()));
    probe.ready();
    assert_eq!(from("http://good").await, (200, Some("http://good".to_owned()), false));
    assert_eq!(from("http://bad").await, (200, None, false));

    let tenancy = Tenancy {
        header: "X-Tenant".to_owned(),
        default_tenant: "h1".to_owned(),
        label: "instance".to_owned(),
    };
    let config = Config { tenancy: Some(tenancy), ..Config::default() };
    let api = api_over(config, series(), |_| {}).await;
    for (tenant, want) in [(None, "h1"), (Some("h2"), "h2")] {
        for path in [
            "/api/v1/query?query=up{instance!=%22h2%22}".to_owned(),
            "/api/v1/query?query=last_over_time(up[1h])%20and%20up".to_owned(),
            format!("/api/v1/query_range?query=up&start={0}&end={0}&step=1", T0 / 1000 + 60),
            "/api/v1/series?match[]=up{instance=%22h3%22}".to_owned(),
        ] {
            let mut request = Request::get(path.as_str());
            if let Some(tenant) = tenant {
                request = request.header("x-tenant", tenant);
            }
            let (_, _, body) = ask(&api, request.body(Body::empty()).unwrap()).await;
            let body = String::from_utf8(body).unwrap();
            let seen: Vec<bool> =
                ["h1", "h2", "h3"].iter().map(|t| body.contains(&format!("\"{t}\""))).collect();
            assert_eq!(seen, ["h1", "h2", "h3"].map(|t| t == want), "{path}: {body}");
        }
    }
    let (_, body) = get(&api, "/api/v1/label/instance/values").await;
    assert_eq!(data(&body), serde_json::json!(["h1"]));
    let (_, body) = get(&api, "/federate?match[]=up").await;
    assert!(body.contains("h1") && !body.contains("h2"), "{body}");
}

#[tokio::test]
async fn shards_share_the_series_and_default_times_hold() {
    let api = api().await;
    let mut seen = Vec::new();
    for index in 0..3 {
        let shard = format!(r#"{{"shard_index":{index},"total_shards":3,"by":true,"labels":["instance"]}}"#);
        let path = format!("/api/v1/query?query=up&shard_info={}", encode(&shard));
        let (_, body) = get(&api, &path).await;
        let found = data(&body);
        seen.extend(found["result"].as_array().unwrap().iter().map(|s| s["metric"]["instance"].to_string()));
    }
    seen.sort();
    assert_eq!(seen, ["\"h1\"", "\"h2\"", "\"h3\""]);
    let config = Config { metadata_range_ms: 1000, ..Config::default() };
    let narrow = api_over(config, series(), |api| {
        api.clock = Arc::new(chronolith_service::ManualClock::new(T0 + 86_400_000));
    })
    .await;
    assert_eq!(data(&get(&narrow, "/api/v1/label/job/values").await.1), serde_json::json!([]));
    let all =
        "/api/v1/label/job/values?start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z";
    assert_eq!(data(&get(&narrow, all).await.1), serde_json::json!(["j"]));
}

#[tokio::test]
async fn federation_has_the_newest_samples() {
    let api = api().await;
    let (status, body) = get(&api, "/federate?match[]=up&match[]={__name__=~%22up|gone%22}").await;
    assert_eq!(status, 200);
    let t = T0 + 285_000;
    // `gone` has its stale marker a second after now.
    let want = format!(
        "# TYPE gone untyped\ngone{{cluster=\"a\",instance=\"\"}} 19 {t}\n# TYPE up untyped\n\
         up{{cluster=\"a\",instance=\"h1\",job=\"j\"}} 19 {t}\nup{{cluster=\"a\",instance=\"h2\",job=\"j\"}} 38 {t}\n\
         up{{cluster=\"a\",instance=\"h3\",job=\"j\"}} 57 {t}\n"
    );
    assert_eq!(body, want);
    let later = api_over(Config::default(), series(), |api| {
        api.clock = Arc::new(chronolith_service::ManualClock::new(T0 + 300_000));
    })
    .await;
    let (_, body) = get(&later, "/federate?match[]=gone").await;
    assert_eq!(body, "");
    assert_eq!(get(&later, "/federate").await.1, "");
    assert_eq!(get(&later, "/federate?match[]=%7B").await.0, 400);
    // What is left without a matcher of the series' own is the request's fault, not the server's.
    let (status, body) = get(&later, "/federate?match[]={cluster=%22a%22}").await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("no matchers specified (excluding external labels)"), "{body}");
}

#[test]
fn a_tenants_matcher_is_its_header() {
    let tenancy =
        Tenancy { header: "X-T".to_owned(), default_tenant: "d".to_owned(), label: "tenant_id".to_owned() };
    let mut headers = http::HeaderMap::new();
    assert_eq!(tenancy.matcher(&headers), Matcher::equal("tenant_id", "d"));
    headers.insert("x-t", "".parse().unwrap());
    assert_eq!(tenancy.matcher(&headers), Matcher::equal("tenant_id", "d"));
    headers.insert("x-t", "a".parse().unwrap());
    assert_eq!(tenancy.matcher(&headers), Matcher::equal("tenant_id", "a"));
}

/// One group with an alerting and a recording rule, one target, exemplars and metadata of one series.
struct Beside;

#[async_trait::async_trait]
impl Rules for Beside {
    async fn rules(&self, request: RulesRequest) -> Result<RulesAnswer, StoreError> {
        let labels = Labels::from_pairs([("alertname", "Down"), ("tier", "1")]).unwrap();
        let alert = AlertInstance {
            labels: labels.clone(),
            annotations: Labels::from_pairs([("summary", "it is down")]).unwrap(),
            state: AlertState::Firing,
            active_at_ms: Some(T0 + 500),
            value: "1e+00".to_owned(),
        };
        let alerting = Alerting {
            state: AlertState::Firing,
            duration_s: 90.5,
            alerts: vec![alert],
            ..Alerting::default()
        };
        let alert = Rule {
            name: "Down".to_owned(),
            query: "up == 0".to_owned(),
            health: "ok".to_owned(),
            last_evaluation_ms: T0,
            alerting: Some(alerting),
            ..Rule::default()
        };
        let record = Rule {
            name: "up:sum".to_owned(),
            health: "err".to_owned(),
            last_error: "boom".to_owned(),
            alerting: None,
            ..alert.clone()
        };
        assert_eq!(request.partial_response, chronolith_storeapi::PartialResponse::Warn);
        let group = |file: &str, rules| RuleGroup {
            name: "g".to_owned(),
            file: file.to_owned(),
            interval_s: 15.0,
            rules,
            ..RuleGroup::default()
        };
        let groups = vec![group("a.yml", vec![alert]), group("b.yml", vec![record])];
        Ok(RulesAnswer { groups, warnings: Vec::new() })
    }
}

#[async_trait::async_trait]
impl Targets for Beside {
    async fn targets(&self, _: TargetsRequest) -> Result<TargetsAnswer, StoreError> {
        let discovered = [("__address__", "x:1"), ("__scrape_interval__", "15s")];
        let target = ActiveTarget {
            discovered_labels: Labels::from_pairs(discovered).unwrap(),
            scrape_pool: "p".to_owned(),
            last_scrape_ms: T0,
            last_scrape_s: 0.5,
            health: TargetHealth::Up,
            ..ActiveTarget::default()
        };
        let dropped = vec![Labels::from_pairs([("__address__", "z:1")]).unwrap()];
        Ok(TargetsAnswer { active: vec![target], dropped, warnings: Vec::new() })
    }
}

#[async_trait::async_trait]
impl Exemplars for Beside {
    async fn exemplars(&self, request: ExemplarsRequest) -> Result<ExemplarsAnswer, StoreError> {
        assert_eq!(request.range, chronolith_model::TimeRange::new(1000, 2500));
        let labels = Labels::from_pairs([("trace_id", "x")]).unwrap();
        let exemplars = vec![chronolith_model::Exemplar { labels, value: 0.5, t: 1500 }];
        let labels = Labels::from_pairs([("__name__", "up")]).unwrap();
        Ok(ExemplarsAnswer { series: vec![SeriesExemplars { labels, exemplars }], warnings: Vec::new() })
    }
}

#[async_trait::async_trait]
impl Metadata for Beside {
    async fn metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let mut answer = MetadataAnswer::default();
        for (name, help) in [("a", "h1"), ("a", "h2"), ("b", "h3")] {
            let says = MetricMetadata { kind: MetricKind::Gauge, help: help.to_owned(), unit: String::new() };
            answer.add(&request, name.to_owned(), [says]);
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn what_stores_have_beside_series_is_in_prometheus_form() {
    let one = Arc::new(Beside);
    let apis = Apis {
        rules: Some(one.clone()),
        targets: Some(one.clone()),
        exemplars: Some(one.clone()),
        metadata: Some(one),
        status: None,
        fold: None,
    };
    let api = api_with(Config::default(), series(), apis, |_| {}).await;
    let alert = serde_json::json!({
        "labels": {"alertname": "Down", "tier": "1"}, "annotations": {"summary": "it is down"},
        "state": "firing", "activeAt": "2023-11-14T22:13:20.5Z", "value": "1e+00",
    });
    let t0 = "2023-11-14T22:13:20Z";
    let alerting = serde_json::json!({
        "state": "firing", "name": "Down", "query": "up == 0", "duration": 90.5, "keepFiringFor": 0, "labels": {},
        "annotations": {}, "alerts": [alert], "health": "ok", "evaluationTime": 0, "lastEvaluation": t0,
        "type": "alerting",
    });
    let recording = serde_json::json!({
        "name": "up:sum", "query": "up == 0", "labels": {}, "health": "err", "lastError": "boom",
        "evaluationTime": 0, "lastEvaluation": t0, "type": "recording",
    });
    let group = |file: &str, rule: &serde_json::Value| {
        serde_json::json!({
            "name": "g", "file": file, "rules": [rule], "interval": 15, "limit": 0, "evaluationTime": 0,
            "lastEvaluation": "1970-01-01T00:00:00Z",
        })
    };
    let of = async |path: &str| data(&get(&api, &format!("/api/v1/{path}")).await.1);
    let both = serde_json::json!([group("a.yml", &alerting), group("b.yml", &recording)]);
    assert_eq!(of("rules").await["groups"], both);
    assert_eq!(of("rules?type=record").await["groups"], serde_json::json!([group("b.yml", &recording)]));
    let paged = of("rules?group_limit=1").await;
    assert_eq!(paged["groups"].as_array().unwrap().len(), 1);
    let next = format!("rules?group_limit=1&group_next_token={}", paged["groupNextToken"].as_str().unwrap());
    assert_eq!(of(&next).await["groups"][0]["file"], "b.yml");
    assert_eq!(
        of("rules?exclude_alerts=true").await["groups"][0]["rules"][0]["alerts"],
        serde_json::json!([])
    );
    assert_eq!(of("alerts").await["alerts"], serde_json::json!([alert]));
    let targets = of("targets").await;
    assert_eq!(targets["activeTargets"][0]["scrapeInterval"], "15s");
    assert_eq!(targets["activeTargets"][0]["lastScrape"], t0);
    assert_eq!(targets["activeTargets"][0]["health"], "up");
    assert_eq!(targets["droppedTargets"], serde_json::json!([{"discoveredLabels": {"__address__": "z:1"}}]));
    assert_eq!(of("targets?state=dropped").await["activeTargets"], serde_json::json!([]));
    assert_eq!(of("targets?scrapePool=q").await["activeTargets"], serde_json::json!([]));
    let exemplars = serde_json::json!([{
        "seriesLabels": {"__name__": "up"},
        "exemplars": [{"labels": {"trace_id": "x"}, "value": "0.5", "timestamp": 1.5}],
    }]);
    assert_eq!(of("query_exemplars?query=up&start=1&end=2.5").await, exemplars);
    let meta = |help: &str| serde_json::json!({"type": "gauge", "help": help, "unit": ""});
    let all = serde_json::json!({"a": [meta("h1"), meta("h2")], "b": [meta("h3")]});
    assert_eq!(of("metadata").await, all);
    assert_eq!(of("metadata?limit=0").await, serde_json::json!({}));
    assert_eq!(of("metadata?metric=b&limit=-1").await, serde_json::json!({"b": [meta("h3")]}));
    assert_eq!(of("metadata?limit=1&limit_per_metric=1").await, serde_json::json!({"a": [meta("h1")]}));
}

/// Names of parameters, and values that some of them take and others stumble over.
const NAMES: [&str; 22] = [
    "query",
    "time",
    "start",
    "end",
    "step",
    "timeout",
    "limit",
    "lookback_delta",
    "stats",
    "match[]",
    "dedup",
    "replicaLabels[]",
    "partial_response",
    "max_source_resolution",
    "storeMatch[]",
    "engine",
    "shard_info",
    "metric",
    "limit_per_metric",
    "match_target",
    "scrapePool",
    "type",
];
const VALUES: [&str; 26] = [
    "",
    "0",
    "1",
    "-1",
    "1.5",
    "1e300",
    "NaN",
    "Inf",
    "9223372036854775807",
    "-9223372036854775808",
    "up",
    "up[5m]",
    "sum(up)",
    "{",
    "{a=\"\"}",
    "1700000000",
    "1700000285.123",
    "2023-11-14T22:14:00Z",
    "5m",
    "1y",
    "auto",
    "true",
    "{\"total_shards\":3,\"shard_index\":9}",
    "\u{0}\u{fffd}ü",
    "all",
    "(((((((((((((((((1)))))))))))))))))",
];
/// What this process does not have, or has switched off.
const ABSENT: [&str; 4] = ["status/tsdb", "search/metric_names", "search/label_names", "search/label_values"];
const PATHS: [&str; 22] = [
    "query",
    "query_range",
    "query_exemplars",
    "format_query",
    "parse_query",
    "features",
    "series",
    "labels",
    "label/job/values",
    "label/U__%00/values",
    "metadata",
    "targets",
    "targets/metadata",
    "rules",
    "alerts",
    "stores",
    "status/tsdb",
    "status/tsdb/blocks",
    "scrape_pools/config",
    "search/metric_names",
    "search/label_names",
    "search/label_values",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever a client sends, it gets a well-formed reply, and no 500 but for what this process does not have.
    #[test]
    fn parameters_never_break_a_handler(
        path in 0..PATHS.len(),
        pairs in proptest::collection::vec((0..NAMES.len(), 0..VALUES.len()), 0..8),
        garbage in "[ -~]{0,12}",
        post in proptest::bool::ANY,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let query: Vec<String> =
            pairs.iter().map(|(n, v)| format!("{}={}", encode(NAMES[*n]), encode(VALUES[*v]))).collect();
        let query = format!("{}&{}", query.join("&"), encode(&garbage));
        let (status, body) = runtime.block_on(async {
            let api = api().await;
            let uri = format!("/api/v1/{}", PATHS[path]);
            let request = if post {
                let form = "application/x-www-form-urlencoded";
                Request::post(uri).header("content-type", form).body(Body::from(query.clone())).unwrap()
            } else {
                Request::get(format!("{uri}?{query}")).body(Body::empty()).unwrap()
            };
            let (status, _, body) = ask(&api, request).await;
            (status.as_u16(), body)
        });
        let text = String::from_utf8(body).unwrap();
        match status {
            204 => prop_assert_eq!(text, ""),
            405 => prop_assert!(post),
            _ => {
                let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
                let kind = reply["errorType"].as_str();
                let fits = match status {
                    200 => kind.is_none() && reply["status"] == "success",
                    400 => kind == Some("bad_data"),
                    422 => kind == Some("execution"),
                    500 => kind == Some("unavailable") && ABSENT.contains(&PATHS[path]),
                    503 => kind == Some("timeout"),
                    _ => false,
                };
                prop_assert!(fits, "{} {}?{}: {}", status, PATHS[path], query, text);
            }
        }
    }
}
