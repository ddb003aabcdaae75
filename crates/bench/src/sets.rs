//! The sets of queries.

use clap::ValueEnum;

use crate::http::percent;
use crate::measure::Query;
use crate::shape::Span;

/// A set of queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// What dashboards, explorers and their drop-down lists ask: instants, one hour, and a day where there is one.
    Fixed,
    /// The language's expensive parts over all of the time there is.
    Language,
}

impl Set {
    /// The queries of the set.
    pub(crate) fn queries(self, span: Span) -> Vec<Query> {
        match self {
            Set::Fixed => fixed(span),
            Set::Language => language(span),
        }
    }
}

/// A host that there is in loads of any size.
fn host(span: Span, n: usize) -> String {
    format!("node-{:05}.prod.example.net:9100", n % span.hosts)
}

/// Range queries read from here on, so that the first window is full.
const WARM_UP_S: f64 = 300.3;
/// Queries end this much before the last sample: off the sample grid, where the old left-closed and the new left-open
/// range windows agree.
const OFF_GRID_S: f64 = 0.7;

fn fixed(span: Span) -> Vec<Query> {
    let end = span.end_s - OFF_GRID_S;
    let start = (span.end_s - 3600.0).max(span.start_s) + WARM_UP_S;
    let one = format!(r#"node_cpu_seconds_total{{instance="{}",cpu="3",mode="user"}}"#, host(span, 3));
    let mode = "sum by (mode) (rate(node_cpu_seconds_total[5m]))";
    let ranges = [
        ("one series rate", format!("rate({one}[5m])")),
        ("sum by (mode) (rate)", mode.to_owned()),
        (
            "sum by (instance) (rate)",
            "sum by (instance) (rate(node_network_receive_bytes_total[5m]))".to_owned(),
        ),
        (
            "histogram_quantile",
            "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))"
                .to_owned(),
        ),
        ("topk", "topk(5, rate(node_disk_read_bytes_total[5m]))".to_owned()),
        (
            "regex",
            r#"sum(node_filesystem_avail_bytes{instance=~"node-000[0-3].*",device=~"sd[a-d]"})"#.to_owned(),
        ),
        ("all series of a name", r#"node_filesystem_free_bytes{region="eu-west-1"}"#.to_owned()),
        ("avg_over_time", "avg by (region) (avg_over_time(node_metric_000[10m]))".to_owned()),
        (
            "ratio join",
            "sum by (instance) (node_filesystem_avail_bytes) / sum by (instance) (node_filesystem_size_bytes)"
                .to_owned(),
        ),
    ];
    let mut set = vec![
        Query::instant("instant, one series", &one, end),
        Query::instant("instant, sum by (mode) (rate)", mode, end),
    ];
    let over = |set: &mut Vec<Query>, title: &str, start: f64| {
        let step_s = Span::step_s(end - start);
        set.extend(
            ranges
                .iter()
                .map(|(name, query)| Query::range(&format!("{title}, {name}"), query, start, end, step_s)),
        );
    };
    over(&mut set, "range", start);
    if span.has_a_day() {
        over(&mut set, "24 h", span.end_s - 86_400.0 + WARM_UP_S);
    }
    set.push(Query::instant("count by (__name__)", r#"count by (__name__) ({job="node"})"#, end));
    let times = format!("start={start}&end={end}");
    set.push(Query::get("label values", format!("/api/v1/label/instance/values?{times}")));
    set.push(Query::get("label names", format!("/api/v1/labels?{times}")));
    let one = percent(&format!(r#"{{instance="{}"}}"#, host(span, 3)));
    let path = format!("/api/v1/label/__name__/values?match[]={one}&{times}");
    set.push(Query::get("label values, matching", path));
    let selector = r#"node_cpu_seconds_total{mode="idle",region="us-east-1"}"#;
    set.push(Query::form(
        "series",
        "/api/v1/series",
        &[("match[]", selector.to_owned()), ("start", start.to_string()), ("end", end.to_string())],
    ));
    set
}

fn language(span: Span) -> Vec<Query> {
    let end = span.end_s - OFF_GRID_S;
    let start = span.start_s + WARM_UP_S;
    let step_s = Span::step_s(end - start);
    let queries = [
        ("rate", "rate(node_network_receive_bytes_total[5m])"),
        ("sum by (rate)", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
        (
            "histogram_quantile",
            "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))",
        ),
        ("topk", "topk(5, rate(node_disk_read_bytes_total[5m]))"),
        (
            "many-to-one join",
            "rate(node_network_receive_bytes_total[5m]) * on (instance) group_left () \
             max by (instance) (node_metric_000)",
        ),
        ("subquery", "max_over_time(sum by (instance) (rate(node_network_receive_bytes_total[5m]))[30m:1m])"),
        (
            "regex",
            r#"sum by (instance) (node_filesystem_avail_bytes{instance=~"node-000[0-3].*",device=~"sd[a-d]"})"#,
        ),
        ("quantile_over_time", "quantile_over_time(0.9, node_filesystem_avail_bytes[10m])"),
    ];
    let mut set: Vec<Query> =
        queries.iter().map(|(name, query)| Query::range(name, query, start, end, step_s)).collect();
    set.push(Query::instant("count by (__name__)", r#"count by (__name__) ({job="node"})"#, end));
    set
}

/// The panels of a dashboard over one host: what an overview of a machine shows, and one panel over all machines.
pub(crate) fn panels(span: Span, dashboard: usize) -> Vec<Query> {
    let end = span.end_s - OFF_GRID_S;
    let start = (span.end_s - 3600.0).max(span.start_s) + WARM_UP_S;
    let step_s = Span::step_s(end - start);
    let i = host(span, dashboard);
    [
        format!(r#"sum by (mode) (rate(node_cpu_seconds_total{{instance="{i}"}}[5m]))"#),
        format!(r#"sum(rate(node_network_receive_bytes_total{{instance="{i}"}}[5m])) by (device)"#),
        format!(r#"rate(node_network_transmit_bytes_total{{instance="{i}"}}[5m])"#),
        format!(
            r#"1 - node_filesystem_avail_bytes{{instance="{i}"}} / node_filesystem_size_bytes{{instance="{i}"}}"#
        ),
        format!(
            r#"histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{{instance="{i}"}}[5m])))"#
        ),
        format!(r#"topk(3, rate(node_disk_read_bytes_total{{instance="{i}"}}[5m]))"#),
        format!(r#"node_metric_000{{instance="{i}"}}"#),
        format!(r#"max_over_time(node_metric_001{{instance="{i}"}}[10m])"#),
        "sum by (region) (rate(http_request_duration_seconds_count[5m]))".to_owned(),
    ]
    .iter()
    .map(|query| Query::range("panel", query, start, end, step_s))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_queries_apart_and_a_day_adds_its_own() {
        let hour = Span { start_s: 0.0, end_s: 3600.0, hosts: 2 };
        let day = Span { end_s: 86_400.0, ..hour };
        for set in [Set::Fixed, Set::Language] {
            for span in [hour, day] {
                let names: Vec<String> = set.queries(span).into_iter().map(|q| q.name).collect();
                let unique: std::collections::HashSet<_> = names.iter().collect();
                assert_eq!(unique.len(), names.len());
            }
        }
        let day_only = |span| fixed(span).iter().filter(|q| q.name.starts_with("24 h")).count();
        assert_eq!((day_only(hour), day_only(day)), (0, 9));
    }
}
