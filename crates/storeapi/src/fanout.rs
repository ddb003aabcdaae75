//! One [`Store`] over many: asks those that may have something, merges what they answer.
//!
//! Every remote store that is asked has a task that reads its stream ahead by a few batches, and watches the pauses. A
//! store of this process is read where the answer is polled, without a watch. A store that fails or falls silent is a
//! warning, or fails the whole call, as the request says. Stores that cannot take replica labels away or cannot shard are
//! asked for everything, and it is done here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chronolith_model::{Labels, Matcher, TimeRange};
use futures::StreamExt as _;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::local::LabelSetUnion;
use crate::merge::{MergeOptions, Source, abort, merge, warning};
use crate::{
    Exemplars, Fold, LabelNames, LabelNamesRequest, LabelValues, LabelValuesRequest, Metadata,
    PartialResponse, Rules, SeriesEvent, SeriesRequest, SeriesStream, Shaper, Status, Store, StoreError,
    StoreInfo, Targets,
};

/// The pseudo label by which store matchers choose endpoints.
pub const ADDRESS_LABEL: &str = "__address__";

/// Batches that a store's task reads ahead: enough for the merge to find the next one there, little enough to bound what
/// a hundred stores hold.
const READ_AHEAD_BATCHES: usize = 4;

/// One store of a fan-out.
#[derive(Clone)]
pub struct Endpoint {
    /// Its address, or another name for warnings and store matchers.
    pub name: String,
    /// Where to ask.
    pub store: Arc<dyn Store>,
    /// What it holds and can do.
    pub info: StoreInfo,
    /// It is part of this process. Then it is asked whatever `info` said some seconds ago: a sample must be found as
    /// soon as its write was acknowledged, and asking costs nothing.
    pub local: bool,
    /// What it answers beside the StoreAPI.
    pub apis: Apis,
}

/// What an endpoint answers beside the StoreAPI.
#[derive(Clone, Default)]
pub struct Apis {
    /// Exemplars.
    pub exemplars: Option<Arc<dyn Exemplars>>,
    /// Metric metadata.
    pub metadata: Option<Arc<dyn Metadata>>,
    /// Rules.
    pub rules: Option<Arc<dyn Rules>>,
    /// Targets.
    pub targets: Option<Arc<dyn Targets>>,
    /// Statistics of heads.
    pub status: Option<Arc<dyn Status>>,
    /// Aggregations over its series.
    pub fold: Option<Arc<dyn Fold>>,
}

/// The stores of a fan-out at one moment.
#[derive(Clone, Default)]
pub struct Endpoints {
    /// Stores that answer.
    pub up: Vec<Arc<Endpoint>>,
    /// Stores that must be asked but do not answer: each is a warning, or fails the call.
    pub down: Vec<String>,
}

/// Where a fan-out finds its stores; asked anew for every call.
pub trait EndpointSet: Send + Sync {
    /// The stores right now.
    fn endpoints(&self) -> Arc<Endpoints>;
}

/// A set that never changes.
impl EndpointSet for Arc<Endpoints> {
    fn endpoints(&self) -> Arc<Endpoints> {
        Arc::clone(self)
    }
}

/// How to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct FanoutOptions {
    /// The longest pause between two pieces of a store's answer; `None` waits as long as the caller does.
    pub response_timeout: Option<Duration>,
}

/// A [`Store`] over many.
#[derive(Clone)]
pub struct Fanout {
    set: Arc<dyn EndpointSet>,
    options: FanoutOptions,
    /// Any of these lists must fit a store; none means all stores.
    store_matchers: Arc<[Vec<Matcher>]>,
}

impl Fanout {
    /// A fan-out over the stores of `set`.
    pub fn new(set: Arc<dyn EndpointSet>, options: FanoutOptions) -> Self {
        Fanout { set, options, store_matchers: Arc::new([]) }
    }

    /// The same fan-out, restricted to stores for which one of the lists fits: matchers on [`ADDRESS_LABEL`] and on
    /// external labels.
    pub fn with_store_matchers(&self, store_matchers: Vec<Vec<Matcher>>) -> Self {
        Fanout { store_matchers: store_matchers.into(), ..self.clone() }
    }

    fn choose(
        &self,
        range: TimeRange,
        matchers: &[Matcher],
        partial: PartialResponse,
    ) -> Result<Chosen, StoreError> {
        let endpoints = self.set.endpoints();
        if let (Some(name), PartialResponse::Abort) = (endpoints.down.first(), partial) {
            return Err(abort(name, StoreError::unavailable("store is down")));
        }
        if endpoints.up.is_empty() && partial == PartialResponse::Abort {
            return Err(abort("", StoreError::unavailable("no store is registered")));
        }
        let up = endpoints.up.iter().filter(|e| self.is_asked(e, range, matchers)).cloned().collect();
        let down = endpoints.down.iter().map(|name| format!("{name}: store is down")).collect();
        Ok(Chosen { up, warnings: down })
    }

    fn is_asked(&self, endpoint: &Endpoint, range: TimeRange, matchers: &[Matcher]) -> bool {
        let info = &endpoint.info;
        // An empty range overlaps all of time by its numbers; such an endpoint has no series, or not even the StoreAPI.
        let may_have = endpoint.local
            || !info.range.is_empty()
                && info.range.overlaps(&range)
                && fits_any(&info.label_sets, matchers.iter());
        !range.is_empty() && may_have && self.is_chosen(endpoint)
    }

    /// True when the store matchers choose the endpoint.
    fn is_chosen(&self, endpoint: &Endpoint) -> bool {
        let fits_store = |list: &Vec<Matcher>| {
            let (address, labels): (Vec<_>, Vec<_>) = list.iter().partition(|m| m.name == ADDRESS_LABEL);
            address.iter().all(|m| m.matches(&endpoint.name))
                && fits_any(&endpoint.info.label_sets, labels.into_iter())
        };
        self.store_matchers.is_empty() || self.store_matchers.iter().any(fits_store)
    }

    /// The endpoints that store matchers choose, and those that are down.
    fn chosen(&self, partial: PartialResponse) -> Result<Chosen, StoreError> {
        let endpoints = self.set.endpoints();
        if let (Some(name), PartialResponse::Abort) = (endpoints.down.first(), partial) {
            return Err(abort(name, StoreError::unavailable("store is down")));
        }
        let up = endpoints.up.iter().filter(|e| self.is_chosen(e)).cloned().collect();
        let down = endpoints.down.iter().map(|name| format!("{name}: store is down")).collect();
        Ok(Chosen { up, warnings: down })
    }
}

impl Fanout {
    /// The sum over the stores asked, where all of them are of this process and know it.
    fn at_once(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        of: impl Fn(&dyn Store) -> Option<usize>,
    ) -> Option<usize> {
        let endpoints = self.set.endpoints();
        let mut asked = endpoints.up.iter().filter(|e| self.is_asked(e, range, matchers));
        asked.try_fold(0_usize, |sum, endpoint| {
            let able = endpoint.local
                && endpoint.info.supports_without_replica_labels
                && endpoint.info.supports_sharding;
            Some(sum.saturating_add(if able { of(endpoint.store.as_ref()) } else { None }?))
        })
    }
}

impl Fanout {
    /// True when whoever is asked is remote and leaves out labels itself. A store of this process hands over label sets as they
    /// are: it costs nothing, and leaving some out would.
    pub fn projects(&self, matchers: &[Matcher], range: TimeRange) -> bool {
        let endpoints = self.set.endpoints();
        let mut asked = endpoints.up.iter().filter(|e| self.is_asked(e, range, matchers)).peekable();
        asked.peek().is_some() && asked.all(|e| !e.local && e.info.supports_projection)
    }
}

struct Chosen {
    up: Vec<Arc<Endpoint>>,
    warnings: Vec<String>,
}

/// True when all matchers fit one of the label sets; a label that a set does not have fits.
fn fits_any<'a>(label_sets: &[Labels], matchers: impl Iterator<Item = &'a Matcher> + Clone) -> bool {
    label_sets.is_empty()
        || label_sets
            .iter()
            .any(|set| matchers.clone().all(|m| set.get(&m.name).is_none_or(|value| m.matches(value))))
}

#[async_trait]
impl Store for Fanout {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let Chosen { up, warnings } =
            self.choose(request.range, &request.matchers, request.partial_response)?;
        let timeout = self.options.response_timeout;
        let sources = up.into_iter().map(|endpoint| Source {
            name: endpoint.name.clone(),
            stream: read(endpoint, request.clone(), timeout),
        });
        let options = MergeOptions {
            partial_response: request.partial_response,
            limit: request.limit,
            batch_size: request.batch_size,
        };
        let merged = merge(sources.collect(), options);
        if warnings.is_empty() {
            return Ok(merged);
        }
        let warnings = warnings.into_iter().map(|w| Ok(SeriesEvent::Warning(w)));
        Ok(Box::pin(futures::stream::iter(warnings).chain(merged)))
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        let Chosen { up, mut warnings } =
            self.choose(request.range, &request.matchers, request.partial_response)?;
        let calls = up.iter().map(|endpoint| {
            let call = endpoint.store.label_names(request.clone());
            async move { (&endpoint.name, within(self.options.response_timeout, call).await) }
        });
        let (mut union, mut queried_blocks) = (LabelSetUnion::default(), Vec::new());
        for (name, answer) in join_all(calls).await {
            match answer {
                Ok(answer) => {
                    union.extend(answer.names);
                    warnings.extend(answer.warnings);
                    queried_blocks.extend(answer.queried_blocks);
                }
                Err(error) => warnings.push(tolerate(name, error, request.partial_response)?),
            }
        }
        Ok(LabelNames { warnings, queried_blocks, ..union.names(&request) })
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        let Chosen { up, mut warnings } =
            self.choose(request.range, &request.matchers, request.partial_response)?;
        let (mut union, mut queried_blocks) = (LabelSetUnion::default(), Vec::new());
        if !request.without_replica_labels.contains(&request.label) {
            let calls = up.iter().map(|endpoint| {
                let call = endpoint.store.label_values(request.clone());
                async move { (&endpoint.name, within(self.options.response_timeout, call).await) }
            });
            for (name, answer) in join_all(calls).await {
                match answer {
                    Ok(answer) => {
                        union.extend(answer.values);
                        warnings.extend(answer.warnings);
                        queried_blocks.extend(answer.queried_blocks);
                    }
                    Err(error) => warnings.push(tolerate(name, error, request.partial_response)?),
                }
            }
        }
        Ok(LabelValues { warnings, queried_blocks, ..union.values(&request) })
    }

    /// All label sets, and the time from the first to the last sample of any store.
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut info = StoreInfo::new("query");
        for endpoint in &self.set.endpoints().up {
            let one = if endpoint.local { endpoint.store.info().await? } else { endpoint.info.clone() };
            info.label_sets.extend(one.label_sets);
            info.tsdbs.extend(one.tsdbs);
            if !one.range.is_empty() {
                info.range.mint = info.range.mint.min(one.range.mint);
                info.range.maxt = info.range.maxt.max(one.range.maxt);
            }
        }
        info.label_sets.sort();
        info.label_sets.dedup();
        Ok(info)
    }

    fn series_at_once(&self, matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        self.at_once(matchers, range, |store| store.series_at_once(matchers, range))
    }

    fn values_at_once(&self, label: &str, matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        self.at_once(matchers, range, |store| store.values_at_once(label, matchers, range))
    }
}

fn tolerate(name: &str, error: StoreError, partial: PartialResponse) -> Result<String, StoreError> {
    match partial {
        PartialResponse::Warn => Ok(warning(name, &error)),
        PartialResponse::Abort => Err(abort(name, error)),
    }
}

async fn within<T>(
    timeout: Option<Duration>,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout {
        None => call.await,
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::timeout(format!("no answer within {timeout:?}"))),
        },
    }
}

/// Reads a store's answer. A remote one is read in a task of its own, a few batches ahead; one of this process where the
/// answer is polled, as there is no wire to keep busy and the hand-over between threads would cost more than a batch.
fn read(endpoint: Arc<Endpoint>, request: SeriesRequest, timeout: Option<Duration>) -> SeriesStream {
    if !endpoint.local {
        return read_ahead(endpoint, request, timeout);
    }
    Box::pin(async_stream::stream! {
        match open(&endpoint, request).await {
            Err(error) => yield Err(error),
            Ok(mut stream) => {
                while let Some(event) = stream.next().await {
                    yield event;
                }
            }
        }
    })
}

/// Reads a store's answer in a task of its own, a few batches ahead. Dropping the stream ends the task.
fn read_ahead(endpoint: Arc<Endpoint>, request: SeriesRequest, timeout: Option<Duration>) -> SeriesStream {
    let (sender, mut receiver) = mpsc::channel(READ_AHEAD_BATCHES);
    let mut task = AbortOnDrop(tokio::spawn(async move {
        let opened = within(timeout, open(&endpoint, request)).await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return drop(sender.send(Err(error)).await),
        };
        loop {
            let next = within(timeout, async { Ok(stream.next().await) }).await;
            let (event, last) = match next {
                Ok(None) => return,
                Ok(Some(event)) => {
                    let last = event.is_err();
                    (event, last)
                }
                Err(error) => (Err(error), true),
            };
            if sender.send(event).await.is_err() || last {
                return;
            }
        }
    }));
    Box::pin(async_stream::stream! {
        while let Some(event) = receiver.recv().await {
            yield event;
        }
        // A task that panicked must not look like the end of the answer.
        if let Err(panic) = (&mut task.0).await {
            yield Err(StoreError::internal("reading the answer").with_source(panic));
        }
    })
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens a store's stream, and does what the store cannot.
async fn open(endpoint: &Endpoint, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
    let can_remove =
        endpoint.info.supports_without_replica_labels || request.without_replica_labels.is_empty();
    let can_shard = endpoint.info.supports_sharding || request.shard.is_none();
    let can_project = endpoint.info.supports_projection || request.projection.is_none();
    if can_remove && can_shard && can_project {
        return endpoint.store.series(request).await;
    }
    let mut asked = request.clone();
    asked.limit = 0;
    // Both are carried out on the labels that are left when replica labels are gone, and on whole ones.
    asked.shard = None;
    asked.projection = None;
    if !can_remove {
        asked.without_replica_labels.clear();
    }
    let mut stream = endpoint.store.series(asked).await?;
    let mut shaper = Shaper::new(&request, &Labels::empty());
    Ok(Box::pin(async_stream::stream! {
        while let Some(event) = stream.next().await {
            match event {
                Ok(SeriesEvent::Batch(batch)) => {
                    let mut out = Vec::new();
                    for series in batch {
                        shaper.push(series.labels, series.chunks, &mut out);
                    }
                    if !out.is_empty() {
                        yield Ok(SeriesEvent::Batch(out));
                    }
                    if shaper.is_full() {
                        break;
                    }
                }
                Err(error) => {
                    yield Err(error);
                    return;
                }
                Ok(notice) => yield Ok(notice),
            }
        }
        let mut out = Vec::new();
        shaper.finish(&mut out);
        if !out.is_empty() {
            yield Ok(SeriesEvent::Batch(out));
        }
    }))
}

mod beside;
mod fold;

pub use fold::FoldedParts;

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
