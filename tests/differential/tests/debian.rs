//! A few hundred random queries against Debian's Prometheus 2.42, the same ones at every run.

use std::path::PathBuf;

use chronolith_differential::run::{Settings, Storage, run};
use chronolith_differential::servers::chronolith_binary;

fn check(storage: Storage, seed: u64, queries: u64) {
    let settings = Settings {
        prometheus: PathBuf::from("prometheus"),
        chronolith: chronolith_binary().unwrap(),
        features: Vec::new(),
        native: false,
        storage,
        seed,
        numbers: 0..queries,
        divergences_max: 5,
    };
    let report = run(&settings, &mut |_| {}).unwrap();
    assert!(report.divergences.is_empty() && report.log_errors.is_empty(), "{report}");
    // The check is worth something only while most queries find something.
    assert!(report.with_data as u64 > queries / 2, "{report}");
}

#[test]
fn random_queries_over_the_head_answer_as_debian_s_prometheus() {
    check(Storage::Head, 1, 600);
}

#[test]
fn random_queries_over_a_bucket_answer_as_debian_s_prometheus() {
    check(Storage::Bucket, 2, 300);
}
