//! Exemplars and metric metadata over a socket and through the fan-out.
#![cfg(feature = "contract")]
#![allow(missing_docs)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chronolith_model::{Exemplar, Labels, MetricKind, MetricMetadata, TimeRange};
use chronolith_storeapi::{
    Apis, ClientOptions, Endpoint, Endpoints, ErrorKind, Exemplars, ExemplarsAnswer, ExemplarsRequest,
    Fanout, FanoutOptions, MemoryStore, Metadata, MetadataAnswer, MetadataRequest, PartialResponse,
    SeriesExemplars, ServerOptions, Services, StoreClient, StoreError, serve,
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
        metadata: source.map(|s| s as _),
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
