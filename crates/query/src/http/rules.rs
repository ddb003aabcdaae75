//! `/api/v1/rules`, `/api/v1/alerts`, `/api/v1/alertmanagers`: the rules of the endpoints that have some.

use axum::extract::{Request, State};
use axum::response::Response;
use chronolith_httpapi::{Annotations, ApiError, JsonBuf, Params, parse_bool, success, write_labels};
use chronolith_storeapi::{AlertInstance, Rule, RuleGroup, RuleKind, Rules as _, RulesAnswer, RulesRequest};
use sha2::{Digest as _, Sha256};

use super::process::rfc3339;
use super::{Api, ReadOptions, store_error};

/// A querier sends no alerts.
pub(super) async fn alertmanagers() -> Response {
    success(&Annotations::default(), |j| {
        j.raw(r#"{"activeAlertmanagers":[],"droppedAlertmanagers":[]}"#);
    })
}

pub(super) async fn rules(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    let selectors = super::labels::selectors(&params).map_err(ApiError::bad_data)?;
    let kind = match params.get("type").to_lowercase().as_str() {
        "" => None,
        "alert" => Some(RuleKind::Alerting),
        "record" => Some(RuleKind::Recording),
        other => {
            return Err(ApiError::parameter("type", format!("not supported value {other:?}")));
        }
    };
    let exclude_alerts = match params.get("exclude_alerts").to_lowercase().as_str() {
        "" => false,
        text => parse_bool(text).map_err(|e| {
            ApiError::parameter("exclude_alerts", format!("error converting exclude_alerts: {e}"))
        })?,
    };
    let page = Page::of(&params)?;
    let list = |name: &str| params.all(name).map(str::to_owned).collect::<Vec<_>>();
    let request = RulesRequest {
        kind,
        selectors,
        rule_names: list("rule_name[]"),
        group_names: list("rule_group[]"),
        files: list("file[]"),
        ..RulesRequest::default()
    };
    let RulesAnswer { groups, warnings } = ask(&api, &options, request).await?;
    let (shown, next) = page.cut(&groups)?;
    let partial = !warnings.is_empty();
    Ok(success(&Annotations { warnings, partial, ..Annotations::default() }, |j| {
        j.raw(r#"{"groups":"#).array(shown, |j, group| write_group(j, group, exclude_alerts));
        if let Some(group) = next {
            j.raw(r#","groupNextToken":"#).string(&token(group));
        }
        j.raw("}");
    }))
}

pub(super) async fn alerts(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, _) = api.read(request).await?;
    let request = RulesRequest { kind: Some(RuleKind::Alerting), ..RulesRequest::default() };
    let RulesAnswer { groups, warnings } = ask(&api, &options, request).await?;
    let rules = groups.iter().flat_map(|g| &g.rules);
    let alerts = rules.filter_map(|r| r.alerting.as_ref()).flat_map(|a| &a.alerts);
    let partial = !warnings.is_empty();
    Ok(success(&Annotations { warnings, partial, ..Annotations::default() }, |j| {
        j.raw(r#"{"alerts":"#).array(alerts, write_alert);
        j.raw("}");
    }))
}

async fn ask(api: &Api, options: &ReadOptions, request: RulesRequest) -> Result<RulesAnswer, ApiError> {
    let request = RulesRequest {
        partial_response: options.partial_response,
        without_replica_labels: options.without_replica_labels(),
        ..request
    };
    (api.stores)(options).rules(request).await.map_err(store_error)
}

/// `group_limit` and `group_next_token`.
struct Page {
    groups_max: usize,
    from: Option<String>,
}

impl Page {
    fn of(params: &Params) -> Result<Self, ApiError> {
        let (limit, token) = (params.get("group_limit"), params.get("group_next_token"));
        if limit.is_empty() {
            if token.is_empty() {
                return Ok(Page { groups_max: usize::MAX, from: None });
            }
            let text = "group_limit needs to be present in order to paginate over the groups";
            return Err(ApiError::parameter("group_next_token", text));
        }
        let refuse = |why: &str| ApiError::parameter("group_limit", format!("group_limit needs to be {why}"));
        let groups_max = match limit.parse::<i32>() {
            Ok(n) if n > 0 => n as usize,
            Ok(_) => return Err(refuse("greater than 0")),
            Err(_) => return Err(refuse("a valid number")),
        };
        Ok(Page { groups_max, from: Some(token.to_owned()).filter(|t| !t.is_empty()) })
    }

    /// The groups of this page, and the first one of the next.
    fn cut<'a>(&self, groups: &'a [RuleGroup]) -> Result<(&'a [RuleGroup], Option<&'a RuleGroup>), ApiError> {
        let first = match &self.from {
            None => 0,
            Some(wanted) => groups.iter().position(|g| token(g) == *wanted).ok_or_else(|| {
                let text = format!("invalid group_next_token '{wanted}'. were rule groups changed?");
                ApiError::parameter("group_next_token", text)
            })?,
        };
        let end = groups.len().min(first.saturating_add(self.groups_max));
        Ok((&groups[first..end], groups.get(end)))
    }
}

fn token(group: &RuleGroup) -> String {
    let digest = Sha256::digest(format!("{};{}", group.file, group.name).as_bytes());
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn number(v: f64) -> String {
    if v.is_finite() { v.to_string() } else { "0".to_owned() }
}

fn write_group(j: &mut JsonBuf, group: &RuleGroup, exclude_alerts: bool) {
    j.raw(r#"{"name":"#).string(&group.name).raw(r#","file":"#).string(&group.file);
    j.raw(r#","rules":"#).array(&group.rules, |j, rule| write_rule(j, rule, exclude_alerts));
    j.raw(r#","interval":"#).raw(&number(group.interval_s)).raw(r#","limit":"#).int(group.limit);
    j.raw(r#","evaluationTime":"#).raw(&number(group.evaluation_s));
    j.raw(r#","lastEvaluation":"#).string(&rfc3339(group.last_evaluation_ms)).raw("}");
}

fn write_rule(j: &mut JsonBuf, rule: &Rule, exclude_alerts: bool) {
    j.raw("{");
    if let Some(alerting) = &rule.alerting {
        j.raw(r#""state":"#).string(alerting.state.as_str()).raw(",");
    }
    j.raw(r#""name":"#).string(&rule.name).raw(r#","query":"#).string(&rule.query);
    if let Some(alerting) = &rule.alerting {
        j.raw(r#","duration":"#).raw(&number(alerting.duration_s));
        j.raw(r#","keepFiringFor":"#).raw(&number(alerting.keep_firing_for_s));
    }
    j.raw(r#","labels":"#);
    write_labels(j, &rule.labels);
    if let Some(alerting) = &rule.alerting {
        j.raw(r#","annotations":"#);
        write_labels(j, &alerting.annotations);
        let alerts: &[AlertInstance] = if exclude_alerts { &[] } else { &alerting.alerts };
        j.raw(r#","alerts":"#).array(alerts, write_alert);
    }
    j.raw(r#","health":"#).string(&rule.health);
    if !rule.last_error.is_empty() {
        j.raw(r#","lastError":"#).string(&rule.last_error);
    }
    j.raw(r#","evaluationTime":"#).raw(&number(rule.evaluation_s));
    j.raw(r#","lastEvaluation":"#).string(&rfc3339(rule.last_evaluation_ms));
    let kind = if rule.alerting.is_some() { "alerting" } else { "recording" };
    j.raw(r#","type":"#).string(kind).raw("}");
}

fn write_alert(j: &mut JsonBuf, alert: &AlertInstance) {
    j.raw(r#"{"labels":"#);
    write_labels(j, &alert.labels);
    j.raw(r#","annotations":"#);
    write_labels(j, &alert.annotations);
    j.raw(r#","state":"#).string(alert.state.as_str());
    if let Some(at) = alert.active_at_ms {
        j.raw(r#","activeAt":"#).string(&rfc3339(at));
    }
    j.raw(r#","value":"#).string(&alert.value).raw("}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let group =
            |name: &str| RuleGroup { name: name.to_owned(), file: "f".to_owned(), ..RuleGroup::default() };
        let groups = [group("a"), group("b"), group("c")];
        let page = |query: &str| {
            let page = Page::of(&Params::from_query(query)).map_err(|e| e.message)?;
            let (shown, next) = page.cut(&groups).map_err(|e| e.message)?;
            Ok::<_, String>((shown.iter().map(|g| g.name.clone()).collect::<Vec<_>>(), next.map(token)))
        };
        let (first, next) = page("group_limit=2").unwrap();
        assert_eq!(first, ["a", "b"]);
        let second = page(&format!("group_limit=2&group_next_token={}", next.unwrap())).unwrap();
        assert_eq!(second, (vec!["c".to_owned()], None));
        assert_eq!(page("").unwrap().0.len(), 3);
        for (bad, why) in [
            ("group_next_token=x", "group_limit needs to be present"),
            ("group_limit=0", "greater than 0"),
            ("group_limit=x", "a valid number"),
            ("group_limit=1&group_next_token=x", "were rule groups changed?"),
        ] {
            assert!(page(bad).unwrap_err().contains(why), "{bad}");
        }
    }
}
