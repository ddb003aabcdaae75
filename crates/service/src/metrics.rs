//! One metric registry a process, served as `/metrics`.
//!
//! Roles register what they have through [`Metrics::register`]. The registry renders OpenMetrics; a scraper that does
//! not ask for it by its `Accept` header gets the classic text format 0.0.4, made from the same text.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus_client::metrics::info::Info;
pub use prometheus_client::registry::Registry;

use crate::http::HttpMetrics;
use crate::process::ProcessCollector;

/// `Content-Type` of the classic text format.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// `Content-Type` of OpenMetrics.
pub const OPENMETRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process's metrics. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    http: HttpMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the process's own metrics, the build's version and HTTP requests.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        let build =
            Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("rust", env!("CARGO_PKG_RUST_VERSION"))]);
        registry.register("chronolith_build", "Version of this program", build);
        let http = HttpMetrics::register(&mut registry);
        Metrics { registry: Arc::new(Mutex::new(registry)), http }
    }

    /// Hands the registry to a role that has metrics to add. Each name must be added once a process.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.registry.lock())
    }

    /// The metrics of HTTP requests, shared by all listeners.
    pub fn http(&self) -> &HttpMetrics {
        &self.http
    }

    /// All metrics as OpenMetrics text.
    pub fn openmetrics(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        let rendered = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock());
        rendered.expect("writing into a string does not fail");
        text
    }

    /// All metrics in the text format 0.0.4.
    pub fn text(&self) -> String {
        classic_text(&self.openmetrics())
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        let metrics = self.clone();
        Router::new()
            .route("/metrics", get(move |headers: HeaderMap| async move { metrics.answer(&headers) }))
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let accepts = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let (kind, body) = if accepts.contains("application/openmetrics-text") {
            (OPENMETRICS_CONTENT_TYPE, self.openmetrics())
        } else {
            (TEXT_CONTENT_TYPE, self.text())
        };
        (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response()
    }
}

/// OpenMetrics text as format 0.0.4: counters and infos carry their suffix in the header lines too, there are no
/// units, exemplars or end marker, and `unknown` is called `untyped`.
fn classic_text(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut held_help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            held_help = rest.split_once(' ').or(Some((rest, "")));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|r| r.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((help_name, help)) = held_help.take().filter(|h| h.0 == name) {
                // 0.0.4 does not escape quotes in help text, OpenMetrics does.
                let help = help.replace("\\\"", "\"");
                out.push_str(&format!("# HELP {help_name}{suffix} {help}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line.split(" # {").next().unwrap_or(line));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;

    #[test]
    fn both_formats_carry_the_same_samples() {
        let metrics = Metrics::new();
        let hits: Counter = Counter::default();
        let sizes = Histogram::new([1.0, 10.0]);
        metrics.register(|r| {
            r.register("cache_hits", "Hits", hits.clone());
            r.register("sizes", "Sizes", sizes.clone());
        });
        hits.inc_by(7);
        sizes.observe(3.0);
        let open = metrics.openmetrics();
        assert!(open.contains("# TYPE cache_hits counter\n") && open.ends_with("# EOF\n"), "{open}");
        let text = metrics.text();
        for want in [
            "# HELP cache_hits_total Hits.\n# TYPE cache_hits_total counter\ncache_hits_total 7\n",
            "# TYPE sizes histogram\n",
            "sizes_bucket{le=\"10.0\"} 1\n",
            "# TYPE process_cpu_seconds_total counter\n",
            "# TYPE process_open_fds gauge\n",
            "# TYPE chronolith_build_info gauge\nchronolith_build_info{",
        ] {
            assert!(text.contains(want), "{want} in {text}");
        }
        assert!(!text.contains("EOF"));
    }

    #[test]
    fn promtool_accepts_the_text() {
        use std::io::Write;
        let Ok(mut promtool) = std::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
        else {
            return; // Not on this machine; the e2e tests scrape with a real Prometheus anyway.
        };
        let text = Metrics::new().text();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let out = promtool.wait_with_output().unwrap();
        assert_ne!(out.status.code(), Some(1), "{}", String::from_utf8_lossy(&out.stderr));
    }
}
