//! Warnings and infos about a query, with the place in the query text that they are about.
//!
//! Annotations are deduplicated by their text without the position; two kinds merge counts and ranges instead.
//! Texts are those of Prometheus 3.14, since dashboards and scripts match on them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::parser::{Position, Span};
use crate::push::FoldedNote;

/// How serious an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The result may be wrong.
    Warning,
    /// The query may not mean what it says.
    Info,
}

/// What a histogram was used for, in texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistogramOperation {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `sum`, `avg` and their kin.
    Aggregation,
}

impl HistogramOperation {
    fn as_str(self) -> &'static str {
        match self {
            HistogramOperation::Add => "addition",
            HistogramOperation::Sub => "subtraction",
            HistogramOperation::Aggregation => "aggregation",
        }
    }
}

#[derive(Clone, Debug)]
enum Detail {
    Plain,
    /// Count of overlaps.
    Overlap {
        count: u64,
    },
    Monotonicity(Monotonicity),
}

/// Where and by how much classic histogram buckets had to be made monotonic.
#[derive(Clone, Copy, Debug)]
pub struct Monotonicity {
    /// First evaluation time, milliseconds.
    pub mint: i64,
    /// Last evaluation time, milliseconds.
    pub maxt: i64,
    /// Lowest upper bound that was changed.
    pub bucket_min: f64,
    /// Highest upper bound that was changed.
    pub bucket_max: f64,
    /// Largest change.
    pub diff_max: f64,
    /// Evaluations merged into this one.
    pub count: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    level: Level,
    span: Option<Span>,
    detail: Detail,
}

/// A set of annotations.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    entries: BTreeMap<String, Entry>,
}

impl Annotations {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a warning of the storage: no position, no prefix.
    pub fn add_storage_warning(&mut self, text: String) {
        self.insert(text, Entry { level: Level::Warning, span: None, detail: Detail::Plain });
    }

    /// Adds those of another set, as if they had been added to this one.
    pub(crate) fn append(&mut self, other: Annotations) {
        for (text, entry) in other.entries {
            self.insert(text, entry);
        }
    }

    /// Adds one of a store that folded a part of the query.
    pub(crate) fn add_note(&mut self, note: FoldedNote) {
        let FoldedNote { text, info, span } = note;
        let level = if info { Level::Info } else { Level::Warning };
        self.insert(text, Entry { level, span, detail: Detail::Plain });
    }

    /// The annotations for who combines parts of a query. Those with counts and ranges come of functions that are not pushed.
    pub(crate) fn into_notes(self) -> Vec<FoldedNote> {
        let entries = self.entries.into_iter();
        entries.map(|(text, e)| FoldedNote { text, info: e.level == Level::Info, span: e.span }).collect()
    }

    fn warn(&mut self, span: Span, text: String) {
        let text = format!("PromQL warning: {text}");
        self.insert(text, Entry { level: Level::Warning, span: Some(span), detail: Detail::Plain });
    }

    fn info(&mut self, span: Span, text: String) {
        let text = format!("PromQL info: {text}");
        self.insert(text, Entry { level: Level::Info, span: Some(span), detail: Detail::Plain });
    }

    fn insert(&mut self, text: String, entry: Entry) {
        match self.entries.get_mut(&text) {
            None => {
                self.entries.insert(text, entry);
            }
            Some(old) => match (&mut old.detail, entry.detail) {
                (Detail::Overlap { count }, Detail::Overlap { count: more }) => *count += more,
                (Detail::Monotonicity(a), Detail::Monotonicity(b)) => {
                    a.mint = a.mint.min(b.mint);
                    a.maxt = a.maxt.max(b.maxt);
                    a.bucket_min = a.bucket_min.min(b.bucket_min);
                    a.bucket_max = a.bucket_max.max(b.bucket_max);
                    a.diff_max = a.diff_max.max(b.diff_max);
                    a.count += b.count;
                }
                (_, detail) => *old = Entry { detail, ..entry },
            },
        }
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: Annotations) {
        for (text, entry) in other.entries {
            self.insert(text, entry);
        }
    }

    /// The texts, warnings and infos apart, with positions in `query`.
    pub fn render(&self, query: &str) -> (Vec<String>, Vec<String>) {
        let (mut warnings, mut infos) = (Vec::new(), Vec::new());
        for (text, entry) in &self.entries {
            let mut out = text.clone();
            match &entry.detail {
                Detail::Plain => {}
                Detail::Overlap { count } if *count > 1 => {
                    let _ = write!(out, " ({count} occurrences)");
                }
                Detail::Overlap { .. } => {}
                Detail::Monotonicity(m) => {
                    let _ = write!(
                        out,
                        ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                        format_g(m.bucket_min),
                        format_g(m.bucket_max),
                        format_g_digits(m.diff_max, 2),
                        m.count,
                        rfc3339_seconds(m.mint),
                        rfc3339_seconds(m.maxt)
                    );
                }
            }
            if let Some(span) = entry.span {
                let _ = write!(out, " ({})", Position::of(query, span.start as usize));
            }
            match entry.level {
                Level::Warning => warnings.push(out),
                Level::Info => infos.push(out),
            }
        }
        (warnings, infos)
    }
}

fn with_metric(text: &str, metric: &str) -> String {
    if metric.is_empty() { text.to_owned() } else { format!("{text} for metric name {metric:?}") }
}

/// One method per kind of annotation.
impl Annotations {
    pub(crate) fn invalid_quantile(&mut self, q: f64, span: Span) {
        self.warn(span, format!("quantile value should be between 0 and 1, got {}", format_g(q)));
    }

    pub(crate) fn invalid_ratio(&mut self, ratio: f64, to: f64, span: Span) {
        let (got, to) = (format_g(ratio), format_g(to));
        self.warn(span, format!("ratio value should be between -1 and 1, got {got}, capping to {to}"));
    }

    pub(crate) fn bad_bucket_label(&mut self, metric: &str, le: &str, span: Span) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {le:?}");
        self.warn(span, with_metric(&text, metric));
    }

    pub(crate) fn mixed_floats_histograms(&mut self, metric: &str, span: Span) {
        self.warn(span, format!("encountered a mix of histograms and floats for metric name {metric:?}"));
    }

    pub(crate) fn mixed_floats_histograms_aggregation(&mut self, span: Span) {
        self.warn(span, "encountered a mix of histograms and floats for aggregation".to_owned());
    }

    pub(crate) fn mixed_classic_native(&mut self, metric: &str, span: Span) {
        self.warn(span, with_metric("vector contains a mix of classic and native histograms", metric));
    }

    pub(crate) fn not_counter(&mut self, metric: &str, span: Span) {
        self.warn(span, format!("this native histogram metric is not a counter: {metric:?}"));
    }

    pub(crate) fn not_gauge(&mut self, metric: &str, span: Span) {
        self.warn(span, format!("this native histogram metric is not a gauge: {metric:?}"));
    }

    pub(crate) fn mixed_exponential_custom(&mut self, metric: &str, span: Span) {
        self.warn(
            span,
            format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric \
                 name {metric:?}"
            ),
        );
    }

    pub(crate) fn incompatible_bucket_layout(&mut self, operator: &str, span: Span) {
        self.warn(span, format!("incompatible bucket layout encountered for binary operator {operator}"));
    }

    pub(crate) fn sort_in_range_query(&mut self, span: Span) {
        self.warn(
            span,
            "sort is ineffective for range queries since results are always ordered by labels".to_owned(),
        );
    }

    pub(crate) fn counter_reset_collision(&mut self, operation: HistogramOperation, span: Span) {
        self.warn(span, format!("conflicting counter resets during histogram {}", operation.as_str()));
    }

    pub(crate) fn start_time_overlap(&mut self, metric: &str, span: Span) {
        let text = format!(
            "PromQL warning: sample has start time that overlaps with previous sample timestamp for metric \
             {metric:?}"
        );
        let detail = Detail::Overlap { count: 1 };
        self.insert(text, Entry { level: Level::Warning, span: Some(span), detail });
    }

    pub(crate) fn possible_non_counter(&mut self, metric: &str, span: Span) {
        self.info(
            span,
            format!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric:?}"
            ),
        );
    }

    pub(crate) fn possible_non_counter_label(&mut self, metric: &str, type_label: &str, span: Span) {
        self.info(
            span,
            format!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", \
                 got {type_label:?}: {metric:?}"
            ),
        );
    }

    pub(crate) fn forced_monotonicity(&mut self, metric: &str, span: Span, what: Monotonicity) {
        let text = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see \
                    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        let detail = Detail::Monotonicity(what);
        self.insert(with_metric(text, metric), Entry { level: Level::Info, span: Some(span), detail });
    }

    pub(crate) fn incompatible_types(&mut self, lhs: &str, operator: &str, rhs: &str, span: Span) {
        self.info(
            span,
            format!(
                "incompatible sample types encountered for binary operator {operator:?}: {lhs} {operator} {rhs}"
            ),
        );
    }

    pub(crate) fn histogram_ignored_in_aggregation(&mut self, aggregation: &str, span: Span) {
        self.info(span, format!("ignored histogram in {aggregation} aggregation"));
    }

    pub(crate) fn histogram_ignored_in_mixed_range(&mut self, metric: &str, span: Span) {
        self.info(
            span,
            format!(
                "ignored histograms in a range containing both floats and histograms for metric name {metric:?}"
            ),
        );
    }

    pub(crate) fn quantile_nan_result(&mut self, metric: &str, span: Span) {
        let text = "input to histogram_quantile has NaN observations, result is NaN";
        self.info(span, with_metric(text, metric));
    }

    pub(crate) fn quantile_nan_skew(&mut self, metric: &str, span: Span) {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher";
        self.info(span, with_metric(text, metric));
    }

    pub(crate) fn fraction_nans(&mut self, metric: &str, span: Span) {
        let text = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(span, with_metric(text, metric));
    }

    pub(crate) fn mismatched_custom_buckets(&mut self, operation: HistogramOperation, span: Span) {
        self.info(span, format!("mismatched custom buckets were reconciled during {}", operation.as_str()));
    }
}

/// Go's `%g`: the shortest digits that read back, exponent form below 1e-4 and from 1e6.
pub(crate) fn format_g(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{v:e}");
    let exponent: i32 = scientific.split_once('e').map_or(0, |(_, e)| e.parse().unwrap_or(0));
    if v != 0.0 && !(-4..6).contains(&exponent) { go_exponent(&scientific) } else { format!("{v}") }
}

/// Go's `%.{digits}g`.
pub(crate) fn format_g_digits(v: f64, digits: usize) -> String {
    if !v.is_finite() {
        return format_g(v);
    }
    let scientific = format!("{:.*e}", digits.saturating_sub(1), v);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |s: &str| {
        if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s.to_owned() }
    };
    if exponent < -4 || exponent >= digits as i32 {
        go_exponent(&format!("{}e{exponent}", trim(mantissa)))
    } else {
        trim(&format!("{:.*}", (digits as i32 - 1 - exponent).max(0) as usize, v))
    }
}

/// `1e7` as Go prints it: `1e+07`.
fn go_exponent(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `1970-01-01T00:00:00Z`, whole seconds rounded towards zero as Go's integer division does.
fn rfc3339_seconds(t_ms: i64) -> String {
    let date = crate::functions::date::Civil::from_unix_seconds(t_ms / 1000);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_in_go() {
        for (v, want) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-2.0, "-2"),
            (123456.0, "123456"),
            (1e6, "1e+06"),
            (123456789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_g(v), want);
        }
        for (v, want) in [(123.0, "1.2e+02"), (1.0, "1"), (0.25, "0.25"), (2.0, "2"), (0.000012, "1.2e-05")] {
            assert_eq!(format_g_digits(v, 2), want);
        }
    }

    #[test]
    fn equal_texts_count_once_and_carry_a_position() {
        let mut annotations = Annotations::new();
        annotations.invalid_quantile(2.0, Span::new(2, 3));
        annotations.invalid_quantile(2.0, Span::new(2, 3));
        annotations.possible_non_counter("x", Span::new(0, 1));
        let (warnings, infos) = annotations.render("a\n2");
        assert_eq!(warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (2:1)"]);
        assert_eq!(infos.len(), 1);
        assert!(infos[0].ends_with("_bucket: \"x\" (1:1)"));
    }
}
