//! A bucket that fails on command, around any store.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;
use rand::RngExt;

/// What a [`FaultyStore`] does wrong. All off by default.
#[derive(Clone, Debug, Default)]
pub struct StoreFaults {
    /// Added to every operation.
    pub latency: Duration,
    /// Share of operations that fail without an effect, 0 to 1.
    pub fail: f64,
    /// Share of writes that take effect and are reported as failed.
    pub fail_after_write: f64,
    /// Share of reads whose body ends early.
    pub truncate: f64,
    /// Only operations on keys that contain this are touched; empty for all.
    pub only_keys: String,
}

/// The steering wheel of a [`FaultyStore`], shared with the test.
#[derive(Clone, Debug, Default)]
pub struct FaultControl {
    faults: Arc<Mutex<StoreFaults>>,
    operations: Arc<AtomicU64>,
    fail_next: Arc<AtomicU64>,
    /// Operations to let pass before one fails, plus one; 0 is off.
    countdown: Arc<AtomicU64>,
    /// The operation at which the process that uses the store dies; 0 is never.
    death: Arc<AtomicU64>,
    /// That operation still has its effect.
    last_applies: Arc<AtomicBool>,
    /// What listings show, whatever is there by now.
    listed: Arc<Mutex<Option<Vec<ObjectMeta>>>>,
}

impl FaultControl {
    /// Replaces the faults, effective at once.
    pub fn set(&self, faults: StoreFaults) {
        *self.faults.lock() = faults;
    }

    /// Lets the next `count` operations fail, whatever the shares say.
    pub fn fail_next(&self, count: u64) {
        self.fail_next.store(count, Ordering::SeqCst);
    }

    /// Lets `count` operations pass and the next one fail, once.
    pub fn fail_after(&self, count: u64) {
        self.countdown.store(count + 1, Ordering::SeqCst);
    }

    /// Lets `count` more operations pass and all later ones fail: what the bucket sees of a process that is killed. With
    /// `last_applies` the first of those that fail has its effect, if it is a write.
    pub fn die_after(&self, count: u64, last_applies: bool) {
        self.last_applies.store(last_applies, Ordering::SeqCst);
        self.death.store(self.operations() + count + 1, Ordering::SeqCst);
    }

    /// True when [`FaultControl::die_after`] has come to its end.
    pub fn is_dead(&self) -> bool {
        let death = self.death.load(Ordering::SeqCst);
        death > 0 && self.operations() >= death
    }

    /// From now on listings show what `bucket` holds now, until they are [`FaultControl::thaw_listings`]ed: stores whose listings
    /// lag behind their objects do that for a while.
    pub async fn freeze_listings(&self, bucket: &chronolith_objstore::Bucket) {
        let mut all = Vec::new();
        let mut objects = bucket.list("");
        while let Some(object) = objects.try_next().await.expect("a bucket without faults") {
            all.push(ObjectMeta {
                location: Path::from(object.key),
                last_modified: object.last_modified.into(),
                size: object.size,
                e_tag: None,
                version: None,
            });
        }
        *self.listed.lock() = Some(all);
    }

    /// Listings show what is there again.
    pub fn thaw_listings(&self) {
        *self.listed.lock() = None;
    }

    fn listed(&self, prefix: Option<&Path>) -> Option<Vec<ObjectMeta>> {
        let mut all = self.listed.lock().clone()?;
        if let Some(prefix) = prefix {
            all.retain(|m| m.location.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some()));
        }
        Some(all)
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }
}

/// A store with faults.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    control: FaultControl,
}

impl FaultyStore {
    /// Puts faults around `inner`; they are steered through `control`.
    pub fn new(inner: Arc<dyn ObjectStore>, control: FaultControl) -> Self {
        FaultyStore { inner, control }
    }

    /// Puts faults around a bucket's clients.
    pub fn around(bucket: &chronolith_objstore::Bucket) -> (chronolith_objstore::Bucket, FaultControl) {
        let control = FaultControl::default();
        let wrapped = bucket.wrapped(|store| Arc::new(FaultyStore::new(store, control.clone())));
        (wrapped, control)
    }

    fn faults(&self, key: &str) -> StoreFaults {
        let faults = self.control.faults.lock().clone();
        if key.contains(&faults.only_keys) { faults } else { StoreFaults::default() }
    }

    async fn before(&self, key: &str) -> Result<StoreFaults> {
        let faults = self.faults(key);
        if !faults.latency.is_zero() {
            tokio::time::sleep(faults.latency).await;
        }
        self.check(&faults)?;
        Ok(faults)
    }

    fn check(&self, faults: &StoreFaults) -> Result<()> {
        let operation = self.control.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let death = self.control.death.load(Ordering::SeqCst);
        if death > 0 && operation >= death {
            return Err(injected());
        }
        let next =
            self.control.fail_next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let countdown = &self.control.countdown;
        let left = countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if next.is_ok() || left == Ok(1) || hit(faults.fail) { Err(injected()) } else { Ok(()) }
    }
}

fn hit(share: f64) -> bool {
    share > 0.0 && rand::rng().random_bool(share.min(1.0))
}

fn injected() -> Error {
    Error::Generic { store: "faulty", source: "injected failure".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let dying = self.control.death.load(Ordering::SeqCst) == self.control.operations() + 1
            && self.control.last_applies.load(Ordering::SeqCst);
        if dying {
            let _ = self.inner.put_opts(at, payload.clone(), opts.clone()).await;
        }
        let faults = self.before(at.as_ref()).await?;
        let result = self.inner.put_opts(at, payload, opts).await?;
        if hit(faults.fail_after_write) { Err(injected()) } else { Ok(result) }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.before(at.as_ref()).await?;
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let faults = self.before(at.as_ref()).await?;
        let mut result = self.inner.get_opts(at, options).await?;
        if hit(faults.truncate) {
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
            let bytes = result.bytes().await?;
            let half = bytes.slice(..bytes.len() / 2);
            let payload = GetResultPayload::Stream(futures::stream::iter([Ok(half)]).boxed());
            result = GetResult { payload, meta, range, attributes, extensions };
        }
        Ok(result)
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.before(at.as_ref()).await?;
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let faults = self.faults("");
        match self.check(&faults) {
            Ok(()) => self.inner.delete_stream(locations),
            Err(e) => futures::stream::once(async { Err(e) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let faults = self.faults(prefix.map_or("", |p| p.as_ref()));
        match (self.check(&faults), self.control.listed(prefix)) {
            (Ok(()), Some(listed)) => futures::stream::iter(listed.into_iter().map(Ok)).boxed(),
            (Ok(()), None) => self.inner.list(prefix),
            (Err(e), _) => futures::stream::once(async { Err(e) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.list(prefix).try_filter(move |m| futures::future::ready(m.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.before(prefix.map_or("", |p| p.as_ref())).await?;
        let Some(listed) = self.control.listed(prefix) else {
            return self.inner.list_with_delimiter(prefix).await;
        };
        let root = Path::default();
        let prefix = prefix.unwrap_or(&root);
        let (mut objects, mut dirs) = (Vec::new(), BTreeSet::new());
        for object in listed {
            let mut rest = object.location.prefix_match(prefix).into_iter().flatten();
            let (Some(first), more) = (rest.next(), rest.next().is_some()) else { continue };
            let dir: Path = prefix.parts().chain([first]).collect();
            drop(rest);
            if more {
                dirs.insert(dir);
            } else {
                objects.push(object);
            }
        }
        let common_prefixes = dirs.into_iter().collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.before(from.as_ref()).await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.before(from.as_ref()).await?;
        self.inner.rename_opts(from, to, options).await
    }
}
