//! `--enable-feature`: upstream's names of what is off by default, as far as they concern queries.

use chronolith_promql::EngineOptions;
use chronolith_promql::parser::ParseOptions;

/// Features that are switched on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `promql-experimental-functions`: functions and aggregators that are marked experimental.
    pub experimental_functions: bool,
    /// `promql-extended-range-selectors`: `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `promql-binop-fill-modifiers`: `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
    /// `promql-delayed-name-removal`: metric names go at the end of the query.
    pub delayed_name_removal: bool,
    /// `promql-per-step-stats`: `stats=all` shows samples by step.
    pub step_stats: bool,
    /// `type-and-unit-labels`: annotations look at `__type__`.
    pub type_and_unit_labels: bool,
    /// `search-api`: `/api/v1/search/*`.
    pub search_api: bool,
    /// `use-start-timestamps`: `rate` and its kin use start timestamps.
    pub start_timestamps: bool,
}

/// Upstream's names that do nothing any more.
const ALWAYS_ON: [&str; 5] = [
    "promql-duration-expr",
    "native-histograms",
    "ooo-native-histograms",
    "promql-at-modifier",
    "promql-negative-offset",
];

/// Upstream's names of what this program does not do, or does elsewhere: scraping, its own storage and page.
const NOT_OURS: [&str; 14] = [
    "auto-reload-config",
    "concurrent-rule-eval",
    "created-timestamp-zero-ingestion",
    "delayed-compaction",
    "exemplar-storage",
    "extra-scrape-metrics",
    "fast-startup",
    "memory-snapshot-on-shutdown",
    "metadata-wal-records",
    "old-ui",
    "otlp-deltatocumulative",
    "query-pushdown",
    "st-synthesis",
    "use-uncached-io",
];

/// Upstream's names of what the receive role does; `server` hears both from one flag.
const STORAGE: [&str; 4] =
    ["histograms-st-encoding", "otlp-native-delta-ingestion", "st-storage", "xor2-encoding"];

impl Features {
    /// Reads the flag's values, each a list separated by commas. As upstream does, a name that is not known is logged and
    /// otherwise ignored.
    pub fn from_flags(values: &[String]) -> Self {
        let mut features = Features::default();
        for name in values.iter().flat_map(|v| v.split(',')).map(str::trim).filter(|n| !n.is_empty()) {
            match features.slot(name) {
                Some(slot) => {
                    *slot = true;
                    tracing::info!(option = name, "feature enabled");
                }
                None if ALWAYS_ON.contains(&name) => {
                    let text =
                        "This option for --enable-feature is now permanently enabled and therefore a no-op.";
                    tracing::warn!(option = name, "{text}");
                }
                None if STORAGE.contains(&name) => {
                    tracing::debug!(option = name, "this option for --enable-feature concerns storage only");
                }
                None if NOT_OURS.contains(&name) => {
                    tracing::warn!(option = name, "this option for --enable-feature does nothing to queries");
                }
                None => tracing::warn!(option = name, "Unknown option for --enable-feature"),
            }
        }
        features
    }

    fn slot(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "promql-experimental-functions" => &mut self.experimental_functions,
            "promql-extended-range-selectors" => &mut self.extended_range_selectors,
            "promql-binop-fill-modifiers" => &mut self.fill_modifiers,
            "promql-delayed-name-removal" => &mut self.delayed_name_removal,
            "promql-per-step-stats" => &mut self.step_stats,
            "search-api" => &mut self.search_api,
            "type-and-unit-labels" => &mut self.type_and_unit_labels,
            "use-start-timestamps" => &mut self.start_timestamps,
            _ => return None,
        })
    }

    /// Sets the engine's options.
    pub fn apply(&self, options: EngineOptions) -> EngineOptions {
        EngineOptions {
            parse: ParseOptions {
                experimental_functions: self.experimental_functions,
                extended_range_selectors: self.extended_range_selectors,
                fill_modifiers: self.fill_modifiers,
                ..options.parse
            },
            delayed_name_removal: self.delayed_name_removal,
            start_timestamps: self.start_timestamps,
            type_and_unit_labels: self.type_and_unit_labels,
            step_stats: self.step_stats,
            ..options
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams_and_unknown_ones_do_no_harm() {
        let flags = |values: &[&str]| {
            Features::from_flags(&values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(flags(&[]), Features::default());
        assert_eq!(flags(&["no-such-feature,native-histograms", ""]), Features::default());
        let some = flags(&["promql-experimental-functions, promql-per-step-stats", "use-start-timestamps"]);
        assert!(some.experimental_functions && some.step_stats && some.start_timestamps);
        let off = Features::default().apply(EngineOptions::default());
        assert!(!off.parse.experimental_functions && off.parse.duration_expressions && !off.step_stats);
        let on = flags(&[
            "promql-extended-range-selectors,promql-binop-fill-modifiers,promql-delayed-name-removal",
        ])
        .apply(EngineOptions::default());
        assert!(on.parse.extended_range_selectors && on.parse.fill_modifiers && on.delayed_name_removal);
    }
}
