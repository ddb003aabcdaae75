//! Finding blocks by the bucket index, or by a listing where there is no good one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::{BucketIndex, RECENT_MS};
use crate::{
    BlockFilter, DeletionMark, Error, ErrorKind, FetchOptions, FetchResult, Fetcher, PartialBlock, Result,
    layout,
};

/// Settings of a [`BlockFinder`].
#[derive(Clone, Debug)]
pub struct FinderOptions {
    /// How it lists, and what it leaves out.
    pub fetch: FetchOptions,
    /// An index older than this is not believed; `None` never asks for one.
    pub index_age_max: Option<Duration>,
}

/// How a round found the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexUse {
    /// By the index and a listing of the newest keys.
    Used,
    /// By a listing: no index is wanted.
    Off,
    /// By a listing: there is no index.
    Missing,
    /// By a listing: nobody wrote the index for too long.
    Old,
    /// By a listing: the index is damaged or of another version.
    Damaged,
    /// By a listing: the bucket did not give the index.
    Failed,
}

impl IndexUse {
    /// Every case, for metrics that begin at 0.
    pub const ALL: [IndexUse; 6] = [
        IndexUse::Used,
        IndexUse::Off,
        IndexUse::Missing,
        IndexUse::Old,
        IndexUse::Damaged,
        IndexUse::Failed,
    ];

    /// A word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            IndexUse::Used => "used",
            IndexUse::Off => "off",
            IndexUse::Missing => "missing",
            IndexUse::Old => "old",
            IndexUse::Damaged => "damaged",
            IndexUse::Failed => "failed",
        }
    }
}

/// Finds the blocks of a bucket again and again, as cheaply as it can.
#[derive(Debug)]
pub struct BlockFinder {
    bucket: Bucket,
    options: FinderOptions,
    fetcher: Fetcher,
    /// Metas of the last round that used the index.
    known: Mutex<BTreeMap<BlockId, Arc<BlockMeta>>>,
}

/// What the listing of the newest keys showed of a block.
#[derive(Clone, Copy, Debug)]
struct Seen {
    meta: bool,
    mark: bool,
    last_modified: std::time::SystemTime,
}

enum Looked {
    Meta(Arc<BlockMeta>),
    Missing,
    Corrupt(String),
    Failed(String),
}

impl BlockFinder {
    /// A finder over a bucket.
    pub fn new(bucket: Bucket, options: FinderOptions) -> Self {
        let fetcher = Fetcher::new(bucket.clone(), options.fetch.clone());
        BlockFinder { bucket, options, fetcher, known: Mutex::default() }
    }

    /// One round. Errors only when the listing fails, the short or the full one.
    pub async fn find(&self, filter: &BlockFilter, now_ms: i64) -> Result<(FetchResult, IndexUse)> {
        let (index, how) = self.index(now_ms).await;
        let index = match (index, how) {
            (Some(index), IndexUse::Used) => index,
            (old, _) => {
                // A meta never changes: what is listed need not be read again.
                self.fetcher.know(std::mem::take(&mut *self.known.lock()));
                self.fetcher.know(old.unwrap_or_default().blocks);
                return Ok((self.fetcher.fetch_with(filter, now_ms).await?, how));
            }
        };
        let mut found = self.complete(index).await?;
        *self.known.lock() = found.blocks.clone();
        found.excluded = filter.apply(&mut found.blocks, &found.marks, now_ms);
        Ok((found, how))
    }

    /// The index, also one that is too old to be believed in what it does not name.
    async fn index(&self, now_ms: i64) -> (Option<BucketIndex>, IndexUse) {
        let Some(age_max) = self.options.index_age_max else { return (None, IndexUse::Off) };
        let known = self.known.lock().clone();
        let how = match BucketIndex::read(&self.bucket, known).await {
            Ok(index) => {
                let age_ms = now_ms.saturating_sub(index.listed_at_ms);
                if age_ms <= i64::try_from(age_max.as_millis()).unwrap_or(i64::MAX) {
                    return (Some(index), IndexUse::Used);
                }
                tracing::warn!(
                    age_seconds = age_ms / 1000,
                    "bucket index is old, the bucket is listed; does a compactor run?"
                );
                return (Some(index), IndexUse::Old);
            }
            Err(err) => match err.kind() {
                ErrorKind::NotFound => IndexUse::Missing,
                ErrorKind::Unavailable => {
                    tracing::warn!(err = err.chain(), "bucket index not readable now, the bucket is listed");
                    IndexUse::Failed
                }
                _ => {
                    tracing::warn!(err = err.chain(), "bucket index is damaged, the bucket is listed");
                    IndexUse::Damaged
                }
            },
        };
        (None, how)
    }

    /// The index's older blocks, and what the bucket shows of the newer ones.
    async fn complete(&self, index: BucketIndex) -> Result<FetchResult> {
        let since_ms = u64::try_from(index.listed_at_ms.saturating_sub(RECENT_MS)).unwrap_or(0);
        let first = BlockId(u128::from(since_ms).checked_shl(80).unwrap_or(0).into());
        let BucketIndex { mut blocks, marks, unread, .. } = index;
        let recent = self.list_since(first).await?;
        let newer = blocks.split_off(&first);
        let mut result = FetchResult { blocks, ..FetchResult::default() };
        result.marks = marks.into_iter().filter(|(id, _)| *id < first).collect::<HashMap<_, _>>();

        let never = std::time::SystemTime::UNIX_EPOCH;
        let unread: BTreeSet<BlockId> = unread.into_iter().filter(|id| *id < first).collect();
        let unread = unread.into_iter().map(|id| (id, Seen { meta: true, mark: true, last_modified: never }));
        let known = self.known.lock().clone();
        let looks: Vec<(BlockId, Seen, Option<Arc<BlockMeta>>)> = recent
            .into_iter()
            .chain(unread)
            .map(|(id, seen)| (id, seen, newer.get(&id).or_else(|| known.get(&id)).cloned()))
            .collect();
        let looks = futures::stream::iter(looks).map(|(id, seen, meta)| async move {
            let mark = if seen.mark { DeletionMark::read(&self.bucket, id).await } else { Ok(None) };
            let looked = match meta {
                Some(meta) if seen.meta => Looked::Meta(meta),
                None if seen.meta => self.look(id).await,
                _ => Looked::Missing,
            };
            (id, seen, looked, mark)
        });
        let looks: Vec<_> = looks.buffer_unordered(self.options.fetch.concurrency.max(1)).collect().await;
        for (id, seen, looked, mark) in looks {
            let mark = mark.unwrap_or_else(|err| {
                tracing::warn!(block = %id, err = err.chain(), "deletion mark not readable, taken as absent");
                None
            });
            match looked {
                Looked::Meta(meta) => drop(result.blocks.insert(id, meta)),
                Looked::Missing => {
                    let partial = PartialBlock { last_modified: seen.last_modified, marked: mark.is_some() };
                    result.partial.insert(id, partial);
                }
                Looked::Corrupt(why) => drop(result.corrupt.insert(id, why)),
                Looked::Failed(why) => drop(result.failed.insert(id, why)),
            }
            result.marks.extend(mark.map(|m| (id, m)));
        }
        Ok(result)
    }

    /// The blocks from `first` on, by a listing that begins there.
    async fn list_since(&self, first: BlockId) -> Result<BTreeMap<BlockId, Seen>> {
        let mut seen: BTreeMap<BlockId, Seen> = BTreeMap::new();
        let mut objects = self.bucket.list_after(&first.to_string());
        while let Some(object) = objects.try_next().await? {
            let Some((id, file)) = layout::parse(&object.key) else { continue };
            let never = std::time::SystemTime::UNIX_EPOCH;
            let entry = seen.entry(id).or_insert(Seen { meta: false, mark: false, last_modified: never });
            entry.meta |= file == layout::META;
            entry.mark |= file == layout::DELETION_MARK;
            entry.last_modified = entry.last_modified.max(object.last_modified);
        }
        Ok(seen)
    }

    async fn look(&self, id: BlockId) -> Looked {
        let key = layout::key(id, layout::META);
        let read = async {
            let meta = BlockMeta::parse(&key, &self.bucket.get(&key).await?)?;
            if meta.ulid == id {
                Ok(Arc::new(meta))
            } else {
                Err(Error::corrupt(&key, 0, format!("it names another block, {}", meta.ulid)))
            }
        };
        match read.await {
            Ok(meta) => Looked::Meta(meta),
            Err(e) => match e.kind() {
                ErrorKind::NotFound => Looked::Missing,
                ErrorKind::Unavailable => Looked::Failed(e.chain()),
                _ => Looked::Corrupt(e.chain()),
            },
        }
    }
}
