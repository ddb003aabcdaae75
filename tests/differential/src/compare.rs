//! When two answers are the same.

use serde_json::Value;

use crate::generate::{Case, Window};

/// Two floats are the same within this part of the larger one: sums depend on the order of addition.
const TOLERANCE: f64 = 1e-9;

/// How two answers relate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The same, to the last bit.
    Exact,
    /// The same within the tolerance.
    Close,
    /// Not the same.
    Different(String),
}

/// Compares two replies of the query API.
pub fn compare(case: &Case, ours: &Value, theirs: &Value) -> Outcome {
    match difference(case, ours, theirs) {
        Ok(true) => Outcome::Exact,
        Ok(false) => Outcome::Close,
        Err(what) => Outcome::Different(what),
    }
}

fn difference(case: &Case, ours: &Value, theirs: &Value) -> Result<bool, String> {
    for field in ["status", "errorType", "error"] {
        equal(field, &ours[field], &theirs[field])?;
    }
    equal("resultType", &ours["data"]["resultType"], &theirs["data"]["resultType"])?;
    let exact = results(case, &ours["data"]["result"], &theirs["data"]["result"])?;
    for field in ["warnings", "infos"] {
        annotations(field, &ours[field], &theirs[field])?;
    }
    Ok(exact)
}

fn equal(what: &str, ours: &Value, theirs: &Value) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: {ours} is not {theirs}")) }
}

fn results(case: &Case, ours: &Value, theirs: &Value) -> Result<bool, String> {
    let (Some(a), Some(b)) = (ours.as_array(), theirs.as_array()) else {
        return same("result", ours, theirs);
    };
    if a.iter().chain(b).any(|s| !s.is_object()) {
        // A scalar or a string: [time, value].
        return same("result", ours, theirs);
    }
    let metric = |s: &&Value| s["metric"].to_string();
    let (mut a, mut b): (Vec<&Value>, Vec<&Value>) = (a.iter().collect(), b.iter().collect());
    let query = case.expr.to_string();
    let instant = matches!(case.window, Window::Instant { .. });
    if instant && query.starts_with("sort") && a.len() == b.len() {
        // Ties of `sort` have no order; `sort_by_label` has none.
        for (i, (x, y)) in a.iter().zip(&b).enumerate() {
            let tied = !query.starts_with("sort_by_label");
            if tied {
                same(&format!("value at place {i}"), &x["value"], &y["value"])?;
            } else {
                equal(&format!("place {i}"), &x["metric"], &y["metric"])?;
            }
        }
    }
    // The order of an instant vector is free; a matrix is sorted.
    if instant {
        a.sort_by_key(metric);
        b.sort_by_key(metric);
    }
    let (names_a, names_b): (Vec<String>, Vec<String>) =
        (a.iter().map(metric).collect(), b.iter().map(metric).collect());
    if names_a != names_b {
        let only = |of: &[String], not: &[String]| {
            of.iter().filter(|n| !not.contains(n)).cloned().collect::<Vec<_>>().join(" ")
        };
        return Err(format!(
            "series: {} and {}; only ours: [{}], only theirs: [{}]",
            a.len(),
            b.len(),
            only(&names_a, &names_b),
            only(&names_b, &names_a)
        ));
    }
    let mut exact = true;
    for (x, y) in a.iter().zip(&b) {
        for field in ["value", "values", "histogram", "histograms"] {
            exact &= same(&format!("{field} of {}", x["metric"]), &x[field], &y[field])?;
        }
    }
    Ok(exact)
}

/// True when the same to the last bit.
fn same(what: &str, ours: &Value, theirs: &Value) -> Result<bool, String> {
    match (ours, theirs) {
        _ if ours == theirs => Ok(true),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut exact = true;
            for (x, y) in a.iter().zip(b) {
                // Points: say at what time.
                let at = match (a.len(), &a[0]) {
                    (2, Value::Number(t)) if x == &a[1] => format!("{what} at {t}"),
                    _ => what.to_owned(),
                };
                exact &= same(&at, x, y)?;
            }
            Ok(exact)
        }
        (Value::Array(a), Value::Array(b)) => {
            let times = |v: &[Value]| v.iter().map(|p| p[0].to_string()).collect::<Vec<_>>();
            let (a, b) = (times(a), times(b));
            let first = a.iter().zip(&b).find(|(x, y)| x != y);
            Err(format!("{what}: {} and {} points, first not the same: {first:?}", a.len(), b.len()))
        }
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            let mut exact = true;
            for (key, x) in a {
                exact &= same(&format!("{what}, {key}"), x, &b[key])?;
            }
            Ok(exact)
        }
        (Value::String(a), Value::String(b)) if close(a, b) => Ok(false),
        _ => Err(format!("{what}: {ours} is not {theirs}")),
    }
}

fn close(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    a == b || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// Annotations are a set; what exceeds ten of a kind is only counted, and which ten are shown is chance.
fn annotations(what: &str, ours: &Value, theirs: &Value) -> Result<(), String> {
    let list = |v: &Value| {
        let texts = v.as_array().into_iter().flatten().map(Value::to_string);
        let mut all: Vec<String> = texts.map(|t| without_sample_count(&t)).collect();
        all.sort();
        all
    };
    let (a, b) = (list(ours), list(theirs));
    let omitted = |l: &[String]| l.iter().find(|t| t.contains("annotations omitted")).cloned();
    let alike = |(x, y): (&String, &String)| {
        let (x, y) = (x.split(' '), y.split(' '));
        x.clone().count() == y.clone().count() && x.zip(y).all(|(x, y)| x == y || close(x, y))
    };
    if (a.len() == b.len() && a.iter().zip(&b).all(alike))
        || (omitted(&a).is_some() && omitted(&a) == omitted(&b))
    {
        return Ok(());
    }
    Err(format!("{what}: {a:?} is not {b:?}"))
}

/// The difference "monotonicity count".
fn without_sample_count(text: &str) -> String {
    match text.split_once(", over ") {
        Some((head, tail)) if text.contains("fixed for monotonicity") => {
            format!("{head}, over{}", tail.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-'))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expr::expr;

    fn outcome(query: &str, instant: bool, ours: Value, theirs: Value) -> Outcome {
        let window = match instant {
            true => Window::Instant { t: 0 },
            false => Window::Range { start: 0, end: 1, step: 1 },
        };
        compare(&Case { expr: expr!(Vector; query), window, lookback_s: None }, &ours, &theirs)
    }

    fn vector(values: &[(&str, &str)]) -> Value {
        let result: Vec<Value> =
            values.iter().map(|(m, v)| json!({"metric": {"a": m}, "value": [1, v]})).collect();
        json!({"status": "success", "data": {"resultType": "vector", "result": result}})
    }

    #[test]
    fn values_labels_order_and_annotations_count() {
        let a = vector(&[("x", "1"), ("y", "2")]);
        assert_eq!(outcome("up", true, a.clone(), a.clone()), Outcome::Exact);
        let near = vector(&[("x", "1.0000000000001"), ("y", "2")]);
        assert_eq!(outcome("up", true, a.clone(), near), Outcome::Close);
        let swapped = vector(&[("y", "2"), ("x", "1")]);
        assert_eq!(outcome("up", true, a.clone(), swapped.clone()), Outcome::Exact);
        let differs = |query, instant, other: Value| {
            matches!(outcome(query, instant, a.clone(), other), Outcome::Different(_))
        };
        assert!(differs("sort(up)", true, swapped.clone()));
        assert!(differs("up", false, swapped));
        assert!(differs("up", true, vector(&[("x", "1"), ("y", "NaN")])));
        assert!(differs("up", true, vector(&[("x", "1"), ("y", "2.0001")])));
        assert!(differs("up", true, vector(&[("x", "1")])));
        assert!(differs("up", true, vector(&[("x", "1"), ("z", "2")])));
        let mut warned = a.clone();
        warned["warnings"] = json!(["beware"]);
        assert!(differs("up", true, warned));
        assert!(differs("up", true, json!({"status": "error", "errorType": "bad_data", "error": "x"})));
    }
}
