//! Directory tools beside promtool.

mod support;

use std::process::Command;

use support::{labels, tsdb_tool, write_block};

const TEXT: &str = "# HELP http_requests Requests.\n# TYPE http_requests counter\n\
    http_requests_total{code=\"200\",path=\"/a \\\"b\\\"\"} 1021 1565133713.989\n\
    http_requests_total{code=\"200\",path=\"/a \\\"b\\\"\"} 1022.5 1565133773.989\n\
    # TYPE lat histogram\nlat_bucket{le=\"1\"} 3 1565133714\nlat_bucket{le=\"+Inf\"} 4 1565133714\n\
    nan NaN 1565133714\nbig 1e100 1565133714.5\nlate 7 1565163714\nnegative -3 1565133000\n# EOF\n";

fn promtool(args: &[&str]) -> Option<String> {
    match Command::new("promtool").args(args).output() {
        Ok(out) => {
            assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            Some(String::from_utf8(out.stdout).unwrap())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "promtool is not installed");
            eprintln!("left out: promtool is not installed");
            None
        }
        Err(e) => panic!("promtool: {e}"),
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn blocks_from_openmetrics_hold_what_promtools_hold() {
    let tmp = tempfile::tempdir().unwrap();
    let path = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("in.om"), TEXT).unwrap();
    let table = tsdb_tool(&["create-blocks-from", "openmetrics", &path("in.om"), &path("ours")]).unwrap();
    assert_eq!(table.lines().count(), 3, "a header and two blocks: {table}");
    let ours = tsdb_tool(&["dump", &path("ours")]).unwrap();
    assert_eq!(ours.lines().count(), 8, "{ours}");
    assert!(ours.contains("{__name__=\"lat_bucket\", le=\"1.0\"} 3 1565133714000\n"), "{ours}");

    if promtool(&["tsdb", "create-blocks-from", "openmetrics", &path("in.om"), &path("theirs")]).is_none() {
        return;
    }
    // Debian's does not spell `le` anew yet; all else is equal, whoever dumps whose blocks.
    let spelled = |text: &str| text.replace("le=\"1\"", "le=\"1.0\"");
    let theirs = tsdb_tool(&["dump", &path("theirs")]).unwrap();
    assert_eq!(spelled(&theirs), ours);
    // Without a WAL beside the blocks it does not dump.
    std::fs::create_dir(path("ours/wal")).unwrap();
    let dumped = promtool(&["tsdb", "dump", &path("ours")]).unwrap();
    assert_eq!(sorted(&dumped), sorted(&ours));
    let listed = promtool(&["tsdb", "list", &path("ours")]).unwrap();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&listed), words(&tsdb_tool(&["list", &path("ours")]).unwrap()));
    let analyzed = promtool(&["tsdb", "analyze", &path("ours")]).unwrap();
    let ours = tsdb_tool(&["analyze", &path("ours")]).unwrap();
    // Equal counts stand in any order there, and newer versions count entries differently in their words only.
    for line in ours.lines().filter(|l| l.starts_with("Block ID") || l.starts_with("Duration")) {
        assert!(analyzed.contains(line), "{line} is not in {analyzed}");
    }
    let extended =
        |text: &str| text.split_once("Compaction analysis:").map(|(_, rest)| rest.trim().to_owned());
    let theirs = promtool(&["tsdb", "analyze", "--extended", &path("ours")]).unwrap();
    let ours = tsdb_tool(&["analyze", "--extended", &path("ours")]).unwrap();
    assert!(ours.contains("samples per float chunk (min/avg/max): "), "{ours}");
    // Older ones count chunks of other kinds, too, under other titles.
    if theirs.contains("samples per float chunk") {
        assert_eq!(extended(&ours), extended(&theirs));
    }
}

#[test]
fn what_is_dumped_as_openmetrics_makes_the_same_blocks() {
    let tmp = tempfile::tempdir().unwrap();
    let path = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
    let series = [
        labels(&[("__name__", "m"), ("path", "a \"b\" <c>")]),
        labels(&[("__name__", "m"), ("path", "\\\n")]),
        labels(&[("__name__", "n")]),
    ];
    // Three blocks of two hours, made in one go.
    write_block(&tmp.path().join("first"), 1, &series, 0, 6 * support::HOUR);
    let text = tsdb_tool(&["dump-openmetrics", &path("first")]).unwrap();
    assert!(text.contains("n{} 1 60.000\n") && text.ends_with("# EOF\n"), "{text}");
    std::fs::write(path("in.om"), text).unwrap();
    let create = ["create-blocks-from", "openmetrics", "-o", "json", &path("in.om"), &path("second")];
    let made: serde_json::Value = serde_json::from_str(&tsdb_tool(&create).unwrap()).unwrap();
    assert_eq!(made.as_array().unwrap().len(), 3);
    let dump = |dir: &str| tsdb_tool(&["dump", &path(dir)]).unwrap();
    assert_eq!(dump("second"), dump("first"));
    let json = tsdb_tool(&["dump", "--format=seriesjson", &path("second")]).unwrap();
    let first = json.lines().next().unwrap();
    assert_eq!(json.lines().count(), 3);
    assert!(first.contains("\"__name__\":\"m\"") && !json.contains('<'), "{json}");
    // Attached labels may make series one.
    let create =
        ["create-blocks-from", "openmetrics", "-q", "--label", "path=x", &path("in.om"), &path("third")];
    let failed = tsdb_tool(&create);
    let third = failed.map(|_| dump("third"));
    assert!(third.is_ok_and(|t| t.contains("{__name__=\"m\", path=\"x\"}")));
}

#[test]
fn wrong_text_makes_no_blocks() {
    let tmp = tempfile::tempdir().unwrap();
    let path = |name: &str| tmp.path().join(name).to_str().unwrap().to_owned();
    for text in ["a 1 1\n", "a 1 1\na 2 1\n# EOF\n"] {
        std::fs::write(path("in.om"), text).unwrap();
        let error =
            tsdb_tool(&["create-blocks-from", "openmetrics", &path("in.om"), &path("out")]).unwrap_err();
        assert!(error.is_usage(), "{error}");
        assert_eq!(std::fs::read_dir(path("out")).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn dump_merges_blocks_and_keeps_to_its_matchers_and_times() {
    let tmp = tempfile::tempdir().unwrap();
    let (a, b) = (labels(&[("__name__", "a")]), labels(&[("__name__", "b")]));
    write_block(tmp.path(), 1, &[a.clone(), b.clone()], 0, 120_000);
    write_block(tmp.path(), 2, &[a], 60_000, 240_000);
    let dir = tmp.path().to_str().unwrap();
    let lines = |args: &[&str]| {
        let args: Vec<&str> = std::iter::once(&"dump").chain(args).copied().chain([dir]).collect();
        tsdb_tool(&args).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&[]).len(), 4 + 2, "each time once");
    assert_eq!(lines(&["--match", "b"]), ["{__name__=\"b\"} 0 0", "{__name__=\"b\"} 1 60000"]);
    assert_eq!(lines(&["--match", "a", "--match", "b", "--min-time=60000", "--max-time=60000"]).len(), 2);
}
