//! Points of delta temporality, added up over several requests.

use std::time::Instant;

use parking_lot::Mutex;

use super::*;
use crate::otlp::Totals;
use crate::remote_write::LabelKey;

/// A receiver's memory between requests.
#[derive(Default)]
struct Receiver {
    totals: Mutex<Totals>,
    key: LabelKey,
    settings: OtlpSettings,
}

impl Receiver {
    /// What is stored of a request: series as lines, and why points were refused.
    fn takes(&self, metrics: Value) -> (Vec<String>, Vec<String>) {
        let body = request(service(), metrics);
        let (mut builder, mut rendered) = (WriteBatchBuilder::default(), BytesMut::new());
        let deltas = Deltas::new(&self.totals, &self.key, Instant::now());
        let read =
            translate(&body, &self.settings, Some(deltas), BYTES_MAX, &mut rendered, &mut builder).unwrap();
        let reasons = read.refused.rejections.into_iter().map(|r| r.reason).collect();
        (lines(&builder.finish_rendered(rendered.freeze())), reasons)
    }
}

fn sum(temporality: u8, path: &str, (start, t): (u64, u64), v: f64) -> Value {
    let (start, t) = (start * 1_000_000, t * 1_000_000);
    json!({"name": "hits", "sum": {"aggregationTemporality": temporality, "isMonotonic": true, "dataPoints": [{
        "startTimeUnixNano": start.to_string(), "timeUnixNano": t.to_string(), "asDouble": v,
        "attributes": [attribute("path", path)],
    }]}})
}

#[test]
fn sums_of_delta_temporality_become_cumulative() {
    let receiver = Receiver::default();
    let line = |path: &str, rest: &str| {
        format!("{{__name__=hits_total,instance=i-1,job=eu/shop,path={path}}} {rest}")
    };
    let takes = |metrics| {
        let (lines, reasons) = receiver.takes(metrics);
        let reasons: Vec<_> = reasons.into_iter().map(|r| r.chars().take(30).collect::<String>()).collect();
        (lines, reasons)
    };
    let nothing = Vec::<String>::new;
    let two = json!([sum(1, "/", (10, 20), 3.0), sum(1, "/b", (10, 20), 1.0)]);
    assert_eq!(takes(two.clone()), (vec![line("/", "3@20(10)"), line("/b", "1@20(10)")], nothing()));
    // The sender got no answer and repeats itself: the same samples, nothing twice.
    assert_eq!(takes(two), (vec![line("/", "3@20(10)"), line("/b", "1@20(10)")], nothing()));
    assert_eq!(takes(json!([sum(1, "/", (20, 30), 4.5)])), (vec![line("/", "7.5@30(10)")], nothing()));
    let (lines, reasons) = takes(json!([sum(1, "/", (20, 30), 5.0), sum(1, "/b", (20, 30), 1.0)]));
    assert_eq!(lines, [line("/b", "2@30(10)")], "the good part is stored");
    assert!(reasons[0].starts_with("delta point is not later"), "{reasons:?}");
    // Cumulative points beside them are what they are.
    assert_eq!(takes(json!([sum(2, "/c", (1, 30), 9.0)])), (vec![line("/c", "9@30(1)")], nothing()));
    // The end of a series.
    let mut end = sum(1, "/", (30, 40), 0.0);
    end["sum"]["dataPoints"][0]["flags"] = json!(1);
    assert_eq!(takes(json!([end])), (vec![line("/", "stale@40(30)")], nothing()));
    assert_eq!(takes(json!([sum(1, "/", (50, 60), 1.0)])), (vec![line("/", "1@60(50)")], nothing()));
}

#[test]
fn histograms_of_delta_temporality_become_cumulative() {
    let explicit = |(start, t): (u64, u64), counts: [u64; 2]| {
        let (start, t) = (start * 1_000_000, t * 1_000_000);
        json!([{"name": "lag", "histogram": {"aggregationTemporality": 1, "dataPoints": [{
            "startTimeUnixNano": start.to_string(), "timeUnixNano": t.to_string(), "count": counts[0] + counts[1],
            "sum": 2.0, "bucketCounts": counts, "explicitBounds": [5.0],
        }]}}])
    };
    let receiver = Receiver::default();
    receiver.takes(explicit((1, 2), [1, 2]));
    let same = "instance=i-1,job=eu/shop";
    let want = [
        format!("{{__name__=lag_sum,{same}}} 4@3(1)"),
        format!("{{__name__=lag_count,{same}}} 7@3(1)"),
        format!("{{__name__=lag_bucket,{same},le=5}} 4@3(1)"),
        format!("{{__name__=lag_bucket,{same},le=+Inf}} 7@3(1)"),
    ];
    assert_eq!(receiver.takes(explicit((2, 3), [3, 1])), (want.to_vec(), Vec::new()));

    let native = Receiver {
        settings: OtlpSettings { convert_histograms_to_nhcb: true, ..OtlpSettings::default() },
        ..Receiver::default()
    };
    native.takes(explicit((1, 2), [1, 2]));
    let (got, _) = native.takes(explicit((2, 3), [3, 1]));
    assert!(got[0].contains("[-53 n=7 sum=4 zero=0 +(0+2)[4, -1]") && got[0].contains("@3(1)"), "{got:?}");

    let exponential = |(start, t): (u64, u64), scale: i32, counts: Value| {
        let (start, t) = (start * 1_000_000, t * 1_000_000);
        json!([{"name": "size", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [{
            "startTimeUnixNano": start.to_string(), "timeUnixNano": t.to_string(), "count": 10, "sum": 1.0,
            "scale": scale, "zeroCount": 1, "positive": {"offset": 0, "bucketCounts": counts},
        }]}}])
    };
    receiver.takes(exponential((1, 2), 1, json!([1, 2, 3, 4])));
    let (got, _) = receiver.takes(exponential((2, 3), 0, json!([10])));
    // Scale 1 becomes 0: 1+2 and 3+4, then 10 more in the first.
    assert!(got[0].contains("[0 n=20 sum=2 zero=2 +(1+2)[13, -6]"), "{got:?}");
    assert!(got[0].contains("@3(1)"), "{got:?}");
}
