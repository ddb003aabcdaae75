//! `examples/cluster` starts with one command, prints a query, and the query has an answer.

use std::path::Path;
use std::time::Duration;

use chronolith_promises::Scratch;
use chronolith_testkit::{Answer, Process, chronolith_binary, free_port, http, wait_until};

const PATIENCE: Duration = Duration::from_secs(120);

/// The flags of files under `deploy` and `examples` exist.
#[test]
fn deployments_use_flags_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let flags = std::fs::read_to_string(root.join("docs/operating/flags.md")).unwrap();
    for file in ["deploy/compose/cluster.yml", "deploy/kubernetes/cluster.yaml", "examples/cluster/run.sh"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        // Prometheus's own begin the lines behind its name.
        let ours = text.lines().filter(|l| !l.contains("PROMETHEUS") && !l.contains("storage.agent"));
        let words = ours.flat_map(|l| l.split(|c: char| c.is_whitespace() || c == '"' || c == ','));
        let used: Vec<&str> = words
            .filter_map(|w| w.strip_prefix("--"))
            .filter_map(|w| w.split('=').next())
            .filter(|w| *w != "-")
            .collect();
        assert!(used.len() > 10, "{file}: {used:?}");
        for flag in used.into_iter().filter(|f| *f != "ignore-existing") {
            assert!(flags.contains(&format!("--{flag}")), "{file}: --{flag}");
        }
    }
}

#[test]
fn the_example_answers_its_query() {
    let dir = Scratch::new("example");
    let binary = chronolith_binary();
    // Eighty ports in a row; the first is free, and so most likely are the others.
    let base = free_port();
    let mut example =
        Process::builder(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/cluster/run.sh"))
            .env("CHRONOLITH", &binary)
            .env("S3_DEV", binary.with_file_name("s3-dev"))
            .env("BASE_PORT", base.to_string())
            .env("DATA", dir.join("data"))
            .log_file(dir.join("example.log"))
            .spawn();
    let url = wait_until("the query to try", PATIENCE, || {
        let line = example.log_lines().into_iter().find(|l| l.starts_with("Try:"))?;
        Some(line.split('\'').nth(1).expect("a quoted URL").to_owned())
    });
    // An agent scrapes three receivers, two store gateways and two queriers.
    wait_until("all of it to be up", PATIENCE, || {
        let reply = http::get(&url).ok()?;
        let mut up: Vec<_> = Answer::of(&reply).points(&[]).into_values().map(|p| p[0].1).collect();
        up.sort_by(f64::total_cmp);
        (up == [2.0, 2.0, 3.0]).then_some(())
    });
    // Whoever started it stops it, and nothing is left.
    example.terminate(PATIENCE);
    assert!(http::get(&url).is_err(), "the querier has gone");
}
