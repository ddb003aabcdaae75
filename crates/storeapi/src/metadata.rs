//! Metric metadata: the trait, and what many sources answer together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_trait::async_trait;
use chronolith_model::MetricMetadata;

use crate::{PartialResponse, StoreError};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataRequest {
    /// One metric; `None` is all.
    pub metric: Option<String>,
    /// Metrics at most.
    pub limit: Option<usize>,
    /// Whether a source that fails is a warning.
    pub partial_response: PartialResponse,
}

/// The answer to [`Metadata::metadata`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataAnswer {
    /// What is said of each metric; different writers may say different things.
    pub metrics: BTreeMap<String, Vec<MetricMetadata>>,
    /// What is missing.
    pub warnings: Vec<String>,
}

impl MetadataAnswer {
    /// Adds what another source says of a metric, unless it is known already or the request wants no further metric.
    pub fn add(
        &mut self,
        request: &MetadataRequest,
        metric: String,
        says: impl IntoIterator<Item = MetricMetadata>,
    ) {
        if request.metric.as_ref().is_some_and(|wanted| *wanted != metric) {
            return;
        }
        let full = request.limit.is_some_and(|limit| self.metrics.len() >= limit);
        let known = match self.metrics.entry(metric) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => return,
            Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        for one in says {
            if !known.contains(&one) {
                known.push(one);
            }
        }
    }
}

/// A source of metric metadata.
#[async_trait]
pub trait Metadata: Send + Sync {
    /// Kind, help and unit by metric name.
    async fn metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError>;
}
