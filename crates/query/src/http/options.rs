//! The parameters that Thanos added to Prometheus's API.

use chronolith_httpapi::{ApiError, Params};
use chronolith_model::Matcher;
use chronolith_promql::parser::parse_selector;
use chronolith_storeapi::PartialResponse;

/// How one request wants the stores to be read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Remove replicas; has an effect only with replica labels.
    pub dedup: bool,
    /// Labels that tell replicas apart.
    pub replica_labels: Vec<String>,
    /// Answer with a warning, or fail, when a store fails.
    pub partial_response: PartialResponse,
    /// The coarsest downsampling that will do; 0 is raw only.
    pub max_source_resolution_ms: i64,
    /// Choose the resolution by the step where the request does not (`--query.auto-downsampling`).
    pub auto_downsampling: bool,
    /// Only stores that fit one of these selectors; empty means all.
    pub store_matchers: Vec<Vec<Matcher>>,
}

impl ReadOptions {
    /// These options with what the request says. `step_ms` is 0 outside range queries.
    pub(super) fn with_params(&self, params: &Params, step_ms: i64) -> Result<Self, ApiError> {
        let mut options = self.clone();
        options.dedup = params.bool("dedup", self.dedup)?;
        let replica_labels: Vec<String> = params.all("replicaLabels[]").map(str::to_owned).collect();
        if !replica_labels.is_empty() {
            options.replica_labels = replica_labels;
        }
        let warn = params.bool("partial_response", self.partial_response == PartialResponse::Warn)?;
        options.partial_response = if warn { PartialResponse::Warn } else { PartialResponse::Abort };
        options.max_source_resolution_ms = match params.get("max_source_resolution") {
            "auto" => step_ms / 5,
            "" if self.auto_downsampling => step_ms / 5,
            "" => self.max_source_resolution_ms,
            _ => params.duration("max_source_resolution")?.unwrap_or(0),
        };
        if options.max_source_resolution_ms < 0 {
            return Err(ApiError::parameter(
                "max_source_resolution",
                "negative resolutions are not accepted",
            ));
        }
        for selector in params.all("storeMatch[]") {
            let matchers = parse_selector(selector).map_err(|e| ApiError::parameter("storeMatch[]", e))?;
            options.store_matchers.push(matchers);
        }
        Ok(options)
    }

    /// The replica labels that are to be taken away.
    pub fn without_replica_labels(&self) -> Vec<String> {
        if self.dedup { self.replica_labels.clone() } else { Vec::new() }
    }
}
