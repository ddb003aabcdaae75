//! Aggregations that a store folds for a querier: the trait, and the gRPC service over it.
//!
//! A store knows no PromQL by itself: the role that is wired with an engine gives it one ([`EvaluateOver`]). While it is at work it
//! sends empty frames, so that a querier which watches the pauses of its stores does not take it for dead. When the caller goes
//! away, the answer's future is dropped, and with it the evaluation.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chronolith_model::{Labels, Matcher};
use chronolith_promql::{FoldRequest, Folded};
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::convert::status_from_error;
use crate::proto::chronolith as own;
use crate::{PartialResponse, Store, StoreError, convert_fold};

/// The largest request: a query is at most a few megabytes.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Between signs of life.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// What a store is asked to fold, and how it reads its series for that: as the querier would read them.
#[derive(Clone, Debug)]
pub struct FoldCall {
    /// The aggregation.
    pub fold: FoldRequest,
    /// Remove replicas; has an effect only with replica labels.
    pub dedup: bool,
    /// Labels that tell replicas apart.
    pub replica_labels: Vec<String>,
    /// What to do when a store behind the store fails.
    pub partial_response: PartialResponse,
    /// The coarsest downsampling that will do; 0 is raw only.
    pub max_resolution_ms: i64,
    /// Holds for every selector.
    pub tenant: Option<Matcher>,
    /// How long it may take.
    pub timeout: Duration,
    /// Bytes that it may hold; 0 is no bound.
    pub memory_max: usize,
    /// The longest pause between two signs of life of a remote store. Not sent.
    pub pause_max: Option<Duration>,
}

/// What a store folded.
#[derive(Debug)]
pub struct FoldAnswer {
    /// The groups.
    pub folded: Folded,
    /// The external label sets of the store, none when it does not know them: a querier looks once more whether a series may lie in
    /// another store, too.
    pub label_sets: Vec<Labels>,
}

/// Folds aggregations over a store's series.
#[async_trait]
pub trait Fold: Send + Sync {
    /// Folds one. An error of the kind [`crate::ErrorKind::Invalid`] or [`crate::ErrorKind::NotFound`] declines: the series are to be
    /// read instead. Any other is that of a store that failed.
    async fn fold(&self, call: FoldCall) -> Result<FoldAnswer, StoreError>;
}

/// Makes a store one that folds: an engine over it. Roles that serve a store take it from whoever wires them.
pub type EvaluateOver = fn(Arc<dyn Store>) -> Arc<dyn Fold>;

/// `chronolith.Fold` over a store's engine; so many calls at a time, others wait.
pub(crate) fn service(
    fold: Arc<dyn Fold>,
    concurrency_max: usize,
) -> own::fold_server::FoldServer<FoldService> {
    let gate = Arc::new(Semaphore::new(concurrency_max.max(1)));
    own::fold_server::FoldServer::new(FoldService { fold, gate }).max_decoding_message_size(REQUEST_BYTES_MAX)
}

pub(crate) struct FoldService {
    fold: Arc<dyn Fold>,
    gate: Arc<Semaphore>,
}

#[tonic::async_trait]
impl own::fold_server::Fold for FoldService {
    type FoldStream = BoxStream<'static, Result<own::FoldFrame, Status>>;

    async fn fold(&self, request: Request<own::FoldRequest>) -> Result<Response<Self::FoldStream>, Status> {
        let call = convert_fold::call_from(request.into_inner()).map_err(|e| status_from_error(&e))?;
        let (fold, gate) = (Arc::clone(&self.fold), Arc::clone(&self.gate));
        Ok(Response::new(Box::pin(async_stream::stream! {
            let mut work = Box::pin(async move {
                let permit = gate.acquire_owned().await;
                let _permit = permit.map_err(|_| StoreError::unavailable("shutting down"))?;
                fold.fold(call).await
            });
            let answer = loop {
                match tokio::time::timeout(ALIVE_INTERVAL, &mut work).await {
                    Ok(answer) => break answer,
                    Err(_) => yield Ok(own::FoldFrame::default()),
                }
            };
            match answer {
                Ok(answer) => {
                    for frame in convert_fold::frames(answer) {
                        yield Ok(frame);
                    }
                }
                Err(error) => yield Err(status_from_error(&error)),
            }
        })))
    }
}
