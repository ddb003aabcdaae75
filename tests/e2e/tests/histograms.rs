//! Native histograms, exemplars and metadata by remote write, judged by Prometheus: it is written the same requests.
//!
//! Queries are those whose meaning did not change between 2.42 and 3.14, at times where no sample lies on a window's edge.

use std::time::{SystemTime, UNIX_EPOCH};

use chronolith_e2e::{Chronolith, Prometheus};
use chronolith_model::STALE_NAN;
use chronolith_model::write::encode_labels;
use chronolith_testkit::http;
use serde_json::Value;

const STEP_MS: i64 = 15_000;
const SAMPLES: i64 = 400;

/// Protobuf by hand: the tests' own encoder.
#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, mut v: u64) -> Self {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
        self
    }

    fn varint(self, field: u64, v: u64) -> Self {
        self.number(field << 3).number(v)
    }

    fn zigzag(self, field: u64, v: i64) -> Self {
        self.varint(field, (v << 1 ^ v >> 63) as u64)
    }

    fn double(self, field: u64, v: f64) -> Self {
        let mut out = self.number(field << 3 | 1);
        out.0.extend_from_slice(&v.to_bits().to_le_bytes());
        out
    }

    fn bytes(self, field: u64, content: &[u8]) -> Self {
        let mut out = self.number(field << 3 | 2).number(content.len() as u64);
        out.0.extend_from_slice(content);
        out
    }

    fn spans(self, field: u64, spans: &[(i64, u64)]) -> Self {
        spans.iter().fold(self, |m, (offset, length)| {
            m.bytes(field, &Message::default().zigzag(1, *offset).varint(2, *length).0)
        })
    }

    fn deltas(self, field: u64, deltas: &[i64]) -> Self {
        let packed = deltas.iter().fold(Message::default(), |m, d| m.number((d << 1 ^ d >> 63) as u64));
        self.bytes(field, &packed.0)
    }

    fn doubles(self, field: u64, values: &[f64]) -> Self {
        let packed: Vec<u8> = values.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
        self.bytes(field, &packed)
    }
}

/// A series' labels and what else it has.
fn series(name: &str, instance: &str, parts: &[(u64, Message)]) -> Message {
    let mut labels = Vec::new();
    encode_labels([("__name__", name), ("instance", instance)], &mut labels);
    let all = parts.iter().fold(Message(labels), |m, (field, part)| m.bytes(*field, &part.0));
    Message::default().bytes(1, &all.0)
}

/// Layouts that grow, so that chunks are recoded; a reset in the middle.
fn integer(t: i64, i: i64, k: i64) -> Message {
    let n = (i % 250 + 1) * k;
    let wide = i % 250 >= 100;
    let (spans, deltas): (&[(i64, u64)], Vec<i64>) = match wide {
        false => (&[(0, 2), (1, 1)], vec![n, n, -n]),
        true => (&[(0, 3), (0, 1), (2, 1)], vec![n, n, -2 * n, n, 0]),
    };
    // Buckets are the running sums of the deltas.
    let positive: i64 = if wide { n + 2 * n + n + n } else { n + 2 * n + n };
    Message::default()
        .varint(1, (positive + n + 3 * n) as u64)
        .double(3, n as f64 * 1.75)
        .zigzag(4, 1)
        .double(5, 0.001)
        .varint(6, n as u64)
        .spans(8, &[(2, 1)])
        .deltas(9, &[3 * n])
        .spans(11, spans)
        .deltas(12, &deltas)
        .varint(15, t as u64)
}

fn float(t: i64, i: i64, gauge: bool) -> Message {
    let n = if gauge { (i as f64 / 5.0).sin() + 2.0 } else { i as f64 + 0.5 };
    let message = Message::default()
        .double(2, 6.0 * n)
        .double(3, n * 2.5)
        .zigzag(4, 0)
        .double(5, 0.0)
        .double(7, n)
        .spans(11, &[(-1, 2), (3, 1)])
        .doubles(13, &[n, 2.0 * n, 2.0 * n])
        .varint(15, t as u64);
    if gauge { message.varint(14, 3) } else { message }
}

fn sample(t: i64, v: f64) -> Message {
    Message::default().double(1, v).varint(2, t as u64)
}

/// Requests of a few samples each, in order.
fn requests(start: i64) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for from in (0..SAMPLES).step_by(20) {
        let mut request = Message::default();
        let times = || (from..from + 20).map(|i| (start + i * STEP_MS, i));
        for (k, instance) in [(1, "a"), (3, "b")] {
            let parts: Vec<_> = times().map(|(t, i)| (4, integer(t, i, k))).collect();
            request.0.extend(series("h_int", instance, &parts).0);
        }
        let parts: Vec<_> = times().map(|(t, i)| (4, float(t, i, false))).collect();
        request.0.extend(series("h_float", "a", &parts).0);
        let parts: Vec<_> = times().map(|(t, i)| (4, float(t, i, true))).collect();
        request.0.extend(series("h_gauge", "a", &parts).0);
        // Histograms, then floats, then histograms again; and one that ends with a stale marker.
        let parts: Vec<_> = times()
            .map(|(t, i)| if i / 100 % 2 == 0 { (4, integer(t, i, 1)) } else { (2, sample(t, i as f64)) })
            .collect();
        request.0.extend(series("mixed", "a", &parts).0);
        let parts: Vec<_> = times()
            .filter(|(_, i)| *i <= 300)
            .map(|(t, i)| match i {
                300 => (4, Message::default().varint(1, 0).double(3, STALE_NAN).varint(15, t as u64)),
                _ => (4, integer(t, i, 1)),
            })
            .collect();
        if !parts.is_empty() {
            request.0.extend(series("ended", "a", &parts).0);
        }
        // Exemplars beside a counter.
        let mut parts: Vec<_> = times().map(|(t, i)| (2, sample(t, i as f64))).collect();
        let mut trace = Vec::new();
        encode_labels([("trace_id", &*format!("t{from}"))], &mut trace);
        let exemplar = Message(trace).double(2, from as f64 / 8.0).varint(3, (start + from * STEP_MS) as u64);
        parts.push((3, exemplar));
        request.0.extend(series("hits_total", "a", &parts).0);
        if from == 0 {
            let metadata = Message::default()
                .varint(1, 1)
                .bytes(2, b"hits_total")
                .bytes(4, b"Hits so far")
                .bytes(5, b"hits");
            request.0.extend(Message::default().bytes(3, &metadata.0).0);
        }
        all.push(snap::raw::Encoder::new().compress_vec(&request.0).unwrap());
    }
    all
}

/// The series of an answer in a fixed order, without the label that is ours.
fn normal(text: &str, list: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(body["status"], "success", "{text}");
    let mut result = match list {
        "" => body["data"].clone(),
        list => body["data"][list].clone(),
    };
    let series = result.as_array_mut().expect("a list");
    for one in series.iter_mut() {
        for labels in ["metric", "seriesLabels"] {
            if let Some(labels) = one.get_mut(labels).and_then(Value::as_object_mut) {
                labels.remove("tenant_id");
            }
        }
    }
    series.sort_by_key(|s| s.get("metric").or(s.get("seriesLabels")).map(ToString::to_string));
    std::mem::take(series)
}

/// Equal, numbers up to a relative 1e-9.
fn same(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.parse::<f64>().ok(),
        _ => None,
    };
    match (a, b) {
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => match (number(a), number(b)) {
            (Some(x), Some(y)) => x == y || (x - y).abs() <= 1e-9 * x.abs().max(y.abs()),
            _ => a == b,
        },
    }
}

const QUERIES: [&str; 12] = [
    "h_int",
    "h_float",
    "h_gauge",
    "mixed",
    "ended",
    "histogram_count(h_int)",
    "histogram_sum(h_float)",
    "rate(h_int[5m])",
    "increase(h_float[10m])",
    "sum(h_int)",
    "sum(rate(h_int[2m]))",
    "histogram_count(rate(ended[1m]))",
];

#[test]
fn histograms_and_exemplars_are_what_prometheus_makes_of_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("prometheus")).unwrap();
    let mut server = Chronolith::server(&dir.path().join("chronolith"), &[]);
    let judge = Prometheus::with_config(
        &dir.path().join("prometheus"),
        "{}\n",
        &["--web.enable-remote-write-receiver", "--enable-feature=native-histograms,exemplar-storage"],
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    // Aligned, so that times of evaluation lie between samples.
    let start = (now - 60) / 15 * 15_000 - SAMPLES * STEP_MS;
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    for body in requests(start) {
        let reply = server.write(&body).unwrap();
        assert!(reply.status < 300, "{}", reply.text());
        let reply = http::request("POST", &judge.url("/api/v1/write"), &headers, &body).unwrap();
        assert!(reply.status < 300, "{}", reply.text());
    }
    let first = start as f64 / 1000.0 + 1.0;
    let last = (start + (SAMPLES - 1) * STEP_MS) as f64 / 1000.0 + 1.0;
    let compare = |server: &Chronolith, round: &str| {
        for query in QUERIES {
            let form = format!("query={}&start={first}&end={last}&step=30", http::encode(query));
            let ask = |url: String| http::post_form(&url, &form).unwrap().text();
            let ours = normal(&ask(server.url("/api/v1/query_range")), "result");
            let theirs = normal(&ask(judge.url("/api/v1/query_range")), "result");
            assert!(!theirs.is_empty(), "{query} from the {round}");
            assert_eq!(ours.len(), theirs.len(), "{query} from the {round}: {ours:?} {theirs:?}");
            for (a, b) in ours.iter().zip(&theirs) {
                assert_eq!(a["metric"], b["metric"], "{query} from the {round}");
                for part in ["values", "histograms"] {
                    let (a, b) = (a[part].as_array(), b[part].as_array());
                    let points = a.iter().flat_map(|a| a.iter()).zip(b.iter().flat_map(|b| b.iter()));
                    for (a, b) in points {
                        assert!(same(a, b), "{query} from the {round}: {a} is not {b}");
                    }
                    assert_eq!(a.map(Vec::len), b.map(Vec::len), "{query} from the {round}: {part}");
                }
            }
        }
        let form = format!("query=hits_total&start={first}&end={last}");
        let ask = |url: String| normal(&http::post_form(&url, &form).unwrap().text(), "");
        let (ours, theirs) =
            (ask(server.url("/api/v1/query_exemplars")), ask(judge.url("/api/v1/query_exemplars")));
        assert_eq!(theirs[0]["exemplars"].as_array().unwrap().len(), 19, "the first lies before the start");
        assert!(
            same(&Value::Array(ours.clone()), &Value::Array(theirs.clone())),
            "{ours:?} is not {theirs:?}"
        );
        let metadata: Value = serde_json::from_slice(&server.get("/api/v1/metadata").body).unwrap();
        let want =
            serde_json::json!({"hits_total": [{"type": "counter", "help": "Hits so far", "unit": "hits"}]});
        assert_eq!(metadata["data"], want, "{round}");
    };
    compare(&server, "head");
    server.crash_and_restart();
    compare(&server, "log");
    server.restart();
    compare(&server, "snapshot");
    server.flush();
    compare(&server, "block");
    // Blocks with histograms are Prometheus's.
    let bucket = dir.path().join("chronolith/bucket");
    let blocks = std::fs::read_dir(bucket).unwrap().filter(|b| b.as_ref().unwrap().file_name().len() == 26);
    let mut count = 0;
    for block in blocks {
        let block = block.unwrap().file_name().into_string().unwrap();
        let bucket = dir.path().join("chronolith/bucket").display().to_string();
        let text = chronolith_e2e::promtool(&["tsdb", "analyze", &bucket, &block]);
        assert!(text.contains("Duration"), "{text}");
        count += 1;
    }
    assert!(count > 0);
    server.stop();
}
