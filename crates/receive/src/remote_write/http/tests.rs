//! Every bad input over real HTTP: the right status, a reason, bounded memory, and the server goes on.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use chronolith_model::WriteBatch;
use chronolith_model::write::encode_labels;
use chronolith_service::{Metrics, http::HttpListener, shutdown::CancellationToken};
use chronolith_storeapi::{RejectKind, WriteError, WriteRejection, WriteWay};
use parking_lot::Mutex;

use super::*;

/// Keeps what was written; rejects series without a name; fails or blocks when told to.
#[derive(Default)]
struct Sink {
    writes: Mutex<Vec<(TenantId, usize, usize)>>,
    fail: AtomicBool,
    gate: Option<Arc<tokio::sync::Semaphore>>,
    pool: Option<Arc<BatchPool>>,
}

#[async_trait]
impl WriteSink for Sink {
    fn knows_keys(&self) -> bool {
        false
    }

    async fn write_by(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        _: WriteWay,
    ) -> Result<WriteReport, WriteError> {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        if self.fail.load(Ordering::Relaxed) {
            return Err(WriteError::unavailable("the log failed"));
        }
        let mut report = WriteReport::default();
        for series in batch.iter() {
            let labels: Result<Vec<_>, _> = chronolith_model::write::decode_labels(series.labels).collect();
            match labels {
                Ok(labels) if labels.first().is_some_and(|l| l.0 == "__name__") => {
                    report.written += series.samples.len();
                }
                labels => report.reject(series.samples.len(), || WriteRejection {
                    kind: RejectKind::Invalid,
                    series: format!("{labels:?}").chars().take(300).collect(),
                    t: None,
                    reason: "missing metric name".to_owned(),
                }),
            }
        }
        self.writes.lock().push((tenant.clone(), batch.series_count(), batch.sample_count()));
        if let Some(pool) = &self.pool {
            pool.put_batch(batch);
        }
        Ok(report)
    }
}

struct Server {
    address: SocketAddr,
    client: reqwest::Client,
    handler: Arc<RemoteWrite>,
    metrics: Metrics,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(sink: Arc<Sink>, options: RemoteWriteOptions) -> Self {
        chronolith_service::tls::install_crypto_provider();
        let metrics = Metrics::new();
        let pool = sink.pool.clone().unwrap_or_default();
        let handler = metrics.register(|registry| RemoteWrite::new(sink, pool, options, registry));
        let listener = HttpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr();
        let shutdown = CancellationToken::new();
        let app = metrics.http().instrument(handler.router());
        let task = tokio::spawn(listener.serve(app, shutdown.clone()));
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Server { address, client, handler, metrics, shutdown, task }
    }

    fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.client
            .post(format!("http://{}{path}", self.address))
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
    }

    async fn send(&self, body: Vec<u8>) -> (u16, String) {
        answer(self.request("/api/v1/write").body(body)).await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn tagged(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut content = Vec::new();
    encode_labels(labels.iter().copied(), &mut content);
    for (t, v) in samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&v.to_le_bytes());
        sample.push(0x10);
        prost::encoding::encode_varint(*t as u64, &mut sample);
        content.extend(tagged(2, &sample));
    }
    tagged(1, &content)
}

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

fn up() -> Vec<u8> {
    series(&[("__name__", "up"), ("job", "x")], &[(1000, 1.0)])
}

#[tokio::test(flavor = "multi_thread")]
async fn both_paths_tenants_and_partial_success() {
    let sink = Arc::new(Sink { pool: Some(Arc::default()), ..Sink::default() });
    let server = Server::start(sink.clone(), RemoteWriteOptions::default()).await;
    for _ in 0..3 {
        assert_eq!(server.send(snappy(&up())).await, (204, String::new()));
    }
    let request = server.request("/api/v1/receive").header("THANOS-TENANT", "team-a").body(snappy(&up()));
    assert_eq!(answer(request).await, (200, String::new()));
    let bad = [up(), series(&[("job", "nameless")], &[(1, 1.0), (2, 2.0)])].concat();
    let (status, text) = server.send(snappy(&bad)).await;
    assert_eq!(status, 400);
    assert!(text.starts_with("missing metric name: series ") && text.contains("nameless"), "{text}");
    assert!(text.contains("(2 of 3 samples rejected)"), "{text}");
    let tenants: Vec<_> = sink.writes.lock().iter().map(|w| w.0.as_str().to_owned()).collect();
    assert_eq!(tenants, ["default-tenant", "default-tenant", "default-tenant", "team-a", "default-tenant"]);
    let text = server.metrics.text();
    for want in [
        "chronolith_receive_samples_written_total 5\n",
        "chronolith_receive_samples_rejected_total 2\n",
        "thanos_receive_write_samples_count{code=\"200\",tenant=\"team-a\"} 1\n",
        "chronolith_receive_decode_bytes_used 0",
    ] {
        assert!(text.contains(want), "{want} in {text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_headers_are_refused() {
    let sink = Arc::new(Sink::default());
    let server = Server::start(sink.clone(), RemoteWriteOptions::default()).await;
    let good = snappy(&up());
    let with = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        let url = format!("http://{}/api/v1/write", server.address);
        server.client.post(url).header(name, value).body(good.clone())
    };
    for (name, value, want, text) in [
        ("content-encoding", "gzip", 415, "gzip"),
        ("content-encoding", "snappy", 204, ""),
        ("x-nothing", "else", 204, ""),
        ("content-type", "application/json", 415, "application/json"),
        ("content-type", "application/x-protobuf;nonsense", 415, "malformed"),
        ("content-type", "application/x-protobuf;proto=prometheus.WriteRequest", 204, ""),
        (
            "content-type",
            "application/x-protobuf; proto=io.prometheus.write.v2.Request",
            204, // A 1.0 body has no field that 2.0 knows.
            "",
        ),
        (
            "content-type",
            "application/x-protobuf;proto=io.prometheus.write.v3.Request",
            415,
            "unknown message",
        ),
        ("content-type", "application/x-protobuf;proto=x.Y", 415, "unknown message"),
        ("THANOS-TENANT", "../../etc", 400, "invalid tenant"),
        ("THANOS-TENANT", "..", 400, "invalid tenant"),
        ("THANOS-TENANT", "ok", 204, ""),
    ] {
        let (status, body) = answer(with(name, value)).await;
        assert_eq!(status, want, "{name}: {value}: {body}");
        assert!(body.contains(text), "{name}: {value}: {body}");
    }
    let get = server.client.get(format!("http://{}/api/v1/write", server.address));
    assert_eq!(answer(get).await.0, 405);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused_and_the_next_request_goes_through() {
    let sink = Arc::new(Sink::default());
    let server = Server::start(sink.clone(), RemoteWriteOptions::default()).await;
    let mut declared_huge = Vec::new();
    prost::encoding::encode_varint(u64::from(u32::MAX), &mut declared_huge);
    declared_huge.extend_from_slice(&[0xFE; 100]);
    let mut declared_lie = Vec::new();
    prost::encoding::encode_varint(30 << 20, &mut declared_lie);
    declared_lie.extend_from_slice(&[0; 100]);
    let mut cut = up();
    cut.truncate(cut.len() - 3);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("empty body", Vec::new(), 400, "snappy"),
        ("empty request", snappy(b""), 204, ""),
        ("not snappy", b"hello, I am no snappy block".to_vec(), 400, "snappy"),
        ("a snappy bomb", snappy(&vec![0; 33 << 20]), 413, "decompressed body of 34603008 bytes"),
        ("a snappy header that lies", declared_huge, 413, "decompressed body"),
        ("a snappy header that cannot be", declared_lie, 400, "cannot decompress"),
        ("cut protobuf", snappy(&cut), 400, "malformed protobuf at byte"),
        ("text as protobuf", snappy(b"up 1 1000"), 400, "malformed protobuf at byte 6"),
        ("a million empty series", snappy(&[0x0A, 0].repeat(1_000_000)), 413, "elements"),
        (
            "a million empty samples",
            snappy(&tagged(1, &[0x12, 0].repeat(1_000_000))),
            400,
            "1000000 of 1000000",
        ),
    ];
    for (name, body, want, text) in cases {
        let (status, answer) = server.send(body).await;
        assert_eq!(status, want, "{name}: {answer}");
        assert!(answer.contains(text) && answer.len() < 10_000, "{name}: {answer}");
        assert_eq!(server.send(snappy(&up())).await.0, 204, "after {name}");
    }
    assert!(server.metrics.text().contains("chronolith_receive_decode_bytes_used 0"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_length_is_cut_off_at_the_limit() {
    let options = RemoteWriteOptions { body_bytes_max: 100_000, ..RemoteWriteOptions::default() };
    let server = Server::start(Arc::new(Sink::default()), options).await;
    let pieces = (0..1000).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0u8; 1000])));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    // The server may answer and close before the client has sent everything; either is a refusal.
    if let Ok(response) = server.request("/api/v1/write").body(vec![0; 100_001]).send().await {
        assert_eq!(response.status(), 413);
        assert!(response.text().await.unwrap().contains("body of 100001 bytes"));
    }
    if let Ok(response) = server.request("/api/v1/write").body(body).send().await {
        assert_eq!(response.status(), 413);
    }
    let pieces: Vec<_> =
        snappy(&up()).chunks(3).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    assert_eq!(answer(server.request("/api/v1/write").body(body)).await.0, 204);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_fail_and_stopping_servers_are_worth_a_retry() {
    let sink = Arc::new(Sink::default());
    let server = Server::start(sink.clone(), RemoteWriteOptions::default()).await;
    sink.fail.store(true, Ordering::Relaxed);
    let (status, text) = server.send(snappy(&up())).await;
    assert_eq!((status, text.contains("the log failed")), (503, true));
    sink.fail.store(false, Ordering::Relaxed);
    assert_eq!(server.send(snappy(&up())).await.0, 204);
    server.handler.close();
    let (status, text) = server.send(snappy(&up())).await;
    assert_eq!((status, text.as_str()), (503, "shutting down\n"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_in_flight_is_bounded_and_waited_for() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let sink = Arc::new(Sink { gate: Some(gate.clone()), ..Sink::default() });
    // One request's worth.
    let options = RemoteWriteOptions {
        decode_bytes_max: 1 << 20,
        patience: Duration::from_millis(200),
        ..RemoteWriteOptions::default()
    };
    let server = Arc::new(Server::start(sink.clone(), options).await);
    let held = tokio::spawn({
        let server = server.clone();
        async move { server.send(snappy(&up())).await }
    });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while server.handler.admission.decode.bytes_used() == 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (status, text) = server.send(snappy(&up())).await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("too many write requests in flight"), "{text}");
    gate.add_permits(10);
    assert_eq!(held.await.unwrap().0, 204);
    assert_eq!(server.send(snappy(&up())).await.0, 204);
    assert_eq!(server.handler.admission.decode.bytes_used(), 0);
    Arc::into_inner(server).unwrap().stop().await;
}

/// A request of remote write 2.0: `up{job="x"}` at 1000, and a series whose last reference is `reference`.
fn up_v2(reference: u8) -> Vec<u8> {
    let symbols: Vec<u8> =
        ["", "__name__", "up", "job", "x"].iter().flat_map(|s| tagged(4, s.as_bytes())).collect();
    let sample = tagged(2, &[&[0x09], &1.0f64.to_le_bytes()[..], &[0x10, 0xE8, 0x07]].concat());
    let series = |refs: &[u8]| tagged(5, &[tagged(1, refs), sample.clone()].concat());
    [symbols, series(&[1, 2, 3, 4]), series(&[1, 2, 3, reference])].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_point_oh_writes_the_good_part_and_says_how_much() {
    let sink = Arc::new(Sink { pool: Some(Arc::default()), ..Sink::default() });
    let server = Server::start(sink.clone(), RemoteWriteOptions::default()).await;
    let send = async |body: Vec<u8>| {
        let proto = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        let url = format!("http://{}/api/v1/receive", server.address);
        let request =
            server.client.post(url).header("content-encoding", "snappy").header("content-type", proto);
        let response = request.body(body).send().await.unwrap();
        let written = ["samples", "histograms", "exemplars"].map(|what| {
            let name = format!("x-prometheus-remote-write-{what}-written");
            response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
        });
        (response.status().as_u16(), written.join(" "), response.text().await.unwrap())
    };
    for _ in 0..3 {
        assert_eq!(send(snappy(&up_v2(2))).await, (200, "2 0 0".into(), String::new()));
    }
    let (status, written, text) = send(snappy(&up_v2(9))).await;
    assert_eq!((status, written.as_str()), (400, "1 0 0"));
    assert!(
        text.starts_with("symbol reference 9 is out of range of 5 symbols: series {__name__=\"up\"}"),
        "{text}"
    );
    assert!(text.contains("(1 of 2 samples rejected)"), "{text}");
    let cut = up_v2(2);
    for (name, body, want) in [
        ("cut", snappy(&cut[..cut.len() - 3]), 400),
        ("not snappy", b"hello, I am no snappy block".to_vec(), 400),
        ("wrong type", snappy(&[0x28, 1]), 400),
        ("a million empty symbols", snappy(&[0x22, 0].repeat(4_000_000)), 200),
        ("many empty series", snappy(&[0x2A, 0].repeat(16_000_000)), 400),
    ] {
        let (status, written, text) = send(body).await;
        assert_eq!((status, written.as_str()), (want, "0 0 0"), "{name}: {text}");
        assert!(text.len() < 10_000, "{name}: {text}");
    }
    sink.fail.store(true, Ordering::Relaxed);
    let (status, written, _) = send(snappy(&up_v2(2))).await;
    assert_eq!((status, written.as_str()), (503, "0 0 0"));
    assert!(server.metrics.text().contains("chronolith_receive_decode_bytes_used 0"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn otlp_is_answered_in_its_own_words() {
    use std::io::Write;
    let sink = Arc::new(Sink { pool: Some(Arc::default()), ..Sink::default() });
    let server = Server::start(sink.clone(), RemoteWriteOptions::default()).await;
    let metric = |name: &str, temporality: u8| {
        serde_json::json!({"name": name, "sum": {"aggregationTemporality": temporality, "isMonotonic": true,
            "dataPoints": [{"timeUnixNano": "1000000000", "asInt": "3"}]}})
    };
    let request = |metrics: &[serde_json::Value]| {
        serde_json::json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
            .to_string()
            .into_bytes()
    };
    let gzip = |body: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let (good, delta) = (metric("a", 2), metric("d", 1));
    let all = request(std::slice::from_ref(&good));
    let protobuf = crate::otlp::to_protobuf(&all).unwrap();
    let only_delta = crate::otlp::to_protobuf(&request(std::slice::from_ref(&delta))).unwrap();
    let partial = request(&[good, delta]);
    let cut = gzip(&protobuf)[..20].to_vec();
    let two = [gzip(&protobuf), gzip(&protobuf)].concat();
    let mut lie = gzip(&[0; 10_000]);
    let end = lie.len();
    lie[end - 4..].copy_from_slice(&100u32.to_le_bytes());
    const PROTOBUF: &str = "application/x-protobuf";
    const JSON: &str = "application/json";
    for (name, path, content_type, encoding, body, want, text) in [
        ("protobuf", "/api/v1/otlp/v1/metrics", PROTOBUF, "", protobuf.clone(), 200, ""),
        ("gzip", "/api/v1/otlp", PROTOBUF, "gzip", gzip(&protobuf), 200, ""),
        ("JSON", "/api/v1/otlp", JSON, "", all.clone(), 200, "{}"),
        ("JSON in gzip", "/api/v1/otlp", JSON, "gzip", gzip(&all), 200, "{}"),
        ("nothing", "/api/v1/otlp", PROTOBUF, "", Vec::new(), 200, ""),
        ("in part", "/api/v1/otlp", JSON, "", partial, 200, "\"rejectedDataPoints\":\"1\""),
        ("delta", "/api/v1/otlp", PROTOBUF, "", only_delta, 400, "delta temporality is not supported"),
        ("cut protobuf", "/api/v1/otlp", PROTOBUF, "", protobuf[..9].to_vec(), 400, "malformed protobuf"),
        ("bad JSON", "/api/v1/otlp", JSON, "", b"{".to_vec(), 400, "malformed JSON"),
        ("a type", "/api/v1/otlp", "text/plain", "", all.clone(), 400, "unsupported content type"),
        ("an encoding", "/api/v1/otlp", JSON, "snappy", all.clone(), 400, "want gzip or none"),
        ("not gzip", "/api/v1/otlp", JSON, "gzip", all.clone(), 400, "gzip"),
        ("cut gzip", "/api/v1/otlp", PROTOBUF, "gzip", cut, 400, "gzip"),
        ("two members", "/api/v1/otlp", PROTOBUF, "gzip", two, 400, "more than one member"),
        ("a lying trailer", "/api/v1/otlp", PROTOBUF, "gzip", lie, 400, "longer than its trailer says"),
        (
            "a gzip bomb",
            "/api/v1/otlp",
            PROTOBUF,
            "gzip",
            gzip(&vec![0; 33 << 20]),
            413,
            "decompressed body of",
        ),
    ] {
        let mut request = server
            .client
            .post(format!("http://{}{path}", server.address))
            .header("content-type", content_type);
        if !encoding.is_empty() {
            request = request.header("content-encoding", encoding);
        }
        let (status, answer) = answer(request.body(body)).await;
        assert_eq!(status, want, "{name}: {answer}");
        assert!(answer.contains(text) && answer.len() < 10_000, "{name}: {answer}");
    }
    assert_eq!(sink.writes.lock().len(), 5, "nothing, and what is wholly refused, reach no sink");
    server.stop().await;
}
