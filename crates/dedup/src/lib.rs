//! Replica choice and overlap merging, on columns of samples.
//!
//! Queries and compaction use the same rules: [`penalty`] chooses between replicas of one series, so that two
//! Prometheus servers scraping the same target look like one; [`replicas`] first puts together what are copies of one stream;
//! [`chain`] and [`merge_overlapping`] take every sample and drop only equal timestamps. Everything is pure; inputs are ascending in time.

pub mod chain;
mod one_stream;
mod overlap;
pub mod penalty;
pub mod replicas;

pub use overlap::{merge_overlapping, split_overlaps};
