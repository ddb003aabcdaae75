//! The bucket index: what a listing of the bucket and a look into every meta.json told, in one object.
//!
//! ```text
//! compactor  full listing ─ BucketIndexWriter ─ chronolith/bucket-index.json.gz
//! store      one GET ─ what the index says of older blocks + a listing of the newest keys ─ filters
//! ```
//!
//! Gzipped lines of JSON: a head (version, time of the listing, number of lines), then one line a block, in order. The
//! metas are cut down to what a reader of the block needs. Readers take the index for blocks whose ULID is older than the
//! listing by [`RECENT_MS`] and list the others themselves, so that a block is seen as soon as it is there. The object
//! says nothing that the bucket does not say: it can be deleted at any time, several writers may replace each other's, and
//! whoever finds it missing, old or damaged lists the bucket. Other programs ignore it, as its key begins with no ULID.

mod reader;
mod writer;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use chronolith_model::BlockId;
use chronolith_objstore::Bucket;
use chronolith_tsdb::block::BlockMeta;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::upload::blocking;
use crate::{DeletionMark, Error, FetchResult, Result, layout};

pub use reader::{BlockFinder, FinderOptions, IndexUse};
pub use writer::BucketIndexWriter;

const VERSION: u32 = 1;
/// Blocks this much younger than the listing are not taken from the index: their upload may have been under way.
const RECENT_MS: i64 = 3 * 3_600_000;
/// More than any index has: a million blocks take some 150 MB.
const OBJECT_BYTES_MAX: u64 = 1 << 30;
/// A line longer than this is damage: a block has thousands of sources at the most, of 29 bytes each.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// What the index tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BucketIndex {
    /// When the listing behind it began, in milliseconds since the epoch.
    pub listed_at_ms: i64,
    /// Blocks with a sound meta.json; of the metas what a reader needs.
    pub blocks: BTreeMap<BlockId, Arc<BlockMeta>>,
    /// Their deletion marks.
    pub marks: HashMap<BlockId, DeletionMark>,
    /// Blocks whose meta.json or marks could not be read: readers look for themselves.
    pub unread: BTreeSet<BlockId>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    listed_at_ms: i64,
    lines: usize,
}

#[derive(Serialize)]
struct LineOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a BlockMeta>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_mark: Option<&'a DeletionMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<String>,
}

#[derive(Deserialize)]
struct LineIn<'a> {
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(default)]
    deletion_mark: Option<DeletionMark>,
    #[serde(default)]
    unread: Option<String>,
}

impl BucketIndex {
    /// The index of what a fetch without filters found. Errors: the fetch left blocks out, so that readers would miss
    /// them.
    pub fn from_found(found: &FetchResult, listed_at_ms: i64) -> Result<Self> {
        if let Some((block, why)) = found.excluded.iter().next() {
            let what =
                format!("a bucket index must name all blocks, this one was left out: {}", why.as_str());
            return Err(Error::Invalid { block: *block, what });
        }
        let unread: BTreeSet<BlockId> =
            found.failed.keys().chain(found.corrupt.keys()).chain(&found.unsure).copied().collect();
        let mut blocks = found.blocks.clone();
        blocks.retain(|id, _| !unread.contains(id));
        let marks = found.marks.iter().filter(|(id, _)| blocks.contains_key(id));
        let marks = marks.map(|(id, mark)| (*id, mark.clone())).collect();
        Ok(BucketIndex { listed_at_ms, blocks, marks, unread })
    }

    /// The object's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        let lines = self.blocks.len() + self.unread.len();
        put_line(&mut out, &Head { version: VERSION, listed_at_ms: self.listed_at_ms, lines });
        for (id, meta) in &self.blocks {
            let meta = slim(meta);
            let deletion_mark = self.marks.get(id);
            put_line(&mut out, &LineOut { meta: Some(&meta), deletion_mark, unread: None });
        }
        for id in &self.unread {
            put_line(&mut out, &LineOut { meta: None, deletion_mark: None, unread: Some(id.to_string()) });
        }
        out.finish().expect("a Vec takes every byte").into()
    }

    /// Reads the object. `known` are metas from before: blocks never change, so theirs are kept and shared. Errors when
    /// anything in it is damaged: a part of an index is worth nothing.
    pub fn decode(object: &[u8], known: &BTreeMap<BlockId, Arc<BlockMeta>>) -> Result<Self> {
        let corrupt = |line: usize, what: String| {
            Error::corrupt(layout::BUCKET_INDEX, 0, format!("line {}: {what}", line + 1))
        };
        let mut input = BufReader::new(GzDecoder::new(object));
        let mut text = Vec::new();
        let mut next = |n: usize, text: &mut Vec<u8>| {
            text.clear();
            let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', text);
            read.map_err(|e| corrupt(n, e.to_string()))?;
            if text.last() == Some(&b'\n') || text.is_empty() {
                Ok(())
            } else {
                Err(corrupt(n, "ends early".to_owned()))
            }
        };
        next(0, &mut text)?;
        let head: Head = serde_json::from_slice(&text).map_err(|e| corrupt(0, e.to_string()))?;
        if head.version != VERSION {
            let what = format!("bucket index version {} is unknown, only {VERSION} is read", head.version);
            let file = layout::BUCKET_INDEX.to_owned();
            return Err(chronolith_tsdb::Error::Unsupported { file, what }.into());
        }
        let mut index = BucketIndex { listed_at_ms: head.listed_at_ms, ..BucketIndex::default() };
        for n in 1..=head.lines {
            next(n, &mut text)?;
            let line: LineIn<'_> = serde_json::from_slice(&text).map_err(|e| corrupt(n, e.to_string()))?;
            match (line.meta, line.unread) {
                (Some(meta), None) => {
                    let meta = BlockMeta::parse(layout::BUCKET_INDEX, meta.get().as_bytes())?;
                    let id = meta.ulid;
                    let meta = known.get(&id).cloned().unwrap_or_else(|| Arc::new(meta));
                    index.blocks.insert(id, meta);
                    index.marks.extend(line.deletion_mark.map(|mark| (id, mark)));
                }
                (None, Some(id)) => {
                    let id = id.parse().map_err(|_| corrupt(n, format!("{id:?} is no block")))?;
                    index.unread.insert(id);
                }
                _ => return Err(corrupt(n, "neither a meta nor the name of a block".to_owned())),
            }
        }
        // Reads the checksum at the end, too.
        next(head.lines + 1, &mut text)?;
        match text.is_empty() {
            true => Ok(index),
            false => Err(corrupt(head.lines + 1, "more lines than the head says".to_owned())),
        }
    }

    /// Writes it into the bucket and tells its size in bytes.
    pub async fn write(self, bucket: &Bucket) -> Result<u64> {
        let bytes = blocking(move || Ok(self.encode())).await?;
        let size = bytes.len() as u64;
        bucket.put(layout::BUCKET_INDEX, bytes).await?;
        Ok(size)
    }

    /// Reads it from the bucket, see [`BucketIndex::decode`]. A writer whose clock is ahead would have its readers take the index for
    /// newer than it is and look for too few blocks themselves, so it was listed no later than the bucket says that it was written.
    pub async fn read(bucket: &Bucket, known: BTreeMap<BlockId, Arc<BlockMeta>>) -> Result<Self> {
        let (bytes, written) = bucket.get_dated(layout::BUCKET_INDEX, OBJECT_BYTES_MAX).await?;
        let written_ms = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut index = blocking(move || Self::decode(&bytes, &known)).await?;
        index.listed_at_ms = index.listed_at_ms.min(i64::try_from(written_ms).unwrap_or(i64::MAX));
        Ok(index)
    }
}

/// What a reader of the block needs of its meta: not the list of segments, not the history beyond the sources.
fn slim(meta: &BlockMeta) -> BlockMeta {
    let mut meta = meta.clone();
    meta.compaction.parents = Vec::new();
    meta.unknown.clear();
    if let Some(thanos) = &mut meta.thanos {
        thanos.segment_files = Vec::new();
        thanos.files.retain(|f| f.rel_path == layout::INDEX);
    }
    meta
}

fn put_line(out: &mut impl Write, line: &impl Serialize) {
    let mut text = serde_json::to_vec(line).expect("a line has string keys only");
    text.push(b'\n');
    out.write_all(&text).expect("a Vec takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith_model::Labels;
    use chronolith_tsdb::block::{BlockFile, ThanosMeta};

    fn id(n: u128) -> BlockId {
        BlockId(n.into())
    }

    fn found(count: u128) -> FetchResult {
        let mut found = FetchResult::default();
        for n in 1..=count {
            let mut meta = BlockMeta::new(id(n), 100, 200);
            let mut thanos = ThanosMeta::new(&Labels::from_pairs([("cluster", "a")]).unwrap(), "test");
            for rel_path in ["chunks/000001", "index"] {
                let rel_path = rel_path.to_owned();
                thanos.files.push(BlockFile { rel_path, size_bytes: 7, ..BlockFile::default() });
            }
            meta.thanos = Some(thanos);
            meta.compaction.sources = vec![id(n)];
            found.blocks.insert(id(n), Arc::new(meta));
        }
        found.corrupt.insert(id(1000), "garbage".to_owned());
        found.failed.insert(id(1001), "503".to_owned());
        found
    }

    #[test]
    fn round_trip_keeps_what_readers_need() {
        let index = BucketIndex::from_found(&found(20), 77).unwrap();
        let read = BucketIndex::decode(&index.encode(), &BTreeMap::new()).unwrap();
        assert_eq!((read.listed_at_ms, read.blocks.len()), (77, 20));
        assert_eq!(read.unread, BTreeSet::from([id(1000), id(1001)]));
        let meta = &read.blocks[&id(3)];
        let thanos = meta.thanos.as_ref().unwrap();
        assert_eq!(thanos.labels["cluster"], "a");
        assert_eq!(thanos.files.len(), 1, "the index and its size");
        assert_eq!((meta.min_time, meta.max_time, &meta.compaction.sources[..]), (100, 200, &[id(3)][..]));
        let again = BucketIndex::decode(&read.clone().encode(), &read.blocks).unwrap();
        assert_eq!(again, read);
        assert!(Arc::ptr_eq(&again.blocks[&id(3)], meta), "known metas are shared");
    }

    #[test]
    fn a_filtered_listing_makes_no_index() {
        let mut found = found(2);
        found.excluded.insert(id(5), crate::Excluded::Duplicate);
        assert!(BucketIndex::from_found(&found, 0).unwrap_err().to_string().contains("duplicate"));
    }

    #[test]
    fn damage_of_any_kind_is_an_error() {
        let written = BucketIndex::from_found(&found(20), 77).unwrap().encode();
        let index = BucketIndex::decode(&written, &BTreeMap::new()).unwrap();
        let whole = index.encode();
        let decode = |bytes: &[u8]| BucketIndex::decode(bytes, &BTreeMap::new());
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "cut to {len} of {}", whole.len());
        }
        for at in 10..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x10;
            // Bits that fill up a byte of the compressed data mean nothing.
            if let Ok(read) = decode(&bytes) {
                assert!(read == index, "byte {at} of {} changed", whole.len());
            }
        }
        let gz = |text: &str| {
            let mut out = GzEncoder::new(Vec::new(), Compression::fast());
            out.write_all(text.as_bytes()).unwrap();
            out.finish().unwrap()
        };
        let head = |lines: usize| format!("{{\"version\":1,\"listed_at_ms\":5,\"lines\":{lines}}}\n");
        assert!(decode(&gz(&head(0))).unwrap().blocks.is_empty());
        for (text, want) in [
            ("{\"version\":2,\"listed_at_ms\":5,\"lines\":0}\n".to_owned(), "version 2 is unknown"),
            (head(1), "line 2"),
            (head(0) + "{}\n", "more lines"),
            (head(1) + "{}\n", "neither"),
            (head(1) + "{\"unread\":\"x\"}\n", "no block"),
        ] {
            let err = decode(&gz(&text)).unwrap_err().to_string();
            assert!(err.contains(want), "{text}: {err}");
        }
    }
}
