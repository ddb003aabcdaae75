//! The Python clients that the tests ask with, in a virtual environment below the target directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

const REQUIREMENTS: &str = "tests/clients/requirements.txt";

/// Makes the environment, unless there is one with the versions wanted.
pub(crate) fn ensure() -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = target.join("clients");
    let wanted = fs::read_to_string(REQUIREMENTS).context(REQUIREMENTS)?;
    // Written last, so what was interrupted is made anew.
    let done = dir.join("installed.txt");
    if fs::read_to_string(&done).is_ok_and(|text| text == wanted) && dir.join("bin/python").is_file() {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    run(Command::new(dir.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--retries=5", "--requirement"])
        .arg(REQUIREMENTS))?;
    fs::write(&done, wanted).with_context(|| done.display().to_string())
}
