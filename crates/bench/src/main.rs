//! `chronolith-bench`: load generator and paired measurements against peers.
//!
//! Every peer gets the same seeded load in the same run, one after the other, each alone on the machine; figures are
//! the kernel's own (CPU seconds, anonymous memory) and medians over repeats.

mod blocks;
mod churn;
mod compare;
mod dashboards;
mod encode;
mod encode_otlp;
mod encode_rw2;
mod http;
mod idle;
mod ingest;
mod load;
mod measure;
mod memory;
mod peer;
mod protocol;
mod replication;
mod report;
mod restart;
mod running;
mod sets;
mod shape;
mod stall;
mod suite;
mod tenants;
mod workload;
mod years;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
    Compare(compare::Compare),
    /// All of `docs/performance.md`'s comparisons, one after the other.
    Suite(suite::Suite),
    /// Ingest, stop, start again: seconds until ready from the snapshot, and after a kill.
    Restart(restart::Restart),
    /// Hours of series that come and go: memory hour by hour.
    Churn(churn::Churn),
    /// Latencies at half load, and while blocks are cut and uploaded and a snapshot is taken.
    Stall(stall::Stall),
    /// Memory of many tenants that send nothing any more.
    Tenants(tenants::Tenants),
    /// Three receivers in a hashring: CPU of all processes together, by replication factor.
    Replication(replication::Replication),
    /// A store and a compactor over a bucket that nobody asks anything of: seconds until ready, memory, requests a day.
    Idle(idle::Idle),
    /// Years of blocks in a bucket: cold and warm queries, requests to the bucket, memory.
    Years(years::Years),
    /// Write the load into a server that already runs, at full speed.
    Load(load::Load),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Compare(args) => args.run(),
        Command::Suite(args) => args.run(),
        Command::Restart(args) => args.run(),
        Command::Churn(args) => args.run(),
        Command::Stall(args) => args.run(),
        Command::Tenants(args) => args.run(),
        Command::Replication(args) => args.run(),
        Command::Idle(args) => args.run(),
        Command::Years(args) => args.run(),
        Command::Load(args) => args.run(),
    }
}
