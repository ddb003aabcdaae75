//! How OTLP is translated: Prometheus's `otlp:` settings under their names there.

use std::collections::HashSet;
use std::path::Path;

use chronolith_service::config::load_yaml_file;
use serde::Deserialize;

/// What becomes of names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TranslationStrategy {
    /// What a classic name may not hold becomes `_`; unit and `_total` are appended.
    #[default]
    UnderscoreEscapingWithSuffixes,
    /// As before, without unit and `_total`.
    UnderscoreEscapingWithoutSuffixes,
    /// Names stay UTF-8; unit and `_total` are appended.
    #[serde(rename = "NoUTF8EscapingWithSuffixes")]
    NoUtf8EscapingWithSuffixes,
    /// Names stay as they are.
    NoTranslation,
}

impl TranslationStrategy {
    /// True when names become classic ones.
    pub(super) fn escapes(self) -> bool {
        matches!(
            self,
            TranslationStrategy::UnderscoreEscapingWithSuffixes
                | TranslationStrategy::UnderscoreEscapingWithoutSuffixes
        )
    }

    /// True when unit and kind are appended to a metric's name.
    pub(super) fn adds_suffixes(self) -> bool {
        matches!(
            self,
            TranslationStrategy::UnderscoreEscapingWithSuffixes
                | TranslationStrategy::NoUtf8EscapingWithSuffixes
        )
    }
}

/// The settings. A file with them (`--receive.otlp-config-file`) holds what stands below `otlp:` in a Prometheus
/// configuration, with or without that key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// What becomes of names.
    pub translation_strategy: TranslationStrategy,
    /// Resource attributes that become labels of every series.
    pub promote_resource_attributes: HashSet<String>,
    /// All resource attributes do, but for `ignore_resource_attributes`.
    pub promote_all_resource_attributes: bool,
    /// Left out by `promote_all_resource_attributes`.
    pub ignore_resource_attributes: HashSet<String>,
    /// `service.name`, `service.namespace` and `service.instance.id` stay labels of `target_info`, beside `job` and
    /// `instance`.
    pub keep_identifying_resource_attributes: bool,
    /// Scope name, version, schema URL and attributes become `otel_scope_` labels.
    pub promote_scope_metadata: bool,
    /// Explicit-bucket histograms become native ones with custom buckets.
    pub convert_histograms_to_nhcb: bool,
    /// A label that begins with one `_` gets `key` in front.
    pub label_name_underscore_sanitization: bool,
    /// Several `_` in a row stay several.
    pub label_name_preserve_multiple_underscores: bool,
    /// A `target_info` series for each resource (`--receive.otlp-enable-target-info`).
    #[serde(skip)]
    pub target_info: bool,
    /// Delta points are stored as they come, with unknown kind (`--enable-feature=otlp-native-delta-ingestion`).
    #[serde(skip)]
    pub native_delta: bool,
    /// They are added up and stored as cumulative ones (`--enable-feature=otlp-deltatocumulative`).
    #[serde(skip)]
    pub delta_to_cumulative: bool,
}

/// What a file holds: the settings, or a Prometheus configuration's section of that name.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum File {
    Below { otlp: Box<OtlpSettings> },
    Plain(Box<OtlpSettings>),
}

impl Default for OtlpSettings {
    fn default() -> Self {
        OtlpSettings {
            translation_strategy: TranslationStrategy::default(),
            promote_resource_attributes: HashSet::new(),
            promote_all_resource_attributes: false,
            ignore_resource_attributes: HashSet::new(),
            keep_identifying_resource_attributes: false,
            promote_scope_metadata: false,
            convert_histograms_to_nhcb: false,
            label_name_underscore_sanitization: true,
            label_name_preserve_multiple_underscores: true,
            target_info: true,
            native_delta: false,
            delta_to_cumulative: false,
        }
    }
}

impl OtlpSettings {
    /// These settings, which come from flags, with those of a file.
    ///
    /// # Errors
    /// In the operator's words.
    pub fn with_file(self, path: &Path) -> Result<Self, String> {
        let file: File = load_yaml_file(path).map_err(|e| e.to_string())?;
        let (File::Below { otlp: mut settings } | File::Plain(mut settings)) = file;
        settings.promote_resource_attributes.extend(self.promote_resource_attributes);
        settings.target_info = self.target_info;
        (settings.native_delta, settings.delta_to_cumulative) = (self.native_delta, self.delta_to_cumulative);
        settings.check().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(*settings)
    }

    /// Checks what does not go together, as Prometheus does.
    ///
    /// # Errors
    /// In the operator's words.
    pub fn check(&self) -> Result<(), String> {
        if self.promote_all_resource_attributes && !self.promote_resource_attributes.is_empty() {
            return Err("promote_all_resource_attributes and promote_resource_attributes exclude each other"
                .to_owned());
        }
        if !self.promote_all_resource_attributes && !self.ignore_resource_attributes.is_empty() {
            return Err("ignore_resource_attributes needs promote_all_resource_attributes".to_owned());
        }
        if self.native_delta && self.delta_to_cumulative {
            return Err(
                "otlp-deltatocumulative and otlp-native-delta-ingestion exclude each other".to_owned()
            );
        }
        let mut all = self.promote_resource_attributes.iter().chain(&self.ignore_resource_attributes);
        if all.any(|name| name.trim().is_empty()) {
            return Err("an empty resource attribute name".to_owned());
        }
        Ok(())
    }

    /// True when this resource attribute becomes a label of every series.
    pub(super) fn promotes(&self, attribute: &str) -> bool {
        if self.promote_all_resource_attributes {
            !self.ignore_resource_attributes.contains(attribute)
        } else {
            self.promote_resource_attributes.contains(attribute)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<OtlpSettings, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = OtlpSettings { target_info: false, ..OtlpSettings::default() };
        flags.with_file(file.path())
    }

    #[test]
    fn files_hold_what_prometheus_takes() {
        let plain =
            "translation_strategy: NoUTF8EscapingWithSuffixes\npromote_resource_attributes: [a, b.c]\n";
        let below = format!("otlp:\n  {}", plain.replace('\n', "\n  "));
        for text in [plain, below.as_str()] {
            let settings = load(text).unwrap();
            assert_eq!(settings.translation_strategy, TranslationStrategy::NoUtf8EscapingWithSuffixes);
            assert!(settings.promotes("b.c") && !settings.promotes("c") && !settings.target_info);
            assert!(settings.label_name_underscore_sanitization);
        }
        let all = load("promote_all_resource_attributes: true\nignore_resource_attributes: [x]").unwrap();
        assert!(all.promotes("anything") && !all.promotes("x"));
        for wrong in [
            "promote_all_resource_attributes: true\npromote_resource_attributes: [a]",
            "ignore_resource_attributes: [a]",
            "promote_resource_attributes: ['']",
            "translation_strategy: Sideways",
            "no_such_thing: 1",
        ] {
            assert!(load(wrong).is_err(), "{wrong}");
        }
    }
}
