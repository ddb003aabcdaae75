//! Fuzzing with libFuzzer on stable Rust: the flags that `cargo fuzz --sanitizer none` would pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cargo_program, run};

/// Names of the targets: the folders of the committed corpus.
const CORPUS: &str = "tests/fuzz/corpus";
const SECONDS_DEFAULT: u32 = 60;
/// Overflow checks and debug assertions stay on: they are half of what is looked for.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
                         -Ccodegen-units=1 -Coverflow-checks -Cdebug-assertions";

/// Runs every target (or the one named) for some seconds. Words: `[TARGET] [SECONDS]`.
pub(crate) fn fuzz(words: &[&str]) -> Result<()> {
    let mut seconds = SECONDS_DEFAULT;
    let mut only = None;
    for word in words {
        match word.parse() {
            Ok(n) => seconds = n,
            Err(_) => only = Some(*word),
        }
    }
    let mut targets: Vec<String> = fs::read_dir(CORPUS)
        .context(CORPUS)?
        .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    targets.sort();
    targets.retain(|t| only.is_none_or(|only| only == t));
    if targets.is_empty() {
        bail!("{only:?} is no target: see {CORPUS}");
    }
    // Of its own, since the flags differ from those of every other build.
    let target_dir = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from("target"), PathBuf::from)
        .join("fuzz");
    // With `--target`, build scripts and macros are built without the flags.
    let triple = host_triple()?;
    run(Command::new(cargo_program())
        .args(["build", "--release", "--package", "chronolith-fuzz", "--features", "libfuzzer", "--bin"])
        .args(["chronolith-fuzz", "--target", &triple, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", RUSTFLAGS))?;
    let program = target_dir.join(&triple).join("release/chronolith-fuzz");
    for target in &targets {
        one(&program, &target_dir, target, seconds)?;
    }
    Ok(())
}

/// New inputs that reach new code stay in the target directory; what fails goes to the committed corpus.
fn one(program: &Path, target_dir: &Path, target: &str, seconds: u32) -> Result<()> {
    let grown = target_dir.join("corpus").join(target);
    fs::create_dir_all(&grown).with_context(|| grown.display().to_string())?;
    let committed = Path::new(CORPUS).join(target);
    run(Command::new(program)
        .env("CHRONOLITH_FUZZ_TARGET", target)
        .arg(&grown)
        .arg(&committed)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", committed.display()))
        // A single input may take this long, and the whole process hold this many megabytes.
        .args(["-timeout=60", "-rss_limit_mb=2048", "-max_len=4096", "-print_final_stats=1", "-verbosity=1"]))
}

fn host_triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out = Command::new(rustc).arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let host = text.lines().find_map(|l| l.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not name its host")
}
