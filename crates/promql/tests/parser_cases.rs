//! Our parser against a table of what upstream's parser does with the same texts: trees, types, positions, printed
//! forms, error texts. One case a line: query, `O` with text, pretty text and nodes, or `E` with the error.
//!
//! Left out because we differ on purpose: `@` timestamps that overflow (upstream wraps around, we saturate),
//! `info(x, {})` (upstream prints `info(x, )`, which does not parse), matchers with bytes that are not UTF-8 (we replace
//! these), `offset NaN` and `[NaN]` (upstream takes what the processor makes of NaN, we refuse), and nesting beyond
//! our limit.

use chronolith_promql::parser::{Ast, NodeKind, ParseOptions, parse, unquote};

fn unquoted(field: &str) -> String {
    String::from_utf8(unquote(field).unwrap_or_else(|| panic!("not a string: {field}"))).unwrap()
}

/// The nodes, parents first: kind, start-end, type.
fn nodes(ast: &Ast) -> String {
    let mut out = Vec::new();
    ast.walk(ast.root(), |id, _| {
        let node = ast.node(id);
        let kind = match node.kind {
            NodeKind::Aggregate(_) => "AggregateExpr",
            NodeKind::Binary(_) => "BinaryExpr",
            NodeKind::Call(_) => "Call",
            NodeKind::MatrixSelector(_) => "MatrixSelector",
            NodeKind::Subquery(_) => "SubqueryExpr",
            NodeKind::Number { .. } => "NumberLiteral",
            NodeKind::String(_) => "StringLiteral",
            NodeKind::Paren(_) => "ParenExpr",
            NodeKind::Unary { .. } => "UnaryExpr",
            NodeKind::VectorSelector(_) => "VectorSelector",
        };
        out.push(format!("{kind}@{}-{}:{}", node.span.start, node.span.end, node.value_type.as_str()));
        true
    });
    out.join(" ")
}

fn check(table: &str, options: &ParseOptions) {
    let mut problems = Vec::new();
    let mut count = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        count += 1;
        let fields: Vec<&str> = line.split('\t').collect();
        let query = unquoted(fields[0]);
        let got = match parse(&query, options) {
            Ok(ast) => ["O".to_owned(), ast.to_string(), ast.pretty(), nodes(&ast)].join("\t"),
            Err(error) => format!("E\t{error}"),
        };
        let want = match fields[1] {
            "O" => ["O", &unquoted(fields[2]), &unquoted(fields[3]), fields[4]].join("\t"),
            _ => format!("E\t{}", unquoted(fields[2])),
        };
        if got != want {
            problems.push(format!("{query}\n   got {got}\n  want {want}"));
        }
    }
    assert!(count > 10, "the table is there");
    assert!(problems.is_empty(), "{} of {count} cases:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn with_everything_switched_on() {
    check(&table("all"), &ParseOptions::ALL);
}

#[test]
fn with_the_default_options() {
    check(&table("default"), &ParseOptions::default());
}

#[test]
fn without_duration_expressions() {
    check(&table("none"), &ParseOptions { duration_expressions: false, ..ParseOptions::default() });
}

fn table(name: &str) -> String {
    let folder = std::env::var("CHRONOLITH_PARSER_CASES")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/parser").to_owned());
    std::fs::read_to_string(format!("{folder}/{name}.tsv")).unwrap()
}
