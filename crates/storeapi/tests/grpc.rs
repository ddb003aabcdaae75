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
    ClientOptions, ErrorKind, MemoryStore, PeerClient, PeerForm, PeerShare, RejectKind, SeriesEvent,
    SeriesLimits, SeriesRequest, ServerOptions, Services, Store, StoreClient, StoreError, WriteError,
    WriteRejection, WriteReport, WriteSink, WriteWay, encode_batch, serve,
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
    fn knows_keys(&self) -> bool {
        false
    }

    async fn write_by(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        _: WriteWay,
    ) -> Result<WriteReport, WriteError> {
        let mut report = WriteReport { written: batch.sample_count(), ..WriteReport::default() };
        let mut names = Vec::new();
        for series in batch.iter() {
            let labels: Vec<_> = decode_labels(series.labels).map(Result::unwrap).collect();
            let name = labels[0].1.to_owned();
            if name == "unavailable" {
                return Err(StoreError::unavailable("closed"));
            }
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

fn share(name: &str, replica: u8) -> PeerShare {
    PeerShare {
        tenant: TenantId::new("team-a").unwrap(),
        batch: encode_batch(&batch(name), None),
        replicas: Some(vec![replica].into()),
        late: false,
    }
}

#[tokio::test]
async fn writes_reach_the_local_sink_in_the_form_that_info_announces() {
    for offers_own in [true, false] {
        let (all, local) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        let stores = if offers_own { memory(&Labels::empty(), &[]) } else { Services::default() };
        let services = Services { write: Some(all.clone()), write_local: Some(local.clone()), ..stores };
        let address = start(services, ServerOptions::default()).await;
        let options = ClientOptions::default();
        let peer = PeerClient::new(&address, &options, offers_own, Duration::from_secs(5)).unwrap();
        let results = peer.write(&[share("up", 0), share("down", 1)]).await;
        assert_eq!(peer.form(), if offers_own { PeerForm::Own } else { PeerForm::Thanos });
        let written: Vec<usize> = results.into_iter().map(|r| r.unwrap().written).collect();
        assert_eq!(written, [1, 1]);
        let mut got = local.0.lock().unwrap().clone();
        got.sort();
        let want = |name: &str| ("team-a".to_owned(), vec![name.to_owned()], 1);
        assert_eq!(got, [want("down"), want("up")]);
        assert!(all.0.lock().unwrap().is_empty());
        for (name, reject, kind) in [
            ("conflict", RejectKind::Conflict, ErrorKind::Conflict),
            ("invalid", RejectKind::Invalid, ErrorKind::Invalid),
        ] {
            let result = peer.write(&[share(name, 0)]).await.remove(0);
            if offers_own {
                let report = result.unwrap();
                assert_eq!((report.rejections[0].kind, report.rejected), (reject, 1));
            } else {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), kind);
                assert!(error.message().contains("out of order sample"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unavailable() {
    let peer =
        PeerClient::new("127.0.0.1:1", &ClientOptions::default(), false, Duration::from_secs(5)).unwrap();
    let results = peer.write(&[share("up", 0), share("up", 0)]).await;
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|r| r.as_ref().unwrap_err().kind() == ErrorKind::Unavailable));
}

#[tokio::test]
async fn thanos_receivers_may_compress_with_snappy() {
    use std::io::Write as _;

    use http_body_util::{BodyExt as _, Full};
    use prost::Message as _;
    let local = Arc::new(Recorder::default());
    let services =
        Services { write: Some(local.clone()), write_local: Some(local.clone()), ..Services::default() };
    let address = start(services, ServerOptions::default()).await;
    let channel = chronolith_storeapi::connect_lazy(&address, &ClientOptions::default()).unwrap();
    let message = thanos_request("up").encode_to_vec();
    let mut snappy = snap::write::FrameEncoder::new(Vec::new());
    snappy.write_all(&message).unwrap();
    let snappy = snappy.into_inner().unwrap();
    let mut body = vec![1];
    body.extend_from_slice(&(snappy.len() as u32).to_be_bytes());
    body.extend_from_slice(&snappy);
    for (body, code) in [(body, "0"), (vec![1, 0, 0, 0, 3, 1, 2, 3], "13"), (vec![1, 0], "13")] {
        let request = http::Request::post(format!("http://{address}/thanos.WriteableStore/RemoteWrite"))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", "snappy")
            .body(tonic::body::Body::new(Full::new(bytes::Bytes::from(body))))
            .unwrap();
        let mut channel = channel.clone();
        std::future::poll_fn(|cx| tower::Service::poll_ready(&mut channel, cx)).await.unwrap();
        let response = tower::Service::call(&mut channel, request).await.unwrap();
        let headers = response.headers().clone();
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
        let status = headers.get("grpc-status").or(trailers.as_ref().and_then(|t| t.get("grpc-status")));
        assert_eq!(status.unwrap(), code);
    }
    assert_eq!(local.0.lock().unwrap().len(), 1);
}

fn thanos_request(name: &str) -> chronolith_storeapi::proto::thanos::WriteRequest {
    chronolith_storeapi::proto::thanos::WriteRequest {
        timeseries: vec![thanos_series(name)],
        tenant: "a".into(),
        ..Default::default()
    }
}

fn thanos_series(name: &str) -> bytes::Bytes {
    use chronolith_storeapi::proto::{prometheus_copy as pb, thanos};
    use prost::Message as _;
    pb::TimeSeries {
        labels: vec![thanos::Label { name: "__name__".into(), value: name.into() }],
        samples: vec![pb::Sample { value: 1.0, timestamp: 1 }],
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

#[tokio::test]
async fn both_shapes_of_write_requests_are_understood() {
    use chronolith_storeapi::proto::thanos;
    let sink = Arc::new(Recorder::default());
    let address =
        start(Services { write: Some(sink.clone()), ..Services::default() }, ServerOptions::default()).await;
    let channel = chronolith_storeapi::connect_lazy(&address, &ClientOptions::default()).unwrap();
    let mut client = thanos::writeable_store_client::WriteableStoreClient::new(channel);
    let data = |tenant: &str, name: &str| thanos::TimeSeriesTenantData {
        timeseries: vec![thanos_series(name)],
        tenant: tenant.into(),
    };
    let requests = [
        thanos_request("old"),
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
    // What one tenant's part comes to keeps no other from being stored.
    for (parts, stored, code) in [
        ([data("b", "conflict"), data("c", "new")], "c", tonic::Code::AlreadyExists),
        ([data("../etc", "new"), data("d", "new")], "d", tonic::Code::InvalidArgument),
        ([data("b", "invalid"), data("e", "unavailable")], "b", tonic::Code::Unavailable),
        ([data("b", "unavailable"), data("e", "invalid")], "e", tonic::Code::Unavailable),
    ] {
        let request = thanos::WriteRequest { timeseries_tenant_data: parts.to_vec(), ..Default::default() };
        assert_eq!(client.remote_write(request).await.unwrap_err().code(), code);
        assert_eq!(sink.0.lock().unwrap().last().unwrap().0, stored);
    }
}

#[tokio::test]
async fn health_says_serving() {
    let address = start(memory(&Labels::empty(), &[]), ServerOptions::default()).await;
    let channel = chronolith_storeapi::connect_lazy(&address, &ClientOptions::default()).unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let answer = client.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
}
