//! Ingest and then query, each server alone.

use anyhow::{Context, Result};
use clap::Args;

use crate::dashboards::{self, DashboardsResult};
use crate::ingest::{self, IngestResult};
use crate::measure::{self, QueryResult};
use crate::peer::{Peer, Peers};
use crate::protocol::Protocol;
use crate::report::{Table, figure, median, percentile};
use crate::running::Running;
use crate::sets::Set;
use crate::shape::Shape;

/// `chronolith-bench compare`.
#[derive(Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    peers: Peers,
    /// How the load is written; each peer takes part once for each that it knows.
    #[arg(long, value_delimiter = ',', default_value = "rw1")]
    protocol: Vec<Protocol>,
    #[command(flatten)]
    plan: Plan,
}

/// What is measured.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// Repeats of everything, with new processes; the figures are their medians.
    #[arg(long, default_value_t = 3)]
    pub(crate) repeat: usize,
    /// Sets of queries.
    #[arg(long, value_delimiter = ',', default_value = "fixed")]
    pub(crate) queries: Vec<Set>,
    /// Executions of each query in each of its three stretches, at least; 0 leaves the queries out.
    #[arg(long, default_value_t = 2)]
    pub(crate) query_runs: usize,
    /// Only queries whose name contains this.
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Dashboards that refresh at once; 0 leaves them out.
    #[arg(long, default_value_t = 0)]
    pub(crate) dashboards: usize,
    /// Measure what the samples take on disk, in their final form.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) disk: bool,
}

impl Compare {
    pub(crate) fn run(&self) -> Result<()> {
        let peers = self.peers.list()?;
        let by = self.protocol.iter().flat_map(|protocol| peers.iter().filter_map(|peer| peer.by(*protocol)));
        println!("{}", compare(&self.shape, &by.collect::<Vec<_>>(), &self.plan)?);
        Ok(())
    }
}

/// What one round measured of one server.
struct Round {
    ingest: IngestResult,
    queries: Vec<(String, QueryResult)>,
    dashboards: Option<DashboardsResult>,
    disk_bytes_per_sample: Option<f64>,
}

/// Measures all peers and gives the report, in Markdown.
pub(crate) fn compare(shape: &Shape, peers: &[Peer], plan: &Plan) -> Result<String> {
    let mut rounds: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
    for n in 0..plan.repeat {
        for (peer, rounds) in peers.iter().zip(&mut rounds) {
            let round =
                measure_one(peer, shape, plan).with_context(|| format!("measuring {}", peer.title))?;
            let rate = rate(&round.ingest) / 1e6;
            eprintln!("{} round {n} {}: {rate:.3} M samples/CPU-s", shape.title(), peer.title);
            rounds.push(round);
        }
    }
    let mut out = format!("{}, medians of {}\n\n", shape.title(), plan.repeat);
    out.push_str(&ingest_table(peers, &rounds));
    if rounds.iter().flatten().any(|r| !r.queries.is_empty()) {
        out.push('\n');
        out.push_str(&query_table(peers, &rounds));
    }
    if plan.dashboards > 0 {
        out.push('\n');
        out.push_str(&dashboards_table(peers, &rounds, plan.dashboards));
    }
    Ok(out)
}

fn measure_one(peer: &Peer, shape: &Shape, plan: &Plan) -> Result<Round> {
    let server = Running::start(peer)?;
    let ingest = ingest::ingest(&server, shape).context("ingest")?;
    server.settle()?;
    let span = shape.span(&shape.workload()?);
    let mut queries = Vec::new();
    if plan.query_runs > 0 {
        for query in plan.queries.iter().flat_map(|set| set.queries(span)) {
            if query.name.contains(&plan.only) {
                let result = measure::measure(&server, &query, plan.query_runs)?;
                queries.push((query.name, result));
            }
        }
    }
    let dashboards = match plan.dashboards {
        0 => None,
        n => Some(dashboards::refresh(&server, span, n)?),
    };
    // Last, as it moves the samples out of the heads.
    let disk = if plan.disk { Some(ingest::disk_bytes(&server)?) } else { None };
    let disk_bytes_per_sample = disk.map(|bytes| bytes as f64 / ingest.samples as f64);
    Ok(Round { ingest, queries, dashboards, disk_bytes_per_sample })
}

fn rate(r: &IngestResult) -> f64 {
    r.samples as f64 / r.cpu_s
}

fn heads<'a>(first: &'a str, peers: &'a [Peer]) -> Vec<&'a str> {
    std::iter::once(first).chain(peers.iter().map(|p| p.title.as_str())).collect()
}

fn of(rounds: &[Round], f: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(f).collect())
}

fn ingest_table(peers: &[Peer], rounds: &[Vec<Round>]) -> String {
    let mut table = Table::new(&heads("ingest", peers));
    let mut row = |title: &str, f: &dyn Fn(&Round) -> f64| {
        let mut cells = vec![title.to_owned()];
        cells.extend(rounds.iter().map(|rounds| figure(of(rounds, f))));
        table.row(&cells);
    };
    row("million samples per CPU-second", &|r| rate(&r.ingest) / 1e6);
    row("million samples per second", &|r| r.ingest.samples as f64 / r.ingest.wall_s / 1e6);
    row("peak anonymous KiB per series", &|r| r.ingest.peak_bytes_per_series / 1024.0);
    row("request p50 ms", &|r| percentile(&r.ingest.latencies_s, 0.5) * 1e3);
    row("request p99 ms", &|r| percentile(&r.ingest.latencies_s, 0.99) * 1e3);
    if rounds.iter().flatten().any(|r| r.disk_bytes_per_sample.is_some()) {
        row("bytes per sample on disk", &|r| r.disk_bytes_per_sample.unwrap_or(f64::NAN));
    }
    table.into_text()
}

fn query_table(peers: &[Peer], rounds: &[Vec<Round>]) -> String {
    let mut table = Table::new(&heads("query (server CPU ms / p50 ms / peak MiB / rows)", peers));
    let names = rounds.iter().flatten().next().map_or(&[][..], |r| &r.queries);
    for (q, (name, _)) in names.iter().enumerate() {
        let mut cells = vec![name.clone()];
        for rounds in rounds {
            let of = |f: &dyn Fn(&QueryResult) -> f64| of(rounds, |r| f(&r.queries[q].1));
            cells.push(format!(
                "{} / {} / {:.0} / {}",
                figure(of(&|r| r.cpu_s * 1e3)),
                figure(of(&|r| r.p50_s * 1e3)),
                of(&|r| r.peak_bytes / 1_048_576.0),
                of(&|r| r.rows as f64)
            ));
        }
        table.row(&cells);
    }
    table.into_text()
}

fn dashboards_table(peers: &[Peer], rounds: &[Vec<Round>], count: usize) -> String {
    let mut table = Table::new(&heads(&format!("{count} dashboards at once"), peers));
    let mut row = |title: &str, f: &dyn Fn(&DashboardsResult) -> f64| {
        let mut cells = vec![title.to_owned()];
        let one = |r: &Round| r.dashboards.as_ref().map_or(f64::NAN, f);
        cells.extend(rounds.iter().map(|rounds| figure(of(rounds, one))));
        table.row(&cells);
    };
    row("server CPU ms per panel", &|d| d.cpu_s * 1e3);
    row("panel p50 ms", &|d| percentile(&d.latencies_s, 0.5) * 1e3);
    row("panel p99 ms", &|d| percentile(&d.latencies_s, 0.99) * 1e3);
    row("panels per second", &|d| d.latencies_s.len() as f64 / d.wall_s);
    table.into_text()
}
