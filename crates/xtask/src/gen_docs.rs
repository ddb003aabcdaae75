//! `docs/operating/flags.md`, made from the binary's own help.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo;

const PAGE: &str = "docs/operating/flags.md";
const COMMANDS: &[&str] = &[
    "server",
    "receive",
    "store",
    "query",
    "compact",
    "tools bucket",
    "tools bucket ls",
    "tools bucket inspect",
    "tools bucket verify",
    "tools bucket mark",
    "tools bucket cleanup",
    "tools bucket retention",
    "tools bucket delete",
    "tools bucket rewrite",
    "tools bucket replicate",
    "tools bucket upload-blocks",
    "tools bucket web-json",
    "tools tsdb list",
    "tools tsdb analyze",
    "tools tsdb dump",
    "tools tsdb dump-openmetrics",
    "tools tsdb create-blocks-from openmetrics",
];

/// Writes the page.
pub(crate) fn write() -> Result<()> {
    let page = render()?;
    fs::create_dir_all("docs/operating")?;
    fs::write(PAGE, page).with_context(|| format!("cannot write {PAGE}"))
}

/// Fails when the page is not what the binary says.
pub(crate) fn compare() -> Result<()> {
    if fs::read_to_string(PAGE).unwrap_or_default() != render()? {
        bail!("{PAGE} is not what the binary prints: run `make gen`");
    }
    Ok(())
}

fn render() -> Result<String> {
    cargo(&["build", "--quiet", "--package", "chronolith", "--bin", "chronolith"])?;
    let target = std::env::current_exe()?;
    let binary = target.with_file_name("chronolith");
    let mut page = String::from(
        "# Flags\n\nMade by `make gen` from the binary's own help; do not edit. \
         Where a role's feature is Thanos's, so is the flag.\n",
    );
    for command in COMMANDS {
        let words = command.split(' ').chain(["--help"]);
        let out = Command::new(&binary).args(words).env("COLUMNS", "110").output()?;
        if !out.status.success() {
            bail!("chronolith {command} --help ended with {}", out.status);
        }
        let help = String::from_utf8(out.stdout)?;
        let trimmed: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ =
            write!(page, "\n## chronolith {command}\n\n```text\n{}\n```\n", trimmed.join("\n").trim_end());
    }
    Ok(page)
}
