//! Which stores of a fan-out may fold an aggregation, and asking them.
//!
//! A part that one store folds is exact where no series of it lies in another store that takes part: nothing is to be merged or
//! deduplicated across the two. That is known from external labels, by which a fan-out leaves stores out already. Every pair of
//! label sets must differ in a label that both have and that is no replica label; replicas differ in those only, and are the same
//! series once they are taken off. A store without label sets may hold anything.
//!
//! Stores of this process are never asked: reading them as ever is the same work without a copy.

use std::collections::HashSet;
use std::sync::Arc;

use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_promql::Folded;
use futures::future::join_all;

use super::{Chosen, Endpoint, Endpoints, Fanout, tolerate};
use crate::{ErrorKind, FoldCall, StoreError};

/// What stores folded.
pub struct FoldedParts {
    /// The parts.
    pub parts: Vec<Folded>,
    /// The stores that are to be read as ever; `None` when there are none.
    pub rest: Option<Fanout>,
    /// Stores that are missing from the answer.
    pub warnings: Vec<String>,
}

impl Fanout {
    /// Has those stores fold an aggregation that can and may. `None` where all are to be read as ever. `matchers` and `range` choose
    /// the stores, as they do in [`crate::Store::series`].
    pub async fn fold(
        &self,
        call: &FoldCall,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Option<FoldedParts>, StoreError> {
        // Whoever cannot be asked is a matter of the ordinary way.
        let Ok(Chosen { up, mut warnings }) = self.choose(range, matchers, call.partial_response) else {
            return Ok(None);
        };
        if up.iter().all(|endpoint| endpoint.apis.fold.is_none()) {
            return Ok(None);
        }
        let replica_labels = if call.dedup { call.replica_labels.as_slice() } else { &[] };
        let mut sets = Vec::with_capacity(up.len());
        for endpoint in &up {
            // What was asked for seconds ago is not good enough where the truth can be had for nothing.
            let label_sets = match endpoint.local {
                true => endpoint.store.info().await.map(|info| info.label_sets).unwrap_or_default(),
                false => endpoint.info.label_sets.clone(),
            };
            sets.push(without(label_sets, replica_labels));
        }
        let alone = |i: usize, sets: &[Vec<Labels>]| {
            (0..sets.len()).all(|other| other == i || are_disjoint(&sets[i], &sets[other]))
        };
        let call = FoldCall { pause_max: self.options.response_timeout, ..call.clone() };
        let calls = up.iter().enumerate().filter(|(i, _)| alone(*i, &sets)).filter_map(|(i, endpoint)| {
            let answer = endpoint.apis.fold.as_ref()?.fold(call.clone());
            Some(async move { (i, answer.await) })
        });
        let answers = join_all(calls).await;
        let (mut parts, mut done) = (Vec::new(), HashSet::new());
        for (i, answer) in answers {
            match answer {
                Ok(answer) => {
                    // It may have got other producers since it was asked for its label sets.
                    sets[i] = without(answer.label_sets, replica_labels);
                    parts.push(answer.folded);
                    done.insert(i);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
                    let (store, err) = (&up[i].name, error.chain());
                    tracing::debug!(store, err, "a store does not fold, its series are read");
                }
                Err(error) => {
                    warnings.push(tolerate(&up[i].name, error, call.partial_response)?);
                    done.insert(i);
                }
            }
        }
        if done.is_empty() || !done.iter().all(|i| alone(*i, &sets)) {
            return Ok(None);
        }
        let left = up.iter().enumerate().filter(|(i, _)| !done.contains(i));
        let left: Vec<Arc<Endpoint>> = left.map(|(_, endpoint)| Arc::clone(endpoint)).collect();
        let rest = (!left.is_empty()).then(|| {
            let set = Arc::new(Endpoints { up: left, down: Vec::new() });
            Fanout { set: Arc::new(set), ..self.clone() }
        });
        Ok(Some(FoldedParts { parts, rest, warnings }))
    }
}

fn without(label_sets: Vec<Labels>, names: &[String]) -> Vec<Labels> {
    label_sets.iter().map(|set| set.filter(|name, _| !names.iter().any(|n| n == name))).collect()
}

/// True when no series can have labels of a set of each.
fn are_disjoint(a: &[Labels], b: &[Labels]) -> bool {
    let differ = |a: &Labels, b: &Labels| {
        a.iter().any(|(name, value)| b.get(name).is_some_and(|other| other != value))
    };
    !a.is_empty() && !b.is_empty() && a.iter().all(|a| b.iter().all(|b| differ(a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_disjoint_where_each_pair_differs_in_a_shared_label() {
        let set = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
        let (a, b) = (set(&[("cluster", "a"), ("replica", "0")]), set(&[("cluster", "b"), ("replica", "1")]));
        let other = set(&[("tenant_id", "t")]);
        let of = |a: &[&Labels], b: &[&Labels], replicas: &[&str]| {
            let names: Vec<String> = replicas.iter().map(|n| (*n).to_owned()).collect();
            let sets = |l: &[&Labels]| without(l.iter().map(|l| (*l).clone()).collect(), &names);
            are_disjoint(&sets(a), &sets(b))
        };
        assert!(of(&[&a], &[&b], &["replica"]));
        // Replicas of the same.
        let c = set(&[("cluster", "a"), ("replica", "1")]);
        assert!(!of(&[&a], &[&c], &["replica"]));
        assert!(of(&[&a], &[&c], &[]));
        // One of several pairs may share a series.
        assert!(!of(&[&a, &b], &[&c], &["replica"]));
        assert!(!of(&[&a], &[&other], &[]), "no label in common");
        assert!(!of(&[&a], &[], &[]), "not known");
        assert!(!of(&[&a], &[&Labels::empty()], &[]));
        assert!(!of(&[&a], &[&b], &["replica", "cluster"]));
    }
}
