//! Rules and their alerts: the trait, and what many sources answer together.
//!
//! Rulers evaluate the same rules more than once, as replicas of each other. As in Thanos, groups of one file and name are
//! one group, and rules that differ in replica labels only are one rule: of alerting rules the most critical state
//! stands, of equal ones the later evaluation.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use async_trait::async_trait;
use chronolith_model::{Labels, Matcher};

use crate::{PartialResponse, StoreError};

/// What is asked. Empty lists ask for everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RulesRequest {
    /// Rules of one kind only.
    pub kind: Option<RuleKind>,
    /// Rules whose labels fit one of these lists; labels with a template in their value count as missing.
    pub selectors: Vec<Vec<Matcher>>,
    /// Rules of these names.
    pub rule_names: Vec<String>,
    /// Groups of these names.
    pub group_names: Vec<String>,
    /// Groups of these files.
    pub files: Vec<String>,
    /// Whether a source that fails is a warning.
    pub partial_response: PartialResponse,
    /// Labels that are taken away from the rules; what then is one rule is merged. Done by the fan-out.
    pub without_replica_labels: Vec<String>,
}

/// A kind of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Rules that give alerts.
    Alerting,
    /// Rules that give series.
    Recording,
}

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleGroup {
    /// Its name, unique in its file.
    pub name: String,
    /// The file it comes from.
    pub file: String,
    /// In the order of evaluation; merged groups by kind and name.
    pub rules: Vec<Rule>,
    /// Seconds between evaluations.
    pub interval_s: f64,
    /// Seconds that the last evaluation took.
    pub evaluation_s: f64,
    /// When it was, in milliseconds.
    pub last_evaluation_ms: i64,
    /// Most series or alerts of a rule; 0 is no bound.
    pub limit: i64,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// The alert's or the series' name.
    pub name: String,
    /// The expression.
    pub query: String,
    /// Labels that it adds.
    pub labels: Labels,
    /// `ok`, `err`, `unknown`.
    pub health: String,
    /// The error of the last evaluation, or nothing.
    pub last_error: String,
    /// Seconds that the last evaluation took.
    pub evaluation_s: f64,
    /// When it was, in milliseconds.
    pub last_evaluation_ms: i64,
    /// What an alerting rule has besides; `None` for a recording rule.
    pub alerting: Option<Alerting>,
}

/// What an alerting rule has besides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alerting {
    /// The most critical state of its alerts.
    pub state: AlertState,
    /// Seconds of `for`.
    pub duration_s: f64,
    /// Seconds of `keep_firing_for`.
    pub keep_firing_for_s: f64,
    /// Annotations, as templates.
    pub annotations: Labels,
    /// Active alerts.
    pub alerts: Vec<AlertInstance>,
}

/// The state of an alert, by how critical it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertState {
    /// Not evaluated yet.
    #[default]
    Unknown,
    /// There is none.
    Inactive,
    /// Waits for its `for` to pass.
    Pending,
    /// Is sent.
    Firing,
}

impl AlertState {
    /// The name that Prometheus's API shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertState::Unknown => "unknown",
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
        }
    }
}

/// An active alert.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertInstance {
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Its state.
    pub state: AlertState,
    /// Since when, in milliseconds.
    pub active_at_ms: Option<i64>,
    /// The value of the expression, as text.
    pub value: String,
}

/// The answer to [`Rules::rules`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RulesAnswer {
    /// By file and name.
    pub groups: Vec<RuleGroup>,
    /// What is missing.
    pub warnings: Vec<String>,
}

/// A source of rules.
#[async_trait]
pub trait Rules: Send + Sync {
    /// The rules that fit.
    async fn rules(&self, request: RulesRequest) -> Result<RulesAnswer, StoreError>;
}

impl RulesRequest {
    fn wants_group(&self, group: &RuleGroup) -> bool {
        let one_of = |names: &[String], name: &String| names.is_empty() || names.contains(name);
        one_of(&self.group_names, &group.name) && one_of(&self.files, &group.file)
    }

    fn wants(&self, rule: &Rule) -> bool {
        let kind = if rule.alerting.is_some() { RuleKind::Alerting } else { RuleKind::Recording };
        let value = |name: &str| rule.labels.get(name).filter(|v| !v.contains("{{")).unwrap_or("");
        let fits = |list: &Vec<Matcher>| list.iter().all(|m| m.matches(value(&m.name)));
        self.kind.is_none_or(|k| k == kind)
            && (self.rule_names.is_empty() || self.rule_names.contains(&rule.name))
            && (self.selectors.is_empty() || self.selectors.iter().any(fits))
    }
}

/// Groups of several sources as one answer.
#[derive(Debug, Default)]
pub(crate) struct RulesUnion(BTreeMap<(String, String), RuleGroup>);

impl RulesUnion {
    /// Adds what fits the request; sources are not trusted to have filtered, since older ones do not.
    pub(crate) fn add(&mut self, mut group: RuleGroup, request: &RulesRequest) {
        if !request.wants_group(&group) {
            return;
        }
        group.rules.retain(|rule| request.wants(rule));
        for rule in &mut group.rules {
            if request.without_replica_labels.iter().any(|l| rule.labels.get(l).is_some()) {
                rule.labels =
                    rule.labels.filter(|name, _| request.without_replica_labels.iter().all(|l| l != name));
            }
        }
        let key = (group.file.clone(), group.name.clone());
        match self.0.get_mut(&key) {
            Some(known) => known.rules.append(&mut group.rules),
            None => drop(self.0.insert(key, group)),
        }
    }

    pub(crate) fn finish(self) -> Vec<RuleGroup> {
        let mut groups: Vec<RuleGroup> = self.0.into_values().filter(|g| !g.rules.is_empty()).collect();
        for group in &mut groups {
            group.rules.sort_by(|a, b| same(a, b).then_with(|| preferred(a, b)));
            group.rules.dedup_by(|later, first| same(later, first) == Ordering::Equal);
        }
        groups
    }
}

/// Equal for what is one rule.
fn same(a: &Rule, b: &Rule) -> Ordering {
    let duration = |r: &Rule| r.alerting.as_ref().map_or(0.0, |a| a.duration_s);
    (b.alerting.is_some().cmp(&a.alerting.is_some()))
        .then_with(|| a.name.cmp(&b.name))
        .then_with(|| a.labels.cmp(&b.labels))
        .then_with(|| a.query.cmp(&b.query))
        .then_with(|| duration(a).total_cmp(&duration(b)))
}

/// The one that stands comes first.
fn preferred(a: &Rule, b: &Rule) -> Ordering {
    let state = |r: &Rule| r.alerting.as_ref().map(|a| a.state);
    state(b).cmp(&state(a)).then_with(|| b.last_evaluation_ms.cmp(&a.last_evaluation_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, replica: &str, state: Option<AlertState>, at: i64) -> Rule {
        Rule {
            name: name.to_owned(),
            labels: Labels::from_pairs([("replica", replica), ("team", "t"), ("host", "{{ $labels.x }}")])
                .unwrap(),
            last_evaluation_ms: at,
            alerting: state.map(|state| Alerting { state, ..Alerting::default() }),
            ..Rule::default()
        }
    }

    fn group(file: &str, rules: Vec<Rule>) -> RuleGroup {
        RuleGroup { name: "g".to_owned(), file: file.to_owned(), rules, ..RuleGroup::default() }
    }

    #[test]
    fn replicas_are_one_rule() {
        use AlertState::{Firing, Pending};
        let request =
            RulesRequest { without_replica_labels: vec!["replica".to_owned()], ..RulesRequest::default() };
        let mut union = RulesUnion::default();
        union.add(group("f", vec![rule("r", "a", None, 1), rule("al", "a", Some(Pending), 9)]), &request);
        union.add(group("f", vec![rule("r", "b", None, 2), rule("al", "b", Some(Firing), 8)]), &request);
        union.add(group("e", vec![rule("r", "b", None, 2)]), &request);
        union.add(group("empty", vec![]), &request);
        let groups = union.finish();
        let shown: Vec<(&str, Vec<(&str, i64)>)> = groups
            .iter()
            .map(|g| (g.file.as_str(), g.rules.iter().map(|r| (&*r.name, r.last_evaluation_ms)).collect()))
            .collect();
        assert_eq!(shown, [("e", vec![("r", 2)]), ("f", vec![("al", 8), ("r", 2)])]);
    }

    #[test]
    fn requests_choose() {
        let all = || group("f", vec![rule("r", "a", None, 1), rule("al", "a", Some(AlertState::Firing), 2)]);
        let found = |request: RulesRequest| {
            let mut union = RulesUnion::default();
            union.add(all(), &request);
            union.finish().into_iter().flat_map(|g| g.rules).map(|r| r.name).collect::<Vec<_>>()
        };
        let none = RulesRequest::default;
        assert_eq!(found(none()), ["al", "r"]);
        assert_eq!(found(RulesRequest { kind: Some(RuleKind::Recording), ..none() }), ["r"]);
        assert_eq!(found(RulesRequest { rule_names: vec!["al".to_owned()], ..none() }), ["al"]);
        assert_eq!(found(RulesRequest { group_names: vec!["x".to_owned()], ..none() }), Vec::<String>::new());
        assert_eq!(found(RulesRequest { files: vec!["f".to_owned()], ..none() }).len(), 2);
        let by = |name: &str, value: &str| RulesRequest {
            selectors: vec![vec![Matcher::equal("team", "no")], vec![Matcher::equal(name, value)]],
            ..none()
        };
        assert_eq!(found(by("team", "t")).len(), 2);
        assert_eq!(found(by("team", "u")).len(), 0);
        assert_eq!(found(by("host", "")).len(), 2, "a template is no value");
    }
}
