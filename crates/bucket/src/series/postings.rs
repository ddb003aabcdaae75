//! From matchers to series references: which lists to fetch, and which not to.
//!
//! The header tells the exact size of every list before any is read. The smallest group of the plan bounds the number
//! of series; a list whose reading costs more than reading those series is not fetched. Then the matchers are
//! checked on the labels of the series instead, which are read anyway. So a selector with one selective matcher
//! costs one small list, however common the metric's name is.

use std::ops::ControlFlow;
use std::sync::Arc;

use chronolith_model::Matcher;
use chronolith_tsdb::index::{PostingsRange, parse_postings};
use chronolith_tsdb::postings::{Group, Lookup, Plan, intersect, subtract, union};
use futures::{StreamExt, TryStreamExt};

use super::ranges::join;
use super::{BucketBlock, CONCURRENT_REQUESTS, RANGE_BYTES_MAX, SelectRequest};
use crate::upload::blocking;
use crate::{Error, IndexHeader, Result};

/// Lists further apart than this are separate requests; Thanos's figure for chunks, and lists are as cheap to skip.
const GAP_BYTES_MAX: u64 = 512 << 10;
/// What a series entry costs to read, for weighing lists against series: a day of chunks has a few hundred bytes.
const SERIES_BYTES: u64 = 256;
/// What another request costs, in bytes that could be read in the time of a round trip: chosen low, as a round trip
/// inside one region takes a few milliseconds.
const REQUEST_BYTES: u64 = 128 << 10;

/// The series to look at.
pub(super) struct Found {
    /// References, ascending.
    pub(super) refs: Vec<u32>,
    /// Some matcher was not looked up: check all of them on the labels.
    pub(super) check_labels: bool,
}

/// A group of lists with their places.
#[derive(Debug)]
struct Lists {
    ranges: Vec<PostingsRange>,
    subtract: bool,
}

impl Lists {
    fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.end.saturating_sub(r.start)).sum()
    }
}

impl BucketBlock {
    pub(super) async fn find_series(
        &self,
        header: &Arc<IndexHeader>,
        request: &SelectRequest,
    ) -> Result<Found> {
        let cache = self.cache.as_ref();
        if let Some(cache) = cache
            && let Some((refs, check_labels)) = cache.expanded(self.meta.ulid, &request.matchers).await
        {
            return Ok(Found { refs: refs.to_vec(), check_labels });
        }
        let (h, matchers) = (header.clone(), request.matchers.clone());
        let Some(groups) = blocking(move || locate(&h, &matchers)).await? else {
            return Ok(Found { refs: Vec::new(), check_labels: false });
        };
        let all = groups.len();
        let groups = self.worth_fetching(groups);
        let check_labels = groups.len() < all;
        let places = groups.iter().flat_map(|g| g.ranges.iter().copied()).collect();
        let mut lists = self.fetch_lists(header, places, request).await?;
        let refs = blocking(move || {
            let mut result: Option<Vec<u32>> = None;
            for group in groups {
                let rest = lists.split_off(group.ranges.len());
                let list = union(&std::mem::replace(&mut lists, rest));
                match &mut result {
                    None => result = Some(list),
                    Some(so_far) if group.subtract => subtract(so_far, &list),
                    Some(so_far) => intersect(so_far, &list),
                }
            }
            Ok(result.unwrap_or_default())
        })
        .await?;
        if let Some(cache) = cache {
            cache.put_expanded(self.meta.ulid, &request.matchers, &refs, check_labels);
        }
        Ok(Found { refs, check_labels })
    }

    /// Drops the groups that cost more than they save. The first one stays: it is the smallest to start from.
    fn worth_fetching(&self, mut groups: Vec<Lists>) -> Vec<Lists> {
        groups.sort_by_key(|g| (g.subtract, g.bytes()));
        let series_max = groups.first().map_or(0, |g| g.bytes() / 4);
        let mut first = true;
        groups.retain(|g| {
            let missing = g.ranges.iter().filter(|r| !self.is_cached(r));
            let (count, bytes) =
                missing.fold((0u64, 0), |(n, b), r| (n + 1, b + r.end.saturating_sub(r.start)));
            let cost = if count == 0 { 0 } else { bytes + REQUEST_BYTES };
            std::mem::take(&mut first) || cost <= series_max * SERIES_BYTES
        });
        groups
    }

    fn is_cached(&self, range: &PostingsRange) -> bool {
        self.cache.as_ref().is_some_and(|c| c.has_postings(self.meta.ulid, range.start))
    }

    /// The decoded lists of `places`, in their order.
    pub(super) async fn fetch_lists(
        &self,
        header: &Arc<IndexHeader>,
        places: Vec<PostingsRange>,
        request: &SelectRequest,
    ) -> Result<Vec<Arc<[u32]>>> {
        let block = self.meta.ulid;
        let starts: Vec<u64> = places.iter().map(|p| p.start).collect();
        let mut lists: Vec<Option<Arc<[u32]>>> = match &self.cache {
            Some(cache) => cache.postings(block, &starts).await,
            None => vec![None; places.len()],
        };
        let mut missing: Vec<usize> = (0..places.len()).filter(|i| lists[*i].is_none()).collect();
        missing.sort_unstable_by_key(|i| places[*i].start);
        let spans = missing.iter().map(|i| (places[*i].start, places[*i].end));
        let parts = join(spans, GAP_BYTES_MAX, RANGE_BYTES_MAX);
        let bytes = parts.iter().map(|part| part.end - part.start).sum();
        request.limiter.bytes(block, bytes)?;
        let _held = request.limiter.hold(block, bytes)?;
        let key = header.index_key();
        let fetched = futures::stream::iter(parts).map(|part| async move {
            let bytes = self.bucket.get_range(key, part.start..part.end).await?;
            request.stats.postings.add(bytes.len() as u64);
            Ok::<_, Error>((part, bytes))
        });
        let mut fetched = fetched.buffer_unordered(CONCURRENT_REQUESTS);
        while let Some((part, bytes)) = fetched.try_next().await? {
            for i in &missing[part.first..=part.last] {
                let place = places[*i];
                let at = ((place.start - part.start) as usize).min(bytes.len());
                let end = ((place.end - part.start) as usize).min(bytes.len());
                let list: Arc<[u32]> = parse_postings(key, place.start, &bytes[at..end])?.into();
                if let Some(cache) = &self.cache {
                    cache.put_postings(block, place.start, list.clone());
                }
                lists[*i] = Some(list);
            }
        }
        Ok(lists.into_iter().map(|l| l.expect("each list was cached or fetched")).collect())
    }
}

/// The lists that the matchers ask for. `None`: no series can match.
fn locate(header: &IndexHeader, matchers: &[Matcher]) -> Result<Option<Vec<Lists>>> {
    let plan = Plan::new(matchers);
    if plan.nothing {
        return Ok(None);
    }
    let mut groups = Vec::new();
    for group in &plan.intersect {
        let ranges = locate_group(header, group)?;
        if ranges.is_empty() {
            return Ok(None);
        }
        groups.push(Lists { ranges, subtract: false });
    }
    if groups.is_empty() {
        match header.postings_range("", "")? {
            Some(all) => groups.push(Lists { ranges: vec![all], subtract: false }),
            None => return Ok(None),
        }
    }
    for group in &plan.subtract {
        let ranges = locate_group(header, group)?;
        if !ranges.is_empty() {
            groups.push(Lists { ranges, subtract: true });
        }
    }
    Ok(Some(groups))
}

fn locate_group(header: &IndexHeader, group: &Group<'_>) -> Result<Vec<PostingsRange>> {
    let table = header.postings_table();
    let mut ranges = Vec::new();
    match &group.lookup {
        Lookup::Values(values) => {
            for value in values {
                ranges.extend(table.find(group.name, value)?);
            }
        }
        Lookup::AnyValue => table.visit(group.name, "", &mut |value, range| {
            if !value.is_empty() {
                ranges.push(range);
            }
            ControlFlow::Continue(())
        })?,
        lookup @ Lookup::Scan { prefix, .. } => table.visit(group.name, prefix, &mut |value, range| {
            if !value.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            if !value.is_empty() && lookup.selects(value) {
                ranges.push(range);
            }
            ControlFlow::Continue(())
        })?,
    }
    Ok(ranges)
}
