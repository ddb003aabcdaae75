//! Head, WAL, blocks: Prometheus's TSDB formats on local files.

pub mod db;
pub mod head;
#[allow(dead_code)] // The database that uses it is the next change.
pub mod wal;
