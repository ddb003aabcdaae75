//! Names of metrics and labels, as Prometheus translates them from OpenTelemetry's.
//!
//! `http.server.duration` in `s` becomes `http_server_duration_seconds`, a counter gets `_total`, a gauge in `1` gets
//! `_ratio`; what a strategy does not escape stays UTF-8.

use std::borrow::Cow;

use super::settings::{OtlpSettings, TranslationStrategy};

/// What a metric is, where its name depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NameKind {
    Counter,
    Gauge,
    Other,
}

/// OpenTelemetry's units and Prometheus's words for them.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];

/// The same behind a slash.
const PER_UNITS: &[(&str, &str)] = &[
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The metric's name in Prometheus, or why it can have none.
pub(super) fn metric_name(
    name: &str,
    unit: &str,
    kind: NameKind,
    strategy: TranslationStrategy,
) -> Result<String, String> {
    if !strategy.escapes() {
        return Ok(if strategy.adds_suffixes() { with_suffixes(name, unit, kind) } else { name.to_owned() });
    }
    let built = if strategy.adds_suffixes() {
        tokens_joined(name, unit, kind)
    } else {
        let parts: Vec<&str> =
            name.split(|c| !is_metric_char(c) && c != '_').filter(|part| !part.is_empty()).collect();
        parts.join("_")
    };
    let built = if built.starts_with(|c: char| c.is_ascii_digit()) { format!("_{built}") } else { built };
    if built.is_empty() {
        return Err(format!("normalization for metric {name:?} resulted in empty name"));
    }
    if built != name && built.chars().all(|c| c == '_') {
        return Err(format!("normalization for metric {name:?} resulted in invalid name {built:?}"));
    }
    Ok(built)
}

/// The unit as metadata says it.
pub(super) fn unit_name(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let joined = match (main.is_empty(), per.is_empty()) {
        (false, false) => format!("{main}_{per}"),
        (false, true) => main,
        _ => per,
    };
    let joined = joined.strip_prefix('_').unwrap_or(&joined);
    joined.strip_suffix('_').unwrap_or(joined).to_owned()
}

/// The label's name in Prometheus, or why it can have none.
pub(super) fn label_name<'a>(name: &'a str, settings: &OtlpSettings) -> Result<Cow<'a, str>, String> {
    if name.is_empty() {
        return Err("label name is empty".to_owned());
    }
    let built = if settings.translation_strategy.escapes() {
        escaped_label(name, settings)
    } else {
        Cow::Borrowed(name)
    };
    if built.bytes().all(|b| b == b'_') {
        return Err(format!("label name {name:?} contains only underscores"));
    }
    Ok(built)
}

fn escaped_label<'a>(name: &'a str, settings: &OtlpSettings) -> Cow<'a, str> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if starts_well
        && name.bytes().all(is_good)
        && (settings.label_name_preserve_multiple_underscores || !name.contains("__"))
    {
        return Cow::Borrowed(name);
    }
    let escape = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let escaped: String = if settings.label_name_preserve_multiple_underscores {
        name.chars().map(escape).collect()
    } else {
        let reserved = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"));
        let mut out = String::with_capacity(name.len());
        for c in reserved.unwrap_or(name).chars().map(escape) {
            if c != '_' || !out.ends_with('_') {
                out.push(c);
            }
        }
        if reserved.is_some() { format!("__{out}__") } else { out }
    };
    if escaped.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("key_{escaped}").into();
    }
    let underscore = escaped.starts_with('_') && !escaped.starts_with("__");
    if settings.label_name_underscore_sanitization && underscore {
        return format!("key{escaped}").into();
    }
    escaped.into()
}

fn is_metric_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// With escaping: the name's words, then the unit's, then the kind's.
fn tokens_joined(name: &str, unit: &str, kind: NameKind) -> String {
    let mut tokens: Vec<&str> = name.split(|c| !is_metric_char(c)).filter(|t| !t.is_empty()).collect();
    let (main, per) = unit_suffixes(unit);
    let (mut main, mut per) = (clean_unit(&main), clean_unit(&per));
    if tokens.contains(&main.as_str()) {
        main.clear();
    }
    if per == "per_" {
        per.clear();
    } else {
        per.truncate(per.strip_suffix('_').map_or(per.len(), str::len));
        if tokens.contains(&per.as_str()) {
            per.clear();
        }
    }
    if !per.is_empty() {
        main.truncate(main.strip_suffix('_').map_or(main.len(), str::len));
    }
    tokens.extend([main.as_str(), per.as_str()].into_iter().filter(|t| !t.is_empty()));
    let last = match kind {
        NameKind::Counter => Some("total"),
        NameKind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        tokens.retain(|t| *t != last);
        tokens.push(last);
    }
    tokens.join("_")
}

/// Without escaping: suffixes behind the name as it is.
fn with_suffixes(name: &str, unit: &str, kind: NameKind) -> String {
    let mut name = name;
    let mut behind: Vec<String> = Vec::new();
    let last = match kind {
        NameKind::Counter => Some("total"),
        NameKind::Gauge if unit == "1" => Some("ratio"),
        _ => None,
    };
    if let Some(last) = last {
        name = trim_suffix(name, last);
        behind.push(last.to_owned());
    }
    let (main, per) = unit_suffixes(unit);
    if !per.is_empty() {
        name = trim_suffix(name, &per);
        behind.push(per);
    }
    if !main.is_empty() && !name.ends_with(main.as_str()) {
        behind.push(main);
    }
    behind.iter().rev().fold(name.to_owned(), |name, suffix| format!("{name}_{suffix}"))
}

/// Without the suffix and the delimiter before it.
fn trim_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let Some(start) = name.strip_suffix(suffix) else { return name };
    let Some((at, _)) = start.char_indices().next_back() else { return name };
    if at == 0 { name } else { &start[..at] }
}

/// The unit before the slash and the one behind it (`per_second`), in Prometheus's words but not escaped.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let word = |unit: &str, table: &[(&str, &str)]| {
        let unit = unit.trim();
        // Braces hold remarks.
        if unit.contains(['{', '}']) {
            return String::new();
        }
        table.iter().find(|(from, _)| *from == unit).map_or(unit, |(_, to)| to).to_owned()
    };
    let per = word(per, PER_UNITS);
    (word(main, UNITS), if per.is_empty() { per } else { format!("per_{per}") })
}

/// Escapes a unit: runs of what no name may hold become one underscore, none stays in front.
fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars().map(|c| if is_metric_char(c) { c } else { '_' }) {
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    out.strip_prefix('_').map(str::to_owned).unwrap_or(out)
}

#[cfg(test)]
mod tests {
    use NameKind::{Counter, Gauge, Other};
    use TranslationStrategy::{
        NoTranslation, NoUtf8EscapingWithSuffixes, UnderscoreEscapingWithSuffixes,
        UnderscoreEscapingWithoutSuffixes,
    };

    use super::*;

    #[test]
    fn metrics_are_named_as_prometheus_does() {
        for (name, unit, kind, strategy, want) in [
            (
                "http.server.duration",
                "s",
                Other,
                UnderscoreEscapingWithSuffixes,
                "http_server_duration_seconds",
            ),
            ("requests.count", "1", Counter, UnderscoreEscapingWithSuffixes, "requests_count_total"),
            ("memory.usage", "By", Gauge, UnderscoreEscapingWithSuffixes, "memory_usage_bytes"),
            ("cpu.utilization", "1", Gauge, UnderscoreEscapingWithSuffixes, "cpu_utilization_ratio"),
            ("total.things", "", Counter, UnderscoreEscapingWithSuffixes, "things_total"),
            ("speed", "m/s", Gauge, UnderscoreEscapingWithSuffixes, "speed_meters_per_second"),
            ("req", "{requests}/m", Counter, UnderscoreEscapingWithSuffixes, "req_per_minute_total"),
            ("system_bytes", "By", Gauge, UnderscoreEscapingWithSuffixes, "system_bytes"),
            ("1st.metric", "", Gauge, UnderscoreEscapingWithSuffixes, "_1st_metric"),
            ("a__b--c", "", Gauge, UnderscoreEscapingWithSuffixes, "a_b_c"),
            ("ns:metric", "foo-bar", Gauge, UnderscoreEscapingWithSuffixes, "ns:metric_foo_bar"),
            ("http.server.duration", "s", Counter, UnderscoreEscapingWithoutSuffixes, "http_server_duration"),
            ("a__b", "s", Other, UnderscoreEscapingWithoutSuffixes, "a__b"),
            ("1st", "s", Other, UnderscoreEscapingWithoutSuffixes, "_1st"),
            ("http.server.duration", "s", Other, NoUtf8EscapingWithSuffixes, "http.server.duration_seconds"),
            ("http.requests_total", "1", Counter, NoUtf8EscapingWithSuffixes, "http.requests_total"),
            ("foo", "By/s", Counter, NoUtf8EscapingWithSuffixes, "foo_bytes_per_second_total"),
            ("http.server.duration", "s", Counter, NoTranslation, "http.server.duration"),
        ] {
            assert_eq!(
                metric_name(name, unit, kind, strategy).as_deref(),
                Ok(want),
                "{name} {unit} {kind:?}"
            );
        }
        for bad in ["", "...", "é"] {
            assert!(metric_name(bad, "", Gauge, UnderscoreEscapingWithSuffixes).is_err(), "{bad}");
        }
    }

    #[test]
    fn units_are_words() {
        for (unit, want) in [
            ("s", "seconds"),
            ("By/s", "bytes_per_second"),
            ("1", ""),
            ("{things}", ""),
            ("requests/s", "requests_per_second"),
            ("%", "percent"),
        ] {
            assert_eq!(unit_name(unit), want, "{unit}");
        }
    }

    #[test]
    fn labels_are_named_as_prometheus_does() {
        let check = |name: &str, settings: &OtlpSettings, want: Option<&str>| {
            assert_eq!(label_name(name, settings).ok().as_deref(), want, "{name}");
        };
        let defaults = OtlpSettings::default();
        for (name, want) in [
            ("http.method", Some("http_method")),
            ("123invalid", Some("key_123invalid")),
            ("_private", Some("key_private")),
            ("__reserved__", Some("__reserved__")),
            ("a..b", Some("a__b")),
            ("été", Some("key_t_")),
            ("", None),
            ("__", None),
        ] {
            check(name, &defaults, want);
        }
        let collapsing =
            OtlpSettings { label_name_preserve_multiple_underscores: false, ..OtlpSettings::default() };
        check("a..b", &collapsing, Some("a_b"));
        check("__a..b__", &collapsing, Some("__a_b__"));
        let utf8 = OtlpSettings { translation_strategy: NoTranslation, ..OtlpSettings::default() };
        check("http.method", &utf8, Some("http.method"));
    }
}
