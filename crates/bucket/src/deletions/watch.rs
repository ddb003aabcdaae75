//! The requests as a reader knows them: looked up when something is read, never while nothing is.

use std::sync::Arc;
use std::time::Duration;

use chronolith_objstore::Bucket;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::{Deletions, list};

/// Age at which what is known is looked up again. A minute is promised.
const FRESH_FOR: Duration = Duration::from_secs(30);
/// After a failure the next reader tries again this much later.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A bucket's deletion requests. Cheap to clone.
///
/// An idle reader costs no requests: the first read after a pause waits for one listing. Where that fails, what was known last
/// holds on, and a warning is logged.
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
    looking: tokio::sync::Mutex<()>,
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

    fn fresh(&self) -> Option<Arc<Deletions>> {
        let known = self.shared.known.read();
        known.1.is_some_and(|until| Instant::now() < until).then(|| known.0.clone())
    }

    /// The requests in force, no older than half a minute.
    pub async fn current(&self) -> Arc<Deletions> {
        let Some(bucket) = &self.shared.bucket else { return Arc::default() };
        if let Some(fresh) = self.fresh() {
            return fresh;
        }
        let _one = self.shared.looking.lock().await;
        if let Some(fresh) = self.fresh() {
            return fresh;
        }
        let known = self.shared.known.read().0.clone();
        let read = async {
            Deletions::read_keys(bucket, list(bucket).await?.into_iter().collect(), &known.all).await
        };
        let (now, until) = match read.await {
            Ok(read) => (Arc::new(read), self.shared.fresh_for),
            Err(err) => {
                tracing::warn!(
                    err = err.chain(),
                    "deletion requests not readable, those known before hold on"
                );
                (known, RETRY_AFTER.min(self.shared.fresh_for))
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
