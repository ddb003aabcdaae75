//! `relabel_configs` as YAML, in Prometheus's form: a list of rules for [`chronolith_model::Relabeling`].

use chronolith_model::Relabeling;
use chronolith_model::relabel::{RelabelAction, RuleSpec};
use serde::Deserialize;

use crate::config::{ConfigError, GoString, load_yaml};

/// One rule as it is written. Unknown keys are errors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelabelConfig {
    source_labels: Vec<GoString>,
    separator: Option<GoString>,
    regex: Option<GoString>,
    modulus: u64,
    target_label: GoString,
    replacement: Option<GoString>,
    action: Option<GoString>,
}

/// Checks and compiles rules.
///
/// Errors: which rule, counted from 1, and what is wrong with it.
pub fn relabeling(configs: Vec<RelabelConfig>) -> Result<Relabeling, String> {
    let said = |i: usize, e: &dyn std::fmt::Display| format!("relabel rule {}: {e}", i + 1);
    let mut specs = Vec::with_capacity(configs.len());
    for (i, config) in configs.into_iter().enumerate() {
        let action = match config.action {
            None => RelabelAction::default(),
            Some(name) => RelabelAction::parse(&name.0).map_err(|e| said(i, &e))?,
        };
        specs.push(RuleSpec {
            source_labels: config.source_labels.into_iter().map(|name| name.0).collect(),
            separator: config.separator.map(|text| text.0),
            regex: config.regex.map(|text| text.0),
            modulus: config.modulus,
            target_label: config.target_label.0,
            replacement: config.replacement.map(|text| text.0),
            action,
        });
    }
    Relabeling::new(specs).map_err(|(i, e)| said(i, &e))
}

/// Reads rules from YAML; `origin` (a file or a flag) is named in errors.
pub fn parse_relabeling(origin: &str, text: &str) -> Result<Relabeling, ConfigError> {
    // `load_yaml` makes an empty map of an empty document, since most files are maps.
    if matches!(serde_yaml::from_str(text), Ok(serde_yaml::Value::Null)) {
        return Ok(Relabeling::default());
    }
    let configs: Vec<RelabelConfig> = load_yaml(origin, text)?;
    relabeling(configs).map_err(|text| ConfigError::invalid(origin, text))
}

#[cfg(test)]
mod tests {
    use chronolith_model::relabel::LabelEdit;

    use super::*;

    #[test]
    fn rules_are_read_as_prometheus_reads_them() {
        let text = "- source_labels: [__name__, port]\n  regex: 'up;9090'\n  action: Drop\n\
                    - {target_label: port, replacement: 9091}\n- {action: labeldrop, regex: tmp_.*}\n";
        let rules = parse_relabeling("--receive.relabel-config", text).unwrap();
        let mut edit = LabelEdit::default();
        edit.start([("__name__", "up"), ("port", "9090")]);
        assert!(!rules.apply(&mut edit));
        edit.start([("__name__", "up"), ("port", "80"), ("tmp_x", "y")]);
        assert!(rules.apply(&mut edit));
        assert_eq!(edit.sorted().collect::<Vec<_>>(), [("__name__", "up"), ("port", "9091")]);
        assert!(parse_relabeling("f", "").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, want) in [
            ("- {action: dorp}", "f: relabel rule 1: unknown relabel action \"dorp\""),
            ("- {action: keep, regex: a}\n- {regex: (}", "relabel rule 2: action replace needs target_label"),
            ("- {target_label: a, regex: '('}", "relabel rule 1: regex"),
            ("- {target_lable: a}", "target_lable"),
            ("- {target_label: a, replacement: 1.10}", "quotes"),
            ("a: b", "expected a sequence"),
        ] {
            let error = parse_relabeling("f", text).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} should contain {want:?}");
        }
    }
}
