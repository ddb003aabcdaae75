//! Answers of the query API, and what makes two of them the same.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::Response;

/// A parsed answer: label set to points.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The whole reply.
    pub body: Value,
}

/// Points by label set, labels as sorted pairs.
pub type Points = BTreeMap<Vec<(String, String)>, Vec<(f64, f64)>>;

impl Answer {
    /// Parses a reply.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn of(reply: &Response) -> Self {
        let body = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {} {}", reply.status, reply.text()));
        Answer { status: reply.status, body }
    }

    /// The result's points by label set, without the labels in `ignore`.
    ///
    /// # Panics
    /// When the answer is an error or not a vector or matrix.
    pub fn points(&self, ignore: &[&str]) -> Points {
        assert_eq!(self.body["status"], "success", "{}", self.body);
        let series = self.body["data"]["result"].as_array().expect("a vector or matrix");
        series
            .iter()
            .map(|s| {
                let metric = s["metric"].as_object().expect("a label object");
                let labels = metric
                    .iter()
                    .filter(|(name, _)| !ignore.contains(&name.as_str()))
                    .map(|(n, v)| (n.clone(), v.as_str().expect("label values are strings").to_owned()))
                    .collect();
                let points = match s["values"].as_array() {
                    Some(values) => values.iter().map(point).collect(),
                    None => vec![point(&s["value"])],
                };
                (labels, points)
            })
            .collect()
    }

    /// The single value of an instant query that gives one series.
    pub fn single(&self) -> Option<f64> {
        let points = self.points(&[]);
        assert!(points.len() <= 1, "more than one series: {points:?}");
        points.into_values().next().map(|p| p[0].1)
    }

    /// The list in `data` (label calls).
    pub fn strings(&self) -> Vec<String> {
        let list = self.body["data"].as_array().expect("a list");
        list.iter().map(|v| v.as_str().expect("strings").to_owned()).collect()
    }
}

fn point(pair: &Value) -> (f64, f64) {
    let t = pair[0].as_f64().expect("a timestamp");
    let v = pair[1].as_str().expect("values are strings");
    (t, v.replace("Inf", "inf").parse().expect("a float"))
}

/// Fails when two answers differ in series, in times, or in values by more than a relative 1e-9 (sums of floats
/// depend on the order of addition).
pub fn assert_same(what: &str, ours: &Points, theirs: &Points) {
    let names = |p: &Points| p.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs), "{what}: series differ");
    for (labels, points) in ours {
        let expected = &theirs[labels];
        let times = |p: &[(f64, f64)]| p.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(times(points), times(expected), "{what}: times of {labels:?} differ");
        for ((t, a), (_, b)) in points.iter().zip(expected) {
            let same = a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            assert!(same, "{what}: {labels:?} at {t}: {a} is not {b}");
        }
    }
}
