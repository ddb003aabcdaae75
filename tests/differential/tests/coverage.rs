//! The generator knows the language: every function and aggregator comes up, and most of what it writes is valid.

use chronolith_differential::data::Data;
use chronolith_differential::dialect::Dialect;
use chronolith_differential::generate::case;
use chronolith_promql::parser::{AggregateOp, FUNCTIONS, ParseOptions, parse};

#[test]
fn every_function_and_aggregator_is_asked_for() {
    let features =
        ["promql-experimental-functions", "promql-extended-range-selectors", "promql-binop-fill-modifiers"];
    let dialect =
        Dialect { version: Dialect::OURS, features: features.map(str::to_owned).to_vec(), native: true };
    let data = Data::new(&dialect, 1);
    let queries: Vec<String> = (0..20_000).map(|n| case(&dialect, &data, 1, n).expr.to_string()).collect();
    let names = FUNCTIONS.iter().map(|f| f.name).chain(AggregateOp::ALL.map(AggregateOp::as_str));
    let calls = |name: &str, q: &String| {
        q.match_indices(name).any(|(i, _)| {
            let before = q[..i].chars().next_back();
            let after = q[i + name.len()..].trim_start();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
                && (after.starts_with('(') || after.starts_with("by") || after.starts_with("without"))
        })
    };
    let missing: Vec<&str> = names.filter(|n| !queries.iter().any(|q| calls(n, q))).collect();
    assert!(missing.is_empty(), "never asked for: {missing:?}");
    let parsed = queries.iter().filter(|q| parse(q, &ParseOptions::ALL).is_ok()).count();
    assert!((17_000..20_000).contains(&parsed), "{parsed} of 20000 are valid");
}
