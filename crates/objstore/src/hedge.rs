//! Hedged reads: a read that takes longer than most is asked for again, and the first answer counts.
//!
//! The wait before that is a quantile of the latest reads. Not more than a tenth of all reads are repeated, so that a store
//! that is slow as a whole does not get more to do.

use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;

/// Latencies that the quantile is of.
const WINDOW: usize = 256;
/// Reads before the first is repeated: fewer tell nothing.
const LEARN: usize = 32;
/// The quantile is computed again after so many reads.
const REFRESH: usize = 16;
/// Whatever the quantile, the first answer gets so long.
const DELAY_MIN: Duration = Duration::from_millis(5);
/// Thousandths of a repetition that a read earns, and how many may be saved up.
const EARNED_MILLI: i64 = 100;
const SAVED_MILLI_MAX: i64 = 10_000;

/// When and how often reads are repeated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeOptions {
    /// Repetitions of one read at the most.
    pub repeats_max: usize,
    /// The quantile of the latencies of reads after which one is repeated, 0 to 1.
    pub quantile: f64,
}

#[derive(Debug)]
pub(crate) struct Hedge {
    options: HedgeOptions,
    seen: Mutex<Seen>,
    /// Nanoseconds; 0 until enough was seen.
    delay: AtomicU64,
    saved_milli: AtomicI64,
}

#[derive(Debug)]
struct Seen {
    latencies: Vec<Duration>,
    count: usize,
}

impl Hedge {
    pub(crate) fn new(options: HedgeOptions) -> Self {
        let seen = Mutex::new(Seen { latencies: Vec::with_capacity(WINDOW), count: 0 });
        Hedge { options, seen, delay: AtomicU64::new(0), saved_milli: AtomicI64::new(0) }
    }

    /// Runs `read`, and again when it takes long. `repeated` is called for each repetition. An error counts as an answer
    /// only when no other read is under way.
    pub(crate) async fn run<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        read: impl Fn() -> F,
        repeated: impl Fn(),
    ) -> Result<T, E> {
        let earned = self.saved_milli.fetch_add(EARNED_MILLI, Ordering::Relaxed) + EARNED_MILLI;
        if earned > SAVED_MILLI_MAX {
            self.saved_milli.store(SAVED_MILLI_MAX, Ordering::Relaxed);
        }
        let start = Instant::now();
        let mut reads = FuturesUnordered::new();
        reads.push(read());
        let delay = Duration::from_nanos(self.delay.load(Ordering::Relaxed));
        let mut left = if delay.is_zero() { 0 } else { self.options.repeats_max };
        loop {
            tokio::select! {
                biased;
                Some(answer) = reads.next() => {
                    if answer.is_ok() || reads.is_empty() {
                        if answer.is_ok() {
                            self.learn(start.elapsed());
                        }
                        return answer;
                    }
                }
                () = tokio::time::sleep(delay.max(DELAY_MIN)), if left > 0 => {
                    left -= 1;
                    if self.spend() {
                        repeated();
                        reads.push(read());
                    }
                }
            }
        }
    }

    fn spend(&self) -> bool {
        let spent = |saved: i64| (saved >= 1000).then_some(saved - 1000);
        self.saved_milli.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }

    fn learn(&self, took: Duration) {
        let mut seen = self.seen.lock();
        let at = seen.count % WINDOW;
        if seen.latencies.len() < WINDOW {
            seen.latencies.push(took);
        } else {
            seen.latencies[at] = took;
        }
        seen.count += 1;
        if seen.count >= LEARN && seen.count.is_multiple_of(REFRESH) {
            let mut sorted = seen.latencies.clone();
            sorted.sort_unstable();
            let rank = (sorted.len() as f64 * self.options.quantile.clamp(0.0, 1.0)) as usize;
            let delay = sorted[rank.min(sorted.len() - 1)];
            self.delay.store(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Reads of which every `slow_every`-th call hangs for a long time.
    async fn reads(hedge: &Hedge, count: usize, slow_every: usize) -> (usize, usize) {
        let (calls, repeats) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let mut slow = 0;
        for _ in 0..count {
            let start = Instant::now();
            let read = || async {
                let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
                if call % slow_every == 0 {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                Ok::<_, ()>(call)
            };
            hedge.run(read, || _ = repeats.fetch_add(1, Ordering::SeqCst)).await.unwrap();
            slow += usize::from(start.elapsed() >= Duration::from_secs(2));
        }
        (slow, repeats.into_inner())
    }

    #[tokio::test]
    async fn a_slow_read_is_repeated_and_few_are() {
        let hedge = Hedge::new(HedgeOptions { repeats_max: 3, quantile: 0.9 });
        assert_eq!(reads(&hedge, 48, 1000).await, (0, 0), "nothing is known yet, and nothing is slow");
        let (slow, repeats) = reads(&hedge, 100, 30).await;
        assert_eq!(slow, 0, "no answer was waited for that a repetition gave");
        assert!((3..=14).contains(&repeats), "{repeats} repetitions");
    }

    #[tokio::test]
    async fn a_store_that_is_slow_as_a_whole_gets_a_tenth_more() {
        let hedge = Hedge::new(HedgeOptions { repeats_max: 3, quantile: 0.0 });
        reads(&hedge, 32, 1000).await;
        let repeats = AtomicUsize::new(0);
        let read = || async {
            tokio::time::sleep(Duration::from_millis(40)).await;
            Err::<(), _>("slow and broken")
        };
        for _ in 0..20 {
            assert!(hedge.run(read, || _ = repeats.fetch_add(1, Ordering::SeqCst)).await.is_err());
        }
        let repeats = repeats.into_inner();
        assert!((1..=(32 + 20) / 10).contains(&repeats), "{repeats} repetitions of 20 reads after 32");
    }
}
