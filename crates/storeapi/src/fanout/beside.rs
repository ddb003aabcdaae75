//! What a fan-out asks beside series: exemplars, metric metadata, rules, targets, statistics of heads.

use async_trait::async_trait;
use chronolith_model::{Labels, Matcher};
use futures::future::join_all;

use super::{Chosen, Endpoint, Fanout, fits_any, tolerate, within};
use crate::exemplars::ExemplarsUnion;
use crate::rules::RulesUnion;
use crate::targets::TargetsUnion;
use crate::{
    Exemplars, ExemplarsAnswer, ExemplarsRequest, Metadata, MetadataAnswer, MetadataRequest, Rules,
    RulesAnswer, RulesRequest, Status, StatusAnswer, StatusRequest, StoreError, Targets, TargetsAnswer,
    TargetsRequest,
};

/// How a sidecar calls itself. It asks its Prometheus, which knows nothing of external labels.
const SIDECAR: &str = "sidecar";

#[async_trait]
impl Exemplars for Fanout {
    async fn exemplars(&self, request: ExemplarsRequest) -> Result<ExemplarsAnswer, StoreError> {
        let Chosen { up, mut warnings } = self.chosen(request.partial_response)?;
        let calls = up.iter().filter_map(|endpoint| {
            let source = endpoint.apis.exemplars.as_ref()?;
            let selectors = selectors_for(endpoint, &request.selectors);
            if selectors.is_empty() || request.range.is_empty() {
                return None;
            }
            let call = source.exemplars(ExemplarsRequest { selectors, ..request.clone() });
            Some(async move { (&endpoint.name, within(self.options.response_timeout, call).await) })
        });
        let mut union = ExemplarsUnion::default();
        for (name, answer) in join_all(calls).await {
            match answer {
                Ok(answer) => {
                    warnings.extend(answer.warnings);
                    for series in answer.series {
                        union.add(series, &request.without_replica_labels);
                    }
                }
                Err(error) => warnings.push(tolerate(name, error, request.partial_response)?),
            }
        }
        Ok(ExemplarsAnswer { series: union.finish(), warnings })
    }
}

/// The selectors that an endpoint may have something for, in the form that it understands.
fn selectors_for(endpoint: &Endpoint, selectors: &[Vec<Matcher>]) -> Vec<Vec<Matcher>> {
    let label_sets = &endpoint.info.label_sets;
    let fits = |matchers: &&Vec<Matcher>| endpoint.local || fits_any(label_sets, matchers.iter());
    let wanted = selectors.iter().filter(fits);
    if endpoint.info.component != SIDECAR {
        return wanted.cloned().collect();
    }
    let is_external = |m: &Matcher| label_sets.iter().any(|set: &Labels| set.get(&m.name).is_some());
    let own = wanted.map(|matchers| matchers.iter().filter(|m| !is_external(m)).cloned().collect::<Vec<_>>());
    own.filter(|matchers| !matchers.is_empty()).collect()
}

#[async_trait]
impl Metadata for Fanout {
    async fn metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let Chosen { up, warnings } = self.chosen(request.partial_response)?;
        let calls = up.iter().filter_map(|endpoint| {
            let call = endpoint.apis.metadata.as_ref()?.metadata(request.clone());
            Some(async move { (&endpoint.name, within(self.options.response_timeout, call).await) })
        });
        let mut merged = MetadataAnswer { warnings, ..MetadataAnswer::default() };
        for (name, answer) in join_all(calls).await {
            match answer {
                Ok(answer) => {
                    merged.warnings.extend(answer.warnings);
                    for (metric, says) in answer.metrics {
                        merged.add(&request, metric, says);
                    }
                }
                Err(error) => merged.warnings.push(tolerate(name, error, request.partial_response)?),
            }
        }
        Ok(merged)
    }
}

#[async_trait]
impl Rules for Fanout {
    async fn rules(&self, request: RulesRequest) -> Result<RulesAnswer, StoreError> {
        let Chosen { up, mut warnings } = self.chosen(request.partial_response)?;
        let calls = up.iter().filter_map(|endpoint| {
            let call = endpoint.apis.rules.as_ref()?.rules(request.clone());
            Some(async move { (&endpoint.name, within(self.options.response_timeout, call).await) })
        });
        let mut union = RulesUnion::default();
        for (name, answer) in join_all(calls).await {
            match answer {
                Ok(answer) => {
                    warnings.extend(answer.warnings);
                    for group in answer.groups {
                        union.add(group, &request);
                    }
                }
                Err(error) => warnings.push(tolerate(name, error, request.partial_response)?),
            }
        }
        Ok(RulesAnswer { groups: union.finish(), warnings })
    }
}

#[async_trait]
impl Targets for Fanout {
    async fn targets(&self, request: TargetsRequest) -> Result<TargetsAnswer, StoreError> {
        let Chosen { up, mut warnings } = self.chosen(request.partial_response)?;
        let calls = up.iter().filter_map(|endpoint| {
            let call = endpoint.apis.targets.as_ref()?.targets(request.clone());
            Some(async move { (&endpoint.name, within(self.options.response_timeout, call).await) })
        });
        let mut union = TargetsUnion::default();
        for (name, answer) in join_all(calls).await {
            match answer {
                Ok(mut answer) => {
                    warnings.append(&mut answer.warnings);
                    union.add(answer, &request);
                }
                Err(error) => warnings.push(tolerate(name, error, request.partial_response)?),
            }
        }
        Ok(TargetsAnswer { warnings, ..union.finish() })
    }
}

impl Fanout {
    /// True when an endpoint has heads to tell of.
    pub fn has_status(&self) -> bool {
        self.set.endpoints().up.iter().any(|e| self.is_chosen(e) && e.apis.status.is_some())
    }
}

#[async_trait]
impl Status for Fanout {
    async fn tsdb_statistics(&self, request: StatusRequest) -> Result<StatusAnswer, StoreError> {
        let Chosen { up, warnings } = self.chosen(request.partial_response)?;
        let calls = up.iter().filter_map(|endpoint| {
            let call = endpoint.apis.status.as_ref()?.tsdb_statistics(request.clone());
            Some(async move { (&endpoint.name, within(self.options.response_timeout, call).await) })
        });
        let mut merged = StatusAnswer { warnings, ..StatusAnswer::default() };
        for (name, answer) in join_all(calls).await {
            match answer {
                Ok(answer) => merged.add(answer),
                Err(error) => merged.warnings.push(tolerate(name, error, request.partial_response)?),
            }
        }
        Ok(merged)
    }
}
