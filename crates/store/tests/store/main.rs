//! The store over buckets.

mod bucket_index;
mod caches;
mod deletions;
mod faults;
mod grpc;
mod hedging;
mod serving;
mod support;
