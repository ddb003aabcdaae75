//! The fixed set of queries: latency and server CPU of each, on the same data in every server.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::peer::Running;
use crate::report::median;

/// One query of the set.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Row title.
    pub(crate) name: &'static str,
    path: String,
    form: Vec<(&'static str, String)>,
}

/// What one query cost.
#[derive(Clone, Debug)]
pub(crate) struct QueryResult {
    /// Median latency in seconds.
    pub p50_s: f64,
    /// Server CPU seconds per execution.
    pub(crate) cpu_s: f64,
    /// Bytes of the reply.
    pub(crate) reply_bytes: usize,
    /// Series or values in the reply: a sanity figure that must agree between servers.
    pub(crate) rows: usize,
}

/// The set over data that spans `[start_ms, end_ms]`.
pub(crate) fn fixed_set(start_ms: i64, end_ms: i64, step_s: u64) -> Vec<Query> {
    // Off the sample grid, where the old left-closed and the new left-open range windows agree.
    let end = end_ms as f64 / 1000.0 - 0.7;
    let start = start_ms as f64 / 1000.0 + 300.3;
    let instant = |name, query: &str| Query {
        name,
        path: "/api/v1/query".into(),
        form: vec![("query", query.to_owned()), ("time", end.to_string())],
    };
    let range = |name, query: &str| Query {
        name,
        path: "/api/v1/query_range".into(),
        form: vec![
            ("query", query.to_owned()),
            ("start", start.to_string()),
            ("end", end.to_string()),
            ("step", step_s.to_string()),
        ],
    };
    let one = r#"node_cpu_seconds_total{instance="node-00003.prod.example.net:9100",cpu="3",mode="user"}"#;
    vec![
        instant("instant, one series", one),
        instant("instant, sum by (mode) (rate)", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
        range("range, one series rate", &format!("rate({one}[5m])")),
        range("range, sum by (mode) (rate)", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
        range(
            "range, sum by (instance) (rate)",
            "sum by (instance) (rate(node_network_receive_bytes_total[5m]))",
        ),
        range(
            "range, histogram_quantile",
            "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))",
        ),
        range("range, topk", "topk(5, rate(node_disk_read_bytes_total[5m]))"),
        range(
            "range, regex",
            r#"sum(node_filesystem_avail_bytes{instance=~"node-000[0-3].*",device=~"sd[a-d]"})"#,
        ),
        range("range, all series of a name", r#"node_filesystem_free_bytes{region="eu-west-1"}"#),
        range("range, avg_over_time", "avg by (region) (avg_over_time(node_metric_000[10m]))"),
        range(
            "range, ratio join",
            "sum by (instance) (node_filesystem_avail_bytes) / sum by (instance) (node_filesystem_size_bytes)",
        ),
        instant("count by (__name__)", r#"count by (__name__) ({job="node"})"#),
        Query {
            name: "label values",
            path: format!("/api/v1/label/instance/values?start={start}&end={end}"),
            form: Vec::new(),
        },
        Query {
            name: "series",
            path: "/api/v1/series".into(),
            form: vec![
                ("match[]", r#"node_cpu_seconds_total{mode="idle",region="us-east-1"}"#.to_owned()),
                ("start", start.to_string()),
                ("end", end.to_string()),
            ],
        },
    ]
}

/// The kernel counts CPU in ticks of 10 ms: a query is repeated until so much time has passed that a tick is noise.
const MEASURED_S_MIN: f64 = 1.0;

/// Runs one query at least `runs` times and for [`MEASURED_S_MIN`], after one run that does not count.
pub(crate) fn measure(server: &Running, query: &Query, runs: usize) -> Result<QueryResult> {
    let mut client = server.client();
    let mut execute = || -> Result<Vec<u8>> {
        let reply = if query.form.is_empty() {
            client.get(&query.path)?
        } else {
            client.post_form(&query.path, &query.form)?
        };
        if reply.status != 200 {
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            bail!("{} answered {} to {}: {text}", server.peer.title(), reply.status, query.name);
        }
        Ok(reply.body)
    };
    let first = execute()?;
    let rows = count_rows(&first)?;
    let cpu_before = server.cpu_seconds()?;
    let mut latencies = Vec::with_capacity(runs);
    let begin = Instant::now();
    while latencies.len() < runs || begin.elapsed().as_secs_f64() < MEASURED_S_MIN {
        let started = Instant::now();
        execute()?;
        latencies.push(started.elapsed().as_secs_f64());
    }
    let cpu_s = (server.cpu_seconds()? - cpu_before) / latencies.len() as f64;
    Ok(QueryResult { p50_s: median(latencies), cpu_s, reply_bytes: first.len(), rows })
}

fn count_rows(body: &[u8]) -> Result<usize> {
    let reply: serde_json::Value = serde_json::from_slice(body)?;
    let data = &reply["data"];
    let rows = data.as_array().or_else(|| data["result"].as_array());
    Ok(rows.map_or(0, Vec::len))
}
