//! One bucket for us and for a real Thanos: it reads and approves what our compactor made, we serve and compact what its tools and its
//! compactor made, and both say the same of it.
//!
//! Optional: runs when `CHRONOLITH_THANOS` names a `thanos` binary (docs/operating/thanos.md).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chronolith_e2e::{Answer, Thanos, assert_same, thanos_binary};
use chronolith_promises::{Archive, Group};
use chronolith_testkit::{http, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// Thanos asks for the region where it is not told.
fn objstore(archive: &Archive) -> String {
    let path = archive.dir().join("objstore-thanos.yml");
    std::fs::write(&path, format!("{}  region: us-east-1\n", archive.s3.config_yaml())).unwrap();
    format!("--objstore.config-file={}", path.display())
}

/// Runs a command of Thanos's to its end and gives what it logs.
fn thanos(binary: &Path, args: &[String]) -> String {
    let out = Command::new(binary).args(args).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{args:?}: {}\n{text}", out.status);
    text
}

/// `thanos tools bucket verify` finds nothing to say of any block.
fn verify(binary: &Path, archive: &Archive) {
    let args = ["tools", "bucket", "verify", "--issues=overlapped_blocks", "--issues=index_known_issues"];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.push(objstore(archive));
    let said = thanos(binary, &args);
    assert!(said.contains("verify task completed"), "{said}");
    let complaints: Vec<&str> =
        said.lines().filter(|l| l.contains("level=warn") || l.contains("level=error")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn groups() -> [Group; 3] {
    let replicas = Group { replicas: 2, ..Group::new("b", 6) };
    [Group::new("a", 26), replicas, Group::new("c", 1)]
}

const QUERIES: [&str; 9] = [
    "promises_block",
    "sum by (group) (promises_block)",
    "rate(promises_block[1h])",
    "increase(promises_block[3h])",
    "count_over_time(promises_block[6h])",
    "avg_over_time(promises_block{group=\"a\"}[2h])",
    "max_over_time(promises_block{n=\"1\"}[90m])",
    "min_over_time(promises_block[1h]) + on (group, n) sum_over_time(promises_block[1h])",
    "count({__name__=~\".+\"})",
];

/// Queriers of both over stores of both say the same, at every resolution.
fn compare(binary: &Path, archive: &Archive, last_ms: i64) {
    let data = format!("--data-dir={}", archive.dir().join("their-store").display());
    let store = Thanos::start(binary, "store", &[data, objstore(archive)]);
    let args = [format!("--endpoint={}", store.grpc), "--query.replica-label=replica".to_owned()];
    let querier = Thanos::start(binary, "query", &args);
    let last = last_ms / 1000;
    let ours = |path: &str| {
        let answer = Answer::of(&archive.querier.get(path));
        assert!(answer.body["warnings"].is_null(), "{path}: {}", answer.body);
        answer.points(&[])
    };
    wait_until("Thanos's querier to find its store", PATIENCE, || {
        let found = querier.get(&format!("/api/v1/query?query=promises_block&time={last}"));
        (!found.points(&[]).is_empty()).then_some(())
    });
    let (mut compared, mut different) = (0, Vec::new());
    for resolution in ["0s", "5m", "1h"] {
        for query in QUERIES {
            // Thanos counts windows and averages averages, we count and average samples (docs/operating/downsampling.md).
            let ours_are_exact = ["count_over_time", "avg_over_time"];
            if resolution != "0s" && ours_are_exact.iter().any(|f| query.starts_with(f)) {
                continue;
            }
            // We look back over 72 minutes at 1 h, Thanos over 60.
            let query = format!(
                "query={}&max_source_resolution={resolution}&lookback_delta=65m",
                http::encode(query)
            );
            for path in [
                format!("/api/v1/query?{query}&time={}", last - 5 * 3600),
                format!("/api/v1/query_range?{query}&start={}&end={last}&step=600", last - 50 * 3600),
            ] {
                let theirs = querier.get(&path).points(&[]);
                assert!(!theirs.is_empty(), "{path}: Thanos found nothing");
                let ours = ours(&path);
                let same = std::panic::catch_unwind(|| assert_same(&path, &ours, &theirs));
                different.extend(same.err().map(|_| path));
                compared += 1;
            }
        }
    }
    assert!(different.is_empty(), "{different:#?}");
    // Every raw sample, one by one.
    let path = format!("/api/v1/query?query={}&time={last}", http::encode("promises_block[3d]"));
    assert_eq!(ours(&path), querier.get(&path).points(&[]));
    eprintln!("{compared} queries");
}

#[test]
fn thanos_approves_and_serves_what_our_compactor_made() {
    let Some(binary) = thanos_binary() else { return };
    let archive = Archive::start("thanos-reads");
    for group in groups() {
        archive.add(&group);
    }
    archive.assert_settled();
    let keys = archive.s3.keys();
    for own in ["chronolith/bucket-index.json.gz", "chronolith/leases/"] {
        assert!(keys.iter().any(|k| k.starts_with(own)), "{own} is there, for Thanos to ignore");
    }
    let resolutions =
        archive.blocks().into_values().map(|m| m["thanos"]["downsample"]["resolution"].as_i64());
    assert!(resolutions.flatten().any(|r| r == 300_000), "there is a downsampled block");
    verify(&binary, &archive);
    compare(&binary, &archive, groups()[0].last_ms());
    // Its compactor finds nothing wrong, either, and leaves what is in order as it is.
    their_compactor(&binary, &archive);
    assert_eq!(archive.s3.keys(), keys);
    archive.stop();
}

fn their_compactor(binary: &Path, archive: &Archive) {
    let args = [
        "compact".to_owned(),
        format!("--data-dir={}", archive.dir().join("their-compactor").display()),
        format!("--http-address=127.0.0.1:{}", chronolith_testkit::free_port()),
        "--consistency-delay=0s".to_owned(),
        "--delete-delay=0s".to_owned(),
        "--deduplication.replica-label=replica".to_owned(),
        objstore(archive),
    ];
    thanos(binary, &args);
}

#[test]
fn we_serve_and_compact_what_thanos_made() {
    let Some(binary) = thanos_binary() else { return };
    let archive = Archive::start("thanos-writes");
    let upload = |group: &Group| {
        let made = archive.make(group);
        for (path, labels) in &made.parts {
            let args = ["tools", "bucket", "upload-blocks"].map(str::to_owned).into_iter();
            let args = args.chain([format!("--path={}", path.display()), objstore(&archive)]);
            thanos(&binary, &args.chain(labels.iter().cloned()).collect::<Vec<_>>());
        }
        archive.expect(group);
        archive.wait_complete();
    };
    groups().iter().for_each(upload);
    // Its compactor goes first: two days become one block with five-minute aggregates.
    their_compactor(&binary, &archive);
    archive.wait_complete();
    compare(&binary, &archive, groups()[0].last_ms());
    // Then there is more, and ours goes on from there.
    upload(&Group { name: "d".to_owned(), ..groups()[1].clone() });
    archive.assert_settled();
    verify(&binary, &archive);
    compare(&binary, &archive, groups()[0].last_ms());
    archive.stop();
}
