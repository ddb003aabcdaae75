//! The block index, format version 2 (read also 1 and 3). Byte layouts: `docs/format/block.md`.
//!
//! ```text
//! magic BAAAD700 ‖ version │ symbols │ series │ postings lists │ postings offset table │ TOC (52 bytes)
//! ```
//!
//! [`Symbols`], [`PostingsTable`] and [`Toc`] work on the bytes of their own section, so an index header (the same
//! sections kept near a store while the index stays in the bucket) uses them as they are. All of them hold
//! [`bytes::Bytes`]: a mapped file, a fetched range or a buffer are the same to them, and slices of it cost nothing.

mod interner;
mod output;
mod postings_table;
mod postings_writer;
mod reader;
mod series;
mod sorted_writer;
mod stream;
mod symbols;
mod toc;
mod writer;

pub use postings_table::{PostingsRange, PostingsTable, parse_postings};
pub use reader::IndexReader;
pub use series::{ChunkMeta, SeriesRecord};
pub(crate) use sorted_writer::{SortedIndexWriter, symbol_bytes};
pub(crate) use stream::{IndexStream, SymbolStream};
pub use symbols::{SymbolCache, Symbols};
pub use toc::Toc;
pub use writer::{IndexWriter, IndexWriterOptions, IndexWritten};

/// First four bytes of an index.
pub const MAGIC: u32 = 0xBAAA_D700;
/// Bytes before the first section: magic and version.
pub const HEADER_BYTES: usize = 5;
/// The version written.
pub const VERSION_WRITTEN: u8 = 2;
/// A series starts at a multiple of this; references are offsets divided by it (versions 2 and 3).
pub const SERIES_ALIGN: u64 = 16;

#[cfg(test)]
mod tests;
