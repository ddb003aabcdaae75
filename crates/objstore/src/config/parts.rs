//! Small readers that the configuration needs.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

use super::ConfigError;

pub(super) fn unsupported(key: &str, used: bool) -> Result<(), ConfigError> {
    if used { Err(ConfigError::Invalid(format!("config.{key} is not supported"))) } else { Ok(()) }
}

/// Reads a duration as Go and Prometheus write it: `1m30s`, `1.5h`, `2d`, `0`.
pub(super) fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let value = serde_yaml::Value::deserialize(deserializer)?;
    let parsed = match &value {
        serde_yaml::Value::String(text) => parse_go_duration(text),
        serde_yaml::Value::Number(n) if n.as_u64() == Some(0) => Some(Duration::ZERO),
        _ => None,
    };
    parsed.ok_or_else(|| D::Error::custom(format_args!("{value:?} is not a duration such as 1m30s")))
}

fn parse_go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_len = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest.get(..number_len).filter(|n| !n.is_empty())?.parse().ok()?;
        rest = &rest[number_len..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 7.0 * 86_400.0,
            "y" => 365.0 * 86_400.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[unit_len..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

/// Key, secret and token of the profile in AWS's shared credentials file, if there is one.
pub(crate) fn shared_credentials() -> Option<(String, String, Option<String>)> {
    let file =
        std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(std::path::PathBuf::from).or_else(|| {
            std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".aws").join("credentials"))
        })?;
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    parse_credentials(&std::fs::read_to_string(file).ok()?, &profile)
}

fn parse_credentials(text: &str, profile: &str) -> Option<(String, String, Option<String>)> {
    let section = format!("[{profile}]");
    let mut lines = text.lines().map(str::trim).skip_while(|l| *l != section).skip(1);
    let (mut id, mut secret, mut token) = (None, None, None);
    while let Some(line) = lines.next().filter(|l| !l.starts_with('[')) {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key.trim() {
            "aws_access_key_id" => id = Some(value.trim().to_owned()),
            "aws_secret_access_key" => secret = Some(value.trim().to_owned()),
            "aws_session_token" => token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    Some((id?, secret?, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| parse_go_duration(text).map(|d| d.as_millis());
        assert_eq!(
            [ms("1m30s"), ms("1.5h"), ms("250ms"), ms("0"), ms("2d")],
            [Some(90_000), Some(5_400_000), Some(250), Some(0), Some(172_800_000)]
        );
        for bad in ["", "1", "m", "1x", "-1s", "1m3"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn base64_pads() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, want) in cases {
            assert_eq!(base64(text.as_bytes()), want);
        }
    }

    #[test]
    fn credentials_come_from_the_profile() {
        let text =
            "[a]\naws_access_key_id=1\n[default]\naws_access_key_id = 2\n\naws_secret_access_key=s\n[b]\n";
        assert_eq!(parse_credentials(text, "default"), Some(("2".into(), "s".into(), None)));
        assert_eq!(parse_credentials(text, "a"), None);
    }
}
