//! Finding the blocks of a bucket.
//!
//! One listing per round, then only the metas that are not known yet (a meta.json never changes) and the deletion
//! marks that are there. A block whose meta cannot be read right now is reported as failed, so that its readers can
//! keep what they have; one whose meta is garbage is reported and skipped; one without a meta is partial.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use crate::{
    BlockFilter, DeletionMark, Error, ErrorKind, Excluded, NoCompactMark, NoDownsampleMark, Result, layout,
};

/// How the blocks are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// One listing of all objects. Tells marks and partial blocks on the way.
    #[default]
    Recursive,
    /// A listing of the root, then one request a block. Cheaper where blocks have very many objects.
    Concurrent,
}

/// Settings of a [`Fetcher`].
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How the blocks are found.
    pub discovery: Discovery,
    /// Requests in flight.
    pub concurrency: usize,
    /// Where metas are kept between runs (`meta-syncer` below it); `None` keeps them in memory only.
    pub cache_dir: Option<PathBuf>,
    /// What to leave out.
    pub filter: BlockFilter,
    /// Read the marks that concern compaction and downsampling as well.
    pub compaction_marks: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        // 32 is Thanos's default.
        let (discovery, filter) = (Discovery::default(), BlockFilter::default());
        FetchOptions { discovery, concurrency: 32, cache_dir: None, filter, compaction_marks: false }
    }
}

/// A block without meta.json: an upload or a deletion under way, or one that stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialBlock {
    /// When an object of it was last written; the ULID's time where no listing told.
    pub last_modified: SystemTime,
    /// It has a deletion mark.
    pub marked: bool,
}

/// What a round found.
#[derive(Clone, Debug, Default)]
pub struct FetchResult {
    /// Blocks to read.
    pub blocks: BTreeMap<BlockId, Arc<BlockMeta>>,
    /// Blocks left out by the filter.
    pub excluded: BTreeMap<BlockId, Excluded>,
    /// Blocks without meta.json.
    pub partial: BTreeMap<BlockId, PartialBlock>,
    /// Blocks whose meta.json is damaged, and how.
    pub corrupt: BTreeMap<BlockId, String>,
    /// Blocks about which the bucket gave no answer: neither there nor gone.
    pub failed: BTreeMap<BlockId, String>,
    /// Deletion marks.
    pub marks: HashMap<BlockId, DeletionMark>,
    /// No-compact marks, if they were asked for.
    pub no_compact: HashMap<BlockId, NoCompactMark>,
    /// No-downsample marks, if they were asked for.
    pub no_downsample: HashMap<BlockId, NoDownsampleMark>,
    /// Blocks one of whose marks could not be read. What depends on a mark being absent leaves them alone.
    pub unsure: BTreeSet<BlockId>,
}

/// The marks of a block.
#[derive(Clone, Debug, Default)]
struct Marks {
    deletion: Option<DeletionMark>,
    no_compact: Option<NoCompactMark>,
    no_downsample: Option<NoDownsampleMark>,
}

/// Finds blocks again and again, remembering metas.
#[derive(Debug)]
pub struct Fetcher {
    bucket: Bucket,
    options: FetchOptions,
    known: Mutex<HashMap<BlockId, Arc<BlockMeta>>>,
    /// Marks that were read, as long as the listing shows the same ones.
    known_marks: Mutex<HashMap<BlockId, (Listed, Marks)>>,
}

/// The marks that a listing shows, and when the newest of them was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    deletion: bool,
    no_compact: bool,
    no_downsample: bool,
    modified: SystemTime,
}

impl Listed {
    const NONE: Listed =
        Listed { deletion: false, no_compact: false, no_downsample: false, modified: SystemTime::UNIX_EPOCH };
    const MAYBE_ALL: Listed =
        Listed { deletion: true, no_compact: true, no_downsample: true, modified: SystemTime::UNIX_EPOCH };
}

#[derive(Clone, Copy, Debug)]
struct Found {
    meta: bool,
    marks: Listed,
    last_modified: SystemTime,
}

enum MetaState {
    Read(Arc<BlockMeta>),
    Missing,
    Corrupt(String),
    Failed(String),
}

impl Fetcher {
    /// A fetcher over a bucket.
    pub fn new(bucket: Bucket, options: FetchOptions) -> Self {
        Fetcher { bucket, options, known: Mutex::default(), known_marks: Mutex::default() }
    }

    /// One round with the filter of the options. Errors only when the listing fails.
    pub async fn fetch(&self, now_ms: i64) -> Result<FetchResult> {
        self.fetch_with(&self.options.filter, now_ms).await
    }

    /// One round with a filter of its own, for those whose time moves.
    pub async fn fetch_with(&self, filter: &BlockFilter, now_ms: i64) -> Result<FetchResult> {
        let found = match self.options.discovery {
            Discovery::Recursive => self.list_objects().await?,
            Discovery::Concurrent => self.list_root().await?,
        };
        self.read_cached(&found).await;
        let mut result = FetchResult::default();
        let mut all = BTreeMap::new();
        // Owned items: closures over references make the future's `Send` undecidable for callers that spawn it.
        let items: Vec<(BlockId, Found)> = found.iter().map(|(id, f)| (*id, *f)).collect();
        let states = futures::stream::iter(items)
            .map(|(id, f)| async move { (id, f, self.meta(id, f).await, self.marks(id, f).await) })
            .buffer_unordered(self.options.concurrency.max(1));
        let states: Vec<_> = states.collect().await;
        for (id, f, meta, marks) in states {
            let marks = marks.unwrap_or_else(|err| {
                tracing::warn!(block = %id, err = err.chain(), "mark not readable, taken as absent");
                result.unsure.insert(id);
                Marks::default()
            });
            match meta {
                MetaState::Read(meta) => drop(all.insert(id, meta)),
                MetaState::Missing => {
                    let marked = marks.deletion.is_some();
                    result.partial.insert(id, PartialBlock { last_modified: f.last_modified, marked });
                }
                MetaState::Corrupt(why) => drop(result.corrupt.insert(id, why)),
                MetaState::Failed(why) => drop(result.failed.insert(id, why)),
            }
            result.marks.extend(marks.deletion.map(|m| (id, m)));
            result.no_compact.extend(marks.no_compact.map(|m| (id, m)));
            result.no_downsample.extend(marks.no_downsample.map(|m| (id, m)));
        }
        self.remember(&all, &found);
        result.excluded = filter.apply(&mut all, &result.marks, now_ms);
        result.blocks = all;
        Ok(result)
    }

    /// Metas that the bucket need not be asked for, where it lists their blocks.
    pub(crate) fn know(&self, metas: impl IntoIterator<Item = (BlockId, Arc<BlockMeta>)>) {
        let mut known = self.known.lock();
        for (id, meta) in metas {
            known.entry(id).or_insert(meta);
        }
    }

    async fn list_objects(&self) -> Result<BTreeMap<BlockId, Found>> {
        let mut found: BTreeMap<BlockId, Found> = BTreeMap::new();
        let mut objects = self.bucket.list("");
        while let Some(object) = objects.try_next().await? {
            let Some((id, file)) = layout::parse(&object.key) else { continue };
            let entry = found.entry(id).or_insert(Found {
                meta: false,
                marks: Listed::NONE,
                last_modified: SystemTime::UNIX_EPOCH,
            });
            entry.last_modified = entry.last_modified.max(object.last_modified);
            match file {
                layout::META => entry.meta = true,
                layout::DELETION_MARK => entry.marks.deletion = true,
                layout::NO_COMPACT_MARK => entry.marks.no_compact = true,
                layout::NO_DOWNSAMPLE_MARK => entry.marks.no_downsample = true,
                _ => continue,
            }
            if file != layout::META {
                entry.marks.modified = entry.marks.modified.max(object.last_modified);
            }
        }
        Ok(found)
    }

    /// Takes the metas that are not known from what an earlier run kept: all in one go, as thousands of tiny reads beside
    /// each other would make a thread each.
    async fn read_cached(&self, found: &BTreeMap<BlockId, Found>) {
        let Some(dir) = self.options.cache_dir.clone() else { return };
        let wanted: Vec<BlockId> = {
            let known = self.known.lock();
            found.iter().filter(|(id, f)| f.meta && !known.contains_key(id)).map(|(id, _)| *id).collect()
        };
        if wanted.is_empty() {
            return;
        }
        let read = move || Ok(wanted.into_iter().filter_map(|id| read_cached(&dir, id)).collect::<Vec<_>>());
        // Whatever is wrong with the copies, the bucket has the originals.
        let read = crate::upload::blocking(read).await.unwrap_or_default();
        self.known.lock().extend(read.into_iter().map(|meta| (meta.ulid, Arc::new(meta))));
    }

    async fn list_root(&self) -> Result<BTreeMap<BlockId, Found>> {
        let dirs = self.bucket.list_dirs("").await?;
        let found = |id: BlockId| {
            let born = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(id.0.timestamp_ms());
            Found { meta: true, marks: Listed::MAYBE_ALL, last_modified: born }
        };
        Ok(dirs.iter().filter_map(|dir| dir.parse().ok()).map(|id| (id, found(id))).collect())
    }

    async fn meta(&self, id: BlockId, found: Found) -> MetaState {
        if !found.meta {
            return MetaState::Missing;
        }
        let key = layout::key(id, layout::META);
        let known = self.known.lock().get(&id).cloned();
        if let Some(meta) = known {
            if self.options.discovery == Discovery::Recursive {
                return MetaState::Read(meta);
            }
            return match self.bucket.exists(&key).await {
                Ok(true) => MetaState::Read(meta),
                Ok(false) => MetaState::Missing,
                Err(e) => MetaState::Failed(Error::from(e).chain()),
            };
        }
        match self.download(id, &key).await {
            Ok(meta) => MetaState::Read(meta),
            Err(e) => match e.kind() {
                ErrorKind::NotFound => MetaState::Missing,
                ErrorKind::Unavailable => MetaState::Failed(e.chain()),
                _ => MetaState::Corrupt(e.chain()),
            },
        }
    }

    async fn download(&self, id: BlockId, key: &str) -> Result<Arc<BlockMeta>> {
        let json = self.bucket.get(key).await?;
        let meta = BlockMeta::parse(key, &json)?;
        if meta.ulid != id {
            return Err(Error::corrupt(key, 0, format!("it names another block, {}", meta.ulid)));
        }
        if let Some(dir) = &self.options.cache_dir
            && let Err(err) = write_cached(dir, id, json.to_vec()).await
        {
            tracing::warn!(block = %id, err = err.chain(), "meta.json not kept on disk");
        }
        Ok(Arc::new(meta))
    }

    async fn marks(&self, id: BlockId, found: Found) -> Result<Marks> {
        let listed = found.marks;
        let by_listing = self.options.discovery == Discovery::Recursive;
        if by_listing {
            let known = self.known_marks.lock();
            if let Some((_, marks)) = known.get(&id).filter(|(before, _)| *before == listed) {
                return Ok(marks.clone());
            }
        }
        let mut marks = Marks::default();
        if listed.deletion {
            marks.deletion = DeletionMark::read(&self.bucket, id).await?;
        }
        if self.options.compaction_marks && listed.no_compact {
            marks.no_compact = NoCompactMark::read(&self.bucket, id).await?;
        }
        if self.options.compaction_marks && listed.no_downsample {
            marks.no_downsample = NoDownsampleMark::read(&self.bucket, id).await?;
        }
        if by_listing && listed != Listed::NONE {
            self.known_marks.lock().insert(id, (listed, marks.clone()));
        }
        Ok(marks)
    }

    /// Keeps the metas of this round and forgets those of blocks that are gone.
    fn remember(&self, read: &BTreeMap<BlockId, Arc<BlockMeta>>, found: &BTreeMap<BlockId, Found>) {
        self.known_marks.lock().retain(|id, _| found.contains_key(id));
        let gone: Vec<BlockId> = {
            let mut known = self.known.lock();
            let gone = known.keys().filter(|id| !found.contains_key(id)).copied().collect();
            known.retain(|id, _| found.contains_key(id));
            known.extend(read.iter().map(|(id, meta)| (*id, meta.clone())));
            gone
        };
        if let Some(dir) = &self.options.cache_dir {
            for id in gone {
                // Best effort: a stale file costs a few hundred bytes and is looked at only if the block is listed.
                let _ = std::fs::remove_dir_all(cached_dir(dir, id));
            }
        }
    }
}

fn cached_dir(dir: &Path, id: BlockId) -> PathBuf {
    dir.join("meta-syncer").join(id.to_string())
}

fn read_cached(dir: &Path, id: BlockId) -> Option<BlockMeta> {
    let file = cached_dir(dir, id).join(layout::META);
    let json = std::fs::read(&file).ok()?;
    BlockMeta::parse(&file.to_string_lossy(), &json).ok().filter(|m| m.ulid == id)
}

async fn write_cached(dir: &Path, id: BlockId, json: Vec<u8>) -> Result<()> {
    let dir = cached_dir(dir, id);
    crate::upload::blocking(move || {
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let tmp = dir.join("meta.json.tmp");
        std::fs::write(&tmp, json).map_err(Error::io("write", &tmp))?;
        std::fs::rename(&tmp, dir.join(layout::META)).map_err(Error::io("rename", &tmp))
    })
    .await
}
