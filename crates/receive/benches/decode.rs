//! Requests as Prometheus sends them: 12 labels a series, some 378 bytes of them. Figures in samples a second.
//!
//! - `decode/v1/<series>x<samples>`: the decoder alone, and with snappy.
//! - `path/<sync>/50000`: the whole handler (body, snappy, decode, append, log) without the socket, 25 requests of 2,000
//!   series a scrape, one at a time; the time includes handing each request to a worker thread and back.

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};

use chronolith_model::Labels;
use chronolith_model::write::encode_labels;
use chronolith_receive::remote_write::{BatchPool, RemoteWrite, RemoteWriteOptions, decode_v1};
use chronolith_receive::{LocalSink, Tenants};
use chronolith_service::Metrics;
use chronolith_tsdb::db::{Db, DbOptions, WalSync};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::encoding::encode_varint;
use tower::ServiceExt;

fn request(series: usize, samples: usize) -> Vec<u8> {
    request_of(0..series, samples, 1_767_225_600_000)
}

fn request_of(series: Range<usize>, samples: usize, start_ms: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for i in series {
        let mut content = Vec::new();
        let (name, instance) =
            (format!("node_cpu_seconds_total_{}", i % 97), format!("10.{}.{}.7:9100", i / 250, i % 250));
        let (cpu, pod) = (i.to_string(), format!("node-exporter-{:08x}", i.wrapping_mul(2_654_435_761)));
        let labels = [
            ("__name__", name.as_str()),
            ("cluster", "production-eu-central-1"),
            ("container", "node-exporter"),
            ("cpu", cpu.as_str()),
            ("endpoint", "metrics"),
            ("environment", "production"),
            ("instance", instance.as_str()),
            ("job", "node-exporter"),
            ("mode", "idle"),
            ("namespace", "monitoring"),
            ("pod", pod.as_str()),
            ("prometheus", "monitoring/kube-prometheus-stack-prometheus"),
        ];
        encode_labels(labels, &mut content);
        for k in 0..samples {
            let mut sample = vec![0x09];
            sample.extend_from_slice(&(i as f64 * 1.5 + k as f64).to_le_bytes());
            sample.push(0x10);
            encode_varint(start_ms + 15_000 * k as u64, &mut sample);
            content.push(0x12);
            encode_varint(sample.len() as u64, &mut content);
            content.extend(sample);
        }
        body.push(0x0A);
        encode_varint(content.len() as u64, &mut body);
        body.extend(content);
    }
    body
}

fn decode(c: &mut Criterion) {
    for (series, samples) in [(2000, 1), (200, 10)] {
        let body = request(series, samples);
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
                slot.body.resize(body.len(), 0);
                snap::raw::Decoder::new()
                    .decompress(black_box(&compressed), &mut slot.body)
                    .expect("decompresses");
                decode_v1::decode(&slot.body, &mut slot.builder).expect("decodes");
                let batch = slot.builder.finish(slot.body.freeze());
                pool.put_batch(black_box(batch));
            })
        });
        group.finish();
    }
}

fn path(c: &mut Criterion) {
    const SERIES: usize = 50_000;
    const REQUEST_SERIES: usize = 2_000;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runs");
    for (name, sync) in [("off", WalSync::Off), ("group", WalSync::Group)] {
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
        let mut group = c.benchmark_group(format!("path/{name}"));
        group.throughput(Throughput::Elements(SERIES as u64)).sample_size(10);
        group.bench_function(SERIES.to_string(), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    let t = 1_767_225_600_000 + 15_000 * scrape;
                    scrape += 1;
                    let bodies: Vec<Vec<u8>> = (0..SERIES / REQUEST_SERIES)
                        .map(|r| request_of(r * REQUEST_SERIES..(r + 1) * REQUEST_SERIES, 1, t))
                        .map(|body| snap::raw::Encoder::new().compress_vec(&body).expect("fits"))
                        .collect();
                    let started = Instant::now();
                    runtime.block_on(async {
                        for body in bodies {
                            let request =
                                Request::post("/api/v1/write").body(Body::from(body)).expect("a request");
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
