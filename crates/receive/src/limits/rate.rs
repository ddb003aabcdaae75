//! A bound on samples over time: a bucket that fills at a rate and is emptied by what comes.

use std::time::{Duration, Instant};

use super::config::RateLimit;

/// A tenant's bucket. It starts full.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    /// Samples that may come now. Below 0 after a request that was larger than the bucket.
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        TokenBucket { tokens: limit.burst_samples, filled: now }
    }

    /// Takes `samples`, or says after what time there will be room. A request larger than the bucket passes when the bucket is
    /// full, and leaves a debt: else it could never pass.
    pub(super) fn take(&mut self, limit: RateLimit, samples: usize, now: Instant) -> Result<(), Duration> {
        let samples = samples as f64;
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * limit.samples_per_second).min(limit.burst_samples);
        self.filled = now;
        let needed = samples.min(limit.burst_samples);
        if self.tokens >= needed {
            self.tokens -= samples;
            return Ok(());
        }
        let wait = (needed - self.tokens) / limit.samples_per_second;
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }

    /// True when nothing would be forgotten with it.
    pub(super) fn is_full(&self, limit: RateLimit, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens + seconds * limit.samples_per_second >= limit.burst_samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_pass_and_then_the_rate_holds() {
        let limit = RateLimit { samples_per_second: 100.0, burst_samples: 500.0 };
        let start = Instant::now();
        let mut bucket = TokenBucket::new(limit, start);
        assert_eq!(bucket.take(limit, 500, start), Ok(()));
        assert!(!bucket.is_full(limit, start));
        let wait = bucket.take(limit, 50, start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.5).abs() < 1e-6, "{wait:?}");
        assert_eq!(bucket.take(limit, 50, start + wait + Duration::from_millis(1)), Ok(()));
        // Larger than the bucket: only when it is full, and then nothing passes until the debt is paid.
        let full = start + Duration::from_secs(10);
        assert!(bucket.is_full(limit, full));
        assert_eq!(bucket.take(limit, 1500, full), Ok(()));
        let wait = bucket.take(limit, 1, full).unwrap_err();
        assert!((wait.as_secs_f64() - 10.01).abs() < 1e-6, "{wait:?}");
        // Over ten seconds of knocking, what passes is the rate.
        let mut bucket = TokenBucket::new(limit, start);
        let passed =
            (0..10_000).filter(|ms| bucket.take(limit, 1, start + Duration::from_millis(*ms)).is_ok());
        let passed = passed.count();
        assert!((1490..=1500).contains(&passed), "{passed}");
    }
}
