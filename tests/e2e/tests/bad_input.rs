//! Bad input over real HTTP, and bad flags and files: the right status or exit code, a reason, and a server that goes on.

use std::fs;
use std::process::Command;

use chronolith_e2e::{Chronolith, TestSeries, chronolith_binary, write_body, write_request};
use chronolith_testkit::http;

const T0: i64 = 1_700_000_000_000;

fn series(labels: &[(&str, &str)]) -> TestSeries {
    TestSeries::new(labels, &[(T0, 1.0)])
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

#[test]
fn malformed_writes_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(dir.path(), &[]);
    let good = write_request(&[series(&[("__name__", "ok"), ("a", "b")])]);
    let huge = "x".repeat(10 << 20);
    // A declared length of 4 GiB − 1 in five bytes.
    let bomb = vec![0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0, 0];
    let cases: Vec<(&str, Vec<u8>, &[u16], &str)> = vec![
        ("not snappy", b"hello world, this is not snappy".to_vec(), &[400], "snappy"),
        ("a snappy bomb", bomb, &[400, 413], ""),
        ("truncated protobuf", snappy(&good[..good.len() - 5]), &[400], ""),
        ("random bytes", snappy(&[0xFF; 100]), &[400], ""),
        ("a 10 MB label", write_body(&[series(&[("__name__", "m"), ("a", &huge)])]), &[400], "label"),
        (
            "a double label",
            write_body(&[series(&[("__name__", "m"), ("a", "1"), ("a", "2")])]),
            &[400],
            "duplicate",
        ),
        ("no metric name", write_body(&[series(&[("a", "1")])]), &[400], "name"),
        ("an empty label name", write_body(&[series(&[("__name__", "m"), ("", "1")])]), &[400], "label name"),
    ];
    for (what, body, statuses, text) in cases {
        let reply = server.write(&body).unwrap();
        assert!(statuses.contains(&reply.status), "{what}: {} {}", reply.status, reply.text());
        assert!(!reply.text().trim().is_empty(), "{what}: a reason is given");
        assert!(reply.text().contains(text), "{what}: {}", reply.text());
        assert!(reply.body.len() < 100_000, "{what}: the reason is bounded");
    }
    let headers = [("content-type", "text/plain"), ("content-encoding", "snappy")];
    let wrong_type = http::request("POST", &server.url("/api/v1/receive"), &headers, &snappy(&good));
    assert_eq!(wrong_type.unwrap().status, 415);
    // All of it is survived, and the good part of a mixed batch is in.
    let mixed =
        [series(&[("__name__", "good")]), series(&[("a", "no name")]), series(&[("__name__", "good2")])];
    assert_eq!(server.write(&write_body(&mixed)).unwrap().status, 400);
    let at = T0 as f64 / 1000.0 + 1.0;
    assert_eq!(server.query("count({__name__=~\"good.*\"})", at).single(), Some(2.0));
    server.stop();
}

#[test]
fn unusual_but_valid_writes_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(dir.path(), &[]);
    let unsorted = TestSeries::new(&[("z", "1"), ("__name__", "unsorted"), ("a", "2")], &[(T0, 3.0)]);
    let empty_value = TestSeries::new(&[("__name__", "hollow"), ("gone", "")], &[(T0, 4.0)]);
    let payload = f64::from_bits(0x7ff8_dead_beef_0001);
    let nan = TestSeries::new(&[("__name__", "not_a_number")], &[(T0, payload)]);
    for body in [write_body(&[unsorted]), write_body(&[empty_value]), write_body(&[nan]), write_body(&[])] {
        let reply = server.write(&body).unwrap();
        assert!(reply.status < 300, "{} {}", reply.status, reply.text());
    }
    let at = T0 as f64 / 1000.0 + 1.0;
    assert_eq!(server.query("unsorted{a=\"2\",z=\"1\"}", at).single(), Some(3.0));
    assert_eq!(server.query("hollow{gone=\"\"}", at).single(), Some(4.0));
    assert!(server.query("not_a_number", at).single().is_some_and(f64::is_nan));
    server.stop();
}

#[test]
fn extreme_times_are_answered_and_harm_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Chronolith::server(dir.path(), &[]);
    let ok = write_body(&[TestSeries::new(&[("__name__", "m")], &[(T0, 1.0)])]);
    assert!(server.write(&ok).unwrap().status < 300);
    for t in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
        let body = write_body(&[TestSeries::new(&[("__name__", "extreme")], &[(t, 1.0)])]);
        let reply = server.write(&body).unwrap();
        assert_eq!(reply.status, 400, "{t}: {}", reply.text());
        assert!(reply.text().contains("out of bounds"), "{t}: {}", reply.text());
    }
    assert_eq!(server.query("m", T0 as f64 / 1000.0).single(), Some(1.0));
    server.flush();
    server.stop();
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(chronolith_binary()).args(args).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn bad_flags_and_files_end_in_one_line_and_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        format!("--objstore.config-file={}", path.display())
    };
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let unknown_key = file("key.yml", "type: FILESYSTEM\nconfig:\n  directory: x\n  direktory: y\n");
    let unknown_type = file("type.yml", "type: FLOPPY\nconfig: {}\n");
    let not_yaml = file("yaml.yml", "type: [\n");
    let cases: [(&[&str], &str); 7] = [
        (&["server", "--no-such-flag"], "--no-such-flag"),
        (&["server", &data, "--http-address=nowhere"], "http-address"),
        (&["server", &data, &unknown_key], "direktory"),
        (&["server", &data, &unknown_type], "FLOPPY"),
        (&["server", &data, &not_yaml], "yaml.yml"),
        (&["server", &data, "--tsdb.min-block-duration=1x"], "block-duration"),
        (&["receive", "--label=novalue"], "label"),
    ];
    for (args, text) in cases {
        let (code, err) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {err}");
        assert!(err.contains(text), "{args:?} names what is wrong: {err}");
        assert!(!err.contains("panicked"), "{args:?}: {err}");
    }
}
