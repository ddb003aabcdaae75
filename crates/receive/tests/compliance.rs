//! What Prometheus's compliance suite for remote-write receivers asks for, as a table of our own: requests of 2.0 (and two of
//! 1.0) over a real socket, and status and written counts of each answer.
//!
//! The suite wants 2xx with exact counts, or 400 with counts of what was stored, or the named status. Labels stand in no
//! order there, as here. One of its wishes (a "should") is not granted, as Prometheus does not grant it either: exemplars
//! of a series without samples are refused, since the specification asks for a sample or a histogram.

use std::collections::HashMap;

use chronolith_model::STALE_NAN;
use chronolith_service::ManualClock;
use prost::encoding::encode_varint;

mod common;

use common::{Role, config, series, tagged};

const NOW: i64 = 1_767_225_600_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 3_600_000;
const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A request of 2.0 that grows.
#[derive(Default)]
struct Request {
    symbols: Vec<String>,
    numbers: HashMap<String, u64>,
    series: Vec<u8>,
}

/// Label names and values.
type Pairs = Vec<(String, String)>;

/// A series of it.
#[derive(Clone, Default)]
struct Row {
    labels: Vec<(String, String)>,
    samples: Vec<(i64, f64)>,
    start_ts: i64,
    histograms: Vec<Vec<u8>>,
    /// Labels, value, milliseconds.
    exemplars: Vec<(Pairs, f64, i64)>,
    /// Type, help, unit.
    metadata: Option<(u64, String, String)>,
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

impl Row {
    fn of(labels: &[(&str, &str)]) -> Self {
        Row { labels: owned(labels), ..Row::default() }
    }

    fn named(name: &str) -> Self {
        Row::of(&[("job", "api"), ("__name__", name), ("instance", "localhost:9090")])
    }

    fn sample(mut self, t: i64, v: f64) -> Self {
        self.samples.push((t, v));
        self
    }

    fn histogram(mut self, histogram: Vec<u8>) -> Self {
        self.histograms.push(histogram);
        self
    }

    fn exemplar(mut self, labels: &[(&str, &str)], v: f64, t: i64) -> Self {
        self.exemplars.push((owned(labels), v, t));
        self
    }

    fn says(mut self, kind: u64, help: &str, unit: &str) -> Self {
        self.metadata = Some((kind, help.to_owned(), unit.to_owned()));
        self
    }

    fn since(mut self, start_ts: i64) -> Self {
        self.start_ts = start_ts;
        self
    }
}

impl Request {
    fn of(rows: &[Row]) -> Vec<u8> {
        let mut request = Request::default();
        request.symbol("");
        rows.iter().for_each(|row| request.push(row));
        let mut body: Vec<u8> = request.symbols.iter().flat_map(|s| tagged(4, s.as_bytes())).collect();
        body.extend(request.series);
        body
    }

    fn symbol(&mut self, text: &str) -> u64 {
        *self.numbers.entry(text.to_owned()).or_insert_with(|| {
            self.symbols.push(text.to_owned());
            self.symbols.len() as u64 - 1
        })
    }

    fn refs(&mut self, labels: &[(String, String)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in labels {
            encode_varint(self.symbol(name), &mut out);
            encode_varint(self.symbol(value), &mut out);
        }
        out
    }

    fn push(&mut self, row: &Row) {
        let mut one = tagged(1, &self.refs(&row.labels));
        for (t, v) in &row.samples {
            let mut sample = vec![0x09];
            sample.extend(v.to_le_bytes());
            number(2, *t, &mut sample);
            number(3, row.start_ts, &mut sample);
            one.extend(tagged(2, &sample));
        }
        row.histograms.iter().for_each(|h| one.extend(tagged(3, h)));
        for (labels, v, t) in &row.exemplars {
            let mut exemplar = tagged(1, &self.refs(labels));
            exemplar.push(0x11);
            exemplar.extend(v.to_le_bytes());
            number(3, *t, &mut exemplar);
            one.extend(tagged(4, &exemplar));
        }
        if let Some((kind, help, unit)) = &row.metadata {
            let mut metadata = Vec::new();
            number(1, *kind as i64, &mut metadata);
            number(3, self.symbol(help) as i64, &mut metadata);
            number(4, self.symbol(unit) as i64, &mut metadata);
            one.extend(tagged(5, &metadata));
        }
        self.series.extend(tagged(5, &one));
    }
}

fn number(field: u8, v: i64, out: &mut Vec<u8>) {
    if v != 0 {
        out.push(field << 3);
        encode_varint(v as u64, out);
    }
}

/// A native histogram: which buckets it has, custom ones or not, and whether its count is a lie.
fn histogram(t: i64, positive: bool, negative: bool, zero: bool, custom: bool, lies: bool) -> Vec<u8> {
    let (mut out, mut count) = (Vec::new(), 0i64);
    // One span of two buckets with 2 and 3.
    let side = |spans: u8, deltas: u8| {
        [tagged(spans, &[0x08, 0, 0x10, 2]), tagged(deltas, &[2 << 1, 1 << 1])].concat()
    };
    let (mut buckets, schema) = (Vec::new(), if custom { -53i64 } else { 0 });
    if positive {
        buckets.extend(side(11, 12));
        count += 5;
    }
    if negative {
        buckets.extend(side(8, 9));
        count += 5;
    }
    let zeros = if zero { 4 } else { 0 };
    count += zeros;
    number(1, if lies { count + 100 } else { count }, &mut out);
    out.push(3 << 3 | 1);
    out.extend(12.5f64.to_le_bytes());
    number(4, (schema << 1) ^ (schema >> 63), &mut out);
    number(6, zeros, &mut out);
    out.extend(buckets);
    number(15, t, &mut out);
    if custom {
        // Field 16, a tag of two bytes.
        out.extend([0x82, 0x01, 16]);
        out.extend([1.0f64, 5.0].iter().flat_map(|bound| bound.to_le_bytes()));
    }
    out
}

/// What an answer must be: a 2xx with exactly these counts of samples, histograms and exemplars, or a status with at most
/// what the good part has.
enum Want {
    Stored([u64; 3]),
    Refused(u16, [u64; 3]),
}

struct Answer {
    status: u16,
    text: String,
    written: [Option<u64>; 3],
}

async fn post(role: &Role, content_type: &str, encoding: &str, body: Vec<u8>) -> Answer {
    let url = format!("http://{}/api/v1/write", role.remote_write);
    let request = role.client.post(url).header("content-type", content_type).body(body);
    let response = request.header("content-encoding", encoding).send().await.unwrap();
    let written = ["samples", "histograms", "exemplars"].map(|kind| {
        let header = response.headers().get(format!("x-prometheus-remote-write-{kind}-written"));
        header.map(|v| v.to_str().unwrap().parse().unwrap())
    });
    Answer { status: response.status().as_u16(), text: response.text().await.unwrap(), written }
}

fn snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}

/// As the suite damages a body.
fn damaged(body: &[u8]) -> Vec<u8> {
    let mut body = snappy(body);
    body[0] = b'0';
    body
}

/// Every request goes to a tenantless, empty receiver of its own time: names do not repeat from row to row.
fn rows() -> Vec<(String, Vec<Row>, Want)> {
    let mut out: Vec<(String, Vec<Row>, Want)> = Vec::new();
    let mut add = |name: &str, rows: Vec<Row>, want: Want| out.push((name.to_owned(), rows, want));
    let values = [1.0, STALE_NAN, f64::from_bits(0x7FF8_0000_0000_0001), f64::INFINITY, f64::NEG_INFINITY];
    for (i, v) in values.into_iter().enumerate() {
        let name = format!("value_{i}");
        let plain = |labels: &[(&str, &str)]| vec![Row::of(labels).sample(NOW, v)];
        add("a sample", plain(&[("__name__", &name)]), Want::Stored([1, 0, 0]));
        add("labels", vec![Row::named(&name).sample(NOW, v)], Want::Stored([1, 0, 0]));
        add("newlines", plain(&[("__name__", &name), ("job", "a\njob\n")]), Want::Stored([1, 0, 0]));
        let dots = format!("dots.{i}");
        add("dots", plain(&[("__name__", &dots), ("job.name", "x")]), Want::Stored([1, 0, 0]));
        let spaces = format!("spaces {i}");
        add("spaces", plain(&[("__name__", &spaces), ("job name", "x")]), Want::Stored([1, 0, 0]));
        add("no name", plain(&[("job", "x"), ("instance", "y")]), Want::Refused(400, [0; 3]));
        add("no labels", plain(&[]), Want::Refused(400, [0; 3]));
        let of = |n: i64| Row::of(&[("instance", &n.to_string()), ("__name__", &name)]).sample(NOW, v);
        let nameless = || Row::of(&[("job", "x")]).sample(NOW, v);
        add("several", (0..4).map(of).collect(), Want::Stored([4, 0, 0]));
        add("several without a name", vec![nameless(), nameless()], Want::Refused(400, [0; 3]));
        let partly = vec![nameless(), of(5), of(6), of(7)];
        add("one of them without a name", partly, Want::Refused(400, [3, 0, 0]));
    }
    add(
        "a counter with a start",
        vec![Row::named("started").sample(NOW, 100.0).since(NOW - HOUR)],
        Want::Stored([1, 0, 0]),
    );
    let exemplars: [(&str, &[(&str, &str)]); 7] = [
        ("trace", &[("trace_id", "abc123def456")]),
        ("trace and span", &[("trace_id", "xyz"), ("span_id", "s1")]),
        ("neither", &[("user_id", "user123")]),
        ("many labels", &[("trace_id", "t"), ("user", "admin"), ("endpoint", "/login")]),
        ("no labels", &[]),
        ("special characters", &[("trace_id", "trace-with-dashes_and_underscores.123")]),
        ("unicode", &[("trace_id", "unicode_trace_测试")]),
    ];
    for (i, (name, labels)) in exemplars.into_iter().enumerate() {
        let row = Row::named(&format!("exemplar_{i}")).sample(NOW, 1.0).exemplar(labels, 1.0, NOW);
        add(&format!("exemplar: {name}"), vec![row], Want::Stored([1, 0, 1]));
    }
    let started = Row::named("exemplar_started").sample(NOW, 250.0).since(NOW - 2 * HOUR);
    let started = started.exemplar(&[("trace_id", "a"), ("span_id", "b")], 250.0, NOW);
    add("exemplar of a started counter", vec![started], Want::Stored([1, 0, 1]));
    let traced = |name: &str, method: &str, trace: &str| {
        let row = Row::of(&[("method", method), ("__name__", name)]).sample(NOW, 0.1);
        row.exemplar(&[("trace_id", trace)], 0.1, NOW)
    };
    let several = vec![traced("many", "GET", "1"), traced("many", "POST", "2"), traced("errors", "GET", "3")];
    add("exemplars of several series", several, Want::Stored([3, 0, 3]));
    let at = |t: i64| Row::named("times").sample(t, 0.1).exemplar(&[("trace_id", "x")], 0.1 + t as f64, t);
    add(
        "exemplars of several times",
        vec![at(NOW - HOUR), at(NOW - MINUTE), at(NOW)],
        Want::Stored([3, 0, 3]),
    );
    for (i, v) in values.into_iter().enumerate() {
        let row = Row::named(&format!("special_{i}")).sample(NOW, 1.0);
        add(
            "exemplar of a special value",
            vec![row.exemplar(&[("trace_id", "x")], v, NOW)],
            Want::Stored([1, 0, 1]),
        );
    }
    for labels in [&[("job", "x")][..], &[("__name__", "")]] {
        let row = Row::of(labels).sample(NOW, 1.0).exemplar(&[("trace_id", "x")], 1.0, NOW);
        add("exemplar without a name", vec![row.clone()], Want::Refused(400, [0; 3]));
        add("metadata without a name", vec![row.says(1, "h", "u")], Want::Refused(400, [0; 3]));
    }
    let alone = Row::named("orphan").exemplar(&[("trace_id", "x")], 1.0, NOW);
    add("exemplars without a sample", vec![alone], Want::Refused(400, [0; 3]));
    add("nothing at all", vec![], Want::Stored([0; 3]));
    for (i, (name, positive, negative, zero, custom)) in [
        ("all buckets", true, true, true, false),
        ("custom buckets", true, false, false, true),
        ("positive and zero", true, false, true, false),
        ("negative", false, true, false, false),
        ("zero", false, false, true, false),
        ("empty", false, false, false, false),
    ]
    .into_iter()
    .enumerate()
    {
        let row = Row::named(&format!("histogram_{i}"));
        let made = histogram(NOW, positive, negative, zero, custom, false);
        add(&format!("histogram: {name}"), vec![row.histogram(made)], Want::Stored([0, 1, 0]));
    }
    let dense = || histogram(NOW, true, true, true, false, false);
    add(
        "histogram: a count that is none",
        vec![Row::named("lies").histogram(histogram(NOW, true, true, true, false, true))],
        Want::Refused(400, [0; 3]),
    );
    let both = [("histogram: with all else", false), ("histogram: custom, with all else", true)];
    for (name, custom) in both {
        let row = Row::named(name).histogram(histogram(NOW, true, false, false, custom, false));
        let row = row.says(3, "how long", "seconds").exemplar(&[("trace_id", "slow")], 0.4, NOW);
        add(name, vec![row], Want::Stored([0, 1, 1]));
    }
    let many = (0..50).map(|i| Row::named(&format!("many_histograms_{i}")).histogram(dense()));
    add("many histograms", many.collect(), Want::Stored([0, 50, 0]));
    for (kind, help, unit) in [
        (1, "Total requests", "requests"),
        (2, "Current value", "bytes"),
        (3, "How long", "seconds"),
        (5, "Quantiles", "seconds"),
        (4, "Distribution now", "bytes"),
        (6, "Build", ""),
        (7, "States", ""),
        (0, "Of no kind", ""),
        (1, "", ""),
        (1, "Quotes \"x\", lines\nand 日本", "u"),
    ] {
        let name = format!("metadata_{kind}_{}", help.len());
        add(
            "metadata",
            vec![Row::named(&name).sample(NOW, 1.0).says(kind, help, unit)],
            Want::Stored([1, 0, 0]),
        );
    }
    let mixed = vec![
        Row::named("old").sample(NOW - HOUR, 1.0).exemplar(&[("trace_id", "old")], 1.0, NOW - HOUR / 2),
        Row::named("new").sample(NOW, 2.0).says(2, "new", ""),
    ];
    add("several times in one request", mixed, Want::Stored([2, 0, 1]));
    let many = (0..2000).map(|i| Row::of(&[("n", &i.to_string()), ("__name__", "many")]).sample(NOW, 1.0));
    add("many samples", many.collect(), Want::Stored([2000, 0, 0]));
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suites_requests_are_answered_as_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let config = chronolith_receive::Config {
        // The suite goes back in time from request to request.
        out_of_order_window_ms: 2 * HOUR,
        exemplars_max: 10_000,
        ..config(dir.path())
    };
    let role = Role::start(config, None, &ManualClock::new(NOW)).await;
    for (name, rows, want) in rows() {
        let answer = post(&role, V2, "snappy", snappy(&Request::of(&rows))).await;
        let Answer { status, text, written } = &answer;
        match want {
            Want::Stored(counts) => {
                assert_eq!((*status, written.map(Option::unwrap)), (204, counts), "{name}: {text}");
            }
            Want::Refused(code, counts) => {
                assert_eq!((*status, written.map(Option::unwrap)), (code, counts), "{name}: {text}");
                assert!(!text.is_empty(), "{name}");
            }
        }
    }
    // What the request is, comes before what is in it.
    let body = Request::of(&[Row::named("up").sample(NOW, 1.0)]);
    for content_type in
        ["application/json", "image/png", "application/x-protobuf;proto=io.prometheus.write.v3.Request"]
    {
        assert_eq!(post(&role, content_type, "snappy", damaged(&body)).await.status, 415, "{content_type}");
    }
    for encoding in ["gzip", "deflate"] {
        assert_eq!(post(&role, V2, encoding, damaged(&body)).await.status, 415, "{encoding}");
    }
    assert_eq!(post(&role, V2, "snappy", damaged(&body)).await.status, 400);
    assert_eq!(
        post(&role, V2, "snappy", snappy(b"\x2a\xff")).await.status,
        400,
        "not the protobuf that it says"
    );
    // 1.0 beside it: no counts.
    let old = [
        series(&[("__name__", "rw1"), ("job", "x")], &[(NOW, 1.0)]),
        series(&[("__name__", "b")], &[(NOW, 2.0)]),
    ];
    let answer = post(&role, "application/x-protobuf", "snappy", snappy(&old.concat())).await;
    assert_eq!((answer.status, answer.written), (204, [None; 3]));
    let mut body = snappy(&old[0]);
    body[0] = 0xFF;
    assert_eq!(post(&role, "application/x-protobuf", "snappy", body).await.status, 400);
    assert_eq!(role.samples("many").await.len(), 2000 + 2, "what was answered for is there");
    role.stop().await.unwrap();
}
