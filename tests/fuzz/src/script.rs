//! The reader of PromQL scripts.

use chronolith_promql::script::check_script;

pub(crate) const WORDS: &[&str] = &[
    "load 1m\n  ",
    "load_with_nhcb 5m\n  ",
    "eval instant at 5m ",
    "eval range from 0 to 10m step 1m ",
    "clear\n",
    "\n\n",
    "\n",
    "expect fail",
    "expect warn regex: a.*",
    "expect ordered",
    "expect range vector from 0 to 5m step 1m",
    "expect string \"a\"",
    "eval_fail instant at 0 ",
    "m{a=\"b\"} ",
    "m_bucket{le=\"0.1\"} ",
    "m_bucket{le=\"+Inf\"} ",
    "m_count ",
    "m_sum ",
    "0+1x10",
    "1x1000000",
    "_x3",
    "stale",
    "NaN",
    "-Inf",
    "m@st -1m _x3 0+1mx2",
    "99999999999y",
    "# a\n",
    "{{schema:1 sum:2 count:3 z_bucket:1 buckets:[1 2] offset:-3 n_buckets:[1] custom_values:[1 2] counter_reset_hint:gauge}}",
    "+{{count:1}}x3",
    "offset:2147483647",
    "schema:-53",
];

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = check_script(text);
}
