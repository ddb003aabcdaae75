//! Aggregations below the merge, from both sides: the querier asks the stores of its fan-out to fold, and an engine over a store
//! folds for another querier.
//!
//! The store reads its series as the querier would: the same removal of replicas, resolution, tenant and treatment of stores
//! behind it. What goes wrong with the evaluation rather than with a store (a budget, a query that this engine reads otherwise)
//! declines, so that the querier evaluates as ever and says what is wrong in its own words.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use chronolith_model::{Matcher, TimeRange};
use chronolith_promql::{
    Engine, EngineError, FoldRequest, FoldedGroup, MemoryUse, Pushed, QueryContext, QueryMemory, Queryable,
    QueryableError, QueryableErrorKind,
};
use chronolith_storeapi::{ErrorKind, Fanout, Fold, FoldAnswer, FoldCall, FoldedParts, Store, StoreError};
use tokio::runtime::Handle;

use crate::http::enforce;
use crate::select::{query_error, wait};
use crate::{SelectOptions, StoreQueryable};

impl StoreQueryable {
    pub(crate) fn push_to_stores(
        &self,
        fold: &FoldRequest,
        matchers: &[Matcher],
        range: TimeRange,
        cx: &QueryContext,
    ) -> Result<Option<Pushed>, QueryableError> {
        let SelectOptions {
            dedup, replica_labels, partial_response, max_resolution_ms, shard, tenant, ..
        } = &self.options;
        let Some(fanout) = self.fanout.as_ref().filter(|_| shard.is_none()) else { return Ok(None) };
        let left = cx.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let call = FoldCall {
            fold: fold.clone(),
            dedup: *dedup,
            replica_labels: replica_labels.clone(),
            partial_response: *partial_response,
            max_resolution_ms: *max_resolution_ms,
            tenant: tenant.clone(),
            timeout: left.unwrap_or(fold.options.timeout).min(fold.options.timeout),
            memory_max: cx.memory.max(),
            pause_max: None,
        };
        let mut matchers = matchers.to_vec();
        if let Some(tenant) = tenant {
            enforce(tenant, &mut matchers);
        }
        let asked = Box::pin(fanout.fold(&call, &matchers, range));
        let Some(FoldedParts { mut parts, rest, warnings }) =
            wait(&self.runtime, cx, asked)?.map_err(query_error)?
        else {
            return Ok(None);
        };
        for part in &mut parts {
            let bytes = part.groups.iter().map(FoldedGroup::bytes).sum();
            part.held = Some(cx.memory.hold(MemoryUse::Groups, bytes)?);
        }
        let rest = rest.map(|rest| {
            let queryable = StoreQueryable {
                store: Arc::new(rest.clone()),
                fanout: Some(rest),
                options: self.options.clone(),
                runtime: self.runtime.clone(),
            };
            Box::new(queryable) as Box<dyn Queryable>
        });
        Ok(Some(Pushed { parts, rest, warnings }))
    }
}

/// An engine over a store, for queriers that have it fold. Must be called inside a tokio runtime.
pub fn evaluate_over(store: Arc<dyn Store>) -> Arc<dyn Fold> {
    Arc::new(StoreEngine { store, fanout: None, runtime: Handle::current() })
}

/// As [`evaluate_over`], over a fan-out, whose stores may fold in their turn.
pub(crate) fn evaluate_over_fanout(fanout: &Fanout) -> Arc<dyn Fold> {
    let store = Arc::new(fanout.clone());
    Arc::new(StoreEngine { store, fanout: Some(fanout.clone()), runtime: Handle::current() })
}

struct StoreEngine {
    store: Arc<dyn Store>,
    fanout: Option<Fanout>,
    runtime: Handle,
}

/// Cancels the evaluation when whoever asked is gone.
struct CancelOnDrop(QueryContext);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[async_trait]
impl Fold for StoreEngine {
    async fn fold(&self, call: FoldCall) -> Result<FoldAnswer, StoreError> {
        let FoldCall { fold, dedup, replica_labels, partial_response, max_resolution_ms, tenant, .. } = call;
        let options = SelectOptions {
            dedup,
            replica_labels,
            partial_response,
            max_resolution_ms,
            tenant,
            ..SelectOptions::default()
        };
        let queryable = match &self.fanout {
            Some(fanout) => StoreQueryable::over_fanout(fanout, options, self.runtime.clone()),
            None => StoreQueryable::new(Arc::clone(&self.store), options, self.runtime.clone()),
        };
        let cx = QueryContext::new().taking_turns().with_memory(QueryMemory::new(call.memory_max, None));
        let mut cx = cx.with_deadline(Instant::now() + call.timeout);
        cx.downsampled = max_resolution_ms > 0;
        let _guard = CancelOnDrop(cx.clone());
        let folded = tokio::task::spawn_blocking(move || Engine::fold(&queryable, &fold, &cx)).await;
        let folded = folded.map_err(|e| StoreError::internal("folding panicked").with_source(e))?;
        let folded = folded.map_err(store_error)?;
        let label_sets = self.store.info().await?.label_sets;
        Ok(FoldAnswer { folded, label_sets })
    }
}

fn store_error(error: EngineError) -> StoreError {
    let EngineError::Storage(error) = error else {
        let kind = match &error {
            EngineError::Timeout => ErrorKind::Timeout,
            EngineError::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Invalid,
        };
        return StoreError::new(kind, error.to_string());
    };
    let kind = match error.kind {
        QueryableErrorKind::Unavailable => ErrorKind::Unavailable,
        QueryableErrorKind::Corrupt => ErrorKind::Corrupt,
        QueryableErrorKind::LimitExceeded => ErrorKind::LimitExceeded,
        QueryableErrorKind::Cancelled => ErrorKind::Cancelled,
        QueryableErrorKind::Timeout => ErrorKind::Timeout,
        QueryableErrorKind::Invalid | QueryableErrorKind::MemoryExceeded => ErrorKind::Invalid,
        QueryableErrorKind::Internal => ErrorKind::Internal,
    };
    StoreError::new(kind, error.message)
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
