//! What the Prometheus servers behind the endpoints scrape: the trait, and what many sources answer together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_trait::async_trait;
use chronolith_model::Labels;

use crate::{PartialResponse, StoreError};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetsRequest {
    /// Targets that are scraped.
    pub active: bool,
    /// Targets that relabelling took away.
    pub dropped: bool,
    /// Whether a source that fails is a warning.
    pub partial_response: PartialResponse,
    /// Labels that are taken away; what then is one target is merged. Done by the fan-out.
    pub without_replica_labels: Vec<String>,
}

/// How the last scrape went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetHealth {
    /// It failed.
    Down,
    /// It went well.
    Up,
    /// There was none.
    #[default]
    Unknown,
}

impl TargetHealth {
    /// The name that Prometheus's API shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            TargetHealth::Down => "down",
            TargetHealth::Up => "up",
            TargetHealth::Unknown => "unknown",
        }
    }
}

/// A target that is scraped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActiveTarget {
    /// Labels before relabelling.
    pub discovered_labels: Labels,
    /// Labels of its series.
    pub labels: Labels,
    /// The scrape configuration it comes from.
    pub scrape_pool: String,
    /// Where it is scraped.
    pub scrape_url: String,
    /// The same as others reach it.
    pub global_url: String,
    /// The error of the last scrape, or nothing.
    pub last_error: String,
    /// When it was, in milliseconds.
    pub last_scrape_ms: i64,
    /// Seconds that it took.
    pub last_scrape_s: f64,
    /// How it went.
    pub health: TargetHealth,
}

/// The answer to [`Targets::targets`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetsAnswer {
    /// Scraped, by pool and address.
    pub active: Vec<ActiveTarget>,
    /// Labels before relabelling of those that it took away, sorted.
    pub dropped: Vec<Labels>,
    /// What is missing.
    pub warnings: Vec<String>,
}

/// A source of targets.
#[async_trait]
pub trait Targets: Send + Sync {
    /// All targets.
    async fn targets(&self, request: TargetsRequest) -> Result<TargetsAnswer, StoreError>;
}

/// What tells one target from another: pool, address, labels.
type Identity = (String, String, Labels, Labels);

/// Targets of several sources as one answer: without the replica labels, and of equal ones the one that fares worse, or was
/// scraped later.
#[derive(Debug, Default)]
pub(crate) struct TargetsUnion {
    active: BTreeMap<Identity, ActiveTarget>,
    dropped: std::collections::BTreeSet<Labels>,
}

impl TargetsUnion {
    pub(crate) fn add(&mut self, answer: TargetsAnswer, request: &TargetsRequest) {
        let without = |labels: Labels| {
            let is_replica = |name: &str| request.without_replica_labels.iter().any(|l| l == name);
            let touched = request.without_replica_labels.iter().any(|l| labels.get(l).is_some());
            if touched { labels.filter(|name, _| !is_replica(name)) } else { labels }
        };
        let active = answer.active.into_iter().filter(|_| request.active);
        for mut target in active {
            target.labels = without(target.labels);
            target.discovered_labels = without(target.discovered_labels);
            let identity = (
                target.scrape_pool.clone(),
                target.scrape_url.clone(),
                target.labels.clone(),
                target.discovered_labels.clone(),
            );
            match self.active.entry(identity) {
                Entry::Vacant(entry) => drop(entry.insert(target)),
                Entry::Occupied(mut entry) => {
                    let rank = |t: &ActiveTarget| (t.health, std::cmp::Reverse(t.last_scrape_ms));
                    if rank(&target) < rank(entry.get()) {
                        entry.insert(target);
                    }
                }
            }
        }
        if request.dropped {
            self.dropped.extend(answer.dropped.into_iter().map(without));
        }
    }

    pub(crate) fn finish(self) -> TargetsAnswer {
        TargetsAnswer {
            active: self.active.into_values().collect(),
            dropped: self.dropped.into_iter().collect(),
            warnings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_one_target() {
        let target = |replica: &str, health, at| ActiveTarget {
            labels: Labels::from_pairs([("job", "j"), ("replica", replica)]).unwrap(),
            scrape_url: "http://x/metrics".to_owned(),
            health,
            last_scrape_ms: at,
            ..ActiveTarget::default()
        };
        let dropped = || vec![Labels::from_pairs([("__address__", "y")]).unwrap()];
        let mut request = TargetsRequest {
            active: true,
            dropped: true,
            partial_response: PartialResponse::Warn,
            without_replica_labels: vec!["replica".to_owned()],
        };
        let union = |request: &TargetsRequest| {
            let mut union = TargetsUnion::default();
            for (replica, health, at) in
                [("a", TargetHealth::Up, 1), ("b", TargetHealth::Down, 2), ("c", TargetHealth::Up, 3)]
            {
                let active = vec![target(replica, health, at)];
                union.add(TargetsAnswer { active, dropped: dropped(), warnings: vec![] }, request);
            }
            union.finish()
        };
        let found = union(&request);
        assert_eq!(found.active.iter().map(|t| t.last_scrape_ms).collect::<Vec<_>>(), [2]);
        assert_eq!(found.dropped, dropped());
        request.without_replica_labels.clear();
        request.dropped = false;
        let found = union(&request);
        assert_eq!((found.active.len(), found.dropped.len()), (3, 0));
    }
}
