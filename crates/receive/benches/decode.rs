//! `decode/v1/<series>x<samples>`: snappy and decoder over requests as Prometheus sends them, figures in samples a second.
//! 12 labels a series, some 378 bytes of them.

use std::hint::black_box;
use std::time::Duration;

use chronolith_model::write::encode_labels;
use chronolith_receive::remote_write::{BatchPool, decode_v1};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::encoding::encode_varint;

fn request(series: usize, samples: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for i in 0..series {
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
            encode_varint(1_767_225_600_000 + 15_000 * k as u64, &mut sample);
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

criterion_group!(benches, decode);
criterion_main!(benches);
