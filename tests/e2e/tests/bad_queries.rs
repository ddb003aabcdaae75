//! Queries that are too deep, too long, out of range or no text at all: an error with the status that Prometheus gives, in bounded
//! time and memory, and a server that goes on.

use chronolith_e2e::{Answer, Chronolith, Prometheus, TestSeries, write_body};
use chronolith_testkit::http;

const T0: i64 = 1_700_000_000_000;
/// No bad query may cost the server more, in a debug build. CPU time, since other tests run beside.
const CPU_SECONDS_MAX: f64 = 10.0;
/// What the server may grow by over all of it. The inputs are 1 MB at most, and some make trees of a node every two bytes.
const GROWTH_BYTES_MAX: f64 = 600e6;

fn loaded(dir: &std::path::Path) -> Chronolith {
    let server = Chronolith::server(dir, &[]);
    let series = TestSeries::new(&[("__name__", "up"), ("job", "a")], &[(T0, 1.0)]);
    let reply = server.write(&write_body(&[series])).unwrap();
    assert!(reply.status < 300, "{}", reply.text());
    server
}

fn metric(server: &Chronolith, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find(|l| l.split(' ').next() == Some(name)).expect("a process metric");
    line.rsplit(' ').next().and_then(|v| v.parse().ok()).expect("a number")
}

/// A query as it stands in a form, the status it gets, and a part of the reason.
struct Case {
    what: &'static str,
    form: String,
    status: u16,
    reason: &'static str,
    /// Debian's Prometheus gives the same status.
    as_upstream: bool,
}

fn case(what: &'static str, query: &str, status: u16, reason: &'static str) -> Case {
    Case { what, form: http::encode(query), status, reason, as_upstream: true }
}

/// As [`case`], where we differ from Prometheus on purpose or by age (Debian has 2.42).
fn ours(what: &'static str, query: &str, status: u16, reason: &'static str) -> Case {
    Case { as_upstream: false, ..case(what, query, status, reason) }
}

fn raw(what: &'static str, form: &str, status: u16, reason: &'static str) -> Case {
    Case { what, form: form.to_owned(), status, reason, as_upstream: true }
}

fn cases() -> Vec<Case> {
    let deep = |open: &str, close: &str, n: usize| format!("{}up{}", open.repeat(n), close.repeat(n));
    let names: Vec<String> = (0..20_000).map(|i| format!("word{i}")).collect();
    let matchers: Vec<String> = (0..20_000).map(|i| format!("l{i}=\"\"")).collect();
    vec![
        // Prometheus's parser takes any depth as long as its stack lasts.
        ours("200,000 parentheses", &deep("(", ")", 200_000), 400, "nested too deeply"),
        ours("200,000 calls", &deep("abs(", ")", 200_000), 400, "nested too deeply"),
        ours("200,000 subqueries", &deep("", "[5m:1m]", 200_000), 400, "parse error"),
        ours("200,000 signs", &deep("-", "", 200_000), 400, "nested too deeply"),
        ours("a tower of powers", &format!("{}2", "2^".repeat(200_000)), 400, "nested too deeply"),
        case("200,000 open parentheses", &"(".repeat(200_000), 400, "parse error"),
        case("200,000 closed parentheses", &")".repeat(200_000), 400, "parse error"),
        case("a mebibyte of one name", &"a".repeat(1 << 20), 200, ""),
        case("a mebibyte of open braces", &"{".repeat(1 << 20), 400, "parse error"),
        case("a mebibyte of quotes", &"\"".repeat(1 << 20), 400, "parse error"),
        case("a mebibyte of blanks", &" ".repeat(1 << 20), 400, "parse error"),
        case("a mebibyte of comment", &format!("up #{}", "x".repeat(1 << 20)), 200, ""),
        case("a string of a mebibyte", &format!("\"{}\"", "x".repeat(1 << 20)), 200, ""),
        case("a number of a mebibyte", &"1".repeat(1 << 20), 400, "parse error"),
        // Prometheus's time grows with their square.
        ours("20,000 terms", &vec!["up"; 20_000].join(" + "), 200, ""),
        ours("20,000 alternatives", &vec!["up"; 20_000].join(" or "), 200, ""),
        case("20,000 matchers", &format!("up{{{}}}", matchers.join(",")), 200, ""),
        case("20,000 words in a regex", &format!("up{{job=~\"{}\"}}", names.join("|")), 200, ""),
        case("20,000 labels to group by", &format!("sum by ({}) (up)", names.join(",")), 200, ""),
        case("a label value of a mebibyte", &format!("up{{job=\"{}\"}}", "x".repeat(1 << 20)), 200, ""),
        case("a repeat beyond a thousand", "up{job=~\"a{1001}\"}", 400, "regex"),
        case("repeats of repeats", "up{job=~\"((a{100}){100}){100}\"}", 400, "regex"),
        case(
            "a regex of 2,000 parentheses",
            &format!("up{{job=~\"{}\"}}", deep("(", ")", 2_000)),
            400,
            "regex",
        ),
        case("a regex that backtracks", "up{job=~\"(a*)*(a*)*(a*)*b\"}", 200, ""),
        case("a regex of half a class", "up{job=~\"[a\"}", 400, "regex"),
        case(
            "a regex bomb in a function",
            "label_replace(up, \"x\", \"$1\", \"job\", \"((a{100}){100}){100}\")",
            422,
            "regular expression",
        ),
        case("an offset out of range", "foo offset 1e30", 400, "parse error"),
        case("a range out of range", "foo[1e30]", 400, "parse error"),
        case("a duration out of range", "foo[99999999999y]", 400, "parse error"),
        case("an offset of years out of range", "foo offset 99999999999y", 400, "parse error"),
        case("a subquery's step out of range", "foo[5m:99999999999y]", 400, "parse error"),
        case("no range", "foo[0]", 400, "parse error"),
        case("a negative range", "foo[-5m]", 400, "parse error"),
        case("a time out of range", "foo @ 1e30", 400, "parse error"),
        case("a time that is none", "foo @ NaN", 400, "parse error"),
        case("a NUL", "up\u{0}", 400, "parse error"),
        case("nothing", "", 400, "parse error"),
        raw("half a letter", "up%FF", 400, "parse error"),
        raw("half a letter in a string", "up%7Bjob%3D%22%FF%22%7D", 400, "parse error"),
        raw("a surrogate", "%ED%A0%80", 400, "parse error"),
        raw("an escape cut short", "up%7Bjob%3D%22%5Cx%22%7D", 400, "parse error"),
    ]
}

#[test]
fn bad_queries_are_answered_as_prometheus_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let upstream = Prometheus::with_config(dir.path(), "{}", &[]);
    let before = metric(&server, "process_resident_memory_bytes");
    let mut cpu = metric(&server, "process_cpu_seconds_total");
    let mut wrong = Vec::new();
    for c in cases() {
        let form = format!("query={}&time=1700000000", c.form);
        let reply = http::post_form(&server.url("/api/v1/query"), &form).expect("the server answers");
        let cpu_after = metric(&server, "process_cpu_seconds_total");
        let took = cpu_after - cpu;
        cpu = cpu_after;
        let text = reply.text();
        let short = text.chars().take(200).collect::<String>();
        println!("{}: {} in {took:.2} s", c.what, reply.status);
        if reply.status != c.status || !text.contains(c.reason) {
            wrong.push(format!(
                "{}: expected {} ({}), got {}: {short}",
                c.what, c.status, c.reason, reply.status
            ));
        }
        let kind = match c.status {
            400 => "bad_data",
            422 => "execution",
            _ => "",
        };
        if c.status != 200 && reply.status == c.status {
            assert_eq!(Answer::of(&reply).body["errorType"], kind, "{}: {short}", c.what);
        }
        if took > CPU_SECONDS_MAX {
            wrong.push(format!("{}: took {took:.2} s", c.what));
        }
        if c.as_upstream {
            let theirs = upstream.post("/api/v1/query", &form).expect("Prometheus answers");
            if theirs.status != c.status {
                let text = theirs.text().chars().take(200).collect::<String>();
                wrong.push(format!("{}: Prometheus says {}: {text}", c.what, theirs.status));
            }
        }
        // It goes on.
        assert_eq!(server.query("up", T0 as f64 / 1000.0).single(), Some(1.0), "after {}", c.what);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let grown = metric(&server, "process_resident_memory_bytes") - before;
    assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes");
    server.stop();
}

/// The same through every other door that takes PromQL.
#[test]
fn bad_selectors_and_forms_are_refused_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = loaded(dir.path());
    let deep = "(".repeat(200_000);
    let bomb = http::encode("{job=~\"((a{100}){100}){100}\"}");
    let long = http::encode(&format!("{{job=\"{}\"}}", "x".repeat(1 << 20)));
    let posts: [(&str, String, u16); 11] = [
        ("/api/v1/query_range", format!("query={deep}&start=0&end=1&step=1"), 400),
        ("/api/v1/query_range", "query=up&start=0&end=1e30&step=1".to_owned(), 400),
        ("/api/v1/query_range", "query=up&start=0&end=1&step=1e-300".to_owned(), 400),
        ("/api/v1/query_range", "query=up&start=-9e15&end=9e15&step=1".to_owned(), 400),
        ("/api/v1/series", format!("match[]={deep}"), 400),
        ("/api/v1/series", format!("match[]={bomb}"), 400),
        ("/api/v1/series", format!("match[]={long}"), 200),
        ("/api/v1/labels", format!("match[]={bomb}"), 400),
        ("/api/v1/labels", "match[]=%FF".to_owned(), 400),
        ("/api/v1/query", format!("query=up&timeout={deep}"), 400),
        ("/api/v1/query", "x".repeat(11 << 20), 400),
    ];
    for (path, form, status) in posts {
        let reply = http::post_form(&server.url(path), &form).expect("the server answers");
        let asked: String = form.chars().take(60).collect();
        assert_eq!(
            reply.status,
            status,
            "{path} {asked}: {}",
            reply.text().chars().take(300).collect::<String>()
        );
    }
    let gets = [
        (format!("/api/v1/label/job/values?match[]={bomb}"), 400),
        ("/api/v1/label/%FF/values".to_owned(), 400),
        (format!("/api/v1/query?query={}", "(".repeat(30_000)), 400),
        ("/api/v1/query?query=up%FF".to_owned(), 400),
        ("/api/v1/query?time=%FF&query=up".to_owned(), 400),
    ];
    for (path, status) in gets {
        let reply = server.get(&path);
        let asked: String = path.chars().take(60).collect();
        assert_eq!(reply.status, status, "{asked}: {}", reply.text().chars().take(300).collect::<String>());
    }
    assert_eq!(server.query("up", T0 as f64 / 1000.0).single(), Some(1.0));
    server.stop();
}
