//! Where Prometheus's own scripts lie. They are not part of this repository.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// How many scripts Prometheus has.
const SCRIPTS: usize = 21;

/// Prometheus's scripts: from `CHRONOLITH_CONFORMANCE`, or from the folder beside the workspace. `None` when they are not
/// there, which is said on standard error; under CI (`CI` is set, as `make test` does) that is a failure.
///
/// # Panics
/// When the scripts are missing under CI, or some of them are.
pub fn upstream_scripts() -> Option<Vec<PathBuf>> {
    let folder = match std::env::var_os("CHRONOLITH_CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/promql"),
    };
    let Some(found) = scripts_in(&folder) else {
        let text = format!(
            "Prometheus's PromQL scripts are missing in {}: put them there or name their folder in CHRONOLITH_CONFORMANCE",
            folder.display()
        );
        assert!(std::env::var_os("CI").is_none(), "{text}");
        // Not `eprintln!`, which a passing test does not show.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {text}");
        return None;
    };
    assert_eq!(found.len(), SCRIPTS, "all of Prometheus's scripts are in {}", folder.display());
    Some(found)
}

/// The scripts (`*.test`) in a folder, sorted. `None` when there is no such folder.
///
/// # Panics
/// When the folder cannot be read to its end.
pub fn scripts_in(folder: &Path) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.expect("a readable folder").path())
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .collect();
    found.sort();
    Some(found)
}
