//! Label names and values over the blocks, and the store's description of itself.

use std::sync::Arc;

use async_trait::async_trait;
use chronolith_bucket::{BucketBlock, Deletions, SelectRequest};
use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_storeapi::local::{LabelSetUnion, ValuesPlan, strip_external};
use chronolith_storeapi::{
    LabelNames, LabelNamesRequest, LabelValues, LabelValuesRequest, PartialResponse, SeriesRequest,
    SeriesStream, Store, StoreError, StoreInfo,
};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::BucketStore;
use crate::series::{clip, is_chosen, store_error};

/// Blocks asked at a time for one request.
const BLOCKS_CONCURRENT: usize = 16;

type Answer = Result<Vec<String>, chronolith_bucket::Error>;

impl BucketStore {
    /// The coarsest blocks over the range: a series has the same labels in every resolution.
    fn label_blocks(&self, range: TimeRange, matchers: &[Matcher]) -> Vec<Arc<BucketBlock>> {
        let range = clip(range, self.shared.served_range());
        let blocks = self.snapshot();
        let blocks = blocks.sets.iter().flat_map(|set| set.choose(range, i64::MAX));
        blocks.filter(|block| is_chosen(block.id(), matchers)).collect()
    }

    fn has_nothing_in(&self, range: TimeRange) -> bool {
        self.label_blocks(range, &[]).is_empty()
    }

    /// What is deleted; nobody looks where there is nothing to read.
    async fn deletions_in(&self, range: TimeRange) -> Arc<Deletions> {
        if self.has_nothing_in(range) { Arc::default() } else { self.shared.deletions.current().await }
    }

    fn label_select(
        &self,
        block: &BucketBlock,
        matchers: Vec<Matcher>,
        range: TimeRange,
        deletions: &Deletions,
    ) -> SelectRequest {
        let limiter = Arc::new(self.shared.limiter());
        let mask = deletions.mask_of(block.meta()).map(Arc::new);
        SelectRequest { limiter, skip_chunks: true, mask, ..SelectRequest::new(matchers, range) }
    }

    /// Runs the questions to the blocks and collects answers and warnings.
    async fn ask(
        &self,
        questions: Vec<BoxFuture<'_, (String, Answer)>>,
        partial: PartialResponse,
    ) -> Result<(LabelSetUnion, Vec<String>), StoreError> {
        let (mut union, mut warnings) = (LabelSetUnion::default(), Vec::new());
        let mut answers = futures::stream::iter(questions).buffer_unordered(BLOCKS_CONCURRENT);
        while let Some((block, answer)) = answers.next().await {
            match answer {
                Ok(answer) => union.extend(answer),
                Err(err) => {
                    let err = store_error(&err);
                    let limit = err.kind() == chronolith_storeapi::ErrorKind::LimitExceeded;
                    if limit || partial == PartialResponse::Abort {
                        return Err(err.within(&block));
                    }
                    warnings.push(format!("{block}: {}", err.chain()));
                }
            }
        }
        warnings.sort_unstable();
        Ok((union, warnings))
    }
}

async fn block_values(
    block: &Arc<BucketBlock>,
    label: &str,
    plan: ValuesPlan,
    select: SelectRequest,
) -> Answer {
    match plan {
        ValuesPlan::Nothing => Ok(Vec::new()),
        ValuesPlan::Read(_) => block.label_values(label, select).await,
        ValuesPlan::External { value, matchers } => {
            let any = match (matchers.is_empty(), &select.mask) {
                (true, None) => true,
                // Every series has a label.
                (true, Some(_)) => !block.label_names(select).await?.is_empty(),
                (false, _) => block.select(select).try_next().await?.is_some(),
            };
            Ok(if any { vec![value] } else { Vec::new() })
        }
    }
}

#[async_trait]
impl Store for BucketStore {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.check_synced()?;
        let deletions = self.deletions_in(request.range).await;
        self.series_stream(request, &deletions)
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        self.check_synced()?;
        let (mut questions, mut queried_blocks) = (Vec::new(), Vec::new());
        let deletions = self.deletions_in(request.range).await;
        for block in self.label_blocks(request.range, &request.block_matchers) {
            let external = block.external_labels().clone();
            let Some(matchers) = strip_external(&request.matchers, &external) else { continue };
            queried_blocks.push(block.id());
            let select = self.label_select(&block, matchers, request.range, &deletions);
            questions.push(
                async move {
                    let mut names = block.label_names(select).await;
                    if let Ok(names) = &mut names
                        && !names.is_empty()
                    {
                        names.extend(external.iter().map(|(name, _)| name.to_owned()));
                    }
                    (format!("block {}", block.id()), names)
                }
                .boxed(),
            );
        }
        let (union, warnings) = self.ask(questions, request.partial_response).await?;
        Ok(LabelNames { warnings, queried_blocks, ..union.names(&request) })
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        self.check_synced()?;
        let (mut questions, mut queried_blocks) = (Vec::new(), Vec::new());
        let deletions = self.deletions_in(request.range).await;
        for block in self.label_blocks(request.range, &request.block_matchers) {
            let plan = ValuesPlan::new(&request, block.external_labels());
            let matchers = match &plan {
                ValuesPlan::Nothing => continue,
                ValuesPlan::Read(matchers) | ValuesPlan::External { matchers, .. } => matchers.clone(),
            };
            queried_blocks.push(block.id());
            let select = self.label_select(&block, matchers, request.range, &deletions);
            let label = request.label.as_str();
            questions.push(
                async move {
                    let values = block_values(&block, label, plan, select).await;
                    (format!("block {}", block.id()), values)
                }
                .boxed(),
            );
        }
        let (union, warnings) = self.ask(questions, request.partial_response).await?;
        Ok(LabelValues { warnings, queried_blocks, ..union.values(&request) })
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.check_synced()?;
        let snapshot = self.snapshot();
        let label_sets: Vec<Labels> = snapshot.sets.iter().map(|s| s.external.clone()).collect();
        let range = clip(snapshot.range(), self.shared.served_range());
        Ok(StoreInfo { label_sets, range, tsdbs: snapshot.tsdbs(), ..StoreInfo::new("store") })
    }

    fn series_at_once(&self, _matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        (self.is_synced() && self.has_nothing_in(range)).then_some(0)
    }

    fn values_at_once(&self, _label: &str, _matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        (self.is_synced() && self.has_nothing_in(range)).then_some(0)
    }
}
