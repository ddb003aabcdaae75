//! A block: an immutable directory with the samples of a time range. Byte layouts: `docs/format/block.md`.
//!
//! ```text
//! <ULID>/meta.json  index  chunks/000001 …  tombstones
//! ```
//!
//! Written under `<ULID>.tmp-for-creation`, synced, then renamed: a directory with a ULID for a name is complete.
//! Deletion renames to `<ULID>.tmp-for-deletion` first. [`remove_leftovers`] clears what a crash left of either.

mod dir;
mod meta;
mod raw;
mod reader;
mod recode;
mod segment;
mod select;
mod tombstones;
mod unknown;
mod verify;
mod writer;

pub(crate) use dir::{CHUNKS_DIR, CREATION_SUFFIX, INDEX_FILE, sync_dir};
pub use dir::{block_files, delete_block, list_blocks, remove_leftovers};
pub use meta::{
    BlockFile, BlockMeta, BlockParent, BlockStats, Compaction, Downsample, HINT_OUT_OF_ORDER, IndexStats,
    META_FILE, ThanosMeta,
};
pub(crate) use raw::RawChunks;
pub use reader::Block;
pub use recode::without_ranges;
pub(crate) use recode::{AnySample, decode as decode_samples, encode_samples, merge_group};
pub use segment::{SEGMENT_BYTES_MAX, chunk_entry_bytes, parse_chunk, segment_name};
pub use select::Select;
pub use tombstones::{TOMBSTONES_FILE, Tombstones};
pub use unknown::UnknownKeys;
pub use verify::{VerifyReport, verify, verify_structure};
pub(crate) use writer::BlockDraft;
pub use writer::{BlockParts, BlockWriter, BlockWriterOptions};

#[cfg(test)]
mod tests;
