//! Two gRPC stores that fold, against the same stores that are only read: results equal to the last bit, annotations with their
//! positions, partial answers; and stores that may share series, which are left alone.

use std::time::Duration;

use chronolith_chunk::{SampleColumns, encode_columns};
use chronolith_model::{FloatHistogram, Labels};
use chronolith_promql::parser::ParseOptions;
use chronolith_promql::{EngineOptions, PointValue, QueryResult, Value, VectorSample};
use chronolith_storeapi::contract::{STEP_MS, T0};
use chronolith_storeapi::{
    LabelNames, LabelNamesRequest, LabelValues, LabelValuesRequest, MemoryStore, PartialResponse,
    SeriesRequest, SeriesStream, ServerOptions, Services, StoreInfo, serve,
};
use tokio::net::TcpListener;

use super::*;
use crate::{Config, EndpointPool};

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
}

const SAMPLES: i64 = 80;

/// Counters with resets, gauges with gaps, zeros of both signs and NaNs, native histograms.
fn store(external: &[(&str, &str)], seed: u64) -> Arc<dyn Store> {
    let mut random = Random(seed);
    let mut all = Vec::new();
    for i in 0..24_u64 {
        let (x, y, i_text) = (random.of(&["1", "2", "3"]), random.of(&["a", "b"]), i.to_string());
        let name = match i {
            0..9 => "requests_total",
            9..15 => "temperature",
            15..20 => "odd",
            20..22 => "mixed",
            _ => "latency",
        };
        let labels = [("__name__", name), ("a", y), ("i", i_text.as_str()), ("x", x)];
        let mut columns = SampleColumns::default();
        let mut counter = 0.0;
        for k in 0..SAMPLES {
            if random.below(20) == 0 {
                continue;
            }
            let t = T0 + k * STEP_MS + random.below(3) as i64;
            counter = if random.below(30) == 0 { 0.0 } else { counter + random.below(1000) as f64 / 7.0 };
            let value = match name {
                "requests_total" => counter,
                "odd" => [0.0, -0.0, f64::NAN, -1.5][random.below(4) as usize],
                _ => random.below(1 << 30) as f64 / 3.0 - 1e8,
            };
            let histogram = name == "latency" || name == "mixed" && random.below(2) == 0;
            if histogram || !columns.histograms.is_empty() {
                columns.histograms.resize(columns.ts.len(), None);
                columns.histograms.push(histogram.then(|| {
                    Arc::new(FloatHistogram {
                        count: counter,
                        sum: counter * 2.0,
                        ..FloatHistogram::default()
                    })
                }));
            }
            columns.ts.push(t);
            columns.values.push(value);
        }
        all.push((Labels::from_pairs(labels).unwrap(), encode_columns(&columns).unwrap()));
    }
    Arc::new(MemoryStore::new(Labels::from_pairs(external.iter().copied()).unwrap(), all))
}

/// Serves a store; its address.
async fn start(store: Arc<dyn Store>, folds: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fold = folds.then(|| evaluate_over(Arc::clone(&store)));
    let services = Services { store: Some(store), fold, ..Services::default() };
    tokio::spawn(serve(listener, services, ServerOptions::default(), std::future::pending()));
    address
}

struct Querier(Arc<EndpointPool>);

impl Querier {
    async fn over(addresses: &[String]) -> Self {
        let config = Config {
            endpoints: addresses.to_vec(),
            info_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        let pool = EndpointPool::new(&config, Vec::new()).unwrap();
        pool.refresh().await;
        Querier(pool)
    }

    /// Evaluates with and without; `step_ms` 0 is one time.
    async fn both(
        &self,
        query: &str,
        step_ms: i64,
        options: &SelectOptions,
    ) -> [Result<QueryResult, EngineError>; 2] {
        let set = Arc::clone(&self.0) as Arc<dyn chronolith_storeapi::EndpointSet>;
        let fanout = Fanout::new(set, Default::default());
        let queryable = StoreQueryable::over_fanout(&fanout, options.clone(), Handle::current());
        let query = query.to_owned();
        tokio::task::spawn_blocking(move || {
            [true, false].map(|push_aggregations| {
                let parse = ParseOptions::ALL;
                let engine = Engine::new(EngineOptions { push_aggregations, parse, ..Default::default() });
                let cx = QueryContext::new().analyzing();
                let end = T0 + SAMPLES * STEP_MS;
                match step_ms {
                    0 => engine.instant(&queryable, &query, end - 5 * STEP_MS, &cx),
                    _ => engine.range(&queryable, &query, T0 - 60_000, end + 400_000, step_ms, &cx),
                }
            })
        })
        .await
        .unwrap()
    }
}

fn dedup() -> SelectOptions {
    SelectOptions { dedup: true, replica_labels: vec!["replica".to_owned()], ..SelectOptions::default() }
}

/// All that a client sees, floats by their bits; the order of an instant vector where it is one.
fn shown(result: &Result<QueryResult, EngineError>, sorted: bool) -> String {
    let result = match result {
        Ok(result) => result,
        Err(error) => return error.to_string(),
    };
    let mut out = String::new();
    match &result.value {
        Value::Matrix(series) => {
            for s in series {
                let points = s.timestamps.iter().zip(&s.values).map(|(t, v)| (*t, v.to_bits()));
                out += &format!("{} {:x?} {:?}\n", s.labels, points.collect::<Vec<_>>(), s.histograms);
            }
        }
        Value::Vector(samples) => {
            let line = |s: &VectorSample| match &s.value {
                PointValue::Float(v) => format!("{} {:x}\n", s.labels, v.to_bits()),
                PointValue::Histogram(h) => format!("{} {h:?}\n", s.labels),
            };
            let mut lines: Vec<String> = samples.iter().map(line).collect();
            if !sorted {
                // Unspecified: of series that are read with some of their labels, that of those.
                lines.sort();
            }
            out += &lines.concat();
        }
        other => out += &format!("{other:?}\n"),
    }
    let stats = (result.stats.samples_total, result.stats.samples_read, result.stats.series_read);
    out + &format!("{:?} {:?} {stats:?}", result.warnings, result.infos)
}

/// How many stores folded, at most, for one aggregation of the query.
fn stores(result: &Result<QueryResult, EngineError>) -> usize {
    let Ok(QueryResult { analysis: Some(analysis), .. }) = result else { return 0 };
    let of = |name: &str| {
        let text = name.split("(folded by ").nth(1)?;
        text.split(' ').next()?.parse::<usize>().ok()
    };
    analysis.operators.iter().filter_map(|o| of(&o.name)).max().unwrap_or(0)
}

fn generated(random: &mut Random) -> String {
    let selector = match random.below(8) {
        0 => "{__name__=~\"requests_total|temperature\"}",
        1 => "odd",
        2 => "latency",
        3 => "mixed",
        4 => "temperature",
        5 => "requests_total{cluster=\"b\"}",
        _ => "requests_total",
    };
    let several = selector.starts_with('{');
    let inner = match random.below(if several { 1 } else { 12 }) {
        0 | 1 => selector.to_owned(),
        2 => format!("{selector} offset 1m"),
        3 => format!("{selector} @ start()"),
        4 => format!("rate({selector}[2m])"),
        5 => format!("increase({selector}[5m] @ end())"),
        6 => format!("max_over_time({selector}[3m])"),
        7 => format!("-{selector} * 2 > -5e8"),
        8 => format!("abs(delta({selector}[100s]))"),
        9 => format!("last_over_time(rate({selector}[2m])[4m:30s])"),
        10 => format!("({selector} == bool 0)"),
        _ => format!("quantile_over_time(0.3, {selector}[2m])"),
    };
    let op = random.of(&["count", "group", "min", "max"]);
    let by = random.of(&["", "by (x)", "without (i, x)", "by (cluster, a)", "by (__name__)", "without ()"]);
    let aggregation = format!("{op} {by} ({inner})");
    // Sums of groups are compensated in the order of the groups, which is that of projected labels where series are read: whole
    // numbers add up to the same in any order.
    let sums = ["sum($)", "avg by (x) ($)", "sum($) + on () group(temperature)"];
    let others = [
        "$",
        "$",
        "$",
        "topk(2, $)",
        "1 - $",
        "sort_desc($)",
        "limitk(2, $)",
        "max_over_time(($)[3m:30s])",
        "$ / on () group_left () count(odd)",
        "absent($)",
        "count_values('v', $) or $",
    ];
    let whole = matches!(op, "count" | "group");
    let over = if whole && random.below(3) == 0 { random.of(&sums) } else { random.of(&others) };
    over.replace('$', &aggregation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stores_fold_is_what_the_querier_would() {
    let a = start(store(&[("cluster", "a"), ("replica", "0")], 1), true).await;
    let b = start(store(&[("cluster", "b"), ("replica", "0")], 2), true).await;
    let querier = Querier::over(&[a, b]).await;
    let mut random = Random(7);
    let (mut folded, mut as_ever) = (0, 0);
    for i in 0..160 {
        let query = generated(&mut random);
        let options = if i % 2 == 0 { dedup() } else { SelectOptions::default() };
        let step_ms = if i % 3 == 0 { 0 } else { 17_000 };
        let [with, without] = querier.both(&query, step_ms, &options).await;
        let sorted = query.starts_with("sort") || query.starts_with("topk");
        assert_eq!(shown(&with, sorted), shown(&without, sorted), "{query} step {step_ms} {options:?}");
        assert_eq!(stores(&without), 0);
        if stores(&with) > 0 { folded += 1 } else { as_ever += 1 }
    }
    // Those left alone: errors, and zeros or NaNs of which the order of the series chooses.
    assert!(folded > 100, "{folded} folded, {as_ever} not");
    let [with, _] = querier.both("max by (x) (rate(requests_total[2m]))", 15_000, &dedup()).await;
    assert_eq!(stores(&with), 2);
    // Annotations keep their places.
    let [with, without] = querier.both("1 + max(rate(temperature[2m]))", 15_000, &dedup()).await;
    assert_eq!(stores(&with), 2);
    assert_eq!(shown(&with, false), shown(&without, false));
    let infos = with.unwrap().infos;
    assert!(infos.len() == 1 && infos[0].ends_with("(1:14)"), "{infos:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_may_share_series_are_read() {
    let a = start(store(&[("cluster", "a"), ("replica", "0")], 1), true).await;
    let b = start(store(&[("cluster", "b"), ("replica", "0")], 2), true).await;
    let replica = start(store(&[("cluster", "b"), ("replica", "1")], 2), true).await;
    let old = start(store(&[("cluster", "c"), ("replica", "0")], 4), false).await;
    let unknown = start(store(&[], 5), false).await;
    let query = "max by (x) (rate(requests_total[2m]))";
    let tenant = SelectOptions { tenant: Some(Matcher::equal("cluster", "a")), ..dedup() };
    let chosen = SelectOptions { store_matchers: vec![vec![Matcher::equal("cluster", "a")]], ..dedup() };
    for (addresses, options, want) in [
        (vec![&a, &b, &replica], dedup(), 1),
        (vec![&b, &replica], dedup(), 0),
        // Without their removal replicas are series of their own.
        (vec![&b, &replica], SelectOptions::default(), 2),
        (vec![&a, &b, &old], dedup(), 2),
        (vec![&a, &b, &unknown], dedup(), 0),
        (vec![&b], dedup(), 1),
        (vec![&a, &b, &replica], tenant, 1),
        (vec![&a, &b, &replica], chosen, 1),
    ] {
        let addresses: Vec<String> = addresses.into_iter().cloned().collect();
        let querier = Querier::over(&addresses).await;
        let [with, without] = querier.both(query, 15_000, &options).await;
        assert_eq!(shown(&with, false), shown(&without, false), "{options:?}");
        assert_eq!(stores(&with), want, "{options:?} {}", addresses.len());
    }
}

/// Fails whatever it is asked.
struct Broken;

#[async_trait]
impl Store for Broken {
    async fn series(&self, _: SeriesRequest) -> Result<SeriesStream, StoreError> {
        Err(StoreError::unavailable("bucket is gone"))
    }

    async fn label_names(&self, _: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        Ok(LabelNames::default())
    }

    async fn label_values(&self, _: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        Ok(LabelValues::default())
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut info = StoreInfo::new("store");
        info.range = TimeRange::ALL;
        info.label_sets = vec![Labels::from_pairs([("cluster", "c")]).unwrap()];
        Ok(info)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_is_missing_as_ever() {
    let a = start(store(&[("cluster", "a")], 1), true).await;
    let broken = start(Arc::new(Broken), true).await;
    let querier = Querier::over(&[a, broken.clone()]).await;
    let query = "count by (cluster) (requests_total)";
    let [with, without] = querier.both(query, 15_000, &dedup()).await;
    assert_eq!(shown(&with, false), shown(&without, false));
    assert_eq!(stores(&with), 1);
    assert_eq!(with.unwrap().warnings, [format!("{broken}: bucket is gone")]);
    let abort = SelectOptions { partial_response: PartialResponse::Abort, ..dedup() };
    let [with, without] = querier.both(query, 15_000, &abort).await;
    assert!(with.is_err());
    assert_eq!(shown(&with, false), shown(&without, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_hold_in_the_store_and_it_declines_what_it_does_not_know() {
    let engine = evaluate_over(store(&[("cluster", "a")], 1));
    let query = "1 + count(requests_total)";
    let call = |change: &dyn Fn(&mut FoldCall)| {
        let mut call = FoldCall {
            fold: FoldRequest {
                query: query.to_owned(),
                node: chronolith_promql::parser::Span { start: 4, end: 25 },
                start: T0,
                end: T0 + 600_000,
                step_ms: 15_000,
                steps: chronolith_promql::FoldSteps {
                    start: T0,
                    end: T0 + 600_000,
                    step_ms: 15_000,
                    count: 41,
                },
                step_stats: false,
                options: EngineOptions::default(),
            },
            dedup: false,
            replica_labels: Vec::new(),
            partial_response: PartialResponse::Warn,
            max_resolution_ms: 0,
            tenant: None,
            timeout: Duration::from_secs(60),
            memory_max: 0,
            pause_max: None,
        };
        change(&mut call);
        call
    };
    let answer = engine.fold(call(&|_| {})).await.unwrap();
    let [group] = answer.folded.groups.as_slice() else { panic!("one group was expected") };
    assert!(group.values.contains(&9.0), "{group:?}");
    assert_eq!(answer.label_sets, [Labels::from_pairs([("cluster", "a")]).unwrap()]);
    for (what, change) in [
        ("samples", (&|c: &mut FoldCall| c.fold.options.samples_max = 40) as &dyn Fn(&mut FoldCall)),
        ("memory", &|c| c.memory_max = 1000),
        ("another node", &|c| c.fold.node.start = 0),
        ("other steps", &|c| c.fold.steps.count = usize::MAX),
        ("steps beyond all time", &|c| c.fold.steps.start = i64::MIN),
        ("no query", &|c| c.fold.query = "1 +".to_owned()),
        ("not exact", &|c| c.fold.query = "1 +   sum(requests_total)".to_owned()),
    ] {
        let error = engine.fold(call(change)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
    }
    let late = engine.fold(call(&|c| c.timeout = Duration::ZERO)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
}
