//! Requests as Prometheus sends them: 12 labels a series, some 378 bytes of them. Figures in samples a second.
//!
//! - `decode/<version>/<series>x<samples>`: the decoder alone, and with snappy.
//! - `path/<version>/<sync>/50000`: the whole handler (body, snappy, decode, append, log) without the socket, 25 requests of 2,000
//!   series a scrape, one at a time; the time includes handing each request to a worker thread and back.

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::BytesMut;

use chronolith_model::Labels;
use chronolith_model::write::encode_labels;
use chronolith_receive::remote_write::{
    BatchPool, LabelKey, RemoteWrite, RemoteWriteOptions, decode_v1, decode_v2,
};
use chronolith_receive::{LocalSink, Tenants};
use chronolith_service::Metrics;
use chronolith_tsdb::db::{Db, DbOptions, WalSync};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::encoding::encode_varint;
use tower::ServiceExt;

/// The labels of a series.
fn labels_of(i: usize) -> [(&'static str, String); 12] {
    [
        ("__name__", format!("node_cpu_seconds_total_{}", i % 97)),
        ("cluster", "production-eu-central-1".to_owned()),
        ("container", "node-exporter".to_owned()),
        ("cpu", i.to_string()),
        ("endpoint", "metrics".to_owned()),
        ("environment", "production".to_owned()),
        ("instance", format!("10.{}.{}.7:9100", i / 250, i % 250)),
        ("job", "node-exporter".to_owned()),
        ("mode", "idle".to_owned()),
        ("namespace", "monitoring".to_owned()),
        ("pod", format!("node-exporter-{:08x}", i.wrapping_mul(2_654_435_761))),
        ("prometheus", "monitoring/kube-prometheus-stack-prometheus".to_owned()),
    ]
}

fn put_samples(i: usize, samples: usize, start_ms: u64, content: &mut Vec<u8>) {
    for k in 0..samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&(i as f64 * 1.5 + k as f64).to_le_bytes());
        sample.push(0x10);
        encode_varint(start_ms + 15_000 * k as u64, &mut sample);
        content.push(0x12);
        encode_varint(sample.len() as u64, content);
        content.extend(sample);
    }
}

fn put_message(tag: u8, content: &[u8], body: &mut Vec<u8>) {
    body.push(tag);
    encode_varint(content.len() as u64, body);
    body.extend_from_slice(content);
}

fn request_of(series: Range<usize>, samples: usize, start_ms: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for i in series {
        let mut content = Vec::new();
        encode_labels(labels_of(i).iter().map(|(n, v)| (*n, v.as_str())), &mut content);
        put_samples(i, samples, start_ms, &mut content);
        put_message(0x0A, &content, &mut body);
    }
    body
}

/// The same as remote write 2.0, with metadata, as Prometheus sends it.
fn request_v2_of(series: Range<usize>, samples: usize, start_ms: u64) -> Vec<u8> {
    let mut symbols: Vec<String> = vec![String::new()];
    let mut known: HashMap<String, u64> = HashMap::from([(String::new(), 0)]);
    let mut symbol = |text: &str| {
        *known.entry(text.to_owned()).or_insert_with(|| {
            symbols.push(text.to_owned());
            symbols.len() as u64 - 1
        })
    };
    let mut messages = Vec::new();
    for i in series {
        let (mut refs, mut content, mut metadata) = (Vec::new(), Vec::new(), vec![0x08, 1, 0x18]);
        for (name, value) in labels_of(i) {
            encode_varint(symbol(name), &mut refs);
            encode_varint(symbol(&value), &mut refs);
        }
        put_message(0x0A, &refs, &mut content);
        put_samples(i, samples, start_ms, &mut content);
        encode_varint(symbol("Seconds the CPUs spent in each mode."), &mut metadata);
        put_message(0x2A, &metadata, &mut content);
        put_message(0x2A, &content, &mut messages);
    }
    let mut body = Vec::new();
    symbols.iter().for_each(|s| put_message(0x22, s.as_bytes(), &mut body));
    body.extend(messages);
    body
}

const START_MS: u64 = 1_767_225_600_000;

fn decode(c: &mut Criterion) {
    for (series, samples) in [(2000, 1), (200, 10)] {
        let body = request_of(0..series, samples, START_MS);
        let compressed = snap::raw::Encoder::new().compress_vec(&body).expect("fits");
        let mut group = c.benchmark_group("decode/v1");
        group.throughput(Throughput::Elements((series * samples) as u64));
        group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
        let pool = BatchPool::default();
        group.bench_function(format!("{series}x{samples}"), |b| {
            b.iter(|| {
                let mut slot = pool.take();
                let stats = decode_v1::decode(black_box(&body), &mut slot.builder).expect("decodes");
                pool.put(slot);
                stats
            })
        });
        group.bench_function(format!("{series}x{samples}/snappy"), |b| {
            b.iter(|| {
                let mut slot = pool.take();
                decompress(black_box(&compressed), body.len(), &mut slot.body);
                decode_v1::decode(&slot.body, &mut slot.builder).expect("decodes");
                let batch = slot.builder.finish(slot.body.freeze());
                pool.put_batch(black_box(batch));
            })
        });
        group.finish();
        decode_2(c, series, samples);
    }
}

fn decompress(compressed: &[u8], len: usize, into: &mut BytesMut) {
    into.resize(len, 0);
    snap::raw::Decoder::new().decompress(compressed, into).expect("decompresses");
}

fn decode_2(c: &mut Criterion, series: usize, samples: usize) {
    const BYTES_MAX: usize = 64 << 20;
    let body = request_v2_of(0..series, samples, START_MS);
    let compressed = snap::raw::Encoder::new().compress_vec(&body).expect("fits");
    let mut group = c.benchmark_group("decode/v2");
    group.throughput(Throughput::Elements((series * samples) as u64));
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    let pool = BatchPool::default();
    let (key, mut symbols) = (LabelKey::default(), decode_v2::Symbols::default());
    for (name, snappy) in [("", false), ("/snappy", true)] {
        group.bench_function(format!("{series}x{samples}{name}"), |b| {
            b.iter(|| {
                let mut slot = pool.take();
                if snappy {
                    decompress(black_box(&compressed), body.len(), &mut slot.body);
                }
                let plain = if snappy { &slot.body[..] } else { &body[..] };
                decode_v2::decode(plain, BYTES_MAX, &key, None, &mut symbols, &mut slot.builder)
                    .expect("decodes");
                if !snappy {
                    return pool.put(slot);
                }
                let batch = slot.builder.finish(slot.body.freeze());
                pool.put_batch(black_box(batch));
            })
        });
    }
    group.finish();
}

fn path(c: &mut Criterion) {
    const SERIES: usize = 50_000;
    const REQUEST_SERIES: usize = 2_000;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
    type Encode = fn(Range<usize>, usize, u64) -> Vec<u8>;
    let versions: [(&str, &str, Encode); 2] = [
        ("v1", "application/x-protobuf", request_of),
        ("v2", "application/x-protobuf;proto=io.prometheus.write.v2.Request", request_v2_of),
    ];
    let syncs = [("off", WalSync::Off), ("group", WalSync::Group)];
    for ((version, content_type, encode), (name, sync)) in
        versions.into_iter().flat_map(|v| syncs.map(|s| (v, s)))
    {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = DbOptions::new(dir.path());
        options.wal_sync = sync;
        options.future_max_ms = i64::MAX;
        let (db, _) = Db::open(options).expect("opens");
        let tenants = Arc::new(Tenants::new(Labels::empty(), "tenant_id"));
        tenants.set_db(db);
        let pool = Arc::new(BatchPool::default());
        let app = Metrics::new().register(|registry| {
            let sink = Arc::new(LocalSink::new(tenants, Arc::clone(&pool), 10, None, registry));
            RemoteWrite::new(sink, pool, RemoteWriteOptions::default(), registry).router()
        });
        let mut scrape = 0u64;
        let mut group = c.benchmark_group(format!("path/{version}/{name}"));
        group.throughput(Throughput::Elements(SERIES as u64)).sample_size(10);
        group.bench_function(SERIES.to_string(), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let t = START_MS + 15_000 * scrape;
                    scrape += 1;
                    let bodies: Vec<Vec<u8>> = (0..SERIES / REQUEST_SERIES)
                        .map(|r| encode(r * REQUEST_SERIES..(r + 1) * REQUEST_SERIES, 1, t))
                        .map(|body| snap::raw::Encoder::new().compress_vec(&body).expect("fits"))
                        .collect();
                    let started = Instant::now();
                    runtime.block_on(async {
                        for body in bodies {
                            let request = Request::post("/api/v1/write")
                                .header("content-type", content_type)
                                .body(Body::from(body))
                                .expect("a request");
                            let response = app.clone().oneshot(request).await.expect("answers");
                            assert_eq!(response.status(), StatusCode::NO_CONTENT);
                        }
                    });
                    spent += started.elapsed();
                }
                spent
            })
        });
        group.finish();
    }
}

criterion_group!(benches, decode, path);
criterion_main!(benches);
