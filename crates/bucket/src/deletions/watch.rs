//! The requests as a reader knows them: looked up when something is read, never while nothing is.

use std::sync::Arc;
use std::time::Duration;

use chronolith_objstore::Bucket;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{Deletions, list};

/// Age at which what is known is looked up again. A minute is promised.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// What a look may take, so that what was seen before it is not used for longer than promised.
const MARGIN: Duration = Duration::from_secs(5);
/// After a failure the next reader tries again this much later.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A bucket's deletion requests. Cheap to clone.
///
/// An idle reader costs no requests: the first read after a pause waits for one listing; reads that follow each other do not wait.
/// Where a listing fails, what was known last holds on, and a warning is logged.
#[derive(Clone, Debug)]
pub struct DeletionWatch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Option<Bucket>,
    fresh_for: Duration,
    known: RwLock<(Arc<Deletions>, Option<Instant>)>,
    /// One reader looks, the others wait for it.
    looking: Arc<tokio::sync::Mutex<()>>,
}

impl DeletionWatch {
    /// Over a bucket; without one there are no requests.
    pub fn new(bucket: Option<Bucket>) -> Self {
        Self::with_interval(bucket, FRESH_FOR)
    }

    /// The same with another age at which what is known is looked up again.
    pub fn with_interval(bucket: Option<Bucket>, fresh_for: Duration) -> Self {
        let (known, looking) = Default::default();
        DeletionWatch { shared: Arc::new(Shared { bucket, fresh_for, known, looking }) }
    }

    /// What is known, if it was looked up no longer ago than `for_longer` more than it is fresh for.
    fn known(&self, for_longer: Duration) -> Option<Arc<Deletions>> {
        let known = self.shared.known.read();
        known.1.is_some_and(|until| Instant::now() < until + for_longer).then(|| known.0.clone())
    }

    /// The requests in force, as they were within the last minute.
    pub async fn current(&self) -> Arc<Deletions> {
        if self.shared.bucket.is_none() {
            return Arc::default();
        }
        if let Some(fresh) = self.known(Duration::ZERO) {
            return fresh;
        }
        if let Some(usable) = self.known(self.shared.fresh_for.saturating_sub(MARGIN)) {
            // Readers in quick succession never wait: one of them has it looked up beside.
            if let Ok(looking) = self.shared.looking.clone().try_lock_owned() {
                let this = self.clone();
                tokio::spawn(async move {
                    let _looking = looking;
                    this.look().await
                });
            }
            return usable;
        }
        let _looking = self.shared.looking.clone().lock_owned().await;
        match self.known(Duration::ZERO) {
            Some(fresh) => fresh,
            None => self.look().await,
        }
    }

    async fn look(&self) -> Arc<Deletions> {
        let Some(bucket) = &self.shared.bucket else { return Arc::default() };
        let known = self.shared.known.read().0.clone();
        let read = async {
            let keys = list(bucket).await?;
            Deletions::read_keys(bucket, keys.into_iter().collect(), &known.all).await
        };
        let (now, until) = match read.await {
            Ok(read) => (Arc::new(read), self.shared.fresh_for),
            Err(err) => {
                tracing::warn!(
                    err = err.chain(),
                    "deletion requests not readable, those known before hold on"
                );
                (known.clone(), RETRY_AFTER.min(self.shared.fresh_for))
            }
        };
        *self.shared.known.write() = (now.clone(), Some(Instant::now() + until));
        now
    }

    /// The next read looks again: a request was made or revoked here.
    pub fn forget(&self) {
        self.shared.known.write().1 = None;
    }
}
