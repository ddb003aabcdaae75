//! Protobuf and domain types of rules and targets.

use prost_types::Timestamp;

use crate::convert::{labels_from, labels_to, partial_from, partial_to};
use crate::proto::thanos;
use crate::{
    ActiveTarget, AlertInstance, AlertState, Alerting, Rule, RuleGroup, RuleKind, RulesAnswer, RulesRequest,
    StoreError, TargetHealth, TargetsAnswer, TargetsRequest,
};
use chronolith_model::Labels;
use chronolith_promql::parser::parse_selector;

fn ms_from(time: Option<Timestamp>) -> i64 {
    time.map_or(0, |t| t.seconds.saturating_mul(1000).saturating_add(i64::from(t.nanos) / 1_000_000))
}

fn ms_to(ms: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 })
}

fn labels(proto: Option<thanos::LabelSet>) -> Result<Labels, StoreError> {
    labels_from(proto.unwrap_or_default())
}

pub(crate) fn rules_request_to(request: &RulesRequest) -> thanos::RulesRequest {
    let text = |matchers: &Vec<chronolith_model::Matcher>| {
        let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        format!("{{{}}}", matchers.join(","))
    };
    // Sources want all selectors to fit, this request wants one of them: several are left to the fan-out.
    let selectors = if request.selectors.len() == 1 { request.selectors.as_slice() } else { &[] };
    thanos::RulesRequest {
        r#type: match request.kind {
            None => 0,
            Some(RuleKind::Alerting) => 1,
            Some(RuleKind::Recording) => 2,
        },
        partial_response_strategy: partial_to(request.partial_response).1,
        matcher_string: selectors.iter().map(text).collect(),
        rule_name: request.rule_names.clone(),
        rule_group: request.group_names.clone(),
        file: request.files.clone(),
    }
}

pub(crate) fn rules_request_from(proto: thanos::RulesRequest) -> Result<RulesRequest, StoreError> {
    let selector = |text: &String| {
        parse_selector(text).map_err(|e| StoreError::invalid(format!("selector {text:?}")).with_source(e))
    };
    // All selectors must fit: that is one selector with the matchers of all.
    let lists = proto.matcher_string.iter().map(selector).collect::<Result<Vec<_>, _>>()?;
    let selectors = if lists.is_empty() { Vec::new() } else { vec![lists.concat()] };
    Ok(RulesRequest {
        kind: match proto.r#type {
            1 => Some(RuleKind::Alerting),
            2 => Some(RuleKind::Recording),
            _ => None,
        },
        selectors,
        rule_names: proto.rule_name,
        group_names: proto.rule_group,
        files: proto.file,
        partial_response: partial_from(false, proto.partial_response_strategy),
        without_replica_labels: Vec::new(),
    })
}

fn state_from(number: i32) -> AlertState {
    match number {
        1 => AlertState::Inactive,
        2 => AlertState::Pending,
        3 => AlertState::Firing,
        _ => AlertState::Unknown,
    }
}

pub(crate) fn group_from(proto: thanos::RuleGroup) -> Result<RuleGroup, StoreError> {
    let rules = proto.rules.into_iter().filter_map(|r| r.result).map(rule_from);
    Ok(RuleGroup {
        name: proto.name,
        file: proto.file,
        rules: rules.collect::<Result<_, _>>()?,
        interval_s: proto.interval,
        evaluation_s: proto.evaluation_duration_seconds,
        last_evaluation_ms: ms_from(proto.last_evaluation),
        limit: proto.limit,
    })
}

fn rule_from(proto: thanos::rule::Result) -> Result<Rule, StoreError> {
    use thanos::rule::Result::{Alert, Recording};
    match proto {
        Recording(r) => Ok(Rule {
            name: r.name,
            query: r.query,
            labels: labels(r.labels)?,
            health: r.health,
            last_error: r.last_error,
            evaluation_s: r.evaluation_duration_seconds,
            last_evaluation_ms: ms_from(r.last_evaluation),
            alerting: None,
        }),
        Alert(a) => {
            let instance = |i: thanos::AlertInstance| {
                Ok::<_, StoreError>(AlertInstance {
                    labels: labels(i.labels)?,
                    annotations: labels(i.annotations)?,
                    state: state_from(i.state),
                    active_at_ms: i.active_at.map(|t| ms_from(Some(t))),
                    value: i.value,
                })
            };
            Ok(Rule {
                name: a.name,
                query: a.query,
                labels: labels(a.labels)?,
                health: a.health,
                last_error: a.last_error,
                evaluation_s: a.evaluation_duration_seconds,
                last_evaluation_ms: ms_from(a.last_evaluation),
                alerting: Some(Alerting {
                    state: state_from(a.state),
                    duration_s: a.duration_seconds,
                    keep_firing_for_s: a.keep_firing_for_seconds,
                    annotations: labels(a.annotations)?,
                    alerts: a.alerts.into_iter().map(instance).collect::<Result<_, _>>()?,
                }),
            })
        }
    }
}

/// A message a group, then the warnings.
pub(crate) fn rules_frames(answer: RulesAnswer) -> impl Iterator<Item = thanos::RulesResponse> {
    use thanos::rules_response::Result;
    let frame = |result| thanos::RulesResponse { result: Some(result) };
    let groups = answer.groups.into_iter().map(move |g| frame(Result::Group(group_to(g))));
    groups.chain(answer.warnings.into_iter().map(move |w| frame(Result::Warning(w))))
}

fn group_to(group: RuleGroup) -> thanos::RuleGroup {
    let rule = |rule: Rule| thanos::Rule { result: Some(rule_to(rule)) };
    thanos::RuleGroup {
        name: group.name,
        file: group.file,
        rules: group.rules.into_iter().map(rule).collect(),
        interval: group.interval_s,
        evaluation_duration_seconds: group.evaluation_s,
        last_evaluation: ms_to(group.last_evaluation_ms),
        partial_response_strategy: 0,
        limit: group.limit,
    }
}

fn rule_to(rule: Rule) -> thanos::rule::Result {
    let Some(alerting) = rule.alerting else {
        return thanos::rule::Result::Recording(thanos::RecordingRule {
            name: rule.name,
            query: rule.query,
            labels: Some(labels_to(&rule.labels)),
            health: rule.health,
            last_error: rule.last_error,
            evaluation_duration_seconds: rule.evaluation_s,
            last_evaluation: ms_to(rule.last_evaluation_ms),
        });
    };
    let instance = |i: AlertInstance| thanos::AlertInstance {
        labels: Some(labels_to(&i.labels)),
        annotations: Some(labels_to(&i.annotations)),
        state: i.state as i32,
        active_at: i.active_at_ms.and_then(ms_to),
        value: i.value,
        partial_response_strategy: 0,
    };
    thanos::rule::Result::Alert(thanos::Alert {
        state: alerting.state as i32,
        name: rule.name,
        query: rule.query,
        duration_seconds: alerting.duration_s,
        labels: Some(labels_to(&rule.labels)),
        annotations: Some(labels_to(&alerting.annotations)),
        alerts: alerting.alerts.into_iter().map(instance).collect(),
        health: rule.health,
        last_error: rule.last_error,
        evaluation_duration_seconds: rule.evaluation_s,
        last_evaluation: ms_to(rule.last_evaluation_ms),
        keep_firing_for_seconds: alerting.keep_firing_for_s,
    })
}

pub(crate) fn targets_request_to(request: &TargetsRequest) -> thanos::TargetsRequest {
    thanos::TargetsRequest {
        state: match (request.active, request.dropped) {
            (true, false) => 1,
            (false, true) => 2,
            _ => 0,
        },
        partial_response_strategy: partial_to(request.partial_response).1,
    }
}

pub(crate) fn targets_request_from(proto: thanos::TargetsRequest) -> TargetsRequest {
    TargetsRequest {
        active: proto.state != 2,
        dropped: proto.state != 1,
        partial_response: partial_from(false, proto.partial_response_strategy),
        without_replica_labels: Vec::new(),
    }
}

pub(crate) fn targets_from(proto: thanos::TargetDiscovery) -> Result<TargetsAnswer, StoreError> {
    let active = |t: thanos::ActiveTarget| {
        Ok::<_, StoreError>(ActiveTarget {
            discovered_labels: labels(t.discovered_labels)?,
            labels: labels(t.labels)?,
            scrape_pool: t.scrape_pool,
            scrape_url: t.scrape_url,
            global_url: t.global_url,
            last_error: t.last_error,
            last_scrape_ms: ms_from(t.last_scrape),
            last_scrape_s: t.last_scrape_duration,
            health: match t.health {
                0 => TargetHealth::Down,
                1 => TargetHealth::Up,
                _ => TargetHealth::Unknown,
            },
        })
    };
    Ok(TargetsAnswer {
        active: proto.active_targets.into_iter().map(active).collect::<Result<_, _>>()?,
        dropped: proto
            .dropped_targets
            .into_iter()
            .map(|t| labels(t.discovered_labels))
            .collect::<Result<_, _>>()?,
        warnings: Vec::new(),
    })
}

/// One message with all targets, then the warnings.
pub(crate) fn targets_frames(answer: TargetsAnswer) -> impl Iterator<Item = thanos::TargetsResponse> {
    use thanos::targets_response::Result;
    let frame = |result| thanos::TargetsResponse { result: Some(result) };
    let active = |t: ActiveTarget| thanos::ActiveTarget {
        discovered_labels: Some(labels_to(&t.discovered_labels)),
        labels: Some(labels_to(&t.labels)),
        scrape_pool: t.scrape_pool,
        scrape_url: t.scrape_url,
        global_url: t.global_url,
        last_error: t.last_error,
        last_scrape: ms_to(t.last_scrape_ms),
        last_scrape_duration: t.last_scrape_s,
        health: t.health as i32,
    };
    let targets = thanos::TargetDiscovery {
        active_targets: answer.active.into_iter().map(active).collect(),
        dropped_targets: answer
            .dropped
            .iter()
            .map(|l| thanos::DroppedTarget { discovered_labels: Some(labels_to(l)) })
            .collect(),
    };
    let targets = std::iter::once(frame(Result::Targets(targets)));
    targets.chain(answer.warnings.into_iter().map(move |w| frame(Result::Warning(w))))
}
