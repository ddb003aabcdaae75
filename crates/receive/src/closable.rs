//! A [`WriteSink`] that can be closed: afterwards nothing is written any more, and nothing is under way.
//!
//! A receiver that drains needs that moment. What were written to the heads after they were cut for the last time, or kept as a
//! hint after the last hint was delivered, would stay behind on a disk that nobody reads again.

use std::sync::Arc;

use async_trait::async_trait;
use chronolith_model::{TenantId, WriteBatch};
use chronolith_storeapi::{StoreError, WriteError, WriteReport, WriteSink, WriteWay};
use tokio_util::task::TaskTracker;

/// A sink, and whether it is closed.
pub(crate) struct ClosableSink {
    inner: Arc<dyn WriteSink>,
    under_way: TaskTracker,
}

impl ClosableSink {
    /// Open, over `inner`.
    pub(crate) fn new(inner: Arc<dyn WriteSink>) -> Arc<Self> {
        Arc::new(ClosableSink { inner, under_way: TaskTracker::new() })
    }

    /// From now on writes are refused as unavailable. Returns when those under way have ended.
    pub(crate) async fn close(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }
}

#[async_trait]
impl WriteSink for ClosableSink {
    fn knows_keys(&self) -> bool {
        self.inner.knows_keys()
    }

    async fn write_by(
        &self,
        tenant: &TenantId,
        batch: WriteBatch,
        way: WriteWay,
    ) -> Result<WriteReport, WriteError> {
        // Counted before it is asked: whoever finds it open is waited for.
        let _counted = self.under_way.token();
        if self.under_way.is_closed() {
            return Err(StoreError::unavailable("shutting down"));
        }
        self.inner.write_by(tenant, batch, way).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;

    /// Writes end when they are let.
    struct Slow(Mutex<usize>, Arc<Semaphore>);

    #[async_trait]
    impl WriteSink for Slow {
        fn knows_keys(&self) -> bool {
            true
        }

        async fn write_by(
            &self,
            _: &TenantId,
            _: WriteBatch,
            _: WriteWay,
        ) -> Result<WriteReport, WriteError> {
            *self.0.lock().unwrap() += 1;
            self.1.acquire().await.unwrap().forget();
            Ok(WriteReport::default())
        }
    }

    #[tokio::test]
    async fn closing_waits_for_what_is_under_way_and_refuses_the_rest() {
        let may_end = Arc::new(Semaphore::new(0));
        let slow = Arc::new(Slow(Mutex::new(0), Arc::clone(&may_end)));
        let sink = ClosableSink::new(slow.clone());
        assert!(sink.knows_keys(), "as the one inside");
        let tenant = TenantId::default();
        let mut write = Box::pin(sink.write(&tenant, WriteBatch::default()));
        assert!(futures::poll!(&mut write).is_pending());
        let mut closing = Box::pin(sink.close());
        assert!(futures::poll!(&mut closing).is_pending());
        let refused = sink.write(&tenant, WriteBatch::default()).await.unwrap_err();
        assert!(refused.to_string().contains("shutting down"), "{refused}");
        assert!(futures::poll!(&mut closing).is_pending());
        may_end.add_permits(1);
        write.await.unwrap();
        closing.await;
        assert_eq!(*slow.0.lock().unwrap(), 1);
    }
}
