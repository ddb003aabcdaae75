//! The engine, by scripts: whatever is loaded and asked, there is an answer or an error, within the query's bounds.

use std::time::{Duration, Instant};

use chronolith_promql::script::{MemoryStorage, run_script, script_options};
use chronolith_promql::{Engine, EngineOptions};

pub(crate) const WORDS: &[&str] = &[
    "sum",
    "avg",
    "topk(1, m)",
    "quantile(0.5, m)",
    "count_values(\"v\", m)",
    "limitk(1, m)",
    "rate(m[5m])",
    "m[10m:1m]",
    "increase(h[10m])",
    "histogram_quantile(0.9, h)",
    "histogram_fraction(0, 1, h)",
    "label_replace(m, \"a\", \"$1\", \"b\", \"(.*)\")",
    " by (a) ",
    " without (b) ",
    " on (a) group_left ",
    " and ",
    " unless ",
    " + ",
    " / ",
    " ^ ",
    " % ",
    " bool ",
    " == ",
    " offset 1m",
    " @ 60",
    " @ end()",
    "h",
    "m",
    "{a=\"1\"}",
    "-1",
    "0",
    "NaN",
    "Inf",
    "1e300",
    "9e18",
    "predict_linear(m[5m], 1e300)",
    "instant at 1e9m",
    "range from 0 to 10m step 1ms",
    "0x7fffffffffffffff",
    "292y",
    "sort_by_label(m, \"a\")",
    "absent(m)",
    "</",
    ">/",
    " fill(0) ",
    "smoothed",
    "anchored",
    "info(m)",
    "clamp(m, 1, 0)",
    "round(m, 0)",
    "day_of_year(m)",
    "vector(1)",
];

/// A query of a fuzzer may ask for anything, so it gets little.
const SAMPLES_MAX: usize = 2_000;
const TIMEOUT: Duration = Duration::from_secs(1);
/// What a whole script may take, debug builds and sanitised ones included. Each evaluation is run a dozen times.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(data: &[u8]) {
    // Longer scripts are more of the same.
    let Some(text) = std::str::from_utf8(data).ok().filter(|t| t.len() <= 2_000) else { return };
    let options = EngineOptions { samples_max: SAMPLES_MAX, timeout: TIMEOUT, ..script_options() };
    let started = Instant::now();
    let _ = run_script(text, &Engine::new(options), &|| Box::new(MemoryStorage::new()));
    assert!(started.elapsed() < PATIENCE, "took {:?}", started.elapsed());
}
