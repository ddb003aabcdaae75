//! Against a table of what Go does: one pattern a line, then `E` with the error, or `O` and for each text whether
//! `^(?s:pattern)$` matches it (`y`, `n`), whether the bare pattern is found in it (`t`, `f`), and what a template makes
//! of the groups. Made by Go's engine in the version that Prometheus uses.

use super::*;

const TEMPLATE: &str = "[$0|$1|${2}|$n|$$|$3x|${4|$]";

/// A field of the table, with backslash, tab and line ends written out.
fn field(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some(c) => c,
                None => panic!("cut off: {text}"),
            },
            c => c,
        });
    }
    out
}

#[test]
fn as_go_does() {
    let path = std::env::var("CHRONOLITH_REGEX_CASES")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/go_regex.tsv").to_owned());
    let table = std::fs::read_to_string(path).unwrap();
    let mut problems = Vec::new();
    for line in table.split_terminator('\n') {
        let fields: Vec<String> = line.split('\t').map(field).collect();
        let pattern = &fields[0];
        let regex = match GoRegex::new(pattern) {
            Err(error) => {
                if (fields[1].as_str(), error.to_string()) != ("E", fields[2].clone()) {
                    problems.push(format!("{pattern:?}: got {error}, want {:?}", &fields[1..3]));
                }
                continue;
            }
            Ok(_) if fields[1] == "E" => {
                problems.push(format!("{pattern:?}: accepted, want {}", fields[2]));
                continue;
            }
            Ok(regex) => regex,
        };
        let unanchored = GoRegex::unanchored(pattern).unwrap();
        for pair in fields[2..].chunks(2) {
            let (text, want) = (&pair[0], &pair[1]);
            let matched = regex.is_match(text);
            let found = unanchored.is_match(text);
            let mut got = String::from(if matched { "y" } else { "n" });
            got.push(if found { 't' } else { 'f' });
            got.push_str(&regex.expand(text, TEMPLATE).unwrap_or_default());
            if got != *want {
                problems.push(format!("{pattern:?} on {text:?}: got {got:?}, want {want:?}"));
            }
            if matched {
                assert!(
                    text.starts_with(regex.prefix()),
                    "{pattern:?}: prefix {:?} of {text:?}",
                    regex.prefix()
                );
            }
            if let Some(set) = regex.set_matches() {
                assert_eq!(set.iter().any(|s| s == text), matched, "{pattern:?}: set {set:?}");
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn shapes() {
    let set = |pattern: &str| GoRegex::new(pattern).unwrap().set_matches().map(<[String]>::to_vec);
    let strings = |all: &[&str]| Some(all.iter().map(|s| s.to_string()).collect::<Vec<_>>());
    assert_eq!(set("a|b|c"), strings(&["a", "b", "c"]));
    assert_eq!(set("prod-(eu|us)"), strings(&["prod-eu", "prod-us"]));
    assert_eq!(set("^foo$"), strings(&["foo"]));
    assert_eq!(set("(ab)?c"), strings(&["abc", "c"]));
    assert_eq!(set("(?i)ab").map(|s| s.len()), Some(4));
    assert_eq!(set(""), strings(&[""]));
    for none in ["a.*", "[a-z]{3}", "a+", "(?m)^a$", "\\d\\d\\d"] {
        assert_eq!(set(none), None, "{none}");
    }
    for (pattern, prefix) in [
        ("foo.*", "foo"),
        ("foo|fob", "fo"),
        ("foo(bar|baz)\\d+", "fooba"),
        ("(?i)foo", ""),
        ("f+oo", "f"),
        ("f*oo", ""),
        ("^foo\\d", "foo"),
        ("é|è", ""),
    ] {
        assert_eq!(GoRegex::new(pattern).unwrap().prefix(), prefix, "{pattern}");
    }
    for fast in [".*", ".+", "foo.*", ".*foo", ".*foo.*", "foo.*bar", "foo.*|bar.+", "a|b.*"] {
        assert!(matches!(GoRegex::new(fast).unwrap().0.shape, Shape::Globs(_)), "{fast}");
    }
}

/// Deep nesting and large repeats on the stack of a worker thread.
#[test]
fn bombs() {
    let nested = |depth: usize| format!("{}a{}", "(b|".repeat(depth), ")*".repeat(depth));
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            assert!(GoRegex::new(&nested(parse::DEPTH_MAX)).unwrap().is_match("aaab"));
            let error = GoRegex::new(&nested(parse::DEPTH_MAX + 1)).unwrap_err();
            assert!(error.0.starts_with("expression nests too deeply"), "{error}");
            let error = GoRegex::new(&"(".repeat(1_000_000)).unwrap_err();
            assert!(error.0.starts_with("expression nests too deeply"));
            let error = GoRegex::new("(\\pL{30}\\pN{30}){30}\\pL{900}\\pL{900}\\pL{900}").unwrap_err();
            assert!(error.0.starts_with("expression too large"), "{error}");
            assert!(GoRegex::new("[a-z]{1000}").unwrap().is_match(&"q".repeat(1000)));
            let many: Vec<String> = (0..5000).map(|i| format!("value-{i}")).collect();
            let regex = GoRegex::new(&many.join("|")).unwrap();
            assert!(regex.is_match("value-4999") && !regex.is_match("value-5000"));
        })
        .unwrap()
        .join()
        .unwrap();
}
