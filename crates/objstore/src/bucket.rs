//! The bucket handle.
//!
//! Two clients stand behind it: one that gives up after seconds, for whatever a query waits for, and a patient one
//! for uploads, deletions and whole-object downloads. Retries happen inside the clients; a body that came up short
//! is an error here, never a short answer.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::hedge::Hedge;
use crate::{BucketError, BucketMetrics, ErrorKind, HedgeOptions};

/// What a listing or [`Bucket::head`] tells about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Key, without the bucket's prefix.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was last written.
    pub last_modified: SystemTime,
}

/// What became of [`Bucket::put_if_absent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is there and holds our bytes.
    Created,
    /// Another object was there first; it is untouched.
    Exists,
}

/// A handle on a bucket. Cheap to clone.
///
/// Keys are `/`-separated, without a leading slash. An object is written wholly or not at all: a reader never sees
/// half of one, on a directory neither.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) name: Arc<str>,
    pub(crate) quick: Arc<dyn ObjectStore>,
    pub(crate) patient: Arc<dyn ObjectStore>,
    pub(crate) prefix: Path,
    pub(crate) metrics: BucketMetrics,
    pub(crate) attributes: Attributes,
    /// Size of one part of a multipart upload; files up to it go in one request.
    pub(crate) part_bytes: u64,
    pub(crate) multipart: bool,
    pub(crate) hedge: Option<Arc<Hedge>>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({}/{})", self.inner.name, self.inner.prefix)
    }
}

/// The largest object that [`Bucket::get`] takes into memory; marks, metas and configuration are far smaller.
const GET_BYTES_MAX: u64 = 64 << 20;

/// Part size where the configuration names none: four of them are in flight per file, so a file costs 64 MiB.
pub(crate) const PART_BYTES: u64 = 16 << 20;

impl Bucket {
    /// A bucket in memory, for tests.
    pub fn in_memory() -> Self {
        Self::from_store(Arc::new(object_store::memory::InMemory::new()), "memory")
    }

    /// A bucket over any store; the store is used for queries and uploads alike.
    pub fn from_store(store: Arc<dyn ObjectStore>, name: &str) -> Self {
        Bucket {
            inner: Arc::new(Inner {
                name: Arc::from(name),
                quick: store.clone(),
                patient: store,
                prefix: Path::default(),
                metrics: BucketMetrics::default(),
                attributes: Attributes::new(),
                part_bytes: PART_BYTES,
                multipart: true,
                hedge: None,
            }),
        }
    }

    pub(crate) fn from_inner(inner: Inner) -> Self {
        Bucket { inner: Arc::new(inner) }
    }

    fn changed(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let i = &self.inner;
        let mut inner = Inner {
            name: i.name.clone(),
            quick: i.quick.clone(),
            patient: i.patient.clone(),
            prefix: i.prefix.clone(),
            metrics: i.metrics.clone(),
            attributes: i.attributes.clone(),
            part_bytes: i.part_bytes,
            multipart: i.multipart,
            hedge: i.hedge.clone(),
        };
        change(&mut inner);
        Bucket::from_inner(inner)
    }

    /// The same bucket, counting on `metrics`.
    pub fn with_metrics(&self, metrics: BucketMetrics) -> Self {
        self.changed(|i| i.metrics = metrics)
    }

    /// The same bucket with every key below `prefix`.
    pub fn with_prefix(&self, prefix: &str) -> Self {
        self.changed(|i| i.prefix = i.prefix.parts().chain(Path::from(prefix).parts()).collect())
    }

    /// The same bucket with uploads cut into parts of this size.
    pub fn with_part_bytes(&self, part_bytes: u64) -> Self {
        self.changed(|i| i.part_bytes = part_bytes.max(1))
    }

    /// The same bucket with a layer around its clients (faults, latency).
    pub fn wrapped(&self, wrap: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.changed(|i| {
            i.quick = wrap(i.quick.clone());
            i.patient = wrap(i.patient.clone());
        })
    }

    /// The same bucket, whose reads of ranges are repeated when they take long.
    pub fn with_hedging(&self, options: HedgeOptions) -> Self {
        self.changed(|i| i.hedge = Some(Arc::new(Hedge::new(options))))
    }

    /// The bucket's name, for logs.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn path(&self, operation: &'static str, key: &str) -> Result<Path, BucketError> {
        let path = Path::parse(key)
            .map_err(|e| BucketError::new(operation, key, ErrorKind::Invalid, e.to_string()))?;
        Ok(if self.inner.prefix.is_root() {
            path
        } else {
            self.inner.prefix.parts().chain(path.parts()).collect()
        })
    }

    fn key(&self, path: &Path) -> String {
        match path.prefix_match(&self.inner.prefix) {
            Some(parts) => parts.collect::<Path>().to_string(),
            None => path.to_string(),
        }
    }

    fn info(&self, meta: object_store::ObjectMeta) -> ObjectInfo {
        ObjectInfo {
            key: self.key(&meta.location),
            size: meta.size,
            last_modified: SystemTime::from(meta.last_modified),
        }
    }

    pub(crate) async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        let i = &self.inner;
        i.metrics.started(&i.name, operation);
        let start = Instant::now();
        let result = work.await;
        match &result {
            Ok(_) => i.metrics.done(&i.name, operation, start.elapsed()),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(_) => i.metrics.failed(&i.name, operation),
        }
        result
    }

    /// A whole small object. Errors with [`ErrorKind::LimitExceeded`] above 64 MiB.
    pub async fn get(&self, key: &str) -> Result<Bytes, BucketError> {
        self.get_max(key, GET_BYTES_MAX).await
    }

    /// A whole object of at most `bytes_max` bytes. The size is known before the body is read.
    pub async fn get_max(&self, key: &str, bytes_max: u64) -> Result<Bytes, BucketError> {
        self.measured("get", self.read("get", key, None, bytes_max)).await
    }

    /// The same, with the time at which the store says that it was written.
    pub async fn get_dated(&self, key: &str, bytes_max: u64) -> Result<(Bytes, SystemTime), BucketError> {
        self.measured("get", self.read_dated("get", key, None, bytes_max)).await
    }

    /// The bytes of `range` that the object has: fewer than asked for only where the object ends before the range
    /// does. A range that starts behind the end is an error.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, BucketError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes_max = range.end - range.start;
        let read = || self.read("get_range", key, Some(range.clone()), bytes_max);
        let i = &self.inner;
        match &i.hedge {
            Some(hedge) => self.measured("get_range", hedge.run(read, || i.metrics.repeated(&i.name))).await,
            None => self.measured("get_range", read()).await,
        }
    }

    /// Several ranges of one object, concurrently (at most eight at a time), in the order given. Ranges are *not*
    /// merged: that is for callers, who know what a gap costs them.
    pub async fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, BucketError> {
        const CONCURRENT: usize = 8;
        futures::stream::iter(ranges.to_vec())
            .map(|range| self.get_range(key, range))
            .buffered(CONCURRENT)
            .try_collect()
            .await
    }

    async fn read(
        &self,
        operation: &'static str,
        key: &str,
        range: Option<Range<u64>>,
        bytes_max: u64,
    ) -> Result<Bytes, BucketError> {
        self.read_dated(operation, key, range, bytes_max).await.map(|(bytes, _)| bytes)
    }

    async fn read_dated(
        &self,
        operation: &'static str,
        key: &str,
        range: Option<Range<u64>>,
        bytes_max: u64,
    ) -> Result<(Bytes, SystemTime), BucketError> {
        let path = self.path(operation, key)?;
        let fail = |e| BucketError::from_store(operation, key, e);
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let result = self.inner.quick.get_opts(&path, options).await.map_err(fail)?;
        let expected = result.range.end.saturating_sub(result.range.start);
        if expected > bytes_max {
            let detail = format!("{expected} bytes, at most {bytes_max} allowed");
            return Err(BucketError::new(operation, key, ErrorKind::LimitExceeded, detail));
        }
        let written = SystemTime::from(result.meta.last_modified);
        let bytes = result.bytes().await.map_err(fail)?;
        if bytes.len() as u64 != expected {
            let detail = format!("body of {} bytes instead of {expected}", bytes.len());
            return Err(BucketError::new(operation, key, ErrorKind::Unavailable, detail));
        }
        self.inner.metrics.fetched(&self.inner.name, operation, expected);
        Ok((bytes, written))
    }

    /// Writes an object, replacing an earlier one.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), BucketError> {
        let sent = bytes.len() as u64;
        self.measured("upload", async {
            let path = self.path("upload", key)?;
            let options = self.put_options(PutMode::Overwrite);
            self.inner
                .patient
                .put_opts(&path, PutPayload::from_bytes(bytes), options)
                .await
                .map_err(|e| BucketError::from_store("upload", key, e))?;
            self.inner.metrics.sent(&self.inner.name, "upload", sent);
            Ok(())
        })
        .await
    }

    /// Writes an object only if there is none of this key.
    ///
    /// A create can be reported as failed although it was applied (an answer lost, a retry that met its own first
    /// try), so on any doubt the object is read back and compared. For that to be exact, the bytes must differ
    /// between writers: put a random token into them.
    pub async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, BucketError> {
        self.measured("upload", async {
            let path = self.path("upload", key)?;
            let options = self.put_options(PutMode::Create);
            let payload = PutPayload::from_bytes(bytes.clone());
            let err = match self.inner.patient.put_opts(&path, payload, options).await {
                Ok(_) => return Ok(PutOutcome::Created),
                Err(e) => BucketError::from_store("upload", key, e),
            };
            match err.kind() {
                ErrorKind::Conflict | ErrorKind::Unavailable => {}
                _ => return Err(err),
            }
            match self.inner.patient.get(&path).await {
                Ok(found) if found.meta.size != bytes.len() as u64 => Ok(PutOutcome::Exists),
                Ok(found) => {
                    let there = found.bytes().await.map_err(|e| BucketError::from_store("upload", key, e))?;
                    Ok(if there == bytes { PutOutcome::Created } else { PutOutcome::Exists })
                }
                Err(_) => Err(err),
            }
        })
        .await
    }

    /// True when the store honours conditional creates. Some accept the condition and ignore it; whoever builds a
    /// lock on [`Bucket::put_if_absent`] asks this first. `key` is written and deleted again.
    pub async fn honours_put_if_absent(&self, key: &str) -> Result<bool, BucketError> {
        let token = |n: u8| Bytes::from(format!("probe {n} {:032x}", rand::random::<u128>()));
        self.delete(key).await?;
        let first = self.put_if_absent(key, token(1)).await?;
        let second = self.put_if_absent(key, token(2)).await?;
        self.delete(key).await?;
        Ok(first == PutOutcome::Created && second == PutOutcome::Exists)
    }

    pub(crate) fn put_options(&self, mode: PutMode) -> PutOptions {
        PutOptions { mode, attributes: self.inner.attributes.clone(), ..PutOptions::default() }
    }

    /// Deletes an object. One that is not there counts as deleted.
    pub async fn delete(&self, key: &str) -> Result<(), BucketError> {
        self.measured("delete", async {
            let path = self.path("delete", key)?;
            match self.inner.patient.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(BucketError::from_store("delete", key, e)),
            }
        })
        .await
    }

    /// Size and time of an object.
    pub async fn head(&self, key: &str) -> Result<ObjectInfo, BucketError> {
        self.measured("attributes", async {
            let path = self.path("attributes", key)?;
            let meta = self.inner.quick.head(&path).await;
            meta.map(|m| self.info(m)).map_err(|e| BucketError::from_store("attributes", key, e))
        })
        .await
    }

    /// True when the object is there.
    pub async fn exists(&self, key: &str) -> Result<bool, BucketError> {
        match self.head(key).await {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Every object below the directory `prefix` (`""` for all), in no particular order.
    pub fn list(&self, prefix: &str) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let i = &self.inner;
        i.metrics.started(&i.name, "iter");
        let path = match self.dir("iter", prefix) {
            Ok(path) => path,
            Err(e) => return futures::stream::once(async { Err(e) }).boxed(),
        };
        self.infos(i.patient.list(path.as_ref()), prefix.to_owned())
    }

    /// Every object whose key is greater than `key`, in no particular order. Where the store can, it begins there.
    pub fn list_after(&self, key: &str) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let i = &self.inner;
        i.metrics.started(&i.name, "iter");
        let (prefix, offset) = match (self.dir("iter", ""), self.path("iter", key)) {
            (Ok(prefix), Ok(offset)) => (prefix, offset),
            (Err(e), _) | (_, Err(e)) => return futures::stream::once(async { Err(e) }).boxed(),
        };
        let listed = i.patient.list_with_offset(prefix.as_ref(), &offset);
        self.infos(listed, key.to_owned())
    }

    fn infos(
        &self,
        listed: BoxStream<'static, object_store::Result<object_store::ObjectMeta>>,
        about: String,
    ) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let bucket = self.clone();
        listed
            .map(move |item| match item {
                Ok(meta) => Ok(bucket.info(meta)),
                Err(e) => {
                    bucket.inner.metrics.failed(&bucket.inner.name, "iter");
                    Err(BucketError::from_store("iter", &about, e))
                }
            })
            .boxed()
    }

    /// The directories right below `prefix` (`""` for the root), as full keys without a trailing slash, sorted.
    pub async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        self.measured("iter", async {
            let path = self.dir("iter", prefix)?;
            let listed = self.inner.patient.list_with_delimiter(path.as_ref()).await;
            let listed = listed.map_err(|e| BucketError::from_store("iter", prefix, e))?;
            let mut dirs: Vec<String> = listed.common_prefixes.iter().map(|p| self.key(p)).collect();
            dirs.sort_unstable();
            Ok(dirs)
        })
        .await
    }

    fn dir(&self, operation: &'static str, prefix: &str) -> Result<Option<Path>, BucketError> {
        let path = self.path(operation, prefix.trim_end_matches('/'))?;
        Ok(if path.is_root() { None } else { Some(path) })
    }
}

/// Maps Thanos's `put_user_metadata` to attributes.
pub(crate) fn user_metadata(pairs: impl IntoIterator<Item = (String, String)>) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in pairs {
        let lower = name.to_ascii_lowercase();
        let attribute = match lower.as_str() {
            "x-amz-storage-class" => Attribute::StorageClass,
            "cache-control" => Attribute::CacheControl,
            "content-type" => Attribute::ContentType,
            "content-encoding" => Attribute::ContentEncoding,
            other => Attribute::Metadata(other.trim_start_matches("x-amz-meta-").to_owned().into()),
        };
        attributes.insert(attribute, value.into());
    }
    attributes
}
