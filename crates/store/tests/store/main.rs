//! The store over buckets.

mod bucket_index;
mod caches;
mod faults;
mod serving;
mod support;
