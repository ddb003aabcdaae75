//! Statistics of a remote endpoint's heads.

use async_trait::async_trait;

use super::StoreClient;
use crate::convert::error_from_status;
use crate::proto::thanos;
use crate::{Status, StatusAnswer, StatusRequest, StoreError, convert_status};

/// Tenants of one answer: more than a receiver holds heads for.
const TENANTS_MAX: usize = 100_000;

#[async_trait]
impl Status for StoreClient {
    async fn tsdb_statistics(&self, request: StatusRequest) -> Result<StatusAnswer, StoreError> {
        let mut client = self.status.clone();
        let response = client.tsdb_statistics(convert_status::request_to(&request)).await;
        let mut frames = response.map_err(error_from_status)?.into_inner();
        let mut answer = StatusAnswer::default();
        while let Some(frame) = frames.message().await.map_err(error_from_status)? {
            match frame.result {
                Some(thanos::tsdb_statistics_response::Result::Statistics(part)) => {
                    for (tenant, entry) in part.statistics {
                        answer.tenants.entry(tenant).or_default().add(convert_status::entry_from(entry));
                    }
                }
                Some(thanos::tsdb_statistics_response::Result::Warning(text)) => answer.warnings.push(text),
                None => {}
            }
            if answer.tenants.len() > TENANTS_MAX {
                return Err(StoreError::limit(format!("{}: more than {TENANTS_MAX} tenants", self.address)));
            }
        }
        Ok(answer)
    }
}
