//! Latency, server CPU and memory of one query.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::http::Client;
use crate::report::median;
use crate::running::Running;

/// One query.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// Row title.
    pub(crate) name: String,
    path: String,
    form: Vec<(&'static str, String)>,
}

impl Query {
    /// At one time.
    pub(crate) fn instant(name: &str, query: &str, time_s: f64) -> Self {
        Self::form(name, "/api/v1/query", &[("query", query.to_owned()), ("time", time_s.to_string())])
    }

    /// Over a range.
    pub(crate) fn range(name: &str, query: &str, start_s: f64, end_s: f64, step_s: u64) -> Self {
        let form = [
            ("query", query.to_owned()),
            ("start", start_s.to_string()),
            ("end", end_s.to_string()),
            ("step", step_s.to_string()),
        ];
        Self::form(name, "/api/v1/query_range", &form)
    }

    /// Any call that is posted as a form.
    pub(crate) fn form(name: &str, path: &str, form: &[(&'static str, String)]) -> Self {
        Query { name: name.to_owned(), path: path.to_owned(), form: form.to_vec() }
    }

    /// A call by its path.
    pub(crate) fn get(name: &str, path: String) -> Self {
        Query { name: name.to_owned(), path, form: Vec::new() }
    }

    /// Asks, and gives the reply's body.
    pub(crate) fn execute(&self, client: &mut Client) -> Result<Vec<u8>> {
        let reply = if self.form.is_empty() {
            client.get(&self.path)?
        } else {
            client.post_form(&self.path, &self.form)?
        };
        if reply.status != 200 {
            bail!("status {} for {}: {}", reply.status, self.name, String::from_utf8_lossy(&reply.body));
        }
        Ok(reply.body)
    }
}

/// What one query cost.
#[derive(Clone, Debug)]
pub(crate) struct QueryResult {
    /// Median latency in seconds.
    pub p50_s: f64,
    /// Server CPU seconds per execution: the median of some stretches of executions.
    pub(crate) cpu_s: f64,
    /// Peak anonymous memory above what the server held before.
    pub(crate) peak_bytes: f64,
    /// Series or values in the reply: a sanity figure that must agree between servers.
    pub(crate) rows: usize,
}

/// Stretches of executions whose median is taken.
const STRETCHES: usize = 3;
/// The kernel counts CPU in ticks of 10 ms: a stretch lasts until so much time has passed that a tick is noise.
const STRETCH_S_MIN: f64 = 0.4;

/// Runs one query, after two runs that do not count, in stretches of at least `runs` executions and [`STRETCH_S_MIN`].
pub(crate) fn measure(server: &Running, query: &Query, runs: usize) -> Result<QueryResult> {
    let mut client = server.client();
    let mut execute = || query.execute(&mut client).with_context(|| server.peer.title.clone());
    let held = server.reset_memory_peak();
    let first = execute()?;
    let rows = count_rows(&first)?;
    execute()?;
    let (mut latencies, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..STRETCHES {
        let cpu_before = server.cpu_seconds()?;
        let begin = Instant::now();
        let mut count = 0;
        while count < runs || begin.elapsed().as_secs_f64() < STRETCH_S_MIN {
            let started = Instant::now();
            execute()?;
            latencies.push(started.elapsed().as_secs_f64());
            count += 1;
        }
        cpu.push((server.cpu_seconds()? - cpu_before) / count as f64);
    }
    let peak_bytes = server.memory_bytes().0.saturating_sub(held) as f64;
    Ok(QueryResult { p50_s: median(latencies), cpu_s: median(cpu), peak_bytes, rows })
}

/// Series or values of a reply.
pub(crate) fn count_rows(body: &[u8]) -> Result<usize> {
    let reply: serde_json::Value = serde_json::from_slice(body)?;
    let data = &reply["data"];
    let rows = data.as_array().or_else(|| data["result"].as_array());
    Ok(rows.map_or(0, Vec::len))
}
