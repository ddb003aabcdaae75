//! Upstream's scripts and our own, over the head and over blocks behind the StoreAPI.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use chronolith_conformance::{BlockStorage, HeadStorage, Way};
use chronolith_promql::Engine;
use chronolith_promql::script::{ScriptStorage, corpus, run_script, script_options};
use tokio::runtime::{Handle, Runtime};

type Open = fn(&Handle) -> Box<dyn ScriptStorage>;

fn head(runtime: &Handle) -> Box<dyn ScriptStorage> {
    Box::new(HeadStorage::open(runtime))
}

fn blocks(runtime: &Handle) -> Box<dyn ScriptStorage> {
    Box::new(BlockStorage::open(runtime, Way::Grpc))
}

fn local_blocks(runtime: &Handle) -> Box<dyn ScriptStorage> {
    Box::new(BlockStorage::open(runtime, Way::Local))
}

/// Runs a script; `None` when it did what it should, else what was wrong.
fn wrong(path: &Path, open: Open, runtime: &Handle) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a readable script");
    let report = match run_script(&text, &Engine::new(script_options()), &|| open(runtime)) {
        Ok(report) => report,
        Err(e) => return Some(format!("{name}: {e}")),
    };
    println!("{name}: {} of {} failed", report.failures.len(), report.evals);
    let mut out = String::new();
    for f in &report.failures {
        out.push_str(&format!("{name}:{}: {}\n    {}\n", f.line, f.query, f.message));
    }
    (!out.is_empty()).then_some(out)
}

/// Runs the scripts, as many at a time as there are cores.
fn all_pass(scripts: Vec<PathBuf>, storage: &str, open: Open) {
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let runtime = Runtime::new().expect("a runtime");
    let waiting = Mutex::new(scripts.into_iter());
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(path) = waiting.lock().expect("nobody panics here").next() else { break };
                    if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&only)) {
                        let found = wrong(&path, open, runtime.handle());
                        failures.lock().expect("nobody panics here").extend(found);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("nobody panicked");
    assert!(failures.is_empty(), "over {storage}:\n{}", failures.join(""));
}

fn own_scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/promql/testdata");
    corpus::scripts_in(&folder).expect("our own scripts")
}

fn named(path: &Path, names: &[&str]) -> bool {
    names.iter().any(|name| path.ends_with(name))
}

#[test]
fn upstream_scripts_pass_over_the_head() {
    let Some(scripts) = corpus::upstream_scripts() else { return };
    all_pass(scripts, "head", head);
}

#[test]
fn upstream_scripts_pass_over_blocks() {
    let Some(scripts) = corpus::upstream_scripts() else { return };
    all_pass(scripts, "blocks", blocks);
}

/// Start timestamps go another way through gRPC; the rest is the same.
#[test]
fn start_timestamps_pass_over_blocks_of_this_process() {
    let Some(mut scripts) = corpus::upstream_scripts() else { return };
    scripts.retain(|path| named(path, &["start_timestamps.test"]));
    assert_eq!(scripts.len(), 1);
    all_pass(scripts, "local blocks", local_blocks);
}

#[test]
fn own_scripts_pass_everywhere() {
    all_pass(own_scripts(), "head", head);
    all_pass(own_scripts(), "blocks", blocks);
    all_pass(own_scripts(), "local blocks", local_blocks);
}
