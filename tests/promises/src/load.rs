//! Writers that behave as Prometheus's remote write does, and remember what was acknowledged.
//!
//! A writer has some series, sends one sample of each in a request, and sends a request again and again until it is
//! acknowledged: after connection errors, 5xx and 429 it comes back, any other answer ends the test. One request of a writer
//! is in flight at a time, so the samples of a series are sent in order, as by a Prometheus shard.
//!
//! Times are the wall clock's; values count the requests. So time and value of a sample say each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chronolith_testkit::{TestSeries, http, wait_until, write_body};
use parking_lot::{Mutex, RwLock};

/// The metric that writers write.
pub(crate) const METRIC: &str = "promises_sample";
/// A writer that has got no acknowledgement for so long, whatever it is told, has met a bug.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first pause before a repetition, and the longest: Prometheus's are 30 ms and 5 s; the test has less time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(500));

/// How much is written.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Writers, each with its own series, side by side.
    pub writers: usize,
    /// Series of a writer.
    pub series: usize,
    /// Pause between two requests of a writer.
    pub pause: Duration,
    /// Milliseconds between two samples of a series at the least.
    pub step_ms: i64,
    /// How long a request may take: Prometheus's `remote_timeout`, 30 s.
    pub timeout: Duration,
    /// `THANOS-TENANT`.
    pub tenant: Option<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            writers: 3,
            series: 12,
            pause: Duration::from_millis(15),
            step_ms: 1,
            timeout: Duration::from_secs(30),
            tenant: None,
        }
    }
}

/// An acknowledged sample of every series of a writer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds.
    pub t: i64,
    /// The value.
    pub value: f64,
}

/// What was acknowledged, by writer, and what else was answered.
#[derive(Debug)]
pub struct Ledger {
    /// Series of each writer.
    pub series: usize,
    writers: Vec<Mutex<Vec<Sample>>>,
    /// Answers that made a writer come back: status (0 for none) and how often.
    retried: Mutex<BTreeMap<u16, usize>>,
    /// The newest reason of a repetition.
    reason: Mutex<String>,
    /// Answers that a writer must not get.
    refused: Mutex<Vec<String>>,
    acknowledged: AtomicUsize,
    /// The slowest acknowledged request.
    slowest: Mutex<Duration>,
}

impl Ledger {
    /// Acknowledged samples of a writer's series, ascending.
    pub fn of(&self, writer: usize) -> Vec<Sample> {
        self.writers[writer].lock().clone()
    }

    /// Number of writers.
    pub fn writers(&self) -> usize {
        self.writers.len()
    }

    /// Requests acknowledged so far, of all writers.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How often a writer had to come back, by status; 0 stands for connections that failed.
    pub fn retried(&self) -> BTreeMap<u16, usize> {
        self.retried.lock().clone()
    }

    /// Repetitions because of 5xx answers so far.
    pub fn server_errors(&self) -> usize {
        self.retried.lock().iter().filter(|(status, _)| **status >= 500).map(|(_, n)| n).sum()
    }

    /// Why a writer last had to come back.
    pub fn last_reason(&self) -> String {
        self.reason.lock().clone()
    }

    /// The slowest acknowledged request so far.
    pub fn slowest(&self) -> Duration {
        *self.slowest.lock()
    }
}

#[derive(Debug)]
struct Shared {
    targets: RwLock<Vec<String>>,
    options: LoadOptions,
    stop: AtomicBool,
    /// The test is over: nobody is left to send to.
    abandon: AtomicBool,
    ledger: Arc<Ledger>,
}

/// Writers at work. Dropping them stops them.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts to write to `targets` (URLs), one after the other, as behind a load balancer.
    pub fn start(targets: Vec<String>, options: LoadOptions) -> Self {
        let ledger = Arc::new(Ledger {
            series: options.series,
            writers: (0..options.writers).map(|_| Mutex::default()).collect(),
            retried: Mutex::default(),
            reason: Mutex::default(),
            refused: Mutex::default(),
            acknowledged: AtomicUsize::new(0),
            slowest: Mutex::default(),
        });
        let writers = options.writers;
        let shared = Arc::new(Shared {
            targets: RwLock::new(targets),
            options,
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            ledger,
        });
        let threads = (0..writers)
            .map(|writer| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.write_on(writer))
            })
            .collect();
        Load { shared, threads }
    }

    /// What has happened so far.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// What the load balancer sends to, from the next attempt on.
    pub fn set_targets(&self, targets: Vec<String>) {
        *self.shared.targets.write() = targets;
    }

    /// Waits until `count` more requests of each writer have been acknowledged: how long a test's moment is.
    ///
    /// # Panics
    /// When a writer was refused, or none gets through.
    pub fn wait_for(&self, count: usize) {
        let ledger = self.ledger();
        let lengths = || ledger.writers.iter().map(|w| w.lock().len()).collect::<Vec<_>>();
        let before = lengths();
        let what =
            format!("{count} more acknowledged writes of each writer (last: {})", ledger.last_reason());
        wait_until(&what, PATIENCE, || {
            self.assert_not_refused();
            lengths().iter().zip(&before).all(|(now, before)| *now >= before + count).then_some(())
        });
    }

    /// Lets each writer finish the request that it has begun, and gives what was acknowledged.
    ///
    /// # Panics
    /// When a writer was refused or cannot finish.
    pub fn finish(mut self) -> Arc<Ledger> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a writer ends by itself");
        }
        self.assert_not_refused();
        Arc::clone(&self.shared.ledger)
    }

    fn assert_not_refused(&self) {
        let refused = self.ledger().refused.lock();
        assert!(refused.is_empty(), "writers were refused: {refused:#?}");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.abandon.store(true, Ordering::SeqCst);
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn write_on(&self, writer: usize) {
        let mut last_t = 0;
        let mut turn = writer;
        for n in 0.. {
            let t = now_ms().max(last_t + self.options.step_ms);
            let sample = Sample { t, value: f64::from(n) };
            match self.send(writer, sample, &mut turn) {
                Ok(()) => self.ledger.writers[writer].lock().push(sample),
                Err(why) => {
                    self.ledger.refused.lock().push(why);
                    return;
                }
            }
            self.ledger.acknowledged.fetch_add(1, Ordering::SeqCst);
            last_t = t;
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // Not a wait for something: the pace of the load.
            std::thread::park_timeout(self.options.pause);
        }
    }

    /// Sends until it is acknowledged. `Err` for what Prometheus would drop, or when patience ends.
    fn send(&self, writer: usize, sample: Sample, turn: &mut usize) -> Result<(), String> {
        let body = self.body(writer, sample);
        let deadline = Instant::now() + PATIENCE;
        let mut pause = BACKOFF.0;
        loop {
            *turn += 1;
            let target = {
                let targets = self.targets.read();
                targets.get(*turn % targets.len().max(1)).cloned()
            };
            let (status, reason) = match target {
                None => (0, "nobody to send to".to_owned()),
                Some(url) => {
                    let started = Instant::now();
                    match self.post(&url, &body) {
                        Ok(reply) if reply.status < 300 => {
                            let mut slowest = self.ledger.slowest.lock();
                            *slowest = slowest.max(started.elapsed());
                            return Ok(());
                        }
                        Ok(reply) => (reply.status, format!("{url}: {} {}", reply.status, reply.text())),
                        Err(e) => (0, format!("{url}: {e}")),
                    }
                }
            };
            let again = status == 0 || status == 429 || status >= 500;
            if !again {
                return Err(format!("writer {writer}, sample {sample:?}: {reason}"));
            }
            if self.abandon.load(Ordering::SeqCst) || Instant::now() > deadline {
                return Err(format!("writer {writer} comes back since {PATIENCE:?}: {reason}"));
            }
            *self.ledger.retried.lock().entry(status).or_default() += 1;
            *self.ledger.reason.lock() = reason;
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn post(&self, url: &str, body: &[u8]) -> std::io::Result<http::Response> {
        let mut headers = vec![("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
        headers.extend(self.options.tenant.as_deref().map(|t| ("THANOS-TENANT", t)));
        http::request_within(self.options.timeout, "POST", url, &headers, body)
    }

    fn body(&self, writer: usize, sample: Sample) -> Vec<u8> {
        let writer = writer.to_string();
        let series: Vec<TestSeries> = (0..self.options.series)
            .map(|s| {
                let s = s.to_string();
                let labels = [("__name__", METRIC), ("series", s.as_str()), ("writer", writer.as_str())];
                TestSeries::new(&labels, &[(sample.t, sample.value)])
            })
            .collect();
        write_body(&series)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292,000,000")
}
