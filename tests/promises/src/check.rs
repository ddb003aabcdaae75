//! Reading everything back: what is missing, doubled or wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use chronolith_testkit::{Answer, Chronolith, http, wait_until};

use crate::load::{Ledger, METRIC, Sample};

/// How long what a down or slow node holds may take to be in every answer.
const PATIENCE: Duration = Duration::from_secs(90);
/// Findings that are told of each kind.
const TOLD_MAX: usize = 5;

/// What reading back has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged samples that are not there.
    pub missing: usize,
    /// Samples whose time a series has twice.
    pub doubled: usize,
    /// Samples of another value than was written.
    pub wrong: usize,
    /// The first findings of each kind.
    pub told: Vec<String>,
}

impl Verdict {
    fn tell(&mut self, count: usize, text: impl FnOnce() -> String) {
        if count < TOLD_MAX {
            self.told.push(text());
        }
    }

    /// Compares a series' samples with what was acknowledged. Samples that were sent but not acknowledged may be there.
    fn judge(&mut self, series: &str, expected: &[Sample], found: &[(i64, f64)]) {
        let mut values = BTreeMap::new();
        for &(t, value) in found {
            if values.insert(t, value).is_some() {
                self.tell(self.doubled, || format!("{series}: doubled at {t}"));
                self.doubled += 1;
            }
        }
        for sample in expected {
            match values.get(&sample.t) {
                None => {
                    self.tell(self.missing, || format!("{series}: {sample:?} is missing"));
                    self.missing += 1;
                }
                Some(value) if *value != sample.value => {
                    self.tell(self.wrong, || format!("{series}: {sample:?} has become {value}"));
                    self.wrong += 1;
                }
                Some(_) => {}
            }
        }
    }
}

/// Reads everything through a deduplicating query.
pub fn check(ledger: &Ledger, querier: &Chronolith) -> Verdict {
    judge(ledger, |writer, samples| {
        let found = read(querier, writer, samples, true);
        found
            .into_iter()
            .map(|(series, replicas)| (series, replicas.into_iter().flatten().collect()))
            .collect()
    })
}

/// Reads everything without deduplication: a sample is there when one replica has it, doubled when one replica has it twice.
pub fn check_replicas(ledger: &Ledger, querier: &Chronolith) -> Verdict {
    let mut doubled = Verdict::default();
    let mut verdict = judge(ledger, |writer, samples| {
        let mut union = BTreeMap::new();
        for (series, replicas) in read(querier, writer, samples, false) {
            let all: &mut Vec<(i64, f64)> = union.entry(series.clone()).or_default();
            for mut replica in replicas {
                doubled.judge(&series, &[], &replica);
                all.append(&mut replica);
            }
            all.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            all.dedup();
        }
        union
    });
    verdict.doubled += doubled.doubled;
    verdict.told.extend(doubled.told);
    verdict
}

/// [`check`], until nothing is missing: a node that was away may have to be told first. Doubled or wrong samples fail at once.
///
/// # Panics
/// With what was found.
pub fn check_soon(ledger: &Ledger, querier: &Chronolith) {
    let mut last = Verdict::default();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("all acknowledged samples", PATIENCE, || {
            last = check(ledger, querier);
            assert_eq!((last.doubled, last.wrong), (0, 0), "{last:#?}");
            (last.missing == 0).then_some(())
        });
    }));
    assert!(outcome.is_ok(), "deduplicated reading: {last:#?}");
}

fn judge(
    ledger: &Ledger,
    mut read: impl FnMut(usize, &[Sample]) -> BTreeMap<String, Vec<(i64, f64)>>,
) -> Verdict {
    let mut verdict = Verdict::default();
    for writer in 0..ledger.writers() {
        let samples = ledger.of(writer);
        if samples.is_empty() {
            continue;
        }
        let found = read(writer, &samples);
        for s in 0..ledger.series {
            let name = format!("writer {writer}, series {s}");
            let found = found.get(&s.to_string()).map_or(&[][..], Vec::as_slice);
            verdict.judge(&name, &samples, found);
        }
    }
    verdict
}

/// The samples of a writer's series, by its `series` label, one list a replica.
fn read(
    querier: &Chronolith,
    writer: usize,
    samples: &[Sample],
    dedup: bool,
) -> BTreeMap<String, Vec<Vec<(i64, f64)>>> {
    let (first, last) = (samples[0].t, samples[samples.len() - 1].t);
    // The window is open on the left.
    let query = format!("{METRIC}{{writer=\"{writer}\"}}[{}ms]", last - first + 1);
    let time = format!("{}.{:03}", last / 1000, last % 1000);
    let form = format!("query={}&time={time}&dedup={dedup}", http::encode(&query));
    let reply = http::post_form(&querier.url("/api/v1/query"), &form).expect("the querier answers");
    let answer = Answer::of(&reply);
    assert_eq!(answer.body["status"], "success", "{}", answer.body);
    let mut found: BTreeMap<String, Vec<Vec<(i64, f64)>>> = BTreeMap::new();
    for one in answer.body["data"]["result"].as_array().expect("a matrix") {
        let series = one["metric"]["series"].as_str().expect("the label that was written").to_owned();
        let values = one["values"].as_array().expect("points");
        let points = values.iter().map(|p| {
            let t = (p[0].as_f64().expect("a time") * 1000.0).round() as i64;
            (t, p[1].as_str().and_then(|v| v.parse().ok()).expect("a value"))
        });
        found.entry(series).or_default().push(points.collect());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_doubled_or_wrong_is_found() {
        let expected = [(1, 1.0), (2, 2.0), (3, 3.0)].map(|(t, value)| Sample { t, value });
        let mut good = Verdict::default();
        good.judge("s", &expected, &[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
        assert_eq!(good, Verdict::default());
        let mut bad = Verdict::default();
        bad.judge("s", &expected, &[(1, 1.0), (1, 1.0), (2, 7.0)]);
        assert_eq!((bad.missing, bad.doubled, bad.wrong, bad.told.len()), (1, 1, 1, 3));
    }
}
