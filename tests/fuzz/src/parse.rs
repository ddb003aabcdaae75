//! The PromQL lexer and parser: what parses prints to the same tree, and errors point into the text.

use chronolith_promql::parser::{
    ParseOptions, parse, parse_metric, parse_selector, parse_series_description, parse_start_timestamps,
};

pub(crate) const WORDS: &[&str] = &[
    "foo",
    "sum by (a) ",
    "topk(3, ",
    "rate(",
    "absent(",
    "info(",
    "time()",
    "(",
    ")",
    "{",
    "}",
    "[5m]",
    "[1h:5m]",
    "[5m:]",
    ",",
    ":",
    " @ 10 ",
    " @ start() ",
    " offset 5m ",
    " offset -(1h/2) ",
    " anchored",
    " smoothed",
    " and ",
    " or ",
    " unless on(a) ",
    " bool ",
    " ignoring(a) group_left(b) ",
    " fill_left(1) ",
    "==",
    "=~",
    "!~",
    "</",
    ">/",
    "^",
    "-",
    "step()",
    "range()",
    "min_of(1s, 2s)",
    "1e400",
    "0x1f",
    "NaN",
    "Inf",
    "99999999999y",
    "\"a\\xff\"",
    "`c`",
    "'b'",
    "{{schema:1 sum:2}}",
    "_x3",
    "0+1x5",
    "stale",
    "#c\n",
    "\u{e9}",
    "__name__=\"a\"",
    "{\"a.b\", c=\"d\"}",
];

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = parse_selector(text);
    let _ = parse_metric(text);
    let _ = parse_series_description(text);
    let _ = parse_start_timestamps(text);
    let plain = parse(text, &ParseOptions::default());
    match parse(text, &ParseOptions::ALL) {
        Ok(mut ast) => {
            let _ = ast.to_json();
            for printed in [ast.to_string(), ast.pretty()] {
                let again = parse(&printed, &ParseOptions::ALL)
                    .unwrap_or_else(|e| panic!("{text:?} prints as {printed:?}: {e}"));
                // Upstream prints the literal `Inf` with its sign; before `^` that reads as a unary plus over the power.
                let dense: String = printed.split_whitespace().collect();
                assert!(
                    dense.contains("+Inf^") || ast.same_tree(&again),
                    "{text:?} prints as {printed:?}, another tree"
                );
            }
            let _ = ast.resolve_durations(15_000, 3_600_000);
            let _ = ast.resolve_durations(0, 0);
        }
        Err(errors) => {
            assert!(plain.is_err(), "{text:?} parses with fewer options only");
            let error = errors.first().expect("at least one error");
            assert!(error.span.start as usize <= text.len(), "{text:?}: {error}");
            let _ = errors.to_string();
        }
    }
}
