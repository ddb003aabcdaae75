//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/:name/values`.
//!
//! Names and values are those that are stored, replica labels among them, as in Thanos: `dedup` and `replicaLabels[]` have an
//! effect on series only.

use std::collections::BTreeSet;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use chronolith_httpapi::{
    Annotations, ApiError, ErrorKind, Params, decode_label_name, success, write_labels,
};
use chronolith_model::{Labels, Matcher, TimeRange};
use chronolith_promql::parser::parse_selector;
use chronolith_promql::{MemoryExceeded, MemoryHold, MemoryUse};
use chronolith_storeapi::local::on_blocking_thread;
use chronolith_storeapi::{LabelNamesRequest, LabelValuesRequest, SeriesEvent, SeriesRequest, Store as _};
use futures::StreamExt;

use super::{Api, store_error};

const TRUNCATED: &str = "results truncated due to limit";

/// The longest label set list that `/api/v1/series` collects; beyond it the call asks for a narrower selector.
const SERIES_MAX: usize = 5_000_000;

/// Series of this process's memory that are collected on the thread that has read the request: some 200 us. See
/// [`super::small`].
const SERIES_AT_ONCE: usize = 512;

/// Label sets that come at a time where they come from another thread: each change of threads costs as much as some ten of
/// them.
const SERIES_BATCH: usize = 1024;

/// Over a range of so many resolutions a downsampled block names the series as well as a raw one, of which the index is twenty times as
/// large. Over a shorter one its chunks, which cover many resolutions each, would name series that ended long before.
const RESOLUTIONS_MIN: i64 = 100;

pub(super) async fn series(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let (limit, range) = (params.limit()?, range(&api, &params)?);
    let selectors = selectors(&params).map_err(|e| ApiError::parameter("match[]", e))?;
    let store = (api.stores)(&options);
    let mut found: Vec<Labels> = Vec::new();
    let several = selectors.len() > 1;
    let mut warnings = Vec::new();
    let mut held = Held::new(&api)?;
    for matchers in selectors {
        let mut read = SeriesRequest::new(range, options.enforced(matchers));
        read.skip_chunks = true;
        read.max_resolution_ms = range.maxt.saturating_sub(range.mint) / RESOLUTIONS_MIN;
        read.partial_response = options.partial_response;
        read.without_replica_labels = options.without_replica_labels();
        read.limit = one_more(limit);
        read.batch_size = SERIES_BATCH;
        let few = store.series_at_once(&read.matchers, range).is_some_and(|n| n <= SERIES_AT_ONCE);
        let mut stream = store.series(read).await.map_err(store_error)?;
        loop {
            let next = match few {
                true => std::future::poll_fn(|cx| on_blocking_thread(|| stream.poll_next_unpin(cx))).await,
                false => stream.next().await,
            };
            let Some(event) = next else { break };
            match event.map_err(store_error)? {
                SeriesEvent::Batch(batch) => {
                    // Doubles of other selectors are counted as well: an upper bound, and no look-up.
                    held.more(batch.iter().map(|s| s.labels.encoded_len()))?;
                    found.extend(batch.into_iter().map(|s| s.labels));
                }
                SeriesEvent::Warning(text) => warnings.push(text),
                SeriesEvent::Hints(_) => {}
            }
            if found.len() > SERIES_MAX {
                let text = format!("more than {SERIES_MAX} series match; narrow the selector or set limit");
                return Err(ApiError::new(ErrorKind::Execution, text));
            }
        }
        // A store's own series are in order, each once.
        if several {
            found.sort_unstable();
            found.dedup();
        }
    }
    let partial = !warnings.is_empty();
    let shown = cut(found.len(), limit, &mut warnings);
    let annotations = Annotations { warnings, partial, ..Default::default() };
    Ok(success(&annotations, |j| {
        j.array(found.iter().take(shown), write_labels);
    }))
}

pub(super) async fn names(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (options, params) = api.read(request).await?;
    let (limit, range) = (params.limit()?, range(&api, &params)?);
    let store = (api.stores)(&options);
    let (mut found, mut warnings, mut held) = (BTreeSet::new(), Vec::new(), Held::new(&api)?);
    for matchers in any_selectors(&params)? {
        let mut read = LabelNamesRequest::new(range, options.enforced(matchers));
        read.partial_response = options.partial_response;
        read.limit = one_more(limit);
        let answer = store.label_names(read).await.map_err(store_error)?;
        held.more(answer.names.iter().map(String::len))?;
        found.extend(answer.names);
        warnings.extend(answer.warnings);
    }
    Ok(strings(found, limit, warnings))
}

pub(super) async fn values(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Ok(Path(name)) = name else {
        let text = format!("invalid label name: {:?}", request.uri().path());
        return Err(ApiError::bad_data(text));
    };
    let name = decode_label_name(&name).into_owned();
    let (options, params) = api.read(request).await?;
    let (limit, range) = (params.limit()?, range(&api, &params)?);
    let store = (api.stores)(&options);
    let (mut found, mut warnings, mut held) = (BTreeSet::new(), Vec::new(), Held::new(&api)?);
    for matchers in any_selectors(&params)? {
        let mut read = LabelValuesRequest::new(&name, range, options.enforced(matchers));
        read.partial_response = options.partial_response;
        read.limit = one_more(limit);
        let answer = store.label_values(read).await.map_err(store_error)?;
        held.more(answer.values.iter().map(String::len))?;
        found.extend(answer.values);
        warnings.extend(answer.warnings);
    }
    Ok(strings(found, limit, warnings))
}

/// The memory of an answer that is collected, under the bounds of queries.
pub(super) struct Held(MemoryHold);

impl Held {
    /// An entry of a set: pointers, lengths, its part of a node.
    const ENTRY_BYTES: usize = 64;

    pub(super) fn new(api: &Api) -> Result<Self, ApiError> {
        Ok(Held(api.admission.budget().hold(MemoryUse::Result, 0).map_err(refused)?))
    }

    /// So many entries more, of these lengths: once as they are kept, once in the reply.
    pub(super) fn more(&mut self, lengths: impl Iterator<Item = usize>) -> Result<(), ApiError> {
        let more: usize = lengths.map(|len| 2 * len + Self::ENTRY_BYTES).sum();
        self.0.resize(self.0.bytes().saturating_add(more)).map_err(refused)
    }
}

fn refused(error: MemoryExceeded) -> ApiError {
    ApiError::new(ErrorKind::Execution, error.to_string())
}

fn strings(found: BTreeSet<String>, limit: Option<usize>, mut warnings: Vec<String>) -> Response {
    let partial = !warnings.is_empty();
    let shown = cut(found.len(), limit, &mut warnings);
    let annotations = Annotations { warnings, partial, ..Default::default() };
    success(&annotations, |j| {
        j.array(found.iter().take(shown), |j, text| {
            j.string(text);
        });
    })
}

fn cut(found: usize, limit: Option<usize>, warnings: &mut Vec<String>) -> usize {
    match limit {
        Some(n) if found > n => {
            warnings.push(TRUNCATED.to_owned());
            n
        }
        _ => found,
    }
}

/// One more than asked for tells a full answer from a cut one.
fn one_more(limit: Option<usize>) -> usize {
    limit.map_or(0, |n| n.saturating_add(1))
}

/// `start` and `end`, by default all of time, or the newest part of it that `--query.metadata.default-time-range` says.
fn range(api: &Api, params: &Params) -> Result<TimeRange, ApiError> {
    let (first, last) = match api.settings.metadata_range_ms {
        0 => (i64::MIN, i64::MAX),
        span => {
            let now = api.clock.now_ms();
            (now.saturating_sub(span), now)
        }
    };
    let range = TimeRange::new(params.time("start", first)?, params.time("end", last)?);
    if range.is_empty() {
        return Err(ApiError::bad_data("end timestamp must not be before start time"));
    }
    Ok(range)
}

/// Each `match[]` as matchers; a selector that matches everything is refused, as upstream does.
pub(super) fn selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, String> {
    let one = |selector| {
        let matchers = parse_selector(selector).map_err(|e| e.to_string())?;
        if matchers.iter().all(Matcher::matches_empty) {
            return Err("match[] must contain at least one non-empty matcher".to_owned());
        }
        Ok(matchers)
    };
    params.all("match[]").map(one).collect()
}

/// As [`selectors`], or one that matches everything where there is none.
fn any_selectors(params: &Params) -> Result<Vec<Vec<Matcher>>, ApiError> {
    let found = selectors(params).map_err(ApiError::bad_data)?;
    Ok(if found.is_empty() { vec![Vec::new()] } else { found })
}
