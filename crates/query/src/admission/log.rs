//! The query log: a line of JSON for each query, in the form of Prometheus's `query_log_file`, with what this engine
//! knows besides; and slow queries in the process's own log.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use chronolith_httpapi::{JsonBuf, seconds, write_stats};
use parking_lot::Mutex;

use super::Origin;

/// A query that ended, for the log.
#[derive(Clone, Copy, Debug)]
pub struct QueryRecord<'r> {
    /// The text.
    pub query: &'r str,
    /// First evaluation time, milliseconds.
    pub start_ms: i64,
    /// Last evaluation time, milliseconds.
    pub end_ms: i64,
    /// Between evaluations; 0 for a query at one time.
    pub step_ms: i64,
    /// Who asked.
    pub origin: &'r Origin,
    /// What went wrong, and in kind.
    pub error: Option<(&'r str, &'static str)>,
    /// What it cost.
    pub stats: chronolith_promql::QueryStats,
    /// How long its parts took.
    pub timings: chronolith_promql::QueryTimings,
    /// How long it waited for its turn, seconds.
    pub queued_s: f64,
    /// How long it took with waiting and writing the reply, seconds.
    pub total_s: f64,
    /// Series of the result.
    pub result_series: usize,
    /// Most bytes that it held at one time.
    pub memory_peak_bytes: usize,
}

/// The file. Lines are appended whole, so that it may be truncated or copied meanwhile.
#[derive(Debug)]
pub(crate) struct QueryLog {
    file: Mutex<File>,
}

impl QueryLog {
    /// Opens the file for appending.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(QueryLog { file: Mutex::new(file) })
    }

    /// Writes a query's line.
    pub(crate) fn write(&self, record: &QueryRecord<'_>, now_ms: i64) -> io::Result<()> {
        let mut line = line(record, now_ms);
        line.push(b'\n');
        self.file.lock().write_all(&line)
    }
}

fn line(r: &QueryRecord<'_>, now_ms: i64) -> Vec<u8> {
    let mut j = JsonBuf::new();
    j.raw(r#"{"time":"#).string(&date(now_ms)).raw(r#","level":"INFO","msg":"promql query logged","#);
    j.raw(r#""params":{"end":"#).string(&date(r.end_ms)).raw(r#","query":"#).string(r.query);
    j.raw(r#","start":"#).string(&date(r.start_ms)).raw(r#","step":"#).int(r.step_ms / 1000).raw("}");
    if let Some((error, kind)) = r.error {
        j.raw(r#","error":"#).string(error).raw(r#","errorType":"#).string(kind);
    }
    j.raw(r#","stats":"#);
    write_stats(&mut j, &r.timings, r.queued_s, &r.stats, None);
    j.raw(r#","httpRequest":{"clientIP":"#).string(&r.origin.address);
    j.raw(r#","method":"#).string(&r.origin.method).raw(r#","path":"#).string(&r.origin.path).raw("}");
    if let Some(tenant) = &r.origin.tenant {
        j.raw(r#","tenant":"#).string(tenant);
    }
    j.raw(r#","durationSeconds":"#).raw(&seconds(r.total_s));
    j.raw(r#","seriesRead":"#).int(r.stats.series_read as i64);
    j.raw(r#","resultSeries":"#).int(r.result_series as i64);
    j.raw(r#","peakMemoryBytes":"#).int(r.memory_peak_bytes as i64).raw("}");
    j.bytes
}

/// A time as upstream's query log prints it.
fn date(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(t) => t.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        // Further from the epoch than a calendar goes.
        Err(_) => format!("{}", ms as f64 / 1000.0),
    }
}

/// Says a slow query in the process's log.
pub(crate) fn warn_slow(r: &QueryRecord<'_>) {
    // A query may be a megabyte long; its beginning tells which one it is.
    const SHOWN: usize = 2048;
    let mut end = r.query.len().min(SHOWN);
    while !r.query.is_char_boundary(end) {
        end -= 1;
    }
    tracing::warn!(
        query = &r.query[..end],
        start_ms = r.start_ms,
        end_ms = r.end_ms,
        step_ms = r.step_ms,
        duration_s = r.total_s,
        queued_s = r.queued_s,
        samples = r.stats.samples_total,
        series = r.stats.series_read,
        memory_peak_bytes = r.memory_peak_bytes,
        client = %r.origin.address,
        tenant = r.origin.tenant.as_deref().unwrap_or_default(),
        err = r.error.map_or("", |(text, _)| text),
        "slow query"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_upstreams_with_more() {
        let origin = Origin {
            address: "10.0.0.7".to_owned(),
            tenant: Some("team-a".to_owned()),
            method: "GET".to_owned(),
            path: "/api/v1/query_range".to_owned(),
        };
        let record = QueryRecord {
            query: "up{a=\"b\"}",
            start_ms: 1_700_000_000_000,
            end_ms: 1_700_000_060_500,
            step_ms: 15_000,
            origin: &origin,
            error: Some(("query timed out in expression evaluation", "timeout")),
            stats: chronolith_promql::QueryStats { samples_total: 7, ..Default::default() },
            timings: chronolith_promql::QueryTimings { prepare_s: 0.5, eval_s: 1.0, sort_s: 0.0 },
            queued_s: 0.25,
            total_s: 1.75,
            result_series: 0,
            memory_peak_bytes: 4096,
        };
        let value: serde_json::Value = serde_json::from_slice(&line(&record, 0)).unwrap();
        assert_eq!(value["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(
            value["params"],
            serde_json::json!({
                "query": "up{a=\"b\"}", "start": "2023-11-14T22:13:20.000Z", "end": "2023-11-14T22:14:20.500Z", "step": 15
            })
        );
        assert_eq!(value["stats"]["timings"]["execTotalTime"], 1.75);
        assert_eq!(value["stats"]["timings"]["innerEvalTime"], 1);
        assert_eq!((&value["tenant"], &value["errorType"]), (&"team-a".into(), &"timeout".into()));
        assert_eq!(value["httpRequest"]["clientIP"], "10.0.0.7");
        assert_eq!((&value["peakMemoryBytes"], &value["durationSeconds"]), (&4096.into(), &1.75.into()));
    }
}
