//! PromQL scripts over the storages of the product, each written to and read from as the binary does it.
//!
//! ```text
//! head     WriteSink ─ Db (heads, log) ─ TenantsStore ─────────────────────────────┐
//! blocks   BlockWriter ─ upload ─ bucket ─ BucketStore ─┬─ gRPC server ─ StoreClient ┴─ Fanout ─ StoreQueryable
//!                                                       └─ in the same process ──────┘
//! ```
//!
//! `promql` itself runs the same scripts over series in memory.

mod blocks;
mod head;
mod select;

pub use blocks::{BlockStorage, Way};
pub use head::HeadStorage;
pub use select::queryable_with;
