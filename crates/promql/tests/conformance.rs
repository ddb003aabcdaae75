//! Upstream's PromQL scripts, which lie beside the workspace, and our own, which lie in `testdata`, over series in memory,
//! with queries that stay on one thread and with queries that use several.
//! `tests/conformance` runs them over the head and over blocks behind the StoreAPI.

use std::path::Path;

use chronolith_chunk::encode_floats;
use chronolith_model::Labels;
use chronolith_promql::script::{
    LoadedSeries, MemoryStorage, ScriptStorage, corpus, run_script, script_options,
};
use chronolith_promql::{
    Engine, EngineOptions, QueryContext, Queryable, QueryableError, SelectRequest, Series, SeriesData,
    SeriesSet,
};

/// The series of a script as a storage holds them: floats in XOR chunks.
#[derive(Default)]
struct Chunked {
    memory: MemoryStorage,
    series: Vec<Series>,
}

impl ScriptStorage for Chunked {
    fn load(&mut self, series: &[LoadedSeries]) -> Result<(), String> {
        self.memory.load(series)?;
        let series = self.memory.series().map(|(labels, samples)| {
            let data = if samples.has_histograms() || !samples.start_ts.is_empty() {
                SeriesData::Columns(samples.clone())
            } else {
                SeriesData::Chunks(encode_floats(&samples.ts, &samples.values))
            };
            Series { labels: labels.clone(), data }
        });
        self.series = series.collect();
        Ok(())
    }

    fn queryable(&self) -> &dyn Queryable {
        self
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
        let found: Vec<Series> = self.series.iter().filter(|s| wanted(&s.labels)).cloned().collect();
        Ok(Box::new(Found(found.into_iter())))
    }
}

struct Found(std::vec::IntoIter<Series>);

impl SeriesSet for Found {
    fn next(&mut self) -> Result<Option<Series>, QueryableError> {
        Ok(self.0.next())
    }
}

type Open = dyn Fn() -> Box<dyn ScriptStorage>;

fn in_memory() -> Box<dyn ScriptStorage> {
    Box::new(MemoryStorage::new())
}

fn in_chunks() -> Box<dyn ScriptStorage> {
    Box::new(Chunked::default())
}

/// Runs a script; false when anything in it failed.
fn passes(path: &Path, threads_max: usize, open: &Open) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let text = std::fs::read_to_string(path).expect("a readable script");
    match run_script(&text, &Engine::new(EngineOptions { threads_max, ..script_options() }), open) {
        Err(err) => {
            println!("{name}: {err}");
            false
        }
        Ok(report) => {
            println!("{name}: {} of {} failed", report.failures.len(), report.evals);
            for f in report.failures.iter().take(40) {
                println!("  {name}:{}: {}\n      {}", f.line, f.query, f.message);
            }
            report.failures.is_empty()
        }
    }
}

#[test]
fn upstream_scripts_pass_in_memory() {
    upstream_scripts_pass(1, &in_memory);
}

#[test]
fn upstream_scripts_pass_in_chunks() {
    upstream_scripts_pass(4, &in_chunks);
}

fn upstream_scripts_pass(threads_max: usize, open: &Open) {
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let Some(scripts) = corpus::upstream_scripts() else { return };
    let wrong: Vec<String> = scripts
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&only)))
        .filter(|path| !passes(path, threads_max, open))
        .map(|path| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "failures in {wrong:?}");
}

#[test]
fn own_scripts_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for path in corpus::scripts_in(&folder).expect("our own scripts") {
        for (threads_max, open) in [(1, &in_memory as &Open), (4, &in_chunks)] {
            assert!(passes(&path, threads_max, open), "{}", path.display());
        }
    }
}
