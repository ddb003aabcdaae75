//! Aggregations over a remote store's series.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreClient;
use crate::convert::error_from_status;
use crate::{Fold, FoldAnswer, FoldCall, StoreError, convert_fold};

#[async_trait]
impl Fold for StoreClient {
    async fn fold(&self, call: FoldCall) -> Result<FoldAnswer, StoreError> {
        let mut client = self.fold.clone();
        let (steps, values_max) = (call.fold.steps.count, call.fold.options.samples_max);
        let pause = call.pause_max;
        let response = within(pause, client.fold(convert_fold::call_to(&call))).await?;
        let mut frames = response.into_inner();
        let mut groups = Vec::new();
        loop {
            let frame = within(pause, frames.message()).await?;
            let Some(frame) = frame else {
                return Err(StoreError::unavailable("the answer ended early"));
            };
            for group in frame.groups {
                groups.push(convert_fold::group_from(group, steps)?);
                if groups.len().saturating_mul(steps) > values_max {
                    // More than the querier may hold; reading the series says so in its own words.
                    return Err(StoreError::invalid("too many groups"));
                }
            }
            if let Some(end) = frame.end {
                return convert_fold::answer_from(groups, end);
            }
        }
    }
}

async fn within<T>(
    pause: Option<Duration>,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, StoreError> {
    let answer = match pause {
        None => call.await,
        Some(pause) => match tokio::time::timeout(pause, call).await {
            Ok(answer) => answer,
            Err(_) => return Err(StoreError::timeout(format!("no answer within {pause:?}"))),
        },
    };
    answer.map_err(error_from_status)
}
