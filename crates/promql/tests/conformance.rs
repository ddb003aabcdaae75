//! Upstream's PromQL scripts, which lie beside the workspace, and our own, which lie in `testdata`.

use std::path::{Path, PathBuf};

use chronolith_chunk::encode_floats;
use chronolith_model::Labels;
use chronolith_promql::script::{MemoryStorage, run_script, script_options};
use chronolith_promql::{
    Engine, QueryContext, Queryable, QueryableError, SelectRequest, Series, SeriesData, SeriesSet,
};

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

/// The series of a script as a storage holds them: floats in XOR chunks.
struct Chunked(Vec<Series>);

impl Chunked {
    fn new(memory: &MemoryStorage) -> Self {
        let series = memory.series().map(|(labels, samples)| {
            let data = if samples.has_histograms() || !samples.start_ts.is_empty() {
                SeriesData::Columns(samples.clone())
            } else {
                SeriesData::Chunks(encode_floats(&samples.ts, &samples.values))
            };
            Series { labels: labels.clone(), data }
        });
        Chunked(series.collect())
    }
}

impl Queryable for Chunked {
    fn select(
        &self,
        request: &SelectRequest<'_>,
        _cx: &QueryContext,
    ) -> Result<Box<dyn SeriesSet>, QueryableError> {
        let wanted = |labels: &Labels| {
            request.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or_default()))
        };
        let found: Vec<Series> = self.0.iter().filter(|s| wanted(&s.labels)).cloned().collect();
        Ok(Box::new(Found(found.into_iter())))
    }
}

struct Found(std::vec::IntoIter<Series>);

impl SeriesSet for Found {
    fn next(&mut self) -> Result<Option<Series>, QueryableError> {
        Ok(self.0.next())
    }
}

fn in_memory(memory: &MemoryStorage) -> Box<dyn Queryable> {
    Box::new(memory.clone())
}

fn in_chunks(memory: &MemoryStorage) -> Box<dyn Queryable> {
    Box::new(Chunked::new(memory))
}

fn run(path: &Path, gap: usize, wrap: &dyn Fn(&MemoryStorage) -> Box<dyn Queryable>) -> usize {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let text = std::fs::read_to_string(path).expect("a readable script");
    match run_script(&text, &Engine::new(script_options()), wrap) {
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
fn upstream_scripts_pass_in_memory() {
    upstream_scripts_pass(&in_memory);
}

#[test]
fn upstream_scripts_pass_in_chunks() {
    upstream_scripts_pass(&in_chunks);
}

fn upstream_scripts_pass(wrap: &dyn Fn(&MemoryStorage) -> Box<dyn Queryable>) {
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
        if run(&path, gap, wrap) != gap {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "the number of failures changed in {wrong:?}");
}

#[test]
fn own_scripts_pass() {
    for path in scripts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")) {
        assert_eq!(run(&path, 0, &in_memory), 0, "{}", path.display());
    }
}
