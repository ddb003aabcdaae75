//! `chronolith-bench`: load generator and paired measurements against peers.
//!
//! Every peer gets the same seeded load in the same run, one after the other, each alone on the machine; figures are
//! the kernel's own (CPU seconds, anonymous memory) and medians over repeats.

mod encode;
mod http;
mod ingest;
mod peer;
mod query;
mod report;
mod workload;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use ingest::IngestResult;
use peer::{Options, Peer, Running};
use report::{Table, figure, median};
use workload::Workload;

/// Load generator and paired measurements of Chronolith, Prometheus and VictoriaMetrics.
#[derive(Parser)]
#[command(name = "chronolith-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ingest and then query, each peer alone, medians over repeats, as Markdown.
    Compare(Compare),
    /// Ingest, stop, start again: seconds until ready from the snapshot, and after a kill.
    Restart(Compare),
    /// Write the load into a server that already runs, at full speed.
    Load(Load),
}

#[derive(Args, Clone)]
struct Compare {
    /// Series of the workload.
    #[arg(long, default_value_t = 50_000)]
    series: usize,
    /// Steps of 15 s: 240 are one hour.
    #[arg(long, default_value_t = 240)]
    steps: u64,
    /// Repeats; the figures are their medians.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Connections that write at once.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Executions of each query; 0 leaves the queries out.
    #[arg(long, default_value_t = 5)]
    query_runs: usize,
    /// Step of range queries in seconds.
    #[arg(long, default_value_t = 15)]
    query_step: u64,
    /// Peers to measure.
    #[arg(long, value_delimiter = ',', default_values = ["chronolith", "prometheus", "victoria-metrics"])]
    peers: Vec<Peer>,
    /// The chronolith binary; by default the one beside this program.
    #[arg(long)]
    chronolith: Option<PathBuf>,
    /// A further flag of `chronolith server`; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    chronolith_arg: Vec<String>,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct Load {
    /// Address of the server's remote-write listener.
    #[arg(long, default_value = "127.0.0.1:9090")]
    address: std::net::SocketAddr,
    /// Path of the remote-write handler.
    #[arg(long, default_value = "/api/v1/receive")]
    path: String,
    /// Series of the workload.
    #[arg(long, default_value_t = 10_000)]
    series: usize,
    /// Steps of 15 s, ending now.
    #[arg(long, default_value_t = 240)]
    steps: u64,
    /// Share of the hosts that is replaced every 240 steps, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    churn: f64,
    /// Seed of the workload.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const INTERVAL_MS: i64 = 15_000;

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Compare(args) => compare(&args),
        Command::Restart(args) => restart(&args),
        Command::Load(args) => load(&args),
    }
}

impl Compare {
    fn options(&self) -> Result<Options> {
        let chronolith = match &self.chronolith {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("chronolith"),
        };
        Ok(Options { chronolith, chronolith_args: self.chronolith_arg.clone() })
    }

    /// The load ends at the last full hour, so that it lies inside one aligned block of every peer.
    fn workload(&self) -> Result<Workload> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        let end_ms = now_ms / 7_200_000 * 7_200_000;
        let start_ms = end_ms - self.steps as i64 * INTERVAL_MS;
        Ok(Workload::new(self.series, start_ms, INTERVAL_MS, self.seed))
    }
}

fn compare(args: &Compare) -> Result<()> {
    let options = args.options()?;
    let mut ingests: Vec<Vec<IngestResult>> = vec![Vec::new(); args.peers.len()];
    let mut queries: Vec<Vec<Vec<query::QueryResult>>> = vec![Vec::new(); args.peers.len()];
    let mut disk: Vec<Vec<f64>> = vec![Vec::new(); args.peers.len()];
    let mut names = Vec::new();
    for round in 0..args.repeat {
        for (i, peer) in args.peers.iter().enumerate() {
            let mut workload = args.workload()?;
            let server = Running::start(*peer, &options)?;
            let result = ingest::ingest(&server, &mut workload, args.steps, args.connections)
                .with_context(|| format!("ingest into {}", peer.title()))?;
            eprintln!("round {round} {}: {:.3} M samples/CPU-s", peer.title(), rate(&result) / 1e6);
            let samples = result.samples as f64;
            ingests[i].push(result);
            if args.query_runs > 0 {
                let set = query::fixed_set(workload.start_ms, workload.time(args.steps), args.query_step);
                names = set.iter().map(|q| q.name).collect();
                server.reset_memory_peak();
                let results: Result<Vec<_>> =
                    set.iter().map(|q| query::measure(&server, q, args.query_runs)).collect();
                queries[i].push(results?);
            }
            // Last, as it moves the samples out of the heads.
            disk[i].push(ingest::disk_bytes(&server)? as f64 / samples);
        }
    }
    println!("{} series, {} steps of 15 s, medians of {}\n", args.series, args.steps, args.repeat);
    println!("{}", ingest_table(&args.peers, &ingests, &disk));
    if args.query_runs > 0 {
        println!("{}", query_table(&args.peers, &names, &queries));
    }
    Ok(())
}

fn rate(r: &IngestResult) -> f64 {
    r.samples as f64 / r.cpu_s
}

fn ingest_table(peers: &[Peer], results: &[Vec<IngestResult>], disk: &[Vec<f64>]) -> String {
    let mut heads = vec!["ingest"];
    heads.extend(peers.iter().map(|p| p.title()));
    let mut table = Table::new(&heads);
    let mut row = |title: &str, f: &dyn Fn(&IngestResult) -> f64| {
        let mut cells = vec![title.to_owned()];
        cells.extend(results.iter().map(|rs| figure(median(rs.iter().map(f).collect()))));
        table.row(&cells);
    };
    row("million samples per CPU-second", &|r| rate(r) / 1e6);
    row("million samples per second", &|r| r.samples as f64 / r.wall_s / 1e6);
    row("peak anonymous KiB per series", &|r| r.peak_bytes_per_series / 1024.0);
    row("request p50 ms", &|r| percentile(&r.latencies_s, 0.5) * 1e3);
    row("request p99 ms", &|r| percentile(&r.latencies_s, 0.99) * 1e3);
    let mut cells = vec!["bytes per sample on disk".to_owned()];
    cells.extend(disk.iter().map(|d| figure(median(d.clone()))));
    table.row(&cells);
    table.into_text()
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted.get(((sorted.len() - 1) as f64 * p) as usize).copied().unwrap_or(f64::NAN)
}

fn query_table(peers: &[Peer], names: &[&str], results: &[Vec<Vec<query::QueryResult>>]) -> String {
    let mut heads = vec!["query (server CPU ms / p50 ms / rows)".to_owned()];
    heads.extend(peers.iter().map(|p| p.title().to_owned()));
    let mut table = Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    for (q, name) in names.iter().enumerate() {
        let mut cells = vec![(*name).to_owned()];
        for rounds in results {
            let of =
                |f: &dyn Fn(&query::QueryResult) -> f64| median(rounds.iter().map(|r| f(&r[q])).collect());
            cells.push(format!(
                "{} / {} / {}",
                figure(of(&|r| r.cpu_s * 1e3)),
                figure(of(&|r| r.p50_s * 1e3)),
                of(&|r| r.rows as f64)
            ));
        }
        table.row(&cells);
    }
    let bytes: usize = results.iter().flatten().flatten().map(|r| r.reply_bytes).sum();
    eprintln!("{bytes} reply bytes read");
    table.into_text()
}

fn restart(args: &Compare) -> Result<()> {
    let options = args.options()?;
    let mut table =
        Table::new(&["restart", "ready s after SIGTERM", "ready s after kill", "replay peak KiB per series"]);
    for peer in &args.peers {
        let (mut term, mut kill, mut peak) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.repeat {
            let mut workload = args.workload()?;
            let mut server = Running::start(*peer, &options)?;
            ingest_only(&server, &mut workload, args)?;
            kill.push(server.restart(true)?);
            peak.push(server.memory_bytes().0 as f64 / 1024.0 / args.series as f64);
            term.push(server.restart(false)?);
        }
        table.row(&[
            peer.title().to_owned(),
            figure(median(term)),
            figure(median(kill)),
            figure(median(peak)),
        ]);
    }
    println!("{} series, {} steps of 15 s, medians of {}\n", args.series, args.steps, args.repeat);
    println!("{}", table.into_text());
    Ok(())
}

fn ingest_only(server: &Running, workload: &mut Workload, args: &Compare) -> Result<()> {
    for step in 0..args.steps {
        let mut requests = Vec::new();
        encode::encode_step(workload, step, &mut requests);
        ingest::send(server, &requests, args.connections)?;
    }
    Ok(())
}

fn load(args: &Load) -> Result<()> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let start_ms = now_ms - args.steps as i64 * INTERVAL_MS;
    let mut workload = Workload::new(args.series, start_ms, INTERVAL_MS, args.seed);
    let mut client = http::Client::new(args.address);
    for step in 0..args.steps {
        if args.churn > 0.0 && step > 0 && step.is_multiple_of(240) {
            workload.churn(args.churn);
        }
        let mut requests = Vec::new();
        encode::encode_step(&mut workload, step, &mut requests);
        for body in &requests {
            let reply = client.write(&args.path, body)?;
            anyhow::ensure!(
                reply.status < 300,
                "{} answered {}: {}",
                args.address,
                reply.status,
                String::from_utf8_lossy(&reply.body)
            );
        }
    }
    println!("{} samples written and acknowledged", args.steps * args.series as u64);
    Ok(())
}
