//! Replica choice and overlap merging, on columns of samples.
//!
//! Queries and compaction use the same two rules: [`penalty`] chooses between replicas of one series, so that two
//! Prometheus servers scraping the same target look like one; [`chain`] and [`merge_overlapping`] take every sample
//! and drop only equal timestamps. Everything is pure; inputs are ascending in time.

pub mod chain;
mod overlap;
pub mod penalty;

pub use overlap::{merge_overlapping, split_overlaps};
