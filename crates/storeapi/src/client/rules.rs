//! Rules and targets of a remote endpoint.

use async_trait::async_trait;

use super::StoreClient;
use crate::convert::error_from_status;
use crate::proto::thanos;
use crate::{
    Rules, RulesAnswer, RulesRequest, StoreError, Targets, TargetsAnswer, TargetsRequest, convert_rules,
};

/// Groups, or targets, of one answer: far beyond what a ruler evaluates or a Prometheus scrapes.
const ITEMS_MAX: usize = 1_000_000;

#[async_trait]
impl Rules for StoreClient {
    async fn rules(&self, request: RulesRequest) -> Result<RulesAnswer, StoreError> {
        let mut client = self.rules.clone();
        let response = client.rules(convert_rules::rules_request_to(&request)).await;
        let mut frames = response.map_err(error_from_status)?.into_inner();
        let mut answer = RulesAnswer::default();
        while let Some(frame) = frames.message().await.map_err(error_from_status)? {
            match frame.result {
                Some(thanos::rules_response::Result::Group(group)) => {
                    answer.groups.push(convert_rules::group_from(group)?);
                }
                Some(thanos::rules_response::Result::Warning(text)) => answer.warnings.push(text),
                None => {}
            }
            if answer.groups.len() > ITEMS_MAX {
                return Err(StoreError::limit(format!("{}: more than {ITEMS_MAX} groups", self.address)));
            }
        }
        Ok(answer)
    }
}

#[async_trait]
impl Targets for StoreClient {
    async fn targets(&self, request: TargetsRequest) -> Result<TargetsAnswer, StoreError> {
        let mut client = self.targets.clone();
        let response = client.targets(convert_rules::targets_request_to(&request)).await;
        let mut frames = response.map_err(error_from_status)?.into_inner();
        let mut answer = TargetsAnswer::default();
        while let Some(frame) = frames.message().await.map_err(error_from_status)? {
            match frame.result {
                Some(thanos::targets_response::Result::Targets(targets)) => {
                    let TargetsAnswer { active, dropped, .. } = convert_rules::targets_from(targets)?;
                    answer.active.extend(active);
                    answer.dropped.extend(dropped);
                }
                Some(thanos::targets_response::Result::Warning(text)) => answer.warnings.push(text),
                None => {}
            }
            if answer.active.len() + answer.dropped.len() > ITEMS_MAX {
                return Err(StoreError::limit(format!("{}: more than {ITEMS_MAX} targets", self.address)));
            }
        }
        Ok(answer)
    }
}
