//! Whether two answers say the same.

use serde_json::Value;

/// Sums of floats differ by the order of their terms.
const RELATIVE: f64 = 1e-6;

/// How two replies' `data` differ, by the place of the first difference; `None` when they do not.
pub(super) fn difference(a: &[u8], b: &[u8]) -> Option<String> {
    let parse = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
    let (Some(a), Some(b)) = (parse(a), parse(b)) else { return Some("not JSON".to_owned()) };
    let mut place = String::from("data");
    (!same(&a["data"], &b["data"], &mut place)).then_some(place)
}

fn same(a: &Value, b: &Value, place: &mut String) -> bool {
    let at = place.len();
    let mut step = |name: String, x: &Value, y: &Value| {
        place.truncate(at);
        place.push_str(&name);
        same(x, y, place)
    };
    match (a, b) {
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            x.iter().zip(y).enumerate().all(|(i, (x, y))| step(format!("[{i}]"), x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            // One says more of how it went (`analysis`) than the other: what both have counts.
            x.iter().all(|(k, x)| y.get(k).is_none_or(|y| step(format!(".{k}"), x, y)))
        }
        (Value::String(x), Value::String(y)) => x == y || close(x, y),
        (Value::Number(x), Value::Number(y)) => x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

fn close(x: &str, y: &str) -> bool {
    let (Ok(x), Ok(y)) = (x.parse::<f64>(), y.parse::<f64>()) else { return false };
    (x - y).abs() <= RELATIVE * x.abs().max(y.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_differ_a_little() {
        let with = |v: &str, t: i64| {
            format!(r#"{{"data":{{"result":[{{"metric":{{"a":"b"}},"values":[[1,"0"],[{t},"{v}"]]}}]}}}}"#)
        };
        let base = with("1.5", 2);
        assert_eq!(difference(base.as_bytes(), with("1.5000000001", 2).as_bytes()), None);
        let other = difference(base.as_bytes(), with("1.51", 2).as_bytes());
        assert_eq!(other.as_deref(), Some("data.result[0].values[1][1]"));
        assert!(difference(base.as_bytes(), with("1.5", 3).as_bytes()).is_some());
        assert!(difference(base.as_bytes(), b"x").is_some());
    }
}
