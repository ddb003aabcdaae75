//! Configuration files and flag values, read as the Go programs we stand beside read them.
//!
//! YAML: Prometheus and Thanos use Go's yaml.v2/v3, which refuses double keys, follows merge keys (`<<: *base`) and takes
//! `yes`/`on`/`no`/`off` for truth values. [`load_yaml`] does the first two for every type; [`go_bool`] is for fields.
//! An unknown key is an error that names the key and its line, as long as the type says `deny_unknown_fields`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The largest configuration file: rule files of the biggest installations are a few MB.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why a configuration was refused. The process ends with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be. The text names the key and the line where they are known.
    #[error("{origin}: {text}")]
    Invalid {
        /// The file or flag.
        origin: String,
        /// What is wrong.
        text: String,
    },
}

impl ConfigError {
    /// A refusal of a value that came from `origin` (a file or a flag).
    pub fn invalid(origin: impl fmt::Display, text: impl fmt::Display) -> Self {
        ConfigError::Invalid { origin: origin.to_string(), text: text.to_string() }
    }
}

/// Reads a YAML file.
pub fn load_yaml_file<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = read_file(path)?;
    load_yaml(&path.display().to_string(), &text)
}

/// Reads a whole configuration file.
pub fn read_file(path: &Path) -> Result<String, ConfigError> {
    let fail = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(fail)?.len();
    if bytes > FILE_BYTES_MAX {
        let text = format!("{bytes} bytes, more than {FILE_BYTES_MAX}");
        return Err(ConfigError::invalid(path.display(), text));
    }
    std::fs::read_to_string(path).map_err(fail)
}

/// The content of a `--x.config` / `--x.config-file` pair: at most one of them may be given.
pub fn inline_or_file(
    flag: &str,
    inline: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<(String, String)>, ConfigError> {
    match (inline, file) {
        (Some(_), Some(_)) => Err(ConfigError::invalid(
            format!("--{flag}"),
            format!("give either --{flag} or --{flag}-file, not both"),
        )),
        (Some(text), None) => Ok(Some((format!("--{flag}"), text.to_owned()))),
        (None, Some(path)) => Ok(Some((path.display().to_string(), read_file(path)?))),
        (None, None) => Ok(None),
    }
}

/// Reads YAML text; `origin` is named in errors.
pub fn load_yaml<T: DeserializeOwned>(origin: &str, text: &str) -> Result<T, ConfigError> {
    let invalid = |error: serde_yaml::Error| ConfigError::invalid(origin, error);
    serde_yaml::from_str::<UniqueKeys>(text).map_err(invalid)?;
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(invalid)?;
    value.apply_merge().map_err(invalid)?;
    if value.is_null() {
        // Go leaves its defaults alone for an empty document.
        value = serde_yaml::Value::Mapping(Default::default());
    }
    serde_yaml::from_value(value).map_err(|error| {
        // A value has no lines; reading the text once more finds the place, unless only the merge made it wrong.
        match serde_yaml::from_str::<T>(text) {
            Err(placed) if placed.location().is_some() => invalid(placed),
            _ => invalid(error),
        }
    })
}

/// Walks a document and refuses a map with a double key.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML document")
    }

    fn visit_bool<E>(self, _: bool) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_i64<E>(self, _: i64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_u64<E>(self, _: u64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_f64<E>(self, _: f64) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_str<E>(self, _: &str) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_unit<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_none<E>(self) -> Result<UniqueKeys, E> {
        Ok(UniqueKeys)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<UniqueKeys, D::Error> {
        UniqueKeys::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<UniqueKeys, D::Error> {
        UniqueKeys::deserialize(deserializer)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<UniqueKeys, A::Error> {
        use serde::de::VariantAccess;
        let (_, content) = access.variant::<String>()?;
        content.newtype_variant::<UniqueKeys>()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<UniqueKeys, A::Error> {
        while seq.next_element::<UniqueKeys>()?.is_some() {}
        Ok(UniqueKeys)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<serde_yaml::Value>()? {
            if seen.contains(&key) {
                let name = match &key {
                    serde_yaml::Value::String(name) => name.clone(),
                    other => format!("{other:?}"),
                };
                return Err(de::Error::custom(format!("key {name:?} stands twice in the same map")));
            }
            map.next_value::<UniqueKeys>()?;
            seen.insert(key);
        }
        Ok(UniqueKeys)
    }
}

/// A text, as yaml.v2 reads one: whole numbers and truth values are texts, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoString(pub String);

impl<'de> Deserialize<'de> for GoString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = GoString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<GoString, E> {
                Ok(GoString(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<GoString, E> {
                Ok(GoString(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<GoString, E> {
                Ok(GoString(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<GoString, E> {
                Ok(GoString(value.to_string()))
            }

            // How it was written is not known any more: 1.10 would become 1.1.
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<GoString, E> {
                Err(E::custom(format!("{value} where a string belongs: put it into quotes")))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// `#[serde(deserialize_with = "go_bool")]`: also takes YAML 1.1's `yes`, `no`, `on`, `off`, `y`, `n`.
pub fn go_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    struct GoBool;
    impl Visitor<'_> for GoBool {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
            Ok(value)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
            match text.to_ascii_lowercase().as_str() {
                "y" | "yes" | "on" | "true" => Ok(true),
                "n" | "no" | "off" | "false" => Ok(false),
                _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            }
        }
    }
    deserializer.deserialize_any(GoBool)
}

/// A span of time in a flag or file: Prometheus's form (`15d`, `1h30m`) and Go's (`1.5h`, `300us`, `1m0s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationMs(pub i64);

impl std::str::FromStr for DurationMs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        chronolith_model::parse_duration_ms(text).or_else(|| go_duration_ms(text)).map(DurationMs).ok_or_else(
            || format!("not a duration: {text:?}, want a number with a unit, like 15s, 2h or 30d"),
        )
    }
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chronolith_model::format_duration_ms(self.0))
    }
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for DurationMs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Go's `time.ParseDuration`, without signs; parts of a millisecond are cut off.
fn go_duration_ms(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ms = match unit {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit_ms;
        rest = tail;
    }
    // i64 nanoseconds is Go's own bound.
    (!text.is_empty() && total <= 9.2e12).then_some(total as i64)
}

/// A size in a flag or file: `250MB`, `2GiB`, `512KB`, `1024` or `0`. As in Thanos and Prometheus, units are powers of
/// 1024 with and without the `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("not a size: {text:?}, want a number with a unit, like 512MB or 2GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start().to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            "P" | "PB" | "PIB" => 50,
            _ => return Err(bad()),
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(ByteSize).ok_or_else(bad);
        }
        let fraction: f64 = number.parse().map_err(|_| bad())?;
        let bytes = fraction * (1u64 << shift) as f64;
        if bytes < 1e18 { Ok(ByteSize(bytes as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A `--label` flag: `name="value"` or `name=value`.
pub fn parse_label_flag(text: &str) -> Result<(String, String), String> {
    let bad = || format!("not a label: {text:?}, want name=\"value\"");
    let (name, value) = text.split_once('=').ok_or_else(bad)?;
    let (name, value) = (name.trim(), value.trim());
    if !chronolith_model::is_legacy_label_name(name) {
        return Err(bad());
    }
    let value = match value.strip_prefix('"') {
        Some(inner) => {
            let inner = inner.strip_suffix('"').ok_or_else(bad)?;
            if inner.contains('\\') {
                serde_json::from_str(value).map_err(|_| bad())?
            } else {
                inner.to_owned()
            }
        }
        None => value.to_owned(),
    };
    if value.is_empty() { Err(bad()) } else { Ok((name.to_owned(), value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        name: String,
        #[serde(deserialize_with = "go_bool")]
        on: bool,
        every: DurationMs,
        inner: std::collections::BTreeMap<String, i64>,
    }

    fn error(text: &str) -> String {
        load_yaml::<Sample>("x.yml", text).unwrap_err().to_string()
    }

    #[test]
    fn go_yaml_rules() {
        let sample: Sample = load_yaml("x.yml", "name: a\non: yes\nevery: 1h30m\ninner: {a: 1}\n").unwrap();
        assert_eq!((sample.on, sample.every, sample.inner["a"]), (true, DurationMs(5_400_000), 1));
        assert_eq!(load_yaml::<Sample>("x.yml", "").unwrap(), Sample::default());
        assert_eq!(load_yaml::<Sample>("x.yml", "# only a comment\n").unwrap(), Sample::default());
        #[derive(Deserialize)]
        struct Merged {
            b: std::collections::BTreeMap<String, i64>,
        }
        let merged: Merged = load_yaml("m.yml", "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n").unwrap();
        assert_eq!((merged.b["x"], merged.b["y"]), (1, 3));
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        let unknown = error("name: a\nnmae: b\n");
        assert!(
            unknown.starts_with("x.yml: ") && unknown.contains("nmae") && unknown.contains("line 2"),
            "{unknown}"
        );
        let double = error("inner:\n  a: 1\n  a: 2\n");
        assert!(double.contains("\"a\" stands twice") && double.contains("line"), "{double}");
        assert!(error("on: perhaps").contains("perhaps"));
        assert!(error("every: 5 apples").contains("5 apples"));
        assert!(error("name: [").contains("line"));
        assert!(error("name: a\n---\nname: b\n").contains("more than one document"));
    }

    #[test]
    fn durations_and_sizes_carry_units() {
        for (text, ms) in [
            ("15d", 1_296_000_000),
            ("0s", 0),
            ("1m0s", 60_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("2h", 7_200_000),
        ] {
            assert_eq!(text.parse::<DurationMs>(), Ok(DurationMs(ms)), "{text}");
        }
        for bad in ["", "5", "h", "5x", "-1s", "1..5s", "99999999999999d"] {
            assert!(bad.parse::<DurationMs>().is_err(), "{bad}");
        }
        for (text, bytes) in [("250MB", 250 << 20), ("2GiB", 2 << 30), ("0", 0), ("1.5KB", 1536), ("7B", 7)] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "MB", "5XB", "1e9GB", "99999999999999PB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(250 << 20).to_string(), "250MiB");
    }

    #[test]
    fn label_flags() {
        assert_eq!(parse_label_flag(r#"replica="a b""#), Ok(("replica".into(), "a b".into())));
        assert_eq!(parse_label_flag("replica=a"), Ok(("replica".into(), "a".into())));
        for bad in ["replica", "1x=\"a\"", "x=\"a", "x=\"\"", "="] {
            assert!(parse_label_flag(bad).is_err(), "{bad}");
        }
    }
}
