//! What an archive holds, how it is asked for, and what an answer is worth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use chronolith_testkit::{Answer, http, wait_until};
use parking_lot::RwLock;

use super::{BASE_MS, METRIC, PATIENCE};

/// Findings that are told.
const TOLD_MAX: usize = 5;

/// What an answer of the querier was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Everything was there.
    Complete,
    /// Something was missing, and the answer said so.
    Partial,
    /// There was no answer: the querier said why.
    Failed,
}

pub(super) type Samples = Arc<Vec<(i64, f64)>>;

/// What is in the bucket, and who answers for it.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) url: String,
    /// By `group` and `n`.
    pub(super) series: RwLock<BTreeMap<(String, String), Samples>>,
}

/// What an answer lacks.
pub(super) struct Found {
    pub(super) missing: Vec<String>,
    pub(super) warned: bool,
}

impl Content {
    /// Asks for everything and looks for these. `None` when the query failed.
    pub(super) fn ask(&self, series: &BTreeMap<(String, String), Samples>) -> Option<Found> {
        let last = series.values().filter_map(|s| Some(s.last()?.0)).max().unwrap_or(BASE_MS);
        let query = format!("{METRIC}[{}ms]", last - BASE_MS + 1);
        let time = format!("{}.{:03}", last / 1000, last % 1000);
        let form = format!("query={}&time={time}", http::encode(&query));
        let reply = http::post_form(&self.url, &form).expect("the querier answers");
        let answer = Answer::of(&reply);
        if answer.body["status"] != "success" {
            return None;
        }
        let warned = answer.body["warnings"].as_array().is_some_and(|w| !w.is_empty());
        let mut found: BTreeMap<(String, String), Vec<(i64, f64)>> = BTreeMap::new();
        for (labels, points) in answer.points(&["__name__"]) {
            let label = |name: &str| labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            let key = (label("group").expect("an external label"), label("n").expect("an own label"));
            let points = points.into_iter().map(|(t, v)| ((t * 1000.0).round() as i64, v));
            let double = found.insert(key.clone(), points.collect());
            assert!(double.is_none(), "{key:?} is there twice: {labels:?}");
        }
        let mut missing = Vec::new();
        for (key, wanted) in series {
            let got = found.get(key).map_or(&[][..], Vec::as_slice);
            judge(key, wanted, got, &mut missing);
        }
        Some(Found { missing, warned })
    }

    pub(super) fn read(&self) -> Reading {
        let series = self.series.read().clone();
        let Some(Found { mut missing, warned }) = self.ask(&series) else { return Reading::Failed };
        if missing.is_empty() && !warned {
            return Reading::Complete;
        }
        let count = missing.len();
        missing.truncate(TOLD_MAX);
        assert!(warned, "{count} samples are missing, and nothing was said of it: {missing:?}");
        Reading::Partial
    }
}

/// Fails where a sample is none of those wanted, or there twice; adds those that are not there.
fn judge(key: &(String, String), wanted: &[(i64, f64)], got: &[(i64, f64)], missing: &mut Vec<String>) {
    let mut wanted = wanted.iter().peekable();
    for point in got {
        while let Some(gone) = wanted.next_if(|w| w.0 < point.0) {
            missing.push(format!("{key:?} at {}", gone.0));
        }
        let known = wanted.next();
        assert!(known == Some(point), "{key:?}: {point:?} is doubled or wrong, wanted {known:?}");
    }
    missing.extend(wanted.map(|gone| format!("{key:?} at {}", gone.0)));
}

#[derive(Debug, Default)]
struct Counts {
    complete: AtomicUsize,
    partial: AtomicUsize,
    failed: AtomicUsize,
}

/// Somebody who asks for everything, on and on.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(content: &Arc<Content>) -> Self {
        let (content, stop) = (Arc::clone(content), Arc::new(AtomicBool::new(false)));
        let counts = Arc::new(Counts::default());
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                let count = match content.read() {
                    Reading::Complete => &counted.complete,
                    Reading::Partial => &counted.partial,
                    Reading::Failed => &counted.failed,
                };
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Watch { stop, counts, thread: Some(thread) }
    }

    /// Waits for so many more answers.
    pub fn wait_for(&self, answers: usize) {
        let count = || self.complete() + self.partial() + self.failed();
        let wanted = count() + answers;
        wait_until("answers", PATIENCE, || {
            let over = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            (over || count() >= wanted).then_some(())
        });
    }

    /// Complete answers so far.
    pub fn complete(&self) -> usize {
        self.counts.complete.load(Ordering::SeqCst)
    }

    /// Answers that said that something was missing.
    pub fn partial(&self) -> usize {
        self.counts.partial.load(Ordering::SeqCst)
    }

    /// Queries that failed.
    pub fn failed(&self) -> usize {
        self.counts.failed.load(Ordering::SeqCst)
    }

    /// Ends it.
    ///
    /// # Panics
    /// When an answer was wrong.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let (complete, partial, failed) = (self.complete(), self.partial(), self.failed());
            thread.join().expect("every answer was complete, or said what was missing");
            eprintln!("{complete} complete answers, {partial} partial, {failed} failed");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_and_what_is_wrong_fails() {
        let key = ("a".to_owned(), "0".to_owned());
        let wanted = [(1, 1.0), (2, 2.0), (3, 3.0)];
        let mut missing = Vec::new();
        judge(&key, &wanted, &wanted, &mut missing);
        assert!(missing.is_empty());
        judge(&key, &wanted, &wanted[1..2], &mut missing);
        assert_eq!(missing.len(), 2);
        for bad in [&[(1, 1.0), (1, 1.0)][..], &[(1, 2.0)], &[(0, 1.0)], &[(4, 1.0)]] {
            let judged = std::panic::catch_unwind(|| judge(&key, &wanted, bad, &mut Vec::new()));
            assert!(judged.is_err(), "{bad:?}");
        }
    }
}
