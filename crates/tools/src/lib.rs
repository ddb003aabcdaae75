//! Tools over buckets and directories of blocks: what an operator looks at and mends by hand.
//!
//! ```text
//! chronolith tools bucket …  Listing ─ what is in the bucket, marks included ─ a tool ─ table or JSON
//! chronolith tools tsdb …    blocks of a directory ─ a tool ─ text as promtool prints it
//! ```
//!
//! Names and flags are those of `thanos tools bucket` and `promtool tsdb`, where these have them. Results go to the given
//! output, progress to standard error. What changes a bucket can be stopped anywhere and done again.

pub mod bucket;
mod error;
mod listing;
mod output;
mod progress;
pub mod tsdb;

pub use bucket::BucketTool;
pub use error::{Result, ToolError};
pub use listing::{Listed, Listing};
pub use output::Format;
pub use tsdb::TsdbTool;
