use std::time::{Duration, Instant};

use super::*;
use crate::parser::ParseOptions;
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
fn any_number_of_threads_gives_the_same_bits() {
    let mut storage = MemoryStorage::new();
    for a in 0..3_000_i64 {
        let (a_text, b) = (a.to_string(), (a % 7).to_string());
        let labels = [("__name__", "m"), ("a", a_text.as_str()), ("b", b.as_str())];
        let labels = Labels::from_pairs(labels).expect("labels are unique");
        for i in 0..40 {
            // Values of very different size, so that the order of a sum shows in its last bits.
            let v = ((a * 31 + i * 7) % 1009) as f64 * 10_f64.powi((a % 25 - 12) as i32);
            storage.append_float(&labels, i * 15_000, v, 0).expect("times ascend");
        }
    }
    let run = |threads_max, query: &str| {
        let engine = Engine::new(EngineOptions { threads_max, ..EngineOptions::default() });
        let r = engine.range(&storage, query, 0, 600_000, 60_000, &QueryContext::new()).unwrap();
        (
            format!("{:?}", r.value),
            r.warnings,
            r.infos,
            r.stats.samples_total,
            r.stats.samples_read,
            r.stats.series_read,
        )
    };
    for query in [
        "sum by (b) (rate(m[5m]))",
        "avg(m)",
        "stddev without (a) (m)",
        "quantile_over_time(2, m[2m])",
        "topk(3, m) + on (a) group_left () max by (a) (m)",
        "max_over_time(m[5m] @ 300)",
    ] {
        let one = run(1, query);
        for threads in [2, 8] {
            assert!(run(threads, query) == one, "{query} on {threads} threads");
        }
    }
}

#[test]
fn carried_matchers_change_nothing_but_the_reading() {
    let mut storage = MemoryStorage::new();
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        for series in 0..12_usize {
            let (x, y) = ((series % 4).to_string(), (series / 4 + n).to_string());
            let labels = Labels::from_pairs([("__name__", name), ("x", &x), ("y", &y)]).expect("unique");
            for i in (0..40_i64).filter(|i| (*i as usize + series) % 11 > 2) {
                storage.append_float(&labels, i * 60_000, (series * 3 + n) as f64, 0).expect("times ascend");
            }
        }
    }
    let engine = Engine::default();
    let run = |query: &str| {
        let result = engine.range(&storage, query, 0, 2_400_000, 60_000, &QueryContext::new()).expect(query);
        let Value::Matrix(series) = result.value else { panic!("a matrix was meant") };
        (series, result.stats.series_read)
    };
    // A call that changes nothing, and that no matcher is carried through.
    let fence = |side: &str| format!(r#"label_replace({side}, "none", "", "", "")"#);
    for (l, op, r) in [
        (r#"a{x="1"}"#, "/", "b"),
        (r#"rate(a{x=~"1|2"}[5m])"#, "+", r#"max_over_time(b{y!="2"}[5m:1m])"#),
        (r#"a{x="1"}"#, "* on (x) group_left", "sum by (x) (b)"),
        ("sum by (y) (b)", "> bool on (y) group_right", r#"a{y=~"1|2",x="3"}"#),
        (r#"a{x!="1"}"#, "and on (x)", r#"b{y="3",x!="2"}"#),
        (r#"a{x="1"}"#, "unless", r#"(b or a{y="2"})"#),
        (r#"a{y="1"}"#, "unless on (y)", "topk by (y) (1, b)"),
        (r#"-a{x="1"} + a{y="1"}"#, "==", "a - 2 * a"),
    ] {
        let (got, read) = run(&format!("{l} {op} {r}"));
        let (want, read_at_most) = run(&format!("{} {op} {}", fence(l), fence(r)));
        assert_eq!(got, want, "{l} {op} {r}");
        assert!(read < read_at_most, "{l} {op} {r}: {read} series of {read_at_most}");
    }
}

#[test]
fn sliding_windows_give_what_single_windows_give() {
    let mut storage = MemoryStorage::new();
    let labels = Labels::from_pairs([("__name__", "m")]).expect("labels are unique");
    for i in 0..3_000_i64 {
        let v = match i {
            1_000 => f64::NAN,
            2_000 => f64::INFINITY,
            _ => ((i * 7919) % 1013) as f64 / 7.0 - 50.0,
        };
        storage.append_float(&labels, i * 15_000, v, 0).expect("times ascend");
    }
    let engine = Engine::new(EngineOptions { parse: ParseOptions::ALL, ..Default::default() });
    let cx = QueryContext::new();
    for call in [
        "sum_over_time(m[X])",
        "avg_over_time(m[X])",
        "max_over_time(m[X])",
        "min_over_time(m[X])",
        "stddev_over_time(m[X])",
        "stdvar_over_time(m[X])",
        "quantile_over_time(0.3, m[X])",
        "mad_over_time(m[X])",
        "deriv(m[X])",
        "predict_linear(m[X], 600)",
        "changes(m[X])",
        "resets(m[X])",
        "last_over_time(m[X])",
        "first_over_time(m[X])",
        "rate(m[X])",
    ] {
        for (range, step_ms) in [("2h", 60_000), ("2h", 1_800_000), ("10m", 15_000)] {
            let query = call.replace('X', range);
            let Value::Matrix(series) =
                engine.range(&storage, &query, 0, 44_000_000, step_ms, &cx).unwrap().value
            else {
                panic!("a matrix was meant")
            };
            for (t, v) in series[0].timestamps.iter().zip(&series[0].values).step_by(17) {
                let Value::Vector(one) = engine.instant(&storage, &query, *t, &cx).unwrap().value else {
                    panic!("a vector was meant")
                };
                let crate::value::PointValue::Float(want) = one[0].value else { panic!("a float was meant") };
                let near = (v - want).abs() <= 1e-9 * want.abs().max(1.0);
                assert!(near || *v == want || (v.is_nan() && want.is_nan()), "{query} at {t}: {v}, {want}");
            }
        }
    }
}

#[test]
fn budgets_deadlines_and_cancellation() {
    // Threads hold a batch each.
    let options = EngineOptions { samples_max: 40_000, threads_max: 1, ..EngineOptions::default() };
    let small = Engine::new(options);
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

#[test]
fn memory_is_counted_bounded_and_given_back() {
    use crate::memory::{MemoryPool, QueryMemory};
    // Budgets that do for the input of one operator but not for what it makes of it.
    let long = "x".repeat(1000);
    let joined: String = (0..20).map(|_| r#", "a""#).collect();
    for (query, kib, what) in [
        ("m_total".to_owned(), 200, "vectors"),
        ("sum by (a) (m_total)".to_owned(), 700, "groups"),
        ("topk by (a) (3, m_total)".to_owned(), 1500, "groups"),
        (r#"count_values("v", m_total)"#.to_owned(), 2000, "groups"),
        ("m_total + on (a) m_total".to_owned(), 860, "vectors"),
        ("m_total and on (a) m_total".to_owned(), 890, "join tables"),
        (format!(r#"label_replace(m_total, "b", "{long}$1$1", "a", "(.*)")"#), 430, "vectors"),
        (
            format!(r#"label_join(label_replace(m_total, "a", "{long}", "", ""), "b", ""{joined})"#),
            600,
            "vectors",
        ),
        ("max_over_time(vector(time())[17m:1ms])".to_owned(), 4000, "vectors"),
    ] {
        let memory = QueryMemory::new(kib << 10, None);
        let cx = QueryContext::new().with_memory(Arc::clone(&memory));
        let range = |engine: &Engine| engine.range(&storage(), &query, 0, 1_485_000, 1_485, &cx);
        // Threads hold buffers of their own.
        let engine = Engine::new(EngineOptions { threads_max: 1, ..EngineOptions::default() });
        let err = range(&engine).expect_err(&query);
        assert_eq!(err.kind(), EngineErrorKind::Execution);
        let text = err.to_string();
        assert!(
            text.contains("(--query.max-memory)") && text.ends_with(&format!("more for {what}")),
            "{query}: {text}"
        );
        assert_eq!(memory.held(), 0, "{query}");
    }
    let pool = MemoryPool::new(64 << 20);
    for query in
        ["m_total", "sum(rate(m_total[1m]))", "m_total + on (a) m_total", "m_total or m_total offset 1m"]
    {
        let memory = QueryMemory::new(0, Some(Arc::clone(&pool)));
        let cx = QueryContext::new().with_memory(Arc::clone(&memory));
        let result = Engine::default().range(&storage(), query, 0, 1_485_000, 1_485, &cx).expect(query);
        let Value::Matrix(series) = &result.value else { panic!("a matrix was meant") };
        let points: usize = series.iter().map(|s| s.point_count()).sum();
        let held = result.held.as_ref().map_or(0, |h| h.bytes());
        assert!(held >= points * 16 && held < points * 16 + series.len() * 1000, "{query}: {held}");
        assert_eq!(pool.held(), held, "{query}");
        drop(result);
        assert_eq!((pool.held(), memory.held()), (0, 0), "{query}");
    }
}

#[test]
fn operators_are_measured_where_asked_for() {
    let cx = QueryContext::new().analyzing();
    let query =
        r#"topk(2, sum by (a) (rate(m_total{a=~"1.*"}[1m]))) * on () group_left () vector(time() + 1)"#;
    let result = Engine::default().range(&storage(), query, 0, 1_485_000, 15_000, &cx).unwrap();
    let analysis = result.analysis.expect("it was asked for");
    let names: Vec<&str> = analysis.operators.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "[binary] * on () group_left ()",
            "[aggregate] topk",
            "[aggregate] sum by (a)",
            "[function] rate",
            r#"[matrixSelector] m_total{a=~"1.*"}[1m]"#,
            "[number] 2",
            "[function] vector",
            "[binary] +",
            "[function] time",
            "[number] 1"
        ]
    );
    let [binary, topk, sum, rate, selector, ..] = &analysis.operators[..] else { panic!("ten operators") };
    assert_eq!((&binary.children, &topk.children), (&vec![1, 6], &vec![2, 5]));
    assert_eq!((selector.series, selector.samples), (11, 1100));
    assert_eq!((rate.series, sum.series, sum.samples), (11, 11, 11 * 99));
    assert!(
        binary.time >= topk.time
            && topk.time >= sum.time
            && sum.time >= rate.time
            && rate.time >= selector.time
    );
    assert_eq!(
        (binary.samples_total, rate.samples_total),
        (result.stats.samples_total, result.stats.samples_total)
    );
    assert!(sum.memory_peak_bytes > 11 * 100 * 17, "{sum:?}");
    assert!(rate.memory_peak_bytes > 11 * 99 * 8 && rate.samples_peak >= 11 * 99, "{rate:?}");
    // Without numbers the tree is the same.
    let plan = Engine::default().explain(query, 0, 1_485_000, 15_000, &QueryContext::new()).unwrap();
    assert!(plan.operators.iter().map(|o| o.name.as_str()).eq(names));
    let plan =
        Engine::default().explain("m_total - m_total @ 30", 0, 60_000, 15_000, &QueryContext::new()).unwrap();
    assert_eq!(
        plan.operators[2].name,
        "[vectorSelector] m_total @ 30.000 (once for all steps) (read once for several)"
    );
}

#[test]
fn histogram_statistics_keep_type_and_unit() {
    let mut storage = MemoryStorage::new();
    let labels = [("__name__", "h"), ("__type__", "histogram"), ("a", "1")];
    let histogram = chronolith_model::FloatHistogram { count: 4.0, sum: 6.0, ..Default::default() };
    storage.append_histogram(&Labels::from_pairs(labels).unwrap(), 60_000, histogram, 0).unwrap();
    let labels_of = |query: &str| {
        let result =
            Engine::new(EngineOptions::default()).instant(&storage, query, 60_000, &QueryContext::new());
        match result.unwrap().value {
            Value::Vector(v) => v[0].labels.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(labels_of("histogram_avg(h)"), r#"{__type__="histogram", a="1"}"#);
    assert_eq!(labels_of("histogram_quantile(1, h)"), r#"{a="1"}"#);
}

#[test]
fn what_a_comparison_fills_in_may_become_what_it_keeps() {
    let mut storage = MemoryStorage::new();
    let labels = Labels::from_pairs([("__name__", "m"), ("__type__", "gauge"), ("a", "1")]).unwrap();
    storage.append_float(&labels, 0, -1.0, 0).unwrap();
    let engine = Engine::new(EngineOptions { parse: ParseOptions::ALL, ..EngineOptions::default() });
    let labels_of = |query: &str| match engine.instant(&storage, query, 0, &QueryContext::new())?.value {
        Value::Vector(v) => Ok(v.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>()),
        other => panic!("{other:?}"),
    };
    // The product has no type and matches nothing: each side is compared with what is filled in for the other one.
    let filled = "m < fill_left(-Inf) fill_right(1) m * 2";
    let mut both = labels_of(filled).unwrap();
    both.sort();
    assert_eq!(both, [r#"{__name__="m", __type__="gauge", a="1"}"#, r#"{a="1"}"#]);
    let refused: EngineError = labels_of(&format!("clamp({filled}, 1, 1)")).unwrap_err();
    assert_eq!(refused.to_string(), "vector cannot contain metrics with the same labelset");
}
