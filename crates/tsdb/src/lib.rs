//! Head, WAL, blocks: Prometheus's TSDB formats on local files. Synchronous, no network.
//!
//! A block is read as `matchers → postings → series → chunk metas → chunk bytes`; [`postings`] holds the first step
//! for every source of series (head, block, bucket), [`index`] the file in the middle, [`block`] the directory.

pub mod block;
mod crc;
mod cursor;
pub mod db;
mod error;
pub mod head;
pub mod index;
pub mod merge;
mod mmap;
pub mod postings;
mod snapshot;
pub mod wal;
mod window;

pub use crc::crc32c;
pub use error::{Error, ErrorKind, Result};
pub use mmap::map_file;
