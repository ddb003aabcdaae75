//! A few hundred random queries against Debian's Prometheus 2.42, the same ones at every run.

use std::path::PathBuf;

use chronolith_differential::run::{Settings, run};
use chronolith_differential::servers::chronolith_binary;

#[test]
fn random_queries_answer_as_debian_s_prometheus() {
    let settings = Settings {
        prometheus: PathBuf::from("prometheus"),
        chronolith: chronolith_binary().unwrap(),
        features: Vec::new(),
        native: false,
        seed: 1,
        numbers: 0..600,
        divergences_max: 5,
    };
    let report = run(&settings, &mut |_| {}).unwrap();
    assert!(report.divergences.is_empty() && report.log_errors.is_empty(), "{report}");
    // The check is worth something only while most queries find something.
    assert!(report.with_data > 300, "{report}");
}
