//! Everything that lies in a bucket, by block: one listing, then meta.json and the marks that are there.

use std::collections::BTreeMap;
use std::time::SystemTime;

use chronolith_bucket::{DeletionMark, NoCompactMark, NoDownsampleMark, layout};
use chronolith_model::{BlockId, Labels, Matcher};
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::{BlockMeta, ThanosMeta};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::Result;
use crate::progress::Progress;

/// Requests in flight; Thanos's number.
const CONCURRENT: usize = 32;

/// What is at a block's place.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The block.
    pub id: BlockId,
    /// Sizes of its objects, by path below the block.
    pub objects: BTreeMap<String, u64>,
    /// When the newest of them was written.
    pub modified: SystemTime,
    /// Its meta.json; `Ok(None)` without one, `Err` with what is wrong with it.
    pub meta: Result<Option<BlockMeta>, String>,
    /// It will be deleted.
    pub deletion: Option<DeletionMark>,
    /// It is left out of compaction.
    pub no_compact: Option<NoCompactMark>,
    /// It is left out of downsampling.
    pub no_downsample: Option<NoDownsampleMark>,
}

/// A bucket's blocks by id.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The blocks.
    pub blocks: BTreeMap<BlockId, Listed>,
}

/// The names of the marks that a block has.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Marks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deletion: Option<DeletionMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_compact: Option<NoCompactMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_downsample: Option<NoDownsampleMark>,
}

impl Listed {
    /// The meta, where it can be read.
    pub fn meta(&self) -> Option<&BlockMeta> {
        self.meta.as_ref().ok().and_then(Option::as_ref)
    }

    /// Bytes of all objects.
    pub fn bytes(&self) -> u64 {
        self.objects.values().sum()
    }

    pub(crate) fn marks(&self) -> Marks {
        Marks {
            deletion: self.deletion.clone(),
            no_compact: self.no_compact.clone(),
            no_downsample: self.no_downsample.clone(),
        }
    }
}

impl Listing {
    /// Reads the bucket. What cannot be read of one block is in its entry; errors only when the listing or the store fails.
    pub async fn read(bucket: &Bucket) -> Result<Self> {
        let mut blocks: BTreeMap<BlockId, Listed> = BTreeMap::new();
        let mut objects = bucket.list("");
        while let Some(object) = objects.try_next().await? {
            let Some((id, file)) = layout::parse(&object.key) else { continue };
            let listed = blocks.entry(id).or_insert_with(|| Listed {
                id,
                objects: BTreeMap::new(),
                modified: SystemTime::UNIX_EPOCH,
                meta: Ok(None),
                deletion: None,
                no_compact: None,
                no_downsample: None,
            });
            listed.objects.insert(file.to_owned(), object.size);
            listed.modified = listed.modified.max(object.last_modified);
        }
        let mut progress = Progress::new("reading metas", blocks.len());
        let reads = futures::stream::iter(blocks.into_values().collect::<Vec<_>>())
            .map(|listed| read_small_files(bucket, listed));
        let mut reads = reads.buffer_unordered(CONCURRENT);
        let mut blocks = BTreeMap::new();
        while let Some(listed) = reads.try_next().await? {
            progress.step(&listed.id);
            blocks.insert(listed.id, listed);
        }
        Ok(Listing { blocks })
    }

    /// The blocks whose meta can be read.
    pub fn with_meta(&self) -> impl Iterator<Item = (&Listed, &BlockMeta)> {
        self.blocks.values().filter_map(|b| Some((b, b.meta()?)))
    }
}

async fn read_small_files(bucket: &Bucket, mut listed: Listed) -> Result<Listed> {
    let id = listed.id;
    if listed.objects.contains_key(layout::META) {
        let key = layout::key(id, layout::META);
        listed.meta = match bucket.get(&key).await {
            Ok(json) => match BlockMeta::parse(&key, &json) {
                Ok(meta) if meta.ulid == id => Ok(Some(meta)),
                Ok(meta) => Err(format!("{key} names block {}", meta.ulid)),
                Err(e) => Err(e.to_string()),
            },
            // Deleted meanwhile.
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => return Err(e.into()),
        };
    }
    // A mark of a version that nobody knows is as good as none to a tool; the roles say so in their logs.
    if listed.objects.contains_key(layout::DELETION_MARK) {
        listed.deletion = DeletionMark::read(bucket, id).await.ok().flatten();
    }
    if listed.objects.contains_key(layout::NO_COMPACT_MARK) {
        listed.no_compact = NoCompactMark::read(bucket, id).await.ok().flatten();
    }
    if listed.objects.contains_key(layout::NO_DOWNSAMPLE_MARK) {
        listed.no_downsample = NoDownsampleMark::read(bucket, id).await.ok().flatten();
    }
    Ok(listed)
}

/// Thanos's part of a meta, empty for a plain Prometheus block.
pub(crate) fn thanos(meta: &BlockMeta) -> ThanosMeta {
    meta.thanos.clone().unwrap_or_default()
}

/// True when the block's external labels satisfy all matchers.
pub(crate) fn matches(meta: &BlockMeta, matchers: &[Matcher]) -> bool {
    let thanos = meta.thanos.as_ref();
    matchers.iter().all(|m| {
        let value = thanos.and_then(|t| t.labels.get(&m.name)).map_or("", String::as_str);
        m.matches(value)
    })
}

/// External labels as `{a="b"}`.
pub(crate) fn labels_text(meta: &BlockMeta) -> String {
    let labels = Labels::from_pairs(&thanos(meta).labels);
    labels.map_or_else(|e| e.to_string(), |l| l.to_string())
}
