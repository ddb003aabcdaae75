//! `chronolith-differential`: as many random queries as one likes, against any Prometheus. See docs/operating/differential.md.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use chronolith_differential::run::{Settings, Storage, run};
use chronolith_differential::servers::chronolith_binary;
use clap::Parser;

/// Asks Chronolith and a Prometheus the same random queries over the same data.
#[derive(Debug, Parser)]
struct Args {
    /// How many queries
    #[arg(long, default_value_t = 5000)]
    queries: u64,
    /// Seed of the queries
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ask the query of this number only
    #[arg(long)]
    only: Option<u64>,
    /// The Prometheus to compare with
    #[arg(long, default_value = "prometheus")]
    prometheus: PathBuf,
    /// The Chronolith to judge; by default the one built beside this program
    #[arg(long)]
    chronolith: Option<PathBuf>,
    /// Feature flags of both sides
    #[arg(long, value_delimiter = ',')]
    enable_feature: Vec<String>,
    /// Write native histograms too
    #[arg(long)]
    native: bool,
    /// Where Chronolith reads what was written
    #[arg(long, value_enum, default_value = "head")]
    storage: Storage,
    /// Stop after so many divergences
    #[arg(long, default_value_t = 20)]
    divergences_max: usize,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let settings = Settings {
        prometheus: args.prometheus,
        chronolith: args.chronolith.map_or_else(chronolith_binary, Ok)?,
        features: args.enable_feature,
        native: args.native,
        storage: args.storage,
        seed: args.seed,
        numbers: args.only.map_or(0..args.queries, |n| n..n + 1),
        divergences_max: args.divergences_max,
    };
    let report =
        run(&settings, &mut |r| eprintln!("{} asked, {} divergences", r.asked, r.divergences.len()))?;
    println!("{report}");
    let fine = report.divergences.is_empty() && report.log_errors.is_empty();
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
