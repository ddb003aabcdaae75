//! The engine over series of XOR chunks in memory: `cargo bench -p chronolith-promql --bench engine`. Best of a few runs, by
//! the process's CPU time and by the clock. Two sets of series: `wide` (`SERIES`, default 100000, over 1 h, half of them
//! histogram buckets) and `long` (`LONG`, default 2000, over 7 d). `ONLY` is a prefix of a case's name, `PARALLEL` the
//! threads that a query may use. With `--test` small sets are run once.

use std::time::{Duration, Instant};

use chronolith_chunk::{Chunk, encode_floats};
use chronolith_model::{Labels, MatchOp};
use chronolith_promql::parser::ParseOptions;
use chronolith_promql::{
    Engine, EngineOptions, QueryContext, QueryResult, Queryable, QueryableError, SelectRequest, Series,
    SeriesData, SeriesSet, Value,
};

const STEP_MS: i64 = 15_000;
const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_700_000_000_000 / HOUR_MS * HOUR_MS;

/// Series sorted by labels; metric by metric.
struct Memory {
    series: Vec<(Labels, Vec<Chunk>)>,
}

impl Memory {
    /// `n` series of `hours`: half of them request histograms of 10 buckets, the rest counters of CPUs.
    fn new(n: usize, hours: i64) -> Self {
        let mut series = Vec::with_capacity(n);
        let mut rng = 42_u64;
        let mut random = move || {
            rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rng >> 33
        };
        let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"];
        for i in 0..n {
            let instance = format!("host-{:04}.example.org:9100", i / 100);
            let labels = if i % 2 == 0 {
                let k = i / 2;
                vec![
                    ("__name__", "http_request_duration_seconds_bucket".to_owned()),
                    ("handler", format!("/api/v1/{}", k / 10 % 5)),
                    ("instance", instance),
                    ("job", "api".to_owned()),
                    ("le", bounds[k % 10].to_owned()),
                    ("region", ["eu", "us", "ap"][k / 50 % 3].to_owned()),
                ]
            } else {
                let k = i / 2;
                vec![
                    ("__name__", "node_cpu_seconds_total".to_owned()),
                    ("cpu", format!("{}", k % 8)),
                    ("instance", instance),
                    ("job", "node".to_owned()),
                    (
                        "mode",
                        ["idle", "user", "system", "iowait", "irq", "nice", "steal"][k / 8 % 7].to_owned(),
                    ),
                ]
            };
            let labels = Labels::from_pairs(labels).expect("labels are unique");
            let offset = (i as i64 * 37) % STEP_MS;
            let mut value = (random() % 100_000) as f64;
            let before_ms = HOUR_MS / 4 * hours.min(24);
            let samples = ((hours * HOUR_MS + before_ms) / STEP_MS) as usize;
            let (mut ts, mut vs) = (Vec::new(), Vec::new());
            for s in 0..samples {
                ts.push(START_MS - before_ms + offset + s as i64 * STEP_MS + (random() % 20) as i64);
                value = if random() % 5_000 == 0 { 0.0 } else { value + (random() % 100) as f64 / 4.0 };
                vs.push(value);
            }
            series.push((labels, encode_floats(&ts, &vs)));
        }
        series.sort_by(|a, b| a.0.cmp(&b.0));
        series.dedup_by(|b, a| a.0 == b.0);
        Memory { series }
    }
}

struct Found {
    memory: &'static [(Labels, Vec<Chunk>)],
    at: Vec<u32>,
    next: usize,
}

impl SeriesSet for Found {
    fn next(&mut self) -> Result<Option<Series>, QueryableError> {
        let Some(i) = self.at.get(self.next) else { return Ok(None) };
        self.next += 1;
        let (labels, chunks) = &self.memory[*i as usize];
        Ok(Some(Series { labels: labels.clone(), data: SeriesData::Chunks(chunks.clone()) }))
    }
}

impl Queryable for &'static Memory {
    fn select(
        &self,
        request: &SelectRequest<'_>,
        _: &QueryContext,
    ) -> Result<Box<dyn SeriesSet>, QueryableError> {
        let memory: &'static Memory = self;
        let mut at = Vec::new();
        let name = request.matchers.iter().find(|m| m.name == "__name__" && m.op == MatchOp::Equal);
        let rest: Vec<_> = request.matchers.iter().filter(|m| Some(*m) != name).collect();
        let from = name.map_or(0, |n| {
            self.series.partition_point(|(l, _)| l.metric_name().unwrap_or_default() < n.value.as_str())
        });
        for (i, (labels, _)) in self.series.iter().enumerate().skip(from) {
            if name.is_some_and(|n| labels.metric_name() != Some(n.value.as_str())) {
                break;
            }
            if rest.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or_default())) {
                at.push(i as u32);
            }
        }
        Ok(Box::new(Found { memory: &memory.series, at, next: 0 }))
    }
}

/// Names and queries over 100k series of an hour, 60 steps a minute apart.
const WIDE: &[(&str, &str)] = &[
    ("select", "node_cpu_seconds_total"),
    ("rate", "rate(node_cpu_seconds_total[5m])"),
    ("sum_by_rate", "sum by (mode) (rate(node_cpu_seconds_total[5m]))"),
    ("sum_without_rate", "sum without (cpu) (rate(node_cpu_seconds_total[5m]))"),
    (
        "histogram_quantile",
        "histogram_quantile(0.9, sum by (le, handler) (rate(http_request_duration_seconds_bucket[5m])))",
    ),
    ("histogram_quantile_all", "histogram_quantile(0.9, rate(http_request_duration_seconds_bucket[5m]))"),
    ("topk", "topk(5, rate(node_cpu_seconds_total[5m]))"),
    ("regex", "sum by (instance) (rate(node_cpu_seconds_total{mode=~\"user|system\"}[5m]))"),
    (
        "ratio",
        "sum by (instance) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m])) / sum by (instance) (rate(node_cpu_seconds_total[5m]))",
    ),
    (
        "join",
        "rate(node_cpu_seconds_total[5m]) * on (instance) group_left sum by (instance) (node_cpu_seconds_total)",
    ),
    ("count_by_name", "count by (__name__) ({__name__=~\".+\"})"),
    ("quantile_over_time", "quantile_over_time(0.9, node_cpu_seconds_total[10m])"),
    ("max_over_time", "max(max_over_time(node_cpu_seconds_total[10m]))"),
    ("subquery", "max_over_time(sum by (mode) (rate(node_cpu_seconds_total[5m]))[30m:1m])"),
    ("subquery_all", "sum(max_over_time(rate(node_cpu_seconds_total{cpu=\"0\"}[5m])[30m:1m]))"),
    ("arithmetic", "1 - node_cpu_seconds_total / 100 > 0.5"),
];

/// Names and queries over 2k series of a week, 168 steps an hour apart.
const LONG: &[(&str, &str)] = &[
    ("rate", "rate(node_cpu_seconds_total[5m])"),
    ("sum_by_rate", "sum by (mode) (rate(node_cpu_seconds_total[2h]))"),
    (
        "histogram_quantile",
        "histogram_quantile(0.9, sum by (le) (rate(http_request_duration_seconds_bucket[2h])))",
    ),
    ("quantile_over_time", "quantile_over_time(0.9, node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("stddev_over_time", "stddev_over_time(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("mad_over_time", "mad_over_time(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("sum_over_time", "sum_over_time(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("avg_over_time", "avg_over_time(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("max_over_time", "max_over_time(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("deriv", "deriv(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("changes", "changes(node_cpu_seconds_total{cpu=\"0\"}[6h])"),
    ("smoothing", "double_exponential_smoothing(node_cpu_seconds_total{cpu=\"0\"}[6h], 0.5, 0.5)"),
    ("subquery", "max_over_time(sum by (mode) (rate(node_cpu_seconds_total[5m]))[6h:5m])"),
];

/// CPU time of this process so far, to the nanosecond for threads that still run, else to the tick of 10 ms.
fn cpu() -> (Duration, Duration) {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|t| {
        let text = std::fs::read_to_string(t.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|f| f.parse::<u64>().ok()).sum();
    (Duration::from_nanos(nanos.sum()), Duration::from_millis(ticks * 10))
}

fn cpu_since(start: (Duration, Duration)) -> Duration {
    let now = cpu();
    let (fine, coarse) = (now.0.saturating_sub(start.0), now.1.saturating_sub(start.1));
    // A thread that ended is only in the coarse number.
    if coarse > fine + Duration::from_millis(20) { coarse } else { fine }
}

fn main() {
    let smoke = std::env::args().any(|a| a == "--test");
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let runs = if smoke { 1 } else { number("RUNS", 3) };
    let only = std::env::var("ONLY").unwrap_or_default();
    let threads_max = number("PARALLEL", 0);
    let engine =
        Engine::new(EngineOptions { threads_max, parse: ParseOptions::ALL, ..EngineOptions::default() });
    for (set, n, hours, step_ms, cases) in [
        ("wide", if smoke { 1_000 } else { number("SERIES", 100_000) }, 1, 60_000, WIDE),
        ("long", if smoke { 20 } else { number("LONG", 2_000) }, 168, HOUR_MS, LONG),
    ] {
        let cases: Vec<_> = cases.iter().filter(|(name, _)| name.starts_with(&only)).collect();
        if n == 0 || cases.is_empty() {
            continue;
        }
        let memory: &'static Memory = Box::leak(Box::new(Memory::new(n, hours)));
        println!("{set}: {} series, {hours} h", memory.series.len());
        for (name, query) in cases {
            let end = START_MS + hours * HOUR_MS - 1;
            for (kind, step_ms) in [("instant", 0), ("range", step_ms)] {
                measure(&format!("{set}/{name}/{kind}"), runs, || {
                    let cx = QueryContext::new();
                    if step_ms == 0 {
                        engine.instant(&memory, query, end, &cx)
                    } else {
                        engine.range(&memory, query, START_MS, end, step_ms, &cx)
                    }
                    .unwrap_or_else(|e| panic!("{query}: {e}"))
                });
            }
        }
    }
    if "chain".starts_with(&only) {
        chains(&engine, runs, if smoke { 500 } else { number("CHAIN", 20_000) });
    }
}

/// Chains of many terms over few series.
fn chains(engine: &Engine, runs: usize, terms: usize) {
    let memory: &'static Memory = Box::leak(Box::new(Memory::new(200, 1)));
    println!("chain: {terms} terms");
    let chain = |term: &dyn Fn(usize) -> String, operator: &str| {
        (0..terms).map(term).collect::<Vec<_>>().join(&format!(" {operator} "))
    };
    let cpu = "node_cpu_seconds_total{cpu=\"1\"}";
    for (name, query) in [
        ("numbers", chain(&|i| i.to_string(), "+")),
        ("scalars", chain(&|_| "time()".to_owned(), "+")),
        ("one_selector", chain(&|_| cpu.to_owned(), "+")),
        ("selectors", chain(&|i| format!("metric_{i}{{a=\"{i}\"}}"), "or")),
        ("aggregations", chain(&|_| format!("sum by (instance) ({cpu})"), "+")),
    ] {
        measure(&format!("chain/{name}/instant"), runs, || {
            let cx = QueryContext::new();
            engine.instant(&memory, &query, START_MS, &cx).unwrap_or_else(|e| panic!("{name}: {e}"))
        });
    }
}

fn measure(name: &str, runs: usize, mut run: impl FnMut() -> QueryResult) {
    let (mut best, mut best_cpu) = (Duration::MAX, Duration::MAX);
    let (mut series, mut samples) = (0, 0);
    for _ in 0..runs {
        let (started, started_cpu) = (Instant::now(), cpu());
        let result = run();
        best = best.min(started.elapsed());
        best_cpu = best_cpu.min(cpu_since(started_cpu));
        samples = result.stats.samples_read;
        series = match &result.value {
            Value::Matrix(m) => m.len(),
            Value::Vector(v) => v.len(),
            _ => 1,
        };
    }
    let rate = samples as f64 / best_cpu.as_secs_f64() / 1e6;
    println!(
        "{name:32} {:9.1} ms CPU {:9.1} ms  {rate:6.1} M samples/s  {series} series out",
        best_cpu.as_secs_f64() * 1e3,
        best.as_secs_f64() * 1e3,
    );
}
