//! Client and server over a socket: the contract, limits, writes, dead servers.
#![cfg(feature = "contract")]
#![allow(missing_docs)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chronolith_model::write::{decode_labels, encode_labels};
use chronolith_model::{Labels, Matcher, Sample, TenantId, TimeRange, WriteBatch, WriteBatchBuilder};
use chronolith_storeapi::contract::{StoreFixture, T0, TestSeries};
use chronolith_storeapi::{
    ClientOptions, ErrorKind, MemoryStore, PeerSink, RejectKind, SeriesEvent, SeriesLimits, SeriesRequest,
    ServerOptions, Services, Store, StoreClient, StoreError, WriteError, WriteRejection, WriteReport,
    WriteSink, serve,
};
use futures::StreamExt as _;
use tokio::net::TcpListener;

async fn start(services: Services, options: ServerOptions) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { serve(listener, services, options, std::future::pending()).await.unwrap() });
    address
}

fn memory(external: &Labels, series: &[TestSeries]) -> Services {
    let series = series.iter().map(|s| (s.labels.clone(), s.chunks())).collect();
    Services { store: Some(Arc::new(MemoryStore::new(external.clone(), series))), ..Services::default() }
}

struct Remote {
    batch_size: usize,
}

#[async_trait]
impl StoreFixture for Remote {
    async fn load(&self, external: &Labels, series: &[TestSeries]) -> Arc<dyn Store> {
        let address = start(memory(external, series), ServerOptions::default()).await;
        let options = ClientOptions { batch_size: self.batch_size, ..ClientOptions::default() };
        Arc::new(StoreClient::new(&address, &options).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_and_server_keep_the_contract() {
    for batch_size in [1, 3, 256] {
        chronolith_storeapi::contract::run(&Remote { batch_size }).await;
    }
}

async fn first_error(store: &dyn Store, request: SeriesRequest) -> Option<StoreError> {
    let mut stream = match store.series(request).await {
        Ok(stream) => stream,
        Err(error) => return Some(error),
    };
    while let Some(event) = stream.next().await {
        if let Err(error) = event {
            return Some(error);
        }
    }
    None
}

#[tokio::test]
async fn limits_are_named() {
    let series: Vec<_> =
        (0..10).map(|i| TestSeries::new(&[("__name__", "m"), ("i", &i.to_string())], 0, 240)).collect();
    let cases = [
        (SeriesLimits { series_max: 9, ..Default::default() }, Some("series")),
        (SeriesLimits { series_max: 10, ..Default::default() }, None),
        (SeriesLimits { samples_max: 2399, ..Default::default() }, Some("samples")),
        (SeriesLimits { samples_max: 2400, ..Default::default() }, None),
        (SeriesLimits { bytes_max: 100, ..Default::default() }, Some("bytes")),
    ];
    for (limits, named) in cases {
        let options = ServerOptions { limits, ..ServerOptions::default() };
        let address = start(memory(&Labels::empty(), &series), options).await;
        let client = StoreClient::new(&address, &ClientOptions::default()).unwrap();
        let request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "m")]);
        match (first_error(&client, request).await, named) {
            (None, None) => {}
            (Some(error), Some(named)) => {
                assert_eq!(error.kind(), ErrorKind::LimitExceeded);
                assert!(error.message().contains(&format!("exceeded {named} limit")), "{error}");
            }
            (got, want) => panic!("{got:?}, expected {want:?}"),
        }
    }
}

#[tokio::test]
async fn large_series_come_in_several_frames() {
    let series = vec![TestSeries {
        labels: Labels::from_pairs([("__name__", "big")]).unwrap(),
        // Values without pattern, about 8 bytes a sample: over 2 MiB.
        samples: (0..300_000).map(|i: i64| (T0 + i, (i as f64 * 0.7713).sin())).collect(),
    }];
    let address = start(memory(&Labels::empty(), &series), ServerOptions::default()).await;
    let client = StoreClient::new(&address, &ClientOptions::default()).unwrap();
    let request = SeriesRequest::new(TimeRange::ALL, vec![Matcher::equal("__name__", "big")]);
    let events: Vec<_> = client.series(request).await.unwrap().collect().await;
    assert!(events.len() >= 2, "{} frames", events.len());
    let mut chunks = Vec::new();
    for event in events {
        let Ok(SeriesEvent::Batch(batch)) = event else { panic!("only series were expected") };
        chunks.extend(batch.into_iter().flat_map(|s| s.chunks));
    }
    let want = series[0].chunks();
    assert_eq!(chunks.iter().map(|c| c.raw().unwrap().clone()).collect::<Vec<_>>(), want);
}

#[tokio::test]
async fn no_server_is_unavailable_and_a_new_one_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = StoreClient::new(&address.to_string(), &ClientOptions::default()).unwrap();
    let error = client.info().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(error.chain().contains("refused"), "{}", error.chain());

    let listener = TcpListener::bind(address).await.unwrap();
    let services = memory(&Labels::empty(), &[TestSeries::new(&[("__name__", "m")], 0, 1)]);
    tokio::spawn(serve(listener, services, ServerOptions::default(), std::future::pending()));
    assert_eq!(client.info().await.unwrap().component, "store");
}

#[tokio::test]
async fn a_silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ClientOptions { info_timeout: Duration::from_millis(50), ..ClientOptions::default() };
    let client = StoreClient::new(&listener.local_addr().unwrap().to_string(), &options).unwrap();
    assert_eq!(client.info().await.unwrap_err().kind(), ErrorKind::Timeout);
}

/// Remembers what was written, and rejects series that are named so.
#[derive(Default)]
struct Recorder(Mutex<Vec<(String, Vec<String>, usize)>>);

#[async_trait]
impl WriteSink for Recorder {
    async fn write(&self, tenant: &TenantId, batch: WriteBatch) -> Result<WriteReport, WriteError> {
        let mut report = WriteReport { written: batch.sample_count(), ..WriteReport::default() };
        let mut names = Vec::new();
        for series in batch.iter() {
            let labels: Vec<_> = decode_labels(series.labels).map(Result::unwrap).collect();
            let name = labels[0].1.to_owned();
            let kind = match name.as_str() {
                "conflict" => Some(RejectKind::Conflict),
                "invalid" => Some(RejectKind::Invalid),
                _ => None,
            };
            if let Some(kind) = kind {
                let series = name.clone();
                report.reject(1, || WriteRejection {
                    kind,
                    series,
                    t: None,
                    reason: "out of order sample".into(),
                });
            }
            names.push(name);
        }
        self.0.lock().unwrap().push((tenant.to_string(), names, batch.sample_count()));
        Ok(report)
    }
}

fn batch(name: &str) -> WriteBatch {
    let mut builder = WriteBatchBuilder::default();
    builder.start(0);
    let mut section = Vec::new();
    encode_labels([("__name__", name)], &mut section);
    builder.push_series_bytes(&section);
    builder.push_sample(Sample { t: 1, v: 2.0 });
    builder.finish(bytes::Bytes::new())
}

#[tokio::test]
async fn writes_reach_the_sink_for_their_replica() {
    let (all, local) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
    let services =
        Services { write: Some(all.clone()), write_local: Some(local.clone()), ..Services::default() };
    let address = start(services, ServerOptions::default()).await;
    let peer = PeerSink::new(&address, &ClientOptions::default(), Duration::from_secs(5)).unwrap();
    let tenant = TenantId::new("team-a").unwrap();
    assert_eq!(peer.write(&tenant, batch("up")).await.unwrap().written, 1);
    peer.for_replica(2).write(&tenant, batch("up")).await.unwrap();
    let want = [("team-a".to_owned(), vec!["up".to_owned()], 1)];
    assert_eq!(*all.0.lock().unwrap(), want);
    assert_eq!(*local.0.lock().unwrap(), want);
    for (name, kind) in [("conflict", ErrorKind::Conflict), ("invalid", ErrorKind::Invalid)] {
        let error = peer.write(&tenant, batch(name)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.message().contains("out of order sample"), "{error}");
    }
}

#[tokio::test]
async fn both_shapes_of_write_requests_are_understood() {
    use chronolith_storeapi::proto::{prometheus_copy as pb, thanos};
    let sink = Arc::new(Recorder::default());
    let address =
        start(Services { write: Some(sink.clone()), ..Services::default() }, ServerOptions::default()).await;
    let channel = chronolith_storeapi::connect_lazy(&address, &ClientOptions::default()).unwrap();
    let mut client = thanos::writeable_store_client::WriteableStoreClient::new(channel);
    let series = |name: &str| pb::TimeSeries {
        labels: vec![thanos::Label { name: "__name__".into(), value: name.into() }],
        samples: vec![pb::Sample { value: 1.0, timestamp: 1 }],
        ..Default::default()
    };
    let data = |tenant: &str, name: &str| thanos::TimeSeriesTenantData {
        timeseries: vec![series(name)],
        tenant: tenant.into(),
    };
    let requests = [
        thanos::WriteRequest { timeseries: vec![series("old")], tenant: "a".into(), ..Default::default() },
        thanos::WriteRequest {
            timeseries_tenant_data: vec![data("b", "new"), data("c", "new")],
            ..Default::default()
        },
    ];
    for request in requests {
        client.remote_write(request).await.unwrap();
    }
    let tenants: Vec<_> = sink.0.lock().unwrap().iter().map(|w| w.0.clone()).collect();
    assert_eq!(tenants, ["a", "b", "c"]);
    let bad = thanos::WriteRequest { tenant: "../etc".into(), ..Default::default() };
    assert_eq!(client.remote_write(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn health_says_serving() {
    let address = start(memory(&Labels::empty(), &[]), ServerOptions::default()).await;
    let channel = chronolith_storeapi::connect_lazy(&address, &ClientOptions::default()).unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let answer = client.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
}
