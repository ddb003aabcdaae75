use std::time::{Duration, Instant};

use super::*;
use crate::script::{MemoryStorage, script_options};
use crate::value::Value;
use chronolith_model::Labels;

fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    for a in 0..50 {
        let labels =
            Labels::from_pairs([("__name__", "m_total"), ("a", &a.to_string())]).expect("labels are unique");
        for i in 0..100 {
            storage.append_float(&labels, i * 15_000, (i * a) as f64, 0).expect("times ascend");
        }
    }
    storage
}

fn instant(query: &str) -> Result<QueryResult, EngineError> {
    Engine::new(EngineOptions::default()).instant(&storage(), query, 600_000, &QueryContext::new())
}

#[test]
fn long_chains_and_deep_nesting_neither_crash_nor_hang() {
    let chain = |term: &str, n: usize| vec![term; n].join("+");
    let started = Instant::now();
    assert_eq!(instant(&chain("1", 20_000)).unwrap().value, Value::Scalar { t: 600_000, v: 20_000.0 });
    let Value::Vector(v) = instant(&chain("sum(m_total)", 2_000)).unwrap().value else {
        panic!("a vector was meant")
    };
    assert_eq!(v.len(), 1);
    let nested = format!("{}m_total{}", "abs(".repeat(3_000), ")".repeat(3_000));
    let Value::Vector(v) = instant(&nested).unwrap().value else { panic!("a vector was meant") };
    assert_eq!(v.len(), 50);
    // Whatever the parser makes of this, nobody overflows a stack.
    let _ = instant(&format!("{}1{}", "(".repeat(200_000), ")".repeat(200_000)));
    let _ = instant(&format!("{}1", "-".repeat(200_000)));
    let _ = instant(&chain("time()", 20_000));
    assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
}

#[test]
fn budgets_deadlines_and_cancellation() {
    let small = Engine::new(EngineOptions { samples_max: 40_000, ..EngineOptions::default() });
    let range = |query| small.range(&storage(), query, 0, 1_485_000, 1_485, &QueryContext::new());
    let err = range("m_total").unwrap_err();
    assert_eq!(
        err.to_string(),
        "query processing would load too many samples into memory in query execution"
    );
    // A fold holds the groups and a batch, not all of its input.
    assert!(range("sum(m_total)").unwrap().stats.samples_peak < 40_000);

    let engine = Engine::default();
    let late = QueryContext::new().with_deadline(Instant::now());
    let err = engine.instant(&storage(), "m_total", 600_000, &late).unwrap_err();
    assert_eq!(err.kind(), EngineErrorKind::Timeout);
    let cancelled = QueryContext::new();
    cancelled.cancel();
    let err = engine.instant(&storage(), "m_total", 600_000, &cancelled).unwrap_err();
    assert_eq!(err.kind(), EngineErrorKind::Cancelled);
}

#[test]
fn names_are_removed_at_once_or_at_the_end() {
    let mut storage = MemoryStorage::new();
    for name in ["a_total", "b_total"] {
        let labels = Labels::from_pairs([("__name__", name)]).expect("labels are unique");
        for i in 0..10 {
            storage.append_float(&labels, i * 15_000, i as f64, 0).expect("times ascend");
        }
    }
    let query = r#"rate({__name__=~".+"}[2m])"#;
    let err =
        Engine::default().instant(&storage, query, 120_000, &QueryContext::new()).unwrap_err().to_string();
    assert_eq!(err, "vector cannot contain metrics with the same labelset");
    let query = format!("count by (__name__) ({query})");
    let at_once = Engine::default().instant(&storage, &query, 120_000, &QueryContext::new());
    assert!(at_once.is_err());
    let delayed = Engine::new(script_options()).instant(&storage, &query, 120_000, &QueryContext::new());
    assert!(delayed.is_err(), "the groups differ in nothing but the name");
    let sum = r#"sum(rate({__name__=~".+"}[2m]))"#;
    let absent = r#"absent_over_time({__name__=~".+"}[2m])"#;
    let absent = Engine::default().instant(&storage, absent, 120_000, &QueryContext::new()).unwrap();
    assert_eq!(absent.value, Value::Vector(Vec::new()));
    let delayed = Engine::new(script_options()).instant(&storage, sum, 120_000, &QueryContext::new());
    assert!(delayed.is_ok());
}

#[test]
fn ranges_want_vectors() {
    let engine = Engine::default();
    let err = engine.range(&storage(), "m_total[5m]", 0, 60_000, 15_000, &QueryContext::new()).unwrap_err();
    assert_eq!(
        err.to_string(),
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
    );
    let result = engine.range(&storage(), "m_total", 0, 60_000, 15_000, &QueryContext::new()).unwrap();
    let Value::Matrix(series) = result.value else { panic!("a matrix was meant") };
    assert_eq!((series.len(), series[1].timestamps.len()), (50, 5));
    assert_eq!(result.stats.series_read, 50);
}

#[test]
fn absurd_times_and_grids_are_refused_or_empty() {
    let started = Instant::now();
    for query in
        ["sum_over_time(m_total[10y:1ms])", "max_over_time(vector(time())[200y:1ms])", "m_total[250y:1ms]"]
    {
        assert!(matches!(instant(query), Err(EngineError::TooManySamples)), "{query}");
    }
    let engine = Engine::default();
    let cx = QueryContext::new();
    for (start, end, step) in [(i64::MIN, i64::MAX, 1), (0, i64::MAX, 1), (i64::MIN, i64::MIN, 1)] {
        for query in ["rate(m_total[5m] offset 290y)", "time()", "m_total @ 9e15", "m_total offset -290y"] {
            let _ = engine.range(&storage(), query, start, end, step, &cx);
            let _ = engine.instant(&storage(), query, start, &cx);
            let _ = engine.instant(&storage(), query, end, &cx);
        }
    }
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
}
