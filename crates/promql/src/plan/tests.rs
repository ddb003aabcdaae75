use super::*;
use crate::parser::{ParseOptions, parse};

pub(super) fn plan(query: &str) -> Plan {
    plan_by_function(query, false)
}

fn plan_by_function(query: &str, by_function: bool) -> Plan {
    let times = PlanTimes {
        by_function,
        start: 1_000_000,
        end: 2_000_000,
        step_ms: 10_000,
        lookback_ms: 300_000,
        subquery_step_ms: 60_000,
    };
    Plan::new(parse(query, &ParseOptions::ALL).unwrap(), times).unwrap()
}

/// Texts of the nodes that a side table marks.
fn marked(plan: &Plan, table: &[bool]) -> Vec<String> {
    plan.ast.ids().filter(|id| table[id.index()]).map(|id| plan.ast.to_text(id)).collect()
}

#[test]
fn constants_and_context_functions_fold() {
    for (query, value) in
        [("1 + 2 * (3 - -1)", 9.0), ("end() - start()", 1000.0), ("step()", 10.0), ("-(2 ^ 2)", -4.0)]
    {
        let plan = plan(query);
        assert!(
            matches!(plan.ast.kind(plan.ast.root()), NodeKind::Number { value: v, .. } if *v == value),
            "{query}"
        );
    }
}

#[test]
fn invariant_parts_are_found_at_their_top() {
    let p = plan("rate(a[5m] @ 10) + sum(b)");
    assert_eq!(marked(&p, &p.once), ["rate(a[5m] @ 10.000)"]);
    let p = plan("sum(a @ end()) + 1");
    assert!(p.once[p.ast.root().index()]);
    // The evaluation time shows through.
    let p = plan("predict_linear(a[5m] @ 10, 60)");
    assert_eq!(marked(&p, &p.once), Vec::<String>::new());
    let p = plan("max_over_time(vector(1)[5m:1m])");
    assert_eq!(marked(&p, &p.once), ["vector(1)"]);
}

#[test]
fn what_is_read_at_one_time_wants_the_newest_sample_only() {
    for (query, newest_only) in [
        ("a", false),
        ("a @ 1500", true),
        ("a @ 1500 offset 1m", true),
        ("rate(a[5m] @ 1500)", false),
        ("a @ 1500 smoothed", false),
        // One read for both.
        ("a @ 1500 + a @ 1500", true),
        ("a @ 1500 + a @ 1490", false),
        ("a @ 1500 + rate(a[5m] @ 1500)", false),
        ("max_over_time(a[5m:1m] @ 1500)", false),
        ("max_over_time((a @ 1500)[5m:1m])", true),
    ] {
        let plan = plan(query);
        assert_eq!(plan.sources.len(), 1, "{query}");
        assert_eq!(plan.sources[0].hints.newest_only, newest_only, "{query}");
    }
}

#[test]
fn names_that_nobody_looks_at_stay() {
    let p = plan("sum by (x) (rate(a[5m]))");
    assert_eq!(marked(&p, &p.name_unused), ["rate(a[5m])"]);
    let p = plan("sum by (x) (-(clamp_min(rate(a[5m]), 1) * 8))");
    let want = ["rate(a[5m])", "clamp_min(rate(a[5m]), 1)"];
    assert!(want.iter().all(|w| marked(&p, &p.name_unused).iter().any(|m| m == w)));
    // `rate` says something about the names that it sees.
    let p = plan("sum by (x) (rate(abs(a)[5m:1m]))");
    assert_eq!(marked(&p, &p.name_unused), ["rate(abs(a)[5m:1m])"]);
    for query in [
        "sum by (__name__) (rate(a[5m]))",
        "sum without (x) (rate(a[5m]))",
        "sum by (x) (rate({x=\"y\"}[5m]))",
        "topk by (x) (1, rate(a[5m]))",
        // Two of these may become equal, which is an error.
        "sum by (x) (1 + {x=\"y\"})",
        "count(-{x=\"y\"})",
        "count(abs({x=\"y\"}))",
    ] {
        let p = plan(query);
        assert_eq!(marked(&p, &p.name_unused), Vec::<String>::new(), "{query}");
    }
}

#[test]
fn selectors_of_the_same_series_share_a_read() {
    let p = plan("rate(a[5m]) / rate(a[10m])");
    assert_eq!(p.sources.len(), 1);
    assert_eq!((p.sources[0].range.mint, p.sources[0].range.maxt), (400_001, 2_000_000));
    assert_eq!(plan("sum(a) + sum(a{x=\"1\"})").sources.len(), 2);
    assert_eq!(plan("a + a{x=\"1\"}").sources.len(), 1, "both sides read the same after all");
    assert_eq!(plan("a + a offset 1w").sources.len(), 2, "reading what lies between costs more");
}

#[test]
fn downsampled_data_is_read_once_for_each_function() {
    let functions = |query: &str| {
        let p = plan_by_function(query, true);
        p.sources.iter().map(|s| s.hints.func.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(functions("rate(a[5m]) / rate(a[5m] offset 1m)"), ["rate"]);
    assert_eq!(functions("max_over_time(a[5m]) - min_over_time(a[5m])").len(), 2);
    assert_eq!(functions("rate(a[5m]) / rate(a[10m])").len(), 2, "they may be read in different resolutions");
    assert_eq!(functions("min(a) + a").len(), 2);
    // The least of what is negated is the largest, negated.
    assert_eq!(functions("min(-a)"), [""]);
}

#[test]
fn reads_cover_what_subqueries_look_at() {
    let p = plan("sum by (x) (max_over_time(a[10m:1m] offset 1m))");
    let source = &p.sources[0];
    // One minute of offset, ten of range and five of lookback before the start, open on the left.
    assert_eq!((source.range.mint, source.range.maxt), (1_000_000 - 16 * 60_000 + 1, 2_000_000 - 60_000));
    assert_eq!((source.hints.step_ms, source.hints.func.as_deref()), (60_000, Some("max_over_time")));
    let p = plan("sum by (x) (a @ 100)");
    assert_eq!((p.sources[0].range.mint, p.sources[0].range.maxt), (-199_999, 100_000));
    assert_eq!(
        (p.sources[0].hints.by, p.sources[0].hints.grouping.as_slice()),
        (true, &["x".to_owned()][..])
    );
}

#[test]
fn buckets_are_left_out_where_statistics_are_enough() {
    let of = |query: &str| {
        let p = plan(query);
        p.ast
            .ids()
            .any(|id| p.statistics_only[id.index()] && matches!(p.ast.kind(id), NodeKind::VectorSelector(_)))
    };
    assert!(of("histogram_count(sum(a))") && of("histogram_avg(rate(a[5m]))"));
    assert!(!of("a") && !of("histogram_quantile(0.9, histogram_sum(a))"));
    assert!(!of("histogram_count(increase(a[5m:1m]))") && !of("histogram_count(a </ 2)"));
}
