//! `chronolith-bench years` over eleven days of one host: blocks of all resolutions behind an S3 server, a store and a querier.
//!
//! The command itself fails when an answer is empty or differs between cold and warm; what is checked here is what it counts.

use std::process::Command;

use chronolith_testkit::chronolith_binary;

/// Two hours behind a border of blocks of 14 d: one long block, of every resolution, and one of two hours.
const END_S: i64 = 1_467 * 14 * 86_400 + 7_200;

/// The figures of a cell: milliseconds, CPU, requests, KiB.
fn requests(cell: &str) -> f64 {
    cell.split(" / ").nth(2).expect("a cell has four figures").trim().parse().expect("a number")
}

#[test]
fn queries_over_years_of_blocks_cost_few_requests() {
    let out = Command::new(env!("CARGO_BIN_EXE_chronolith-bench"))
        .args(["years", "--days=11", "--series=1000", "--interval=300", "--repeat=1", "--dashboards=2"])
        .arg(format!("--end={END_S}"))
        .arg(format!("--chronolith={}", chronolith_binary().display()))
        .output()
        .expect("the program starts");
    let (text, err) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{text}\n{err}");
    let row = |title: &str| -> Vec<&str> {
        let line = text.lines().find(|l| l.starts_with(&format!("| {title}")));
        line.unwrap_or_else(|| panic!("no row {title}: {text}")).split('|').map(str::trim).skip(2).collect()
    };
    for (resolution, blocks, million_samples) in
        [("raw", "2", "3.17"), ("300 s", "1", "3.14"), ("3600 s", "1", "0.264")]
    {
        assert_eq!(row(resolution)[..2], [blocks, million_samples], "{resolution}");
    }
    // Two blocks: one request for each index header, as the indexes are small, then postings, series and chunks; one for deletions.
    let one = row("rate of one series");
    assert!(requests(one[0]) <= 2.0 * 4.0 + 1.0, "{one:?}");
    assert!(requests(one[1]) <= 2.0 * 3.0 + 1.0, "{one:?}");
    assert!(requests(one[2]) <= 2.0, "{one:?}");
    assert_eq!(requests(row("label values")[2]), 0.0, "index headers tell");
    assert_eq!(row("store, idle, anonymous MiB").len(), 2, "one column and the end");
}
