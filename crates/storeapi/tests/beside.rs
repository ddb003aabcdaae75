//! Exemplars, metric metadata, rules and targets over a socket and through the fan-out.
#![cfg(feature = "contract")]
#![allow(missing_docs)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chronolith_model::{Exemplar, Labels, MetricKind, MetricMetadata, TimeRange};
use chronolith_storeapi::{
    ActiveTarget, AlertInstance, AlertState, Alerting, Apis, ClientOptions, Endpoint, Endpoints, ErrorKind,
    Exemplars, ExemplarsAnswer, ExemplarsRequest, Fanout, FanoutOptions, MemoryStore, Metadata,
    MetadataAnswer, MetadataRequest, PartialResponse, Rule, RuleGroup, RuleKind, Rules, RulesAnswer,
    RulesRequest, SeriesExemplars, ServerOptions, Services, Statistic, Status, StatusAnswer, StatusRequest,
    StoreClient, StoreError, TargetHealth, Targets, TargetsAnswer, TargetsRequest, TsdbStatistics, serve,
};
use tokio::net::TcpListener;

/// Answers what it was given, and remembers what it was asked.
#[derive(Default)]
struct Fixed {
    series: Vec<SeriesExemplars>,
    metadata: Vec<(&'static str, MetricMetadata)>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Exemplars for Fixed {
    async fn exemplars(&self, request: ExemplarsRequest) -> Result<ExemplarsAnswer, StoreError> {
        self.asked.lock().unwrap().push(format!("{:?} {:?}", request.selectors, request.range));
        Ok(ExemplarsAnswer { series: self.series.clone(), warnings: vec!["careful".to_owned()] })
    }
}

#[async_trait]
impl Metadata for Fixed {
    async fn metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let mut answer = MetadataAnswer::default();
        for (metric, says) in &self.metadata {
            answer.add(&request, (*metric).to_owned(), [says.clone()]);
        }
        Ok(answer)
    }
}

#[async_trait]
impl Rules for Fixed {
    async fn rules(&self, request: RulesRequest) -> Result<RulesAnswer, StoreError> {
        self.asked.lock().unwrap().push(format!("{:?} {:?}", request.kind, request.selectors));
        let alert = AlertInstance {
            labels: labels(&[("alertname", "a"), ("team", "t")]),
            annotations: labels(&[("summary", "s")]),
            state: AlertState::Firing,
            active_at_ms: Some(1_700_000_000_123),
            value: "1e+00".to_owned(),
        };
        let alerting = Alerting {
            state: AlertState::Firing,
            duration_s: 60.0,
            keep_firing_for_s: 5.0,
            annotations: labels(&[("summary", "{{ $value }}")]),
            alerts: vec![alert],
        };
        let rule = |name: &str, alerting| Rule {
            name: name.to_owned(),
            query: "up == 0".to_owned(),
            labels: labels(&[("team", "t"), ("replica", "r")]),
            health: "err".to_owned(),
            last_error: "e".to_owned(),
            evaluation_s: 0.5,
            last_evaluation_ms: -62_135_596_800_000,
            alerting,
        };
        let group = RuleGroup {
            name: "g".to_owned(),
            file: "f".to_owned(),
            rules: vec![rule("a", Some(alerting)), rule("r", None)],
            interval_s: 15.0,
            evaluation_s: 0.25,
            last_evaluation_ms: 1_700_000_000_001,
            limit: 3,
        };
        Ok(RulesAnswer { groups: vec![group], warnings: vec!["late".to_owned()] })
    }
}

#[async_trait]
impl Targets for Fixed {
    async fn targets(&self, _: TargetsRequest) -> Result<TargetsAnswer, StoreError> {
        let target = ActiveTarget {
            discovered_labels: labels(&[("__address__", "x:1")]),
            labels: labels(&[("job", "j"), ("replica", "r")]),
            scrape_pool: "p".to_owned(),
            scrape_url: "http://x:1/metrics".to_owned(),
            global_url: "http://y:1/metrics".to_owned(),
            last_error: "refused".to_owned(),
            last_scrape_ms: 1_700_000_000_500,
            last_scrape_s: 0.125,
            health: TargetHealth::Down,
        };
        let dropped = vec![labels(&[("__address__", "z:1")])];
        Ok(TargetsAnswer { active: vec![target], dropped, warnings: Vec::new() })
    }
}

#[async_trait]
impl Status for Fixed {
    async fn tsdb_statistics(&self, request: StatusRequest) -> Result<StatusAnswer, StoreError> {
        self.asked.lock().unwrap().push(format!("{} {:?}", request.limit, request.matchers.len()));
        let list = |name: &str, value| vec![Statistic { name: name.to_owned(), value }];
        let statistics = TsdbStatistics {
            series: 7,
            label_pairs: 9,
            chunks: 21,
            mint: -5,
            maxt: 1 << 50,
            series_by_metric: list("up", 7),
            values_by_label: list("job", 2),
            bytes_by_label: list("job", 30),
            series_by_pair: list("job=a", 3),
        };
        Ok(StatusAnswer {
            tenants: [("t".to_owned(), statistics)].into(),
            warnings: vec!["careful".to_owned()],
        })
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn exemplar(trace: &str, value: f64, t: i64) -> Exemplar {
    Exemplar { labels: labels(&[("trace_id", trace)]), value, t }
}

fn meta(kind: MetricKind, help: &str) -> MetricMetadata {
    MetricMetadata { kind, help: help.to_owned(), unit: "s".to_owned() }
}

/// An endpoint behind a socket, with the APIs that its Info names.
async fn endpoint(name: &str, external: &[(&str, &str)], source: Option<Arc<Fixed>>) -> Arc<Endpoint> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let services = Services {
        store: Some(Arc::new(MemoryStore::new(labels(external), Vec::new()))),
        exemplars: source.clone().map(|s| s as _),
        metadata: source.clone().map(|s| s as _),
        rules: source.clone().map(|s| s as _),
        targets: source.clone().map(|s| s as _),
        status: source.map(|s| s as _),
        ..Services::default()
    };
    tokio::spawn(async move {
        serve(listener, services, ServerOptions::default(), std::future::pending()).await.unwrap();
    });
    let client = Arc::new(StoreClient::new(&address, &ClientOptions::default()).unwrap());
    let info = client.endpoint_info().await.unwrap();
    let apis = Apis {
        exemplars: info.exemplars.then(|| client.clone() as _),
        metadata: info.metadata.then(|| client.clone() as _),
        rules: info.rules.then(|| Arc::clone(&client) as _),
        targets: info.targets.then(|| Arc::clone(&client) as _),
        status: info.status.then(|| Arc::clone(&client) as _),
        fold: info.fold.then(|| Arc::clone(&client) as _),
    };
    Arc::new(Endpoint { name: name.to_owned(), store: client, info: info.store.unwrap(), local: false, apis })
}

fn fanout(up: Vec<Arc<Endpoint>>, down: Vec<String>) -> Fanout {
    Fanout::new(Arc::new(Arc::new(Endpoints { up, down })), FanoutOptions::default())
}

#[tokio::test]
async fn exemplars_of_replicas_are_one_series() {
    let source = |replica: &str, exemplars: Vec<Exemplar>| {
        let series = labels(&[("__name__", "m"), ("replica", replica)]);
        Arc::new(Fixed { series: vec![SeriesExemplars { labels: series, exemplars }], ..Fixed::default() })
    };
    let a = source("a", vec![exemplar("1", 1.0, 10), exemplar("2", f64::NAN, 20)]);
    let b = source("b", vec![exemplar("2", f64::NAN, 20), exemplar("0", 5.0, 5)]);
    let up = vec![
        endpoint("a", &[("replica", "a")], Some(a.clone())).await,
        endpoint("b", &[("replica", "b")], Some(b.clone())).await,
        endpoint("without", &[], None).await,
    ];
    let fanout = fanout(up, vec!["gone".to_owned()]);
    let mut request =
        ExemplarsRequest::of_query(r#"m{x="1"} + m{replica="a"}"#, TimeRange::new(-5, 100)).unwrap();
    request.without_replica_labels = vec!["replica".to_owned()];
    let answer = fanout.exemplars(request.clone()).await.unwrap();
    assert_eq!(answer.warnings, ["gone: store is down", "careful", "careful"]);
    assert_eq!(answer.series.len(), 1);
    assert_eq!(answer.series[0].labels, labels(&[("__name__", "m")]));
    let got: Vec<_> = answer.series[0].exemplars.iter().map(|e| (e.t, e.labels.to_string())).collect();
    let want = [(5, r#"{trace_id="0"}"#), (10, r#"{trace_id="1"}"#), (20, r#"{trace_id="2"}"#)];
    assert_eq!(got, want.map(|(t, l)| (t, l.to_owned())));
    let asked = |source: &Fixed| source.asked.lock().unwrap().remove(0);
    assert!(asked(&a).starts_with(r#"[[x="1", __name__="m"], [replica="a", __name__="m"]] "#));
    assert!(asked(&b).starts_with(r#"[[x="1", __name__="m"]] "#), "a replica of another name is not asked");
    request.partial_response = PartialResponse::Abort;
    assert_eq!(fanout.exemplars(request).await.unwrap_err().kind(), ErrorKind::Aborted);
}

#[tokio::test]
async fn metadata_of_many_writers_is_gathered() {
    let source = |metadata| Arc::new(Fixed { metadata, ..Fixed::default() });
    let a = source(vec![("up", meta(MetricKind::Gauge, "is it")), ("x", meta(MetricKind::StateSet, ""))]);
    let b = source(vec![("up", meta(MetricKind::Gauge, "is it")), ("up", meta(MetricKind::Counter, "no"))]);
    let up = vec![endpoint("a", &[], Some(a)).await, endpoint("b", &[], Some(b)).await];
    let fanout = fanout(up, Vec::new());
    let answer = fanout.metadata(MetadataRequest::default()).await.unwrap();
    assert_eq!(answer.metrics.len(), 2);
    assert_eq!(answer.metrics["up"], [meta(MetricKind::Gauge, "is it"), meta(MetricKind::Counter, "no")]);
    assert_eq!(answer.metrics["x"], [meta(MetricKind::StateSet, "")]);
    let one = MetadataRequest { metric: Some("x".to_owned()), ..MetadataRequest::default() };
    assert_eq!(fanout.metadata(one).await.unwrap().metrics.keys().collect::<Vec<_>>(), ["x"]);
    let limited = MetadataRequest { limit: Some(1), ..MetadataRequest::default() };
    assert_eq!(fanout.metadata(limited).await.unwrap().metrics.len(), 1);
    let none = MetadataRequest { limit: Some(0), ..MetadataRequest::default() };
    assert_eq!(fanout.metadata(none).await.unwrap().metrics.len(), 0);
}

#[tokio::test]
async fn rules_and_targets_come_as_they_are_and_replicas_once() {
    let source = Arc::new(Fixed::default());
    let a = endpoint("a", &[("cluster", "a")], Some(source.clone())).await;
    let b = endpoint("b", &[("cluster", "b")], Some(source.clone())).await;
    let none = endpoint("none", &[("cluster", "c")], None).await;
    let fanout = fanout(vec![a, b, none], vec!["gone".to_owned()]);
    let selectors = vec![chronolith_promql::parser::parse_selector(r#"{team="t"}"#).unwrap()];
    let request = RulesRequest {
        kind: Some(RuleKind::Alerting),
        selectors,
        without_replica_labels: vec!["replica".to_owned()],
        ..RulesRequest::default()
    };
    let sent = Fixed::default().rules(request.clone()).await.unwrap().groups.remove(0);
    let found = fanout.rules(request.clone()).await.unwrap();
    assert_eq!(source.asked.lock().unwrap().len(), 2);
    assert!(source.asked.lock().unwrap()[0].starts_with("Some(Alerting) [["), "the request arrives");
    let mut expected = sent.clone();
    expected.rules.truncate(1);
    expected.rules[0].labels = labels(&[("team", "t")]);
    assert_eq!(found.groups, [expected]);
    assert_eq!(found.warnings.iter().filter(|w| w.contains("late")).count(), 2);
    assert!(found.warnings.iter().any(|w| w.contains("gone")), "{:?}", found.warnings);
    let all = RulesRequest { kind: None, selectors: vec![], ..request };
    assert_eq!(fanout.rules(all.clone()).await.unwrap().groups[0].rules[1].name, "r");
    let abort = RulesRequest { partial_response: PartialResponse::Abort, ..all };
    assert_eq!(fanout.rules(abort).await.unwrap_err().kind(), ErrorKind::Aborted);

    let request = TargetsRequest {
        active: true,
        dropped: true,
        partial_response: PartialResponse::Warn,
        without_replica_labels: vec!["replica".to_owned()],
    };
    let mut sent = Fixed::default().targets(request.clone()).await.unwrap();
    sent.active[0].labels = labels(&[("job", "j")]);
    let found = fanout.targets(request).await.unwrap();
    assert_eq!((found.active, found.dropped), (sent.active, sent.dropped));
}

#[tokio::test]
async fn statistics_of_receivers_are_added_up() {
    let source = Arc::new(Fixed::default());
    let a = endpoint("a", &[("cluster", "a")], Some(source.clone())).await;
    let none = endpoint("none", &[("cluster", "c")], None).await;
    assert!(!fanout(vec![none.clone()], vec![]).has_status());
    let twice = fanout(vec![a.clone(), a, none], vec!["gone".to_owned()]);
    let matchers = vec![chronolith_model::Matcher::equal("tenant_id", "t")];
    let request = StatusRequest { limit: 3, matchers, ..StatusRequest::default() };
    let one = source.tsdb_statistics(request.clone()).await.unwrap().tenants.remove("t").unwrap();
    let mut answer = twice.tsdb_statistics(request).await.unwrap();
    assert_eq!(answer.warnings, ["gone: store is down", "careful", "careful"]);
    assert_eq!(*source.asked.lock().unwrap(), ["3 1"; 3]);
    let mut both = one.clone();
    both.add(one);
    assert_eq!((both.series, both.series_by_metric[0].value), (14, 14));
    assert_eq!(answer.tenants.remove("t"), Some(both));
}
