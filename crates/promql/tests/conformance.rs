//! Upstream's PromQL scripts, which lie beside the workspace, and our own, which lie in `testdata`.

use std::path::{Path, PathBuf};

use chronolith_promql::script::run_in_memory;

/// Scripts with cases that do not pass yet, and how many of them. This list shrinks.
const GAPS: &[(&str, usize)] = &[];

fn upstream_folder() -> PathBuf {
    match std::env::var_os("CHRONOLITH_CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/promql"),
    }
}

fn scripts(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("the scripts are expected in {}: {e}", folder.display()));
    let mut out: Vec<PathBuf> = entries
        .map(|e| e.expect("a readable folder").path())
        .filter(|p| p.extension().is_some_and(|e| e == "test"))
        .collect();
    out.sort();
    out
}

fn run(path: &Path, gap: usize) -> usize {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let text = std::fs::read_to_string(path).expect("a readable script");
    match run_in_memory(&text) {
        Err(err) => {
            println!("{name}: {err}");
            usize::MAX
        }
        Ok(report) => {
            println!("{name}: {} of {} failed, {gap} known", report.failures.len(), report.evals);
            if report.failures.len() > gap {
                for f in report.failures.iter().take(40) {
                    println!("  {name}:{}: {}\n      {}", f.line, f.query, f.message);
                }
            }
            report.failures.len()
        }
    }
}

#[test]
fn upstream_scripts_pass() {
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let mut wrong = Vec::new();
    let scripts = scripts(&upstream_folder());
    assert_eq!(scripts.len(), 21, "all of upstream's scripts");
    for path in scripts {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with(&only) {
            continue;
        }
        let gap = GAPS.iter().find(|(n, _)| *n == name).map_or(0, |(_, gap)| *gap);
        if run(&path, gap) != gap {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "the number of failures changed in {wrong:?}");
}

#[test]
fn own_scripts_pass() {
    for path in scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")) {
        assert_eq!(run(&path, 0), 0, "{}", path.display());
    }
}
