//! Samples are counted as upstream counts them; the numbers are those of upstream's engine.

use super::*;
use crate::script::MemoryStorage;
use chronolith_model::histogram::Span;
use chronolith_model::{FloatHistogram, Labels};

/// A sample every 10 seconds up to 1000 s: one series `one`, three series `three`, a histogram that counts 13.
fn storage() -> MemoryStorage {
    let mut storage = MemoryStorage::new();
    let labels = |pairs: &[(&'static str, &'static str)]| Labels::from_pairs(pairs.to_vec()).expect("unique");
    for labels in [
        labels(&[("__name__", "one")]),
        labels(&[("__name__", "three"), ("a", "1"), ("b", "1")]),
        labels(&[("__name__", "three"), ("a", "2"), ("b", "2")]),
        labels(&[("__name__", "three"), ("a", "3"), ("b", "2")]),
    ] {
        for i in 0..=100 {
            storage.append_float(&labels, i * 10_000, (i + 1) as f64, 0).expect("times ascend");
        }
    }
    for i in 0..=100 {
        let h = FloatHistogram {
            schema: 1,
            count: 5.0,
            sum: 20.0,
            positive_spans: vec![Span { offset: 0, length: 4 }],
            positive_buckets: vec![1.0, 2.0, 1.0, 1.0],
            ..FloatHistogram::default()
        };
        storage.append_histogram(&labels(&[("__name__", "hist")]), i * 10_000, h, 0).expect("times ascend");
    }
    storage
}

/// Query, start, end and step in seconds, samples loaded and read by step.
type Case = (&'static str, [i64; 3], &'static [u64], &'static [u64]);

#[test]
fn samples_are_counted_as_upstream_does() {
    let cases: &[Case] = &[
        ("1", [21, 21, 0], &[0], &[0]),
        ("one", [21, 21, 0], &[1], &[1]),
        ("hist", [21, 21, 0], &[13], &[13]),
        ("timestamp(hist)", [21, 21, 0], &[1], &[1]),
        ("one @ 15", [21, 21, 0], &[1], &[1]),
        ("three{a=\"1\"}[20s] @ 19", [21, 21, 0], &[2], &[2]),
        ("one[60s]", [201, 201, 0], &[6], &[6]),
        ("hist[60s]", [201, 201, 0], &[78], &[78]),
        ("max_over_time(one[60s])[20s:5s]", [201, 201, 0], &[24], &[8]),
        ("max_over_time(one[61s])[20s:5s]", [201, 201, 0], &[26], &[8]),
        ("max_over_time(hist[60s])[20s:5s]", [201, 201, 0], &[312], &[104]),
        ("one[60s] @ 30", [201, 201, 0], &[4], &[4]),
        ("sum by (b) (max_over_time(three[60s] @ 30))", [201, 201, 0], &[12], &[12]),
        ("absent_over_time(one[60s])", [201, 201, 0], &[6], &[6]),
        ("one[60s:5s] offset 10s", [201, 201, 0], &[12], &[12]),
        ("max_over_time(three[60s:5s])", [201, 201, 0], &[36], &[36]),
        (
            "sum(max_over_time(three[60s:5s])) + sum(max_over_time(three[60s:5s]))",
            [201, 201, 0],
            &[72],
            &[72],
        ),
        ("sum_over_time(one[30s:30s])", [90, 90, 0], &[1], &[1]),
        ("histogram_count(max_over_time(hist[20s:10s]))", [201, 201, 0], &[26], &[26]),
        ("sum_over_time(three[1m:10s] @ 200 offset 1m)", [300, 300, 0], &[18], &[18]),
        ("sum_over_time(max_over_time(three[60s] @ 300)[5m:1m] @ 600)[10m:2m]", [800, 800, 0], &[75], &[18]),
        ("rate(sum_over_time(one[30s])[1m:30s])", [240, 240, 0], &[2], &[6]),
        ("three{a=\"1\"}", [204, 223, 5], &[1; 4], &[1; 4]),
        ("hist", [204, 223, 5], &[13; 4], &[13; 4]),
        ("max_over_time(three{a=\"1\"}[10s])", [991, 1021, 10], &[1, 1, 0, 0], &[1, 1, 0, 0]),
        ("max_over_time(three[60s] @ 30)", [201, 220, 5], &[12; 4], &[12, 0, 0, 0]),
        ("max_over_time(three[60s])", [201, 220, 5], &[18; 4], &[18, 0, 3, 0]),
        ("max_over_time(three[60s:5s])", [201, 220, 5], &[36; 4], &[36, 3, 3, 3]),
        ("sum by (b) (max_over_time(one[60s:5s]))", [201, 216, 5], &[12; 4], &[12, 1, 1, 1]),
        ("max_over_time(one[30s:10s])", [201, 231, 30], &[3; 2], &[3; 2]),
        ("max_over_time(one[20s:10s])", [201, 261, 10], &[2; 7], &[2, 1, 1, 1, 1, 1, 1]),
        ("max_over_time(one[30s:10s])", [201, 261, 60], &[3; 2], &[3; 2]),
        ("avg_over_time(hist[2m:1m])", [120, 240, 60], &[26; 3], &[26, 13, 13]),
        ("max_over_time(three[60s:10s])", [200, 400, 30], &[18; 7], &[18, 9, 9, 9, 9, 9, 9]),
        ("predict_linear(one[60s] @ 100, 60)", [100, 300, 100], &[6; 3], &[6, 0, 0]),
    ];
    let storage = storage();
    let counting = Engine::new(EngineOptions { step_stats: true, ..EngineOptions::default() });
    for (query, [start, end, step], total, read) in cases {
        let run = |engine: &Engine, cx: &QueryContext| {
            let result = match step {
                0 => engine.instant(&storage, query, start * 1000, cx),
                _ => engine.range(&storage, query, start * 1000, end * 1000, step * 1000, cx),
            };
            result.unwrap_or_else(|e| panic!("{query}: {e}"))
        };
        let result = run(&counting, &QueryContext::new().counting_steps());
        let steps = result.steps.expect("it was asked for");
        assert_eq!((&steps.total[..], &steps.read[..]), (*total, *read), "{query} {start} {end}");
        let sums = (total.iter().sum::<u64>(), read.iter().sum::<u64>());
        assert_eq!((result.stats.samples_total, result.stats.samples_read), sums, "{query}");
        let result = run(&Engine::default(), &QueryContext::new().counting_steps());
        assert!(result.steps.is_none(), "the engine is not set to");
        assert_eq!((result.stats.samples_total, result.stats.samples_read), sums, "{query}");
    }
}

#[test]
fn the_peak_is_upstreams_where_nothing_is_folded_and_it_is_what_the_budget_refuses() {
    for (query, [start, end, step], peak) in [
        ("1", [21, 21, 0], 1),
        ("one", [21, 21, 0], 1),
        ("hist", [21, 21, 0], 13),
        ("three", [21, 21, 0], 3),
        ("one[60s]", [201, 201, 0], 6),
        ("hist[60s]", [201, 201, 0], 78),
        ("one[60s:5s]", [201, 201, 0], 12),
        ("three", [201, 220, 5], 12),
        ("hist", [204, 223, 5], 52),
    ] {
        let run = |samples_max| {
            let engine = Engine::new(EngineOptions { samples_max, ..EngineOptions::default() });
            let cx = QueryContext::new();
            match step {
                0 => engine.instant(&storage(), query, start * 1000, &cx),
                _ => engine.range(&storage(), query, start * 1000, end * 1000, step * 1000, &cx),
            }
        };
        assert_eq!(run(1000).unwrap().stats.samples_peak, peak, "{query}");
        assert!(run(peak as usize).is_ok(), "{query}");
        assert!(matches!(run(peak as usize - 1), Err(EngineError::TooManySamples)), "{query}");
    }
}

#[test]
fn a_single_series_does_not_keep_a_cancelled_query_going() {
    let mut storage = MemoryStorage::new();
    let labels = Labels::from_pairs([("__name__", "long")]).expect("one label");
    for i in 0..40_000 {
        storage.append_float(&labels, i * 15_000, (i * 7919 % 1000) as f64, 0).expect("times ascend");
    }
    let cx = QueryContext::new();
    let cancel = cx.clone();
    let started = Instant::now();
    std::thread::scope(|scope| {
        // Not one of the functions that slide: every window is folded anew.
        let query = "deriv(long[6d])";
        let running = scope
            .spawn(|| Engine::default().range(&storage, query, 0, 600_000_000, 60_000, &cx).unwrap_err());
        std::thread::park_timeout(Duration::from_millis(200));
        let asked = Instant::now();
        cancel.cancel();
        assert_eq!(running.join().expect("no panic").kind(), EngineErrorKind::Cancelled);
        // A debug build on a busy machine; in a release build it is some 20 ms.
        assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    });
    assert!(started.elapsed() > Duration::from_millis(200));
}
