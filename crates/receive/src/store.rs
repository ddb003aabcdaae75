//! The [`Store`] over the heads and local blocks of all tenants.
//!
//! Each tenant is a producer with external labels of its own: the `--label`s and the tenant label. Reading is
//! synchronous and runs on the blocking pool; series are streamed, only the list of the head's matching series is held.
//!
//! A cut moves samples from the head into a block while a stream is under way. It publishes the block before it takes
//! the samples out of the head, so [`HeadSeriesIter`] fetches a few series from the head, looks for blocks that were
//! not there when the stream began, and reads those from the same place on. Every sample is thus seen at least
//! once; what is seen twice is equal, and merged away.

use std::collections::{BTreeSet, HashSet};
use std::iter::Peekable;
use std::sync::Arc;

use async_trait::async_trait;
use chronolith_bucket::{DeletionWatch, Mask};
use chronolith_chunk::Chunk;
use chronolith_model::{BlockId, Labels, Matcher, TenantId, TimeRange};
use chronolith_storeapi::local::{
    LabelSetUnion, SeriesPlan, ValuesPlan, add_label_names, empty_stream, raw_chunks, stream_blocking,
    strip_external,
};
use chronolith_storeapi::{
    LabelNames, LabelNamesRequest, LabelValues, LabelValuesRequest, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo, TsdbInfo, merge_iters,
};
use chronolith_tsdb::block::{Block, Select};
use chronolith_tsdb::db::Db;
use chronolith_tsdb::head::{Head, HeadSelect};

use crate::labels::TenantLabels;
use crate::tenants::Tenants;

/// Series fetched from a head between two looks for new blocks.
const HEAD_SERIES_BATCH: usize = 256;

/// Label values (or series to look through for them) that are read on the thread that asks: some 100 us. The way to
/// another thread and back costs as much.
const VALUES_AT_ONCE: usize = 2000;

/// Series of all tenants.
#[derive(Clone, Debug)]
pub struct TenantsStore {
    tenants: Arc<Tenants>,
    deletions: DeletionWatch,
}

impl TenantsStore {
    /// A store over `tenants`.
    pub fn new(tenants: Arc<Tenants>) -> Self {
        TenantsStore { tenants, deletions: DeletionWatch::new(None) }
    }

    /// The same, leaving out what the bucket's requests delete.
    pub fn with_deletions(self, deletions: DeletionWatch) -> Self {
        TenantsStore { deletions, ..self }
    }

    /// The bucket's requests to delete series.
    pub fn deletions(&self) -> &DeletionWatch {
        &self.deletions
    }

    /// Runs `read` on the blocking pool with every tenant and its external labels.
    pub(crate) async fn for_each_tenant<T, F>(&self, state: T, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, &Db, &TenantId, &Labels) -> Result<(), StoreError> + Send + 'static,
    {
        let this = self.clone();
        let work = move || this.for_each_tenant_here(state, read);
        tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::internal(e.to_string()))?
    }

    /// Runs `read` on this thread with every tenant and its external labels.
    fn for_each_tenant_here<T, F>(&self, mut state: T, mut read: F) -> Result<T, StoreError>
    where
        F: FnMut(&mut T, &Db, &TenantId, &Labels) -> Result<(), StoreError>,
    {
        let db = self.tenants.db()?;
        for tenant in db.tenants() {
            read(&mut state, db, &tenant, &self.tenants.external_of(&tenant))
                .map_err(|e| e.within(&format!("tenant {tenant}")))?;
        }
        Ok(state)
    }

    /// The sum over the heads; `None` when a block has to be read.
    fn heads_only(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        bound: impl Fn(&Head, &[Matcher]) -> usize,
    ) -> Option<usize> {
        let db = self.tenants.db().ok()?;
        let mut sum = 0_usize;
        for tenant in db.tenants() {
            let Some(matchers) = strip_external(matchers, &self.tenants.external_of(&tenant)) else {
                continue;
            };
            if db.blocks(&tenant).iter().any(|b| b.time_range().overlaps(&range)) {
                return None;
            }
            if let Some(head) = db.head(&tenant) {
                sum = sum.saturating_add(bound(&head, &matchers));
            }
        }
        Some(sum)
    }
}

#[async_trait]
impl Store for TenantsStore {
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let db = Arc::clone(self.tenants.db()?);
        let deletions = self.deletions.current().await;
        let mut plans = Vec::new();
        for tenant in db.tenants() {
            let external = self.tenants.external_of(&tenant);
            if let Some(plan) = SeriesPlan::new(&request, &external)? {
                let mask = deletions.mask(&external, request.range, 0, &BTreeSet::new());
                plans.push((tenant, plan, mask.map(Arc::new)));
            }
        }
        if plans.is_empty() {
            return Ok(empty_stream());
        }
        let (range, skip_chunks, block_matchers) =
            (request.range, request.skip_chunks, request.block_matchers.clone());
        let newest_only = request.newest_only && !skip_chunks;
        Ok(stream_blocking(&request, move || {
            let mut sources = Vec::new();
            for (tenant, plan, mask) in plans {
                let query = Query { range, skip_chunks, matchers: plan.matchers.clone(), mask };
                // Where the newest sample is deleted, the one before it is wanted.
                let newest_only = newest_only && query.mask.is_none();
                let wanted = |id: BlockId| block_matchers.iter().all(|m| m.matches(&id.to_string()));
                // The head before the blocks: see the module's page.
                let head = if block_matchers.is_empty() { db.head(&tenant) } else { None };
                let head = head.map(|head| match newest_only {
                    true => head.select_newest(&query.matchers, range),
                    false => head.select(&query.matchers, range, query.is_bare()),
                });
                let blocks: Vec<_> = db.blocks(&tenant).into_iter().filter(|b| wanted(b.id())).collect();
                for block in &blocks {
                    if block.time_range().overlaps(&range) {
                        let label = block_label(&tenant, block.id());
                        let select = query.open(block).map_err(|e| e.within(&label))?;
                        sources.push(plan.shape(BlockSeriesIter {
                            select,
                            label,
                            query: query.of(block.time_range()),
                        }));
                    }
                }
                if let Some(head) = head {
                    let seen = blocks.iter().map(|b| b.id()).collect();
                    sources.push(plan.shape(HeadSeriesIter::new(Arc::clone(&db), tenant, query, head, seen)));
                }
            }
            Ok(merge_iters(sources))
        }))
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelNames, StoreError> {
        let asked = request.clone();
        let deletions = self.deletions.current().await;
        let looks_up = deletions.any_in(request.range);
        let read = move |union: &mut LabelSetUnion, db: &Db, tenant: &TenantId, external: &Labels| {
            let labels = TenantLabels::new(db, tenant, external, asked.range, &deletions);
            add_label_names(union, &asked, external, |matchers| labels.names(matchers))
        };
        let bound = |head: &Head, matchers: &[Matcher]| head.names_bound(matchers);
        let union = match self.heads_only(&request.matchers, request.range, bound) {
            Some(n) if n <= VALUES_AT_ONCE && !looks_up => {
                self.for_each_tenant_here(LabelSetUnion::default(), read)?
            }
            _ => self.for_each_tenant(LabelSetUnion::default(), read).await?,
        };
        Ok(union.names(&request))
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelValues, StoreError> {
        let asked = request.clone();
        let deletions = self.deletions.current().await;
        let looks_up = deletions.any_in(request.range);
        let read = move |union: &mut LabelSetUnion, db: &Db, tenant: &TenantId, external: &Labels| {
            let labels = TenantLabels::new(db, tenant, external, asked.range, &deletions);
            match ValuesPlan::new(&asked, external) {
                ValuesPlan::Nothing => {}
                ValuesPlan::External { value, matchers } => {
                    if labels.has_series(&matchers)? {
                        union.extend([value]);
                    }
                }
                ValuesPlan::Read(matchers) => union.extend(labels.values(&asked.label, &matchers)?),
            }
            Ok(())
        };
        let found = self.values_at_once(&request.label, &request.matchers, request.range);
        let union = match found {
            Some(n) if n <= VALUES_AT_ONCE && !looks_up => {
                self.for_each_tenant_here(LabelSetUnion::default(), read)?
            }
            _ => self.for_each_tenant(LabelSetUnion::default(), read).await?,
        };
        Ok(union.values(&request))
    }

    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut info = StoreInfo::new("receive");
        let db = self.tenants.db()?;
        for tenant in db.tenants() {
            let Some(range) = time_range(db, &tenant) else { continue };
            // Samples may come this much behind the oldest there is.
            let window = db.head(&tenant).map_or(0, |head| head.tenant_options().out_of_order_window_ms);
            let mint = range.mint.saturating_sub(window);
            info.range.mint = info.range.mint.min(mint);
            let labels = self.tenants.external_of(&tenant);
            info.label_sets.push(labels.clone());
            info.tsdbs.push(TsdbInfo { labels, range: TimeRange::new(mint, i64::MAX) });
        }
        if info.tsdbs.is_empty() {
            // Whatever comes first may be of any time; queriers ask again only every few seconds.
            info.range.mint = i64::MIN;
            info.label_sets.push(self.tenants.external().clone());
        }
        // New samples come all the time, as in Thanos.
        info.range.maxt = i64::MAX;
        Ok(info)
    }

    fn series_at_once(&self, matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        self.heads_only(matchers, range, |head, matchers| head.series_bound(matchers))
    }

    fn values_at_once(&self, label: &str, matchers: &[Matcher], range: TimeRange) -> Option<usize> {
        self.heads_only(matchers, range, |head, matchers| head.values_bound(label, matchers))
    }
}

/// The time that a tenant has samples of.
pub(crate) fn time_range(db: &Db, tenant: &TenantId) -> Option<TimeRange> {
    let head = db.head(tenant).and_then(|head| head.time_range());
    let blocks = db.blocks(tenant).into_iter().map(|b| b.time_range());
    head.into_iter().chain(blocks).reduce(|a, b| TimeRange::new(a.mint.min(b.mint), a.maxt.max(b.maxt)))
}

fn block_label(tenant: &TenantId, block: BlockId) -> String {
    format!("tenant {tenant}, block {block}")
}

pub(crate) fn block_error(block: &Block, error: chronolith_tsdb::Error) -> StoreError {
    read_error(error).within(&format!("block {}", block.id()))
}

fn read_error(error: chronolith_tsdb::Error) -> StoreError {
    StoreError::corrupt("reading a local block").with_source(error)
}

/// What is asked of each source of a tenant.
#[derive(Clone, Debug)]
struct Query {
    matchers: Vec<Matcher>,
    range: TimeRange,
    skip_chunks: bool,
    /// What is deleted of the tenant's series.
    mask: Option<Arc<Mask>>,
}

impl Query {
    /// The same, asked of what has samples of these times only.
    fn of(&self, own: TimeRange) -> Self {
        let range = TimeRange::new(self.range.mint.max(own.mint), self.range.maxt.min(own.maxt));
        Query { range, ..self.clone() }
    }

    /// No chunks are needed: they are not asked for, nor to tell whether something is left of a series.
    fn is_bare(&self) -> bool {
        self.skip_chunks && self.mask.is_none()
    }

    /// Leaves out of a series' chunks what is deleted; false when nothing is left.
    fn unmasked(&self, labels: &Labels, chunks: &mut Vec<Chunk>) -> Result<bool, StoreError> {
        let Some(mask) = &self.mask else { return Ok(true) };
        if self.skip_chunks {
            let times = chunks.drain(..).map(|c| c.time_range());
            return Ok(!mask.hides(labels, times.collect::<Vec<_>>(), self.range));
        }
        let left = mask.apply(labels, chunks, self.range);
        left.map_err(|e| StoreError::corrupt(format!("chunk of {labels}")).with_source(e))
    }

    fn open(&self, block: &Block) -> Result<Select, StoreError> {
        let select = if self.is_bare() {
            block.select_labels(&self.matchers, self.range)
        } else {
            block.select(&self.matchers, self.range)
        };
        select.map_err(read_error)
    }
}

type Found = (Labels, Vec<chronolith_storeapi::AggrChunk>);

/// A block's series.
struct BlockSeriesIter {
    select: Select,
    label: String,
    query: Query,
}

impl Iterator for BlockSeriesIter {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let kept = self.select.next()?.map_err(read_error).and_then(|(labels, mut chunks)| {
                let kept = self.query.unmasked(&labels, &mut chunks)?;
                Ok(kept.then(|| (labels, raw_chunks(chunks))))
            });
            match kept {
                Ok(None) => {}
                kept => return kept.map_err(|e| e.within(&self.label)).transpose(),
            }
        }
    }
}

/// A head's series, and those of blocks that were cut from it meanwhile.
struct HeadSeriesIter {
    db: Arc<Db>,
    tenant: TenantId,
    query: Query,
    /// As asked of the samples that were there when the stream began.
    unmask: Query,
    head: HeadSelect,
    fetched: std::vec::IntoIter<(Labels, Vec<Chunk>)>,
    next_fetched: Option<(Labels, Vec<Chunk>)>,
    /// Blocks that somebody reads already.
    seen: HashSet<BlockId>,
    /// Blocks that came later.
    late: Vec<Peekable<Select>>,
    last: Option<Labels>,
    done: bool,
}

impl HeadSeriesIter {
    fn new(db: Arc<Db>, tenant: TenantId, query: Query, head: HeadSelect, seen: HashSet<BlockId>) -> Self {
        let own = time_range(&db, &tenant).unwrap_or(query.range);
        HeadSeriesIter {
            unmask: query.of(own),
            db,
            tenant,
            query,
            head,
            fetched: Vec::new().into_iter(),
            next_fetched: None,
            seen,
            late: Vec::new(),
            last: None,
            done: false,
        }
    }

    /// Makes `next_fetched` the head's next series. Whenever series were fetched, blocks cut up to then are opened,
    /// from the first series on that has not been handed out.
    fn fetch(&mut self) -> Result<(), StoreError> {
        if self.next_fetched.is_some() || self.done {
            return Ok(());
        }
        self.next_fetched = self.fetched.next();
        if self.next_fetched.is_some() {
            return Ok(());
        }
        let batch: Vec<_> =
            self.head.by_ref().take(HEAD_SERIES_BATCH).map(|s| (s.labels, s.chunks)).collect();
        self.done = batch.is_empty();
        for block in self.db.blocks(&self.tenant) {
            if !self.seen.insert(block.id()) || !block.time_range().overlaps(&self.query.range) {
                continue;
            }
            let mut select = self.query.open(&block)?.peekable();
            let last = self.last.as_ref();
            while select
                .next_if(|s| s.as_ref().is_ok_and(|(labels, _)| last.is_some_and(|l| labels <= l)))
                .is_some()
            {}
            self.late.push(select);
        }
        self.fetched = batch.into_iter();
        self.next_fetched = self.fetched.next();
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Found>, StoreError> {
        loop {
            let Some((labels, mut chunks)) = self.next_series()? else { return Ok(None) };
            if self.unmask.unmasked(&labels, &mut chunks)? {
                return Ok(Some((labels, raw_chunks(chunks))));
            }
        }
    }

    fn next_series(&mut self) -> Result<Option<(Labels, Vec<Chunk>)>, StoreError> {
        self.fetch()?;
        let mut least: Option<&Labels> = self.next_fetched.as_ref().map(|(labels, _)| labels);
        for late in &mut self.late {
            match late.peek() {
                Some(Ok((labels, _))) if least.is_none_or(|l| labels < l) => least = Some(labels),
                Some(Err(_)) => {
                    let error = late.next().and_then(Result::err).map(read_error);
                    return Err(error.unwrap_or_else(|| StoreError::internal("peeked an error")));
                }
                _ => {}
            }
        }
        let Some(labels) = least.cloned() else { return Ok(None) };
        let mut chunks = Vec::new();
        if self.next_fetched.as_ref().is_some_and(|(l, _)| *l == labels) {
            chunks = self.next_fetched.take().map(|(_, chunks)| chunks).unwrap_or_default();
        }
        for late in &mut self.late {
            if let Some(Ok((_, more))) = late.next_if(|s| s.as_ref().is_ok_and(|(l, _)| *l == labels)) {
                chunks.extend(more);
                chunks.sort_by_key(|c| (c.mint, c.maxt));
            }
        }
        self.last = Some(labels.clone());
        Ok(Some((labels, chunks)))
    }
}

impl Iterator for HeadSeriesIter {
    type Item = Result<Found, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().map_err(|e| e.within(&format!("tenant {}", self.tenant))).transpose()
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
