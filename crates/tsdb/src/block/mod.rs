//! A block: an immutable directory with the samples of a time range.
//!
//! ```text
//! <ULID>/meta.json  index  chunks/000001 …  tombstones
//! ```
//!
//! Written under `<ULID>.tmp-for-creation`, synced, then renamed: a directory with a ULID for a name is complete.
//! Deletion renames to `<ULID>.tmp-for-deletion` first.

mod meta;

pub use meta::{
    BlockFile, BlockMeta, BlockParent, BlockStats, Compaction, Downsample, HINT_OUT_OF_ORDER, IndexStats,
    META_FILE, ThanosMeta,
};

use std::fs::File;
use std::path::Path;

use crate::{Error, Result};

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("sync", dir))
}
