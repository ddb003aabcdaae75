//! Label names and values of one tenant's head and local blocks.
//!
//! Indexes know nothing of what the bucket's requests delete, so where a request concerns the tenant, the series that it hides
//! are looked up, and of the names and values that these have, those are left out that no other series has. Where none
//! concerns it, the indexes answer alone.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use chronolith_bucket::{Deletions, Mask};
use chronolith_model::{Labels, MatchOp, Matcher, TenantId, TimeRange};
use chronolith_storeapi::StoreError;
use chronolith_tsdb::block::Block;
use chronolith_tsdb::db::Db;
use chronolith_tsdb::head::Head;

use crate::store::{block_error, time_range};

/// Where a tenant's labels come from, for one request.
pub(crate) struct TenantLabels {
    sources: Vec<Source>,
    /// The time that any of them has samples of.
    own: Option<TimeRange>,
    range: TimeRange,
    /// What is deleted of the tenant's series in the range.
    mask: Option<Mask>,
}

enum Source {
    Head(Arc<Head>),
    Block(Arc<Block>),
}

impl TenantLabels {
    pub(crate) fn new(
        db: &Db,
        tenant: &TenantId,
        external: &Labels,
        range: TimeRange,
        deletions: &Deletions,
    ) -> Self {
        // The head before the blocks: what is cut meanwhile is in one of them.
        let mut sources: Vec<Source> = db.head(tenant).map(Source::Head).into_iter().collect();
        sources.extend(db.blocks(tenant).into_iter().map(Source::Block));
        let mask = deletions.mask(external, range, 0, &BTreeSet::new());
        TenantLabels { sources, own: time_range(db, tenant), range, mask }
    }

    /// Names of labels of series that match.
    pub(crate) fn names(&self, matchers: &[Matcher]) -> Result<Vec<String>, StoreError> {
        let names = self.left(
            matchers,
            |source| source.names(matchers, self.range),
            |series, out| out.extend(series.iter().map(|(name, _)| name.to_owned())),
            |name| Matcher::new(MatchOp::NotEqual, name, "").ok(),
        );
        Ok(names?.into_iter().collect())
    }

    /// Values of a label in series that match.
    pub(crate) fn values(&self, label: &str, matchers: &[Matcher]) -> Result<BTreeSet<String>, StoreError> {
        self.left(
            matchers,
            |source| source.values(label, matchers, self.range),
            |series, out| out.extend(series.get(label).map(str::to_owned)),
            |value| Some(Matcher::equal(label, value)),
        )
    }

    /// True when a series matches and something is left of it.
    pub(crate) fn has_series(&self, matchers: &[Matcher]) -> Result<bool, StoreError> {
        if matchers.is_empty() && self.mask.is_none() {
            return Ok(self.own.is_some_and(|own| own.overlaps(&self.range)));
        }
        for source in &self.sources {
            let any = if matchers.is_empty() {
                // As above, of all series, so they need not be looked through.
                source.overlaps(self.range) && self.hidden(source, &[])?.len() < source.series_count()
            } else {
                self.any(source, matchers, |labels, chunks| !self.hides(labels, chunks))?
            };
            if any {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What `read` finds, without what `has` says of hidden series only. `with` selects the series that have it.
    fn left(
        &self,
        matchers: &[Matcher],
        read: impl Fn(&Source) -> Result<Vec<String>, StoreError>,
        has: impl Fn(&Labels, &mut BTreeSet<String>),
        with: impl Fn(&str) -> Option<Matcher>,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut all = BTreeSet::new();
        for source in &self.sources {
            let found = read(source)?;
            let hidden = self.hidden(source, matchers)?;
            let mut doubtful = BTreeSet::new();
            hidden.iter().for_each(|series| has(series, &mut doubtful));
            for item in found {
                if doubtful.contains(&item)
                    && let Some(with) = with(&item)
                {
                    let wanted: Vec<Matcher> = matchers.iter().cloned().chain([with]).collect();
                    if !self.any(source, &wanted, |labels, _| !hidden.contains(labels))? {
                        continue;
                    }
                }
                all.insert(item);
            }
        }
        Ok(all)
    }

    /// The matching series that the mask hides.
    fn hidden(&self, source: &Source, matchers: &[Matcher]) -> Result<HashSet<Labels>, StoreError> {
        let mut hidden = HashSet::new();
        for (selector, _) in self.mask.iter().flat_map(Mask::rules) {
            let wanted: Vec<Matcher> = matchers.iter().chain(selector).cloned().collect();
            self.any(source, &wanted, |labels, chunks| {
                if self.hides(labels, chunks) {
                    hidden.insert(labels.clone());
                }
                false
            })?;
        }
        Ok(hidden)
    }

    fn hides(&self, labels: &Labels, chunks: &[TimeRange]) -> bool {
        self.mask.as_ref().is_some_and(|mask| mask.hides(labels, chunks.iter().copied(), self.range))
    }

    /// True when `test` says so of a series that matches, given by its labels and the times of its chunks, which are read
    /// only where something is deleted.
    fn any(
        &self,
        source: &Source,
        matchers: &[Matcher],
        mut test: impl FnMut(&Labels, &[TimeRange]) -> bool,
    ) -> Result<bool, StoreError> {
        let bare = self.mask.is_none();
        match source {
            Source::Head(head) => Ok(head.select(matchers, self.range, bare).any(|series| {
                let times: Vec<TimeRange> = series.chunks.iter().map(|c| c.time_range()).collect();
                test(&series.labels, &times)
            })),
            Source::Block(block) => {
                let error = |e| block_error(block, e);
                let select = match bare {
                    true => block.select_labels(matchers, self.range),
                    false => block.select(matchers, self.range),
                };
                for series in select.map_err(error)? {
                    let (labels, chunks) = series.map_err(error)?;
                    let times: Vec<TimeRange> = chunks.iter().map(|c| c.time_range()).collect();
                    if test(&labels, &times) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

impl Source {
    fn overlaps(&self, range: TimeRange) -> bool {
        match self {
            Source::Head(head) => head.time_range().is_some_and(|own| own.overlaps(&range)),
            Source::Block(block) => block.time_range().overlaps(&range),
        }
    }

    fn series_count(&self) -> usize {
        match self {
            Source::Head(head) => head.series_count(),
            Source::Block(block) => usize::try_from(block.meta().stats.num_series).unwrap_or(usize::MAX),
        }
    }

    fn names(&self, matchers: &[Matcher], range: TimeRange) -> Result<Vec<String>, StoreError> {
        match self {
            Source::Head(head) => Ok(head.label_names(matchers, range)),
            Source::Block(block) => block.label_names(matchers, range).map_err(|e| block_error(block, e)),
        }
    }

    fn values(&self, label: &str, matchers: &[Matcher], range: TimeRange) -> Result<Vec<String>, StoreError> {
        match self {
            Source::Head(head) => Ok(head.label_values(label, matchers, range)),
            Source::Block(block) => {
                block.label_values(label, matchers, range).map_err(|e| block_error(block, e))
            }
        }
    }
}
