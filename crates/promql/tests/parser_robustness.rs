//! No text makes the parser panic, overflow a worker's stack or take long; what it accepts it can print and read again.

use std::time::{Duration, Instant};

use chronolith_promql::parser::{
    ParseOptions, parse, parse_metric, parse_selector, parse_series_description, parse_start_timestamps,
};
use proptest::prelude::*;

/// Parses with all options; what parses must print to the same tree.
fn exercise(text: &str) {
    let _ = parse_selector(text);
    let _ = parse_metric(text);
    let _ = parse_series_description(text);
    let _ = parse_start_timestamps(text);
    let _ = parse(text, &ParseOptions::default());
    match parse(text, &ParseOptions::ALL) {
        Ok(mut ast) => {
            for printed in [ast.to_string(), ast.pretty()] {
                let again = parse(&printed, &ParseOptions::ALL)
                    .unwrap_or_else(|e| panic!("{text:?} prints as {printed:?}: {e}"));
                // Upstream prints the literal `Inf` with its sign; before `^` that reads as a unary plus over the power,
                // another tree of the same value.
                let dense: String = printed.split_whitespace().collect();
                let signed_base = dense.contains("+Inf^");
                assert!(signed_base || ast.same_tree(&again), "{text:?} prints as {printed:?}");
            }
            let _ = ast.resolve_durations(15_000, 3_600_000);
            let _ = ast.resolve_durations(0, 0);
        }
        Err(errors) => {
            let error = errors.first().expect("at least one error");
            assert!(error.span.start as usize <= text.len(), "{text:?}: {error}");
            let _ = errors.to_string();
        }
    }
}

/// Pieces that queries are made of, and some that they are not.
const PIECES: &[&str] = &[
    "foo",
    "bar",
    "sum",
    "topk",
    "rate",
    "abs",
    "info",
    "time",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "@",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "==",
    "!=",
    "=~",
    "!~",
    "<",
    "</",
    ">/",
    "and",
    "or",
    "unless",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "by",
    "without",
    "offset",
    "anchored",
    "smoothed",
    "fill",
    "fill_left(1)",
    "start()",
    "end()",
    "step()",
    "range()",
    "min_of(1,2)",
    "max_of",
    "1",
    "5m",
    "0",
    "1e3",
    "NaN",
    "Inf",
    "0x1f",
    "\"a\"",
    "'b'",
    "`c`",
    "\"\\xff\"",
    "a=\"b\"",
    "[5m]",
    "[5m:1m]",
    "(foo)",
    "x{a=\"b\"}",
    "#c\n",
    " ",
    "\n",
    "é",
    "\u{fffd}",
    "\\",
    "$",
    "1e400",
    "99999999999y",
    "{{schema:1}}",
    "_x3",
    "x5",
    "stale",
    "atan2",
    "5m5m",
    ".",
    "~",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn pieces(parts in proptest::collection::vec((0..PIECES.len(), any::<bool>()), 0..24)) {
        let mut text = String::new();
        for (piece, space) in parts {
            text.push_str(PIECES[piece]);
            if space {
                text.push(' ');
            }
        }
        exercise(&text);
    }

    #[test]
    fn any_text(text in any::<String>()) {
        exercise(&text);
    }

    #[test]
    fn mutations(cut in 0usize..400, at in 0usize..400, byte in any::<char>()) {
        let text = "sum by (a, b) (rate(x{a=~\"b.*\", c!=\"d\"}[5m] offset -(1h / 2))) / on (a) group_left (c) \
                    max_over_time(y[1h:step()] @ end()) > bool 0x1f and label_replace(z, \"a\", `\\d$1`, 'b', \"c\")";
        let mut chars: Vec<char> = text.chars().collect();
        let at = at % chars.len();
        chars[at] = byte;
        exercise(&chars.iter().collect::<String>());
        chars.truncate(cut);
        exercise(&chars.iter().collect::<String>());
    }
}

#[test]
fn extreme_durations_and_timestamps() {
    for text in [
        "foo[1e30]",
        "foo offset 1e30",
        "foo offset NaN",
        "foo[NaN]",
        "foo offset Inf",
        "foo[5m:1e30]",
        "foo @ 1e30",
        "foo @ NaN",
        "foo[9999999999y]",
        "foo offset -9223372036",
        "foo[2^2^2^2^2^2]",
    ] {
        exercise(text);
    }
    // Below a millisecond: upstream too takes it, and prints 0s.
    assert_eq!(parse("foo[1e-300]", &ParseOptions::ALL).unwrap().to_string(), "foo[0s]");
    let mut ast = parse("foo[2^2^2^2^2^2]", &ParseOptions::default()).unwrap();
    let error = ast.resolve_durations(0, 0).unwrap_err();
    assert_eq!(error, "4:15: duration is NaN or infinite");
}

/// Runs on the stack of a worker thread, and says how long it took.
fn on_small_stack(work: impl FnOnce() + Send + 'static) -> Duration {
    let start = Instant::now();
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
    start.elapsed()
}

#[test]
fn deep_nesting_is_a_clean_error() {
    on_small_stack(|| {
        for open in ["(", "abs(", "sum(", "-", "1 ^ ", "foo + on(a) (", "sum by (a) ("] {
            let text = open.repeat(200_000);
            let error = parse(&text, &ParseOptions::ALL).unwrap_err().to_string();
            assert!(error.contains("nested too deeply"), "{open}: {error}");
        }
        for (open, middle, close) in
            [("(", "x", ")"), ("abs(", "x", ")"), ("-", "x", ""), ("(1 + (2 * (", "x", ")))")]
        {
            let levels = 9_999 / open.matches(['(', '-']).count();
            exercise(&[open.repeat(levels), middle.to_owned(), close.repeat(levels)].concat());
        }
        for text in
            ["foo[".to_owned() + &"(".repeat(200_000), "foo[5m".to_owned() + &"+1m".repeat(100_000) + "]"]
        {
            assert!(parse(&text, &ParseOptions::ALL).is_err());
        }
    });
}

#[test]
fn long_queries_are_linear() {
    let took = on_small_stack(|| {
        for text in [
            format!("1{}", " + 1".repeat(250_000)),
            format!("foo{}", " or foo".repeat(150_000)),
            format!("foo{{{}}}", "a=\"b\",".repeat(150_000)),
            format!("sum by ({}) (x)", "a,".repeat(500_000)),
            format!("label_join(x{})", ", \"a\"".repeat(200_000)),
            format!("\"{}\"", "é".repeat(500_000)),
        ] {
            let ast = parse(&text, &ParseOptions::ALL).unwrap();
            assert!(ast.to_string().len() > 100_000);
            drop(ast);
        }
        let chain = format!("foo{}", " + foo".repeat(20_000));
        exercise(&chain);
    });
    // Seconds without optimisation on a busy machine; quadratic would be minutes.
    assert!(took < Duration::from_secs(60), "{took:?}");
}
