//! `meta.json`: what a block covers and where it came from. Written last, so a directory with it is complete.
//!
//! Prometheus's fields, and beside them Thanos's object `thanos`. Keys that this build does not know survive being
//! read and written again, at both levels.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use chronolith_model::{BlockId, Labels, Resolution, TimeRange};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::unknown::UnknownKeys;
use crate::{Error, Result};

/// Name of the file.
pub const META_FILE: &str = "meta.json";
/// The only version there is.
const VERSION: u64 = 1;
/// A compacted block's meta has a few KiB; a file this large is no meta.
const META_BYTES_MAX: u64 = 64 << 20;

/// What `meta.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockMeta {
    /// The block's name.
    #[serde(with = "block_id")]
    pub ulid: BlockId,
    /// First millisecond of the block.
    pub min_time: i64,
    /// First millisecond after the block.
    pub max_time: i64,
    /// Sizes.
    #[serde(default)]
    pub stats: BlockStats,
    /// History.
    #[serde(default)]
    pub compaction: Compaction,
    version: u64,
    /// Thanos's part; absent in a plain Prometheus block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thanos: Option<ThanosMeta>,
    /// Keys unknown to this build.
    #[serde(flatten)]
    pub unknown: UnknownKeys,
}

/// Sizes of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockStats {
    /// Samples of all kinds.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Float samples.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Native histogram samples.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Tombstone intervals.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
    /// Keys unknown to this build.
    #[serde(flatten)]
    pub unknown: UnknownKeys,
}

/// How a block came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// 1 from a head, one more than the highest input from a merge.
    pub level: u32,
    /// All level-1 ancestors, sorted; the block itself at level 1.
    #[serde(with = "block_ids", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<BlockId>,
    /// Every sample is gone; the block may be dropped.
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// Direct inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<BlockParent>,
    /// A compaction of this block failed.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Sorted remarks, see [`HINT_OUT_OF_ORDER`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Keys unknown to this build.
    #[serde(flatten)]
    pub unknown: UnknownKeys,
}

/// All samples of the block came out of order.
pub const HINT_OUT_OF_ORDER: &str = "from-out-of-order";

/// A direct input of a merge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockParent {
    /// Its name.
    #[serde(with = "block_id")]
    pub ulid: BlockId,
    /// Its first millisecond.
    pub min_time: i64,
    /// The first millisecond after it.
    pub max_time: i64,
}

/// Thanos's part of a meta.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThanosMeta {
    /// 1; 0 (left out) means 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u64,
    /// External labels of the producer.
    #[serde(deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Resolution.
    pub downsample: Downsample,
    /// Who made the block: `receive`, `sidecar`, `compactor`, …
    pub source: String,
    /// Deprecated list of segment names, still read by others.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub segment_files: Vec<String>,
    /// The block's files, sorted by path.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub files: Vec<BlockFile>,
    /// Read-size hints for store gateways.
    #[serde(skip_serializing_if = "IndexStats::is_empty")]
    pub index_stats: IndexStats,
    /// Moment of upload, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_time: Option<String>,
    /// Keys unknown to this build, and those it only carries along (`rewrites`, `extensions`).
    #[serde(flatten)]
    pub unknown: UnknownKeys,
}

impl ThanosMeta {
    /// A section for a raw block of a producer.
    pub fn new(external_labels: &Labels, source: &str) -> Self {
        let labels = external_labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        ThanosMeta { version: VERSION, labels, source: source.to_owned(), ..ThanosMeta::default() }
    }

    /// The external labels as a label set.
    pub fn external_labels(&self) -> Result<Labels> {
        Labels::from_pairs(&self.labels).map_err(|e| Error::Invalid(format!("external labels: {e}")))
    }
}

/// Resolution of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Downsample {
    /// Milliseconds: 0, 300000 or 3600000.
    pub resolution: i64,
}

/// A file of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockFile {
    /// Path below the block's directory, with `/`.
    pub rel_path: String,
    /// Length; left out for meta.json itself.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: u64,
    /// Optional checksum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Value>,
    /// Keys unknown to this build.
    #[serde(flatten)]
    pub unknown: UnknownKeys,
}

/// Largest pieces of a block; 0 means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IndexStats {
    /// Largest series entry in the index.
    #[serde(skip_serializing_if = "is_zero")]
    pub series_max_size: u64,
    /// Largest chunk with its length, encoding and checksum.
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_max_size: u64,
}

impl IndexStats {
    fn is_empty(&self) -> bool {
        *self == IndexStats::default()
    }
}

impl BlockMeta {
    /// A meta without statistics, history or Thanos's part.
    pub fn new(ulid: BlockId, min_time: i64, max_time: i64) -> Self {
        BlockMeta {
            ulid,
            min_time,
            max_time,
            stats: BlockStats::default(),
            compaction: Compaction::default(),
            version: VERSION,
            thanos: None,
            unknown: UnknownKeys::default(),
        }
    }

    /// Reads the JSON text of `file` (its name in errors).
    pub fn parse(file: &str, json: &[u8]) -> Result<Self> {
        let corrupt = |e: serde_json::Error| {
            Error::corrupt(file, line_offset(json, e.line(), e.column()), format!("meta.json: {e}"))
        };
        let mut meta: BlockMeta = serde_json::from_slice(json).map_err(corrupt)?;
        // Stores keep thousands of these: room that lists left for more is given back.
        meta.compaction.sources.shrink_to_fit();
        if let Some(thanos) = &mut meta.thanos {
            thanos.files.shrink_to_fit();
        }
        let unsupported = |what: String| Err(Error::Unsupported { file: file.to_owned(), what });
        if meta.version != VERSION {
            return unsupported(format!("meta.json version {} is unknown, only 1 is read", meta.version));
        }
        if let Some(version) = meta.thanos.as_ref().map(|t| t.version).filter(|v| *v > 1) {
            return unsupported(format!("thanos section version {version} is unknown, only 1 is read"));
        }
        if meta.max_time < meta.min_time {
            let what = format!("meta.json: maxTime {} is before minTime {}", meta.max_time, meta.min_time);
            return Err(Error::corrupt(file, 0, what));
        }
        Ok(meta)
    }

    /// Reads `meta.json` of a block directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(META_FILE);
        let len = std::fs::metadata(&path).map_err(Error::io("stat", &path))?.len();
        let file = path.display().to_string();
        if len > META_BYTES_MAX {
            return Err(Error::corrupt(&file, 0, format!("{len} bytes are too many for a meta.json")));
        }
        let json = std::fs::read(&path).map_err(Error::io("read", &path))?;
        Self::parse(&file, &json)
    }

    /// The JSON text, indented with tabs as Prometheus and Thanos write it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.serialize(&mut serializer).expect("a meta has string keys only and a Vec takes every byte");
        out
    }

    /// Writes `meta.json` into a block directory: temporary file, sync, rename.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let tmp = dir.join("meta.json.tmp");
        let path = dir.join(META_FILE);
        let write = || {
            let mut file = File::create(&tmp)?;
            file.write_all(&self.to_json())?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &tmp))?;
        std::fs::rename(&tmp, &path).map_err(Error::io("rename", &tmp))?;
        super::sync_dir(dir)
    }

    /// The block's times as a closed range; empty for an empty block. A block that ends at the largest time there
    /// is holds that millisecond too, since nothing could stand behind it.
    pub fn time_range(&self) -> TimeRange {
        let maxt = if self.max_time == i64::MAX { i64::MAX } else { self.max_time.saturating_sub(1) };
        TimeRange::new(self.min_time, maxt)
    }

    /// The block's resolution; `None` for a spacing that does not exist.
    pub fn resolution(&self) -> Option<Resolution> {
        Resolution::from_ms(self.thanos.as_ref().map_or(0, |t| t.downsample.resolution))
    }

    /// This block as an input of a merge.
    pub fn as_parent(&self) -> BlockParent {
        BlockParent { ulid: self.ulid, min_time: self.min_time, max_time: self.max_time }
    }
}

fn line_offset(text: &[u8], line: usize, column: usize) -> u64 {
    let before: usize =
        text.split_inclusive(|b| *b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)).min(text.len()) as u64
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !b
}

/// Go writes an empty map or slice as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

mod block_id {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(id: &BlockId, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<BlockId, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

mod block_ids {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(ids: &[BlockId], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(ids.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<BlockId>, D::Error> {
        let texts: Vec<String> = Option::deserialize(d)?.unwrap_or_default();
        texts.iter().map(|t| t.parse().map_err(serde::de::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THANOS: &str = r#"{
	"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
	"minTime": 0,
	"maxTime": 7200000,
	"stats": {
		"numSamples": 10,
		"numSeries": 1,
		"future": 3
	},
	"compaction": {
		"level": 2,
		"sources": [
			"01ARZ3NDEKTSV4RRFFQ69G5FAV"
		],
		"hints": [
			"from-out-of-order",
			"from-the-future"
		]
	},
	"version": 1,
	"thanos": {
		"version": 1,
		"labels": {
			"cluster": "a"
		},
		"downsample": {
			"resolution": 300000
		},
		"source": "compactor",
		"files": [
			{
				"rel_path": "meta.json"
			}
		],
		"index_stats": {
			"series_max_size": 100
		},
		"upload_time": "0001-01-01T00:00:00Z",
		"extensions": {
			"x": 1
		}
	},
	"extra": true
}"#;

    #[test]
    fn a_foreign_meta_is_written_as_it_was_read() {
        let meta = BlockMeta::parse("m", THANOS.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(meta.to_json()).unwrap(), THANOS);
        assert_eq!(meta.resolution(), Some(Resolution::FiveMinutes));
        assert_eq!(meta.time_range(), TimeRange::new(0, 7_199_999));
    }

    #[test]
    fn nulls_of_go_are_empty() {
        let json = r#"{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1,"maxTime":2,"version":1,
            "compaction":{"level":1,"sources":null},"thanos":{"labels":null,"files":null}}"#;
        let meta = BlockMeta::parse("m", json.as_bytes()).unwrap();
        assert!(meta.thanos.unwrap().labels.is_empty());
    }

    #[test]
    fn bad_metas_are_named() {
        let cases = [
            ("{", "m: corrupt at offset"),
            (r#"{"ulid":"x","minTime":0,"maxTime":1,"version":1}"#, "not a ULID"),
            (
                r#"{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":0,"maxTime":1,"version":2}"#,
                "m: meta.json version 2 is unknown",
            ),
            (
                r#"{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":0,"maxTime":1,"version":1,"thanos":{"version":9}}"#,
                "thanos section version 9 is unknown",
            ),
            (
                r#"{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":5,"maxTime":1,"version":1}"#,
                "before minTime",
            ),
        ];
        for (json, want) in cases {
            let err = BlockMeta::parse("m", json.as_bytes()).unwrap_err().to_string();
            assert!(err.contains(want), "{err}");
        }
    }
}
