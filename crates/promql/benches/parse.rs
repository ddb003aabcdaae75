//! `parse/<query>`: parsing, and printing, of queries of usual size, and of a long chain.

use chronolith_promql::parser::{ParseOptions, parse};
use criterion::{Criterion, criterion_group, criterion_main};

fn parse_queries(c: &mut Criterion) {
    let chain = format!("foo{}", " + foo".repeat(20_000));
    let queries = [
        ("name", "up"),
        ("selector", "http_requests_total{job=\"api\", instance=\"a:9090\", code!=\"200\"}"),
        ("rate", "sum by (job) (rate(http_requests_total{job=\"api\"}[5m]))"),
        (
            "ratio",
            "sum by (job) (rate(http_requests_total{job=\"api\",code=~\"5..\"}[5m])) / ignoring (code) \
             sum by (job) (rate(http_requests_total{job=\"api\"}[5m])) > 0.01",
        ),
        (
            "quantile",
            "histogram_quantile(0.99, sum by (le, job) (rate(request_duration_seconds_bucket{job=\"api\"}[5m] offset 1h)))",
        ),
        ("chain20k", &chain),
    ];
    for (name, query) in queries {
        c.bench_function(&format!("parse/{name}"), |b| {
            b.iter(|| parse(std::hint::black_box(query), &ParseOptions::ALL).unwrap());
        });
        let ast = parse(query, &ParseOptions::ALL).unwrap();
        c.bench_function(&format!("print/{name}"), |b| b.iter(|| std::hint::black_box(&ast).to_string()));
    }
}

criterion_group!(benches, parse_queries);
criterion_main!(benches);
