//! Series deleted by one process are masked by another one, raw and downsampled, and stay deleted once they have left the bytes.

use std::time::{Duration, Instant};

use chronolith_promises::{Archive, Group};
use chronolith_testkit::{Answer, http, wait_until};

/// What is promised: every query honours a request after it.
const PROMISE: Duration = Duration::from_secs(60);

/// Samples of each series in the last hours before `at_ms`, at a resolution; the answer where it is not complete.
fn asked(archive: &Archive, hours: i64, at_ms: i64, resolution: &str) -> Result<[f64; 2], String> {
    let query = format!("sum by (n) (count_over_time(promises_block[{hours}h]))");
    let path = format!(
        "/api/v1/query?query={}&time={}&max_source_resolution={resolution}",
        http::encode(&query),
        at_ms as f64 / 1000.0
    );
    let answer = Answer::of(&archive.querier.get(&path));
    if !answer.body["warnings"].is_null() {
        return Err(answer.body.to_string());
    }
    let points = answer.points(&[]);
    Ok(["0", "1"].map(|n| points.get(&vec![("n".to_owned(), n.to_owned())]).map_or(0.0, |p| p[0].1)))
}

fn counts(archive: &Archive, hours: i64, at_ms: i64, resolution: &str) -> [f64; 2] {
    asked(archive, hours, at_ms, resolution).unwrap_or_else(|answer| panic!("{answer}"))
}

#[test]
fn what_another_process_deletes_is_masked_within_a_minute() {
    let mut archive = Archive::start("deletion");
    // Two days become a block with five-minute aggregates; the last hours stay raw.
    let group = Group::new("a", 26);
    archive.add(&group);
    archive.compact_once("compactor");
    archive.compact_once("compactor");
    archive.wait_complete();
    let resolutions =
        archive.blocks().into_values().map(|m| m["thanos"]["downsample"]["resolution"].as_i64());
    assert!(resolutions.flatten().any(|r| r == 300_000), "there is a downsampled block");
    let last = group.last_ms();
    // Within the downsampled block: ten hours, of which the last five go.
    let (end, hour) = (last - 6 * 3_600_000 + 60_000, 60.0);
    let before = [10.0 * hour; 2];
    for resolution in ["0s", "5m"] {
        // A store may have answered out of its memory until now, from blocks that the compactor has deleted meanwhile.
        wait_until("the store to look again", PROMISE, || asked(&archive, 10, end, resolution).ok());
        assert_eq!(counts(&archive, 10, end, resolution), before, "{resolution}");
    }
    let rfc3339 = |ms: i64| jiff::Timestamp::from_millisecond(ms).expect("in range").to_string();
    let (from, until) = (rfc3339(end - 5 * 3_600_000 + 1), rfc3339(end));
    let delete = ["delete", "--match=promises_block{n=\"0\"}"];
    let began = Instant::now();
    archive.tool(&[delete[0], delete[1], &format!("--min-time={from}"), &format!("--max-time={until}")]);
    wait_until("the deletion to be seen", 2 * PROMISE, || {
        (counts(&archive, 10, end, "0s")[0] < before[0]).then_some(())
    });
    assert!(began.elapsed() < PROMISE, "a minute is promised, it took {:?}", began.elapsed());
    let masked = |archive: &Archive, resolution: &str| {
        assert_eq!(counts(archive, 10, end, resolution), [5.0 * hour, 10.0 * hour], "{resolution}");
        // Before and behind it nothing is missing.
        assert_eq!(counts(archive, 4, end - 5 * 3_600_000, resolution), [4.0 * hour; 2], "{resolution}");
        assert_eq!(counts(archive, 3, last, resolution), [3.0 * hour; 2], "{resolution}");
    };
    masked(&archive, "0s");
    masked(&archive, "5m");

    // Taken out of the bytes, it needs no request any more.
    let rewritten = archive.tool(&["rewrite", "--no-dry-run", "--delete-blocks"]);
    assert!(rewritten.contains("rewritten as"), "{rewritten}");
    archive.tool(&["cleanup", "--delete-delay=0s"]);
    let list: serde_json::Value =
        serde_json::from_str(&archive.tool(&["delete", "--list", "-o", "json"])).unwrap();
    archive.tool(&["delete", "--revoke", list[0]["id"].as_str().unwrap()]);
    archive.store.restart();
    archive.wait_store_seen();
    masked(&archive, "0s");
    masked(&archive, "5m");
    archive.tool(&["verify"]);
    archive.stop();
}
