//! The facts are those of Prometheus's own table for relabeling, and of its conditions on rules.

use super::*;

fn rule(action: &str) -> RuleSpec {
    RuleSpec { action: RelabelAction::parse(action).unwrap(), ..RuleSpec::default() }
}

fn on(mut spec: RuleSpec, sources: &[&str], regex: &str) -> RuleSpec {
    spec.source_labels = sources.iter().map(|s| (*s).to_owned()).collect();
    spec.regex = (!regex.is_empty()).then(|| regex.to_owned());
    spec
}

fn to(mut spec: RuleSpec, target: &str, replacement: Option<&str>) -> RuleSpec {
    spec.target_label = target.to_owned();
    spec.replacement = replacement.map(str::to_owned);
    spec
}

fn replace(sources: &[&str], regex: &str, target: &str, replacement: &str) -> RuleSpec {
    to(on(rule("replace"), sources, regex), target, Some(replacement))
}

fn names(action: &str, regex: &str) -> RuleSpec {
    on(rule(action), &[], regex)
}

fn hash(source: &str, target: &str) -> RuleSpec {
    RuleSpec { modulus: 1000, ..to(on(rule("hashmod"), &[source], ""), target, None) }
}

/// `a=1 b=2`; `|` stands for a newline.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |p: &str| p.split_once('=').map(|(n, v)| (n.to_owned(), v.replace('|', "\n"))).unwrap();
    text.split_whitespace().map(pair).collect()
}

/// `None` when the set is dropped.
fn applied(input: &str, specs: Vec<RuleSpec>) -> Option<Vec<(String, String)>> {
    let rules = Relabeling::new(specs).unwrap();
    let input = pairs(input);
    let mut edit = LabelEdit::default();
    edit.start(input.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let kept = rules.apply(&mut edit);
    let changed = edit.changed();
    let out: Vec<(String, String)> = edit.sorted().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut sorted = input;
    sorted.sort();
    assert!(!kept || changed == (out != sorted), "`changed` is right for {out:?}");
    kept.then_some(out)
}

#[track_caller]
fn check(input: &str, specs: Vec<RuleSpec>, want: &str) {
    let mut want = pairs(want);
    want.sort();
    assert_eq!(applied(input, specs), Some(want));
}

#[track_caller]
fn dropped(input: &str, specs: Vec<RuleSpec>) {
    assert_eq!(applied(input, specs), None);
}

#[test]
fn replace_expands_and_deletes() {
    let abc = "a=foo b=bar c=baz";
    check(abc, vec![replace(&["a"], "f(.*)", "d", "ch${1}-ch${1}")], "a=foo b=bar c=baz d=choo-choo");
    check(
        abc,
        vec![
            replace(&["a", "b"], "f(.*);(.*)r", "a", "b${1}${2}m"),
            replace(&["c", "a"], "(b).*b(.*)ba(.*)", "d", "$1$2$2$3"),
        ],
        "a=boobam b=bar c=baz d=boooom",
    );
    check("a=abc", vec![replace(&["a"], ".*(b).*", "d", "$1")], "a=abc d=b");
    check("a=boo", vec![replace(&["a"], "f", "b", "bar")], "a=boo");
    check("a=foo f=baz", vec![replace(&["a"], "(f).*", "$1", "$2")], "a=foo");
    let name_value = "some-([^-]+)-([^,]+)";
    check(
        "a=some-name-value",
        vec![replace(&["a"], name_value, "${1}", "${2}")],
        "a=some-name-value name=value",
    );
    check("a=some-name-value", vec![replace(&["a"], name_value, "${1}", "${3}")], "a=some-name-value");
    check("a=some-name-0", vec![replace(&["a"], name_value, "${3}", "${1}")], "a=some-name-0");
    let lines = "line1.*line2";
    check(
        "a=line1|line2 b=bar",
        vec![replace(&["a"], lines, "d", "match${1}")],
        "a=line1|line2 b=bar d=match",
    );
    check(
        "utf-8.label=line1|line2",
        vec![replace(&["utf-8.label"], lines, "d", "m")],
        "utf-8.label=line1|line2 d=m",
    );
    check(
        "a=line1|line2",
        vec![replace(&["a"], lines, "utf-8.label${1}", "m")],
        "a=line1|line2 utf-8.label=m",
    );
    let named = "(line1).*(?<second>line2)";
    check(
        "a=line1|line2",
        vec![
            replace(&["a"], named, "label1_${1}", "val_${second}"),
            replace(&["a"], named, "label2_$1", "val_$second"),
        ],
        "a=line1|line2 label1_line1=val_line2 label2_line1=val_line2",
    );
    check("n=x_total", vec![replace(&["n"], ".*_total$", "t", "counter")], "n=x_total t=counter");
    // The defaults copy a label; of a missing one that is a removal.
    check("a=x", vec![to(on(rule("replace"), &["a"], ""), "b", None)], "a=x b=x");
    check("a=x b=y", vec![to(on(rule("replace"), &["no"], ""), "b", None)], "a=x");
    check("a=x b=y", vec![replace(&[], "", "b", "")], "a=x");
    check("a=x", vec![replace(&["a"], "", "b", "<$1>")], "a=x b=<x>");
    check("a=x", vec![replace(&[], "", "team", "obs")], "a=x team=obs");
}

#[test]
fn service_discovery_tags() {
    let tags = "tags=path:/secret,job:some-job,label:foo=bar";
    check(
        tags,
        vec![
            replace(&["tags"], "(?:.+,|^)path:(/[^,]+).*", "__metrics_path__", "${1}"),
            replace(&["tags"], "(?:.+,|^)job:([^,]+).*", "job", "${1}"),
            replace(&["tags"], "(?:.+,|^)label:([^=]+)=([^,]+).*", "${1}", "${2}"),
        ],
        &format!("{tags} __metrics_path__=/secret job=some-job foo=bar"),
    );
    // A label that was dropped can come again.
    check(
        "port_name=foo port=9091",
        vec![
            names("labeldrop", "^port_name$"),
            replace(&["port"], "(.+)", "port_name", "metrics"),
            on(rule("keep"), &["port_name"], "^metrics$"),
        ],
        "port=9091 port_name=metrics",
    );
}

#[test]
fn sets_are_kept_and_dropped() {
    let foo = "a=foo b=bar";
    dropped(foo, vec![on(rule("drop"), &["a"], ".*o.*")]);
    dropped(foo, vec![on(rule("drop"), &["a"], ".*o.*"), replace(&["a"], "f(.*)", "d", "ch$1")]);
    for regex in ["no-match", "f|o"] {
        check(foo, vec![on(rule("drop"), &["a"], regex)], foo);
        dropped(foo, vec![on(rule("keep"), &["a"], regex)]);
    }
    check(foo, vec![on(rule("KEEP"), &["a"], "f.*")], foo);
    let ports = "tmp=1234 port1=1234 port2=5678";
    let equal = |action, target| vec![to(on(rule(action), &["tmp"], ""), target, None)];
    check(ports, equal("keepequal", "port1"), ports);
    dropped(ports, equal("keepequal", "port2"));
    check(ports, equal("dropequal", "port2"), ports);
    dropped(ports, equal("dropequal", "port1"));
}

#[test]
fn hashes_cases_and_names() {
    check("c=baz", vec![hash("c", "d")], "c=baz d=976");
    check("a=foo|bar", vec![hash("a", "b")], "a=foo|bar b=734");
    check(
        "foo=bAr123Foo",
        vec![
            to(on(rule("uppercase"), &["foo"], ""), "up", None),
            to(on(rule("lowercase"), &["foo"], ""), "low", None),
        ],
        "foo=bAr123Foo low=bar123foo up=BAR123FOO",
    );
    let map = |regex: &str, replacement| to(names("labelmap", regex), "", Some(replacement));
    check("a=foo b1=bar b2=baz", vec![map("(b.*)", "bar_${1}")], "a=foo b1=bar b2=baz bar_b1=bar bar_b2=baz");
    check("m_my_bar=a m_other=c", vec![map("m_(my.*)", "${1}")], "m_my_bar=a m_other=c my_bar=a");
    // Two labels that become the same: the later one wins, and what a rule set comes after what was there.
    check("a1=x a2=y", vec![map("a.", "b")], "a1=x a2=y b=y");
    check("a1=x a2=y", vec![replace(&[], "", "a1", "z"), map("a.", "b")], "a1=z a2=y b=z");
    check("a=foo b1=bar b2=baz", vec![names("labelkeep", "(b.*)")], "b1=bar b2=baz");
    check("a=foo b1=bar b2=baz", vec![names("labeldrop", "(b.*)")], "a=foo");
    check("a=foo", vec![names("labeldrop", ".*")], "");
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let refused = |spec: RuleSpec, want: &str| {
        let text = Rule::new(spec).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(want), "{text:?} should contain {want:?}");
    };
    assert_eq!(RelabelAction::parse("dorp").unwrap_err().to_string(), "unknown relabel action \"dorp\"");
    refused(to(rule("hashmod"), "a", None), "modulus");
    for action in ["replace", "lowercase", "uppercase", "keepequal", "dropequal"] {
        refused(rule(action), "needs target_label");
    }
    refused(RuleSpec { modulus: 3, ..rule("hashmod") }, "needs target_label");
    refused(to(rule("lowercase"), "a", Some("x")), "lowercase takes no replacement");
    refused(to(on(rule("keepequal"), &["a"], ".*"), "a", None), "keepequal takes no regex");
    refused(
        RuleSpec { separator: Some(",".into()), ..to(rule("dropequal"), "a", None) },
        "takes no separator",
    );
    refused(on(rule("labeldrop"), &["a"], "b"), "takes no source_labels");
    refused(RuleSpec { modulus: 1, ..names("labelkeep", "b") }, "takes no modulus");
    refused(to(names("labelmap", "a"), "", Some("")), "empty label name");
    refused(on(rule("keep"), &["a"], "("), "regex");
    let (number, _) = Relabeling::new(vec![names("labeldrop", "b"), rule("replace")]).unwrap_err();
    assert_eq!(number, 1);
}
