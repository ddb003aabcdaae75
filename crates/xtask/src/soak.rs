//! `cargo xtask soak`: the fault tests for hours instead of minutes, and what only shows with many series or over a day.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, cargo_program, packages, run};

/// So many times the rounds of `make test`, where nothing else is asked for: about an hour.
const FACTOR: &str = "20";

/// Everything, one test at a time, on release builds. `FACTOR` is how many times the rounds of `make test`.
pub(crate) fn soak(factor: Option<&str>) -> Result<()> {
    packages::ensure()?;
    cargo(&["build", "--release", "--bin", "chronolith", "--bin", "s3-dev", "--bin", "chronolith-bench"])?;
    let factor = factor.unwrap_or(FACTOR);
    run(Command::new(cargo_program())
        .args([
            "test",
            "--release",
            "--package",
            "chronolith-promises",
            "--",
            "--test-threads=1",
            "--nocapture",
        ])
        .env("CHRONOLITH_SOAK", factor))?;
    // A million series: memory and restarts.
    let bench = ["run", "--release", "--quiet", "--bin", "chronolith-bench", "--"];
    let restart =
        ["restart", "--peers=chronolith", "--series=1000000", "--hours=0.5", "--burst=20", "--repeat=1"];
    cargo(&[&bench[..], &restart].concat())
}
