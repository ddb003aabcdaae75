//! Exemplars: the trait, and what many sources answer together.
//!
//! Heads (`receive`), remote endpoints ([`crate::StoreClient`]) and the fan-out over many ([`crate::Fanout`]) implement
//! [`Exemplars`] alike: external labels are part of a series' labels, matchers on them are evaluated by the source; series
//! come sorted and unique, their exemplars by time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chronolith_model::{Exemplar, Labels, Matcher, TimeRange};
use chronolith_promql::parser::{ParseOptions, parse};

use crate::{PartialResponse, StoreError};

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarsRequest {
    /// A series is wanted when all matchers of any of these lists fit it.
    pub selectors: Vec<Vec<Matcher>>,
    /// The exemplars' time.
    pub range: TimeRange,
    /// Whether a source that fails is a warning.
    pub partial_response: PartialResponse,
    /// Labels that are taken away from the series; what then is one series is merged. Done by the fan-out, not by
    /// its sources.
    pub without_replica_labels: Vec<String>,
}

impl ExemplarsRequest {
    /// The selectors of a query. Errors: the query does not parse.
    pub fn of_query(query: &str, range: TimeRange) -> Result<Self, StoreError> {
        let ast = parse(query, &ParseOptions::ALL)
            .map_err(|e| StoreError::invalid("query of an exemplars request").with_source(e))?;
        let selectors = ast.selectors(ast.root()).into_iter().map(|(_, s)| s.matchers.clone()).collect();
        Ok(ExemplarsRequest {
            selectors,
            range,
            partial_response: PartialResponse::default(),
            without_replica_labels: Vec::new(),
        })
    }

    /// A query with these selectors.
    pub(crate) fn query(&self) -> String {
        let selectors = self.selectors.iter().map(|matchers| {
            let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
            format!("{{{}}}", matchers.join(","))
        });
        selectors.collect::<Vec<_>>().join(" + ")
    }
}

/// Exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The series' labels, external ones included.
    pub labels: Labels,
    /// By time.
    pub exemplars: Vec<Exemplar>,
}

/// The answer to [`Exemplars::exemplars`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExemplarsAnswer {
    /// Sorted by labels, unique.
    pub series: Vec<SeriesExemplars>,
    /// What is missing.
    pub warnings: Vec<String>,
}

impl ExemplarsAnswer {
    /// Series in any order, and in parts, as an answer.
    pub fn merged(series: impl IntoIterator<Item = SeriesExemplars>, warnings: Vec<String>) -> Self {
        let mut union = ExemplarsUnion::default();
        series.into_iter().for_each(|s| union.add(s, &[]));
        ExemplarsAnswer { series: union.finish(), warnings }
    }
}

/// A source of exemplars.
#[async_trait]
pub trait Exemplars: Send + Sync {
    /// Exemplars by selectors and time.
    async fn exemplars(&self, request: ExemplarsRequest) -> Result<ExemplarsAnswer, StoreError>;
}

/// Series of several sources as one answer: without the replica labels, sorted, their exemplars by time and none twice.
#[derive(Debug, Default)]
pub(crate) struct ExemplarsUnion(BTreeMap<Labels, Vec<Exemplar>>);

impl ExemplarsUnion {
    pub(crate) fn add(&mut self, series: SeriesExemplars, without_replica_labels: &[String]) {
        let SeriesExemplars { mut labels, exemplars } = series;
        if without_replica_labels.iter().any(|name| labels.get(name).is_some()) {
            labels = labels.filter(|name, _| without_replica_labels.iter().all(|l| l != name));
        }
        self.0.entry(labels).or_default().extend(exemplars);
    }

    pub(crate) fn finish(self) -> Vec<SeriesExemplars> {
        let series = self.0.into_iter().map(|(labels, mut exemplars)| {
            exemplars.sort_by(|a, b| {
                (a.t, &a.labels).cmp(&(b.t, &b.labels)).then_with(|| a.value.total_cmp(&b.value))
            });
            exemplars
                .dedup_by(|a, b| (a.t, &a.labels, a.value.to_bits()) == (b.t, &b.labels, b.value.to_bits()));
            SeriesExemplars { labels, exemplars }
        });
        series.filter(|s| !s.exemplars.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_becomes_selectors_and_a_query_again() {
        let all = TimeRange::ALL;
        let query = r#"sum(rate(a{x="1"}[5m])) / max_over_time({__name__=~"b|c", "ü.x"!="\""}[1h:1m])"#;
        let request = ExemplarsRequest::of_query(query, all).unwrap();
        assert_eq!(request.selectors.len(), 2);
        let again = ExemplarsRequest::of_query(&request.query(), all).unwrap();
        let sorted = |r: &ExemplarsRequest| -> Vec<Vec<String>> {
            let sort = |m: &Vec<Matcher>| {
                let mut m: Vec<String> = m.iter().map(ToString::to_string).collect();
                m.sort();
                m
            };
            r.selectors.iter().map(sort).collect()
        };
        assert_eq!(sorted(&request), sorted(&again));
        assert_eq!(ExemplarsRequest::of_query("1", all).unwrap().selectors, Vec::<Vec<Matcher>>::new());
        assert_eq!(ExemplarsRequest::of_query("a{", all).unwrap_err().kind(), crate::ErrorKind::Invalid);
    }
}
