//! Blocks in a bucket.
//!
//! ```text
//! upload:  local block ─ chunks ─ index ─ verify ─ meta.json
//! read:    Fetcher ─ metas ─ BucketBlock ─ IndexHeader (local) ─ postings ─ series ─ chunk ranges
//! delete:  meta.json ─ the rest ─ deletion mark
//! ```
//!
//! Objects and the header's layout: `docs/format/bucket.md`.

mod bucket_index;
mod cache;
mod chunk_cache;
mod delete;
pub mod deletions;
mod download;
mod error;
mod fetch;
mod filter;
mod index_header;
pub mod layout;
mod marks;
mod refs;
mod run_cache;
mod series;
mod time;
mod time_bound;
mod upload;

pub use bucket_index::{BlockFinder, BucketIndex, BucketIndexWriter, FinderOptions, IndexUse};
pub use cache::{CachedItems, IndexCache};
pub use chunk_cache::{ChunkCache, ChunkCacheOptions};
pub use delete::{Cleaning, PARTIAL_UPLOAD_AGE, delete_block};
pub use deletions::{DeletionRequest, DeletionWatch, Deletions, Mask};
pub use download::download_block;
pub use error::{Error, ErrorKind, Result};
pub use fetch::{Discovery, FetchOptions, FetchResult, Fetcher, PartialBlock};
pub use filter::{BlockFilter, Excluded, covers};
pub use index_header::{HeaderSource, IndexHeader};
pub use marks::{DeletionMark, NoCompactMark, NoDownsampleMark, carry_marks};
pub use run_cache::RunCache;
pub use series::{
    BlockSeries, BucketBlock, Limiter, Limits, QueryStats, ReadBudget, SelectRequest, StatsSnapshot,
};
pub use time_bound::TimeBound;
pub use upload::{UploadOptions, is_uploaded, upload_block};
