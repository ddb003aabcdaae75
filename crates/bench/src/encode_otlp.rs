//! OTLP requests: a resource a host, a metric a name, a point a series.
//!
//! What names the host (and its cluster, rack, …) are the resource's attributes, what else a series has are its point's.
//! Counters are monotonic sums, all else are gauges; names lose the `_total` that a receiver appends. The servers promote
//! resource attributes to labels, so that all of them store the label sets of remote write.

use std::collections::HashMap;
use std::io::Write;

use chronolith_model::write::decode_labels;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::encode::{REQUEST_SAMPLES, put_message};
use crate::workload::{HOST_LABELS, Series, Workload};

/// As [`crate::encode::encode_steps`], with gzip or not at all compressed.
pub(crate) fn encode_steps(
    workload: &mut Workload,
    first: u64,
    steps: u64,
    gzip: bool,
    requests: &mut Vec<Vec<u8>>,
) {
    let start_ms = workload.start_ms;
    let times: Vec<i64> = (first..first + steps).map(|step| workload.time(step)).collect();
    for chunk in workload.series.chunks_mut((REQUEST_SAMPLES / steps as usize).max(1)) {
        let mut body = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            let host = host_of(&rest[0]);
            let len = rest.iter().take_while(|series| host_of(series) == host).count();
            let (of_host, others) = rest.split_at_mut(len);
            put_message(0x0A, &resource_metrics(&host, of_host, start_ms, &times, first), &mut body);
            rest = others;
        }
        requests.push(if gzip { compressed(&body) } else { body });
    }
}

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory takes it")
}

/// The labels that the resource stands for.
fn host_of(series: &Series) -> Vec<(String, String)> {
    let pairs = decode_labels(&series.labels).map(|pair| pair.expect("we made it"));
    pairs.filter(|(n, _)| HOST_LABELS.contains(n)).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn resource_metrics(
    host: &[(String, String)],
    series: &mut [Series],
    start_ms: i64,
    times: &[i64],
    first: u64,
) -> Vec<u8> {
    let mut resource = Vec::new();
    for (name, value) in host {
        let key = match name.as_str() {
            "job" => "service.name",
            "instance" => "service.instance.id",
            other => other,
        };
        put_attribute(0x0A, key, value, &mut resource);
    }
    let mut metrics: Vec<(String, bool, Vec<u8>)> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for one in series {
        let (mut attributes, mut metric) = (Vec::new(), String::new());
        for (name, value) in decode_labels(&one.labels).map(|pair| pair.expect("we made it")) {
            match name {
                "__name__" => metric = value.strip_suffix("_total").unwrap_or(value).to_owned(),
                name if HOST_LABELS.contains(&name) => {}
                name => put_attribute(0x3A, name, value, &mut attributes),
            }
        }
        let counter = one.shape.is_counter();
        let number = *numbers.entry(metric.clone()).or_insert_with(|| {
            metrics.push((metric, counter, Vec::new()));
            metrics.len() - 1
        });
        for (t, step) in times.iter().zip(first..) {
            let mut point = vec![0x11];
            point.extend_from_slice(&(start_ms as u64 * 1_000_000).to_le_bytes());
            point.push(0x19);
            point.extend_from_slice(&(*t as u64 * 1_000_000).to_le_bytes());
            point.push(0x21);
            point.extend_from_slice(&one.value(step).to_le_bytes());
            point.extend_from_slice(&attributes);
            put_message(0x0A, &point, &mut metrics[number].2);
        }
    }
    let mut scope = Vec::new();
    put_message(0x0A, b"\x0a\x05bench", &mut scope);
    for (name, counter, mut points) in metrics {
        let mut metric = Vec::new();
        put_message(0x0A, name.as_bytes(), &mut metric);
        put_message(0x12, format!("What {name} counts or shows.").as_bytes(), &mut metric);
        if counter {
            // Cumulative, monotonic.
            points.extend_from_slice(&[0x10, 2, 0x18, 1]);
        }
        put_message(if counter { 0x3A } else { 0x2A }, &points, &mut metric);
        put_message(0x12, &metric, &mut scope);
    }
    let mut out = Vec::new();
    put_message(0x0A, &resource, &mut out);
    put_message(0x12, &scope, &mut out);
    out
}

/// `KeyValue { 1: key, 2: AnyValue { 1: text } }`
fn put_attribute(tag: u8, key: &str, value: &str, out: &mut Vec<u8>) {
    let (mut any, mut pair) = (Vec::new(), Vec::new());
    put_message(0x0A, value.as_bytes(), &mut any);
    put_message(0x0A, key.as_bytes(), &mut pair);
    put_message(0x12, &any, &mut pair);
    put_message(tag, &pair, out);
}
