//! Label names and values of a block of which some series are deleted and not rewritten yet.
//!
//! Without matchers the header knows all names and values, but not which of them only deleted series have. So the series that
//! the mask hides are looked up; of the names and values that these have, the postings lists tell whether another series has
//! them too. The cost follows the number of deleted series, not the size of the block, and is nothing where the mask finds
//! no series.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use chronolith_model::{Labels, TimeRange};
use chronolith_tsdb::index::PostingsRange;

use super::read::{Reader, SERIES_BATCH};
use super::{BucketBlock, SelectRequest};
use crate::upload::blocking;
use crate::{IndexHeader, Result};

/// Postings lists fetched at a time: one visible series among them ends the search.
const LISTS_BATCH: usize = 256;

/// The hidden series by reference.
type Hidden = BTreeMap<u32, Labels>;

impl BucketBlock {
    /// Of all label names of the block, those that a series has that is not hidden.
    pub(super) async fn names_left(
        self: &Arc<Self>,
        mut names: Vec<String>,
        request: SelectRequest,
    ) -> Result<Vec<String>> {
        let Some(hidden) = self.hidden(&request).await? else { return Ok(Vec::new()) };
        if hidden.is_empty() {
            return Ok(names);
        }
        let header = self.header().await?;
        let of_hidden: BTreeSet<&str> =
            hidden.values().flat_map(|l| l.iter().map(|(name, _)| name)).collect();
        let mut gone = BTreeSet::new();
        for name in of_hidden {
            let values: BTreeSet<&str> = hidden.values().filter_map(|l| l.get(name)).collect();
            // A value that no hidden series has is another's.
            if header.postings_table().value_count(name) == values.len()
                && !self.any_left(&header, name, values, &hidden, &request).await?
            {
                gone.insert(name.to_owned());
            }
        }
        names.retain(|name| !gone.contains(name));
        Ok(names)
    }

    /// Of values of a label, those that a series has that is not hidden.
    pub(super) async fn values_left(
        self: &Arc<Self>,
        name: &str,
        values: Vec<String>,
        request: SelectRequest,
    ) -> Result<Vec<String>> {
        let Some(hidden) = self.hidden(&request).await? else { return Ok(Vec::new()) };
        let of_hidden: BTreeSet<&str> = hidden.values().filter_map(|l| l.get(name)).collect();
        if of_hidden.is_empty() {
            return Ok(values);
        }
        let header = self.header().await?;
        let (mut kept, mut doubtful) = (Vec::with_capacity(values.len()), Vec::new());
        for value in values {
            if of_hidden.contains(value.as_str()) { doubtful.push(value) } else { kept.push(value) }
        }
        for some in doubtful.chunks(LISTS_BATCH) {
            // Both in the order of the values.
            let places = places(&header, name, some.iter().map(String::as_str).collect()).await?;
            let lists = self.fetch_lists(&header, places, &request).await?;
            let left = some.iter().zip(lists).filter(|(_, list)| !all_hidden(list, &hidden));
            kept.extend(left.map(|(value, _)| value.clone()));
        }
        kept.sort_unstable();
        Ok(kept)
    }

    /// True when one of the lists has a series that is not hidden.
    async fn any_left(
        &self,
        header: &Arc<IndexHeader>,
        name: &str,
        values: BTreeSet<&str>,
        hidden: &Hidden,
        request: &SelectRequest,
    ) -> Result<bool> {
        let places = places(header, name, values).await?;
        for some in places.chunks(LISTS_BATCH) {
            let lists = self.fetch_lists(header, some.to_vec(), request).await?;
            if lists.iter().any(|list| !all_hidden(list, hidden)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The series that the request's mask hides in its range; `None` where it hides all of the block.
    async fn hidden(self: &Arc<Self>, request: &SelectRequest) -> Result<Option<Hidden>> {
        let Some(mask) = request.mask.clone() else { return Ok(Some(Hidden::new())) };
        let own = self.meta.time_range();
        let asked = TimeRange::new(own.mint.max(request.range.mint), own.maxt.min(request.range.maxt));
        if mask.hides_all(asked) {
            return Ok(None);
        }
        let mut hidden = Hidden::new();
        for (selector, _) in mask.rules() {
            let mut request = request.clone();
            request.matchers = request.matchers.iter().chain(selector).cloned().collect();
            let header = self.header().await?;
            let found = self.find_series(&header, &request).await?;
            if !found.check_labels {
                request.limiter.series(self.meta.ulid, found.refs.len() as u64)?;
            }
            let (count, refs, check_labels) = (found.refs.len(), found.refs, found.check_labels);
            let (block, request) = (self.clone(), Arc::new(request));
            let reader = Reader { block, header, request, refs, check_labels, hidden: true };
            for start in (0..count).step_by(SERIES_BATCH) {
                let series = reader.load_series(start..count.min(start + SERIES_BATCH)).await?;
                hidden.extend(series.into_iter().map(|s| (s.series, s.labels)));
            }
        }
        Ok(Some(hidden))
    }
}

fn all_hidden(list: &[u32], hidden: &Hidden) -> bool {
    list.iter().all(|series| hidden.contains_key(series))
}

/// Where the postings lists of these values lie, in their order.
async fn places(header: &Arc<IndexHeader>, name: &str, values: BTreeSet<&str>) -> Result<Vec<PostingsRange>> {
    let (header, name) = (header.clone(), name.to_owned());
    let values: BTreeSet<String> = values.into_iter().map(str::to_owned).collect();
    blocking(move || {
        let mut places = Vec::with_capacity(values.len());
        header.postings_table().visit(&name, "", &mut |value, place| {
            if values.contains(value) {
                places.push(place);
            }
            ControlFlow::Continue(())
        })?;
        Ok(places)
    })
    .await
}
