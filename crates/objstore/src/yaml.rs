//! YAML as Go reads it.
//!
//! Prometheus and Thanos read their files with Go's yaml package, which differs from serde's in ways that users
//! meet: duplicate keys are errors, `<<` merges, `yes`/`on` are booleans, and `key:` with nothing behind it is the
//! key's default. [`from_str`] does all of it on the way to a typed value.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_yaml::{Mapping, Value};

/// Reads one document into `T`. Unknown keys are reported when `T` denies them; the error names the key.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    from_value(value_from_str(text)?)
}

/// Reads one document into a plain value, with duplicates refused, merges applied and empty keys removed.
pub fn value_from_str(text: &str) -> Result<Value, serde_yaml::Error> {
    let Strict(mut value) = serde_yaml::from_str(text)?;
    value.apply_merge()?;
    drop_nulls(&mut value);
    if value.is_null() {
        value = Value::Mapping(Mapping::new());
    }
    Ok(value)
}

/// The typed form of a value made by [`value_from_str`].
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, serde_yaml::Error> {
    serde_yaml::from_value(value)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Mapping(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Sequence(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A value whose maps have unique keys.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(A::Error::custom("tags (!name) are not supported"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Mapping::new();
        while let Some((Strict(key), Strict(value))) = map.next_entry()? {
            if out.contains_key(&key) {
                let name = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
                return Err(A::Error::custom(format_args!("key {name:?} stands twice")));
            }
            out.insert(key, value);
        }
        Ok(Value::Mapping(out))
    }
}

/// Reads Go's spellings of a boolean; for `#[serde(deserialize_with = "…")]`.
pub fn go_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(b) => Ok(b),
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "y" | "yes" | "on" | "true" => Ok(true),
            "n" | "no" | "off" | "false" | "" => Ok(false),
            _ => Err(D::Error::custom(format_args!("{s:?} is not a boolean"))),
        },
        other => Err(D::Error::custom(format_args!("{other:?} is not a boolean"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Plain {
        #[serde(deserialize_with = "go_bool")]
        flag: bool,
        name: String,
        count: u32,
    }

    #[test]
    fn reads_as_go_does() {
        let cases = [
            ("flag: yes\nname: x", Plain { flag: true, name: "x".into(), count: 0 }),
            ("flag: Off\nname:\ncount: 3", Plain { flag: false, name: String::new(), count: 3 }),
            ("name: ~", Plain::default()),
            ("", Plain::default()),
        ];
        for (text, want) in cases {
            assert_eq!(from_str::<Plain>(text).unwrap(), want, "{text:?}");
        }
        let merged: Value = value_from_str("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2").unwrap();
        assert_eq!(merged["b"]["x"], Value::from(1));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, part) in
            [("name: a\nname: b", "\"name\""), ("nme: a", "nme"), ("flag: maybe", "maybe"), ("a: [", "")]
        {
            let err = from_str::<Plain>(text).unwrap_err().to_string();
            assert!(err.contains(part), "{text:?}: {err}");
        }
    }
}
