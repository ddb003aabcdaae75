//! Every expression of the upstream test scripts parses, prints, and parses to the same tree.

use std::path::PathBuf;

use chronolith_promql::parser::{
    ParseOptions, is_start_timestamp_line, parse, parse_series_description, parse_start_timestamps,
};

/// The folder of the scripts: beside the workspace, or where `CHRONOLITH_CONFORMANCE` says.
fn scripts() -> PathBuf {
    let folder = match std::env::var_os("CHRONOLITH_CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance/promql"),
    };
    assert!(
        folder.is_dir(),
        "the PromQL conformance scripts are not at {}: set CHRONOLITH_CONFORMANCE to their folder",
        folder.display()
    );
    folder
}

/// The expressions of a script's `eval` lines.
fn expressions(script: &str) -> Vec<String> {
    let instant =
        regex::Regex::new(r"^eval(?:_(?:fail|warn|ordered|info))?\s+instant\s+(?:at\s+(?:.+?))?\s+(.+)$");
    let range = regex::Regex::new(
        r"^eval(?:_(?:fail|warn|info))?\s+range\s+from\s+(?:.+)\s+to\s+(?:.+)\s+step\s+(?:.+?)\s+(.+)$",
    );
    let (instant, range) = (instant.unwrap(), range.unwrap());
    script
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("eval"))
        .map(|line| {
            let found = instant.captures(line).or_else(|| range.captures(line));
            found.unwrap_or_else(|| panic!("not an eval line: {line}"))[1].to_owned()
        })
        .collect()
}

/// The scripts.
fn files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(scripts()).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "test"));
    files.sort();
    assert_eq!(files.len(), 21, "upstream's scripts");
    files
}

#[test]
fn all_series_descriptions_parse() {
    let (mut descriptions, mut starts) = (0, 0);
    for file in files() {
        let mut in_load = false;
        for line in std::fs::read_to_string(&file).unwrap().lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                in_load = false;
            } else if line.starts_with("load") {
                in_load = true;
            } else if in_load && is_start_timestamp_line(line) {
                starts += 1;
                parse_start_timestamps(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            } else if in_load {
                descriptions += 1;
                let parsed = parse_series_description(line).unwrap_or_else(|e| panic!("{line}: {e}"));
                assert!(!parsed.values.is_empty(), "{line}");
            }
        }
    }
    assert_eq!(starts, 37);
    assert!(descriptions > 1000, "{descriptions}");
}

#[test]
fn all_expressions_round_trip() {
    let mut count = 0;
    let mut problems = Vec::new();
    for file in files() {
        for query in expressions(&std::fs::read_to_string(&file).unwrap()) {
            count += 1;
            let name = file.file_name().unwrap().display();
            match parse(&query, &ParseOptions::ALL) {
                Err(error) => problems.push(format!("{name}: {query}: {error}")),
                Ok(ast) => {
                    for text in [ast.to_string(), ast.pretty()] {
                        match parse(&text, &ParseOptions::ALL) {
                            Err(error) => {
                                problems.push(format!("{name}: {query}\n  printed as {text}: {error}"));
                            }
                            Ok(again) if !ast.same_tree(&again) => {
                                problems.push(format!("{name}: {query}\n  printed as {text}: another tree"));
                            }
                            Ok(_) => {}
                        }
                    }
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert_eq!(count, 2214);
}
