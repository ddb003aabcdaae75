//! Requests to delete series, from the API into the bucket.

use async_trait::async_trait;
use chronolith_bucket::{DeletionRequest, DeletionWatch};
use chronolith_model::{Matcher, TimeRange};
use chronolith_objstore::Bucket;
use chronolith_query::http::SeriesDeletion;
use chronolith_service::{Clock, SystemClock};

/// Records requests in a bucket.
pub(super) struct IntoBucket {
    pub(super) bucket: Bucket,
    /// Readers in this process, which are to see a request at once.
    pub(super) readers: Vec<DeletionWatch>,
}

#[async_trait]
impl SeriesDeletion for IntoBucket {
    async fn delete(
        &self,
        selectors: Vec<Vec<Matcher>>,
        range: TimeRange,
        tenant: &str,
    ) -> Result<(), String> {
        let request = DeletionRequest::new(&selectors, range, tenant, SystemClock.now_ms());
        request.write(&self.bucket).await.map_err(|e| format!("deletion not recorded: {}", e.chain()))?;
        tracing::info!(id = request.id, tenant, selectors = ?request.selector_texts(), "series deleted");
        self.readers.iter().for_each(DeletionWatch::forget);
        Ok(())
    }
}
