//! `cargo xtask`: the logic behind the Makefile. No dependency but `anyhow`, so that it is built in seconds.

mod clients;
mod fuzz;
mod gen_docs;
mod packages;
mod soak;

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage: cargo xtask check | test | bench | differential | clients | cluster | soak [PART …] [OPTION …] | fuzz [TARGET] [SECONDS] | gen [--check]";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => check(),
        ["test"] => test(),
        ["bench", rest @ ..] => bench(rest),
        ["clients"] => clients::ensure(),
        ["fuzz", rest @ ..] => fuzz::fuzz(rest),
        ["differential", rest @ ..] => differential(rest),
        ["cluster"] => cluster(),
        ["soak", rest @ ..] => soak::soak(rest),
        ["gen"] => gen_docs::write(),
        ["gen", "--check"] => gen_docs::compare(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Format, lints with warnings denied, links in the documentation.
fn check() -> Result<()> {
    fetch()?;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    // Private items, too: who reads the code follows the links in them.
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    run(Command::new(cargo_program()).args(doc).env("RUSTDOCFLAGS", flags))
}

/// What CI runs.
fn test() -> Result<()> {
    packages::ensure()?;
    clients::ensure()?;
    check()?;
    // The end-to-end tests start the real binary, which `cargo test` alone does not build.
    let binaries = [
        "--package",
        "chronolith",
        "--bin",
        "chronolith",
        "--package",
        "chronolith-testkit",
        "--bin",
        "s3-dev",
    ];
    cargo(&[&["build"], &binaries[..]].concat())?;
    gen_docs::compare()?;
    // The same cases at every run: a submission is judged by its change, not by the luck of a seed. Run
    // `cargo test` by hand for fresh ones.
    // `CI` makes a missing PromQL corpus a failure.
    run(Command::new(cargo_program())
        .args(["test", "--workspace"])
        .env("PROPTEST_RNG_SEED", "1")
        .env("CI", "true"))
}

/// The paired measurements; further words go to `chronolith-bench suite`.
fn bench(rest: &[&str]) -> Result<()> {
    packages::ensure()?;
    cargo(&["build", "--release", "--bin", "chronolith", "--bin", "chronolith-bench"])?;
    let mut args = vec!["run", "--release", "--quiet", "--bin", "chronolith-bench", "--", "suite"];
    args.extend_from_slice(rest);
    cargo(&args)
}

/// Random queries against a Prometheus: docs/operating/differential.md. Words go to `chronolith-differential`.
fn differential(rest: &[&str]) -> Result<()> {
    packages::ensure()?;
    cargo(&["build", "--release", "--bin", "chronolith", "--bin", "chronolith-differential"])?;
    let mut args = vec!["run", "--release", "--quiet", "--bin", "chronolith-differential", "--"];
    args.extend_from_slice(rest);
    cargo(&args)
}

/// `examples/cluster`, in the foreground.
fn cluster() -> Result<()> {
    cargo(&["build", "--release", "--bin", "chronolith", "--bin", "s3-dev"])?;
    run(&mut Command::new("examples/cluster/run.sh"))
}

/// Downloads dependencies first, three tries, so that a hiccup of the registry fails early and cheaply.
fn fetch() -> Result<()> {
    for _ in 0..2 {
        if cargo(&["fetch", "--locked", "--quiet"]).is_ok() {
            return Ok(());
        }
    }
    cargo(&["fetch", "--locked"])
}

fn cargo(args: &[&str]) -> Result<()> {
    run(Command::new(cargo_program()).args(args))
}

fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {command:?}");
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
