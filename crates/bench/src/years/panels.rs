//! What is asked: a dashboard over all of the time, a day long ago in raw samples, lists of labels.

use crate::http::percent;
use crate::measure::Query;

/// A graph of usual width has so many points.
const POINTS: i64 = 720;
const DAY_S: i64 = 86_400;
/// Raw samples are read at a dashboard's step for a day.
const DAY_STEP_S: i64 = 120;

/// Times in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start_s: i64,
    pub(super) end_s: i64,
}

impl Times {
    fn step_s(self) -> i64 {
        ((self.end_s - self.start_s) / POINTS).max(60)
    }

    /// A day that lies 5/6 of the time back: 150 days of 180.
    fn old_day(self) -> (i64, i64) {
        let start = self.end_s - (self.end_s - self.start_s) * 5 / 6;
        (start, start + DAY_S)
    }
}

fn range(name: &str, query: &str, (start, end): (i64, i64), step_s: i64, resolution: &str) -> Query {
    let form = [
        ("query", query.to_owned()),
        ("start", start.to_string()),
        ("end", end.to_string()),
        ("step", step_s.to_string()),
        ("max_source_resolution", resolution.to_owned()),
    ];
    Query::form(name, "/api/v1/query_range", &form)
}

/// The panels of one dashboard over all of the time, at a resolution of one hour.
pub(super) fn dashboard(times: Times) -> Vec<Query> {
    let panels = [
        ("sum by (mode) (rate), 512 series", "sum by (mode) (rate(node_cpu_seconds_total[6h]))"),
        (
            "histogram_quantile, 384 series",
            "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[6h])))",
        ),
        ("avg of a gauge, 32 series", "avg by (instance) (node_filesystem_avail_bytes)"),
        ("topk of rates, 32 series", "topk(5, rate(node_disk_read_bytes_total[6h]))"),
        ("max_over_time, 2 series", "max_over_time(node_metric_000[1d])"),
        (
            "rate of one series",
            r#"rate(node_cpu_seconds_total{instance="node-00000.prod.example.net:9100",cpu="3",mode="user"}[6h])"#,
        ),
    ];
    let all = (times.start_s, times.end_s);
    panels.iter().map(|(name, query)| range(name, query, all, times.step_s(), "1h")).collect()
}

/// Everything that is measured one by one.
pub(super) fn all(times: Times) -> Vec<Query> {
    let all = (times.start_s, times.end_s);
    let mut set = dashboard(times);
    let cpu = r#"sum by (mode) (rate(node_cpu_seconds_total{cpu="0"}[6h]))"#;
    // A fifth of the step decides: an hour, and five minutes.
    set.push(range("auto, 1 h: sum by (rate), 16 series", cpu, all, (5 * 3600).max(times.step_s()), "auto"));
    set.push(range("auto, 5 m: sum by (rate), 16 series", cpu, all, times.step_s().min(3 * 3600), "auto"));
    let day = |name, query| range(name, query, times.old_day(), DAY_STEP_S, "0s");
    set.extend([
        day("raw day, rate of one device", r#"rate(node_network_receive_bytes_total{device="eth0"}[10m])"#),
        day("raw day, avg of a gauge, 32 series", "avg by (instance) (node_filesystem_avail_bytes)"),
        day("raw day, sum by (mode) (rate), 512 series", "sum by (mode) (rate(node_cpu_seconds_total[10m]))"),
    ]);
    let get = |name, path: &str, matching: &str| {
        let matching = match matching {
            "" => String::new(),
            selector => format!("&match[]={}", percent(selector)),
        };
        Query::get(name, format!("{path}?start={}&end={}{matching}", times.start_s, times.end_s))
    };
    set.extend([
        get("label names", "/api/v1/labels", ""),
        get("label values", "/api/v1/label/instance/values", ""),
        get("label values, matching", "/api/v1/label/device/values", "node_filesystem_files"),
        get("series", "/api/v1/series", r#"{__name__=~"node_filesystem_.*"}"#),
    ]);
    set
}
