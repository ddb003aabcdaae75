//! `cargo xtask soak`: the fault tests for hours instead of minutes, and what only shows with many series, many tenants or
//! over a day. What it prints belongs into docs/performance.md.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, cargo_program, packages, run};

/// How to call it.
pub(crate) const USAGE: &str = "soak [faults|ingest|restart|stall|churn|tenants|idle|years …] [--factor=20] [--series=1000000] \
                                [--hours=0.5] [--rounds=3] [--churn-series=100000] [--churn-hours=24] [--tenants=10000] [--blocks=10000] \
                                [--days=180] [--day-series=2000]";

const PARTS: [&str; 8] = ["faults", "ingest", "restart", "stall", "churn", "tenants", "idle", "years"];

/// How much of everything: by default some two hours on two cores.
struct Soak {
    /// In this order; all where none is named.
    parts: Vec<String>,
    /// So many times the rounds of `make test`: about an hour.
    factor: u32,
    /// Series of the parts about many.
    series: u32,
    /// Hours of samples at 15 s of those.
    hours: f64,
    /// Rounds of ingest.
    rounds: u32,
    /// Series at a time of the day of churn.
    churn_series: u32,
    /// Hours of it, simulated.
    churn_hours: u32,
    tenants: u32,
    /// Blocks of the bucket that nobody asks anything of.
    blocks: u32,
    /// Days of blocks in a bucket.
    days: u32,
    /// Series of them.
    day_series: u32,
}

impl Soak {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut soak = Soak {
            parts: Vec::new(),
            factor: 20,
            series: 1_000_000,
            hours: 0.5,
            rounds: 3,
            churn_series: 100_000,
            churn_hours: 24,
            tenants: 10_000,
            blocks: 10_000,
            days: 180,
            day_series: 2000,
        };
        for arg in args {
            let Some((name, value)) = arg.split_once('=') else {
                ensure!(PARTS.contains(arg), "{arg}: usage: cargo xtask {USAGE}");
                soak.parts.push((*arg).to_owned());
                continue;
            };
            let bad = || format!("{arg}: not a number");
            let number = || value.parse::<u32>().with_context(bad);
            match name {
                "--factor" => soak.factor = number()?,
                "--series" => soak.series = number()?,
                "--hours" => soak.hours = value.parse().with_context(bad)?,
                "--rounds" => soak.rounds = number()?,
                "--churn-series" => soak.churn_series = number()?,
                "--churn-hours" => soak.churn_hours = number()?,
                "--tenants" => soak.tenants = number()?,
                "--blocks" => soak.blocks = number()?,
                "--days" => soak.days = number()?,
                "--day-series" => soak.day_series = number()?,
                _ => bail!("{arg}: usage: cargo xtask {USAGE}"),
            }
        }
        if soak.parts.is_empty() {
            soak.parts = PARTS.map(str::to_owned).to_vec();
        }
        Ok(soak)
    }

    fn part(&self, part: &str) -> Result<()> {
        let many = [format!("--series={}", self.series), format!("--hours={}", self.hours)];
        let (rounds, tenants) = (format!("--repeat={}", self.rounds), format!("--tenants={}", self.tenants));
        let churn = [format!("--series={}", self.churn_series), format!("--hours={}", self.churn_hours)];
        let years = [format!("--days={}", self.days), format!("--series={}", self.day_series)];
        match part {
            "faults" => self.faults(),
            "ingest" => bench("compare", &[&many[0], &many[1], "--burst=20", &rounds]),
            "restart" => bench("restart", &[&many[0], &many[1], "--burst=20", "--repeat=1"]),
            "stall" => bench("stall", &[&many[0], "--steps=24"]),
            "churn" => bench("churn", &[&churn[0], &churn[1], "--interval=60", "--burst=20"]),
            "tenants" => bench("tenants", &[&tenants]),
            "idle" => bench("idle", &[&format!("--blocks={}", self.blocks)]),
            "years" => bench("years", &[&years[0], &years[1]]),
            _ => bail!("{part} is no part"),
        }
    }

    /// The fault tests, one at a time.
    fn faults(&self) -> Result<()> {
        let test = ["test", "--release", "--package", "chronolith-promises", "--", "--test-threads=1"];
        run(Command::new(cargo_program())
            .args(test)
            .arg("--nocapture")
            .env("CHRONOLITH_SOAK", self.factor.to_string()))
    }
}

/// Runs the parts one after the other on release builds. One that fails does not keep the others from running.
pub(crate) fn soak(args: &[&str]) -> Result<()> {
    let soak = Soak::parse(args)?;
    packages::ensure()?;
    // With the allocator that shipped binaries have.
    let build = ["build", "--release", "--features", "chronolith/jemalloc", "--bin", "chronolith"];
    cargo(&[&build[..], &["--bin", "s3-dev", "--bin", "chronolith-bench"]].concat())?;
    let mut failed = Vec::new();
    for part in &soak.parts {
        println!("\n== soak: {part}");
        let begun = Instant::now();
        let done = soak.part(part);
        println!("== soak: {part} took {:.0?}", begun.elapsed());
        if let Err(error) = done {
            eprintln!("xtask: {part}: {error:#}");
            failed.push(part.as_str());
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn bench(command: &str, args: &[&str]) -> Result<()> {
    let program = ["run", "--release", "--quiet", "--bin", "chronolith-bench", "--", command];
    cargo(&[&program[..], &["--peers=chronolith"], args].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_sizes_are_options() {
        let soak = Soak::parse(&["churn", "--churn-hours=12", "tenants", "--hours=0.25"]).unwrap();
        assert_eq!(soak.parts, ["churn", "tenants"]);
        assert_eq!((soak.churn_hours, soak.hours, soak.factor), (12, 0.25, 20));
        let soak = Soak::parse(&["years", "--days=30", "--day-series=500"]).unwrap();
        assert_eq!((soak.days, soak.day_series), (30, 500));
        assert_eq!(Soak::parse(&["--factor=2"]).unwrap().parts, PARTS);
        for wrong in ["chrun", "--hour=1", "--hours=many", "--rounds=-1"] {
            assert!(Soak::parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
